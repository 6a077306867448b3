"""What looking costs, against the training around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Cost:
    """Seconds spent looking and seconds spent training in between.

    Attributes:
        looks: how often the model was looked at.
        looking: seconds spent on that.
        training: seconds from the first look on that were spent on anything else.
        last: seconds of the last look.
        steps: training steps since the first look.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.looking = self.training = self.last = 0.0
        self.steps = 0
        self._left: tuple[float, int] | None = None

    @property
    def share(self) -> float:
        """Of all time since the first look began, what was spent looking; 0..1."""
        total = self.looking + self.training
        return self.looking / total if total else 0.0

    def allows(self, budget: float) -> bool:
        """Whether another look as long as the last would keep the share within the budget."""
        since = self.training + (time.perf_counter() - self._left[0] if self._left else 0.0)
        return self.looking + self.last <= budget * (since + self.looking + self.last)

    @contextmanager
    def looked_at(self, step: int) -> Iterator[None]:
        """A block that is one look."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # what training has queued isn't ours
        start = time.perf_counter()
        if self._left is not None:
            self.training += start - self._left[0]
            self.steps += max(0, step - self._left[1])
        try:
            yield
        finally:
            now = time.perf_counter()
            self.last = now - start
            self.looking += self.last
            self.looks += 1
            self._left = now, step

    def __str__(self) -> str:
        text = f"a look takes {self.last:.2g} s"
        if self.steps and self.training:
            own = self.training / self.steps
            text += f", as long as {self.last / own:.2g} training steps of {own:.2g} s"
            text += f"; {self.last / (self.last + self.training / max(1, self.looks - 1)):.1%} of the time"
        return text
