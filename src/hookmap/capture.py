"""The heart: forward hooks that record activations, differentiate scores and replay a model's tail.

The graph starts at the layer. The forward pass runs without gradients up to the first captured layer;
there the hook makes a leaf of the activation, hands a clone on (an in-place ReLU that follows can't
corrupt what was recorded) and switches gradient recording on for the rest of the pass. Scores are
differentiated with respect to captured activations only: no parameter gradient is computed, no ``.grad``
is written, and the memory kept is that of the model's tail.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.errors import DisconnectedError, HookmapWarning, LayerError, ModelError, TargetError
from hookmap.matching import LayerSpec, match_layers
from hookmap.nests import map_tensors, tensors_in

# `RemovableHandle` counts its ids without a lock: two threads that register at once could share one.
_REGISTRATION = threading.Lock()


class Call:
    """What one call of one layer gave.

    Attributes:
        activations: every floating-point tensor of the output by its place in it: ``""`` for a layer that
            returns a bare tensor, ``"0"`` or ``"hidden.1"`` inside tuples, dicts and dataclasses.
        gradients: of the last :meth:`Capture.differentiate`, same keys and shapes; with ``T`` stacked
            targets, one leading axis more.
    """

    def __init__(self, activations: dict[str, Tensor]) -> None:
        self.activations = activations
        self.gradients: dict[str, Tensor] = {}

    @property
    def activation(self) -> Tensor:
        """The output, or its first tensor where the layer returns several."""
        return next(iter(self.activations.values()))

    @property
    def gradient(self) -> Tensor:
        """The gradient of the differentiated score with respect to :attr:`activation`."""
        key = next(iter(self.activations))
        if key not in self.gradients:
            raise LayerError(
                "no gradient reached this layer; call seen.differentiate(score) inside the capture block, "
                "with a score that depends on the layer"
            )
        return self.gradients[key]


class Record:
    """What one layer gave during a capture: one :class:`Call` each time that it ran."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.calls: list[Call] = []

    def __repr__(self) -> str:
        shapes = [tuple(call.activation.shape) for call in self.calls]
        return f"Record({self.name!r}, {type(self.module).__name__}, activations={shapes})"

    @property
    def activation(self) -> Tensor:
        """The layer's activation, e.g. ``(B, C, H, W)``; of the last call if it ran several times."""
        return self._call().activation

    @property
    def gradient(self) -> Tensor:
        """Gradient with respect to :attr:`activation`: its shape, or ``(T, *shape)`` for T targets."""
        return self._call().gradient

    def _call(self) -> Call:
        if not self.calls:
            raise LayerError(f"layer {self.name!r} didn't run in this forward pass; capture a layer that does")
        if len(self.calls) > 1:
            warnings.warn(
                f"layer {self.name!r} ran {len(self.calls)} times; this is its last call, the others are in .calls",
                HookmapWarning,
                stacklevel=3,
            )
        return self.calls[-1]


class Capture(Mapping[str, Record]):
    """A running capture: records by layer name. Made by :func:`capture`."""

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        *,
        gradients: bool,
        keep: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self._model = model
        self._records = {name: Record(name, module) for name, module in layers.items()}
        self._gradients = gradients
        self._keep = keep
        self._thread = threading.get_ident()
        self._recording = False
        self._replaying = False
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._order: list[str] = []

    def __getitem__(self, name: str) -> Record:
        try:
            return self._records[name]
        except KeyError:
            raise LayerError(f"layer {name!r} wasn't captured; captured are {', '.join(self._records)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def order(self) -> list[str]:
        """Names of the captured layers in the order in which they first ran."""
        return list(dict.fromkeys(self._order))

    def differentiate(self, scores: Tensor, *, create_graph: bool = False) -> None:
        r"""Write the gradient of each score into the records' ``gradient``.

        Samples of a batch don't influence each other in evaluation mode, so the gradient of the sum
        over the batch holds each sample's own gradient: :math:`\partial \sum_b s_b / \partial A`.

        Args:
            scores: ``()`` or ``(B,)``: one score per sample; gradients take the activation's shape.
                ``(T, B)``: T targets at once, differentiated one after the other on the same graph (on
                CPU a loop is as fast as a batched vector-Jacobian product); gradients gain a leading T.
            create_graph: keep the graph of the gradients, for second derivatives.

        Raises:
            DisconnectedError: if the scores don't depend on any captured layer.
        """
        if not self._gradients:
            raise TargetError("this capture records no gradients; use capture(model, layers, gradients=True)")
        leaves = [
            (call, key, tensor)
            for record in self._records.values()
            for call in record.calls
            for key, tensor in call.activations.items()
        ]
        if not leaves:
            raise LayerError("no captured layer has run; call the model inside the capture block first")
        if not scores.requires_grad:
            raise DisconnectedError(
                "the score isn't connected to a captured layer: it must be computed inside the capture block "
                "from the model's output, without detach(), and the model must not switch gradients off "
                "after the layer (capture 'input' as well if it does)"
            )
        if scores.ndim > 2:
            raise TargetError(f"scores have shape {tuple(scores.shape)}; expected (), (B,) or (T, B)")
        tensors = [tensor for _, _, tensor in leaves]
        rows = [
            torch.autograd.grad(row.sum(), tensors, retain_graph=True, create_graph=create_graph, allow_unused=True)
            for row in (scores if scores.ndim == 2 else [scores])
        ]
        if all(gradient is None for row in rows for gradient in row):
            raise DisconnectedError("the score doesn't depend on any captured layer; capture a layer that leads to it")
        for (call, key, tensor), *column in zip(leaves, *rows, strict=True):
            if all(gradient is None for gradient in column):
                call.gradients.pop(key, None)
                continue
            filled = [torch.zeros_like(tensor) if g is None else g for g in column]
            call.gradients[key] = torch.stack(filled) if scores.ndim == 2 else filled[0]

    def replay(self, layer: str, changed: Tensor, *, sample: int | None = None, call: int = 0) -> Any:
        """Run the model again from a layer on, with changed activations; without gradients.

        With ``sample``, the part before the layer runs on that one sample, whatever the number of variants,
        and the variants meet it by broadcasting. Where the model's wiring doesn't allow that (a
        concatenation with another batch size, a batch size read from the input), the forward pass runs on
        the sample repeated K times.

        Args:
            layer: name of a captured layer.
            changed: ``(B, ...)`` in the shape of the layer's activation, or, with ``sample``, ``(K, ...)``:
                K variants of that sample's activation.
            sample: index in the batch that the variants belong to.
            call: which call of the layer to change, where it runs several times.

        Returns:
            The model's output for the B samples or the K variants.
        """
        record = self[layer]
        if self._inputs is None or not record.calls:
            raise LayerError(f"layer {layer!r} hasn't run; call the model inside the capture block first")
        seen = record.calls[call].activation
        batch = seen.shape[0]
        if changed.shape[1:] != seen.shape[1:] or (sample is None and changed.shape[0] != batch):
            raise LayerError(
                f"changed activations of {layer!r} have shape {tuple(changed.shape)}; expected "
                f"{('B' if sample is None else 'K', *seen.shape[1:])} as recorded {tuple(seen.shape)}"
            )
        if sample is None:
            return self._rerun(record.module, changed, call, self._inputs)
        one = map_tensors(lambda _, t: _rows(t, batch, sample, 1), self._inputs)
        try:
            output = self._rerun(record.module, changed, call, one)
            if all(t.shape[:1] == changed.shape[:1] for t in tensors_in(output).values()):
                return output
        except (RuntimeError, ValueError, IndexError, AssertionError):
            pass  # the wiring doesn't broadcast: fall back to the full forward pass
        repeated = map_tensors(lambda _, t: _rows(t, batch, sample, len(changed)), self._inputs)
        return self._rerun(record.module, changed, call, repeated)

    def _rerun(self, module: nn.Module, changed: Tensor, call: int, inputs: tuple[Any, Any]) -> Any:
        calls = 0

        def swap(_: nn.Module, __: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 != call:
                return None
            main = next(iter(tensors_in(output)))
            return map_tensors(lambda key, t: changed.to(t.dtype).clone() if key == main else t, output)

        args, kwargs = inputs
        self._replaying = True
        try:
            with hooked([module], swap), torch.no_grad():
                return self._model(*args, **kwargs)
        finally:
            self._replaying = False

    def _active(self) -> bool:
        return threading.get_ident() == self._thread and not self._replaying

    def _start_run(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._active():
            return None
        # An inference tensor can't be saved for backward; a copy made here, outside inference mode, can.
        copied = map_tensors(lambda _, t: t.clone() if t.is_inference() else t, (args, kwargs))
        if INPUT in self._records:
            copied = self._record(self._records[INPUT], copied)
        self._inputs = map_tensors(lambda _, t: t.detach(), copied)
        return copied

    def _end_run(self, *_: Any) -> None:
        # A model that is decorated with no_grad has just restored the mode of before the layer.
        if self._active() and self._recording:
            torch.set_grad_enabled(True)

    def _record(self, record: Record, output: Any) -> Any:
        call = Call({})
        record.calls.append(call)
        self._order.append(record.name)

        def take(key: str, tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            if not self._gradients:
                # A later in-place layer would overwrite the record: keep a copy unless reduced at once.
                call.activations[key] = self._keep(tensor) if self._keep else tensor.detach().clone()
                return tensor
            if not tensor.requires_grad:
                torch.set_grad_enabled(True)
                self._recording = True
                tensor = tensor.detach().requires_grad_()
            call.activations[key] = tensor
            return tensor.clone()

        return map_tensors(take, output)

    def _hook(self, record: Record) -> Callable[[nn.Module, Any, Any], Any]:
        def record_output(_: nn.Module, __: Any, output: Any) -> Any:
            if not self._active():
                return None
            changed = self._record(record, output)
            return changed if self._gradients else None

        return record_output

    def _register(self, stack: ExitStack) -> None:
        with _REGISTRATION:
            handle = self._model.register_forward_pre_hook(self._start_run, with_kwargs=True)
            stack.callback(handle.remove)
            for name, record in self._records.items():
                if name != INPUT:
                    stack.callback(record.module.register_forward_hook(self._hook(record)).remove)
            stack.callback(self._model.register_forward_hook(self._end_run).remove)

    def _release_graph(self) -> None:
        for record in self._records.values():
            for call in record.calls:
                call.activations = {key: tensor.detach() for key, tensor in call.activations.items()}
                call.gradients = {key: tensor.detach() for key, tensor in call.gradients.items()}


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Call ``hook(module, args, output)`` after each of the modules, in this thread only, inside the block."""
    thread = threading.get_ident()

    def in_this_thread(module: nn.Module, args: Any, output: Any) -> Any:
        return hook(module, args, output) if threading.get_ident() == thread else None

    with ExitStack() as stack:
        with _REGISTRATION:
            for module in modules:
                stack.callback(module.register_forward_hook(in_this_thread).remove)
        yield


INPUT = "input"
"""Captures the model's own input: the graph then starts at the pixels."""


@contextmanager
def capture(
    model: nn.Module,
    layers: LayerSpec,
    *,
    gradients: bool = True,
    keep: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Capture]:
    """Record activations of ``layers`` while the block runs, and gradients on demand.

    Works with frozen parameters, inside ``torch.no_grad()`` and ``torch.inference_mode()``, under autocast,
    on any device, and in several threads on one model: only forward passes of the thread that entered the
    block are recorded. Hooks and gradient mode are restored on leaving, also after an exception; modes and
    buffers are the caller's (call ``model.eval()`` first, or use :class:`hookmap.Lens`, which does).

    Args:
        model: the model; call it inside the block.
        layers: name, glob (``*`` within a level, ``**`` across), module, type, kind word such as
            ``"conv"``, or a list of these; ``"input"`` is the model's input itself.
        gradients: start the graph at the first captured layer so that
            :meth:`Capture.differentiate` works.
        keep: with ``gradients=False``, what to store of each output tensor instead of a copy of it.

    Raises:
        LayerError: if no layer matches.
        ModelError: for wrappers whose layers can't be hooked, with what to pass instead.

    >>> import torch, hookmap as hm
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    >>> with hm.capture(model, "0") as seen:
    ...     scores = model(torch.ones(2, 3, 5, 5))
    ...     seen.differentiate(scores[:, 3])
    >>> seen["0"].activation.shape, seen["0"].gradient.shape
    (torch.Size([2, 4, 3, 3]), torch.Size([2, 4, 3, 3]))
    """
    check_hookable(model)
    seen = Capture(model, _matched(model, layers), gradients=gradients, keep=keep)
    with ExitStack() as stack:
        # Order matters: leaving inference mode resets the gradient mode, so it is entered first.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if gradients:
            _check_parameters(model)
        stack.enter_context(torch.no_grad())
        stack.callback(seen._release_graph)
        # Under no_grad, autocast caches weights cast without a graph: a training step must not find them.
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            stack.callback(torch.clear_autocast_cache)
        seen._register(stack)
        yield seen


def _matched(model: nn.Module, layers: LayerSpec) -> dict[str, nn.Module]:
    specs = [layers] if isinstance(layers, (str, nn.Module, type)) else list(layers)
    names = dict(model.named_modules())
    wants_input = INPUT in specs and INPUT not in names
    rest = [spec for spec in specs if not (wants_input and spec == INPUT)]
    matched = match_layers(model, rest) if rest or not wants_input else {}
    return {INPUT: model, **matched} if wants_input else matched


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
    for name, module in model.named_modules():
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise ModelError(
                f"{f'layer {name!r}' if name else 'the model'} was compiled in place with .compile(), and "
                "hooks don't reach compiled code; pass a copy of the model that isn't compiled"
            )


def _check_parameters(model: nn.Module) -> None:
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ModelError(
            "the model's parameters were created inside torch.inference_mode(), so nothing can be "
            "differentiated; build or load the model outside of it"
        )


def _rows(tensor: Tensor, batch: int, sample: int, times: int) -> Tensor:
    """One sample of a batched input, repeated; inputs without the batch axis stay."""
    if tensor.ndim == 0 or tensor.shape[0] != batch:
        return tensor
    return tensor[sample : sample + 1].repeat(times, *[1] * (tensor.ndim - 1))
