"""What a method is, what it may ask for, and how it is found by name."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, overload

from torch import Tensor

from hookmap._text import did_you_mean
from hookmap.errors import HookmapError
from hookmap.methods.ingredients import INGREDIENTS, Ingredient
from hookmap.render.look import Look, Part

Family = Literal[
    "gradient",
    "activation",
    "attention",
    "relevance",
    "replay",
    "masking",
    "pixels",
    "whole model",
    "baseline",
    "yours",
]


@dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
        name: what the user writes.
        title: what figures and tables show.
        function: from its ingredients to the signed map ``(B, *grid)``.
        family: what it works with.
        rectified: whether the paper ends in a ReLU, so that only the positive part is its heatmap.
        signed: whether a negative value means that the place speaks against the target.
        paper: where it is defined.
        summary: one line for lists.
        score: from logits ``(B, K)`` and the target classes ``(B,)`` to the scores ``(B,)`` that are differentiated,
            where that isn't the class's own logit.
        objects: whether it is defined for detected objects only.
        uniform: the method whose map this is, up to a factor of none, where the gradient is the same at all places.
        look: how it's best drawn: ``Look(scale="minmax")`` for maps whose zero means nothing.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    family: Family = "yours"
    rectified: bool = True
    signed: bool = True
    paper: str = ""
    summary: str = ""
    score: Callable[[Tensor, Tensor], Tensor] | None = None
    objects: bool = False
    uniform: str | None = None
    look: Look = field(default_factory=Look)

    @cached_property
    def needs(self) -> frozenset[str]:
        """The ingredients that it asks for."""
        return frozenset(inspect.signature(self.function).parameters) & INGREDIENTS.keys()

    @property
    def ingredients(self) -> list[Ingredient]:
        """The providers of :attr:`needs`."""
        return [INGREDIENTS[name] for name in self.needs]

    @property
    def per_layer(self) -> bool:
        """Whether the map depends on a layer; others look at the whole model."""
        return any(ingredient.of_layer for ingredient in self.ingredients)

    @property
    def one_by_one(self) -> bool:
        """Whether it sees one image at a time: B is 1 for it, and it returns ``(T, *grid)`` for T targets."""
        return any(ingredient.of_one_image for ingredient in self.ingredients)

    @property
    def knows_target(self) -> bool:
        """Whether the map depends on the target."""
        return any(ingredient.of_target for ingredient in self.ingredients)

    def look_of(self, part: Part | None = None) -> Look:
        """How its maps are drawn, or a part of them; None: what the paper shows."""
        if part is None:
            return self.look if self.rectified else replace(self.look, part="signed")
        return replace(self.look, part=part, scale="symmetric" if part == "signed" else "max")

    def __getstate__(self) -> dict[str, Any]:
        """A function that can't be pickled, a lambda say, is lost; what the method is called and shown as isn't."""
        return {**self.__dict__, "function": kept_or_lost(self.function, "method", self.name)}


class LostFunction:
    """A function of the user's that a file can't hold: its name is known, what it did isn't.

    Attributes:
        what: it was, as ``Lens.explain`` calls it.
        name: of the function.
    """

    def __init__(self, what: str, name: str) -> None:
        self.what = what
        self.name = self.__name__ = name

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        """Say so."""
        raise HookmapError(
            f"the {self.what} was your function {self.name!r}, which isn't in the file; ask with the function itself: "
            f"lens.explain(image, {self.what}=...)"
        )


def kept_or_lost(function: Callable[..., Tensor], what: str, name: str) -> Callable[..., Tensor]:
    """The function, or what is left of it where it can't be pickled."""
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return LostFunction(what, name)
    return function


METHODS: dict[str, Method] = {}
"""All methods by name; :func:`method` adds to it."""

BUILT_IN: set[str] = set()

OTHER_NAMES = {
    "gradcamplusplus": "gradcampp",
    "gradcamelementwise": "elementwise",
    "randomcam": "random",
    "guidedbackpropagation": "guidedbackprop",
    "gradientxinput": "inputxgradient",
}
"""As other libraries call them."""

_F = TypeVar("_F", bound=Callable[..., Tensor])


@overload
def method(function: _F) -> _F: ...
@overload
def method(function: str | None = None, **about: Any) -> Callable[[_F], _F]: ...
def method(function: Any = None, **about: Any) -> Any:
    """Register a function as a method, under its own name or another.

    What else is known of it goes by the names of :class:`~hookmap.methods.registry.Method`.

    Raises:
        HookmapError: if a parameter without a default is no ingredient, or the name is taken.

    >>> import hookmap as hm
    >>> @hm.method("halfcam", summary="an example")
    ... def half(activation, gradient):
    ...     return (activation * gradient).sum(1) / 2
    >>> hm.methods.METHODS.pop("halfcam").needs == {"activation", "gradient"}
    True
    """

    def register(actual: _F, name: str | None = None) -> _F:
        made = as_method(actual, name=name, **about)
        if made.name in BUILT_IN:
            raise HookmapError(f"there is a method {made.name!r} already; name yours with @hookmap.method('another')")
        METHODS[made.name] = made
        return actual

    return register(function) if callable(function) else functools.partial(register, name=function)


def as_method(function: Callable[..., Tensor], *, name: str | None = None, **about: Any) -> Method:
    """A function as a method; what it needs is read from its parameters."""
    called = plain_name(name or str(getattr(function, "__name__", type(function).__name__)))
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in INGREDIENTS and parameter.default is parameter.empty:
            raise HookmapError(
                f"the method {called!r} asks for {parameter.name!r}, which is no ingredient; it may ask for "
                f"{', '.join(INGREDIENTS)}, or give the parameter a default"
            )
    about.setdefault("summary", (inspect.getdoc(function) or "").split("\n")[0])
    about.setdefault("title", name or called)
    return Method(name=called, function=function, **about)


def find_method(wanted: str | Callable[..., Tensor]) -> Method:
    """The method of a name; upper case, hyphens, underscores and a plus sign don't matter. Or a function as one.

    Raises:
        HookmapError: naming the closest methods.
    """
    if not isinstance(wanted, str):
        inner = wanted.func if isinstance(wanted, functools.partial) else wanted
        known = next((known for known in METHODS.values() if known.function is inner), None)
        if known is None or not isinstance(wanted, functools.partial):
            return known or as_method(wanted, name=getattr(inner, "__name__", None))
        settings = ", ".join(f"{key}={value!r}" for key, value in wanted.keywords.items())
        return replace(known, name=f"{known.name}({settings})", title=f"{known.title} ({settings})", function=wanted)
    plain = plain_name(wanted)
    plain = OTHER_NAMES.get(plain, plain)
    if plain in METHODS:
        return METHODS[plain]
    hint = did_you_mean(plain, METHODS, f"there are {', '.join(METHODS)}")
    raise HookmapError(f"there's no method {wanted!r}; {hint} (`hookmap methods` says what they do)")


def plain_name(name: str) -> str:
    """A method's name as the registry holds it: small letters, no hyphens, underscores or spaces, pp for ++."""
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "").replace("++", "pp")
