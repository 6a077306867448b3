"""Where models run."""

from __future__ import annotations

import torch

from hookmap.errors import ModelError, first_line


def best_device() -> torch.device:
    """The fastest kind of device here."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ModelError: if it can't be used here.
    """
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ModelError(f"device {str(device)!r} can't be used here ({reason}); try 'cpu'") from None
    return chosen
