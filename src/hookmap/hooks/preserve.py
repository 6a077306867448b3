"""Leave the user's model exactly as it was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hookmap.hooks.structure import Structure, structure

_LOCK = threading.Lock()
# module -> [how many blocks hold it in evaluation mode, its own mode]: with several threads on one model,
# the last block to leave gives the mode back.
_HELD: dict[nn.Module, list[int]] = {}


@contextmanager
def preserved(model: nn.Module) -> Iterator[Structure]:
    """Run a block with the model in evaluation mode and give everything back afterwards.

    Each module's training flag, each buffer's value and the state of the random generators are restored, also
    after an exception or an interrupt. Flags are set directly: a model's own ``train()`` may do more than
    set them. Batch-norm statistics aren't copied because evaluation mode never writes to them.

    Yields:
        The model's structure, so that nobody in the block need walk it again.
    """
    parts = structure(model)
    modules = parts[0]
    buffers = [
        (module, name, buffer)
        for module in modules
        if module._buffers and not isinstance(module, nn.modules.batchnorm._NormBase)
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    copies = [(buffer.detach().clone(), _writes(buffer)) for _, _, buffer in buffers]
    # Without a GPU no parameter need be looked at.
    devices = {p.device for p in model.parameters() if p.is_cuda} if torch.cuda.is_available() else set()
    generators = _generator_states(devices)
    _hold(modules)
    try:
        yield parts
    finally:
        _release(modules)
        with torch.no_grad():
            for (module, name, buffer), (copy, writes) in zip(buffers, copies, strict=True):
                if not _same(buffer, copy, writes):
                    buffer.copy_(copy)
                if name not in module._buffers or module._buffers[name] is not buffer:
                    module._buffers[name] = buffer
        for device, state in generators.items():
            _restore_generator(device, state)


def _writes(buffer: Tensor) -> int:
    """How often PyTorch saw the buffer being written to; inference tensors aren't counted."""
    return 0 if buffer.is_inference() else buffer._version


def _hold(modules: list[nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            held = _HELD.setdefault(module, [0, int(module.training)])
            held[0] += 1
            if module.training:
                module.training = False


def _release(modules: list[nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            held = _HELD[module]
            held[0] -= 1
            if not held[0]:
                del _HELD[module]
                if held[1]:
                    module.training = True


def _same(buffer: Tensor, copy: Tensor, writes: int) -> bool:
    if buffer.layout != torch.strided or buffer.is_nested or buffer.is_meta:  # values that can't be compared
        return _writes(buffer) == writes
    if buffer.shape != copy.shape:
        return False
    now = buffer.detach()
    same = now == copy
    if buffer.is_floating_point() or buffer.is_complex():
        same |= (now != now) & (copy != copy)  # NaN is NaN
    return bool(same.all())


def _generator_states(devices: set[torch.device]) -> dict[torch.device, Tensor]:
    states = {torch.device("cpu"): torch.get_rng_state()}
    return states | {device: torch.cuda.get_rng_state(device) for device in devices}


def _restore_generator(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        if not torch.equal(torch.get_rng_state(), state):
            torch.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)
