"""Models of several inputs: one of them is the image that is explained, the others stay what they are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.errors import ImageError


class WithInputs(Adapter):
    """A model that is called with one sample's other inputs beside the image, for any number of changed copies of it.

    Args:
        model: the user's, or the adapter that it has already.
        image: the name of the image among the model's inputs.
    """

    def __init__(self, model: nn.Module, image: str) -> None:
        super().__init__(model)
        self.image = image
        self.others: Mapping[str, Any] = {}
        taken = inspect.signature(model.forward).parameters.values()
        self._names = None if any(p.kind is p.VAR_KEYWORD for p in taken) else {p.name for p in taken}

    @property
    def levels(self) -> Sequence[str]:
        """The model's own."""
        return self.plain.levels if isinstance(self.plain, Adapter) else ()

    def field(self, size: Sequence[int]) -> tuple[float, ...]:
        """The model's own."""
        return self.plain.field(size) if isinstance(self.plain, Adapter) else tuple(size)

    def forward(self, x: Tensor) -> Any:
        """The model's output for a batch of images ``(B, C, *size)`` beside the sample's other inputs."""
        others = {
            name: value.to(x.device).expand(len(x), *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in self.others.items()
        }
        given = {self.image: x, **others}
        if self._names is None or self._names >= given.keys():
            return self.plain(**given)
        if len(self._names) == 1 and not isinstance(self.plain, Adapter):
            return self.plain(given)  # the model takes one dict
        if others:
            raise ImageError(
                f"the model takes {', '.join(sorted(self._names))}, and {', '.join(given)} came; pass them under the "
                "names of its arguments, or give an hm.Adapter whose forward(x) adds the others"
            )
        return self.plain(x)


def image_among(inputs: Mapping[str, Any]) -> tuple[str, Tensor]:
    """The name of the image among a model's inputs, and the image: the first floating-point tensor ``(B, C, ...)``.

    Raises:
        ImageError: if there's no such tensor.
    """
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3:
            return name, value
    raise ImageError(
        f"of the inputs {', '.join(inputs) or '(none)'} none is a floating-point tensor (B, C, ...); pass the "
        "preprocessed image by the name that the model gives it"
    )


def of_sample(inputs: Mapping[str, Any], image: str, sample: int) -> dict[str, Any]:
    """What a sample has beside its image: of tensors with a row per sample its own, everything else as it is."""
    count = len(inputs[image])
    return {
        name: value[sample : sample + 1] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
        for name, value in inputs.items()
        if name != image
    }
