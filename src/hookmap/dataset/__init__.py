"""Over data sets: what to run, the run itself, and its results."""

from hookmap.dataset.results import Run, open_run
from hookmap.dataset.running import run

__all__ = ["Run", "open_run", "run"]
