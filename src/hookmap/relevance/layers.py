"""Linear layers and convolutions as the graph keeps them, and how each shares its output's relevance out to its input.

A layer gives y = W x + b. Gradients here are relevance divided by what it belongs to: with g at the output, output j
has the relevance y_j g_j. A rule gives gradients at x and at b such that x times the one and b times the other are
their relevance. None of them divides by x: what a rule does to contributions x_i w_ji is a change of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hookmap.hooks.graph import kind
from hookmap.hooks.registration import hooked

LAYERS: dict[str, tuple[int, int, int | None]] = {"Addmm": (1, 2, 0), "Mm": (0, 1, None), "Convolution": (0, 1, 2)}
"""Kinds of linear layers and of convolutions: which of a node's inputs are x, weight and bias."""


@dataclass(frozen=True)
class Layer:
    """One call of a linear layer or a convolution, with a batch norm that follows it merged into it.

    Attributes:
        x: its input, ``(B, C, *size)`` or ``(N, C)``.
        weight: as its ``apply`` takes it.
        bias: in a shape that broadcasts over the output; None if it has none, or one that the graph doesn't keep: that
            one takes its share by the 0-rule, and is no part of y.
        output: y, if that is known.
        apply: from an input and a weight to the output without bias.
        transposed: from a gradient at the output and a weight to that at the input.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    output: Tensor | None
    apply: Callable[[Tensor, Tensor], Tensor]
    transposed: Callable[[Tensor, Tensor], Tensor]

    def y(self) -> Tensor:
        """The output."""
        if self.output is not None:
            return self.output
        y = self.apply(self.x, self.weight)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class BatchNorm:
    """One in evaluation mode: scale and shift ``(C,)``, and what it gave."""

    scale: Tensor
    shift: Tensor
    y: Tensor


class Outputs:
    """What linear layers and convolutions gave, so that it needn't be computed again; made by :func:`outputs`."""

    def __init__(self) -> None:
        self._seen: dict[Any, tuple[Tensor, int]] = {}

    def note(self, _: nn.Module, __: Any, output: Tensor) -> None:
        """A layer gave this."""
        node = output.grad_fn
        while node is not None and kind(node) in ("View", "UnsafeView", "Clone"):
            node = node.next_functions[0][0]
        if node is not None and kind(node) in LAYERS:
            self._seen[node] = output.detach(), output._version

    def of(self, node: Any) -> Tensor | None:
        """What a node gave; None if that isn't known, or was overwritten by a layer that works in place."""
        output, version = self._seen.get(node, (None, 0))
        return None if output is None or output._version != version else output.reshape(node._input_metadata[0].shape)


@contextmanager
def outputs(model: nn.Module, rules: Iterable[LayerRule | Flat | None]) -> Iterator[Outputs]:
    """Note what layers give while the block runs, if a rule asks for that."""
    found = Outputs()
    wanted = any(rule is not None and not isinstance(rule, Zero) for rule in rules)
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    with hooked([module for module in model.modules() if isinstance(module, layers)] if wanted else [], found.note):
        yield found


def layer_of(node: Any, norm: BatchNorm | None, output: Tensor | None) -> Layer:
    """The layer that a node ran, with the batch norm that follows it.

    Args:
        node: of the graph.
        norm: the batch norm.
        output: what the node gave, if that is known.
    """
    bias_slot = LAYERS[kind(node)][2]
    bias = None if bias_slot is None else constant(node.next_functions[bias_slot][0])
    if kind(node) == "Convolution":
        x, weight = node._saved_input, node._saved_weight
        scaled, spread = (-1, *[1] * (weight.ndim - 1)), (-1, *[1] * (x.ndim - 2))
        how: tuple[Any, ...] = (node._saved_stride, node._saved_padding, node._saved_dilation)
        how += (node._saved_transposed, node._saved_output_padding, node._saved_groups)

        def apply(x: Tensor, weight: Tensor) -> Tensor:
            y: Tensor = torch.ops.aten.convolution(x, weight, None, *how)
            return y

        def transposed(gradient: Tensor, weight: Tensor) -> Tensor:
            mask = [True, False, False]
            at_x: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *how, mask)[0]
            return at_x
    else:
        x, weight = (node._saved_mat1 if kind(node) == "Addmm" else node._saved_self), node._saved_mat2
        scaled = spread = (-1,)

        def apply(x: Tensor, weight: Tensor) -> Tensor:
            return x @ weight

        def transposed(gradient: Tensor, weight: Tensor) -> Tensor:
            return gradient @ weight.T

    x, weight = full_precision(x), full_precision(weight)
    if norm is not None:
        weight = weight * norm.scale.reshape(scaled)
        bias = norm.shift if bias is None else norm.shift + norm.scale * bias
    bias = None if bias is None else bias.reshape(spread)
    return Layer(x, weight, bias, output if norm is None else norm.y, apply, transposed)


def full_precision(tensor: Tensor) -> Tensor:
    """In float32 at least: sums over many contributions need it."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def can_merge(node: Any, rule: LayerRule | Flat) -> bool:
    """Whether a batch norm behind a layer changes how it shares out, and can be merged into it."""
    of = kind(node)
    if isinstance(rule, Zero) or (of == "Convolution" and node._saved_transposed):
        return False
    bias_slot = LAYERS[of][2]
    bias = None if bias_slot is None else node.next_functions[bias_slot][0]
    return bias is None or constant(bias) is not None


def constant(node: Any) -> Tensor | None:
    """The parameter at a node's edge, or None if something was made of it on the way."""
    if node is None or kind(node) not in ("AccumulateGrad", "ToCopy"):
        return None
    return node.variable.detach() if kind(node) == "AccumulateGrad" else constant(node.next_functions[0][0])


class Shares(NamedTuple):
    """What a rule makes of the gradient at a layer's output.

    Attributes:
        x: the gradient at the input.
        bias: that at the bias, in the output's shape.
        kept: the relevance that is handed on to neither, summed; None for none.
    """

    x: Tensor
    bias: Tensor
    kept: Tensor | None = None


class LayerRule(Protocol):
    """How a layer shares its output's relevance out."""

    def __call__(self, layer: Layer, gradient: Tensor) -> Shares:
        """From the gradient at the output."""
        ...


@dataclass(frozen=True)
class Zero:
    """LRP-0: every contribution as it is, which is the layer's own gradient.

    Bach et al. 2015, doi:10.1371/journal.pone.0130140.
    """

    def __call__(self, layer: Layer, gradient: Tensor) -> Shares:
        """See :class:`LayerRule`."""
        return Shares(layer.transposed(gradient, layer.weight), gradient)


@dataclass(frozen=True)
class Epsilon:
    r"""LRP-epsilon: :math:`R_i = \sum_j x_i w_{ji} R_j / (y_j + \epsilon\, \mathrm{sign}\, y_j)`; Bach et al. 2015.

    Attributes:
        epsilon: how much of an output keeps its relevance.
    """

    epsilon: float = 1e-6

    def __call__(self, layer: Layer, gradient: Tensor) -> Shares:
        """See :class:`LayerRule`."""
        y = layer.y()
        share = gradient * y / _stable(y, self.epsilon)
        at_bias = gradient if layer.bias is None else share
        return Shares(layer.transposed(share, layer.weight), at_bias, _dot(gradient - share, y))


@dataclass(frozen=True)
class Gamma:
    r"""LRP-gamma: contributions of the output's own sign count :math:`1 + \gamma` times.

    .. math:: R_i = \sum_j \frac{x_i w_{ji} (1 + \gamma [x_i w_{ji} y_j > 0])}{\sum_{i'} (\ldots)} R_j

    Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, for inputs of both signs as in zennit. With P and N the sums
    of positive and of negative contributions, P - N = |W| |x| + |b|, so that one product with |W| each way does for all
    four cases of signs. No weighted sum is smaller than its output, so the quotient is safe.

    Attributes:
        gamma: how much the contributions of the output's own sign are favoured.
    """

    gamma: float = 0.25

    def __call__(self, layer: Layer, gradient: Tensor) -> Shares:
        """See :class:`LayerRule`."""
        x, y, magnitude, gamma = layer.x, layer.y(), layer.weight.abs(), self.gamma
        size = layer.apply(x.abs(), magnitude)
        if layer.bias is not None:
            size += layer.bias.abs()
        # y + gamma P where y is positive, y + gamma N where it is negative, and 2 P = y + (P - N).
        total = y * (1 + gamma / 2) + size.mul_(gamma / 2).mul_(y.sign())
        share = (gradient * y).div_(_nonzero(total))
        at_x = layer.transposed(share, layer.weight).mul_(1 + gamma / 2)
        at_x.addcmul_(layer.transposed(share * y.sign(), magnitude), x.sign(), value=gamma / 2)
        at_bias = gradient if layer.bias is None else torch.where(layer.bias * y > 0, share * (1 + gamma), share)
        return Shares(at_x, at_bias)


@dataclass(frozen=True)
class ZPlus:
    r"""LRP-z+: positive contributions only, :math:`R_i = \sum_j (x_i w_{ji})^+ / \sum_{i'} (x_{i'} w_{ji'})^+ R_j`.

    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008, which is LRP-alpha1-beta0 of Bach et al. 2015. An output
    without positive contributions keeps its relevance; behind a ReLU it has none.
    """

    def __call__(self, layer: Layer, gradient: Tensor) -> Shares:
        """See :class:`LayerRule`."""
        x, positive = layer.x, layer.weight.clamp(min=0)
        total = layer.apply(x.clamp(min=0), positive)
        signed = bool((x < 0).any())
        if signed:
            negative = layer.weight.clamp(max=0)
            total += layer.apply(x.clamp(max=0), negative)
        if layer.bias is not None:
            total += layer.bias.clamp(min=0)
        relevance = gradient * layer.y()
        share = relevance / _nonzero(total)
        at_x = layer.transposed(share, positive)
        if signed:
            at_x = torch.where(x < 0, layer.transposed(share, negative), at_x)
        at_bias = gradient if layer.bias is None else share * (layer.bias > 0)
        return Shares(at_x, at_bias, relevance.sum() - _dot(share, total))


@dataclass(frozen=True)
class Flat:
    r"""LRP-flat: whatever an output sees gets the same, :math:`R_i = \sum_j R_j / \sum_{i'} 1`; for the first layer.

    Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4. It knows nothing of x, so it has no gradient to give and
    gives relevance itself.
    """

    def relevance(self, layer: Layer, gradient: Tensor) -> Tensor:
        """From the gradient at a layer's output to the relevance of its input."""
        ones = torch.ones_like(layer.weight)
        seen = layer.apply(torch.ones_like(layer.x[:1]), ones)
        return layer.transposed(gradient * layer.y() / seen, ones)


def _stable(total: Tensor, epsilon: float) -> Tensor:
    """Away from zero, to its own side; zero counts as positive."""
    return torch.where(total < 0, total - epsilon, total + epsilon)


def _nonzero(total: Tensor) -> Tensor:
    """With ones for zeros: what is shared out there is zero too."""
    return torch.where(total == 0, 1, total)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return torch.dot(one.flatten(), other.flatten())
