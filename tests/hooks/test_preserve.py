"""The model leaves as it came: modes, buffers, random state; also after exceptions and under threads."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from hookmap.hooks.preserve import _HELD, preserved


class Restless(nn.Module):
    """Counts its calls in a buffer, replaces another, and draws random numbers in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.Dropout().eval()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.full((2,), float("nan")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x.detach().flatten()[:2]
        return self.norm(x) + torch.rand(1)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_given_back(error: type[BaseException] | None) -> None:
    model = Restless().train()
    model.frozen.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    last, modes, rng = model.last, [m.training for m in model.modules()], torch.get_rng_state()

    def use() -> None:
        with preserved(model):
            assert not any(m.training for m in model.modules())
            model(torch.randn(4, 3, 5, 5))
            assert model.calls == 1
            if error:
                raise error

    if error:
        with pytest.raises(error):
            use()
    else:
        use()
    assert [m.training for m in model.modules()] == modes
    assert model.last is last
    assert torch.equal(torch.get_rng_state(), rng)
    for name, tensor in model.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(before[name])), name
    assert torch.isnan(model.last).all()
    assert not _HELD


def test_the_last_of_two_threads_gives_the_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3)).train()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with preserved(model):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with preserved(model):
        pass
    assert not model[0].training  # the other thread still looks
    leave.set()
    thread.join()
    assert model.training
    assert model[0].training
