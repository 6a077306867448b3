"""A browser draws maps as Python does, with its graphics card and without."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hookmap.images.geometry import Geometry
from hookmap.render.colors import heat_of, span_of
from hookmap.render.look import Look
from hookmap.render.overlay import overlay

UI = Path(__file__).parents[2] / "ui"
SIGNED = Look(part="signed", scale="symmetric")
DRAW = np.random.default_rng(3)
CROPPED = Geometry((180, 240), (96, 96), (0.6, 0.6), (-6, -24))
LETTERBOXED = Geometry((120, 300), (128, 128), (0.4, 0.4), (40, 4))
MAPS = {
    "small": (Geometry.identity((90, 120)), (7, 7), Look()),
    "one cell": (Geometry.identity((60, 80)), (1, 2), Look()),
    "signed": (Geometry.identity((200, 150)), (14, 14), SIGNED),
    "signed on grey": (Geometry.identity((150, 200)), (28, 28), Look(part="signed", scale="symmetric", grey=True)),
    "cropped": (CROPPED, (12, 12), Look()),
    "cropped, signed": (CROPPED, (24, 24), SIGNED),
    "letterboxed": (LETTERBOXED, (16, 16), Look(colormap="viridis", threshold=0.5)),
    "pixels": (Geometry.identity((128, 128)), (128, 128), Look(outliers=0.02)),
    "large": (Geometry.identity((1400, 2000)), (7, 10), Look(colormap="jet", opacity=0.3)),
    "slices": (Geometry((40, 200), (40, 160), (1.0, 0.8), (0.0, 0.0)), (5, 16), Look(part="signed", scale="minmax")),
}


@pytest.fixture(scope="module")
def page(chromium: Any) -> Iterator[Any]:
    """A page with the painters of ui/core/draw."""
    rolldown = UI / "node_modules" / ".bin" / "rolldown"
    if shutil.which("node") is None or not rolldown.exists():
        pytest.skip("the interface's sources need Node and `npm ci` in ui/")
    bundle = subprocess.run([rolldown, UI / "tests" / "draw.ts", "--format", "iife"], capture_output=True, text=True)
    assert bundle.returncode == 0, bundle.stderr
    view = chromium.new_page()
    view.set_content("<!doctype html>")
    view.add_script_tag(content=bundle.stdout)
    yield view
    view.close()


def asked(name: str) -> tuple[dict[str, Any], Image.Image]:
    """A map as the page is given it, and as Python draws it."""
    geometry, grid, look = MAPS[name]
    raw = DRAW.normal(0.2, 1, grid).astype(np.float32)
    photo = Image.fromarray(DRAW.integers(0, 256, (*geometry.original, 3), np.uint8))
    values = raw if look.part == "signed" else raw.clip(0)
    cells = geometry.cells(grid)
    heat = heat_of(values, look, span_of(values[cells], np.abs(raw)[cells], look))
    with io.BytesIO() as file:
        photo.save(file, "PNG")
        coded = base64.b64encode(file.getvalue()).decode("ascii")
    (y, x), (top, left), (h, w) = geometry.scale, geometry.offset, geometry.input
    area = [-left / x, -top / y, (w - left) / x, (h - top) / y]
    about = {"photo": f"data:image/png;base64,{coded}", "raw": raw.ravel().tolist(), "grid": grid}
    return {**about, "area": area, "look": look.as_json()}, overlay(photo, heat, geometry)


@pytest.mark.parametrize("painter", ["gl", "cpu"])
@pytest.mark.parametrize("name", MAPS)
def test_a_browser_draws_as_python_does(page: Any, painter: str, name: str) -> None:
    about, meant = asked(name)
    assert page.evaluate("painter => painters[painter].by", painter) == painter
    coded = page.evaluate("([painter, about]) => painted(painters[painter], about)", [painter, about])
    found = Image.open(io.BytesIO(base64.b64decode(coded.partition(",")[2]))).convert("RGB")
    assert found.size == meant.size
    difference = np.abs(np.asarray(found, np.int16) - np.asarray(meant, np.int16))
    assert difference.max() <= 2, f"{difference.max()} at {np.unravel_index(difference.argmax(), difference.shape)}"


def test_who_loses_the_graphics_card_draws_on(page: Any) -> None:
    about, _ = asked("cropped, signed")
    lost = page.evaluate("about => withoutCard(about)", about)
    assert lost == page.evaluate("about => byProcessor(about)", about)
