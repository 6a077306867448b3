"""What follows from the linear head of a classifier, where one directly follows the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hookmap.errors import LayerError, TargetError
from hookmap.methods.ingredients.copies import LayerProbe
from hookmap.methods.ingredients.ingredient import Ingredient, Pass, Records, Request, ingredient
from hookmap.methods.ingredients.recorded import activation
from hookmap.methods.weighting import full_precision


@ingredient
class Ablated(Ingredient):
    """Scores without a channel."""

    name = "ablated"
    description = "scores of the target with each channel set to zero, (B, C)"
    price = "the tail, once per channel"
    of_layer = True
    of_target = True
    records = Records.ACTIVATIONS

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C)``: in closed form if a plain linear head follows."""
        value: Tensor = run.kept(("ablated", request.layer), lambda: self._take(run, request))
        return value

    def _take(self, run: Pass, request: Request) -> Tensor:
        try:
            weight = linear_head(run, request.layer)
        except TargetError:
            weight = None
        if weight is None:
            return torch.stack([self._replayed(run, request, sample) for sample in range(len(run.x))], 1)
        falls = weight[run.targets.classes("ablation")] * activation(run, request.layer).flatten(2).mean(2)
        return full_precision(run.scores)[..., None] - falls

    def _replayed(self, run: Pass, request: Request, sample: int) -> Tensor:
        """The scores of one image without each of its channels, ``(T, C)``."""
        whole = activation(run, request.layer)[sample : sample + 1]
        score = full_precision(run.scores)[:, sample, None]
        channels = whole.shape[1]
        probe = LayerProbe(run, request, sample)
        # A rounding that all copies of a batch share must not count as a fall: the first of each batch is whole.
        beside = 1 if run.takes_batches() else 0
        before = None if beside else probe(whole)
        copies: Tensor | None = None
        scores = []
        for part in probe.parts(channels):
            channel = torch.arange(part.start, part.stop, device=whole.device)
            copy = channel - part.start + beside
            if copies is None:  # written to and mended, because memory is what this costs
                copies = whole[0].repeat(len(copy) + beside, *[1] * (whole.ndim - 1))
            copies[copy, channel] = 0
            after = probe(copies[: len(copy) + beside])
            scores.append(score + after[:, beside:] - (after[:, :1] if before is None else before))
            copies[copy, channel] = whole[0, part]
        return torch.cat(scores, 1)


@ingredient
class Head(Ingredient):
    """The head's weights."""

    name = "head"
    description = "the target class's weights in the linear layer that gives the scores, (B, C)"
    price = "a plain linear head"
    of_layer = True
    of_target = True
    records = Records.ACTIVATIONS

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C)``."""
        classes = run.targets.classes(request.method)
        weight = linear_head(run, request.layer)
        if weight is None:
            raise LayerError(
                f"{request.method} is defined where a layer is followed by global average pooling and one linear layer "
                f"only, and {request.layer!r} isn't; take gradcam, its generalisation, or the layer directly before "
                "the pooling"
            )
        return weight[classes]


def linear_head(run: Pass, layer: str) -> Tensor | None:
    """The weights ``(classes, C)`` of a linear layer that, after average pooling, gives the very scores; or None.

    Raises:
        TargetError: if a target isn't the logit of a class.
    """
    run.targets.classes("a linear head")
    if run.logits is None:
        return None
    maps, true = activation(run, layer), full_precision(run.logits)
    candidates = [
        module
        for module in run.model.modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        and module.weight.numel() == true.shape[1] * maps.shape[1]
        and module.weight.shape[0] == true.shape[1]
    ]
    pooled = maps.flatten(2).mean(2)
    half = run.logits.dtype in (torch.float16, torch.bfloat16)
    for module in reversed(candidates):
        weight = full_precision(module.weight.detach()).flatten(1)
        bias = full_precision(module.bias.detach()) if module.bias is not None else weight.new_zeros(len(weight))
        # All classes: one score alone could agree by chance, in half precision above all.
        logits = pooled @ weight.mT + bias
        if torch.allclose(logits, true, rtol=0, atol=(0.05 if half else 1e-3) * float(true.abs().max())):
            return weight
    return None
