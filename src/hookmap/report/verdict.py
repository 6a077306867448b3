"""The page of a comparison of methods: what to take, why, and how that was found out."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from textwrap import wrap
from typing import TYPE_CHECKING

from hookmap._files import save_image, write_bytes
from hookmap._text import counted, listed
from hookmap.analysis.drawing import Line, lines_page
from hookmap.errors import HookmapError
from hookmap.render.figure import save_figure
from hookmap.render.overlay import fitted, resized
from hookmap.report.frame import asset, policy, section_html
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
    style = asset("style.css")
    sections = [
        ("votes", "Votes", f"In {_UNIT}: 0 is what a random map gets. Means over images, with 95 % intervals.", _votes),
        ("quality", "Quality and cost", "What a better map costs.", _quality),
        ("maps", "Maps", "The first images that decided, not chosen by their looks.", _maps),
        ("how", "How it was found", "Only images that no earlier stage had looked at decide.", _how),
        ("meanings", "What is measured", "No measure is without a weakness; so there are three votes.", _meanings),
    ]
    shown = [(name, title, note, body) for name, title, note, make in sections if (body := make(verdict, examples))]
    return Template(asset("verdict.html")).substitute(
        policy=policy(style),
        title=escape(f"{_model(verdict)}: which heatmap to take"),
        style=style,
        links="".join(f'<a href="#{name}">{title}</a>' for name, title, _, _ in shown),
        header=_header(verdict),
        sections="".join(section_html(name, title, note, body) for name, title, note, body in shown),
    )


def _model(verdict: Verdict) -> str:
    return without_folders(str(verdict.asked["model"]))


def _header(verdict: Verdict) -> str:
    """The recommendation, and how much it rests on."""
    first, *rest = map(without_folders, verdict.summary())
    about = f"Which heatmap to take. Target: {without_folders(str(verdict.asked['target']))}."
    figures = {
        "images decided": f"{verdict.judgement.images:,}",
        "candidates": f"{len(verdict.asked['candidates']):,}",
        "were confirmed": f"{len(verdict.candidates):,}",
    }
    numbers = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    return (
        f'<header class="head"><h1>{escape(_model(verdict))}</h1><p class="what">{escape(about)}</p>'
        f'<div class="said"><p class="lead">{escape(first)}</p>{"".join(f"<p>{escape(s)}</p>" for s in rest)}</div>'
        f'<dl class="figures">{numbers}</dl></header>'
    )


# ---------------------------------------------------------------- votes


def _votes(verdict: Verdict, examples: Explanation) -> str:
    """The table of contestants and controls."""
    votes = [*verdict.votes, "Mean"]
    heads = ["", *votes, *_NUMBERS]
    ends = [end for s in verdict.judgement.standings for pair in (*s.intervals, s.mean_interval) for end in pair]
    low, high = min(0.0, *ends), max(0.0, *ends)

    def row(s: Standing) -> str:
        remark = verdict.remark(s.name)
        faults = "".join(f'<div class="flag">{escape(fault)}</div>' for fault in s.faults)
        name = f"<b>{escape(s.name)}</b>" if s.name == verdict.judgement.best else escape(s.name)
        told = f'<div class="note">{escape(remark)}</div>' if remark else ""
        cells = [f'<th scope="row">{name}{told}{faults}</th>']
        for title, value, interval in zip(votes, (*s.votes, s.mean), (*s.intervals, s.mean_interval), strict=True):
            bar = _bar(value, interval, low, high)
            cells.append(f'<td class="number" data-head="{escape(title)}">{value:+.2f}{bar}</td>')
        for title, (number, form) in zip(_NUMBERS, _numbers(s), strict=True):
            if number is not None:
                cells.append(f'<td class="number" data-head="{title}">{number:{form}}</td>')
            else:
                cells.append(f'<td class="number none" data-head="{title}">&ndash;</td>')
        return f"<tr>{''.join(cells)}</tr>"

    head = "".join(f'<th scope="col"{" class=number" * bool(title)}>{escape(title)}</th>' for title in heads)
    bodies = "".join(f"<tbody>{''.join(map(row, rows))}</tbody>" for rows in (verdict.contestants, verdict.controls))
    return f'<div class="standings"><table><thead><tr>{head}</tr></thead>{bodies}</table></div>'


def _numbers(standing: Standing) -> list[tuple[float | None, str]]:
    """What stands under :data:`_NUMBERS`, and how it is written."""
    return [
        (standing.cost, ".1f"),
        (standing.leakage, ".0%"),
        (standing.similarity, ".2f"),
        (standing.pasted, ".0%"),
    ]


def _bar(value: float, interval: tuple[float, float], low: float, high: float) -> str:
    """A value and its interval on a line that is the same in all cells, with a mark at 0."""
    span = high - low or 1.0
    zero, at, left, right = (2 + 92 * (x - low) / span for x in (0.0, value, *interval))
    told = f"from {interval[0]:+.2f} to {interval[1]:+.2f}"
    return (
        f'<svg class="interval" viewBox="0 0 96 12" role="img" aria-label="{told}"><title>{told}</title>'
        f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="12"/>'
        f'<line class="range" x1="{left:.1f}" x2="{right:.1f}" y1="6" y2="6"/>'
        f'<circle cx="{at:.1f}" cy="6" r="3"/></svg>'
    )


# ---------------------------------------------------------------- pictures


def _quality(verdict: Verdict, examples: Explanation) -> str:
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(_svg(verdict, dark=dark)).decode("ascii")
        for dark in (False, True)
    )
    told = "; ".join(f"{s.name}: mean vote {s.mean:+.2f}, {s.cost:.1f} passes" for s in verdict.contestants if s.cost)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Figure"><picture class="chart">'
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(told)}"></picture></div>'
    )


def _svg(verdict: Verdict, *, dark: bool) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hookmap"}):
        verdict.figure(dark=dark).savefig(file, format="svg", facecolor="none", metadata={"Date": None})
    return file.getvalue()


def _maps(verdict: Verdict, examples: Explanation) -> str:
    """The map of each contestant and control on a few images."""
    lines = []
    for heatmaps in examples.along("image"):
        tiles = [(_photo(heatmaps[0]), "photo"), *_tiles(verdict, heatmaps)]
        figures = "".join(
            f'<figure><img src="{_jpeg(picture)}" alt="" width="{picture.width}" height="{picture.height}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for picture, name in tiles
        )
        lines.append(
            f'<article><div><h3>{escape(heatmaps[0].picture.name)}</h3><p class="note">{escape(heatmaps[0].title)}</p>'
            f'</div><div class="strip">{figures}</div></article>'
        )
    return f'<div class="rows sheet">{"".join(lines)}</div>' if lines else ""


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


def _how(verdict: Verdict, examples: Explanation) -> str:
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
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(without_folders(value))}</dd>" for name, value in made.items() if value
    )
    return f'<dl class="made">{lines}</dl>{_dropped(verdict)}'


def _spent(verdict: Verdict) -> str:
    """How many images each stage looked at."""
    stages = [f"{_STAGES[stage].lower()} on {count}" for stage, count in verdict.looked_at.items()]
    return ", ".join([*stages, f"confirmed on {verdict.judgement.images} others" if stages else "all confirm"])


def _dropped(verdict: Verdict) -> str:
    """Where each candidate dropped out."""
    if not verdict.stages:
        return ""
    last: dict[str, str] = {}
    for stage, found in verdict.stages.items():
        last |= dict.fromkeys(found, _STAGES[stage])
    last |= dict.fromkeys(verdict.candidates, _CONFIRMED)
    rank = [*_STAGES.values(), _CONFIRMED]
    screened: Mapping[str, float] = verdict.stages.get("screen", {})
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{_decimal(screened.get(name))}</td><td>{where}</td></tr>'
        for name, where in sorted(last.items(), key=lambda item: (-rank.index(item[1]), -screened.get(item[0], -2)))
    )
    heads = '<th scope="col">Candidate</th><th scope="col" class="number">Agreement</th><th scope="col">Came to</th>'
    told = (
        f"{counted(len(last), 'candidate')}. Agreement: the rank correlation of a map with what the model loses when "
        "cells are removed. The default is confirmed wherever it dropped out."
    )
    return (
        f'<details><summary>Where candidates dropped out</summary><p class="note">{told}</p>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _decimal(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.2f}"


def _meanings(verdict: Verdict, examples: Explanation) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in MEANINGS.items())
    return f'<dl class="made meanings">{lines}</dl>'
