"""What a run, or a comparison of methods, found, as one page to look at."""

from __future__ import annotations

from hookmap.report.document import write_report
from hookmap.report.verdict import write_verdict

__all__ = ["write_report", "write_verdict"]
