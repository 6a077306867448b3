"""The Ray engine: Ray Data reads and explains batches anywhere, and the driver writes them.

The batches are those of the local engine, so the parts are too. What a worker that dies was doing, Ray does again
elsewhere. The run's folder is written by the driver alone; the pictures must be readable where Ray runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hookmap.datasets.reader import Batch, Reader
from hookmap.errors import DataError, HookmapError
from hookmap.runs.channels import ChannelRecorder
from hookmap.runs.engines.local import Parts
from hookmap.runs.job import Job
from hookmap.runs.rows import tables
from hookmap.runs.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


def run_on_ray(
    job: Job,
    reader: Reader,
    store: Store,
    todo: Parts | set[str],
    *,
    workers: int,
    advance: Callable[[int], None],
    address: str | None = None,
) -> None:
    """Explain what is to be done and write it, part by part.

    Args:
        job: what is asked; actors hold it, one GPU each if the cluster has any.
        reader: of the data set.
        store: where parts go.
        todo: the parts.
        workers: actors that read, at most.
        advance: told of every batch how many images it had.
        address: of a cluster; by default the one that Ray finds, or a new one on this machine.

    Raises:
        DataError: for a stream, which has no parts to hand out.
    """
    if isinstance(todo, set):
        raise DataError("a stream is read in one place from its start to its end; take --engine local (engine='local')")
    if not todo:
        return
    first = store.next_part()
    rows = [
        {"part": first + p, "batch": b, "numbers": batch} for p, part in enumerate(todo) for b, batch in enumerate(part)
    ]
    waiting: dict[int, dict[int, tuple[dict[str, pa.Table], ChannelRecorder]]] = {}
    with connected(address):
        for number, batch, images, some in _answers(rows, job, reader, workers):
            if isinstance(some, HookmapError):
                raise some
            waiting.setdefault(number, {})[batch] = some
            advance(images)
            if len(waiting[number]) == len(todo[number - first]):
                store.commit(number, _together(waiting.pop(number)))


def _answers(rows: list[Row], job: Job, reader: Reader, workers: int) -> Iterator[tuple[int, int, int, Any]]:
    """Part, batch, how many images, and what was found, in any order."""
    import ray

    threads = torch.get_num_threads()  # on the CPU, sums depend on how they are shared out
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cores = int(ray.cluster_resources().get("CPU", 1))
    actors = gpus or max(1, (cores - 1) // threads)
    device = "cuda" if gpus else "cpu"
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data = data.map_batches(
        _Read,
        fn_constructor_args=(reader,),
        batch_size=1,
        num_cpus=0.25,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, workers)),
    )
    data = data.map_batches(
        _Explain,
        fn_constructor_args=(pickle_by_value(job), device, threads),
        batch_size=1,
        num_gpus=1 if gpus else 0,
        # Half of what it takes, so that those of a node that died find room on the others: what they did waits for it.
        num_cpus=0 if gpus else min(threads, cores / 2) / 2,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    for row in data.iter_rows():
        yield int(row["part"]), int(row["batch"]), int(row["images"]), pickle.loads(row["found"])


class _Read:
    """Reads batches."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        torch.set_num_threads(1)

    def __call__(self, rows: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        numbers = rows["numbers"][0]
        batch = Batch.of([self._reader.read(int(number)) for number in numbers])
        return {"part": rows["part"], "batch": rows["batch"], "read": [pickle.dumps(batch)]}


class _Explain:
    """Explains batches."""

    def __init__(self, job: bytes, device: str, threads: int) -> None:
        import ray.cloudpickle

        torch.set_num_threads(threads)
        self._job: Job = ray.cloudpickle.loads(job)
        self._job.lens.model.to(device)

    def __call__(self, rows: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        batch, recorder = pickle.loads(rows["read"][0]), ChannelRecorder()
        found: Any
        try:
            found = tables(self._job(batch, recorder)), recorder
        except HookmapError as error:  # Ray keeps nothing of an exception but its words
            found = error
        images = np.array([len(batch.samples)])
        return {"part": rows["part"], "batch": rows["batch"], "images": images, "found": [pickle.dumps(found)]}


def pickle_by_value(job: Job) -> bytes:
    """The job with its model on the CPU, as workers get it; models of the user's own script travel with their code."""
    import ray.cloudpickle

    device = job.lens.device
    job.lens.model.to("cpu")
    try:
        pickled: bytes = ray.cloudpickle.dumps(job)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise DataError(f"the model can't be sent to Ray's workers ({error}); take --engine local") from None
    finally:
        job.lens.model.to(device)
    return pickled


def _together(batches: dict[int, tuple[dict[str, pa.Table], ChannelRecorder]]) -> dict[str, pa.Table]:
    """The tables of a part from those of its batches."""
    import pyarrow as pa

    ordered = [batches[number] for number in sorted(batches)]
    whole = {kind: pa.concat_tables([some[kind] for some, _ in ordered]).combine_chunks() for kind in ordered[0][0]}
    recorder = ChannelRecorder()
    for _, other in ordered:
        recorder.add(other)
    return whole | recorder.tables()


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Ray, if it isn't running in this process already; what was started here ends here."""
    import ray

    if ray.is_initialized():
        yield
        return
    # What can be imported here can be imported there: the user's model may lie beside the script.
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
    try:
        ray.init(
            address=address,
            runtime_env=paths if address is None else None,
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=False,
        )
    except (ConnectionError, ValueError) as error:
        raise DataError(f"there's no Ray cluster at {address!r} ({error}); check the address") from None
    context = ray.data.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        context.enable_progress_bars = bars
        ray.shutdown()
