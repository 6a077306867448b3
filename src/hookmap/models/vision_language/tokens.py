"""Where a picture's tokens are in the layers of a vision-language model, found by looking at what runs before it reads.

The model is run up to where its language model begins: that is the module that is given ``inputs_embeds``. What ran
before is the picture's part. Then once more with numbers in the place of the picture's tokens, so that each is found
again among those of the text, whatever is put between them, left out or turned round.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.errors import ModelError
from hookmap.hooks.registration import hooked
from hookmap.images.mosaic import Mosaic
from hookmap.layers.image_tokens import ImageTokens, grid_of
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import main_tensor

_QUERIES = re.compile(r"quer|latent", re.IGNORECASE)
"""How the parameters are called that gather what they want of a picture, so that their tokens have no places."""
_BASE = 256
"""Numbers below it are exact in every precision."""


class _Begun(Exception):
    """The language model begins."""


@dataclass(frozen=True, eq=False)
class Reached:
    """What ran before the language model.

    Attributes:
        shapes: what layers gave, in the order in which they ran.
        language: the name of the language model, or None if none began.
        embedded: what it was given, ``(1, L, C)``.
        calls: how often each layer ran.
    """

    shapes: Mapping[str, tuple[int, ...]]
    language: str | None
    embedded: Tensor | None
    calls: Mapping[str, int]


def reach(
    model: nn.Module, run: Callable[[], Any], length: int, change: Mapping[str, Callable[[Any], Any]] | None = None
) -> Reached:
    """Run a model up to its language model.

    Args:
        model: whose layers are looked at.
        run: calls it.
        length: of the text in tokens.
        change: what is to be given instead of layers' outputs, by name.
    """
    names = {module: name for name, module in model.named_modules()}
    tower = set(_tower(model).modules())
    shapes: dict[str, tuple[int, ...]] = {}
    calls = Counter[str]()
    found: list[tuple[str, Tensor]] = []
    thread = threading.get_ident()

    def before(module: nn.Module, args: Any, kwargs: Any = None) -> None:
        if threading.get_ident() != thread:  # where torch may not have said yet that keywords are taken
            return
        given = kwargs.get("inputs_embeds")
        embeds = isinstance(given, Tensor) and given.ndim == 3 and given.shape[1] == length
        if embeds and names[module] and module not in tower:
            found.append((names[module], given.detach()))
            raise _Begun

    def note(module: nn.Module, _: Any, output: Any) -> Any:
        name = names[module]
        calls[name] += 1
        tensor = main_tensor(output)
        if tensor is not None:
            shapes.pop(name, None)
            shapes[name] = tuple(tensor.shape)
        return change[name](output) if change and name in change else None

    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.enter_context(hooked(list(names), note))
        stack.enter_context(torch.no_grad())
        with suppress(_Begun):
            run()
    language, embedded = found[0] if found else (None, None)
    return Reached(shapes, language, embedded, calls)


def token_layouts(
    model: nn.Module, run: Callable[[], Any], mosaic: Mosaic, length: int, placeholders: Sequence[int]
) -> tuple[dict[str, Layout], list[str]]:
    """How layers hold the picture's tokens, by name, and those through which all passes that an answer knows of it.

    Args:
        model: of transformers.
        run: calls it with the picture.
        mosaic: of the picture.
        length: of the text in tokens.
        placeholders: the places among them that are kept for the picture's tokens.

    Raises:
        ModelError: if there's no such layer.
    """
    reached = reach(model, run, length)
    of_text, tower = _embedding(model), set(_tower(model).modules())
    layouts: dict[str, Layout] = {}
    for name, shape in reached.shapes.items():
        module = model.get_submodule(name)
        sees = module in tower or (placeholders and module is not of_text)
        if name and sees and (layout := _layout(model, name, shape, mosaic, len(placeholders))):
            layouts[name] = layout
    if not layouts:
        shapes = "; ".join(f"{name} {shape}" for name, shape in [*reached.shapes.items()][-6:])
        raise ModelError(
            f"where the tokens of the picture lie in this {type(model).__name__} can't be read (its layers give "
            f"{shapes}), so its words can't be explained"
        )
    width = None if reached.embedded is None else reached.embedded.shape[-1]
    handed = [n for n in layouts if _handed_on(layouts[n], reached.shapes[n], width, len(placeholders))]
    if not handed:  # queries gather what they want of the tower, or the text reads the tower itself
        seen = {name: layout for name, layout in layouts.items() if model.get_submodule(name) in tower}
        once = [name for name in seen if reached.calls[name] == 1]
        return seen, (once or list(seen))[-1:]
    last = handed[-1]
    order = _order(model, run, length, last, reached, placeholders)
    if order is not None and reached.embedded is not None:
        own = layouts[last]
        assert isinstance(own, ImageTokens)
        if len(own.places) == own.tokens and sorted(order) == list(range(own.tokens)):
            # Placeholders are the cells row by row; what is put there may come in another order.
            layouts[last] = own = replace(own, places=tuple(order))
        at = {row: place for row, place in zip(order, placeholders, strict=True) if row >= 0}
        places = tuple(at.get(row, -1) for row in own.places)
        for name, _ in model.named_modules():
            if name == reached.language or name.startswith(f"{reached.language}."):
                layouts[name] = replace(own, places=places, tokens=length, flat=False)
    kind = type(model.get_submodule(last))
    inside = f"{last}."
    return layouts, [n for n in handed if n == last or (type(model.get_submodule(n)) is kind and inside not in n)]


def _tower(model: Any) -> nn.Module:
    """What sees the picture."""
    module: nn.Module = model.get_encoder("image")
    if module is not model:
        return module
    kind = type(getattr(model.config, "vision_config", getattr(model.config, "encoder", None)))
    named = (part for _, part in model.named_modules() if part is not model)
    return next((part for part in named if isinstance(getattr(part, "config", None), kind)), nn.Module())


def _embedding(model: Any) -> nn.Module | None:
    try:
        module: nn.Module = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return module


def _layout(model: nn.Module, name: str, shape: tuple[int, ...], mosaic: Mosaic, placeholders: int) -> Layout | None:
    """How a layer before the language model holds the views, if its shape tells."""
    count, view = len(mosaic.views), tuple(mosaic.views.shape[2:])
    if len(shape) == 4 and shape[0] == count == 1:
        first = grid_of(shape[2] * shape[3], view) == shape[2:]
        last = grid_of(shape[1] * shape[2], view) == shape[1:3]
        if first != last:
            return Layout("channels first", shape[2:]) if first else Layout("channels last", shape[1:3])
        return None
    flat = len(shape) == 2
    if not flat and (len(shape) != 3 or shape[0] != count):
        return None
    if flat and shape[0] != placeholders:  # its blocks hold patches in orders of their own
        return None
    total = math.prod(shape[:-1])
    each, rest = divmod(total, count)
    if rest or _has_queries(model, name, each):
        return None
    prefix, grid = 0, grid_of(each, view)
    if grid is None or grid == (1, 1):
        prefix, grid = 1, grid_of(each - 1, view) if each > 2 else None
    if grid is None or grid == (1, 1):
        return None
    places = [number * each + prefix + cell for number in range(count) for cell in range(each - prefix)]
    whole = grid if count == 1 else (count, *grid)
    return ImageTokens("tokens", whole, places=tuple(places), tokens=total, flat=flat, views=tuple(mosaic.within))


def _has_queries(model: nn.Module, name: str, count: int) -> bool:
    """Whether so many learned queries stand beside a layer or in it."""
    owner = model.get_submodule(name)
    inside = [*owner.named_parameters()]
    top = name
    while top:
        top = top.rpartition(".")[0]
        inside += model.get_submodule(top).named_parameters(recurse=False)
    return any(
        _QUERIES.search(key.rpartition(".")[2]) and parameter.ndim > 1 and parameter.shape[-2] == count
        for key, parameter in inside
    )


def _handed_on(layout: Layout, shape: Sequence[int], width: int | None, placeholders: int) -> bool:
    """Whether a layer gives what the language model is given: as many tokens as are kept free for it, as wide."""
    if width is None or not placeholders or not isinstance(layout, ImageTokens) or shape[-1] != width:
        return False
    return layout.tokens == placeholders or len(layout.grid) == 3


def _order(
    model: nn.Module,
    run: Callable[[], Any],
    length: int,
    layer: str,
    reached: Reached,
    placeholders: Sequence[int],
) -> list[int] | None:
    """Which row of a layer's output stands at each placeholder, -1 where none does; None if that can't be told."""
    shape = reached.shapes[layer]
    rows = torch.arange(math.prod(shape[:-1]))
    if not placeholders or shape[-1] < 4 or len(rows) >= _BASE**2:
        return None

    def numbered(output: Any) -> Any:
        coded = torch.ones(len(rows), shape[-1])
        coded[:, 0], coded[:, 1] = rows // _BASE, rows % _BASE
        return coded.reshape(shape).to(output)

    again = reach(model, run, length, {layer: numbered}).embedded
    if again is None:
        return None
    at = again[0, list(placeholders)].float().cpu()
    unit = at[:, 2:3]
    ours = (at[:, 2:] == unit).all(1) & (unit[:, 0] > 0)  # a mark between rows has other numbers
    codes = at[:, :2] / torch.where(unit == 0, 1, unit)
    whole = codes.round()
    if not bool(ours.any()) or bool(((codes - whole).abs()[ours] > 0.05).any()):
        return None
    numbers = (whole[:, 0] * _BASE + whole[:, 1]).long()
    return [int(number) if mine else -1 for number, mine in zip(numbers, ours, strict=True)]
