"""Over data sets: what to run, the run itself, and its results."""

from hookmap.runs.driver import run
from hookmap.runs.results import Run, open_run

__all__ = ["Run", "open_run", "run"]
