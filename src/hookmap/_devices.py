"""Where models run."""

from __future__ import annotations

from pathlib import Path

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


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a GPU's or the machine's: nothing that another way of trying would mend."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)  # on the CPU PyTorch raises a RuntimeError
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def free_memory(device: torch.device) -> int | None:
    """How many bytes are free where a model runs, or None if that can't be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None or device.type != "cpu" else 1024 * int(found)
