"""The stages of a comparison: what is measured of every candidate on every image, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from hookmap._progress import Track
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.scoring import Scale, Scoring, resolved_on
from hookmap.datasets.reader import Reader
from hookmap.errors import TargetError, first_line
from hookmap.metrics.evidence import random_removals, single_deletions
from hookmap.metrics.removal import STEPS, RemovalOptions, Scorer, road, srg
from hookmap.results.question import Settings
from hookmap.targets import Goal
from hookmap.targets.resolving import Resolved
from hookmap.verdict.candidates import (
    RANDOM,
    Candidate,
    default_candidate,
    equal_ones,
    maps_of,
    random_maps,
    stacked,
)
from hookmap.verdict.folder import Folder

VOTES = ("SRG (mean)", "SRG (blur)", "ROAD")
SCREEN, HALVE, CONFIRM = 32, 64, 100
"""So many images each stage looks at."""
FINALISTS = 3
_MERGED = 4


@dataclass(frozen=True)
class Split:
    """Which images are looked at when, by their numbers."""

    screen: list[int]
    halve: list[int]
    confirm: list[int]

    @classmethod
    def of(cls, numbers: Sequence[int], candidates: int) -> Split:
        """32 to screen, 64 to halve and 100 to confirm; of fewer images like shares. More than these aren't looked at.

        With few candidates nothing need be screened, and up to 196 images confirm.
        """
        count = min(len(numbers), SCREEN + HALVE + CONFIRM)
        if candidates <= FINALISTS + 1:
            return cls([], [], list(numbers[:count]))
        screen = max(2, count * SCREEN // (SCREEN + HALVE + CONFIRM))
        halve = max(2, count * HALVE // (SCREEN + HALVE + CONFIRM))
        return cls(
            list(numbers[:screen]), list(numbers[screen : screen + halve]), list(numbers[screen + halve : count])
        )


@dataclass
class Comparison:
    """What is compared of which model, on which images.

    Attributes:
        engine: of the model.
        goal: what is asked of each image.
        reader: of the images.
        settings: seed and budget of the methods.
        scale: what is read of the target.
        folder: what was done before.
        track: is told of the progress.
    """

    engine: Engine
    goal: Goal
    reader: Reader
    settings: Settings
    scale: Scale
    folder: Folder
    track: Track
    failures: dict[str, str] = field(default_factory=dict)
    _scoring: dict[tuple[int, ...], Scoring] = field(default_factory=dict)
    _advance: Callable[[int], None] = field(default=lambda done: None)

    def batch(self, number: int) -> Batch | None:
        """An image as a batch of its own; None if it can't be read."""
        self._advance(0)
        sample, x = self.reader.read(number)
        if x is None:
            self.failures[sample.id] = sample.error
            return None
        return next(self.engine.batches(x[None], 1))

    def scoring(self, x: Tensor) -> Scoring:
        """Of inputs of this size."""
        key = tuple(x.shape[1:])
        if key not in self._scoring:
            self._scoring[key] = Scoring(self.engine, x, self.scale)
        return self._scoring[key]

    def over(self, numbers: Sequence[int], stage: str, work: Callable[[Batch, int], Any]) -> dict[int, Any]:
        """What the work gives for each image that can be read and asked; what was done before is taken from there."""
        self._advance = self.track(stage, len(numbers))
        done: dict[int, Any] = {}
        for number in numbers:
            result = self.folder.kept(f"{stage}-{number:06d}", partial(self._tried, number, work))
            if isinstance(result, str):
                assert self.reader.source.ids is not None
                self.failures[self.reader.source.ids[number]] = result
            else:
                done[number] = result
            self._advance(1)
        return done

    def _tried(self, number: int, work: Callable[[Batch, int], Any]) -> Any:
        """What the work gives, or a sentence why this image gives nothing."""
        sample, x = self.reader.read(number)
        if x is None:
            return sample.error
        try:
            return work(next(self.engine.batches(x[None], 1)), number)
        except TargetError as error:  # another image may hold what this one lacks
            return first_line(error)

    # ---------------------------------------------------------------- stages

    def screened(self, numbers: Sequence[int], candidates: Sequence[Candidate]) -> tuple[dict[Candidate, float], float]:
        """Each candidate's mean agreement with the shared evidence, and how reliable that evidence is."""

        def work(batch: Batch, number: int) -> Any:
            scorer, scoring = self._scorer(batch)
            maps = maps_of(batch, self.goal, candidates, self.settings)
            image = batch.x[0]
            values = stacked(maps, image)
            options = {"batch_size": scoring.batch_size}
            single = single_deletions(scorer, image, **options)  # type: ignore[arg-type]
            masked = random_removals(scorer, image, seed=self.settings.seed + number, **options)  # type: ignore[arg-type]
            agreement = (single.agreement(values) + masked.agreement(values)) / 2
            return {
                "agreement": {c.name: float(a) for c, a in zip(maps, agreement, strict=True)},
                "reliability": masked.reliability,
            }

        results = list(self.over(numbers, "screen", work).values())
        mean = {
            c: float(np.mean([r["agreement"].get(c.name, 0.0) for r in results]))
            for c in candidates
            if any(c.name in r["agreement"] for r in results)
        }
        return mean, float(np.mean([r["reliability"] or 0.0 for r in results])) if results else 0.0

    def merged(self, numbers: Sequence[int], candidates: Sequence[Candidate]) -> dict[str, list[str]]:
        """Names of candidates that give the same map as another on the first images, by that one's name."""

        def make() -> dict[str, list[str]]:
            maps, image = [], None
            for number in numbers[:_MERGED]:
                batch = self.batch(number)
                if batch is not None:
                    maps.append(maps_of(batch, self.goal, candidates, self.settings))
                    image = batch.x[0]
            groups: dict[str, list[str]] = {}
            if image is not None:
                for same, first in equal_ones(maps, image).items():
                    groups.setdefault(first.name, []).append(same.name)
            return groups

        return dict(self.folder.kept("equal", make))

    def voted(
        self,
        numbers: Sequence[int],
        stage: str,
        candidates: Sequence[Candidate],
        *,
        steps: int = STEPS // 2,
        noises: int = 0,
    ) -> tuple[dict[str, Any], list[int]]:
        """The votes of each candidate on each image, ``(n, 3)`` by name, and of random maps ``(n, noises, 3)``."""

        def work(batch: Batch, number: int) -> Any:
            scorer, scoring = self._scorer(batch)
            maps = maps_of(batch, self.goal, candidates, self.settings)
            image = batch.x[0]
            values = stacked(maps, image)
            if noises:
                layer = default_candidate(batch.engine, batch.x).layers[-1]
                grid = batch.engine.trace(batch.x).layout(layer).grid
                values = torch.cat([values, random_maps(image, grid, noises, self.settings.seed + number)])
            given = {"seed": self.settings.seed + number, "steps": steps, "batch_size": scoring.batch_size}
            votes = _votes(scorer, image, values, **given)
            names = [c.name for c in maps] + [f"{RANDOM} {i}" for i in range(noises)]
            return dict(zip(names, votes.tolist(), strict=True))

        results = self.over(numbers, stage, work)
        names = [c.name for c in candidates]
        # A method that isn't defined on some image can't be compared on it.
        whole = [n for n, votes in results.items() if all(name in votes for name in names)]
        table: dict[str, Any] = {name: np.array([results[n][name] for n in whole]).reshape(-1, 3) for name in names}
        if noises:
            table[RANDOM] = np.array([[results[n][f"{RANDOM} {i}"] for i in range(noises)] for n in whole])
        return table, whole

    def resolved(self, batch: Batch) -> Resolved:
        """What is asked of an image, settled on what the model says of it."""
        first: Resolved = resolved_on(batch, self.goal)[0][0]
        return first

    def _scorer(self, batch: Batch) -> tuple[Scorer, Scoring]:
        """An image takes long, so that whoever tracks is told at each pass that the work goes on, and may end it."""
        scoring = self.scoring(batch.x)
        scorer = scoring.of(batch, self.goal)[0]

        def scored(inputs: Tensor) -> Tensor:
            self._advance(0)
            return scorer(inputs)

        return scored, scoring


def _votes(scorer: Scorer, image: Tensor, maps: Tensor, **given: Unpack[RemovalOptions]) -> Tensor:
    """``(M, 3)``, as :data:`VOTES` names them."""
    return torch.stack(
        [
            srg(scorer, image, maps, fill="mean", **given),
            srg(scorer, image, maps, fill="blur", **given),
            road(scorer, image, maps, **given),
        ],
        1,
    )


def better_half(table: Mapping[str, Any], candidates: Sequence[Candidate], keep: int) -> list[Candidate]:
    """The candidates with the largest mean vote; each vote counts in units of its spread over candidates and images."""
    scale = np.stack([table[c.name] for c in candidates]).reshape(-1, 3).std(0) + 1e-30
    value = {c: float((table[c.name].mean(0) / scale).mean()) for c in candidates}
    return sorted(candidates, key=lambda c: -value[c])[:keep]
