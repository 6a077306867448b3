"""Where a score went: every call closes its account."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Account:
    """Shares of one target's scores, summed over a batch, that add up to it.

    Attributes:
        score: the sum of the scores.
        input: the share of the input's pixels.
        parameters: that of biases, positions and class tokens, by name.
        shifts: that of batch norms' running means.
        absorbed: what rules keep by definition, by kind of node: the softmax of AttnLRP, the epsilon of stabilisers.
        suspects: nodes at which relevance may be missing, in words.
        tolerance: of the error, by the precision that the model ran in.
    """

    score: float
    input: float = 0.0
    parameters: dict[str, float] = field(default_factory=dict)
    shifts: float = 0.0
    absorbed: dict[str, float] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    tolerance: float = 1e-3

    @property
    def total(self) -> float:
        """All shares."""
        return self.input + sum(self.parameters.values()) + self.shifts + sum(self.absorbed.values())

    @property
    def scale(self) -> float:
        """The size of what was added up."""
        size = sum(map(abs, self.parameters.values())) + abs(self.shifts) + sum(map(abs, self.absorbed.values()))
        return max(abs(self.score), abs(self.input) + size, 1e-30)

    @property
    def error(self) -> float:
        """What is missing, over the scale."""
        return abs(self.score - self.total) / self.scale

    @property
    def caution(self) -> str:
        """What speaks against trusting it, in a few words; empty where it closes."""
        if self.error <= self.tolerance:
            return ""
        where = f"; look at {'; '.join(self.suspects[:3])}" if self.suspects else ""
        return f"incomplete: {self.error:.2g} of what makes the score is missing{where}"

    def __str__(self) -> str:
        parts = {"input": self.input, "parameters": sum(self.parameters.values()), "batch norms": self.shifts}
        parts |= {f"kept by {kind}": share for kind, share in self.absorbed.items()}
        shares = " + ".join(f"{name} {share:+.4g}" for name, share in parts.items() if share)
        return f"score {self.score:+.4g} = {shares} (error {self.error:.1e})"
