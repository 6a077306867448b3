"""An ONNX file of anybody's, read with bounds: nothing outside of its folder, and no more than fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hookmap.errors import ModelError, first_line

_MOST_BYTES = 2 * 2**30


def read(path: Path) -> Any:
    """The file, with weights that lie beside it; nothing outside of its folder is read."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(f"there's no ONNX file {path}" + (" (it's a folder; pass the file)" if path.is_dir() else ""))
    _check_size(path.stat().st_size, path)
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path} can't be read as ONNX ({first_line(error)[:120]})") from None
    if not graph.graph.node:
        raise ModelError(f"{path} can't be read as ONNX (it holds no graph)")
    folder, beside = path.parent.resolve(), set[Path]()
    for tensor in _tensors(graph.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            weights = (folder / place).resolve()
            if not place or not weights.is_relative_to(folder):
                raise ModelError(f"{path} names weights outside of its folder ({place!r}), which aren't read")
            if not weights.is_file():
                raise ModelError(f"the weights {place!r} of {path.name} aren't beside it; put both into one folder")
            beside.add(weights)
    _check_size(path.stat().st_size + sum(weights.stat().st_size for weights in beside), path)
    if beside:
        try:
            onnx.load_external_data_for_model(graph, str(folder))
        except Exception as error:  # a length or an offset that the weights don't have
            raise ModelError(f"the weights of {path} can't be read ({first_line(error)[:120]})") from None
    return graph


def _check_size(size: int, path: Path) -> None:
    if size > _MOST_BYTES:
        raise ModelError(f"{path} is {size / 2**30:.1f} GiB with its weights; files up to 2 GiB are read")


def _tensors(graph: Any) -> list[Any]:
    """All constants of a graph and of the graphs inside of its nodes."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors]
            for inner in [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]:
                found += _tensors(inner)
    return found
