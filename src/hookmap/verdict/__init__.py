"""Which method and layer to take for a model, by measurement: candidates, votes, gates, and the judgement in words."""

from hookmap.verdict.compare import compare
from hookmap.verdict.verdict import Verdict

__all__ = ["Verdict", "compare"]
