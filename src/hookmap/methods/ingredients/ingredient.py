"""What an ingredient is, and the pass that it is taken from.

A method names the ingredients that it needs as its parameters. An ingredient of your own is one class::

    @hm.methods.ingredient
    class Contrast(hm.methods.Ingredient):
        name = "contrast"
        description = "each image's standard deviation, (B,)"

        def of_batch(self, run, request):
            return run.x.flatten(1).std(1)

and is then what ``def mycam(activation, contrast)`` is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hookmap._progress import Track
from hookmap.errors import HookmapError
from hookmap.hooks.capture import Capture
from hookmap.hooks.graph import Gradients
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.targets.resolved import ResolvedTargets


class Records(IntEnum):
    """What the pass over a batch has to record of the layers for an ingredient; each includes those before it."""

    NOTHING = 0
    ACTIVATIONS = 1
    GRADIENTS = 2
    CURVATURES = 3


class Pass(Protocol):
    """One pass of a model over a batch of B images for T targets, and what can be asked of the model afterwards.

    Attributes:
        model: in evaluation mode, not compiled.
        x: the input, ``(B, C, *size)``.
        targets: what is asked, resolved by what the model says of these images.
        scores: of the targets, ``(T, B)``.
        logits: of all classes, ``(B, K)``; None if the output isn't that.
        seen: what was recorded of the layers.
        pixel_gradient: of the scores with respect to the input, ``(T, B, C, *size)``, where the pass took it anyway.
        no_curvature: why there's no second derivative, or None.
        layouts: how to read the layers that maps are wanted of.
        traced: all layers as they ran.
        budget: the most changed copies of one image that may be looked at, or None.
        track: called with a description and a total, gives a function that is told of progress.
        cautions: what methods say against the maps of an image, by method and image: words for each target.
    """

    model: nn.Module
    x: Tensor
    targets: ResolvedTargets
    scores: Tensor
    logits: Tensor | None
    seen: Capture
    pixel_gradient: Tensor | None
    no_curvature: RuntimeError | None
    layouts: Mapping[str, Layout]
    traced: Trace
    budget: int | None
    track: Track
    cautions: dict[tuple[str, int], Sequence[str]]

    def generator(self) -> torch.Generator:
        """Random numbers from the start of the seed."""
        ...

    def casting(self, x: Tensor) -> AbstractContextManager[Any]:
        """The block in which the model is to be called on ``x``."""
        ...

    def rows(self, method: str) -> slice:
        """Which of the differentiated scores are a method's: the targets', or a function's of its own."""
        ...

    def grid(self, layer: str, tensor: Tensor) -> Tensor:
        """What a layer gave, or its derivative, as channels over its grid, in float32 at least."""
        ...

    def kept(self, key: tuple[str, object], take: Callable[[], Any]) -> Any:
        """What several methods ask for, taken once."""
        ...

    def gradients(self, output: Any) -> Gradients:
        """How gradients are taken of what is made of an output of the model, or of one of its layers."""
        ...

    def differentiated(self, x: Tensor, layers: Sequence[str], of: int | slice | None = None) -> tuple[Capture, Any]:
        """Gradients for other inputs ``x`` (``of``: copies of that image, or those images), and the model's output."""
        ...

    def output(self, x: Tensor) -> Any:
        """The model's output for changed inputs, without gradients; fast where many are asked for."""
        ...

    def takes_batches(self) -> bool:
        """Whether copies of an image can run together."""
        ...

    def slices(self, count: int, what: str, layer: str | None = None, *, graph: bool = False) -> Iterator[slice]:
        """The indices 0..count in slices whose copies fit into memory; ``what`` is shown with the progress.

        With a ``layer`` only what follows it runs; with a ``graph`` all activations are kept.
        """
        ...


@dataclass(frozen=True)
class Request:
    """Who asks for an ingredient.

    Attributes:
        method: its name.
        layer: that its map is of; empty for methods that look at the whole model.
    """

    method: str
    layer: str


class Ingredient(ABC):
    """What a method is given for the parameter of this name, for a batch of B images.

    Attributes:
        name: of the parameter.
        description: what it is, with its shape as a method sees it.
        price: what it takes, in words for the table of methods; empty where it takes nothing.
        of_layer: whether it differs from layer to layer.
        of_target: whether it differs from target to target.
        of_one_image: whether methods that ask for it see one image at a time.
        records: what the pass has to record for it.
        attention: whether the pass has to read who looked where.
        starts_at_input: whether it is the gradient at the input, which the pass takes if nothing else is recorded.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    price: ClassVar[str] = ""
    of_layer: ClassVar[bool] = False
    of_target: ClassVar[bool] = False
    of_one_image: ClassVar[bool] = False
    records: ClassVar[Records] = Records.NOTHING
    attention: ClassVar[bool] = False
    starts_at_input: ClassVar[bool] = False

    @abstractmethod
    def of_batch(self, run: Pass, request: Request) -> Any:
        """The ingredient: a tensor ``(B, ...)``, ``(T, B, ...)`` if it differs from target to target, or no tensor."""

    def of_image(self, run: Pass, request: Request, sample: int) -> Any:
        """The same for one image: ``(1, ...)`` or ``(T, ...)``."""
        value = self.of_batch(run, request)
        if not isinstance(value, Tensor):
            return value
        return value[:, sample] if self.of_target else value[sample : sample + 1]


class ImageIngredient(Ingredient):
    """One that there is for single images only."""

    of_one_image = True

    def of_batch(self, run: Pass, request: Request) -> Any:
        """Never asked for."""
        raise HookmapError(f"{self.name!r} is of one image at a time")

    @abstractmethod
    def of_image(self, run: Pass, request: Request, sample: int) -> Any:
        """The ingredient of one image, for all targets."""


INGREDIENTS: dict[str, Ingredient] = {}
"""What a method may ask for, by name; :func:`ingredient` adds to it."""

_I = TypeVar("_I", bound=type[Ingredient])


def ingredient(provider: _I) -> _I:
    """Register a class of :class:`Ingredient`, so that methods may ask for it.

    Raises:
        HookmapError: if another one has its name.
    """
    other = INGREDIENTS.get(provider.name)
    if other is not None and type(other).__qualname__ != provider.__qualname__:
        raise HookmapError(f"there is an ingredient {provider.name!r} already; give yours another name")
    INGREDIENTS[provider.name] = provider()
    return provider
