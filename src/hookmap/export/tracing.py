"""From a function of a batch to a graph of operators, its gradients included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hookmap.export.operators import forms
from hookmap.hooks.registration import plain_attention
from hookmap.methods.eigen import by_products

Traced = Callable[[Tensor], tuple[Tensor, ...]]


def graph_of(function: Traced, x: Tensor, *, any_batch: bool) -> torch.fx.GraphModule:
    """The operators that a function runs on an input.

    Args:
        function: from a batch to tensors.
        x: an example, ``(B, C, *size)``.
        any_batch: follow the number of images through the graph, so that it takes any; else it takes as many as ``x``
            holds, and numbers that Python reads of tensors, as post-processing does, are those of ``x``.

    Raises:
        Exception: whatever PyTorch says where a model can't be traced so.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    table = forms()
    with _plain_operators():
        if not any_batch:
            return make_fx(_reading_numbers(function), decomposition_table=table)(x)
        sides = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (x.ndim - 1)]
        shapes = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        fake = shapes.from_tensor(x, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sides))
        traced = make_fx(function, decomposition_table=table, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        return traced(fake)


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Attention, encoders and eigenvectors from operators that have a form everywhere."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with plain_attention(), by_products(), torch.no_grad(), _contiguous_pooling():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _reading_numbers(function: Traced) -> Traced:
    """The function, in which Python may read numbers of tensors: the graph doesn't know of them."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
    from torch.utils._python_dispatch import TorchDispatchMode

    class Reading(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operator is torch.ops.aten._local_scalar_dense.default:
                with disable_proxy_modes_tracing():
                    return operator(*args)
            return operator(*args, **(kwargs or {}))

    def reading(x: Tensor) -> tuple[Tensor, ...]:
        with Reading():  # type: ignore[no-untyped-call]
            return function(x)

    return reading


def _contiguous_pooling() -> AbstractContextManager[Any]:
    """Pooling to one place lays channels-last maps out by a view that no runtime has; contiguous ones it doesn't."""

    class Contiguous(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (functional.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d):
                args = (args[0].contiguous(), *args[1:])
            return function(*args, **(kwargs or {}))

    return Contiguous()
