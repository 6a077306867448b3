"""The graph that autograd recorded of the unmodified model: its nodes in their order, and the modules that made them.

A node's class is private to PyTorch, its name isn't, and neither are what it kept of the forward pass (``_saved_...``)
and the nodes that it hands its gradient to. Names change with context (fused attention under a mask that needs a
gradient is a softmax between two products), so nodes are matched by :func:`kind`, and whoever reads them says what it
doesn't know.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.jit._script import RecursiveScriptModule

from hookmap.hooks.registration import REGISTRATION

NOT_REENTRANT = "switch checkpointing off, or use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
"""What to do about checkpoints that hide what they run from the graph."""

Gradients: TypeAlias = "Callable[[Tensor, Sequence[Any]], Sequence[Tensor | None]]"
"""From a number and places in its graph (tensors, edges) to the gradients there; None where it depends on none."""


def plain_gradients(total: Tensor, places: Sequence[Any], *, create_graph: bool = False) -> Sequence[Tensor | None]:
    """Those that autograd gives; the graph stays.

    Args:
        total: a number.
        places: in its graph.
        create_graph: give the gradients a graph of their own, for second derivatives.
    """
    return torch.autograd.grad(total, places, retain_graph=True, create_graph=create_graph, allow_unused=True)


def nodes_of(outputs: Iterable[Tensor]) -> list[Node]:
    """All nodes that tensors depend on, in the order in which they ran; leaves (parameters, inputs) first."""
    found: dict[Node, None] = {}
    todo = [output.grad_fn for output in outputs]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found[node] = None
            todo += [before for before, _ in node.next_functions]
    return sorted(found, key=_order)


def users_of(nodes: Iterable[Node]) -> dict[Node, list[tuple[Node, int]]]:
    """Of each node those that took what it gave, and which of their inputs that was."""
    users: dict[Node, list[tuple[Node, int]]] = {}
    for node in nodes:
        for slot, (before, _) in enumerate(node.next_functions):
            if before is not None:
                users.setdefault(before, []).append((node, slot))
    return users


def kind(node: Node) -> str:
    """What a node is of: "Softmax" of ``SoftmaxBackward0``, "AccumulateGrad" of a leaf."""
    name = node.name().rpartition("::")[2]
    return name.rstrip("0123456789").removesuffix("Backward")


class Origins:
    """Which module made a node: that in whose call it was made, the innermost. Made by :func:`origins`."""

    def __init__(self) -> None:
        self._starts: list[int] = [0]
        self._names: list[str] = [""]
        self._open: list[str] = [""]

    def enter(self, name: str) -> None:
        """A module is called."""
        self._open.append(name)
        self._mark()

    def leave(self) -> None:
        """The module that was entered last gave its output."""
        if len(self._open) > 1:
            self._open.pop()
        self._mark()

    def _mark(self) -> None:
        now = torch._C._autograd._get_sequence_nr()
        if self._starts[-1] == now:
            self._names[-1] = self._open[-1]
        else:
            self._starts.append(now)
            self._names.append(self._open[-1])

    def of(self, node: Node) -> str:
        """The name of the module; empty for what the model's own forward did, and for leaves."""
        if kind(node) == "AccumulateGrad":
            return ""
        return self._names[bisect_right(self._starts, node._sequence_nr()) - 1]


@contextmanager
def origins(model: nn.Module) -> Iterator[Origins]:
    """Note, while the block runs, which module of a model makes which nodes, in this thread only.

    A node knows its number in the order in which its thread made nodes, and a module's call lies between two numbers.
    """
    found, thread = Origins(), threading.get_ident()

    def active() -> bool:
        # A checkpointed segment runs again inside of a backward pass: its nodes aren't of this graph.
        return threading.get_ident() == thread and torch._C._current_graph_task_id() == -1

    def entering(name: str) -> Any:
        return lambda *_: found.enter(name) if active() else None

    def leaving(*_: Any) -> None:
        if active():
            found.leave()

    with ExitStack() as stack:
        with REGISTRATION:
            for name, module in model.named_modules():
                if not isinstance(module, RecursiveScriptModule):
                    stack.callback(module.register_forward_pre_hook(entering(name)).remove)
                    stack.callback(module.register_forward_hook(leaving).remove)
        yield found


def _order(node: Node) -> int:
    return -1 if kind(node) == "AccumulateGrad" else node._sequence_nr()
