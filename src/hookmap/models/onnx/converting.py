"""From the operators of an ONNX graph to a module whose layers have names."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from hookmap._devices import out_of_memory
from hookmap.errors import ModelError, first_line

_SCOPES = "pkg.torch.onnx.name_scopes"
_NUMBERED = r"n\d+(_\d+)*|node_.*"
"""Names that say nothing but that they are different."""
_NEWEST, _WELL_KNOWN = 17, 13
"""The newest operator set that there are converters for, and the one that has most of them."""


def converted(model: Any, path: Path) -> nn.Module:
    """The module; a graph of a newer or a rarer operator set is first said in an older one.

    Raises:
        ModelError: naming the operators that have no form in PyTorch.
    """
    from onnx import version_converter
    from onnx2torch import convert

    _name_nodes(model.graph)
    missing = _in_older_words(model)
    if not missing:
        try:
            return _evaluated(convert(model))
        except Exception as error:
            if out_of_memory(error):
                raise
            first, missing = error, _without_converter(model)
        try:
            return _evaluated(convert(version_converter.convert_version(model, _WELL_KNOWN)))
        except Exception as error:
            if out_of_memory(error):
                raise
            why = f"can't be converted ({first_line(first)[:200]})"
    if missing:
        why = f"has operators that there's no form of in PyTorch: {', '.join(missing)}"
    raise ModelError(f"{path} {why}; pass the nn.Module that it was exported from")


def _evaluated(module: Any) -> nn.Module:
    """In evaluation mode, with dots in the names of its layers."""
    calls = [node for node in module.graph.nodes if node.op == "call_module" and "/" in node.target]
    inner = {str(parent).replace("/", ".") for node in calls for parent in PurePosixPath(node.target).parents}
    for node in calls:
        dotted = node.target.replace("/", ".")
        if dotted in inner:  # no layer can also be what holds others
            continue
        with suppress(KeyError):  # a name that modules have for something of theirs, such as "half"
            if module.add_submodule(dotted, module.get_submodule(node.target)):
                node.target = dotted
    module.delete_all_unused_submodules()
    module.recompile()
    plain: nn.Module = module.eval().requires_grad_(False)
    return plain


def _name_nodes(graph: Any) -> None:
    """Names that layers can have, and people read: of the module that a node was exported from, where the file says it.

    ``/layer1/conv1/Conv`` is ``layer1.conv1.Conv``, and so is ``node_conv2d_7`` of a file that holds PyTorch's scopes.
    """
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        name = ".".join(part for part in node.name.replace(".", "/").split("/") if part)
        if scope := _scope(node):
            name = f"{scope}.{node.op_type}"
        elif not name or re.fullmatch(_NUMBERED, name):
            name = f"{node.op_type}_{number}"
        while name in taken:
            name = f"{name}_{number}"
        taken.add(name)
        node.name = name


def _scope(node: Any) -> str:
    """The module in which PyTorch's exporter met a node; empty for nodes of other exporters."""
    said = {entry.key: entry.value for entry in node.metadata_props}
    try:
        scopes = ast.literal_eval(said[_SCOPES])
        return str(scopes[-2])
    except (KeyError, ValueError, SyntaxError, IndexError, TypeError, MemoryError, RecursionError):
        return ""


def _in_older_words(model: Any) -> list[str]:
    """Say a graph of a newer operator set in the newest that is known; what can't be said is returned, by name."""
    from onnx import defs

    entry = next((one for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
    if entry is None or entry.version <= _NEWEST:
        return []
    constants = constants_of(model.graph)
    nodes, missing = list[Any](), dict[str, None]()
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        if node.op_type == "Gelu" and not any(one.name == "approximate" and one.s == b"tanh" for one in node.attribute):
            nodes += _gelu(node)
            continue
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
            _axes_as_attribute(node, constants)
        try:
            older, newer = (defs.get_schema(node.op_type, version) for version in (_NEWEST, entry.version))
        except defs.SchemaError:
            missing[node.op_type] = None
            continue
        for one in [one for one in node.attribute if one.name not in older.attributes]:
            if one.name == "num_outputs" or one == newer.attributes[one.name].default_value:
                node.attribute.remove(one)
            else:
                missing[node.op_type] = None
        if len(node.input) > older.max_input:
            missing[node.op_type] = None
        if node.op_type == "Reshape":  # a zero copies a side or makes an empty tensor, which no network wants
            _without(node, "allowzero")
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    entry.version = _NEWEST
    return list(missing)


def constants_of(graph: Any) -> dict[str, Any]:
    """Constant tensors by their names."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
    return found


def _axes_as_attribute(node: Any, constants: dict[str, Any]) -> None:
    from onnx import helper, numpy_helper

    if node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1).tolist()
        del node.input[1]
        node.attribute.append(helper.make_attribute("axes", axes))


def _without(node: Any, name: str) -> None:
    for one in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(one)


def _gelu(node: Any) -> list[Any]:
    """x (1 + erf(x / sqrt 2)) / 2."""
    from onnx import TensorProto, helper

    x, out = node.input[0], node.output[0]

    def constant(name: str, value: float) -> Any:
        tensor = helper.make_tensor(f"{out}_{name}", TensorProto.FLOAT, (), [value])
        return helper.make_node("Constant", [], [f"{out}_{name}"], name=f"{node.name}_{name}", value=tensor)

    def step(kind: str, inputs: list[str], output: str) -> Any:
        return helper.make_node(kind, inputs, [output], name=f"{node.name}_{output.rpartition('_')[2]}")

    return [
        constant("root", 2**0.5),
        constant("one", 1.0),
        constant("half", 0.5),
        step("Div", [x, f"{out}_root"], f"{out}_scaled"),
        step("Erf", [f"{out}_scaled"], f"{out}_erf"),
        step("Add", [f"{out}_erf", f"{out}_one"], f"{out}_raised"),
        step("Mul", [x, f"{out}_raised"], f"{out}_doubled"),
        helper.make_node("Mul", [f"{out}_doubled", f"{out}_half"], [out], name=node.name),
    ]


def _without_converter(model: Any) -> list[str]:
    """The operators that can't be converted, by name."""
    from onnx2torch.node_converters.registry import get_converter

    versions, missing = {entry.domain: entry.version for entry in model.opset_import}, dict[str, None]()
    for node in model.graph.node:
        try:
            get_converter(node.op_type, versions.get(node.domain, 1), node.domain)
        except (NotImplementedError, ValueError, RuntimeError):
            missing[node.op_type] = None
    return list(missing)
