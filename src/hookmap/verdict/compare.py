"""Which method and layer to take for a model: screened, halved, and confirmed on images that weren't looked at before.

1. **Screen**: the evidence of one image without some of its cells is taken once and every candidate is scored by it.
2. **Halve**: the best are measured by three votes, on the same images and then on others; the better half stays.
3. **Confirm**: what is left, the default and the controls, on unused images. Only these decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from hookmap._files import write_bytes
from hookmap._progress import Track, tracking
from hookmap._text import counted
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.scoring import Scale, Scoring, resolved_on
from hookmap.attribution.stored import store_choice
from hookmap.datasets.reader import Reader
from hookmap.datasets.sources import source
from hookmap.errors import DataError, HookmapError, TargetError, first_line
from hookmap.hooks.matching import LayerSpec
from hookmap.images.views import input_rank
from hookmap.lens import Lens, MethodSpec, methods_of
from hookmap.metrics.evidence import random_removals, single_deletions
from hookmap.metrics.removal import STEPS, RemovalOptions, Scorer, road, srg
from hookmap.models import DEFAULT
from hookmap.results.choice import Choice
from hookmap.results.explanation import Explanation
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Settings
from hookmap.targets import PREDICTED, Goal, TargetSpec, name_of
from hookmap.targets.resolving import Resolved
from hookmap.verdict.candidates import (
    CONTROLS,
    RANDOM,
    Candidate,
    candidates_of,
    costs,
    default_candidate,
    equal_ones,
    heatmaps_of,
    maps_of,
    random_maps,
    stacked,
)
from hookmap.verdict.folder import EXAMPLES, NAME, TABLE, Folder
from hookmap.verdict.gates import CELLS as IN_A_MOSAIC
from hookmap.verdict.gates import class_similarity, leakage, paste
from hookmap.verdict.judgement import judged
from hookmap.verdict.verdict import Verdict, named

VOTES = ("SRG (mean)", "SRG (blur)", "ROAD")
KEPT = 12
"""So many candidates are left after the screening."""
FINALISTS = 3
NOISES = 2
"""Random maps per image: their spread is the unit of all votes."""
SCREEN, HALVE, CONFIRM = 32, 64, 100
"""So many images each stage looks at."""
FEWEST = 8
UNSURE = 0.1
_COSTED, _MOSAICS, _ASKED_TWICE, _PASTED, _SHOWN = 2, 8, 16, 8, 5


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
        lens: the model.
        goal: what is asked of each image.
        reader: of the images.
        settings: seed and budget of the methods.
        scale: what is read of the target.
        folder: what was done before.
        track: is told of the progress.
    """

    lens: Lens
    goal: Goal
    reader: Reader
    settings: Settings
    scale: Scale
    folder: Folder
    track: Track
    failures: dict[str, str] = field(default_factory=dict)
    _scoring: dict[tuple[int, ...], Scoring] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The model's."""
        return self.lens.engine

    def batch(self, number: int) -> Batch | None:
        """An image as a batch of its own; None if it can't be read."""
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
        advance = self.track(stage, len(numbers))
        done: dict[int, Any] = {}
        for number in numbers:
            result = self.folder.kept(f"{stage}-{number:06d}", partial(self._tried, number, work))
            if isinstance(result, str):
                assert self.reader.source.ids is not None
                self.failures[self.reader.source.ids[number]] = result
            else:
                done[number] = result
            advance(1)
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
            for number in numbers[:4]:
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
        scoring = self.scoring(batch.x)
        return scoring.of(batch, self.goal)[0], scoring


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


def _better_half(table: Mapping[str, Any], candidates: Sequence[Candidate], keep: int) -> list[Candidate]:
    """The candidates with the largest mean vote; each vote counts in units of its spread over candidates and images."""
    scale = np.stack([table[c.name] for c in candidates]).reshape(-1, 3).std(0) + 1e-30
    value = {c: float((table[c.name].mean(0) / scale).mean()) for c in candidates}
    return sorted(candidates, key=lambda c: -value[c])[:keep]


def compare(
    model: Lens | nn.Module | str = DEFAULT,
    data: Any = None,
    *,
    methods: MethodSpec | Sequence[MethodSpec] | None = None,
    layers: LayerSpec | None = None,
    target: TargetSpec = PREDICTED,
    out: str | Path | None = None,
    scale: Scale = "probability",
    seed: int = 0,
    budget: int | None = None,
    image: str | None = None,
    root: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Verdict:
    """Which method and layer to take for this model on images like these, how sure that is, and whether any is good.

    Args:
        model: a :class:`hookmap.Lens`, or what makes one.
        data: the images, as in :func:`hookmap.run`; some 200 of them give a full answer, fewer a weaker one that says
            so.
        methods: as in :meth:`hookmap.Lens.explain`; by default those that take one pass.
        layers: likewise; by default the default's, and the last of each coarseness before it.
        target: what is asked of each image: one thing.
        out: a folder for what is done, so that the comparison can be interrupted and gone on with, and for the verdict
            as JSON and Parquet; :func:`hookmap.report.write_verdict` makes a page of it.
        scale: whether the target's probability is measured, where it has one, or its score (of a class, the logit).
        seed: of the order of the images, of masks, noise and signs.
        budget: the most changed copies of an image that methods which mask may look at.
        image: the column, key or feature that holds the image, where it can't be told.
        root: the folder of the pictures that a table names.
        resume: go on with the comparison in the folder.
        progress: show a bar.

    Returns:
        The verdict: a recommendation in words, tables, figures.

    Raises:
        DataError: for too few images, or a folder that holds something else.
    """
    lens = model if isinstance(model, Lens) else Lens(model)
    if data is None:
        raise DataError("no images were given; pass a folder, a pattern or a list of them")
    given = source(data, image=image, label=False, root=None if root is None else str(root))
    if given.ids is None:
        raise DataError("these images come one after the other, and how many isn't known; pass a folder or a list")
    if len(given.ids) < FEWEST:
        raise DataError(
            f"{counted(len(given.ids), 'image')} can't tell methods apart; pass {FEWEST} or more, best some 200. How "
            "far to believe one heatmap is what lens.check says"
        )
    reader = Reader(given, lens.preprocessing, input_rank(lens.model), 0)
    goal = lens.engine.goal(target)
    settings = Settings(seed=seed, budget=budget)
    folder = Folder(out)
    order = np.random.default_rng(seed).permutation(len(given.ids)).tolist()
    with tracking(progress) as track, folder.locked():
        task = Comparison(lens, goal, reader, settings, scale, folder, track)
        first = _first(task, order)
        candidates, default = candidates_of(lens.engine, first.x, methods_of(methods), layers)
        name, fingerprint, precision, preprocessing = lens.engine.about()
        asked = {
            "model": name,
            "fingerprint": fingerprint,
            "precision": precision,
            "preprocessing": None if preprocessing is None else str(preprocessing),
            "target": name_of(goal),
            "candidates": [c.name for c in candidates],
            "scale": scale,
            "seed": seed,
            "budget": budget,
            "images": list(given.ids),
        }
        folder.begin(asked, resume=resume)
        return _decided(task, order, candidates, default, asked)


def _first(task: Comparison, order: Sequence[int]) -> Batch:
    """The first image that can be read."""
    for number in order:
        batch = task.batch(number)
        if batch is not None:
            return batch
    raise DataError(f"no image can be read, e.g. {next(iter(task.failures.values()))}")


def _decided(
    task: Comparison, order: Sequence[int], candidates: list[Candidate], default: Candidate, asked: Mapping[str, Any]
) -> Verdict:
    groups = task.merged(order, candidates)
    gone = {name for group in groups.values() for name in group}
    # The default speaks for those that it equals.
    if default.name in gone:
        old = next(name for name, group in groups.items() if default.name in group)
        groups[default.name] = [old, *(n for n in groups.pop(old) if n != default.name)]
        gone = gone - {default.name} | {old}
    field_of = [c for c in candidates if c.name not in gone]
    split = Split.of(order, len(field_of))
    stages: dict[str, Any] = {}
    looked_at: dict[str, int] = {}
    reliability = None
    if split.screen:
        agreement, reliability = task.screened(split.screen, field_of)
        if not agreement:
            raise DataError(_nothing_measured(task))
        stages["screen"] = {c.name: value for c, value in agreement.items()}
        looked_at["screen"] = len(split.screen)
        field_of = sorted(agreement, key=lambda c: -agreement[c])[:KEPT]
        for stage, numbers in (("halve", split.screen), ("halve-again", split.halve)):
            keep = max(FINALISTS, -(-len(field_of) // 2))
            if stage == "halve-again":
                keep = FINALISTS
            if len(field_of) > keep:
                table, _ = task.voted(numbers, stage, field_of)
                if not len(next(iter(table.values()))):
                    raise DataError(_nothing_measured(task))
                stages[stage] = {name: values.mean(0).tolist() for name, values in table.items()}
                looked_at[stage] = len(numbers)
                field_of = _better_half(table, field_of, keep)
    contestants = list(dict.fromkeys([*field_of, default]))
    layer = default.layers[-1:]
    controls = [Candidate(name, layer if name != "edges" else ()) for name in CONTROLS]
    table, used = task.voted(split.confirm, "confirm", [*contestants, *controls], steps=STEPS, noises=NOISES)
    if len(used) < 2:
        raise DataError(_nothing_measured(task))
    price = task.folder.kept("costs", lambda: _priced(task, used[:_COSTED], contestants))
    answers = task.folder.kept("answers", lambda: _answers(task, used))
    judgement = judged(
        table,
        contestants=[c.name for c in contestants],
        controls=[c.name for c in controls],
        costs=price,
        votes=VOTES,
        seed=task.settings.seed,
        gates={
            "leakage": task.folder.kept("leakage", lambda: _leakage(task, used, answers, contestants)),
            "similarity": task.folder.kept("similarity", lambda: _similarity(task, used, answers, contestants)),
            "pasted": task.folder.kept("pasted", lambda: _pasted(task, used, answers, contestants)),
        },
    )
    ids = task.reader.source.ids
    assert ids is not None
    verdict = Verdict(
        judgement,
        named(contestants),
        default.name,
        dict(asked),
        stages,
        looked_at,
        groups,
        reliability,
        task.failures,
        tuple(ids[number] for number in used),
        sum(probability is not None and probability < UNSURE for _, probability in answers),
    )
    if verdict.best is not None:
        best = verdict.best
        choice = Choice(best.layers, best.method, best.fuse or "sum")
        store_choice(asked["fingerprint"], choice, " ".join(verdict.summary()))
    if task.folder.place is not None:
        table_bytes = partial(verdict.table.to_parquet, index=False)
        write_bytes(task.folder.place / TABLE, table_bytes)
        Explanation(_examples(task, used[:_SHOWN], [*contestants, *controls])).save(task.folder.place / EXAMPLES)
        verdict.save(task.folder.place / NAME)
    return verdict


def _examples(task: Comparison, numbers: Sequence[int], candidates: Sequence[Candidate]) -> list[Heatmap]:
    """Heatmaps of a few images to look at, image by image, over the pictures as they were given."""
    heatmaps = []
    for i, number in enumerate(numbers):
        item = task.reader.source.item(number)
        batch = next(task.engine.batches([item.image], 1))
        views = [replace(view, picture=view.picture.renamed(item.id)) for view in batch.views]
        found = heatmaps_of(replace(batch, views=views), task.goal, candidates, task.settings)
        heatmaps += [replace(h, position=replace(h.position, image=i)) for h in found.values()]
    return heatmaps


def _nothing_measured(task: Comparison) -> str:
    why = next(iter(task.failures.values()), "the methods aren't defined for this model")
    return f"nothing could be measured on these images: {why}"


def _priced(task: Comparison, numbers: Sequence[int], candidates: Sequence[Candidate]) -> dict[str, float]:
    """What each candidate costs, in forward passes of one image: the mean over a few images."""
    prices: dict[str, list[float]] = {}
    for number in numbers:
        batch = task.batch(number)
        if batch is not None:
            for candidate, cost in costs(batch, task.goal, candidates, task.settings).items():
                prices.setdefault(candidate.name, []).append(cost)
    return {name: float(np.mean(values)) for name, values in prices.items()}


# ---------------------------------------------------------------- gates


def _answers(task: Comparison, numbers: Sequence[int]) -> list[tuple[int | None, float | None]]:
    """Of each image the class that is asked of it, and the model's probability for it; None where it's no class."""
    answers = []
    for number in numbers:
        batch = task.batch(number)
        assert batch is not None
        resolved = task.resolved(batch)
        answers.append((resolved.index, resolved.probability))
    return answers


def _similarity(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean over some images of how alike the maps of what was asked and of another class are."""
    found: dict[str, list[float]] = {}
    generator = np.random.default_rng(task.settings.seed)
    for number, (index, _) in list(zip(numbers, answers, strict=True))[:_ASKED_TWICE]:
        batch = task.batch(number)
        assert batch is not None
        traced = task.engine.trace(batch.x)
        if index is None or traced.form != "classes" or (traced.classes or 0) < 2:
            return {}
        other = int(generator.integers(0, traced.classes - 1))  # type: ignore[operator]
        alike = class_similarity(batch, task.goal, other + (other >= index), candidates, task.settings)
        for candidate, value in alike.items():
            found.setdefault(candidate.name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _leakage(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean over some mosaics of four images of different classes, the surest first; empty if it can't be asked."""
    sure = sorted(zip(numbers, answers, strict=True), key=_sureness)
    of_class = {index: number for number, (index, _) in reversed(sure) if index is not None}
    chosen = sorted(of_class.values(), key=[number for number, _ in sure].index)
    count = min(_MOSAICS, len(chosen) // IN_A_MOSAIC)
    found: dict[str, list[float]] = {}
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
        for candidate, value in leaks.items():
            found.setdefault(candidate.name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _pasted(
    task: Comparison, numbers: Sequence[int], answers: Sequence[Sequence[Any]], candidates: Sequence[Candidate]
) -> dict[str, float]:
    """The mean of the paste test over some pairs: the surest images are pasted into the least sure."""
    sure = [n for n, (index, _) in sorted(zip(numbers, answers, strict=True), key=_sureness) if index is not None]
    found: dict[str, list[float]] = {}
    passed = 0
    for i, (inset, scene) in enumerate(zip(sure[: len(sure) // 2], sure[::-1], strict=False)):
        below, above = task.batch(scene), task.batch(inset)
        if below is None or above is None or passed == _PASTED:
            break
        energies = paste(task.engine, below, above, candidates, task.settings, i % IN_A_MOSAIC)
        passed += bool(energies)
        for candidate, value in energies.items():
            found.setdefault(candidate.name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _sureness(answered: tuple[int, Sequence[Any]]) -> float:
    """The surest first."""
    return -(answered[1][1] or 0.0)
