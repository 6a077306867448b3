"""A model's weights as one short word, so that two models can be told apart."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.hooks.structure import Structure, structure

_SAVES = nn.Module._save_to_state_dict
_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[Any, str]] = weakref.WeakKeyDictionary()


def fingerprint(model: nn.Module, parts: Structure | None = None) -> str:
    """A fingerprint of the names, types, shapes and values of a model's parameters and buffers, 32 letters.

    It is taken again only if a tensor was changed or replaced since. Values are read as whole numbers, summed along
    rows and columns of each tensor, and hashed (BLAKE2b): at the price of reading the weights twice.

    Args:
        model: any.
        parts: its structure, from who has just walked it.
    """
    state = _state(parts or structure(model))
    known = _KNOWN.get(model)
    if state is not None and known is not None and known[0] == state:
        return known[1]
    tensors = [(name, value) for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)]
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors, key=lambda pair: pair[0]):
        shape = () if value.is_nested else tuple(value.shape)
        digest.update(f"{name} {value.dtype} {shape}".encode())
        if value.is_meta:
            continue
        for dense in _dense(value.detach()):
            for sums in _sums(dense):
                digest.update(sums.cpu().numpy().tobytes())
    if state is not None:
        _KNOWN[model] = state, digest.hexdigest()
    return digest.hexdigest()


def _state(parts: Structure) -> Any:
    """What changes whenever a tensor is written to or replaced; None where that can't be told from outside."""
    modules, names = parts
    if any(type(module)._save_to_state_dict is not _SAVES for module in modules):
        return None  # it keeps weights elsewhere, as quantised layers do
    tensors = [
        value
        for module in modules
        for table, left_out in ((module._parameters, ()), (module._buffers, module._non_persistent_buffers_set))
        if table
        for name, value in table.items()
        if value is not None and name not in left_out
    ]
    try:
        return names, [(id(value), value._version, value.data_ptr()) for value in tensors]
    except RuntimeError:  # writes to inference tensors aren't counted, and sparse ones have no address
        return None


def _dense(value: Tensor) -> list[Tensor]:
    """The values as ordinary tensors of real numbers: that or those which an unusual one is made of."""
    if value.is_nested:
        return [part for inner in value.unbind() for part in _dense(inner)]
    if value.is_quantized:
        value = value.dequantize()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    # A copy of its own: of an expanded tensor there's only one element.
    return [value.resolve_neg().contiguous()]


def _sums(dense: Tensor) -> list[Tensor]:
    """Sums of a tensor's bits along its rows and columns."""
    if not dense.numel():
        return []
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dense.element_size()]
    # Converted once: a sum of another type makes a copy of its own.
    rows = dense.reshape(len(dense) if dense.ndim else 1, -1).view(kind).long()
    return [rows.sum(1), rows.sum(0)]
