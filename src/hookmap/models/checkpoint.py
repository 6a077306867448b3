"""Read checkpoints safely and load them whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.errors import ModelError, first_line

StateDict = dict[str, Tensor]
_CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "ema_state_dict",
    "ema",
    "module",
    "params",
)
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "classifier.",
    "ema.",
)


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors of a safetensors file, or of a state dict that ``torch.save`` wrote.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        ModelError: if the file isn't there, is damaged, or holds no state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"there's no checkpoint {path}" + (" (it's a folder; pass the file)" if path.is_dir() else ""))
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise ModelError(
                f"{path} holds Python objects, which hookmap doesn't load because they can run code; save the tensors "
                "alone with torch.save(model.state_dict(), ...) or as safetensors"
            ) from None
        raise _damaged(path, "it isn't a checkpoint") from None
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise _damaged(path, first_line(error)[:120]) from None
    return _unwrap(content, path)


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)[:120]) from None


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} can't be read as a checkpoint ({reason}); expected safetensors or a saved state dict")


def _unwrap(content: Any, path: Path) -> StateDict:
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        for key in _CONTAINERS:
            if isinstance(content.get(key), Mapping):
                return _unwrap(content[key], path)
        if tensors:
            return tensors
    raise ModelError(f"{path} holds no state dict but a {type(content).__name__}; save model.state_dict()")


def fitted(model: nn.Module, state: StateDict) -> StateDict:
    """The state dict with the prefix removed that trainers and wrappers put before the model's own names."""
    own = set(model.state_dict())
    while not own & set(state):
        inner = next(
            ({k.removeprefix(p): v for k, v in state.items() if k.startswith(p)} for p in _PREFIXES
             if any(k.startswith(p) for k in state)),
            None,
        )  # fmt: skip
        if inner is None:
            break
        state = inner
    for prefix in _PREFIXES:
        shorter = {k.removeprefix(prefix): v for k, v in state.items()}
        if len(own & set(shorter)) > len(own & set(state)):
            state = shorter
    return state


def _differences(model: nn.Module, state: StateDict) -> tuple[list[str], list[str], list[str]]:
    own = model.state_dict()
    # Checkpoints older than PyTorch 0.4.1 don't count batches, and nothing in evaluation mode reads the count.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    return missing, unexpected, reshaped


def other_number_of_classes(model: nn.Module, state: StateDict) -> int | None:
    """How many classes the checkpoint has, if its head's number of rows is all that differs from the model."""
    state, own = fitted(model, state), model.state_dict()
    missing, unexpected, reshaped = _differences(model, state)
    rows = {state[key].shape[0] for key in reshaped if state[key].ndim and state[key].shape[1:] == own[key].shape[1:]}
    heads = {key.rpartition(".")[0] for key in reshaped}
    return rows.pop() if len(rows) == len(heads) == 1 and not missing and not unexpected else None


def load_into(model: nn.Module, state: StateDict, *, source: str) -> None:
    """Load a state dict strictly; the model isn't touched unless everything fits.

    Raises:
        ModelError: saying what doesn't fit and what that looks like.
    """
    state = fitted(model, state)
    missing, unexpected, reshaped = _differences(model, state)
    if missing or unexpected or reshaped:
        own = model.state_dict()
        parts = []
        if missing:
            parts.append(f"{len(missing)} of the model's {len(own)} tensors are missing ({_some(missing)})")
        if unexpected:
            parts.append(f"{len(unexpected)} are unknown to it ({_some(unexpected)})")
        if reshaped:
            shapes = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in reshaped]
            parts.append(f"{len(reshaped)} have another shape ({_some(shapes)})")
        looks = "looks like another architecture" if missing or unexpected else "looks like another size of this model"
        raise ModelError(f"{source} doesn't fit {type(model).__name__} and {looks}: {'; '.join(parts)}")
    model.load_state_dict(state, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
