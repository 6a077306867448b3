"""What is asked of the contestants beside the votes, as means over some images: the gates, and the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hookmap.errors import HookmapError
from hookmap.verdict.candidates import Candidate, costs
from hookmap.verdict.gates import CELLS as IN_A_MOSAIC
from hookmap.verdict.gates import class_similarity, leakage, paste
from hookmap.verdict.stages import Comparison

_COSTED, _MOSAICS, _ASKED_TWICE, _PASTED = 2, 8, 16, 8


def prices(task: Comparison, numbers: Sequence[int], candidates: Sequence[Candidate]) -> dict[str, float]:
    """What each candidate costs, in forward passes of one image: the mean over a few images."""
    found: list[Mapping[Candidate, float]] = []
    for number in numbers[:_COSTED]:
        batch = task.batch(number)
        if batch is not None:
            found.append(costs(batch, task.goal, candidates, task.settings))
    return _means(found)


def answers_of(task: Comparison, numbers: Sequence[int]) -> list[tuple[int | None, float | None]]:
    """Of each image the class that is asked of it, and the model's probability for it; None where it's no class."""
    answers = []
    for number in numbers:
        batch = task.batch(number)
        assert batch is not None
        resolved = task.resolved(batch)
        answers.append((resolved.index, resolved.probability))
    return answers


def similarities(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean over some images of how alike the maps of what was asked and of another class are."""
    found: list[Mapping[Candidate, float]] = []
    generator = np.random.default_rng(task.settings.seed)
    for number, (index, _) in list(zip(numbers, answers, strict=True))[:_ASKED_TWICE]:
        batch = task.batch(number)
        assert batch is not None
        traced = task.engine.trace(batch.x)
        if index is None or traced.form != "classes" or (traced.classes or 0) < 2:
            return {}
        other = int(generator.integers(0, traced.classes - 1))  # type: ignore[operator]
        found.append(class_similarity(batch, task.goal, other + (other >= index), candidates, task.settings))
    return _means(found)


def leakages(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean over some mosaics of four images of different classes, the surest first; empty if it can't be asked."""
    sure = sorted(zip(numbers, answers, strict=True), key=_sureness)
    of_class = {index: number for number, (index, _) in reversed(sure) if index is not None}
    chosen = sorted(of_class.values(), key=[number for number, _ in sure].index)
    count = min(_MOSAICS, len(chosen) // IN_A_MOSAIC)
    found: list[Mapping[Candidate, float]] = []
    for i in range(count):
        batches = [task.batch(number) for number in chosen[i : count * IN_A_MOSAIC : count]]
        try:
            leaks = leakage(
                task.engine,
                [b for b in batches if b is not None],
                task.goal,
                candidates,
                task.settings,
                i % IN_A_MOSAIC,
            )
        except HookmapError:  # images of several sizes, or no class scores: it can't be asked here
            return {}
        found.append(leaks)
    return _means(found)


def pasted(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean of the paste test over some pairs: the surest images are pasted into the least sure."""
    sure = [n for n, (index, _) in sorted(zip(numbers, answers, strict=True), key=_sureness) if index is not None]
    found: list[Mapping[Candidate, float]] = []
    passed = 0
    for i, (inset, scene) in enumerate(zip(sure[: len(sure) // 2], sure[::-1], strict=False)):
        below, above = task.batch(scene), task.batch(inset)
        if below is None or above is None or passed == _PASTED:
            break
        energies = paste(task.engine, below, above, candidates, task.settings, i % IN_A_MOSAIC)
        passed += bool(energies)
        found.append(energies)
    return _means(found)


def _sureness(answered: tuple[int, Sequence[Any]]) -> float:
    """The surest first."""
    return -(answered[1][1] or 0.0)


def _means(found: Sequence[Mapping[Candidate, float]]) -> dict[str, float]:
    """Of each candidate's values, by its name."""
    values: dict[str, list[float]] = {}
    for part in found:
        for candidate, value in part.items():
            values.setdefault(candidate.name, []).append(value)
    return {name: float(np.mean(each)) for name, each in values.items()}
