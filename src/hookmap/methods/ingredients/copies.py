"""What the model says of changed copies of one image, or of its activation at a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hookmap.methods.gradient import gradcam
from hookmap.methods.ingredients.ingredient import ImageIngredient, Pass, Records, Request, ingredient
from hookmap.methods.masking import Caution
from hookmap.methods.replaying import Distribution
from hookmap.methods.weighting import full_precision


@ingredient
class InputProbes(ImageIngredient):
    """Scores of changed inputs."""

    name = "probe"
    description = "scores of changed inputs: a Probe"
    price = "masked copies"
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> InputProbe:
        """For all targets."""
        return InputProbe(run, request, sample)


@ingredient
class Distributions(ImageIngredient):
    """The whole prediction for changed inputs."""

    name = "distribution"
    description = "probabilities of all classes for changed inputs: a Distribution"
    price = "masked copies"

    def of_image(self, run: Pass, request: Request, sample: int) -> Distribution:
        """It knows no target."""
        return _InputDistribution(run, request, sample)


@ingredient
class LayerProbes(ImageIngredient):
    """Scores of changed activations."""

    name = "replay"
    description = "scores of changed activations: a Probe"
    price = "the tail, once per place"
    of_layer = True
    of_target = True
    records = Records.ACTIVATIONS

    def of_image(self, run: Pass, request: Request, sample: int) -> LayerProbe:
        """For all targets."""
        return LayerProbe(run, request, sample)


@ingredient
class OtherCams(ImageIngredient):
    """Grad-CAM of other images."""

    name = "cam_of"
    description = "from images (K, C, H, W) to their Grad-CAM (T, K, h, w) and probabilities (T, K)"
    price = "gradient on crops"
    of_layer = True
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """For all targets."""
        layer = request.layer

        def cam_of(images: Tensor) -> tuple[Tensor, Tensor]:
            maps, probabilities = [], []
            for part in run.slices(len(images), described(run, request, sample)):
                seen, output = run.differentiated(images[part], [layer], sample)
                probabilities.append(run.targets.likely(output, sample).detach())
                call = seen[layer].calls[-1]
                activation, gradient = run.grid(layer, call.activation), run.grid(layer, call.gradient)
                maps.append(torch.stack([gradcam(activation, row) for row in gradient]))
            return torch.cat(maps, 1), torch.cat(probabilities, 1)

        return cam_of


@ingredient
class Cautions(ImageIngredient):
    """What a method says against its own maps."""

    name = "caution"
    description = "to be told, target by target, why a map shouldn't be trusted: a Caution"

    def of_image(self, run: Pass, request: Request, sample: int) -> Caution:
        """The words are kept with the pass."""
        return partial(run.cautions.__setitem__, (request.method, sample))


class Copies:
    """Changed copies of one input.

    Args:
        run: the pass that asks.
        request: who asks.
        sample: the number of the image.
    """

    def __init__(self, run: Pass, request: Request, sample: int) -> None:
        self._pass = run
        self._request = request
        self._sample = sample

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices that fit into memory; tells the progress bar."""
        return self._pass.slices(count, described(self._pass, self._request, self._sample))

    def _output(self, changed: Tensor) -> Any:
        return self._pass.output(changed.to(self._pass.x.dtype))


class _InputDistribution(Copies):
    def __call__(self, changed: Tensor) -> Tensor:
        return self._pass.targets.distribution(self._output(changed))


class InputProbe(Copies):
    """Scores of changed copies of one input ``(K, C, *size)``; a :class:`hookmap.methods.Probe`."""

    def __call__(self, changed: Tensor) -> Tensor:
        """Scores ``(T, K)``."""
        return full_precision(self._pass.targets.scores(self._output(changed), self._sample))

    def probability(self, changed: Tensor) -> Tensor:
        """Probabilities ``(T, K)``; for targets that aren't classes, their scores."""
        return self._pass.targets.likely(self._output(changed), self._sample)


class LayerProbe(InputProbe):
    """Scores of changed copies of one image's activation at a layer, ``(K, C, *grid)``; only what follows runs."""

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices that fit into memory; tells the progress bar."""
        what = described(self._pass, self._request, self._sample)
        return self._pass.slices(count, what, self._request.layer)

    def _output(self, changed: Tensor) -> Any:
        run, layer = self._pass, self._request.layer
        calls, layout = run.seen[layer].calls, run.layouts[layer]
        axis = layout.batch_axis
        like = calls[-1].activation.movedim(axis, 0)[self._sample : self._sample + 1]
        with run.casting(changed):
            changed = layout.from_grid(changed, like)
            return run.seen.replay(layer, changed, sample=self._sample, call=len(calls) - 1, axis=axis)


def described(run: Pass, request: Request, sample: int) -> str:
    """What the progress bar shows."""
    return f"{request.method}, image {sample + 1} of {len(run.x)}" if len(run.x) > 1 else request.method
