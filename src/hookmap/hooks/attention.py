"""Attention as the graph kept it: who looked where, in fused kernels too, with the gradient of a score.

A fused attention keeps q, k and v for its backward pass, so its weights are softmax(q k^T scale + mask), and the
gradient with respect to them is that of its output times v^T. An attention in plain operators keeps its softmax. No
function is replaced and the model isn't told to run slower; windows are laid back by the model's own nodes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from hookmap._text import counted
from hookmap.errors import LayerError, ModelError
from hookmap.hooks.graph import NOT_REENTRANT, Origins, kind, users_of

MOST_BYTES = 4 * 2**30
"""Whole N x N weights above this are refused: rows of them aren't."""


class Attention(ABC):
    """One attention of a forward pass; weights are computed when they are asked for, and not kept.

    Attributes:
        module: the name of the layer in whose call it ran.
        groups: samples times windows, G; samples of a batch stand together, windows in the order of the model.
        heads: H.
        queries: N, how many tokens look.
        keys: M, how many are looked at.
    """

    def __init__(self, node: Node, module: str, shape: Sequence[int], field: Sequence[int], rank: int) -> None:
        self.module = module
        self.groups, self.heads, self.queries, self.keys = shape
        self.batch, self._field = field[0], tuple(field[2:])
        self._rank = rank
        self._node: Node | None = node
        self._received: Sequence[Tensor | None] = ()
        self._places: Tensor | None = None
        self._laid = False

    def __repr__(self) -> str:
        shape = (self.groups, self.heads, self.queries, self.keys)
        return f"{type(self).__name__}({self.module!r}, weights={shape})"

    @property
    @abstractmethod
    def edges(self) -> list[GradientEdge]:
        """Where the gradients arrive that :meth:`receive` takes."""

    def receive(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of a score, or of T scores, stacked, at :attr:`edges`; None if it doesn't depend on it."""
        self._received = gradients

    def weights(self, queries: slice = slice(None)) -> Tensor:
        """How much each query looks at each key, ``(G, H, N, M)``; rows sum to one.

        Args:
            queries: which of them.

        Raises:
            ModelError: if that is larger than 4 GiB.
        """
        rows = len(range(*queries.indices(self.queries)))
        size = self.groups * self.heads * rows * self.keys * 4
        if size > MOST_BYTES:
            raise ModelError(
                f"the attention of {self.module!r} is {(self.groups, self.heads, rows, self.keys)}, "
                f"{size / 2**30:.0f} GiB; ask for few rows at a time: weights(slice(0, 1)) is the first token's"
            )
        with torch.no_grad():
            return self._weights(queries)

    def gradient(self, queries: slice = slice(None)) -> Tensor:
        """The gradient of the score with respect to :meth:`weights`: ``(G, H, N, M)``, or ``(T, G, H, N, M)``.

        Raises:
            LayerError: if no score was differentiated, or none depends on this attention.
        """
        with torch.no_grad():
            return self._gradient(self._arrived(0), queries)

    def output_gradient(self) -> Tensor:
        """The gradient with respect to what each query got, weights times values: ``(..., G, H, N, D)``.

        Raises:
            LayerError: as :meth:`gradient`.
        """
        arrived = self._arrived(-1)
        lead = arrived.shape[: len(self._arrived(0).shape) - self._rank]
        return arrived.reshape(*lead, self.groups, self.heads, self.queries, -1)

    @property
    def reached(self) -> bool:
        """Whether a gradient arrived."""
        return any(gradient is not None for gradient in self._received)

    def _arrived(self, place: int) -> Tensor:
        gradient = self._received[place] if self._received else None
        if gradient is None:
            raise LayerError(
                f"no gradient reached the attention of {self.module!r}; call seen.differentiate(score) inside the "
                "capture block, with a score that depends on it"
            )
        return gradient

    @property
    @abstractmethod
    def value(self) -> Tensor:
        """What is read at the keys, ``(G, H, M, D)``."""

    @property
    def windowed(self) -> bool:
        """Whether tokens look only at those in their window (or their frame, their group)."""
        return self.groups != self.batch

    def places(self) -> Tensor | None:
        """Where keys lie in what the layer was given: numbers ``(B, tokens)`` or ``(B, *grid)`` into (G, M), flat.

        -1 where no key comes from. None if the way back isn't made of shifts and shapes.
        """
        if not self._laid and self._node is not None:
            self._laid = True
            with torch.no_grad():
                self._places = self._laid_back()
        return self._places

    def release(self) -> None:
        """Let go of the graph; what was read of it stays."""
        if self._node is None:
            return
        _ = self.value
        if self.windowed or self.queries != self.keys:
            self.places()
        self._node = None
        self._received = [None if gradient is None else gradient.detach() for gradient in self._received]

    @abstractmethod
    def _weights(self, queries: slice) -> Tensor: ...

    @abstractmethod
    def _gradient(self, received: Tensor, queries: slice) -> Tensor: ...

    @abstractmethod
    def _way_back(self) -> tuple[Node | None, int, torch.Size]:
        """From the values: the node that made them, which of its outputs they are, and their shape."""

    def _as_values(self, tensor: Tensor) -> Tensor:
        """``(G, H, M, D)`` in the order of axes in which the model holds it."""
        return tensor

    def _laid_back(self) -> Tensor | None:
        node, number, shape = self._way_back()
        # Square roots: where different keys meet, their mean is none of them.
        numbers = torch.arange(2, self.groups * self.keys + 2, dtype=torch.float64).sqrt()
        numbers = numbers.reshape(self.groups, 1, self.keys, 1)
        width = self.value.shape[-1]
        whole = (self.groups, math.prod(shape) // (numbers.numel() * width), self.keys, width)
        # Numbers and ones go the same way: where several of one key meet (heads, channels), their ratio stays.
        pair = [self._as_values(part.expand(whole)).reshape(shape) for part in (numbers, torch.ones_like(numbers))]
        first = None
        for laid in islice(_laid(node, number, pair, self.batch), 4):
            if laid.ndim - 1 == len(self._field) and _alike(laid.shape[1:], self._field):
                return laid
            first = laid if first is None else first
        return first


class FusedAttention(Attention):
    """From ``scaled_dot_product_attention``, whichever kernel ran it."""

    def __init__(self, node: Any, module: str, field: Sequence[int]) -> None:
        with torch.no_grad():
            self._query: Tensor = node._saved_query.detach()
            self._key: Tensor = node._saved_key.detach()
            self._value: Tensor = node._saved_value.detach()
            mask = getattr(node, "_saved_attn_mask", None)
            mask = getattr(node, "_saved_attn_bias", None) if mask is None else mask
            self._mask: Tensor | None = None if mask is None else mask.detach()
        scale = getattr(node, "_saved_scale", None)
        self._scale: float = self._query.shape[-1] ** -0.5 if scale is None else scale
        self._causal = bool(getattr(node, "_saved_is_causal", False))
        groups, heads, queries, _ = self._query.shape
        super().__init__(node, module, (groups, heads, queries, self._key.shape[2]), field, rank=4)

    @property
    def edges(self) -> list[GradientEdge]:
        """At the output."""
        assert self._node is not None
        return [GradientEdge(self._node, 0)]

    @property
    def value(self) -> Tensor:
        """``(G, H, M, D)``."""
        return self._of_each_head(self._value)

    def _of_each_head(self, tensor: Tensor) -> Tensor:
        """Where several query heads share one of keys and values, it is repeated."""
        times = self.heads // tensor.shape[1]
        return tensor if times == 1 else tensor.repeat_interleave(times, 1)

    def _weights(self, queries: slice) -> Tensor:
        scores = (self._query[:, :, queries] @ self._of_each_head(self._key).mT) * self._scale
        if self._mask is not None:
            mask = self._mask.expand(*self._mask.shape[:-2], self.queries, self.keys)[..., queries, :]
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        if self._causal:
            future = torch.ones(self.queries, self.keys, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future[queries], -math.inf)
        return scores.softmax(-1)

    def _gradient(self, received: Tensor, queries: slice) -> Tensor:
        return received[..., queries, :] @ self.value.mT

    def _way_back(self) -> tuple[Node | None, int, torch.Size]:
        assert self._node is not None
        return *self._node.next_functions[2], self._value.shape


class PlainAttention(Attention):
    """From a softmax A and a product with values: A v, or v A^T where values hold their channels first."""

    def __init__(self, node: Any, product: Any, slot: int, module: str, field: Sequence[int]) -> None:
        with torch.no_grad():
            self._result: Tensor = node._saved_result.detach()
            self._product_value: Tensor | None = None
        self._product = product
        self._channels_first = slot == 1
        shape, batch = self._result.shape, field[0]
        if len(shape) == 3:  # heads and samples are one axis, heads the faster
            heads = shape[0] // batch if shape[0] % batch == 0 else 1
            shape = torch.Size((shape[0] // heads, heads, *shape[1:]))
        else:
            shape = torch.Size((math.prod(shape[:-3]), *shape[-3:]))
        super().__init__(node, module, shape, field, rank=self._result.ndim)
        self._swapped = False
        if self._result.ndim == 5 and self.places() is None:  # (B, heads, windows, N, M)
            before, self._swapped, self._laid = (self.groups, self.heads), True, False
            self.heads, self.groups = self._result.shape[1], batch * self._result.shape[2]
            if self.places() is None:
                (self.groups, self.heads), self._swapped = before, False

    @property
    def edges(self) -> list[GradientEdge]:
        """At the softmax and at the product with the values."""
        assert self._node is not None
        return [GradientEdge(self._node, 0), GradientEdge(self._product, 0)]

    @property
    def value(self) -> Tensor:
        """``(G, H, M, D)``."""
        if self._product_value is None:
            with torch.no_grad():
                saved = self._product._saved_self.mT if self._channels_first else self._product._saved_mat2
                self._product_value = saved.detach()
        value = self._product_value.reshape(*self._result.shape[:-2], self.keys, -1)
        return self._shaped(value)

    def _shaped(self, tensor: Tensor) -> Tensor:
        lead = tensor.shape[: tensor.ndim - self._result.ndim]
        if self._swapped:
            tensor = tensor.transpose(-3, -4)
        return tensor.reshape(*lead, self.groups, self.heads, *tensor.shape[-2:])

    def _weights(self, queries: slice) -> Tensor:
        return self._shaped(self._result)[:, :, queries]

    def _gradient(self, received: Tensor, queries: slice) -> Tensor:
        return self._shaped(received)[..., queries, :]

    def output_gradient(self) -> Tensor:
        """As every attention."""
        arrived = super().output_gradient()
        return arrived.reshape(*arrived.shape[:-2], -1, self.queries).mT if self._channels_first else arrived

    def _as_values(self, tensor: Tensor) -> Tensor:
        if self._swapped:
            tensor = tensor.reshape(self.batch, -1, *tensor.shape[1:]).transpose(1, 2)
        return tensor.mT if self._channels_first else tensor

    def release(self) -> None:
        """As every attention; and of the product."""
        super().release()
        self._product = None

    def _way_back(self) -> tuple[Node | None, int, torch.Size]:
        if self._channels_first:
            return *self._product.next_functions[0], self._product._saved_self.shape
        return *self._product.next_functions[1], self._product._saved_mat2.shape


def attentions_in(nodes: Sequence[Node], made: Origins, field: Sequence[int]) -> list[Attention]:
    """All attentions of a graph, in the order in which they ran.

    Args:
        nodes: of the graph, in their order.
        made: which module made which node.
        field: shape of the model's input, ``(B, C, *size)``.

    Raises:
        ModelError: if a part ran under reentrant checkpointing, which hides its nodes.
    """
    users = users_of(nodes)
    found: list[Attention] = []
    for node in nodes:
        of = kind(node)
        if of.startswith("CheckpointFunction"):
            raise ModelError(
                "a part of the model runs under reentrant gradient checkpointing, which hides its attention; "
                f"{NOT_REENTRANT}"
            )
        if of.startswith("ScaledDotProduct"):
            found.append(FusedAttention(node, made.of(node), field))
        elif of in ("Softmax", "SafeSoftmax"):
            weighs = _product_with_values(node, users)
            if weighs is not None:
                found.append(PlainAttention(node, *weighs, made.of(node), field))
    return found


_SAME_VALUES = {"View", "UnsafeView", "ReshapeAlias", "Expand", "Clone", "ToCopy", "Squeeze", "Unsqueeze", "Alias"}
_SHAPES = _SAME_VALUES | {
    *("Transpose", "Permute", "T", "Select", "Slice", "Unbind", "Split", "SplitWithSizes", "UnsafeSplit", "Chunk"),
    *("Roll", "ConstantPadNd", "Contiguous", "Movedim"),
}
_SAME_PLACES = {"NativeLayerNorm", "NativeBatchNorm", "CudnnBatchNorm"}


def _product_with_values(softmax: Any, users: dict[Node, list[tuple[Node, int]]]) -> tuple[Node, int] | None:
    """The product in which a softmax's rows weigh values, and which factor it is there; None if there's none."""
    rank = softmax._saved_result.ndim
    if rank < 3 or softmax._saved_dim not in (-1, rank - 1, 2**64 - 1):
        return None
    seen, todo = {softmax}, [(softmax, False)]
    while todo:
        before, turned = todo.pop()
        for user, slot in users.get(before, ()):
            if kind(user) == "Bmm":  # A v or v A^T: over keys
                return (user, slot) if turned == (slot == 1) else None
            # A mask, a dropout or a mixture of heads may come between.
            passes = kind(user) in _SAME_VALUES | {"Mul", "Permute", "Transpose", "Addmm", "Mm"}
            if (passes or _adds_a_bias(user, slot)) and user not in seen:
                seen.add(user)
                todo.append((user, turned ^ _turns(user)))
    return None


def _adds_a_bias(node: Any, slot: int) -> bool:
    """Whether a parameter, or a constant, is added to what comes in there."""
    if kind(node) != "Add":
        return False
    other = node.next_functions[1 - slot][0]
    return other is None or kind(other) == "AccumulateGrad"


def _turns(node: Any) -> bool:
    """Whether rows and columns change places."""
    if kind(node) != "Transpose":
        return False
    rank = len(node._input_metadata[0].shape)
    axes = {axis - 2**64 if axis > 2**63 else axis - rank for axis in (node._saved_dim0, node._saved_dim1)}
    return axes == {-1, -2}


def _laid(node: Node | None, number: int, codes: list[Tensor], batch: int) -> Iterator[Tensor]:
    """Numbers of keys ``(B, ...)``, sent back through what only lays them out anew, wherever that is clear.

    The backward function of such a node is the way back itself. A linear layer mixes channels, not places.
    """
    while node is not None:
        of = kind(node)
        if of in _SAME_PLACES:
            yield from _read(codes, batch)
        try:
            step = _one_step(node, of, number, codes)
        except RuntimeError:  # a node that wants all its outputs' gradients
            break
        if step is None:
            break
        codes = step
        node, number = node.next_functions[1 if of == "Addmm" else 0]
    yield from _read(codes, batch)
    if node is not None and kind(node) == "Add":  # both sides of a residual connection lie alike
        for before, place in node.next_functions:
            yield from _laid(before, place, codes, batch)


def _one_step(node: Any, of: str, number: int, codes: list[Tensor]) -> list[Tensor] | None:
    """Codes of what a node gave as codes of what it took; None if it does more than laying out or mixing channels."""
    if of in _SAME_PLACES:
        return codes
    if of in _SHAPES:
        return [_backward(node, number, code) for code in codes]
    if of in ("Addmm", "Mm"):
        if node._saved_mat2 is None:  # what it takes isn't of the picture
            return None
        width = int(node._saved_mat2.shape[0])
        return [code.sum(-1, keepdim=True).expand(-1, width) for code in codes]
    if of == "Convolution" and math.prod(node._saved_weight.shape[2:]) == 1:
        width = int(node._saved_weight.shape[1] * node._saved_groups)
        return [code.sum(1, keepdim=True).expand(-1, width, *code.shape[2:]) for code in codes]
    return None


def _read(codes: list[Tensor], batch: int) -> Iterator[Tensor]:
    total, ones = codes
    found = torch.where(ones > 0, (total / ones.clamp(min=1e-9)).square() - 2, -1.0)
    near = found.round()
    if bool(((found - near).abs() < 1e-6 * (1 + near)).all()):
        laid = _without_channels(near.long(), batch)
        if laid is not None:
            yield laid


def _alike(grid: Sequence[int], field: Sequence[int]) -> bool:
    """Whether a grid has the field's proportions, up to rounding."""
    strides = [whole / cells for whole, cells in zip(field[-2:], grid[-2:], strict=True)]
    return max(strides) < 1.2 * min(strides)


def _backward(node: Any, number: int, code: Tensor) -> Tensor:
    outputs = len(node._input_metadata)
    result = node(*[code if n == number else None for n in range(outputs)])
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def _without_channels(numbers: Tensor, batch: int) -> Tensor | None:
    """Numbers of keys ``(B, ...)``: along the axis of channels they are all the same."""
    for axis in (-1, 1):
        first = numbers.narrow(axis, 0, 1)
        if numbers.ndim > 2 and bool((numbers == first).all()):
            laid = first.squeeze(axis)
            if laid.shape[0] != batch and laid.ndim == 2 and laid.shape[1] == batch:
                laid = laid.mT
            return laid if laid.shape[0] == batch else None
    return None


def one_inside(attentions: Sequence[Attention], layer: str) -> Attention:
    """The one attention that ran inside of a layer.

    Raises:
        LayerError: if there is none, or more than one.
    """
    inside = [a for a in attentions if a.module == layer or a.module.startswith(f"{layer}.") or not layer]
    if len(inside) == 1:
        return inside[0]
    names = list(dict.fromkeys(a.module for a in (inside or attentions)))
    if not inside:
        hint = f"it ran in {', '.join(names[:3])}{' ...' * (len(names) > 3)}" if names else "the model has none"
        raise LayerError(f"no attention ran in layer {layer!r}; {hint}")
    raise LayerError(
        f"{counted(len(inside), 'attention')} ran in layer {layer!r}; pass one of {', '.join(names[:3])} or take "
        "seen.attentions"
    )
