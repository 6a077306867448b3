"""The local engine: workers read ahead, this process explains, a thread writes behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType

from hookmap.datasets.loader import batches
from hookmap.datasets.reader import Batch, Reader
from hookmap.errors import DataError
from hookmap.runs.channels import ChannelRecorder
from hookmap.runs.job import ImageResult, Job
from hookmap.runs.rows import tables
from hookmap.runs.store import Store

Parts = Sequence[Sequence[Sequence[int]]]
"""The numbers of the images of each batch of each part."""


def run_locally(
    job: Job,
    reader: Reader,
    store: Store,
    todo: Parts | set[str],
    *,
    batch_size: int,
    part_size: int,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    """Explain what is to be done and write it, part by part.

    Args:
        job: what is asked.
        reader: of the data set.
        store: where parts go.
        todo: the parts; of a stream the ids that are left out.
        batch_size: images per batch of a stream.
        part_size: images per part of a stream.
        workers: processes that read.
        advance: told of every batch how many images it had.
    """
    pinned = job.lens.device.type == "cuda"
    flat = todo if isinstance(todo, set) else [batch for part in todo for batch in part]
    read = _alive(batches(reader, flat, batch_size, workers, pinned=pinned))
    sizes = _sizes(todo, max(1, part_size // batch_size))
    with Writer(store) as writer:
        for count in sizes:
            recorder = ChannelRecorder()
            results: list[ImageResult] = []
            for batch in islice(read, count):
                results += explained(job, batch, recorder)
                advance(len(batch.samples))
            if not results:
                return
            writer.put(results, recorder)


def _alive(read: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from read
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads images died, perhaps because memory ran out; go on with --resume (resume=True) and "
            "fewer --workers (workers=)"
        ) from None


def explained(job: Job, batch: Batch, recorder: ChannelRecorder) -> list[ImageResult]:
    """What comes of a batch, with maps on the CPU, where writing goes on beside the next batch."""
    results = job(batch, recorder)
    for result in results:
        for _, heatmap in result.heatmaps:
            heatmap.raw = heatmap.raw.detach().cpu()
    return results


def _sizes(todo: Parts | set[str], batches_per_part: int) -> Iterator[int]:
    """How many batches each part has; of a stream without end."""
    if not isinstance(todo, set):
        yield from (len(part) for part in todo)
        return
    while True:
        yield batches_per_part


class Writer:
    """Writes parts in a thread; what goes wrong there is raised here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.Queue[tuple[int, list[ImageResult], ChannelRecorder] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._next = store.next_part()
        self._thread = threading.Thread(target=self._work, name="hookmap writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def put(self, results: list[ImageResult], recorder: ChannelRecorder) -> None:
        """Have a part written."""
        if self._error is None:
            self._waiting.put((self._next, results, recorder))
            self._next += 1
        if self._error is not None:
            raise self._error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        while (part := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # the queue is emptied, so that nobody waits for it
            number, results, recorder = part
            try:
                self._store.commit(number, tables(results) | recorder.tables())
            except BaseException as error:
                self._error = error
