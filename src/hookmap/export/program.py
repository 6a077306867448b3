"""From a question to a program: traced for any number of images, or for one where the model allows no other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookmap._devices import out_of_memory
from hookmap.errors import HookmapError, ModelError, first_line
from hookmap.export.explaining import Explaining
from hookmap.export.tracing import graph_of


@dataclass(frozen=True)
class Program:
    """What a file will hold.

    Attributes:
        exported: by ``torch.export``.
        outputs: names of what it gives, the heatmap last.
        batch: how many images it takes; None: any number.
    """

    exported: torch.export.ExportedProgram
    outputs: Sequence[str]
    batch: int | None


def program_of(explaining: Explaining, x: Tensor) -> Program:
    """The program of a question.

    Args:
        explaining: the question.
        x: an example, ``(1, C, *size)``.

    Raises:
        ModelError: if the model can't be traced.
    """
    names = list(explaining(x))

    def outputs(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(explaining(images).values())

    two = torch.cat([x, x.flip(-1)])
    if explaining.engine.execution.takes_batches(x):
        try:
            return Program(_exported(outputs, two, any_batch=True), names, None)
        except HookmapError:
            raise
        except Exception as error:  # PyTorch's many ways of saying that the number of images is fixed in the model
            if out_of_memory(error):
                raise
    try:
        return Program(_exported(outputs, x, any_batch=False), names, 1)
    except HookmapError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ModelError(
            f"{explaining.engine.name} can't be traced with {explaining.method.name} at "
            f"{', '.join(explaining.layouts)}: {first_line(error)[:200]}; take another method or a later layer"
        ) from error


def _exported(function: Any, x: Tensor, *, any_batch: bool) -> torch.export.ExportedProgram:
    graph = graph_of(function, x, any_batch=any_batch)
    shapes = ({0: torch.export.Dim("batch", min=1)},) if any_batch else None
    with quiet():
        return torch.export.export(graph.eval(), (x,), dynamic_shapes=shapes, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries beneath say to their own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
