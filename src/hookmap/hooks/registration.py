"""Hooks that are called in one thread only and never outlive their block, and the models that can't be hooked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.jit._script import RecursiveScriptModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from hookmap.errors import ModelError
from hookmap.hooks.structure import modules_of

# `RemovableHandle` counts its ids without a lock: two threads that register at once could share one.
REGISTRATION = threading.Lock()


@contextmanager
def hooked(
    modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any], *, first: bool = False
) -> Iterator[None]:
    """Call ``hook(module, args, output)`` after each of the modules, in this thread only, inside the block.

    Modules of TorchScript can't be hooked and are passed over.

    Args:
        modules: to hook.
        hook: is called; what it returns, unless it is None, takes the output's place.
        first: before the hooks that are there already.
    """
    thread = threading.get_ident()

    def in_this_thread(module: nn.Module, args: Any, output: Any) -> Any:
        return hook(module, args, output) if threading.get_ident() == thread else None

    with ExitStack() as stack:
        with REGISTRATION:
            for module in modules:
                if not isinstance(module, RecursiveScriptModule):
                    stack.callback(register(module, in_this_thread, first=first).remove)
        yield


@contextmanager
def hooked_before(modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Call ``hook(module, None, args)`` before each of the modules, likewise; what it returns takes args' place."""
    thread = threading.get_ident()

    def in_this_thread(module: nn.Module, args: Any) -> Any:
        return hook(module, None, args) if threading.get_ident() == thread else None

    with ExitStack() as stack:
        with REGISTRATION:
            for module in modules:
                stack.callback(module.register_forward_pre_hook(in_this_thread).remove)
        yield


def register(module: nn.Module, hook: Callable[[nn.Module, Any, Any], Any], *, first: bool = False) -> RemovableHandle:
    """Register a forward hook that may change the output.

    Raises:
        ModelError: for a module of TorchScript.

    The hooks with which transformers records hidden states come after it: a decoder that reads those records must get
    what the hook made of them.
    """
    if isinstance(module, RecursiveScriptModule):
        raise ModelError(
            "this layer is TorchScript, which can't be hooked; take a layer before or after it, or the original "
            "nn.Module in its place"
        )
    recorded = any(
        getattr(other, "__module__", None) == "transformers.utils.output_capturing"
        for other in module._forward_hooks.values()
    )
    return module.register_forward_hook(hook, prepend=recorded or first)


# Which attention kernel runs is a setting of the process, and forward-mode differentiation doesn't nest.
_SECOND_ORDER = threading.RLock()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention from operators that have all derivatives, inside the block; one thread at a time."""
    with _SECOND_ORDER, sdpa_kernel(SDPBackend.MATH):
        yield


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile`` wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def check_hookable(model: nn.Module) -> None:
    """Raise a :class:`ModelError` that says what to pass instead, where hooks would not be called."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("the model is TorchScript, whose layers can't be hooked; pass the original nn.Module")
    if unwrapped(model) is not model:
        inner = "model._orig_mod" if hasattr(model, "_orig_mod") else "model.module"
        raise ModelError(
            f"the model is wrapped in {type(model).__name__}, which runs copies or compiled code that hooks "
            f"don't reach; pass (and call) {inner}"
        )
    modules = modules_of(model)
    if any(map(_is_compiled, modules)):
        name = next(name for name, module in model.named_modules() if _is_compiled(module))
        raise ModelError(
            f"{f'layer {name!r}' if name else 'the model'} is compiled, and hooks don't reach compiled code; put the "
            "plain module in its place (layer._orig_mod, if it was made by torch.compile), or pass a copy of the model "
            "that isn't compiled: Lens(..., compile=True) compiles what lies between layers"
        )


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules
