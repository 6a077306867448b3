"""What a run found, as one page to look at."""

from __future__ import annotations

from hookmap.report.document import write_report

__all__ = ["write_report"]
