"""Patches of a run's pictures that are like one, found among a sample of its pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hookmap._progress import Track
from hookmap._warnings import hearing
from hookmap.app.problems import Refused
from hookmap.app.runs import BrowsedRun
from hookmap.app.safety import PICTURE_BYTES, check_pixels
from hookmap.attribution.similarity import Neighbour, PatchBank
from hookmap.errors import ImageError
from hookmap.explorer.answering import Explorer, id_of
from hookmap.explorer.questions import Box, Near, Nearest, Neighbours
from hookmap.explorer.wire import Answer
from hookmap.images.loading import Picture

SAMPLE = 64
"""So many pictures of a run are looked at."""
TOP = 12
BANKS = 2
"""Feature vectors of so many layers, models or runs are kept, the last that were asked for."""
AROUND = 3
"""A patch is shown in a picture so many times as large."""
SIDE = 112
"""The longer side of that, in pixels."""


class NearestPatches:
    """Finds patches that are like one; a search that was cancelled goes on where it was.

    Args:
        explorer: that has the models, and the pictures that are asked about.
        runs: whose pictures are looked at, by their ids.
    """

    def __init__(self, explorer: Explorer, runs: Mapping[str, BrowsedRun]) -> None:
        self._explorer, self._runs = explorer, runs
        self._samples: dict[str, dict[int, Path]] = {}
        self._ids: dict[Path, str] = {}
        self._banks: OrderedDict[tuple[Any, ...], PatchBank] = OrderedDict()

    def key(self, question: Nearest) -> str:
        """What decides the answer.

        Raises:
            HookmapError: if there's no such model, picture or run.
        """
        if question.run not in self._runs:
            raise Refused("absent", f"there's no run {question.run!r} here; hookmap serve --run FOLDER names runs")
        return self._explorer.key(question)

    def find(self, question: Nearest, track: Track) -> Answer:
        """The patches, of each picture the nearest.

        Raises:
            HookmapError: for what is wrong with the question.
            Refused: if no picture of the run can be read.
        """
        sample, bank = self._sample(question.run), self._bank(question)
        done, rows = track("pictures looked at", len(sample)), dict[str, int]()
        with hearing():  # what a single map's caller is warned of
            for row, path in sample.items():
                if (key := self._added(bank, path)) is not None:
                    rows.setdefault(key, row)
                done(1)
            rows.pop(question.picture, None)
            if not rows:
                raise Refused("absent", "no other picture of this run can be read where the run read it")
            point = (question.x, question.y)
            found = bank.nearest(self._explorer.picture(question.picture), point, [*rows], TOP)
        near, arrays = list[Near](), dict[str, Tensor]()
        for number, one in enumerate(found):
            try:
                arrays[name := f"crop.{number}"], frame = _crop(one)
            except ImageError:  # its file went meanwhile
                continue
            left, top, right, bottom = one.box
            place = ((left + right) / 2, (top + bottom) / 2)
            near.append(Near(name, frame, _name(one.picture), rows[one.key], place, one.similarity))
        return Answer(Neighbours(tuple(near), len(rows)), arrays)

    def _sample(self, run: str) -> dict[int, Path]:
        if run not in self._samples:
            self._samples[run] = self._runs[run].sample(SAMPLE)
        return self._samples[run]

    def _bank(self, question: Nearest) -> PatchBank:
        engine = self._explorer.engine(question.model)
        key = (question.model, engine.about()[1], question.layer, question.run)
        if key not in self._banks:
            self._banks[key] = PatchBank(engine, question.layer)
            while len(self._banks) > BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(key)
        return self._banks[key]

    def _added(self, bank: PatchBank, path: Path) -> str | None:
        """The key of a file's picture in the bank; None if it can't be read, or there's no room for it."""
        try:
            if (key := self._ids.get(path)) is None:
                if path.stat().st_size > PICTURE_BYTES:
                    return None
                data = path.read_bytes()
                check_pixels(data)
                key = self._ids[path] = id_of(data)
            if key not in bank:
                if bank.full:
                    return None
                bank.add(key, path)
        except (ImageError, OSError, Refused):
            return None
        return key


def _crop(neighbour: Neighbour) -> tuple[Tensor, Box]:
    """A patch and what is around it ``(h, w, 3)``, uint8, and the patch there, in shares of it."""
    from PIL import Image

    pixels = neighbour.picture.pixels
    left, top, right, bottom = neighbour.box
    side = AROUND * max(right - left, bottom - top)
    x, width = _within((left + right) / 2, side, pixels.shape[1])
    y, height = _within((top + bottom) / 2, side, pixels.shape[0])
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
    frame = ((left - x) / width, (top - y) / height, (right - x) / width, (bottom - y) / height)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3), frame


def _within(centre: float, side: float, length: int) -> tuple[float, float]:
    """Where so long a side begins that is about a centre as far as it fits, and how long it is."""
    side = min(side, length)
    return min(max(centre - side / 2, 0.0), length - side), side


def _name(picture: Picture) -> str:
    return picture.name if picture.path is None else picture.path.name
