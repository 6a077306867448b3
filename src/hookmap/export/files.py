"""Programs as files, and the files run on pictures that the program wasn't traced with."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from hookmap._devices import out_of_memory
from hookmap.errors import HookmapError, ModelError, first_line
from hookmap.export.program import Program, quiet
from hookmap.models.onnx.about import METADATA, About

INPUT = "input"
"""The name of the file's input."""
_MOST_BYTES = 2**31 - 1


class Kind(Protocol):
    """A kind of file."""

    needs: ClassVar[Sequence[str]]
    """Libraries that write and run it."""

    def write(self, program: Program, about: About, place: Path) -> None:
        """Write the file."""
        ...

    def run(self, place: Path, program: Program, x: Tensor) -> dict[str, Tensor]:
        """What it gives for a batch ``(B, C, *size)``."""
        ...


class Onnx:
    """For ONNX Runtime and everything else that reads ONNX."""

    needs: ClassVar[Sequence[str]] = ("onnx", "onnxscript", "onnxruntime")

    def write(self, program: Program, about: About, place: Path) -> None:
        """Weights are inside of the file, each once.

        Raises:
            ModelError: for an operator that ONNX doesn't have, and for more than 2 GiB.
        """
        from onnx_ir.passes.common import DeduplicateInitializersPass

        try:
            with quiet(), _silent("torch.onnx", "onnxscript", "onnx_ir"):
                made = torch.onnx.export(
                    program.exported,
                    dynamo=True,
                    verbose=False,
                    input_names=[INPUT],
                    output_names=list(program.outputs),
                )
                assert made is not None
                DeduplicateInitializersPass()(made.model)
        except torch.onnx.OnnxExporterError as error:
            raise ModelError(f"ONNX has no form for a part of this model ({_reason(error)}); write a .pt2") from error
        made.model.metadata_props[METADATA] = about.as_json()
        content = made.model_proto.SerializeToString() if _size(program) < _MOST_BYTES else None
        if content is None:
            raise ModelError("the model has more than 2 GiB of weights, which one ONNX file can't hold; write a .pt2")
        place.write_bytes(content)

    def run(self, place: Path, program: Program, x: Tensor) -> dict[str, Tensor]:
        """By ONNX Runtime on the CPU."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
            found = session.run(list(program.outputs), {INPUT: x.cpu().numpy()})
        except Exception as error:  # the runtime's own kinds share no base
            if out_of_memory(error):
                raise
            raise ModelError(f"ONNX Runtime can't run this model ({first_line(error)[:200]}); write a .pt2") from error
        return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(program.outputs, found, strict=True)}


class Pt2:
    """For PyTorch without the model's code: ``torch.export.load``."""

    needs: ClassVar[Sequence[str]] = ()

    def write(self, program: Program, about: About, place: Path) -> None:
        """With what the file says of itself beside the program."""
        buffer = io.BytesIO()
        with quiet():
            torch.export.save(program.exported, buffer, extra_files={f"{METADATA}.json": about.as_json()})
        place.write_bytes(buffer.getvalue())

    def run(self, place: Path, program: Program, x: Tensor) -> dict[str, Tensor]:
        """By PyTorch."""
        with quiet(), torch.no_grad():
            found = torch.export.load(place).module()(x)
        return dict(zip(program.outputs, found, strict=True))


KINDS: dict[str, Kind] = {".onnx": Onnx(), ".pt2": Pt2()}
"""By the ending of the file."""


def kind_of(path: Path) -> Kind:
    """The kind of file that a path's ending names.

    Raises:
        HookmapError: for another ending.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise HookmapError(f"{path.name!r} ends in neither {' nor '.join(KINDS)}; name the file net.onnx or net.pt2")
    return kind


def _size(program: Program) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in program.exported.state_dict.values())


def _reason(error: BaseException) -> str:
    """The sentence among the exporter's pages that says what is missing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:200]


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Without what libraries log to their own developers."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
