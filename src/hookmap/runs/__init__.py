"""Over data sets: what to run, the run itself, and its results."""

from hookmap.runs.results import Run, open_run
from hookmap.runs.driver import run

__all__ = ["Run", "open_run", "run"]
