"""What a run was asked, as ``run.json`` keeps it: a run goes on only if it is asked the same."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import CodeType
from typing import Any

from hookmap.attribution.planning import methods_of
from hookmap.datasets.sources import Source
from hookmap.errors import DataError, HookmapError
from hookmap.hooks.fingerprint import fingerprint
from hookmap.layers.receptive import receptive_field
from hookmap.methods import METHODS
from hookmap.render.look import check_part
from hookmap.results.choice import Choice
from hookmap.runs.job import Chosen, Job
from hookmap.runs.store import Store

_WORDS = {"model": "another model or other weights", "source": "other data", "labels": "other labels"}


def asked(job: Job, given: Source, **sizes: int) -> dict[str, Any]:
    """What decides the results, as JSON."""
    lens = job.lens
    several = isinstance(job.method, Sequence) and not isinstance(job.method, str)
    methods = job.method if several else [job.method]
    names = hashlib.sha256("\n".join(lens.labels or ()).encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "model": {"name": lens.name, "weights": fingerprint(lens.model), "precision": lens.precision},
        "labels": {"count": len(lens.labels or ()), "names": names},
        "preprocessing": str(lens.preprocessing),
        "target": [_named(target) for target in job.targets],
        "layer": _named(job.layer) or "default",
        "method": [_named(method) or "default" for method in methods],
        "how": {name: _named(value) for name, value in sorted({**job.options, "check": job.check}.items())},
        "channels": _fields(job),
        "source": {**given.description, "from": _absolute(given.description.get("from"))},
        **sizes,
    }


def looks(job: Job) -> dict[str, Any]:
    """How maps of each method are drawn, as JSON: of those that are asked for, or of all that may be the default."""
    part = job.options.get("part")
    check_part(part)
    return {method.name: method.look_of(part).as_json() for method in methods_of(job.method) or METHODS.values()}


def begin(store: Store, now: Mapping[str, Any], *, looks: Mapping[str, Any], resume: bool) -> None:
    """Write what is asked, or make sure that the run which is there already asked the same.

    Args:
        store: of the run.
        now: what is asked.
        looks: how its maps are drawn; a run that goes on keeps those that it began with.
        resume: whether it may go on.

    Raises:
        DataError: if it didn't, or if nobody said that it should go on.
    """
    if not store.parts():  # nothing is lost if it begins again
        store.describe({**now, "looks": looks, "begun": _time(), "versions": _versions()})
        return
    if not resume:
        raise DataError(
            f"{store.folder} holds a run already; go on with it by --resume (resume=True), or pass another folder"
        )
    before = store.about
    for key, value in now.items():
        old, new = before.get(key), value
        if key == "source":  # it may have grown
            old, new = ({**description, "images": 0} for description in (old or {}, new))
        if key == "channels" and isinstance(new, dict):  # what a cell sees is measured, to some digits
            old, new = [*(old or ())], [*new]
        if old != new:
            words = _WORDS.get(key, f"{key} {old}, and now it is {new}")
            raise DataError(f"{store.folder} was run with {words}; ask the same to go on, or pass another folder")
    store.describe({**before, "source": now["source"], "finished": None})


def chosen(store: Store) -> Chosen | None:
    """What the run chose when it began, if it did."""
    about = store.about.get("chosen")
    if about is None:
        return None
    return Chosen(about["form"], None if about["choice"] is None else Choice.read(about["choice"]))


def keep_chosen(store: Store, chosen: Chosen | None) -> None:
    """Note what was chosen, so that the run goes on with it."""
    if chosen is not None:
        store.describe({**store.about, "chosen": asdict(chosen)})


def end(store: Store) -> None:
    """Note when a run came to its end."""
    store.describe({**store.about, "finished": _time()})


def _fields(job: Job) -> dict[str, list[float]] | str | None:
    """The layers whose channels are watched, and which share of the input's height and width a cell of each sees."""
    lens = job.lens
    if job.channels is None or lens.preprocessing is None:
        return _named(job.channels)  # type: ignore[no-any-return]
    x, fields = lens.engine.example(), dict[str, list[float]]()
    for layer, (_, layout) in lens.engine.grids(None if job.channels is True else job.channels, x).items():
        with suppress(HookmapError):  # not all can be asked, and pictures are found without it
            seen = receptive_field(lens.engine.called, layer, layout, x)
            fields[layer] = [round(side / whole, 4) for side, whole in zip(seen, x.shape[2:], strict=True)]
    return fields


def _absolute(place: Any) -> Any:
    """A place that is the same wherever the run goes on from."""
    return os.path.abspath(place) if isinstance(place, str) and os.path.exists(place) else place


def _named(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_named(item) for item in value]
    if isinstance(value, functools.partial):
        return [_named(value.func), _named(value.args), {name: _named(item) for name, item in value.keywords.items()}]
    code = getattr(value, "__code__", None)
    if code is None:
        return getattr(value, "__name__", None) or str(value)
    # Two functions of one name, lambdas above all, are told apart by what they do and what they hold.
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    digest = hashlib.sha256(_code(code) + repr([_named(item) for item in (*held, value.__defaults__)]).encode())
    return f"{value.__name__} {digest.hexdigest()[:12]}"


def _code(code: CodeType) -> bytes:
    """What a function does, without where its code lies in memory."""
    parts = [_code(item) if isinstance(item, CodeType) else repr(item).encode() for item in code.co_consts]
    return code.co_code + b"".join(parts) + repr(code.co_names).encode()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("hookmap", "torch", "torchvision", "timm", "transformers", "numpy", "pillow", "pyarrow"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
