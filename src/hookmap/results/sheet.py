"""Several heatmaps as one labelled sheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hookmap.hooks.capture import INPUT
from hookmap.render.figure import INK, MARGIN, QUIET, contact_sheet, cut, fit
from hookmap.render.overlay import Mark, font, marked

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.results.heatmap import Heatmap

_GAP = 8
_LANDSCAPE = 1.5
_AXES = ("image", "target", "layer", "method")
_PHOTO = ("photo",)
_ROW_TILE = 300
# A tile shows at least so much around a box, so much of the picture and of the map; all, if that is a large part.
_AROUND, _SMALLEST, _MOST, _LARGEST = 3.0, 0.2, 0.95, 0.6


def explanation_sheet(heatmaps: Sequence[Heatmap], **look: Any) -> Image.Image:
    """Heatmaps as a grid if two things vary among them (images, targets, layers, methods), else in rows.

    The photo comes first, so that what the model saw can be compared with where it looked.
    """
    axes = {axis: list(dict.fromkeys(_key(h, axis) for h in heatmaps)) for axis in _AXES}
    varying = [axis for axis in _AXES if _varies(axis, axes, heatmaps)]
    objects = any(h.box is not None for h in heatmaps)
    if len(varying) < 2 or (objects and "image" in varying):  # each image has objects of its own
        return _in_rows(heatmaps, varying, **look)
    # Methods read best down the side; of the rest, what varies most.
    down = "method" if "method" in varying else max(varying, key=lambda axis: len(axes[axis]))
    across = [axis for axis in varying if axis != down]
    cells: dict[tuple[Any, tuple[Any, ...]], Heatmap] = {}
    for h in heatmaps:
        cell = cells.setdefault((_key(h, down), tuple(_key(h, axis) for axis in across)), h)
        if cell.raw.shape != h.raw.shape or bool((cell.raw != h.raw).any()):
            return _in_rows(heatmaps, varying, **look)  # two functions of one name, say, would share a tile
    if "layer" in across:
        cells = _without_input(cells, across.index("layer"))
    columns = list(dict.fromkeys(column for _, column in cells))
    heads = []
    for column in columns:
        names = [_name(axis, value, heatmaps) for axis, value in zip(across, column, strict=True)]
        heads.append(", ".join(names))
    return _grid(heatmaps, down, axes[down], columns, heads, cells, photos=across[0] == "image", **look)


def _varies(axis: str, axes: dict[str, list[Any]], heatmaps: Sequence[Heatmap]) -> bool:
    if axis == "layer":  # methods that look at no layer aren't another layer
        return len(set(axes[axis]) - {INPUT}) > 1
    if axis == "target":  # the predicted class of each image is one question
        return len({(id(h.picture), _key(h, axis)) for h in heatmaps}) > len(axes["image"])
    return len(axes[axis]) > 1


def _without_input(cells: dict[Any, Heatmap], place: int) -> dict[Any, Heatmap]:
    """A method that looks at no layer has its tile in the first column of the same image and target."""
    columns = list(dict.fromkeys(column for _, column in cells if column[place] != INPUT))
    result = {}
    for (row, column), heatmap in cells.items():
        alike = (c for c in columns if _rest(c, place) == _rest(column, place))
        result[row, next(alike, column) if column[place] == INPUT else column] = heatmap
    return result


def _rest(column: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    return column[:place] + column[place + 1 :]


def _grid(
    heatmaps: Sequence[Heatmap],
    down: str,
    rows: Sequence[Any],
    columns: Sequence[tuple[Any, ...]],
    heads: Sequence[str],
    cells: dict[tuple[Any, tuple[Any, ...]], Heatmap],
    *,
    photos: bool,
    **look: Any,
) -> Image.Image:
    from PIL import Image, ImageDraw

    tile = 176 if len(rows) * len(columns) > 12 else 240
    pictures = {id(h.picture): h.picture for h in heatmaps}
    windows = _windows(heatmaps)
    drawn = {key: _tile(h, tile, look, windows) for key, h in cells.items()}
    if down == "image":
        columns, heads = [_PHOTO, *columns], ["photo", *heads]
        drawn |= {(row, _PHOTO): fit(Image.fromarray(pictures[row].pixels), tile) for row in rows}
    width = max(picture.width for picture in drawn.values())
    height = max(picture.height for picture in drawn.values())
    side = 130
    block_width = side + len(columns) * (width + _GAP)
    blocks = _blocks(len(rows), height + _GAP, block_width)
    per_block = math.ceil(len(rows) / blocks)
    alone = next(iter(pictures.values())) if len(pictures) == 1 else None
    head = None if alone is None else _overview(heatmaps, 84 if heatmaps[0].box is None else 260)
    top = MARGIN + (head.height + 34 if head is not None else 0) + 24
    if photos:
        top += height + _GAP
    canvas = Image.new(
        "RGB",
        (2 * MARGIN + blocks * block_width + (blocks - 1) * 16, top + per_block * (height + _GAP) + MARGIN),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    if alone is not None and head is not None:
        canvas.paste(head, (MARGIN, MARGIN))
        draw.text((MARGIN + head.width + 14, MARGIN + 14), alone.name, INK, font(20))
        subtitle = ", ".join(dict.fromkeys(h.title for h in heatmaps))
        room = canvas.width - 2 * MARGIN - head.width - 14
        draw.text((MARGIN + head.width + 14, MARGIN + 44), cut(draw, subtitle, 13, room), QUIET, font(13))
    for block in range(blocks):
        left = MARGIN + block * (block_width + 16)
        for j, (column, title) in enumerate(zip(columns, heads, strict=True)):
            x = left + side + j * (width + _GAP)
            draw.text((x, top - 22), cut(draw, title, 13, width), INK, font(13))
            if photos:
                picture = next(h.picture for (_, c), h in cells.items() if c == column)
                canvas.paste(fit(Image.fromarray(picture.pixels), tile), (x, top - 28 - height))
        for i, row in enumerate(rows[block * per_block : (block + 1) * per_block]):
            y = top + i * (height + _GAP)
            name = _name(down, row, heatmaps)
            for k, line in enumerate(_wrapped(draw, name, side - 12)):
                draw.text((left, y + height // 2 - 9 + 17 * k), line, INK, font(14))
            for j, column in enumerate(columns):
                if (row, column) in drawn:
                    canvas.paste(drawn[row, column], (left + side + j * (width + _GAP), y))
    return canvas


def _in_rows(heatmaps: Sequence[Heatmap], varying: Sequence[str], **look: Any) -> Image.Image:
    tiles: list[tuple[Image.Image, str, str]] = []
    several, windows = "image" in varying, _windows(heatmaps)
    shown: set[int] = set()
    for heatmap in heatmaps:
        if id(heatmap.picture) not in shown and (heatmap.box is not None or not several):
            own = [h for h in heatmaps if h.picture is heatmap.picture]
            tiles.append((_overview(own, _ROW_TILE), heatmap.picture.name, _counted(own) or "photo"))
        shown.add(id(heatmap.picture))
        how = f"{heatmap.method.title} at {heatmap.layer}"
        title, below = (heatmap.method.title, f"{heatmap.title}, at {heatmap.layer}")
        if varying != ["method"]:
            title, below = heatmap.title, f"{heatmap.picture.name}, {how}" if several else how
        tiles.append((_tile(heatmap, _ROW_TILE, look, windows), title, below))
    return contact_sheet(tiles, tile=_ROW_TILE)


_Window = tuple[int, int, int, int]


def _tile(heatmap: Heatmap, side: int, look: dict[str, Any], windows: dict[Any, _Window]) -> Image.Image:
    """The overlay in small; of a small object what is around it, with its box and number."""
    picture = heatmap.painted(**look)
    if heatmap.box is None:
        return fit(picture, side)
    left, top, right, bottom = windows[id(heatmap.picture), heatmap.box]
    tile = fit(picture.crop((left, top, right, bottom)), side)
    x, y = tile.width / (right - left), tile.height / (bottom - top)
    box, number = heatmap.box, heatmap.number or 0
    inside = ((box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y)
    return marked(tile, [Mark(inside, str(number), number)])


def _windows(heatmaps: Sequence[Heatmap]) -> dict[Any, _Window]:
    """The part of the picture that the tiles of each object show: equally large for all objects of a picture."""
    shares: dict[int, float] = {}
    for h in heatmaps:
        if h.box is not None:
            height, width = h.picture.pixels.shape[:2]
            share = max((h.box[2] - h.box[0]) / width, (h.box[3] - h.box[1]) / height) * _AROUND
            share = share if share <= _LARGEST and _holds(h, _window(h, max(share, _SMALLEST))) else 1.0
            shares[id(h.picture)] = max(share, _SMALLEST, shares.get(id(h.picture), 0.0))
    return {(id(h.picture), h.box): _window(h, shares[id(h.picture)]) for h in heatmaps if h.box is not None}


def _window(heatmap: Heatmap, share: float) -> _Window:
    """So much of the picture, of its proportions, around an object."""
    assert heatmap.box is not None
    height, width = heatmap.picture.pixels.shape[:2]
    left, top, right, bottom = heatmap.box
    wide, high = max(1, round(width * share)), max(1, round(height * share))
    x, y = round((left + right - wide) / 2), round((top + bottom - high) / 2)
    x, y = min(max(x, 0), width - wide), min(max(y, 0), height - high)
    return x, y, x + wide, y + high


def _holds(heatmap: Heatmap, window: _Window) -> bool:
    """Whether nearly all of the map lies in it."""
    left, top, right, bottom = window
    heat = heatmap.map.abs()
    return bool(heat[..., top:bottom, left:right].sum() >= _MOST * heat.sum())


def _overview(heatmaps: Sequence[Heatmap], side: int) -> Image.Image:
    """The photo of these heatmaps, with all their boxes numbered."""
    from PIL import Image

    photo = Image.fromarray(heatmaps[0].picture.pixels)
    small = fit(photo, side)
    x, y = small.width / photo.width, small.height / photo.height
    boxes = {h.number or 0: h.box for h in heatmaps if h.box is not None}
    marks = [
        Mark((left * x, top * y, right * x, bottom * y), str(number), number)
        for number, (left, top, right, bottom) in sorted(boxes.items())
    ]
    return marked(small, marks)


def _counted(heatmaps: Sequence[Heatmap]) -> str:
    """How many objects of which class have boxes."""
    counts = Counter({h.number: h.target.split(",")[0] for h in heatmaps if h.box and h.index is not None}.values())
    return ", ".join(f"{count} x {name}" for name, count in counts.items())


def _blocks(rows: int, row_height: float, block_width: float) -> int:
    """In how many blocks side by side the rows are set, so that the page is about as wide as a screen."""
    return min(
        range(1, min(rows, 8) + 1),
        key=lambda n: abs(math.log(n * block_width / (math.ceil(rows / n) * row_height) / _LANDSCAPE)),
    )


def _key(heatmap: Heatmap, axis: str) -> Any:
    keys = {
        "image": id(heatmap.picture),
        "target": (heatmap.target, heatmap.index, heatmap.where),  # two classes may share a name
        "layer": heatmap.layer,
        "method": heatmap.method.name,
    }
    return keys[axis]


def _name(axis: str, value: Any, heatmaps: Sequence[Heatmap]) -> str:
    heatmap = next(h for h in heatmaps if _key(h, axis) == value)
    if axis == "target":
        target = heatmap.target if heatmap.index is None else heatmap.target.split(",")[0]
        return f"{target}, {heatmap.where}" if heatmap.where else target
    return {"image": heatmap.picture.name, "layer": heatmap.layer, "method": heatmap.method.title}[axis]


def _wrapped(draw: Any, text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font(14)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut(draw, line, 14, width) for line in lines[:2]]
