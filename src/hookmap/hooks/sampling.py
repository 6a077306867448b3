"""Deformable attention as the graph kept it: where each query looked, at points of its own choice, and how much.

Such attention (Zhu et al., *Deformable DETR*, ICLR 2021, arXiv:2010.04159) reads feature maps of several levels at few
points per query, level by level with ``grid_sample``, and adds up what it found by weights. The nodes keep both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hookmap.hooks.graph import Origins, kind, users_of

_BETWEEN = {"Stack", "Cat", "View", "UnsafeView", "ReshapeAlias", "Clone", "Transpose", "Permute"}


@dataclass(frozen=True)
class Sampling:
    """Where the queries of one deformable attention looked.

    Attributes:
        module: the name of the layer in whose call it ran.
        points: (x, y) from 0 to 1 of the feature maps' width and height, ``(B, H, N, K, 2)``: of H heads, N queries and
            K points, those of the first level first. Outside of 0 to 1 there is nothing to read.
        weights: how much each counts, ``(B, H, N, K)``; they sum to one.
        levels: the level of each point, ``(K,)``.
    """

    module: str
    points: Tensor
    weights: Tensor
    levels: Tensor


def samplings_in(nodes: Sequence[Node], made: Origins, batch: int) -> list[Sampling]:
    """All deformable attentions of a graph, in the order in which they ran.

    Args:
        nodes: of the graph, in their order.
        made: which module made which node.
        batch: how many samples there are.
    """
    reads = [node for node in nodes if kind(node) == "GridSampler2D"]
    users = users_of(nodes) if reads else {}
    weighed: dict[tuple[Any, int], list[Any]] = {}
    for node in reads:
        user, slot = node, 0
        while len(users.get(user, ())) == 1 and (user is node or kind(user) in _BETWEEN):
            ((user, slot),) = users[user]
        if kind(user) == "Mul":
            weighed.setdefault((user, slot), []).append(node)
    found = []
    for (product, slot), levels in weighed.items():
        grids = [level._saved_grid.detach() for level in levels]  # (B * H, N, P, 2)
        weights = product._saved_other if slot == 0 else product._saved_self
        points = torch.cat(grids, 2)
        if weights is not None and weights.shape == (len(points), 1, *points.shape[1:3]):
            place = torch.repeat_interleave(torch.arange(len(grids)), torch.tensor([g.shape[2] for g in grids]))
            found.append(
                Sampling(
                    made.of(product),
                    (points.reshape(batch, -1, *points.shape[1:]) + 1) / 2,
                    weights.detach().reshape(batch, -1, *points.shape[1:3]),
                    place,
                )
            )
    return found
