"""How a heatmap is drawn, as data: the same in every picture, and in every file that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypedDict, get_args

from hookmap.errors import HookmapError

Part = Literal["positive", "negative", "signed"]
"""Of a signed map: what speaks for the target, what speaks against it, or both."""
Scale = Literal["max", "minmax", "symmetric"]

DEFAULT_COLORMAP = "inferno"
SIGNED_COLORMAP = "RdBu_r"


class LookOptions(TypedDict, total=False):
    """What a user may change about how a heatmap is drawn; see :class:`hookmap.Look`."""

    colormap: str | None
    opacity: float | Literal["ramp"]
    threshold: float
    scale: Scale
    limit: float | None
    outliers: float
    grey: bool


@dataclass(frozen=True)
class Look:
    """How a heatmap is drawn.

    Attributes:
        part: which part of the signed map is shown.
        scale: ``"max"``: from 0 to the strongest evidence, for or against, so that what is drawn bright is strong in
            comparison with both; ``"minmax"``: from the smallest to the largest value, for maps whose zero means
            nothing; ``"symmetric"``: signed around 0, in two colours.
        limit: the value drawn as the strongest, to share a scale over several maps; by default the map's own
            (``"minmax"`` has none).
        outliers: share of the places with evidence that are drawn as equally strong, because a few single places
            would hide all others; 0..1, where no limit is given.
        colormap: a matplotlib colour map; by default a perceptually uniform one, or a diverging one where the scale is
            symmetric.
        opacity: ``"ramp"``: the stronger the more opaque, so that the photo stays visible where the map is cold; or
            one opacity in 0..1 everywhere (0.3 with ``"jet"`` is the classic look).
        threshold: the strength below which nothing is drawn, as a share of the strongest, 0..1.
        grey: whether the photo is drawn in grey: under fine maps in two colours it would hide them.
        ends: what the lowest and the highest value of a symmetric scale mean.

    Raises:
        HookmapError: for a look that can't be.

    >>> Look.from_json(Look(limit=2.0).as_json()) == Look(limit=2.0, colormap="inferno")
    True
    """

    part: Part = "positive"
    scale: Scale = "max"
    limit: float | None = None
    outliers: float = 0.0
    colormap: str | None = None
    opacity: float | Literal["ramp"] = "ramp"
    threshold: float = 0.0
    grey: bool = False
    ends: tuple[str, str] = ("against", "for")

    def __post_init__(self) -> None:
        check_part(self.part)
        if self.scale not in get_args(Scale):
            raise HookmapError(f"there's no scale {self.scale!r}; use 'max', 'minmax' or 'symmetric'")
        if self.limit is not None and not (_is_number(self.limit) and self.limit > 0):
            raise HookmapError(f"limit is {self.limit!r}; expected the value drawn as the strongest, above 0")
        if not (_is_number(self.outliers) and 0 <= self.outliers < 1):
            raise HookmapError(f"outliers is {self.outliers!r}; expected a share from 0 to below 1")
        if self.opacity != "ramp" and not (_is_number(self.opacity) and 0 <= float(self.opacity) <= 1):
            raise HookmapError(f"opacity is {self.opacity!r}; expected a number from 0 to 1, or 'ramp'")
        if not (_is_number(self.threshold) and 0 <= self.threshold <= 1):
            raise HookmapError(f"threshold is {self.threshold!r}; expected a share from 0 to 1")
        if not isinstance(self.grey, bool):
            raise HookmapError(f"grey is {self.grey!r}; expected True or False")

    @property
    def symmetric(self) -> bool:
        """Whether it is signed around 0, in two colours."""
        return self.scale == "symmetric"

    @property
    def colors(self) -> str:
        """The name of the colour map."""
        return self.colormap or (SIGNED_COLORMAP if self.symmetric else DEFAULT_COLORMAP)

    def but(self, options: LookOptions) -> Look:
        """This look with a user's options; a symmetric scale shows the whole signed map.

        Raises:
            HookmapError: for options that there aren't, or values that can't be.
        """
        unknown = options.keys() - LookOptions.__annotations__.keys()
        if unknown:
            names = ", ".join(LookOptions.__annotations__)
            raise HookmapError(f"a heatmap's look has no {', '.join(sorted(unknown))}; it has {names}")
        changed = replace(self, **options)
        return replace(changed, part="signed") if changed.symmetric else changed

    def as_json(self) -> dict[str, Any]:
        """For JSON, with its colour map by name: what is drawn from it is the same, whatever the defaults become."""
        return {**asdict(self), "colormap": self.colors, "ends": [*self.ends]}

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Look:
        """The look that :meth:`as_json` wrote; what a newer version added is left out."""
        known = {f.name: about[f.name] for f in fields(cls) if f.name in about}
        return cls(**{**known, "ends": tuple(about.get("ends", cls.ends))})


def check_part(part: str | None) -> None:
    """Raise a :class:`HookmapError` for a part that there isn't."""
    if part is not None and part not in get_args(Part):
        raise HookmapError(f"part is {part!r}; expected one of {', '.join(get_args(Part))}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
