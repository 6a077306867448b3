"""From a box in which nothing was detected to the candidate that should have been, and where it was lost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hookmap.adapters.outputs import Detections
from hookmap.attribution.engine import Engine
from hookmap.errors import TargetError
from hookmap.results.missed import Died, Missed
from hookmap.results.predictions import Prediction
from hookmap.targets import Box
from hookmap.targets.objects import on_picture, overlap

NEAR = 0.3
"""A candidate is near the box from this overlap on, and a detection may have suppressed it."""


def missed(engine: Engine, image: Any, box: tuple[float, float, float, float]) -> Missed:
    """Why nothing was detected in a box of the picture: see :meth:`hookmap.Lens.missed`.

    Raises:
        TargetError: if the model is no detector, or the box is empty.
        ImageError: if several images came.
    """
    wanted = Box(*box)
    batch = engine.only(image)
    output = engine.output(batch)
    if not isinstance(output, Detections):
        raise TargetError(f"{engine.name} detects no objects, so none can be missed; pass a detector")
    geometry = batch.views[0].geometry
    corners = geometry.to_input(torch.tensor([[wanted.left, wanted.top], [wanted.right, wanted.bottom]]))
    sure = output.probabilities[0].detach().float().cpu()  # (N, K)
    if not sure.numel():
        return Missed("nowhere")
    boxes = torch.stack([output.boxes_of(k)[0].detach().float().cpu() for k in range(sure.shape[1])], 1)  # (N, K, 4)
    shared = overlap(corners.flatten(), boxes)  # (N, K)
    near = shared >= NEAR
    best = int((torch.where(near, sure, -1) if near.any() else shared).argmax())
    row, label = divmod(best, sure.shape[1])

    def predicted(row: int, label: int) -> Prediction:
        left, top, right, bottom = on_picture(boxes[row, label], geometry).tolist()
        score = float(output.scores[0, row, label].detach())
        return Prediction(label, engine.label(label), score, float(sure[row, label]), (left, top, right, bottom))

    winner = _winner(output, boxes, sure, row, label)
    died: Died = "post-processing"
    if not near.any():
        died = "nowhere"
    elif (row, label) in {(kept.row, kept.label) for kept in output.kept[0]}:
        died = "detected"
    elif output.least is not None and sure[row, label] < output.least:
        died = "confidence"
    elif winner is not None:
        died = "suppression"
    return Missed(
        died,
        predicted(row, label),
        row,
        float(shared[row, label]),
        output.least,
        predicted(*winner) if winner is not None and died == "suppression" else None,
    )


def _winner(output: Detections, boxes: Tensor, sure: Tensor, row: int, label: int) -> tuple[int, int] | None:
    """The detection that overlaps a candidate most and is more probable: of its class, or else of any."""
    stronger = [k for k in output.kept[0] if sure[k.row, k.label] >= sure[row, label]]
    for rivals in ([k for k in stronger if k.label == label], stronger):
        by_overlap = {(k.row, k.label): float(overlap(boxes[row, label], boxes[k.row, k.label])) for k in rivals}
        best = max(by_overlap, key=by_overlap.__getitem__, default=None)
        if best is not None and by_overlap[best] >= NEAR:
            return best
    return None
