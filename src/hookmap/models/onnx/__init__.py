"""ONNX files by their path: converted to a module whose layers can be hooked, with what the file says of itself."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hookmap._optional import require
from hookmap._text import counted
from hookmap.adapters.adapter import Adapter
from hookmap.errors import ModelError
from hookmap.images.preprocessing import Preprocessing
from hookmap.models.loaded import Loaded
from hookmap.models.onnx.about import HEATMAP, METADATA, About
from hookmap.models.onnx.converting import constants_of, converted
from hookmap.models.onnx.file import read

SUFFIX = ".onnx"


def has(name: str) -> bool:
    """Whether this is the path of an ONNX file."""
    return name.lower().endswith(SUFFIX)


def build(name: str, *, pretrained: bool = True) -> Loaded:
    """The network of an ONNX file.

    Raises:
        ModelError: for a file that isn't there or can't be read or converted, with what is in the way.
        MissingLibraryError: without onnx and onnx2torch.
    """
    if not pretrained:
        raise ModelError(f"{name} holds its own weights; leave out --no-pretrained (pretrained=False) and weights=")
    require("onnx", "onnx2torch", extra="onnx")
    path = Path(name).expanduser()
    graph = read(path)
    about = _about(graph)
    if about is not None:
        _keep_prediction(graph.graph)
    held = {tensor.name for tensor in graph.graph.initializer}
    inputs = [one for one in graph.graph.input if one.name not in held]
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {counted(len(inputs), 'input')}; expected one, a batch of images")
    shape = [side.dim_value or None for side in inputs[0].type.tensor_type.shape.dim]
    network = OnnxNetwork(converted(graph, path), shape, [output.name for output in graph.graph.output])
    given = None if about is None else about.preprocessing
    preprocessing = Preprocessing.from_json(given) if given else _assumed(network, graph.graph, inputs[0].name)
    note = None
    if preprocessing is not None and not given:
        normalised = "the graph normalises by itself" if not any(preprocessing.mean) else "with ImageNet's mean and std"
        note = (
            f"{path.name} doesn't say how pictures are preprocessed; assumed is: resized to "
            f"{preprocessing.size[0]}x{preprocessing.size[1]}, RGB, {normalised} (pass preprocessing= for another)"
        )
    labels = about.labels if about is not None else _names(graph)
    return Loaded(network.plain, path.stem, preprocessing, labels, note, adapter=network)


class OnnxNetwork(Adapter):
    """A converted network, that gives its outputs by the names that the file has for them.

    Args:
        model: converted.
        shape: of the file's input; None where it may be any.
        outputs: their names.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int | None], outputs: Sequence[str]) -> None:
        super().__init__(model)
        self._one_by_one = bool(shape) and shape[0] == 1
        self._outputs = list(outputs)
        last, first = (shape[-1], shape[1]) if len(shape) == 4 else (None, None)
        self.channels_last = last in (1, 3) and first not in (1, 3)
        self.sides = tuple(shape[1:3] if self.channels_last else shape[2:])
        self.channels = last if self.channels_last else (shape[1] if len(shape) > 1 else None)

    def forward(self, x: Tensor) -> Any:
        """The output, or several by name, for a batch ``(B, C, *size)``.

        Raises:
            ModelError: for several images, if the file was made for one.
        """
        if self._one_by_one and x.shape[0] != 1:
            raise ModelError(f"the file takes 1 image at a time, and {x.shape[0]} came")
        output = self.plain(x.permute(0, 2, 3, 1) if self.channels_last else x)
        several = isinstance(output, (tuple, list)) and len(output) == len(self._outputs) > 1
        return dict(zip(self._outputs, output, strict=True)) if several else output


def _about(graph: Any) -> About | None:
    """What a file that hookmap exported says of itself; None for others, whatever they say."""
    said = {entry.key: entry.value for entry in graph.metadata_props}
    try:
        return About.read(said[METADATA])
    except (KeyError, ValueError):
        return None


def _names(graph: Any) -> list[str] | None:
    """Class names as Ultralytics writes them: ``{0: 'person', ...}``."""
    said = {entry.key: entry.value for entry in graph.metadata_props}
    try:
        names = ast.literal_eval(said["names"])
        return [str(names[number]) for number in range(len(names))]
    except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _keep_prediction(graph: Any) -> None:
    """Only what leads to the model's own outputs: a heatmap of it is explained anew."""
    outputs = [output for output in graph.output if output.name != HEATMAP]
    wanted, nodes = {output.name for output in outputs}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    held = [tensor for tensor in graph.initializer if tensor.name in wanted]
    for kept, field in ((nodes[::-1], graph.node), (held, graph.initializer), (outputs, graph.output)):
        del field[:]
        field.extend(kept)


def _assumed(network: OnnxNetwork, graph: Any, entry: str) -> Preprocessing | None:
    """How pictures are probably preprocessed; None where the input isn't a picture of one or three channels."""
    channels = network.channels or 3
    if channels not in (1, 3) or len(network.sides) != 2:
        return None
    height, width = (side or 224 for side in network.sides)
    size = (height, width)
    scale = _normalises(graph, entry)
    if scale is not None:
        return Preprocessing(size=size, resize=size, mean=(0.0,) * channels, std=(1 / scale,) * channels)
    if channels == 1:
        return Preprocessing(size=size, resize=size, mean=(0.0,), std=(1.0,))
    return Preprocessing(size=size, resize=size)


def _normalises(graph: Any, entry: str) -> float | None:
    """What pixels reach up to where a graph begins by normalising them itself: 1 or 255; None where it doesn't."""
    import onnx

    constants = constants_of(graph)
    users = [node for node in graph.node if entry in node.input]
    while len(users) == 1 and users[0].op_type in ("Cast", "Transpose", "Identity"):
        entry = users[0].output[0]
        users = [node for node in graph.node if entry in node.input]
    if len(users) != 1 or users[0].op_type not in ("Sub", "Div", "Mul", "Add"):
        return None
    other = next((constants[name] for name in users[0].input if name in constants), None)
    if other is None:
        return None
    values = torch.from_numpy(onnx.numpy_helper.to_array(other).copy()).double().abs()
    if not values.numel() or values.numel() > 3:
        return None
    largest = float(values.max())
    if users[0].op_type == "Mul":
        return 255.0 if largest < 0.05 else 1.0
    return 255.0 if largest > 2 else 1.0
