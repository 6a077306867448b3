"""A vision-language model that has been asked something: called with changed copies of the picture alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.adapters.wording import Said, Wording
from hookmap.images.mosaic import Mosaic
from hookmap.layers.layouts import Layout


class Asked(Adapter):
    """A model as it says one answer to one question, for any number of changed copies of the picture.

    The answer's tokens are given to it one after the other whatever it would say itself, and it gives what it makes of
    each of these places.

    Args:
        model: the user's.
        inputs: what it is called with beside the picture; tensors have one row, or what is laid out along it.
        wording: the answer.
        mosaic: the picture in its views.
        packed: from views ``(V, C, h, w)`` to what the model takes.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        wording: Wording,
        mosaic: Mosaic,
        packed: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(model)
        self.inputs = inputs
        self.wording = wording
        self.mosaic = mosaic
        self.packed = packed
        self.layouts: Mapping[str, Layout] = {}

    def own_layout(self, name: str, shape: Sequence[int]) -> Layout | None:
        """How a layer that gives this shape is laid out, where that is known."""
        layout = self.layouts.get(name)
        return layout if layout is not None and layout.fits(shape) else None

    def forward(self, x: Tensor) -> Said:
        """What the model says at each place of the answer, for pictures ``(B, C, H, W)``."""
        copies = len(x)
        pixels = torch.cat([self.packed(views) for views in self.mosaic.of(x)])
        others = {
            name: value.repeat(copies, *[1] * (value.ndim - 1)) if isinstance(value, Tensor) else value
            for name, value in self.inputs.items()
        }
        with as_found(self.plain):
            output = self.plain(pixel_values=pixels, **others)
        return Said(output.logits[:, -len(self.wording.ids) :], self.wording)

    def __deepcopy__(self, memo: Any) -> Asked:
        """Refused: copies of language models are too large to be worth it."""
        raise TypeError("a model that has been asked something isn't copied")


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """A block after which tensors that modules keep beside their buffers, such as shifts of places, are as before."""
    before = [(module, {n: v for n, v in vars(module).items() if _is_kept(n, v)}) for module in model.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            vars(module).update(kept)


def _is_kept(name: str, value: Any) -> bool:
    return not name.startswith("_") and (value is None or isinstance(value, Tensor))
