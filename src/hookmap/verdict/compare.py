"""Which method and layer to take for a model: screened, halved, and confirmed on images that weren't looked at before.

1. **Screen**: the evidence of one image without some of its cells is taken once and every candidate is scored by it.
2. **Halve**: the best are measured by three votes, on the same images and then on others; the better half stays.
3. **Confirm**: what is left, the default and the controls, on unused images. Only these decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hookmap._files import write_bytes
from hookmap._progress import Track, silent, tracking
from hookmap._text import counted
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.planning import MethodSpec, methods_of
from hookmap.attribution.scoring import Scale
from hookmap.attribution.stored import store_choice
from hookmap.datasets.reader import Reader
from hookmap.datasets.sources import source
from hookmap.errors import DataError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.views import input_rank
from hookmap.lens import Lens
from hookmap.metrics.removal import STEPS
from hookmap.models import DEFAULT
from hookmap.results.choice import Choice
from hookmap.results.explanation import Explanation
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Settings
from hookmap.targets import PREDICTED, TargetSpec, name_of
from hookmap.verdict.averages import answers_of, leakages, pasted, prices, similarities
from hookmap.verdict.candidates import (
    CONTROLS,
    Candidate,
    candidates_of,
    heatmaps_of,
)
from hookmap.verdict.folder import EXAMPLES, NAME, TABLE, Folder
from hookmap.verdict.judgement import judged
from hookmap.verdict.stages import FINALISTS, VOTES, Comparison, Split, better_half
from hookmap.verdict.verdict import CONFIRMED, Verdict, named

KEPT = 12
"""So many candidates are left after the screening."""
NOISES = 2
"""Random maps per image: their spread is the unit of all votes."""
FEWEST = 8
UNSURE = 0.1
_SHOWN = 5


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
    with tracking(progress) as track:
        return compared(
            lens.engine,
            data,
            methods=methods,
            layers=layers,
            target=target,
            out=out,
            scale=scale,
            seed=seed,
            budget=budget,
            image=image,
            root=root,
            resume=resume,
            track=track,
        )


def compared(
    engine: Engine,
    data: Any,
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
    track: Track = silent,
) -> Verdict:
    """:func:`compare` of the engine under a lens.

    Args:
        engine: of the model.
        data: as there.
        methods: as there.
        layers: as there.
        target: as there.
        out: as there.
        scale: as there.
        seed: as there.
        budget: as there.
        image: as there.
        root: as there.
        resume: as there.
        track: called with a description and a total, gives a function that is told of progress; what either raises
            ends the work, and with ``out`` it can be gone on with.

    Raises:
        DataError: as there.
    """
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
    reader = Reader(given, engine.preprocessing, input_rank(engine.model), 0)
    goal = engine.goal(target)
    settings = Settings(seed=seed, budget=budget)
    folder = Folder(out)
    order = np.random.default_rng(seed).permutation(len(given.ids)).tolist()
    with folder.locked():
        task = Comparison(engine, goal, reader, settings, scale, folder, track)
        first = _first(task, order)
        candidates, default = candidates_of(engine, first.x, methods_of(methods), layers)
        name, fingerprint, precision, preprocessing = engine.about()
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
        half = max(FINALISTS, -(-len(field_of) // 2))
        for stage, numbers, keep in (("halve", split.screen, half), ("halve-again", split.halve, FINALISTS)):
            if len(field_of) > keep:
                table, _ = task.voted(numbers, stage, field_of)
                if not len(next(iter(table.values()))):
                    raise DataError(_nothing_measured(task))
                stages[stage] = {name: values.mean(0).tolist() for name, values in table.items()}
                looked_at[stage] = len(numbers)
                field_of = better_half(table, field_of, keep)
    contestants = list(dict.fromkeys([*field_of, default]))
    layer = default.layers[-1:]
    controls = [Candidate(name, layer if name != "edges" else ()) for name in CONTROLS]
    table, used = task.voted(split.confirm, "confirm", [*contestants, *controls], steps=STEPS, noises=NOISES)
    if len(used) < 2:
        raise DataError(_nothing_measured(task))
    price = task.folder.kept("costs", lambda: prices(task, used, contestants))
    answers = task.folder.kept("answers", lambda: answers_of(task, used))
    judgement = judged(
        table,
        contestants=[c.name for c in contestants],
        controls=[c.name for c in controls],
        costs=price,
        votes=VOTES,
        seed=task.settings.seed,
        gates={
            "leakage": task.folder.kept("leakage", lambda: leakages(task, used, answers, contestants)),
            "similarity": task.folder.kept("similarity", lambda: similarities(task, used, answers, contestants)),
            "pasted": task.folder.kept("pasted", lambda: pasted(task, used, answers, contestants)),
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
    if verdict.best is not None and judgement.images >= CONFIRMED:
        best = verdict.best
        choice = Choice(best.layers, best.method, best.fuse or "sum")
        store_choice(asked["fingerprint"], choice, " ".join(verdict.summary()))
    if task.folder.place is not None:
        table_bytes = partial(verdict.table.to_parquet, index=False)
        write_bytes(task.folder.place / TABLE, table_bytes)
        verdict.save(task.folder.place / NAME)
        Explanation(_examples(task, used[:_SHOWN], [*contestants, *controls])).save(task.folder.place / EXAMPLES)
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
