"""Batches of a data set, read ahead in the workers of a DataLoader."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from hookmap.datasets.reader import Batch, Reader, Sample, reason
from hookmap.datasets.sources import Stream


def batches(
    reader: Reader, todo: Sequence[Sequence[int]] | set[str], batch_size: int, workers: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """Batches of a data set, read ahead by workers.

    Args:
        reader: of the data set.
        todo: the numbers of the images of each batch; of a stream, the ids that are left out.
        batch_size: images per batch of a stream.
        workers: processes that read; 0 reads here. A stream is always read here.
        pinned: into memory that a GPU fetches from.
    """
    # A generator of its own: without one, a DataLoader draws from that of whoever calls.
    how: dict[str, Any] = {"collate_fn": Batch.of, "pin_memory": pinned, "generator": torch.Generator()}
    if isinstance(todo, set):
        return iter(DataLoader(_Streamed(reader, todo), batch_size=batch_size, **how))
    ahead: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
    numbers = [[*batch] for batch in todo]
    return iter(DataLoader(_Numbered(reader), batch_sampler=numbers, num_workers=workers, **how, **ahead))


def usual_workers(device: torch.device) -> int:
    """How many processes read ahead: beside a GPU as many as there are cores, up to 8; beside a CPU a few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if device.type != "cpu" else max(1, cores // 4)


class _Numbered(Dataset[Any]):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, number: int) -> tuple[Sample, Tensor | None]:
        return self._reader.read(number)


class _Streamed(IterableDataset[Any]):
    def __init__(self, reader: Reader, without: set[str]) -> None:
        self._reader, self._without = reader, without

    def __iter__(self) -> Iterator[tuple[Sample, Tensor | None]]:
        assert isinstance(self._reader.source, Stream)
        items, number = iter(self._reader.source), -1
        while True:
            number += 1
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:  # more may come after it, and bear its number
                name = f"before {number}"
                if name not in self._without:
                    yield Sample(name, error=reason(error)), None
                continue
            if item.id not in self._without:
                yield self._reader.prepared(item)
