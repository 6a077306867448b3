"""What a look at the model must not change beside the model itself: the state of the process that trains it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Run a block without autocast, and give every random generator its state back, also after an exception.

    The generators are those of Python, NumPy and torch, on all devices. Autocast keeps half-precision copies of weights
    until its block ends; in older versions of torch, one made here, where no gradient is recorded, would be used by the
    training step that follows in the same block, and its weight would not be trained. So none is made here.

    Args:
        device: where the model is.
    """
    plain, arrays = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    metal = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with (
            torch.random.fork_rng(devices),
            torch.autocast(device.type, enabled=False, cache_enabled=False),
        ):
            yield
    finally:
        if metal is not None:
            torch.mps.set_rng_state(metal)
        np.random.set_state(arrays)
        random.setstate(plain)
