"""The page of a comparison of methods: what to take, why, and how that was found out."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from hookmap._files import save_image, write_bytes
from hookmap._text import counted, listed
from hookmap.analysis.drawing import Line, lines_page
from hookmap.errors import HookmapError
from hookmap.pages import render_page
from hookmap.render.figure import save_figure
from hookmap.render.overlay import fitted, resized
from hookmap.report.blocks import Section
from hookmap.report.packing import without_folders
from hookmap.results.explanation import Explanation, load
from hookmap.results.heatmap import Heatmap
from hookmap.verdict import Verdict
from hookmap.verdict.candidates import Candidate
from hookmap.verdict.folder import EXAMPLES
from hookmap.verdict.gates import BLIND, CHANCE, LEAKAGE
from hookmap.verdict.judgement import Standing

if TYPE_CHECKING:
    from PIL import Image

_TILE = 176
_UNIT = "standard deviations of random maps"
MEANINGS = {
    "SRG (mean)": (
        "Symmetric relevance gain: cells of the image are replaced by its mean colour, step by step, the least "
        "important first and the most important first; how much longer the score stays in the first case. Weakness: "
        "flat patches are no photo, and a model may react to their edges."
    ),
    "SRG (blur)": (
        "The same, where cells are replaced by a strong blur of the image. Weakness: what is recognised by its colour "
        "alone survives a blur."
    ),
    "ROAD": (
        "The same, where cells are replaced by what their surroundings let expect, with a little noise. Weakness: what "
        "is seen in context may be guessed back."
    ),
    "Controls": (
        "A bump in the middle, the mean activation and the photo's edges know nothing of the question. A method that "
        "isn't better than each of them shows nothing of this decision that they don't."
    ),
    "Leakage": (
        "DiFull: the model sees one cell of a mosaic of four images alone, and evidence in the other three is "
        f"impossible. The share of energy there; more than {LEAKAGE:.0%} is a fault."
    ),
    "Class similarity": (
        "The correlation of the maps of what was asked and of another class on the same image; from "
        f"{BLIND:.2f} on a method doesn't answer for a class."
    ),
    "Pasted": (
        "The paste test: a small copy of another image is put into a corner and becomes the model's answer; the share "
        f"of energy on it. It covers {CHANCE:.0%}; no more than that is a fault."
    ),
    "Passes": (
        "What one heatmap costs alone, in forward passes of the model on one image, on the machine that compared."
    ),
}
"""What is measured, and where it is weak."""
_MEAN = "Mean"
_NUMBERS = ("Passes", "Leakage", "Class similarity", "Pasted")
_STAGES = {"screen": "Screening", "halve": "First halving", "halve-again": "Second halving"}
_CONFIRMED = "Confirmation"


def write_verdict(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write what a comparison found as one page, and its figures.

    The page needs no network and nothing beside it. Beside it lie ``quality.png``, the mean vote against the cost, and
    ``maps.png``, a few images with the map of each contestant and control. It names pictures by their ids, and no
    folder of this machine.

    Args:
        folder: where :func:`hookmap.compare` kept what it did.
        out: the page; by default ``verdict.html`` in the folder.

    Returns:
        Where the page is.

    Raises:
        DataError: if the folder holds no verdict.
        HookmapError: if the place can't be written. What was there before stays whole.
    """
    folder = Path(folder).expanduser()
    verdict = Verdict.read(folder)
    out = folder / "verdict.html" if out is None else Path(out).expanduser()
    if out.suffix.lower() not in (".html", ".htm"):
        raise HookmapError(f"{out.name!r} doesn't end in .html; pass the page's own path as -o (out=)")
    examples = load(folder / EXAMPLES) if (folder / EXAMPLES).exists() else Explanation([])
    write_bytes(out, lambda: _page(verdict, examples).encode())
    save_figure(verdict.figure(), out.with_name("quality.png"))
    if len(examples):
        save_image(_sheet(verdict, examples), out.with_name("maps.png"))
    return out


def _page(verdict: Verdict, examples: Explanation) -> str:
    maps = _maps(verdict, examples)
    units = f"In {_UNIT}: 0 is what a random map gets. Means over images, with 95 % intervals."
    sections = [
        Section("votes", "Votes", units),
        Section("quality", "Quality and cost", "What a better map costs."),
        *([Section("maps", "Maps", "The first images that decided, not chosen by their looks.")] if maps else []),
        Section("how", "How it was found", "Only images that no earlier stage had looked at decide."),
        Section("meanings", "What is measured", "No measure is without a weakness; so there are three votes."),
    ]
    return render_page(
        "verdict",
        title=f"{_model(verdict)}: which heatmap to take",
        sections=sections,
        **_head(verdict),
        heads=[*verdict.votes, _MEAN, *_NUMBERS],
        standings=_standings(verdict),
        chart=_chart(verdict),
        maps=maps,
        made=_made(verdict),
        dropped=_dropped(verdict),
        meanings=MEANINGS,
    )


def _model(verdict: Verdict) -> str:
    return without_folders(str(verdict.asked["model"]))


def _head(verdict: Verdict) -> dict[str, Any]:
    """The recommendation, and how much it rests on."""
    return {
        "model": _model(verdict),
        "what": f"Which heatmap to take. Target: {without_folders(str(verdict.asked['target']))}.",
        "said": [*map(without_folders, verdict.summary())],
        "figures": [
            ("images decided", f"{verdict.judgement.images:,}", ""),
            ("candidates", f"{len(verdict.asked['candidates']):,}", ""),
            ("were confirmed", f"{len(verdict.candidates):,}", ""),
        ],
    }


# ---------------------------------------------------------------- votes


def _standings(verdict: Verdict) -> list[list[dict[str, Any]]]:
    """The table of contestants and of controls."""
    ends = [end for s in verdict.judgement.standings for pair in (*s.intervals, s.mean_interval) for end in pair]
    low, high = min(0.0, *ends), max(0.0, *ends)

    def row(s: Standing) -> dict[str, Any]:
        votes = zip([*verdict.votes, _MEAN], (*s.votes, s.mean), (*s.intervals, s.mean_interval), strict=True)
        return {
            "name": s.name,
            "best": s.name == verdict.judgement.best,
            "remark": verdict.remark(s.name),
            "faults": s.faults,
            "votes": [(head, f"{vote:+.2f}", _drawn(vote, interval, low, high)) for head, vote, interval in votes],
            "numbers": [*zip(_NUMBERS, _numbers(s), strict=True)],
        }

    return [[*map(row, rows)] for rows in (verdict.contestants, verdict.controls)]


def _numbers(standing: Standing) -> list[str]:
    """What stands under :data:`_NUMBERS`; nothing where it wasn't measured."""
    numbers = (standing.cost, standing.leakage, standing.similarity, standing.pasted)
    forms = (".1f", ".0%", ".2f", ".0%")
    return ["" if number is None else f"{number:{form}}" for number, form in zip(numbers, forms, strict=True)]


def _drawn(value: float, interval: tuple[float, float], low: float, high: float) -> dict[str, str]:
    """Where a value and its interval are drawn, of the 96 pixels from the lowest to the highest."""
    span = high - low or 1.0
    places = {"zero": 0.0, "at": value, "low": interval[0], "high": interval[1]}
    told = f"from {interval[0]:+.2f} to {interval[1]:+.2f}"
    return {"told": told} | {name: f"{2 + 92 * (x - low) / span:.1f}" for name, x in places.items()}


# ---------------------------------------------------------------- pictures


def _chart(verdict: Verdict) -> dict[str, str]:
    """The figure on light and on dark paper, and the same in words."""
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(_svg(verdict, dark=dark)).decode("ascii")
        for dark in (False, True)
    )
    told = "; ".join(f"{s.name}: mean vote {s.mean:+.2f}, {s.cost:.1f} passes" for s in verdict.contestants if s.cost)
    return {"light": light, "dark": dark, "told": told}


def _svg(verdict: Verdict, *, dark: bool) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hookmap"}):
        verdict.figure(dark=dark).savefig(file, format="svg", facecolor="none", metadata={"Date": None})
    return file.getvalue()


def _maps(verdict: Verdict, examples: Explanation) -> list[dict[str, Any]]:
    """The map of each contestant and control on a few images."""
    return [
        {
            "name": heatmaps[0].picture.name,
            "title": heatmaps[0].title,
            "tiles": [
                (name, _jpeg(picture), picture.size)
                for picture, name in ((_photo(heatmaps[0]), "photo"), *_tiles(verdict, heatmaps))
            ],
        }
        for heatmaps in examples.along("image")
    ]


def _sheet(verdict: Verdict, examples: Explanation) -> Image.Image:
    """The same as one picture: images from above, contestants and controls from the left."""
    names = [s.name for s in verdict.judgement.standings]
    lines = []
    for heatmaps in examples.along("image"):
        drawn = {name: picture for picture, name in _tiles(verdict, heatmaps)}
        tiles = [_photo(heatmaps[0]), *(drawn.get(name) for name in names)]
        lines.append(Line(heatmaps[0].picture.name, [heatmaps[0].title], tiles))
    subtitle = without_folders(verdict.summary()[0])
    heads = ["photo", *("\n".join([*wrap(name, 28), verdict.remark(name)]).strip() for name in names)]
    return lines_page(_model(verdict), subtitle, lines, tile=_TILE, text=190, heads=heads)


def _tiles(verdict: Verdict, heatmaps: Iterable[Heatmap]) -> list[tuple[Image.Image, str]]:
    """Heatmaps of one image in the order of the table, each with its name."""
    order = [s.name for s in verdict.judgement.standings]
    named = {Candidate.of(heatmap).name: heatmap for heatmap in heatmaps}
    return [(named[name].painted(size=_TILE), name) for name in order if name in named]


def _photo(heatmap: Heatmap) -> Image.Image:
    return resized(heatmap.picture.pixels, fitted((heatmap.picture.height, heatmap.picture.width), _TILE))


def _jpeg(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


# ---------------------------------------------------------------- how


def _made(verdict: Verdict) -> dict[str, str]:
    """How the verdict was found, line by line."""
    asked = verdict.asked
    fills = [name.removeprefix("SRG (").rstrip(")") for name in verdict.votes if name.startswith("SRG")]
    made = {
        "Images": f"{len(asked['images']):,}: {_spent(verdict)}",
        "Evidence": ""
        if verdict.reliability is None
        else f"the halves of the screening's masks agree at {verdict.reliability:.2f} (1: the same, 0: chance)",
        "The same map": "; ".join(f"{name} = {listed(same)}" for name, same in verdict.equal.items()),
        "Left out": "; ".join(f"{name}: {why}" for name, why in [*verdict.failures.items()][:10]),
        "Test": "sign flips over images, the largest statistic of all pairs and votes; intervals: BCa bootstrap",
        "Measured": f"the {asked['scale']} of the target; removed cells become the image's {' or its '.join(fills)}, "
        "or, for ROAD, what is expected from around them",
        "Seed": str(asked["seed"]),
        "Model": f"{_model(verdict)}, weights {asked['fingerprint']}, {asked['precision']}",
        "Preprocessing": str(asked["preprocessing"] or "inputs came preprocessed"),
    }
    return {name: without_folders(value) for name, value in made.items()}


def _spent(verdict: Verdict) -> str:
    """How many images each stage looked at."""
    stages = [f"{_STAGES[stage].lower()} on {count}" for stage, count in verdict.looked_at.items()]
    return ", ".join([*stages, f"confirmed on {verdict.judgement.images} others" if stages else "all confirm"])


def _dropped(verdict: Verdict) -> dict[str, Any]:
    """Where each candidate dropped out; nothing where all were confirmed."""
    if not verdict.stages:
        return {}
    last: dict[str, str] = {}
    for stage, found in verdict.stages.items():
        last |= dict.fromkeys(found, _STAGES[stage])
    last |= dict.fromkeys(verdict.candidates, _CONFIRMED)
    rank = [*_STAGES.values(), _CONFIRMED]
    screened: Mapping[str, float] = verdict.stages.get("screen", {})
    rows = [
        (name, f"{screened[name]:.2f}" if name in screened else "–", stage)
        for name, stage in sorted(last.items(), key=lambda item: (-rank.index(item[1]), -screened.get(item[0], -2)))
    ]
    told = (
        f"{counted(len(last), 'candidate')}. Agreement: the rank correlation of a map with what the model loses when "
        "cells are removed. The default is confirmed wherever it dropped out."
    )
    return {"told": told, "rows": rows}
