"""How alike rows of numbers are."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of each row ``(M, K)`` with its like, or with the only one ``(1, K)``.

    Returns:
        ``(M,)`` in float64 on the CPU, -1..1; 0 where one of them is the same everywhere.
    """
    a, b = (rows - rows.mean(1, keepdim=True) for rows in (on_cpu(one), on_cpu(other)))
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size.clamp(min=1e-300), torch.zeros_like(size))


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's: :func:`pearson` of the ranks, so only the order counts."""
    return pearson(ranks(one), ranks(other))


def ranks(rows: Tensor) -> Tensor:
    """The ranks of the values in each row ``(M, K)``, from 0; equals share the mean of theirs."""
    values = on_cpu(rows).contiguous()
    ordered, _ = values.sort(dim=1)
    below = torch.searchsorted(ordered, values)
    through = torch.searchsorted(ordered, values, right=True)
    return (below + through - 1).double() / 2


def on_cpu(values: Tensor) -> Tensor:
    """In float64, which not every device has."""
    return values.detach().cpu().double()
