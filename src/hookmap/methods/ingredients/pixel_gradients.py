"""Gradients of the score with respect to the input: plain, of changed copies, over noise, and guided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hookmap._nested import tensors_in
from hookmap._text import counted, listed
from hookmap.errors import DisconnectedError, ModelError
from hookmap.hooks.capture import INPUT, Capture, capture
from hookmap.hooks.graph import Origins, kind, nodes_of, origins
from hookmap.methods.ingredients.copies import Copies, described
from hookmap.methods.ingredients.ingredient import ImageIngredient, Ingredient, Pass, Request, ingredient
from hookmap.methods.ingredients.noisy_gradients import SAMPLES
from hookmap.methods.noise import noisy
from hookmap.methods.weighting import full_precision

_Gradients: TypeAlias = "Callable[[Pass, Tensor, int | slice], tuple[Tensor, Tensor]]"

_BENDS = {"Gelu", "Silu", "Mish", "Elu", "Celu", "LeakyRelu", "PreluKernel", "Softplus", "Hardswish", "LogSigmoid"}
_BENDS |= {"Tanh", "Threshold", "Softshrink", "Hardshrink", "Glu", "Maximum"}
"""Kinds of nodes by which a network bends otherwise than by ReLU; what gates (sigmoid, softmax) or pools isn't one."""


@ingredient
class PixelGradient(Ingredient):
    """The gradient at the input."""

    name = "pixel_gradient"
    description = "of the score with respect to the input, (B, C, *size)"
    price = "gradient down to the pixels"
    of_target = True
    starts_at_input = True

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *size)``."""
        if run.pixel_gradient is not None:
            return run.pixel_gradient
        value: Tensor = run.kept(("pixel gradient", None), lambda: _in_parts(run, request, plain))
        return value


@ingredient
class Slopes(ImageIngredient):
    """Gradients at changed inputs."""

    name = "slope"
    description = "scores of changed inputs and their gradients: a Slope"
    price = "gradient down to the pixels, of copies"
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> InputSlope:
        """For all targets."""
        return InputSlope(run, request, sample)


class InputSlope(Copies):
    """Scores of changed copies of one input ``(K, C, *size)`` and their gradients."""

    def __call__(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(T, K)`` and gradients ``(T, K, C, *size)``."""
        return plain(self._pass, changed.to(self._pass.x.dtype), self._sample)

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices whose graphs fit into memory; tells the progress bar."""
        return self._pass.slices(count, described(self._pass, self._request, self._sample), graph=True)


@ingredient
class NoisyGradient(ImageIngredient):
    """The gradient at the input over noise."""

    name = "noisy_gradient"
    description = "mean and variance of the gradient at the input over noisy copies of it, (B, 2, C, *size)"
    price = f"gradient down to the pixels, of {SAMPLES} noisy copies"
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> Tensor:
        """``(T, 2, C, *size)``."""
        value: Tensor = run.kept(("noisy gradient", sample), lambda: self._take(run, request, sample))
        return value

    def _take(self, run: Pass, request: Request, sample: int) -> Tensor:
        count = SAMPLES if run.budget is None else min(SAMPLES, run.budget)
        copies, slope = noisy(run.x[sample : sample + 1], count, run.generator()), InputSlope(run, request, sample)
        mean = squares = None
        for part in slope.parts(count):
            _, gradients = slope(torch.cat([*islice(copies, part.stop - part.start)]))
            for n, gradient in enumerate(gradients.unbind(1), part.start + 1):
                # Welford's update: the difference of two large sums would cancel.
                if mean is None or squares is None:
                    mean, squares = gradient.clone(), torch.zeros_like(gradient)
                    continue
                off = gradient - mean
                mean += off / n
                squares += off * (gradient - mean)
        assert mean is not None
        assert squares is not None
        return torch.stack([mean, squares / count], 1)


@ingredient
class GuidedGradient(Ingredient):
    """The gradient at the input, guided."""

    name = "guided_gradient"
    description = "gradient at the input that passes a ReLU only where it is positive, (B, C, *size)"
    price = "gradient down to the pixels, through ReLUs only"
    of_target = True

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *size)``."""
        value: Tensor = run.kept(("guided gradient", None), lambda: _in_parts(run, request, guided))
        return value


def plain(run: Pass, x: Tensor, of: int | slice) -> tuple[Tensor, Tensor]:
    """Scores of inputs, ``(T, K)``, and their gradients with respect to them, ``(T, K, C, *size)``.

    Args:
        run: whose targets are asked.
        x: copies of one image of the batch, or some of its images, changed or not: ``(K, C, *size)``.
        of: the number of that image, or which images they are.

    Raises:
        DisconnectedError: if no gradient leads from the scores to the pixels.
    """
    try:
        seen, output = run.differentiated(x, [INPUT], of)
    except DisconnectedError:
        raise DisconnectedError(
            "no gradient leads from the score to the pixels (a part of the model runs under no_grad, or the target "
            "doesn't depend on them); take a layer's method such as gradcam, or one without gradients such as occlusion"
        ) from None
    return _read(seen, run.targets.scores(output, of))


def guided(run: Pass, x: Tensor, of: int | slice) -> tuple[Tensor, Tensor]:
    """The same with a gradient that every ReLU passes only where it is positive.

    The nodes of this pass's own graph are hooked, wherever they come from: modules, functions, methods of tensors. They
    go with the graph; nothing is replaced and nothing has to be put back.

    Raises:
        ModelError: if the model bends in another way, or has no ReLU.
    """
    with capture(run.model, [INPUT]) as seen, origins(run.model) as made:
        with run.casting(x):
            output = run.model(x)
        _guide(nodes_of(tensors_in(output).values()), made)
        scores = run.targets.scores(output, of)
        seen.differentiate(scores)
    return _read(seen, scores)


def _read(seen: Capture, scores: Tensor) -> tuple[Tensor, Tensor]:
    return full_precision(scores.detach()), full_precision(seen[INPUT].calls[-1].gradient)


def _in_parts(run: Pass, request: Request, gradients: _Gradients) -> Tensor:
    """Gradients of the batch ``(T, B, C, *size)``, so many images at once as fit into memory."""
    parts = [gradients(run, run.x[part], part)[1] for part in run.slices(len(run.x), request.method, graph=True)]
    return torch.cat(parts, 1)


def _guide(nodes: list[Node], made: Origins) -> None:
    # What a function of the user's own does isn't known: some hold an activation.
    others = [node for node in nodes if kind(node) in _BENDS or hasattr(node, "_forward_cls") or _is_gate(node)]
    rectifiers = [node for node in nodes if _rectifies(node)]
    if others:
        first = made.of(others[0])
        raise ModelError(
            f"guided backpropagation is defined for networks that bend by ReLU alone, and this one has "
            f"{listed(dict.fromkeys(kind(node) for node in others))} ({counted(len(others), 'time')}, first "
            f"{f'in {first!r}' if first else 'outside of any layer'}); take smoothgrad or integratedgradients"
        )
    if not rectifiers:
        raise ModelError(
            "guided backpropagation is defined for networks that bend by ReLU, and this one has none; take smoothgrad "
            "or integratedgradients"
        )
    for node in rectifiers:
        node.register_hook(lambda before, _: tuple(None if g is None else g.clamp(min=0) for g in before))


def _rectifies(node: Node) -> bool:
    """Whether it is a ReLU or a ReLU6, however it is written."""
    lowest = {"Hardtanh": "_saved_min_val", "Clamp": "_saved_min", "ClampMin": "_saved_min"}.get(kind(node))
    return kind(node) == "Relu" or (lowest is not None and getattr(node, lowest) == 0)


def _is_gate(node: Node) -> bool:
    """Whether it is the ReLU6 of a hard sigmoid or swish written by hand: of what was shifted by a number."""
    if not _rectifies(node) or kind(node) == "Relu":
        return False
    before = node.next_functions[0][0]
    return before is not None and kind(before) == "Add" and any(other is None for other, _ in before.next_functions)
