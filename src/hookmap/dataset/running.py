"""Explain a whole data set, resumably: the job, its engine and its folder."""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from hookmap.dataset.engines.local import Parts, run_locally
from hookmap.dataset.job import LABEL, Job
from hookmap.dataset.labels import TrueClasses
from hookmap.dataset.reading import Reader, usual_workers
from hookmap.dataset.results import Run
from hookmap.dataset.sources import Source, source
from hookmap.dataset.sources.names import listed
from hookmap.dataset.store import Store
from hookmap.errors import DataError, HookmapError, HookmapWarning
from hookmap.lens import Lens, MethodSpec
from hookmap.matching import LayerSpec
from hookmap.models import DEFAULT
from hookmap.progress import tracking
from hookmap.receptive import receptive_field
from hookmap.targets import PREDICTED, TargetSpec, resolve

Engine: TypeAlias = Literal["local", "ray"]


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
    progress: bool = True,
    **how: Any,
) -> Run:
    """Explain every image of a data set and write a folder: see :mod:`hookmap.dataset.store`.

    Args:
        data: a folder (of folders: their names are labels), a glob, a list of paths, a CSV, TSV or Parquet file of
            paths and labels, COCO JSON, WebDataset tars, a Hugging Face data set, or a PyTorch ``Dataset`` or
            ``DataLoader``: see :func:`hookmap.dataset.sources.source`.
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
        part_size: images per part. A part is written whole or not at all: so many images at most are lost when a run is
            killed.
        workers: processes that read and preprocess; 0 reads in this one.
        thumbnail: the longer side of the small copy of each image that is kept, in pixels; 0 keeps none.
        resume: go on with a run that was interrupted: images that are in the folder are left out.
        strict: end the run at the first image that can't be read or explained; by default such an image is a row with
            its error.
        progress: show a bar on a terminal.
        **how: everything else that :meth:`hookmap.Lens.explain` takes.

    Returns:
        The run, as :func:`hookmap.open_run` opens it.

    Raises:
        DataError: for data that can't be read, a folder that holds another run, or a disk that is full. What was
            written before stays whole.
    """
    if batch_size < 1 or part_size < 1:
        raise DataError(f"batch_size is {batch_size} and part_size {part_size}; expected 1 or more of each")
    if engine not in get_args(Engine):
        raise DataError(f"there's no engine {engine!r}; take one of {', '.join(get_args(Engine))}")
    lens = model if isinstance(model, Lens) else Lens(model)
    given = source(data, image=image, label=label, root=None if root is None else str(root))
    classes = TrueClasses(lens.labels, given.classes)
    targets = _targets(target, lens)
    unknown = classes.unknown()
    if unknown and LABEL in targets and len(unknown) == len(given.classes or ()):
        raise DataError(
            f"the data set's labels ({listed(unknown)}) aren't classes of the model; pass labels= to Lens (--labels), "
            "or take the target predicted"
        )
    job = Job(lens, targets, classes, layer, method, how, channels, strict)
    store = Store(out)
    asked = _asked(job, part_size=part_size, batch_size=batch_size) | {"channels": _fields(job)}
    with store.locked():
        _begin(store, asked, given, resume=resume)
        for sentence in [*given.notes, *_unjudged(unknown)]:
            warnings.warn(sentence, HookmapWarning, stacklevel=2)
        todo, count = _todo(given, store.done(), batch_size, part_size)
        reader = Reader(given, lens.preprocessing, thumbnail)
        with tracking(progress) as track:
            advance = track("images", count) if count else lambda done: None
            workers = usual_workers(lens.device) if workers is None else workers
            sizes = {"batch_size": batch_size, "part_size": part_size}
            if engine == "local":
                run_locally(job, reader, store, todo, workers=workers, advance=advance, **sizes)
            else:
                from hookmap.dataset.engines.ray import run_on_ray

                run_on_ray(job, reader, store, todo, workers=workers, advance=advance, address=address)
        store.describe({**store.about, "finished": _now()})
    return Run(out)


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
    for one in targets:
        if one != LABEL:
            resolve(one, lens.labels)
    return targets


def _begin(store: Store, asked: dict[str, Any], given: Source, *, resume: bool) -> None:
    """Write what is asked, or make sure that the run which is there already asked the same.

    Raises:
        DataError: if it didn't, or if nobody said that it should go on.
    """
    if not store.parts():  # nothing is lost if it begins again
        if not store.exists() and any(store.folder.glob("[!.]*")):
            raise DataError(f"{store.folder} holds other files and no run; pass a folder that is new or empty")
        store.describe({**asked, "source": given.description, "begun": _now(), "versions": _versions()})
        return
    if not resume:
        raise DataError(
            f"{store.folder} holds a run already; go on with it by --resume (resume=True), or pass another folder"
        )
    before = store.about
    for key, now in asked.items():
        if before.get(key) != now:
            raise DataError(
                f"{store.folder} was run with {key} {before.get(key)}, and now it is {now}; ask the same to go on, "
                "or pass another folder"
            )


def _todo(given: Source, done: set[str], batch_size: int, part_size: int) -> tuple[Parts | set[str], int]:
    """Parts of batches of the numbers of images that aren't done, and how many images that is; of a stream, what is."""
    if given.ids is None:
        return done, 0
    numbers = [i for i, name in enumerate(given.ids) if name not in done]
    parts = [numbers[i : i + part_size] for i in range(0, len(numbers), part_size)]
    return [[part[i : i + batch_size] for i in range(0, len(part), batch_size)] for part in parts], len(numbers)


def _asked(job: Job, **sizes: int) -> dict[str, Any]:
    """What decides the results, as JSON."""
    lens = job.lens
    several = isinstance(job.method, Sequence) and not isinstance(job.method, str)
    methods = job.method if several else [job.method]
    return {
        "model": {"name": lens.name, "weights": fingerprint(lens.model), "classes": len(lens.labels or ())},
        "preprocessing": str(lens.preprocessing),
        "target": [_named(one) for one in job.targets],
        "layer": _named(job.layer) or "default",
        "method": [_named(one) or "default" for one in methods],
        "how": {name: _named(value) for name, value in sorted(job.how.items())},
        **sizes,
    }


def _fields(job: Job) -> dict[str, list[float]]:
    """The layers whose channels are watched, and which share of the input's height and width a cell of each sees."""
    lens = job.lens
    if job.channels is None or lens.preprocessing is None:
        return {}
    x, fields = lens.example(), {}
    for layer in lens.grids(None if job.channels is True else job.channels, x):
        with suppress(HookmapError):  # not all can be asked, and pictures are found without it
            seen = receptive_field(lens, layer, x)
            fields[layer] = [round(side / whole, 4) for side, whole in zip(seen, x.shape[2:], strict=True)]
    return fields


def _named(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_named(one) for one in value]
    return getattr(value, "__name__", None) or str(value)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers: names, types, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("hookmap", "torch", "torchvision", "timm", "transformers", "numpy", "pillow", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
