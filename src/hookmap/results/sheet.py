"""Several heatmaps as one labelled sheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack, get_args

from hookmap.hooks.capture import INPUT
from hookmap.render.colors import joint_span
from hookmap.render.figure import INK, MARGIN, QUIET, contact_sheet, cut, fit, write_note
from hookmap.render.look import Look, LookOptions
from hookmap.render.overlay import Mark, fitted, font, marked, resized
from hookmap.results.heatmap import Axis, Heatmap

if TYPE_CHECKING:
    from PIL import Image

_GAP = 8
_LANDSCAPE = 1.5
_AXES: tuple[Axis, ...] = get_args(Axis)
_PHOTO = ("photo",)
_ROW_TILE = 300
# A tile shows at least so much around a box, so much of the picture and of the map; all, if that is a large part.
_AROUND, _SMALLEST, _MOST, _LARGEST = 3.0, 0.2, 0.95, 0.6

_Window = tuple[int, int, int, int]
_Span = tuple[float, float]
_Cells = dict[tuple[Any, tuple[Any, ...]], Heatmap]


def explanation_sheet(heatmaps: Sequence[Heatmap], **look: Unpack[LookOptions]) -> Image.Image:
    """Heatmaps as a grid if two things vary among them (images, targets, layers, methods), else in rows.

    The photo comes first, so that what the model saw can be compared with where it looked. The classes of one image
    are drawn on one scale by each method at each layer, so that they can be compared; other tiles have their own.
    """
    return _Sheet(heatmaps, look).drawn()


class _Sheet:
    """Several heatmaps on a page."""

    def __init__(self, heatmaps: Sequence[Heatmap], look: LookOptions) -> None:
        self.heatmaps = heatmaps
        self.look = look
        self.several = len({h.position.image for h in heatmaps}) > 1
        self.axes = {axis: list(dict.fromkeys(self.key(h, axis) for h in heatmaps)) for axis in _AXES}
        self.spans = self._spans()
        self.windows = _windows(heatmaps)

    def drawn(self) -> Image.Image:
        """The page."""
        varying = [axis for axis in _AXES if self._varies(axis)]
        objects = any(h.box is not None for h in self.heatmaps)
        if len(varying) < 2 or (objects and "image" in varying):  # each image has objects of its own
            return self._in_rows(varying)
        # Methods read best down the side; of the rest, what varies most.
        down: Axis = "method" if "method" in varying else max(varying, key=lambda axis: len(self.axes[axis]))
        across = [axis for axis in varying if axis != down]
        cells: _Cells = {}
        for h in self.heatmaps:
            cell = cells.setdefault((self.key(h, down), tuple(self.key(h, axis) for axis in across)), h)
            if not _same_map(cell, h):
                return self._in_rows(varying)  # two functions of one name, say, would share a tile
        if "layer" in across:
            cells = _without_input(cells, across.index("layer"), self.key)
        return self._grid(down, across, cells, named="target" not in varying)

    def key(self, heatmap: Heatmap, axis: Axis) -> Any:
        """What tells heatmaps apart along an axis; across images a target is known by its name."""
        if axis == "target" and self.several:
            return heatmap.target, heatmap.index, heatmap.where
        return getattr(heatmap.position, axis) if axis != "layer" else heatmap.layer

    def _varies(self, axis: Axis) -> bool:
        if axis == "layer":  # methods that look at no layer aren't another layer
            return len(set(self.axes[axis]) - {INPUT}) > 1
        if axis == "target":  # the predicted class of each image is one question
            return len({(h.position.image, self.key(h, axis)) for h in self.heatmaps}) > len(self.axes["image"])
        return len(self.axes[axis]) > 1

    def _spans(self) -> dict[tuple[int, str, int], _Span]:
        """The scales that classes of one image share, by image, layer and method."""
        spans: dict[tuple[int, str, int], list[_Span]] = {}
        for h in self.heatmaps:
            if h.index is not None and h.box is None:
                look = h.look.but(self.look)
                own = [plane.span(look) for plane in h.planes(look)[:1] if h.evidence == "some"]
                spans.setdefault((h.position.image, h.layer, h.position.method), []).extend(own)
        return {place: joint_span(several) for place, several in spans.items() if len(several) > 1}

    def _span(self, heatmap: Heatmap) -> _Span | None:
        return self.spans.get((heatmap.position.image, heatmap.layer, heatmap.position.method))

    def _note(self) -> tuple[str, Look | None]:
        """How the tiles are scaled, and a look whose two colours are to be named."""
        looks = [h.look.but(self.look) for h in self.heatmaps]
        shared = sum(self._span(h) is not None for h in self.heatmaps)
        if all(look.limit is not None and look.limit == looks[0].limit for look in looks):
            note = f"All tiles have one colour scale, up to {looks[0].limit:.4g}."
        elif shared == len(looks) and len(self.spans) == 1:
            note = "All tiles have one colour scale."
        elif shared:
            each = [name for name in ("image", "layer", "method") if len(self.axes[name]) > 1]
            note = f"The classes of {' and '.join(f'one {name}' for name in each)} have one colour scale."
        else:
            note = "Each tile has its own colour scale, up to its strongest evidence."
        return note, next((look for look in looks if look.symmetric), None)

    def _tile(self, heatmap: Heatmap, side: int) -> Image.Image:
        """The overlay in small; of a small object what is around it, with its box and number."""
        if heatmap.box is None:
            return heatmap.painted(size=side, span=self._span(heatmap), **self.look)
        left, top, right, bottom = self.windows[heatmap.position.image, heatmap.box]
        scale = side / max(right - left, bottom - top)
        whole = max(heatmap.picture.height, heatmap.picture.width)
        picture = heatmap.painted(size=max(1, round(whole * scale)), **self.look)
        y, x = picture.height / heatmap.picture.height, picture.width / heatmap.picture.width
        tile = fit(picture.crop((round(left * x), round(top * y), round(right * x), round(bottom * y))), side)
        box, number = heatmap.box, heatmap.number or 0
        y, x = tile.height / (bottom - top), tile.width / (right - left)
        inside = ((box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y)
        return marked(tile, [Mark(inside, str(number), number)])

    def _grid(self, down: Axis, across: Sequence[Axis], cells: _Cells, *, named: bool) -> Image.Image:
        from PIL import Image, ImageDraw

        rows, columns = self.axes[down], list(dict.fromkeys(column for _, column in cells))
        first = {row: next(h for (r, _), h in cells.items() if r == row) for row in rows}
        heads = []
        for column in columns:
            heatmap = next(h for (_, c), h in cells.items() if c == column)
            heads.append(", ".join(_name(axis, heatmap, titled=named) for axis in across))
        tile = 176 if len(rows) * len(columns) > 12 else 240
        drawn = {place: self._tile(h, tile) for place, h in cells.items()}
        photos = across[0] == "image"
        if down == "image":
            columns, heads = [_PHOTO, *columns], ["photo", *heads]
            drawn |= {(row, _PHOTO): _photo(first[row], tile) for row in rows}
        width = max(picture.width for picture in drawn.values())
        height = max(picture.height for picture in drawn.values())
        side = 130
        block_width = side + len(columns) * (width + _GAP)
        blocks = _blocks(len(rows), height + _GAP, block_width)
        per_block = math.ceil(len(rows) / blocks)
        alone = None if self.several else self.heatmaps[0]
        head = None if alone is None else _overview(self.heatmaps, 84 if alone.box is None else 260)
        top = MARGIN + (head.height + 34 if head is not None else 0) + 24
        if photos:
            top += height + _GAP
        canvas = Image.new(
            "RGB",
            (2 * MARGIN + blocks * block_width + (blocks - 1) * 16, top + per_block * (height + _GAP) + MARGIN + 18),
            "white",
        )
        draw = ImageDraw.Draw(canvas)
        if alone is not None and head is not None:
            canvas.paste(head, (MARGIN, MARGIN))
            draw.text((MARGIN + head.width + 14, MARGIN + 14), alone.picture.name, INK, font(20))
            subtitle = ", ".join(dict.fromkeys(h.title for h in self.heatmaps))
            room = canvas.width - 2 * MARGIN - head.width - 14
            draw.text((MARGIN + head.width + 14, MARGIN + 44), cut(draw, subtitle, 13, room), QUIET, font(13))
        for block in range(blocks):
            left = MARGIN + block * (block_width + 16)
            for j, (column, title) in enumerate(zip(columns, heads, strict=True)):
                x = left + side + j * (width + _GAP)
                draw.text((x, top - 22), cut(draw, title, 13, width), INK, font(13))
                if photos:
                    heatmap = next(h for (_, c), h in cells.items() if c == column)
                    canvas.paste(_photo(heatmap, tile), (x, top - 28 - height))
            for i, row in enumerate(rows[block * per_block : (block + 1) * per_block]):
                y = top + i * (height + _GAP)
                name = _name(down, first[row], titled=named)
                for k, line in enumerate(_wrapped(draw, name, side - 12)):
                    draw.text((left, y + height // 2 - 9 + 17 * k), line, INK, font(14))
                for j, column in enumerate(columns):
                    if (row, column) in drawn:
                        canvas.paste(drawn[row, column], (left + side + j * (width + _GAP), y))
        write_note(canvas, *self._note())
        return canvas

    def _in_rows(self, varying: Sequence[Axis]) -> Image.Image:
        tiles: list[tuple[Image.Image, str, str]] = []
        shown: set[int] = set()
        for heatmap in self.heatmaps:
            number = heatmap.position.image
            if number not in shown and (heatmap.box is not None or not self.several):
                own = [h for h in self.heatmaps if h.position.image == number]
                tiles.append((_overview(own, _ROW_TILE), heatmap.picture.name, _counted(own) or "photo"))
            shown.add(number)
            how = f"{heatmap.method.title} at {heatmap.layer}"
            title, below = (heatmap.method.title, f"{heatmap.title}, at {heatmap.layer}")
            if [*varying] != ["method"]:
                title, below = heatmap.title, f"{heatmap.picture.name}, {how}" if self.several else how
            tiles.append((self._tile(heatmap, _ROW_TILE), title, below))
        return contact_sheet(tiles, tile=_ROW_TILE, note=self._note())


def _without_input(cells: _Cells, place: int, key: Callable[[Heatmap, Axis], Any]) -> _Cells:
    """A method that looks at no layer has its tile in the first column of the same image and target."""
    columns = list(dict.fromkeys(column for _, column in cells if column[place] != INPUT))
    result: _Cells = {}
    for (row, column), heatmap in cells.items():
        alike = (c for c in columns if _rest(c, place) == _rest(column, place))
        result[row, next(alike, column) if key(heatmap, "layer") == INPUT else column] = heatmap
    return result


def _same_map(one: Heatmap, other: Heatmap) -> bool:
    """Whether two maps are equal but for rounding: of a class that was predicted and was asked for, say."""
    if one.raw.shape != other.raw.shape:
        return False
    return bool(((one.raw - other.raw).abs() <= 1e-4 * one.raw.abs().max()).all())


def _rest(column: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    return column[:place] + column[place + 1 :]


def _photo(heatmap: Heatmap, side: int) -> Image.Image:
    return resized(heatmap.picture.pixels, fitted((heatmap.picture.height, heatmap.picture.width), side))


def _windows(heatmaps: Sequence[Heatmap]) -> dict[tuple[int, Any], _Window]:
    """The part of the picture that the tiles of each object show: equally large for all objects of a picture."""
    shares: dict[int, float] = {}
    for h in heatmaps:
        if h.box is not None:
            height, width = h.picture.height, h.picture.width
            share = max((h.box[2] - h.box[0]) / width, (h.box[3] - h.box[1]) / height) * _AROUND
            share = share if share <= _LARGEST and _holds(h, _window(h, max(share, _SMALLEST))) else 1.0
            shares[h.position.image] = max(share, _SMALLEST, shares.get(h.position.image, 0.0))
    return {(h.position.image, h.box): _window(h, shares[h.position.image]) for h in heatmaps if h.box is not None}


def _window(heatmap: Heatmap, share: float) -> _Window:
    """So much of the picture, of its proportions, around an object."""
    assert heatmap.box is not None
    height, width = heatmap.picture.height, heatmap.picture.width
    left, top, right, bottom = heatmap.box
    wide, high = max(1, round(width * share)), max(1, round(height * share))
    x, y = round((left + right - wide) / 2), round((top + bottom - high) / 2)
    x, y = min(max(x, 0), width - wide), min(max(y, 0), height - high)
    return x, y, x + wide, y + high


def _holds(heatmap: Heatmap, window: _Window) -> bool:
    """Whether nearly all of the map lies in it."""
    full = heatmap.picture.height, heatmap.picture.width
    size = fitted(full, min(max(full), _ROW_TILE))
    y, x = size[0] / full[0], size[1] / full[1]
    heat = heatmap.geometry.displayed(size).lay_back(heatmap.values.abs())
    left, top, right, bottom = round(window[0] * x), round(window[1] * y), round(window[2] * x), round(window[3] * y)
    return bool(heat[..., top:bottom, left:right].sum() >= _MOST * heat.sum())


def _overview(heatmaps: Sequence[Heatmap], side: int) -> Image.Image:
    """The photo of these heatmaps, with all their boxes numbered."""
    small = _photo(heatmaps[0], side)
    x, y = small.width / heatmaps[0].picture.width, small.height / heatmaps[0].picture.height
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


def _name(axis: Axis, heatmap: Heatmap, *, titled: bool) -> str:
    """What stands at a row or over a column; ``titled``: an image with what was explained of it."""
    if axis == "target":
        target = heatmap.target if heatmap.index is None else heatmap.target.split(",")[0]
        return f"{target}, {heatmap.where}" if heatmap.where else target
    image = f"{heatmap.picture.name}: {heatmap.title}" if titled else heatmap.picture.name
    return {"image": image, "layer": heatmap.layer, "method": heatmap.method.title}[axis]


def _wrapped(draw: Any, text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font(14)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut(draw, line, 14, width) for line in lines[:3]]
