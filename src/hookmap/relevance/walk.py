"""The modified backward pass: the graph that autograd recorded, walked back node by node.

Nothing is hooked and nothing has to be undone: a node can be called, which gives its own backward, and a rule stands in
for that where the node bends. What nothing is handed to isn't walked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hookmap.errors import ModelError
from hookmap.hooks.graph import kind
from hookmap.relevance.composites import Composite
from hookmap.relevance.layers import (
    LAYERS,
    BatchNorm,
    Flat,
    Layer,
    LayerRule,
    Outputs,
    Zero,
    can_merge,
    constant,
    full_precision,
    layer_of,
)
from hookmap.relevance.rules import HELD, LINEAR, RULES

Gradients = tuple[Tensor | None, ...]
Place = tuple[Any, int]
"""A node and the number of one of its outputs: where a tensor was made."""

BATCH_NORMS = frozenset({"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"})
PRODUCTS = {"Mul": (0, 1), "Bmm": (0, 1), "Mv": (0, 1), "Dot": (0, 1), "Baddbmm": (1, 2), "Addcmul": (1, 2)}
PRODUCTS |= {of: slots[:2] for of, slots in LAYERS.items()}
"""Which of their inputs are multiplied."""
QUOTIENTS = {"Div": 1, "Addcdiv": 2}
"""Which of their inputs divides, and is held constant."""
SUMS = frozenset({"Add", "Sub", "Rsub"})
SOFTMAXES = frozenset({"Softmax", "SafeSoftmax"})


class Carries(IntEnum):
    """What a node hands relevance on to."""

    NOTHING = 0
    PARAMETERS = 1
    INPUT = 2


@dataclass
class Found:
    """What one walk found.

    Attributes:
        gradients: by where the tensors were made that they were wanted of.
        batch_norms: those merged into the layers before them: scale, shift and what they gave, by layer. There a
            gradient is of what the batch norm gave.
        flat: relevance of the input that is no gradient times input.
        leaves: the gradients at parameters and inputs.
        merged: shares of biases that were merged with a batch norm's, summed.
        shifts: the share of batch norms' running means.
        kept: what nodes kept by definition, by kind.
        suspects: nodes at which relevance may be missing, in words: they end it, or add a constant that the graph
            doesn't know.
    """

    gradients: dict[Place, Tensor] = field(default_factory=dict)
    batch_norms: dict[Any, BatchNorm] = field(default_factory=dict)
    flat: Tensor | None = None
    leaves: dict[Tensor, Tensor] = field(default_factory=dict)
    merged: float = 0.0
    shifts: float = 0.0
    kept: dict[str, float] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)

    def keep(self, node: Any, amount: Tensor) -> None:
        """Note what a node keeps."""
        self.kept[kind(node)] = self.kept.get(kind(node), 0.0) + float(amount)


class Walk:
    """One graph, from scores back to the input, and how relevance walks it.

    Args:
        scores: where they were made, of inputs and of parameters.
        is_input: whether a leaf is an input.
        composite: the rules.
        names: of parameters, by id.
        outputs: what layers gave.
        aside: nodes whose gradient is wanted though they carry nothing: weights of attention, which are held constant.
    """

    def __init__(
        self,
        scores: Collection[Place],
        is_input: Callable[[Tensor], bool],
        composite: Composite,
        names: Mapping[int, str],
        outputs: Outputs,
        aside: Collection[Any] = (),
    ) -> None:
        self._is_input = is_input
        self._composite = composite
        self._names = names
        self._outputs = outputs
        graph: dict[Any, list[Any]] = {}
        todo: list[Any] = [node for node, _ in scores]
        while todo:
            node = todo.pop()
            if node not in graph:
                graph[node] = [before for before, _ in node.next_functions if before is not None]
                todo += graph[node]
        self._order = [*TopologicalSorter(graph).static_order()]
        self._held = HELD if composite.attention == "values" else HELD - SOFTMAXES
        self._carries: dict[Any, Carries] = {None: Carries.NOTHING}
        self._rules: dict[Any, LayerRule | Flat] = {}
        self._aside: set[Any] = set()
        uses: dict[Any, int] = {}
        deep: set[Any] = set()  # what lies behind a layer
        for node in self._order:
            self._carries[node] = self._carried(node)
            beside = self._carries[node] < Carries.INPUT
            if beside and (node in aside or not self._aside.isdisjoint(graph[node])):
                self._aside.add(node)
            for before in graph[node]:
                uses[before] = uses.get(before, 0) + 1
            if rule := self._layer_rule(node, deep):
                self._rules[node] = rule
            if rule or any(before in deep for before in graph[node] if self._carries[before]):
                deep.add(node)
        # Batch norms and the layers that nothing but they read.
        self._merged: dict[Any, Any] = {}
        for node in self._order:
            if kind(node) in BATCH_NORMS and not node._saved_training:
                before = node.next_functions[0][0]
                while kind(before) in ("Clone", "Alias") and uses[before] == 1:
                    before = before.next_functions[0][0]
                if before in self._rules and uses[before] == 1 and can_merge(before, self._rules[before]):
                    self._merged[node] = before

    def _carried(self, node: Any) -> Carries:
        of = kind(node)
        if of == "AccumulateGrad":
            return Carries.INPUT if self._is_input(node.variable) else Carries.PARAMETERS
        if of in self._held and of not in self._composite.rules:
            return Carries.NOTHING
        edges = [before for before, _ in node.next_functions]
        if of in QUOTIENTS:
            del edges[QUOTIENTS[of] :]
        if of == "Pow" and isinstance(node._saved_exponent, (int, float)) and node._saved_exponent < 0:
            return Carries.NOTHING
        if of.startswith("ScaledDotProduct") and self._composite.attention == "values":
            edges = edges[2:3]
        return max((self._carries[before] for before in edges), default=Carries.NOTHING)

    def _layer_rule(self, node: Any, deep: Collection[Any]) -> LayerRule | Flat | None:
        of = kind(node)
        if of not in LAYERS:
            return None
        x, weight = (node.next_functions[slot][0] for slot in PRODUCTS[of])
        if not self._carries[x] or self._carries[weight] == Carries.INPUT:
            return None
        if self._composite.first is not None and self._carries[x] == Carries.INPUT and x not in deep:
            return self._composite.first
        rule = self._composite.convolution if of == "Convolution" else self._composite.linear
        # With a frozen weight the layer kept no x, and its own gradient is that of x alone.
        return None if isinstance(rule, Zero) and weight is None else rule

    @property
    def reaches_input(self) -> bool:
        """Whether the scores depend on the input, by whatever nodes."""
        return any(kind(node) == "AccumulateGrad" and self._is_input(node.variable) for node in self._order)

    # ---------------------------------------------------------------- the way back

    def back(self, starts: Mapping[Place, Tensor], wanted: Collection[Place]) -> Found:
        """Walk back.

        Args:
            starts: the gradients at the scores.
            wanted: where the tensors were made that gradients are wanted of.
        """
        found = Found()
        pending: dict[Any, dict[int, Tensor]] = {}
        for (node, output), start in starts.items():
            pending.setdefault(node, {})[output] = start
        # What a flat first layer gives is relevance already, and moves to the pixels beside the gradients.
        flat: dict[Any, dict[int, Tensor]] = {}
        for node in reversed(self._order):
            gradients, relevances = pending.pop(node, None), flat.pop(node, None)
            if gradients:
                found.gradients |= {(node, i): g for i, g in gradients.items() if (node, i) in wanted}
            if kind(node) == "AccumulateGrad":
                if gradients:
                    found.leaves[node.variable] = gradients[0]
                if relevances and self._is_input(node.variable):
                    found.flat = relevances[0]
                continue
            if gradients:
                if isinstance(rule := self._rules.get(node), Flat):
                    at_x = rule.relevance(self._layer(node, found), full_precision(gradients[0]))
                    _hand_on(node, (None,) * LAYERS[kind(node)][0] + (at_x,), flat)
                else:
                    _hand_on(node, self._handed(node, _outputs(node, gradients), found), pending)
            if relevances:
                _hand_on(node, self._moved(node, relevances, found), flat)
        return found

    def _moved(self, node: Any, relevances: dict[int, Tensor], found: Found) -> Gradients:
        """Relevance, where it lies before a node that moves pixels: a scaled pixel is the same pixel."""
        if kind(node) in ("Mul", "Div"):
            return (relevances[0],)
        moved = _own(node, _outputs(node, relevances))
        if kind(node) in ("ConstantPadNd", "CopySlices"):  # what a margin has stays there
            edges = zip(node.next_functions, moved, strict=False)
            inner = [part.sum() for (before, _), part in edges if before is not None and part is not None]
            found.keep(node, relevances[0].sum() - sum(inner))
        return moved

    def _handed(self, node: Any, gradients: Gradients, found: Found) -> Gradients:
        """The gradients at a node's inputs."""
        of = kind(node)
        if of in self._composite.rules:
            return self._composite.rules[of](node, gradients)
        if (rule := self._rules.get(node)) is not None:
            assert not isinstance(rule, Flat)
            return self._through_layer(node, rule, gradients, found)
        if of in BATCH_NORMS:
            return self._through_batch_norm(node, gradients, found)
        if isinstance(node, BackwardCFunction) and of not in RULES:
            raise self._unknown(node)
        if of in PRODUCTS:
            return self._through_product(node, gradients)
        if of in QUOTIENTS:
            handed = _own(node, gradients)
            return tuple(None if slot == QUOTIENTS[of] else gradient for slot, gradient in enumerate(handed))
        if of.startswith("ScaledDotProduct"):
            return self._through_attention(node, gradients, found)
        if of in self._held:
            found.suspects.append(self._described(node))
            return ()
        if of in SOFTMAXES:
            return self._through_softmax(node, gradients, found)
        if of in RULES:
            return RULES[of](node, gradients)
        if of in LINEAR:
            if of in SUMS and any(before is None for before, _ in node.next_functions):
                found.suspects.append(f"{self._described(node)}, which adds a constant")
            return _own(node, gradients)
        raise self._unknown(node)

    def _described(self, node: Any) -> str:
        """A node, and the closest layer before it."""
        near = [node]
        for before in near:
            if kind(before) == "AccumulateGrad" and (name := self._names.get(id(before.variable))):
                return f"{kind(node)} behind {name.rpartition('.')[0]!r}"
            near += [other for other, _ in before.next_functions if other is not None and other not in near]
        return kind(node)

    def _unknown(self, node: Any) -> ModelError:
        return ModelError(
            f"relevance has no rule for {self._described(node)}; take another method, "
            f"or give one: replace(composite, rules={{{kind(node)!r}: rule}})"
        )

    def _layer(self, node: Any, found: Found) -> Layer:
        return layer_of(node, found.batch_norms.get(node), self._outputs.of(node))

    def _through_layer(self, node: Any, rule: LayerRule, gradients: Gradients, found: Found) -> Gradients:
        (gradient,) = gradients
        assert gradient is not None
        layer = self._layer(node, found)
        shares = rule(layer, full_precision(gradient))
        if shares.kept is not None:
            found.keep(node, shares.kept)
        x, _, bias = LAYERS[kind(node)]
        handed: list[Tensor | None] = [None] * len(node.next_functions)
        handed[x] = shares.x
        if node in found.batch_norms:
            assert layer.bias is not None
            found.merged += float((shares.bias * layer.bias).sum(dtype=torch.float64))
        elif bias is not None and node.next_functions[bias][0] is not None:
            handed[bias] = _per_channel(shares.bias) if kind(node) == "Convolution" else shares.bias
        return tuple(handed)

    def _through_batch_norm(self, node: Any, gradients: Gradients, found: Found) -> Gradients:
        (gradient, *_) = gradients
        assert gradient is not None
        axes = (1, -1, *[1] * (gradient.ndim - 2))
        weight = 1 if node._saved_weight is None else node._saved_weight
        if node._saved_training:  # of this batch's own statistics: a norm as any other
            inner = gradient * (weight * node._saved_result2).reshape(axes)
            mean = _per_channel(inner) * (inner.shape[1] / inner.numel())
            return inner - mean.reshape(axes), None, _per_channel(gradient)
        epsilon = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
        scale = weight * (node._saved_running_var + epsilon).rsqrt()
        bias = constant(node.next_functions[2][0])
        if node in self._merged and (bias is not None or node.next_functions[2][0] is None):
            shift = (0 if bias is None else bias) - node._saved_running_mean * scale
            y = torch.addcmul(shift.reshape(axes), node._saved_input, scale.reshape(axes))
            found.batch_norms[self._merged[node]] = BatchNorm(scale, shift, y)
            return (gradient,)
        statistics = (node._saved_running_mean, node._saved_running_var, None, None, False, epsilon)
        at_x, _, at_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(), node._saved_input.contiguous(), node._saved_weight, *statistics, [True, False, True]
        )
        found.shifts -= float((at_bias * scale * node._saved_running_mean).sum(dtype=torch.float64))
        return at_x, None, at_bias

    def _through_product(self, node: Any, gradients: Gradients) -> Gradients:
        """To the factor that carries more; to both, half each, where they carry the same."""
        handed = [*_own(node, gradients)]
        if len(handed) == 1:  # by a number
            return tuple(handed)
        one, other = PRODUCTS[kind(node)]
        first, second = (self._carries[node.next_functions[slot][0]] for slot in (one, other))
        less = other if first > second else one
        if first == second > Carries.NOTHING:
            handed[one], handed[other] = _times(handed[one], 0.5), _times(handed[other], 0.5)
        elif first != second and node.next_functions[less][0] not in self._aside:
            handed[less] = None
        return tuple(handed)

    def _through_attention(self, node: Any, gradients: Gradients, found: Found) -> Gradients:
        query, key, value, *_ = _own(node, gradients)
        if self._composite.attention == "values":
            return None, None, value
        # Of the weighted values each factor takes half; the softmax keeps what its gradient doesn't hand on.
        assert query is not None
        assert key is not None
        assert value is not None
        found.keep(node, (value * node._saved_value).sum() / 2 - (query * node._saved_query).sum() / 2)
        return query / 4, key / 4, value / 2

    def _through_softmax(self, node: Any, gradients: Gradients, found: Found) -> Gradients:
        (gradient,), (handed, *_) = gradients, _own(node, gradients)
        assert gradient is not None
        assert handed is not None
        # Logits are the logarithms up to a number per row, and of rows the gradient adds up to zero.
        logits = node._saved_result.clamp(min=torch.finfo(handed.dtype).tiny).log()
        found.keep(node, (node._saved_result * gradient).sum() - (logits * handed).sum())
        return (handed,)


def _hand_on(node: Any, gradients: Gradients, pending: dict[Any, dict[int, Tensor]]) -> None:
    """Add the gradients at a node's inputs to what waits for the nodes before it."""
    for (before, output), gradient in zip(node.next_functions, gradients, strict=False):
        if before is None or gradient is None:
            continue
        # As the engine does: what was broadcast is summed, and types are those of the forward pass.
        like = before._input_metadata[output]
        if gradient.shape != like.shape:
            gradient = gradient.sum_to_size(like.shape)
        if gradient.dtype != like.dtype:
            gradient = gradient.to(like.dtype)
        waiting = pending.setdefault(before, {})
        waiting[output] = waiting[output] + gradient if output in waiting else gradient


def _outputs(node: Any, gradients: dict[int, Tensor]) -> Gradients:
    """Gradients at all of a node's outputs."""
    return tuple(gradients.get(output) for output in range(len(node._input_metadata)))


def _own(node: Any, gradients: Gradients) -> Gradients:
    """What the node's own backward gives."""
    handed = node(*gradients)
    return handed if isinstance(handed, tuple) else (handed,)


def _per_channel(tensor: Tensor) -> Tensor:
    """``(B, C, *size)`` summed to ``(C,)``."""
    return tensor.sum([axis for axis in range(tensor.ndim) if axis != 1])


def _times(tensor: Tensor | None, factor: float) -> Tensor | None:
    return None if tensor is None else tensor * factor
