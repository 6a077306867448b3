"""How a model is run: in which precision, compiled or not, and how much of it at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._nested import tensors_in
from hookmap.adapters.outputs import read
from hookmap.errors import ModelError
from hookmap.hooks.capture import INPUT
from hookmap.layers.trace import Trace

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_BYTES = 256 * 2**20
_MOST = 256


class Execution:
    """The user's model and how to run it.

    Args:
        model: the user's; it is never changed.
        precision: ``"fp32"``: as the model is; ``"bf16"`` or ``"fp16"``: by autocast, so that the model's weights stay
            what they are.
        compile: run what lies between captured layers through ``torch.compile``.

    Raises:
        ModelError: for a precision that there isn't.
    """

    def __init__(self, model: nn.Module, precision: Precision = "fp32", *, compile: bool = False) -> None:
        if precision not in get_args(Precision):
            raise ModelError(f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}")
        self.model = model
        self.precision: Precision = precision
        self.compile = compile
        self._compiled: dict[frozenset[str], nn.Module] = {}
        self._alone: dict[tuple[int, ...], str] = {}

    def of(self, model: nn.Module) -> Execution:
        """Another model run in the same way."""
        return Execution(model, self.precision, compile=self.compile)

    def module(self, layers: Iterable[str]) -> nn.Module:
        """The model to hook at these layers and to call."""
        if not self.compile:
            return self.model
        key = frozenset(layers) - {INPUT}
        if key not in self._compiled:
            self._compiled[key] = _compiled_between(self.model, key)
        return self._compiled[key]

    def casting(self, x: Tensor) -> AbstractContextManager[Any]:
        """The block in which the model is to be called on ``x``; derivatives are taken outside of it."""
        dtype = _DTYPES.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(x.device.type, dtype)

    def takes_batches(self, x: Tensor) -> bool:
        """Whether copies of an image can run together."""
        return not self.why_one_by_one(x)

    def why_one_by_one(self, x: Tensor) -> str:
        """Why images can't run together, or nothing: measured once for inputs ``(B, C, *size)`` of a size.

        What was exported for one image (ONNX) often takes no other number; where samples influence each other (batch
        norm without running statistics, dynamic quantisation), an image's score depends on what runs beside it.
        """
        key = tuple(x.shape[1:])
        if key not in self._alone:
            # Another range and another side, so that no statistic of the two is that of the one.
            two = torch.cat([x[:1], 2 * x[:1].flip(-1)])
            try:
                together = self._scores(two)
            except Exception as error:  # the model's own way of saying that it takes one image
                if out_of_memory(error):
                    raise
                self._alone[key] = "the model takes one image at a time, so images run one by one"
            else:
                self._alone[key] = (
                    ""
                    if self._agrees(x[:1], together)
                    else (
                        "images that run together influence each other in this model (as by batch norm without running "
                        "statistics, or dynamic quantisation), so they run one by one"
                    )
                )
        return self._alone[key]

    def _agrees(self, x: Tensor, together: Tensor | None) -> bool:
        """Whether an image scores the same alone; what is random isn't counted as influence."""
        alone = self._scores(x)
        if alone is None or together is None or alone.shape[1:] != together.shape[1:]:
            return True
        tolerance = 1e-3 if self.precision == "fp32" and not x.is_cuda else 0.05
        again = self._scores(x)
        return _close(together[:1], alone, tolerance) or again is None or not _close(again, alone, tolerance)

    def _scores(self, x: Tensor) -> Tensor | None:
        """What is read of the model's output, if rows are images."""
        with torch.inference_mode(), self.casting(x):
            output = self.module(())(x.clone())
        scores = read(output).raw(output)
        return scores if isinstance(scores, Tensor) else getattr(output, "vectors", None)

    def for_many_passes(self, x: Tensor) -> Callable[[Tensor], Any]:
        """The model, or a copy that gives the same faster when many batches run: channels last, batch norms folded in.

        On the CPU, convolutions on batches are about a fifth faster with channels last, and batch norms in evaluation
        mode are part of the convolution before them; in half precision it is up to twice as slow with channels last, so
        there, as without convolutions, the model is run as it is.
        """
        model = self.module(())

        def plainly(images: Tensor) -> Any:
            with torch.inference_mode(), self.casting(images):
                return model(images)

        slower = self.precision != "fp32" and x.device.type == "cpu"
        convolves = x.ndim == 4 and any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self.compile or slower or not convolves:
            return plainly
        wanted = tensors_in(plainly(x[:1]))
        try:
            twin = _folded(copy.deepcopy(model)).to(memory_format=torch.channels_last)

            def run(images: Tensor) -> Any:
                with torch.inference_mode(), self.casting(images):
                    return twin(images.contiguous(memory_format=torch.channels_last))

            # Tracing a forward may freeze a branch that depends on the input: the copy must give what the model gives.
            got = tensors_in(run(x[:1]))
        except Exception as error:  # not every model can be copied, and not every copy runs
            if out_of_memory(error):
                raise
            return plainly
        same = wanted.keys() == got.keys() and all(_close(got[key], wanted[key]) for key in wanted)
        return run if same else plainly


def copies_at_once(x: Tensor, traced: Trace, layer: str | None = None, *, graph: bool = False) -> int:
    """How many copies of one image may run at once: their largest activations, times four, fit into memory.

    Args:
        x: the model's input ``(B, ...)``.
        traced: the model's layers as they ran.
        layer: only what runs from this layer on counts.
        graph: whether all activations are kept, for derivatives.
    """
    order = [name for output in traced.outputs for name in output.modules]
    names = order[order.index(layer) :] if layer in order else order
    shapes = [traced.layers[name].shape for name in names]
    largest = max([math.prod(shape) for shape in shapes if shape], default=1)
    if layer is None:
        largest = max(largest, x[0].numel())
    if graph:
        largest = max(largest, traced.held // 4)
    room = _CPU_BYTES
    if x.device.type == "cuda":
        room = torch.cuda.mem_get_info(x.device)[0] // 4
    return max(1, min(_MOST, room // (4 * largest * x.element_size())))


def _compiled_between(model: nn.Module, layers: frozenset[str]) -> nn.Module:
    """A copy of the model's structure, on the very same parameters, that runs compiled between the layers.

    A hook is called where a module is called, so whatever holds a layer is left as it is, and the largest modules
    that hold none are compiled, each on its own, inside of where its own hooks are called.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    holders = {""} if layers else set()
    for layer in layers:
        parts = layer.split(".")
        holders |= {".".join(parts[:i]) for i in range(1, len(parts))}
    # A list of modules has no forward of its own.
    holders |= {name for name, module in twin.named_modules() if type(module).forward is nn.Module.forward}
    for name, module in twin.named_modules():
        if name not in holders and (not name or name.rpartition(".")[0] in holders):
            module.forward = torch.compile(_own_code(module.forward))
        module.training = False
    return twin


def _own_code(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own: the compiler keeps few versions per code object."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    run.__code__ = run.__code__.replace()
    return run


def _close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether they differ by no more than a share of the largest value."""
    if one.shape != other.shape:
        return False
    half = other.dtype in (torch.float16, torch.bfloat16)
    scale = float(other.detach().double().abs().max()) if other.numel() else 0.0
    return bool(((one.double() - other.double()).abs() <= (0.05 if half else tolerance) * scale + 1e-12).all())


def _folded(model: nn.Module) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    kinds = {parameter.dtype for parameter in model.parameters()}
    try:
        folded: nn.Module = fuse(model, inplace=True)
    except Exception as error:  # torch.fx can't trace every forward; the model runs as it is
        if out_of_memory(error):
            raise
        return model
    # Folding half precision's batch norms gives float32.
    return folded.to(kinds.pop()) if len(kinds) == 1 else folded
