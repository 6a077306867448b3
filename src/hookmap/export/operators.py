"""Gradients as operators that every runtime has: what PyTorch's backward operators are, in other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten


def _convolution(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """With respect to its input a convolution's gradient is a transposed convolution, and the other way round."""
    if wanted[1] or wanted[2]:
        raise NotImplementedError("only gradients with respect to activations are exported")
    rest = [0] * len(stride)
    if not transposed:
        rest = [
            (x.shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel - 1) - 1) % stride[axis]
            for axis, kernel in enumerate(weight.shape[2:])
        ]
    back = aten.convolution.default(gradient, weight, None, stride, padding, dilation, not transposed, rest, groups)
    return back, None, None


def _max_pool(
    gradient: Tensor, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: Tensor
) -> Tensor:
    """Each gradient goes to the place that was largest."""
    flat: Tensor = torch.zeros_like(x).flatten(2).scatter_add(2, indices.flatten(2), gradient.flatten(2))
    return flat.reshape(x.shape)


def _adaptive_average(gradient: Tensor, x: Tensor) -> Tensor:
    pooled = gradient.shape[2:]
    return _along_axes(
        gradient, x.shape[2:], lambda line, axis: functional.adaptive_avg_pool1d(line, int(pooled[axis]))
    )


def _average(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    counts_padding: bool,
    divisor: int | None,
) -> Tensor:
    def pooled(line: Tensor, axis: int) -> Tensor:
        of = [sides[axis % len(sides)] if sides else kernel[axis % len(kernel)] for sides in (kernel, stride, padding)]
        return functional.avg_pool1d(line, of[0], of[1], of[2], ceil, counts_padding or divisor is not None)

    back = _along_axes(gradient, x.shape[2:], pooled)
    return back if divisor is None else back * (kernel[0] * kernel[-1] / divisor)


def _nearest(gradient: Tensor, size: Sequence[int], before: Sequence[int], *scales: float | None) -> Tensor:
    return _along_axes(
        gradient, before[2:], lambda line, axis: aten.upsample_nearest1d.default(line, [size[axis]], scales[axis])
    )


def _linear(
    gradient: Tensor, size: Sequence[int], before: Sequence[int], corners: bool, *scales: float | None
) -> Tensor:
    return _along_axes(
        gradient,
        before[2:],
        lambda line, axis: aten.upsample_linear1d.default(line, [size[axis]], corners, scales[axis]),
    )


def _cubic(
    gradient: Tensor, size: Sequence[int], before: Sequence[int], corners: bool, *scales: float | None
) -> Tensor:
    def along(line: Tensor, axis: int) -> Tensor:
        wide = line[..., None]
        resized: Tensor = aten.upsample_bicubic2d.default(wide, [size[axis], 1], corners, scales[axis], None)[..., 0]
        return resized

    return _along_axes(gradient, before[2:], along)


def _along_axes(gradient: Tensor, before: Sequence[int], forward: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The gradient of what works along each axis by itself and linearly, as pooling and resizing do: two products.

    Args:
        gradient: ``(B, C, *after)``.
        before: the sizes of the axes.
        forward: what is done along an axis of that number, ``(1, C, before)`` to ``(1, C, after)``.
    """
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    for axis, side in enumerate(before):
        with disable_proxy_modes_tracing(), unset_fake_temporarily():
            each = torch.eye(int(side), dtype=gradient.dtype, device=gradient.device)
            matrix = forward(each[None], axis)[0].mT.contiguous()  # (after, before): what comes of each place
        gradient = (gradient.movedim(2 + axis, -1) @ matrix).movedim(-1, 2 + axis)
    return gradient


def forms() -> dict[Any, Callable[..., Any]]:
    """Of each backward operator what it is in other words: PyTorch's own, and for what it has none those of here."""
    from torch._decomp import decomposition_table

    known = {operator: form for operator, form in decomposition_table.items() if "backward" in str(operator)}
    return known | FORMS


FORMS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average,
    aten.avg_pool2d_backward.default: _average,
    aten.upsample_nearest1d_backward.default: _nearest,
    aten.upsample_nearest2d_backward.default: _nearest,
    aten.upsample_linear1d_backward.default: _linear,
    aten.upsample_bilinear2d_backward.default: _linear,
    aten.upsample_bicubic2d_backward.default: _cubic,
}
"""By PyTorch's own names."""
