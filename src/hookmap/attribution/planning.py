"""From what a person asks to a plan: words looked up, options checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeAlias, TypedDict

from torch import Tensor

from hookmap._text import did_you_mean
from hookmap.adapters.adapter import Fusion
from hookmap.attribution.batch import Plan
from hookmap.attribution.engine import Engine
from hookmap.attribution.explain import OnError
from hookmap.attribution.stored import AUTO, stored_choice
from hookmap.errors import HookmapError, TargetError
from hookmap.hooks.fingerprint import fingerprint
from hookmap.hooks.matching import LayerSpec
from hookmap.methods import METHODS, Method, find_method
from hookmap.render.look import Part
from hookmap.results.question import Settings

MethodSpec: TypeAlias = "str | Callable[..., Tensor]"


class ExplainOptions(TypedDict, total=False):
    """What can be said of an explanation beside its target, layer and method; see :meth:`Lens.explain`."""

    aug_smooth: bool
    noise_smooth: bool | int
    eigen_smooth: bool
    libra: bool
    rivals: bool | int
    fuse: Fusion | None
    part: Part | None
    seed: int
    budget: int | None
    batch_size: int
    on_error: OnError
    progress: bool
    check: bool


def planned(engine: Engine, target: Any, layer: LayerSpec | None, method: Any, options: ExplainOptions) -> Plan:
    """What :meth:`hookmap.Lens.explain` asks of every image, with all words looked up.

    Raises:
        HookmapError: for targets, methods and options that there aren't.
    """
    if _listed(method) == [AUTO]:
        return _plan_of_a_comparison(engine, target, layer, options)
    methods = methods_of(method)
    if method is not None and not methods:
        raise TargetError("an empty list of methods was given; pass at least one")
    given: dict[str, Any] = dict(options)
    for name, usual in (("noise_smooth", 25), ("rivals", 3)):
        given[name] = usual if given.get(name) is True else given.get(name) or 0
    part = given.pop("part", None)
    for name in given.keys() - {field.name for field in fields(Settings)}:
        known = ExplainOptions.__annotations__
        hint = did_you_mean(name, known, f"there are {', '.join(known)}")
        raise HookmapError(f"there's no option {name!r} here; {hint}")
    lenient = "all" in _listed(method)
    return Plan(engine.goals(target), methods, layer, Settings(**given), part, lenient)


def _plan_of_a_comparison(engine: Engine, target: Any, layer: LayerSpec | None, options: ExplainOptions) -> Plan:
    """What :func:`hookmap.compare` decided for these weights, or else the default."""
    choice = stored_choice(fingerprint(engine.model))
    if choice is None:
        return planned(engine, target, layer, None, options)
    if layer is None and choice.layers:
        layer = list(choice.layers)
        if len(layer) > 1:
            options = {"fuse": choice.fuse, **options}
    return planned(engine, target, layer, choice.method, options)


def _listed(method: MethodSpec | Sequence[MethodSpec] | None) -> list[MethodSpec]:
    return [method] if isinstance(method, str) or callable(method) else list(method or [])


def methods_of(method: MethodSpec | Sequence[MethodSpec] | None) -> list[Method]:
    """The methods that are meant, in the order of the table if all are; none of None.

    Raises:
        HookmapError: for names that no method has, and different methods of one name.
    """
    specs = _listed(method)
    if specs == [AUTO]:
        return []
    chosen = [known for spec in specs for known in (METHODS.values() if spec == "all" else [find_method(spec)])]
    named = {known.name: known for known in chosen}
    for known in chosen:
        if known.function is not named[known.name].function:
            raise HookmapError(f"two methods are called {known.name!r}; give your functions different names")
    return list(named.values())
