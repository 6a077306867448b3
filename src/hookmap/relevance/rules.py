"""What each kind of autograd node does to relevance: kinds that are linear, kinds that hold, kinds with a rule.

Relevance here is gradient x input with a modified backward (Arras et al. 2025, arXiv:2502.15886): a rule takes the
gradients at a node's outputs and gives those at its inputs, such that inputs times gradients add up to outputs times
gradients. What is linear, or homogeneous as ReLU and max pooling are, does so by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _kinds(names: str) -> frozenset[str]:
    return frozenset(names.split())


LINEAR = _kinds("""
    Add Sub Rsub Neg Sum Mean Cumsum Nansum Lerp
    View UnsafeView ReshapeAlias Transpose Permute T Expand Squeeze Unsqueeze Clone Alias ToCopy CopySlices AsStrided
    AsStridedScatter Lift ViewAsReal ViewAsComplex Unbind Select Slice Split SplitWithSizes UnsafeSplit
    UnsafeSplitWithSizes Chunk Cat Stack Diagonal Roll Flip Rot90 Index IndexSelect IndexPut IndexAdd Gather Scatter
    ScatterAdd Take SliceScatter SelectScatter Repeat Tril Triu MaskedFill MaskedScatter Where Unfold Im2Col Col2Im
    ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D
    PixelShuffle PixelUnshuffle ChannelShuffle UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D
    UpsampleNearestExact1D UpsampleNearestExact2D UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D
    UpsampleBicubic2D UpsampleTrilinear3D UpsampleBilinear2DAa UpsampleBicubic2DAa AvgPool2D AvgPool3D
    AdaptiveAvgPool2D AdaptiveAvgPool3D FftR2C FftC2R FftC2C Embedding GridSampler2D GridSampler3D
    Relu LeakyRelu RreluWithNoise Threshold Abs
    Max Min Amax Amin Maximum Minimum Fmax Fmin Aminmax MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D
    AdaptiveMaxPool3D Topk Sort Median Kthvalue
""")
"""Linear kinds, and those that are positively homogeneous: what the gradient hands on is all there is."""

HELD = _kinds("""
    Softmax LogSoftmax SafeSoftmax Sigmoid Hardsigmoid LogSigmoid Softplus Exp Exp2 Expm1 Log Log1P Log2 Logsumexp
    Rsqrt Sqrt Reciprocal Var Std LinalgVectorNorm Norm Cdist Erf Sin Cos
""")
"""Gates, scales and attention weights: factors that are held constant, so that no relevance passes."""

Backward = Callable[[Any, tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]
"""From a node and the gradients at its outputs to those at its inputs; None where nothing passes."""


def _scaled(ratio: Callable[[Any], Tensor]) -> Backward:
    """The rule of an activation f: the gradient times f(x) / x, which gives x all that f(x) had."""
    return lambda node, gradients: (gradients[0] * ratio(node) if gradients[0] is not None else None,)


def _gelu(node: Any) -> Tensor:
    x: Tensor = node._saved_self
    if node._saved_approximate == "tanh":
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _quotient(x: Tensor, y: Tensor, at_zero: float) -> Tensor:
    """y / x, and its limit where x is zero."""
    return torch.where(x == 0, at_zero, y / torch.where(x == 0, 1, x))


def _clamped(low: str, high: str) -> Backward:
    def ratio(node: Any) -> Tensor:
        x: Tensor = node._saved_self
        bounds = getattr(node, low, None), getattr(node, high, None)
        return _quotient(x, x.clamp(*bounds), float(torch.zeros(1).add(1e-9).clamp(*bounds) == 1e-9))

    return _scaled(ratio)


def _elu(node: Any) -> Tensor:
    alpha, scale, inner = float(node._saved_alpha), float(node._saved_scale), float(node._saved_input_scale)
    if hasattr(node, "_saved_self"):
        x: Tensor = node._saved_self
    else:  # in place: x from what it became
        y = node._saved_result
        x = torch.where(y > 0, y / scale, torch.log1p((y / (alpha * scale)).clamp(min=-1 + 1e-12)) / inner)
    return _quotient(x, torch.where(x > 0, scale * x, alpha * scale * torch.expm1(inner * x)), scale)


def _celu(node: Any) -> Tensor:
    alpha = float(node._saved_alpha)
    x: Tensor = node._saved_self if hasattr(node, "_saved_self") else _inverse_celu(node._saved_result, alpha)
    return _quotient(x, torch.where(x > 0, x, alpha * torch.expm1(x / alpha)), 1.0)


def _inverse_celu(y: Tensor, alpha: float) -> Tensor:
    return torch.where(y > 0, y, alpha * torch.log1p((y / alpha).clamp(min=-1 + 1e-12)))


def _tanh(node: Any) -> Tensor:
    y: Tensor = node._saved_result
    most = 1 - torch.finfo(y.dtype).eps  # where it is saturated, x is lost
    return _quotient(torch.atanh(y.clamp(-most, most)), y, 1.0)


def _mish(node: Any) -> Tensor:
    x: Tensor = node._saved_self
    return torch.tanh(torch.nn.functional.softplus(x))


def _power(node: Any) -> Tensor:
    power: Tensor = node._saved_self ** (node._saved_exponent - 1)
    return power


def _layer_norm(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The deviation is held constant, so that what is left is linear; its bias takes its own share."""
    (gradient, *_) = gradients
    assert gradient is not None
    axes = tuple(range(-len(node._saved_normalized_shape), 0))
    inner = gradient * node._saved_result2
    if node._saved_weight is not None:
        inner = inner * node._saved_weight
    return inner - inner.mean(axes, keepdim=True), None, gradient


def _group_norm(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    (gradient, *_) = gradients
    assert gradient is not None
    groups, batch = node._saved_group, len(gradient)
    inner = gradient
    if node._saved_weight is not None:
        inner = inner * node._saved_weight.reshape(1, -1, *[1] * (gradient.ndim - 2))
    inner = inner.reshape(batch, groups, -1) * node._saved_result2.reshape(batch, groups, 1)
    at_x = (inner - inner.mean(2, keepdim=True)).reshape(gradient.shape)
    return at_x, None, gradient.sum([axis for axis in range(gradient.ndim) if axis != 1])


def _rms_norm(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    (gradient, *_) = gradients
    assert gradient is not None
    inner = gradient * node._saved_result1
    return inner if node._saved_weight is None else inner * node._saved_weight, None


def _mean_only(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Of a spread and a mean only the mean hands relevance on."""
    return (None if gradients[1] is None else node(None, gradients[1]),)


def _glu(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The half behind the sigmoid is a gate."""
    both = node(*gradients)
    value, gate = both.chunk(2, node._saved_dim)
    return (torch.cat([value, torch.zeros_like(gate)], node._saved_dim),)


def _value_only(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The slope is a weight."""
    return node(*gradients)[0], None


def _regions(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Torchvision's regions of interest: means or maxima of features, at boxes that are held constant."""
    return (node.apply(*gradients)[0],)


RULES: dict[str, Backward] = {
    "Gelu": _scaled(_gelu),
    "Silu": _scaled(lambda node: torch.sigmoid(node._saved_self)),
    "Hardswish": _scaled(lambda node: (node._saved_self + 3).clamp(0, 6) / 6),
    "Hardtanh": _clamped("_saved_min_val", "_saved_max_val"),
    "Clamp": _clamped("_saved_min", "_saved_max"),
    "ClampMin": _clamped("_saved_min", ""),
    "ClampMax": _clamped("", "_saved_max"),
    "Elu": _scaled(_elu),
    "Celu": _scaled(_celu),
    "Tanh": _scaled(_tanh),
    "Mish": _scaled(_mish),
    "Pow": _scaled(_power),
    "NativeLayerNorm": _layer_norm,
    "NativeGroupNorm": _group_norm,
    "FusedRmsNorm": _rms_norm,
    "VarMean": _mean_only,
    "StdMean": _mean_only,
    "Glu": _glu,
    "PreluKernel": _value_only,
    **{f"GeneratedBackwardFor_torchvision_{of}_default": _regions for of in ("roi_align", "ps_roi_align", "roi_pool")},
}
"""Kinds that bend, or whose own backward can't be called, each with the rule that hands all of its relevance on."""
