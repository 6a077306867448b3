"""Models of several inputs: one of them is the image that is explained, the others stay what they are."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hookmap.errors import ImageError
from hookmap.explaining.execution import Execution
from hookmap.looking.adapter import Adapter

if TYPE_CHECKING:
    from hookmap.lens import Lens


class Beside(Adapter):
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


def with_others(lens: Lens, inputs: Mapping[str, Any]) -> Iterator[tuple[Lens, Tensor]]:
    """Sample by sample, a lens that knows the sample's other inputs, and its image with a batch axis of 1.

    Args:
        lens: of the model.
        inputs: by the names of the model's arguments; the image is the first floating-point tensor ``(B, C, ...)``.
            Tensors with B rows belong to the samples, everything else to all.

    Raises:
        ImageError: if there's no such tensor.
    """
    is_image = (n for n, v in inputs.items() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim >= 3)
    image = next(is_image, None)
    if image is None:
        raise ImageError(
            f"of the inputs {', '.join(inputs) or '(none)'} none is a floating-point tensor (B, C, ...); pass the "
            "preprocessed image by the name that the model gives it"
        )
    x = inputs[image]
    beside = Beside(lens._called, image)
    twin = copy.copy(lens)
    twin._called, twin._traces, twin._defaults = beside, {}, {}
    twin._execution = Execution(beside, lens._execution.precision, compile=lens._execution.compile)
    for b in range(len(x)):
        beside.others = {
            name: value[b : b + 1] if isinstance(value, Tensor) and value.ndim and len(value) == len(x) else value
            for name, value in inputs.items()
            if name != image
        }
        yield twin, x[b : b + 1]
