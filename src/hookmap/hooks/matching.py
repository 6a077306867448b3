"""Find layers of a model by name, glob, module, type or kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from torch import nn

from hookmap._text import did_you_mean
from hookmap.errors import LayerError

LayerSpec: TypeAlias = "str | nn.Module | type[nn.Module] | Iterable[str | nn.Module | type[nn.Module]]"

KINDS: dict[str, Callable[[nn.Module], bool]] = {
    "conv": lambda m: isinstance(m, nn.modules.conv._ConvNd),
    "linear": lambda m: isinstance(m, nn.Linear),
    "norm": lambda m: bool(re.search(r"norm", type(m).__name__, re.IGNORECASE)) and _is_leaf(m),
    "activation": lambda m: type(m).__module__ == "torch.nn.modules.activation" and _is_leaf(m),
    "pool": lambda m: "pool" in type(m).__name__.lower() and _is_leaf(m),
    "attention": lambda m: bool(re.search(r"attention|attn", type(m).__name__, re.IGNORECASE)),
    "all": lambda m: True,
}
"""Words that stand for every layer of a kind."""


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def match_layers(model: nn.Module, layers: LayerSpec) -> dict[str, nn.Module]:
    """The modules that ``layers`` names, by name, in the order asked for and of the model.

    A string is, in this order: an exact module name (``"layer4.1.conv2"``; ``""`` is the model itself), a
    kind (``conv``, ``linear``, ``norm``, ``activation``, ``pool``, ``attention``, ``all``), a glob over names
    where ``*`` stays within a level and ``**`` crosses levels, or a class name (``"Bottleneck"``).

    Raises:
        LayerError: naming what didn't match and the closest names.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)))
    >>> list(match_layers(model, "conv")), list(match_layers(model, "1.*")), list(match_layers(model, nn.ReLU))
    (['0', '1.1'], ['1.0', '1.1'], ['1.0'])
    """
    matched: dict[str, nn.Module] = {}
    for spec in listed(layers):
        matched.update(_matched(model, spec))
    if not matched:
        raise LayerError("no layers were asked for; pass a name, a glob, a module, a type or a list of these")
    return matched


def listed(layers: LayerSpec) -> list[str | nn.Module | type[nn.Module]]:
    """One layer or several as a list.

    Raises:
        LayerError: for what names no layer.
    """
    if isinstance(layers, (str, nn.Module, type)):
        return [layers]
    if not isinstance(layers, Iterable):
        raise LayerError(
            f"a layer was given as {type(layers).__name__} {layers!r}; expected a name, a glob, a module, a type or a "
            "list"
        )
    return list(layers)


def _matched(model: nn.Module, spec: str | nn.Module | type[nn.Module]) -> dict[str, nn.Module]:
    if isinstance(spec, str) and (exact := _named(model, spec)) is not None:
        return {spec: exact}
    named = dict(model.named_modules(remove_duplicate=False))
    inner = {name: module for name, module in model.named_modules() if name}
    if isinstance(spec, nn.Module):
        matched = {name: module for name, module in named.items() if module is spec}
        if not matched:
            raise LayerError(f"the {type(spec).__name__} given as a layer isn't part of this model")
        return dict([next(iter(matched.items()))])
    if isinstance(spec, type):
        matched = {name: module for name, module in inner.items() if isinstance(module, spec)}
        if not matched:
            raise LayerError(f"the model has no layer of type {spec.__name__}")
        return matched
    if not isinstance(spec, str):
        raise LayerError(
            f"a layer was given as {type(spec).__name__}; expected a name, a glob, a module, a type or a list"
        )
    if spec in KINDS:
        matched = {name: module for name, module in inner.items() if KINDS[spec](module)}
        if not matched:
            raise LayerError(f"the model has no layer of the kind {spec!r}")
        return matched
    if any(c in spec for c in "*?["):
        pattern = _glob(spec)
        matched = {name: module for name, module in inner.items() if pattern.fullmatch(name)}
    else:
        matched = {name: module for name, module in inner.items() if type(module).__name__ == spec}
    if not matched:
        hint = did_you_mean(spec, [n for n in named if n], f"top-level layers are {_children(model)}")
        raise LayerError(f"the model has no layer {spec!r}; {hint} (`hookmap layers` and lens.layers() list all)")
    return matched


def _named(model: nn.Module, name: str) -> nn.Module | None:
    """The module of exactly this name; not every module is walked, which large models would notice."""
    module: nn.Module | None = model
    for step in name.split(".") if name else ():
        if module is None or step not in module._modules:
            return None
        module = module._modules[step]
    return module


def _children(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children())


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern)
    special = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(special.get(p, p if p.startswith("[") else re.escape(p)) for p in parts))
