"""Replays that can be differentiated."""

from __future__ import annotations

import torch

import hookmap as hm
from networks import noise
from tiny import close, tiny, with_changed


def test_a_replay_is_differentiated_where_what_changed_requires_it() -> None:
    net, x = tiny(), noise(1, 3, 24, 32).double()
    with hm.capture(net, "bend1", gradients=False) as seen:
        net(x)
        changed = (seen["bend1"].activation * torch.tensor([1.0, 0.5, 2.0]).double()[:, None, None, None]).detach()
        plain = seen.replay("bend1", changed, sample=0)
        changed.requires_grad_()
        with torch.enable_grad():
            output = seen.replay("bend1", changed, sample=0)
            (slope,) = torch.autograd.grad(output[:, 2].sum(), changed)
    assert not plain.requires_grad
    assert close(output.detach(), plain)
    assert all(p.grad is None for p in net.parameters())
    # Each variant's own derivative, by differences.
    step = 1e-6 * torch.randn_like(changed)
    with torch.no_grad():
        ends = [with_changed(net, "bend1", x, lambda _, side=side: changed + side * step)[:, 2] for side in (1, -1)]
    assert close((slope * step).flatten(1).sum(1), (ends[0] - ends[1]) / 2, 1e-5)
