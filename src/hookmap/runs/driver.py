"""Explain a whole data set, resumably: the job, its engine and its folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from torch import nn

from hookmap._optional import require
from hookmap._progress import tracking
from hookmap._text import listed
from hookmap.attribution.planning import MethodSpec, methods_of
from hookmap.datasets.labels import TrueClasses
from hookmap.datasets.reader import Reader
from hookmap.datasets.sources import Source, source
from hookmap.errors import DataError, HookmapError, HookmapWarning
from hookmap.hooks.matching import LayerSpec
from hookmap.images.views import input_rank
from hookmap.lens import Lens
from hookmap.models import DEFAULT
from hookmap.runs import record
from hookmap.runs.job import LABEL, Job
from hookmap.runs.results import Run
from hookmap.runs.store import Store, lost_in_words
from hookmap.targets import PREDICTED, TargetSpec, resolve

if TYPE_CHECKING:
    from hookmap.runs.engines.local import Parts

Engine: TypeAlias = Literal["local", "ray"]
_TRIES = 16
"""So many images are tried, at most, when it is chosen how all are explained."""


def run(
    data: Any,
    model: Lens | nn.Module | str = DEFAULT,
    out: str | Path = "run",
    *,
    target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
    layer: LayerSpec | None = None,
    method: MethodSpec | Sequence[MethodSpec] | None = None,
    channels: LayerSpec | Literal[True] | None = None,
    image: str | None = None,
    label: str | bool | None = None,
    root: str | Path | None = None,
    engine: Engine = "local",
    address: str | None = None,
    batch_size: int = 16,
    part_size: int = 256,
    workers: int | None = None,
    thumbnail: int = 160,
    resume: bool = False,
    strict: bool = False,
    check: bool = False,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Explain every image of a data set and write a folder: see ``hookmap.runs.store``.

    Args:
        data: a folder (of folders: their names are labels), a glob, a list of paths, a CSV, TSV or Parquet file of
            paths and labels, COCO JSON, WebDataset tars, a Hugging Face data set, or a PyTorch ``Dataset`` or
            ``DataLoader``: see ``hookmap.datasets.sources.source``.
        model: a :class:`hookmap.Lens`, or what makes one.
        out: the folder to write.
        target: ``"predicted"``, ``"label"`` (each image's true class), any other target, or a list of these.
        layer: as in :meth:`hookmap.Lens.explain`.
        method: likewise.
        channels: also gather what the channels of these layers do over the data set; True: of the explained layers.
        image: the column, key or feature that holds the image, where it can't be told.
        label: likewise the label; False: there are none.
        root: the folder of the pictures that COCO JSON or a table names, where they aren't beside it.
        engine: ``"local"``: this machine; ``"ray"``: Ray Data, on this machine or a cluster.
        address: of the Ray cluster; by default the one that Ray finds, or a new one on this machine.
        batch_size: images per forward pass.
        part_size: images per part. A part is written whole or not at all: what is lost when a run is killed is the part
            that was being filled and the one or two that waited to be written.
        workers: processes that read and preprocess; 0 reads in this one.
        thumbnail: the longer side of the small copy of each image that is kept, in pixels; 0 keeps none.
        resume: go on with a run that was interrupted: images that are in the folder are left out.
        strict: end the run at the first image that can't be read or explained; by default such an image is a row with
            its error.
        check: also measure how far each heatmap can be believed, in some 60 forward passes more for each: see
            :meth:`hookmap.Lens.check`.
        progress: show a bar on a terminal.
        **options: everything else that :meth:`hookmap.Lens.explain` takes.

    Returns:
        The run, as :func:`hookmap.open_run` opens it.

    Raises:
        DataError: for data that can't be read, a folder that holds another run, or a disk that is full. What was
            written before stays whole.
    """
    given_sizes = {"batch_size": (batch_size, 1), "part_size": (part_size, 1), "thumbnail": (thumbnail, 0)}
    for name, (value, least) in {**given_sizes, "workers": (workers or 0, 0)}.items():
        if value < least:
            raise DataError(f"{name} is {value}; expected {least} or more")
    if engine not in get_args(Engine):
        raise DataError(f"there's no engine {engine!r}; take one of {', '.join(get_args(Engine))}")
    if engine == "ray":
        require("ray", extra="ray")
    from hookmap.datasets.loader import usual_workers

    store = Store(out)
    store.check()
    lens = model if isinstance(model, Lens) else Lens(model)
    given = source(data, image=image, label=label, root=None if root is None else str(root))
    classes = TrueClasses(lens.labels, given.classes, _count(lens))
    job = Job(lens, _targets(target, lens), classes, layer, method, options, channels, strict, check)
    methods_of(method)
    if channels is not None and lens.engine.execution.compile:
        raise DataError("channels can't be watched through torch.compile; leave out one of them")
    unknown = classes.unknown()
    if unknown and LABEL in job.targets and len(unknown) == len(given.classes or ()):
        raise DataError(
            f"the data set's labels ({listed(unknown)}) aren't classes of the model; pass labels= to Lens (--labels), "
            "or take the target predicted"
        )
    if given.unlabelled and job.targets == [LABEL]:
        raise DataError(
            "the target is each image's label, and no image has one; pass folders named by class, or a table with a "
            "column of labels, or take the target predicted"
        )
    asked = record.asked(job, given, part_size=part_size, batch_size=batch_size)
    reader = Reader(given, lens.preprocessing, input_rank(lens.model), thumbnail)
    with store.locked():
        lost = store.repair() if resume else {}
        done = store.done()
        if resume:
            _check_same_data(store, done, given)
        record.begin(store, asked, looks=record.looks(job), resume=resume)
        job.chosen = record.chosen(store)
        if job.chosen is None:
            _choose(job, reader)
            record.keep_chosen(store, job.chosen)
        lens.engine.say_what_is_assumed()
        for sentence in [*_lost(lost, store), *given.notes, *_unjudged(unknown)]:
            warnings.warn(sentence, HookmapWarning, stacklevel=2)
        job.proven = bool(done)
        todo, count = _todo(given, done, batch_size, part_size)
        with tracking(progress) as track:
            advance = track("images", count) if count else lambda done: None
            workers = usual_workers(lens.device) if workers is None else workers
            if engine == "local":
                from hookmap.runs.engines.local import run_locally

                sizes = {"batch_size": batch_size, "part_size": part_size}
                run_locally(job, reader, store, todo, workers=workers, advance=advance, **sizes)
            else:
                from hookmap.runs.engines.ray import run_on_ray

                run_on_ray(job, reader, store, todo, workers=workers, advance=advance, address=address)
        record.end(store)
    return Run(out)


def _choose(job: Job, reader: Reader) -> None:
    """Choose what nobody named by the first image that can be read and asked; without one the first batch decides."""
    engine, ids = job.lens.engine, reader.source.ids
    if ids is None:
        if engine.preprocessing is not None:
            job.choose(engine.example())
        return
    for number in range(min(len(ids), _TRIES)):
        _, x = reader.read(number)
        if x is not None:
            job.choose(engine.to_model(x[None]))
        if job.chosen is not None:
            return


def _lost(lost: Mapping[str, Mapping[str, Any]], store: Store) -> list[str]:
    return [f"{store.folder} had lost {lost_in_words(lost)}, which are run again"] if lost else []


def _count(lens: Lens) -> int | None:
    """How many classes the model has, as far as that can be said before an image is seen."""
    with suppress(HookmapError):
        return lens.engine.trace(lens.engine.example()).classes
    return len(lens.labels) if lens.labels else None


def _unjudged(unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    return [f"the labels {listed(unknown)} aren't classes of the model: whether their images are right isn't judged"]


def _targets(target: Any, lens: Lens) -> list[TargetSpec]:
    """The targets, which must mean something to the model."""
    several = isinstance(target, Sequence) and not isinstance(target, str)
    targets = list(target) if several else [target]
    if not targets:
        raise DataError("an empty list of targets was given; pass at least one")
    for spec in targets:
        if spec != LABEL:
            resolve(spec, lens.labels)
    return targets


def _check_same_data(store: Store, done: set[str], given: Source) -> None:
    """Raise a :class:`DataError` if most of the images that are in the run aren't in the data."""
    missing = done - set(given.ids) if given.ids is not None else set()
    if len(missing) > len(done) / 2:
        raise DataError(
            f"{store.folder} holds {len(done)} images, and {len(missing)} of them aren't in this data set (e.g. "
            f"{min(missing)}): it was run with other data; pass another folder"
        )


def _todo(given: Source, done: set[str], batch_size: int, part_size: int) -> tuple[Parts | set[str], int]:
    """Parts of batches of the numbers of images that aren't done, and how many images that is; of a stream, what is."""
    if given.ids is None:
        return done, 0
    numbers = [i for i, name in enumerate(given.ids) if name not in done]
    parts = [numbers[i : i + part_size] for i in range(0, len(numbers), part_size)]
    return [[part[i : i + batch_size] for i in range(0, len(part), batch_size)] for part in parts], len(numbers)
