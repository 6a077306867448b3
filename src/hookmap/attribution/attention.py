"""Looking at attention itself: what each head looks at, how far, and what of it reaches the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap._text import counted, listed
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.similarity import cell_at, patch_at
from hookmap.errors import LayerError
from hookmap.hooks.capture import capture
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.images.geometry import Geometry
from hookmap.layers.blocks import blocks_of
from hookmap.methods.attention import Attended, rollout
from hookmap.methods.ingredients.attention import attended
from hookmap.methods.weighting import full_precision
from hookmap.results.attention import Artefacts, AttentionDistances, AttentionMaps, AttentionRollout

OUTLIER, LARGE = 6.0, 1.5
"""Artefacts are tokens whose norm lies so many median deviations above the median, and is so many times as large: in
networks without artefacts, norms are nearly the same."""
_BYTES_AT_ONCE = 64 * 2**20


def attention_maps(
    engine: Engine, image: Any, layers: LayerSpec | None, at: tuple[float, float] | None, *, without_artefacts: bool
) -> AttentionMaps:
    """What every head looks at: see :meth:`hookmap.Lens.attention`.

    Raises:
        LayerError: if no attention ran in the layers, or what it looks at can't be laid onto the picture.
        TargetError: if the model doesn't see the point.
    """
    batch, geometry = only_image(engine, image)
    view = batch.views[0]
    every = attentions_of(batch)
    attentions = _inside(every, engine, layers)

    def measured(attention: Attended) -> Tensor:
        if at is None:
            return _read(attention)
        places = _places(attention)
        return _looked_from(attention, int(places[cell_at(geometry, places.shape, at)]))

    maps = _of_each(engine, attentions, measured, named=layers is not None)
    artefacts = _artefacts(batch, within(every.values()))
    if artefacts is not None and without_artefacts:
        mask = torch.zeros(artefacts.grid, dtype=torch.bool)
        mask[tuple(zip(*artefacts.places, strict=True))] = True
        maps = {name: _filled(m, mask) if m.shape[1:] == mask.shape else m for name, m in maps.items()}
    last = next(reversed(maps.values()))
    whole = all(attention.class_token is None and attention.queries > 1 for attention in attentions.values())
    asked = "a token on average" if whole else "the class token"
    box = None
    if at is not None:
        asked = f"the patch at x {at[0]:g} y {at[1]:g}"
        box = patch_at(geometry, last.shape[1:], *cell_at(geometry, last.shape[1:], at))
    if artefacts is not None:
        left = "they are left out" if without_artefacts else "without_artefacts=True leaves them out"
        engine.remark(
            f"artefact tokens in {view.picture.name}: {artefacts} (by their norm at {artefacts.layer!r}); they "
            f"attract attention whatever they show (Darcet et al. 2024), {left}"
        )
    return AttentionMaps(maps, view.picture, geometry, engine.name, asked, box, artefacts, without_artefacts)


def attention_distances(engine: Engine, image: Any, layers: LayerSpec | None) -> AttentionDistances:
    """How far every head looks: see :meth:`hookmap.Lens.attention_distances`.

    Raises:
        LayerError: if no attention ran in the layers whose queries lie on the picture.
    """
    batch, geometry = only_image(engine, image)
    attentions = _inside(attentions_of(batch), engine, layers)
    found = _of_each(engine, attentions, lambda each: _distance(each, geometry.input), named=layers is not None)
    return AttentionDistances(found, batch.views[0].picture, engine.name, geometry.input)


def attention_rollout(engine: Engine, image: Any) -> AttentionRollout:
    """Attention followed up to each layer: see :meth:`hookmap.Lens.attention_rollout`.

    Raises:
        LayerError: if tokens can't be followed.
    """
    batch, geometry = only_image(engine, image)
    attentions = attentions_of(batch)
    chain = list(attentions.values())
    maps = torch.cat([full_precision(rollout(chain[: depth + 1])) for depth in range(len(chain))]).cpu()
    return AttentionRollout(list(attentions), maps, batch.views[0].picture, geometry, engine.name)


def only_image(engine: Engine, image: Any) -> tuple[Batch, Geometry]:
    """The one image that came, and where grids that span the model's field lie on it.

    Raises:
        ImageError: if several came.
    """
    batch = engine.only(image)
    return batch, batch.views[0].geometry.spanning(batch.engine.trace(batch.x).field)


def attentions_of(batch: Batch) -> dict[str, Attended]:
    """All attentions by the names of their layers, a second call of one as ``name#2``.

    Raises:
        LayerError: if the model has none.
    """
    engine, x = batch.engine, batch.x
    engine.check_weights()
    traced, found = engine.trace(x), dict[str, Attended]()
    with preserved(engine.model), capture(engine.called, (), attention=True) as seen:
        with engine.execution.casting(x):
            engine.called(x)
        for attention in seen.attentions:
            name, times = attention.module, 1
            while name in found:
                times += 1
                name = f"{attention.module}#{times}"
            found[name] = attended(traced, attention)
    if not found:
        raise LayerError(
            f"{engine.name} has no attention that can be read; vision transformers have it, vit_base_patch16_224 for "
            "one; lens.explain and lens.features (hookmap explain, hookmap features) show what this one sees"
        )
    return found


def within(attentions: Iterable[Attended]) -> list[str]:
    """The layers in which tokens look at each other: those that only pool them are left out."""
    return [attention.layer for attention in attentions if attention.queries == attention.keys]


def _inside(attentions: dict[str, Attended], engine: Engine, layers: LayerSpec | None) -> dict[str, Attended]:
    """Those that ran in the layers.

    Raises:
        LayerError: if there are none.
    """
    if layers is None:
        return attentions
    names = list(match_layers(engine.called, layers))
    inside = {
        key: each for key, each in attentions.items() if any(f"{each.layer}.".startswith(f"{name}.") for name in names)
    }
    if not inside:
        raise LayerError(f"no attention ran in {listed(names, 3)}; it ran in {listed(attentions, 6)}")
    return inside


def _of_each(
    engine: Engine, attentions: dict[str, Attended], measure: Callable[[Attended], Tensor], *, named: bool
) -> dict[str, Tensor]:
    """What is measured of each attention; unless they were named, those of which it can't be are remarked.

    Raises:
        LayerError: if it can't be of one that was named, or of any.
    """
    found, strange = dict[str, Tensor](), list[LayerError]()
    for name, attention in attentions.items():
        try:
            found[name] = measure(attention)
        except LayerError as error:
            if named:
                raise
            strange.append(error)
    if not found:
        raise strange[0]
    if strange:
        engine.remark(f"{counted(len(strange), 'attention')} left out: {strange[0]}")
    return found


def _places(attention: Attended) -> Tensor:
    """Which key is at each place of the picture: its number among ``(G, M)``, flat, ``(h, w)``; -1: none.

    Raises:
        LayerError: if keys don't lie in rows and columns.
    """
    like = attention.weights(slice(0, 1))
    numbers = torch.arange(1.0, len(like) * attention.keys + 1, dtype=torch.float64, device=like.device)
    places = attention.on_grid(numbers.reshape(len(like), attention.keys))[0] - 1
    if places.ndim != 2:
        raise LayerError(
            f"the attention of {attention.layer!r} has no rows and columns (its grid is {tuple(places.shape)})"
        )
    return places.long().cpu()


def _of_heads(attention: Attended, rows: Tensor) -> Tensor:
    """One value for each head and key, ``(G, H, M)``, as maps ``(H, h, w)``."""
    rows = full_precision(rows)
    return torch.cat([attention.on_grid(rows[:, head]) for head in range(rows.shape[1])]).cpu()


def _read(attention: Attended) -> Tensor:
    """What the class token looks at, or else a token on average, ``(H, h, w)``."""
    if attention.class_token is not None:
        return _of_heads(attention, attention.weights(attention.read)[:, :, 0])
    total = sum(full_precision(attention.weights(part)).sum(2) for part in _parts(attention))
    assert isinstance(total, Tensor)
    return _of_heads(attention, total / (len(total) * attention.queries))


def _looked_from(attention: Attended, place: int) -> Tensor:
    """What the query at the place of a key looks at, ``(H, h, w)``."""
    _check_same(attention)
    if place < 0:
        raise LayerError(f"the attention of {attention.layer!r} has no patch there")
    group, key = divmod(place, attention.keys)
    weights = attention.weights(slice(key, key + 1))[:, :, 0]
    rows = torch.zeros_like(weights)
    rows[group] = weights[group]
    return _of_heads(attention, rows)


def _check_same(attention: Attended) -> None:
    if attention.queries != attention.keys:
        raise LayerError(
            f"the attention of {attention.layer!r} has {attention.queries} queries and {attention.keys} keys: its "
            "queries aren't the patches that it looks at, so where one of them looks, or how far, isn't known"
        )


def _parts(attention: Attended) -> Iterator[slice]:
    """All queries, few enough at a time."""
    row = attention.weights(slice(0, 1))
    step = max(1, _BYTES_AT_ONCE // (row.numel() * 4))
    for start in range(0, attention.queries, step):
        yield slice(start, min(start + step, attention.queries))


def _distance(attention: Attended, field: Sequence[float]) -> Tensor:
    """The mean distance between a patch and what it looks at, weighted by attention: ``(H,)`` in pixels of the input.

    Raises:
        LayerError: if queries aren't the keys, or don't lie on the picture.
    """
    _check_same(attention)
    places = _places(attention)
    sides = [length / cells for length, cells in zip(field, places.shape, strict=True)]
    like = attention.weights(slice(0, 1))
    # Of keys that have a place, their centres.
    known = torch.zeros(len(like) * attention.keys, dtype=torch.bool)
    centres = torch.zeros(len(known), 2)
    here = places >= 0
    known[places[here]] = True
    centres[places[here]] = (here.nonzero() + 0.5) * torch.tensor(sides)
    known = known.reshape(len(like), -1).to(like.device)
    centres = centres.reshape(*known.shape, 2).to(like.device)
    total, count = 0.0 * like[0, :, 0, 0].float(), 0
    for part in _parts(attention):
        far = torch.cdist(centres[:, part], centres)[:, None]
        weights = full_precision(attention.weights(part)) * known[:, None, None]
        mean = (weights * far).sum(-1) / weights.sum(-1).clamp(min=1e-12)
        total = total + (mean * known[:, None, part]).sum((0, 2))
        count += int(known[:, part].sum())
    return (total / count).cpu()


def _artefacts(batch: Batch, attentions: Sequence[str]) -> Artefacts | None:
    """Patches whose token is an outlier by its norm after the last block; None if there are none, or no blocks."""
    engine = batch.engine
    traced = engine.trace(batch.x)
    try:
        last = blocks_of(traced, attentions, "")[-1]
    except LayerError:
        return None
    casting = engine.execution.casting(batch.x)
    with preserved(engine.model), capture(engine.called, last, gradients=False) as seen, casting:
        engine.called(batch.x)
    norms = full_precision(traced.layout(last).to_grid(seen[last].activation))[0].norm(dim=0)
    middle = norms.median()
    outlying = norms > torch.maximum(middle + OUTLIER * (norms - middle).abs().median(), LARGE * middle)
    if norms.ndim != 2 or not outlying.any():
        return None
    return Artefacts(last, tuple(norms.shape), tuple((r, c) for r, c in outlying.nonzero().tolist()))


def _filled(maps: Tensor, hole: Tensor) -> Tensor:
    """Maps ``(H, h, w)`` with the values in a hole ``(h, w)`` replaced by the mean of their neighbours'."""
    around = maps.new_ones(1, 1, 3, 3)
    known = (~hole).to(maps.dtype)
    while not bool(known.all()) and bool(known.any()):
        count = F.conv2d(known[None, None], around, padding=1)[0]
        mean = F.conv2d((maps * known)[:, None], around, padding=1)[:, 0] / count.clamp(min=1)
        maps = torch.where(known > 0, maps, mean)
        known = (count[0] > 0).to(maps.dtype)
    return maps
