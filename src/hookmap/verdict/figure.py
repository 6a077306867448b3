"""Quality against cost, as a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hookmap.verdict.judgement import Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#d1495b", "#2f7fb8", "#3a9164", "#a066c2", "#c27c1e", "#5d7f8c")
"""Of contestants, from the best: each is told apart on white and on black."""
_INK, _QUIET, _RULE = ("#1c1c20", "#e9e9ec"), ("#6e7078", "#a0a2ac"), ("#c9cad0", "#4a4c56")
_WIDTH, _LABELS, _LEFT, _TOP, _BOTTOM = 8.6, 2.9, 0.75, 0.62, 0.62
_LINE, _LETTERS = 0.17, 29


def quality_figure(
    contestants: Sequence[Standing],
    controls: Sequence[Standing],
    *,
    best: str | None,
    remark: Callable[[str], str],
    dark: bool = False,
) -> Figure:
    """The mean vote with its interval against the cost in forward passes.

    A line joins those that nothing is both better and cheaper than. Controls have no cost: each is a line across.

    Args:
        contestants: the best first.
        controls: what they must be better than.
        best: the name of what is recommended.
        remark: of a contestant's name, what is said below it, e.g. "recommended", or nothing.
        dark: drawn for a dark page.
    """
    from matplotlib.figure import Figure

    ink, quiet, rule = (pair[dark] for pair in (_INK, _QUIET, _RULE))
    priced = [(s, s.cost) for s in contestants if s.cost is not None]
    front = pareto([(cost, s.mean) for s, cost in priced])
    colors = {s.name: COLORS[i % len(COLORS)] for i, s in enumerate(contestants)}
    named = [(s.mean, s.name, colors[s.name]) for s, _ in priced]
    named += [(s.mean, s.name, quiet) for s in controls] + [(0.0, "random maps", quiet)]
    labels = []
    for _, name, _ in named:
        said = remark(name) if name in colors else ""
        labels.append([*textwrap.wrap(name, _LETTERS, max_lines=2, placeholder=" ..."), *([said] if said else [])])
    heights = [_LINE * len(lines) + 0.07 for lines in labels]
    high = max(2.8, sum(heights))
    figure = Figure(figsize=(_WIDTH, high + _TOP + _BOTTOM), dpi=150, facecolor="none" if dark else "white")
    size = figure.get_size_inches()
    axes = figure.add_axes(
        (_LEFT / size[0], _BOTTOM / size[1], (size[0] - _LEFT - _LABELS) / size[0], high / size[1]), facecolor="none"
    )
    bottom, top = _span([0.0, *(s.mean for s in controls), *(end for s in contestants for end in s.mean_interval)])
    axes.set_ylim(bottom, top)
    left, right = _decade([cost for _, cost in priced])
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_xticks(_ticks(left, right), [f"{tick:g}" for tick in _ticks(left, right)])
    axes.set_xticks([], minor=True)

    for y in (0.0, *(s.mean for s in controls)):
        axes.axhline(y, color=rule, linewidth=1, linestyle="-" if y == 0 else (0, (4, 3)), zorder=1)
    if len(front) > 1:
        steps = [priced[i] for i in front]
        axes.step([c for _, c in steps], [s.mean for s, _ in steps], where="post", color=quiet, linewidth=1.2, zorder=2)
    for i, (s, cost) in enumerate(priced):
        color, undominated = colors[s.name], i in front
        axes.plot([cost, cost], s.mean_interval, color=color, linewidth=1.6, solid_capstyle="butt", zorder=3)
        axes.plot([cost, right], [s.mean, s.mean], ":", color=color, linewidth=1, alpha=0.6, zorder=2.5)
        face = color if undominated else ("#141417" if dark else "white")
        axes.plot(
            [cost], [s.mean], "o", color=color, markerfacecolor=face, markersize=8 if undominated else 7, zorder=4
        )

    scale = high / (top - bottom)
    places = spread([(y - bottom) * scale for y, *_ in named], heights, high)
    for (y, name, color), lines, place in zip(named, labels, places, strict=True):
        axes.plot(
            [1, 1.035],
            [(y - bottom) * scale / high, place / high],
            transform=axes.transAxes,
            color=color,
            linewidth=0.8,
            alpha=0.7,
            clip_on=False,
        )
        axes.text(
            1.05,
            place / high,
            "\n".join(lines),
            transform=axes.transAxes,
            va="center",
            color=quiet if color == quiet else ink,
            fontsize=9,
            fontweight="bold" if name == best else "normal",
            linespacing=1.15,
            parse_math=False,
        )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(rule)
    axes.tick_params(colors=quiet, labelsize=9, length=3)
    axes.set_xlabel("cost of a heatmap, in forward passes", color=quiet, fontsize=9)
    edge = 0.12 / size[0]
    figure.text(edge, 1 - 0.16 / size[1], "Mean vote against cost", color=ink, fontsize=12, va="top")
    how = "In standard deviations of random maps, 95 % intervals. Filled, on the line: nothing is better and cheaper."
    figure.text(edge, 1 - 0.4 / size[1], how, color=quiet, fontsize=8.5, va="top")
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (cost, quality), the numbers of those that no other is both better and cheaper than, by cost.

    >>> pareto([(1, 2), (3, 1), (4, 5), (1, 1)])
    [0, 2]
    """
    front: list[int] = []
    for number in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[number][1] > points[front[-1]][1]:
            front.append(number)
    return front


def spread(at: Sequence[float], heights: Sequence[float], room: float) -> list[float]:
    """Where the middles of labels stand, so that none covers another and all are as near to their places as can be.

    Args:
        at: where each belongs, from 0 to ``room``.
        heights: of the labels, ``room`` together at most.
        room: in all.

    >>> spread([1.0, 1.0, 3.0], [1.0, 1.0, 1.0], 4.0)
    [0.5, 1.5, 3.0]
    """
    order = sorted(range(len(at)), key=lambda i: at[i])
    below = [sum(heights[i] for i in order[:k]) + heights[order[k]] / 2 for k in range(len(order))]
    # Without their heights the places must not fall: isotonic regression, by its min-max formula.
    free = [at[i] - b for i, b in zip(order, below, strict=True)]
    slack = room - sum(heights)

    def mean(first: int, last: int) -> float:
        return sum(free[first : last + 1]) / (last + 1 - first)

    count = range(len(free))
    even = [max(min(mean(j, k) for k in count[i:]) for j in count[: i + 1]) for i in count]
    placed = [min(max(e, 0.0), slack) + b for e, b in zip(even, below, strict=True)]
    return [placed[order.index(i)] for i in range(len(at))]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room


def _decade(costs: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis of costs: at least a factor of 3 apart."""
    low, high = (min(costs), max(costs)) if costs else (1.0, 1.0)
    low, high = max(low, 1e-3), max(high, 1e-3)
    room = max(math.log(1.2), (math.log(3) - math.log(high / low)) / 2)
    return low * math.exp(-room), high * math.exp(room)


def _ticks(left: float, right: float) -> list[float]:
    """Round numbers on the axis of costs."""
    steps: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 6, 8)
    if right / left > 8:
        steps = (1, 2, 5) if right / left < 1000 else (1,)
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    return [step * 10**power for power in powers for step in steps if left <= step * 10**power <= right]
