"""Write what Python makes of a few maps: fixtures.json for look.test.ts, differences.json for difference.test.ts."""

import json
from pathlib import Path

import numpy as np
import torch

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.methods import METHODS
from hookmap.render.colors import Array, palette, shades
from hookmap.render.look import Look
from hookmap.results.difference import difference
from hookmap.results.heatmap import Heatmap
from hookmap.results.planes import Plane, part_of

LOOKS = [
    Look(),
    Look(part="negative", colormap="viridis"),
    Look(part="signed", scale="symmetric", outliers=0.05),
    Look(scale="symmetric", part="signed", limit=0.7, opacity=0.4),
    Look(part="signed", scale="minmax", colormap="gray"),
    Look(limit=2.0, grey=True, threshold=0.3),
]
GEOMETRIES = [
    Geometry.identity((6, 8)),
    Geometry((30, 40), (24, 24), (0.8, 0.8), (0, -4)),  # cropped
    Geometry((20, 40), (32, 32), (0.8, 0.8), (8, 0)),  # letterboxed
]


def listed(values: Array) -> list[float]:
    """A flat list, exact enough for colours."""
    return [round(value, 5) for value in np.asarray(values).ravel().tolist()]


def case(raw: Array, look: Look, geometry: Geometry) -> dict[str, object]:
    """What is drawn of a map, and how it is laid onto the picture."""
    tensor = torch.from_numpy(raw)
    values = part_of(tensor, look.part)
    evidence = tensor.abs()[geometry.cells(raw.shape)]
    heat = Plane(None, values.numpy(), evidence.numpy(), geometry).heat(look)  # type: ignore[arg-type]
    return {
        "raw": listed(raw),
        "grid": raw.shape,
        "picture": geometry.original,
        "area": geometry.span,
        "look": look.as_json(),
        "shares": listed(heat.shares),
        "span": heat.span,
        "start": heat.start,
        "opacity": listed(shades(heat)[1][::93]),
        "color": listed(palette(look.colors)[::93]),
        "laid": listed(geometry.lay_back(torch.from_numpy(heat.shares), "cubic").numpy()),
    }


def pair(raws: list[Array], looks: list[Look], geometries: list[Geometry]) -> dict[str, object]:
    """The difference of two maps, every 37th value of it."""
    picture, method = Picture(np.zeros((*geometries[0].original, 3), np.uint8)), METHODS["gradcam"]
    first, second = (
        Heatmap(torch.from_numpy(raw), picture, geometry, method, "layer", "target", None, 1.0, look=look)
        for raw, look, geometry in zip(raws, looks, geometries, strict=True)
    )
    found = difference(first, second)
    return {
        "picture": geometries[0].original,
        "given": [
            {"raw": listed(one.raw), "grid": one.raw.shape, "area": one.geometry.span, "look": one.look.as_json()}
            for one in (first, second)
        ],
        "shape": found.values.shape,
        "values": listed(found.values.flatten()[::37]),
        "area": found.area,
        "limit": found.look.limit,
        "strongest": found.strongest,
    }


draw = np.random.default_rng(0)
raws = [draw.normal(size=shape).astype(np.float32) for shape in ((3, 4), (7, 7), (5, 5))]
cases = [case(raw, look, geometry) for look in LOOKS for raw, geometry in zip(raws, GEOMETRIES, strict=True)]
(Path(__file__).parent / "fixtures.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
whole, part = Geometry((30, 40), (30, 40)), GEOMETRIES[1]
pairs = [
    pair(raws[:2], [Look(), Look(part="negative")], [whole, whole]),
    pair(raws[1:], [Look(), Look("signed", "symmetric")], [whole, part]),
    pair([raws[0], raws[0] / 9], [Look("signed", "minmax"), Look("signed", "minmax")], [part, part]),
    pair([raws[0], raws[2] * 0 - 1], [Look(), Look()], [part, whole]),
]
(Path(__file__).parent / "differences.json").write_text(json.dumps(pairs, separators=(",", ":")) + "\n")
