"""The heart: forward hooks that record activations, differentiate scores and replay a model's tail.

The graph starts at the layer. The forward pass runs without gradients up to the first captured layer;
there the hook makes a leaf of the activation, hands a clone on (an in-place ReLU that follows can't
corrupt what was recorded) and switches gradient recording on for the rest of the pass. Scores are
differentiated with respect to captured activations only: no parameter gradient is computed, no ``.grad``
is written, and the memory kept is that of the model's tail.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hookmap._nested import map_tensors, tensors_in
from hookmap._warnings import warn
from hookmap.errors import DisconnectedError, LayerError, ModelError, TargetError
from hookmap.hooks.attention import Attention, attentions_in, one_inside
from hookmap.hooks.graph import NOT_REENTRANT, Gradients, Origins, nodes_of, origins, plain_gradients
from hookmap.hooks.matching import LayerSpec, listed, match_layers
from hookmap.hooks.registration import REGISTRATION, check_hookable, register
from hookmap.hooks.replay import Inputs, Replay, rerun
from hookmap.hooks.sampling import Sampling, samplings_in


class Call:
    """What one call of one layer gave.

    Attributes:
        activations: every floating-point tensor of the output by its place in it: ``""`` for a layer that
            returns a bare tensor, ``"0"`` or ``"hidden.1"`` inside tuples, dicts and dataclasses.
        gradients: of the last :meth:`Capture.differentiate`, same keys and shapes; with ``T`` stacked
            targets, one leading axis more.
        curvatures: of the last :meth:`Capture.curve`, likewise.
    """

    def __init__(self, activations: dict[str, Tensor]) -> None:
        self.activations = activations
        self.gradients: dict[str, Tensor] = {}
        self.curvatures: dict[str, Tensor] = {}

    def without_graph(self) -> Call:
        """The same, whose tensors have no graph."""
        other = Call({key: tensor.detach() for key, tensor in self.activations.items()})
        other.gradients = {key: tensor.detach() for key, tensor in self.gradients.items()}
        other.curvatures = {key: tensor.detach() for key, tensor in self.curvatures.items()}
        return other

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
    """What one layer gave during a capture: one ``Call`` each time that it ran."""

    def __init__(self, name: str, module: nn.Module, attentions: Sequence[Attention] = ()) -> None:
        self.name = name
        self.module = module
        self._attentions = attentions
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

    @property
    def attention(self) -> Tensor:
        """How much tokens look at each other in this layer: ``(B, heads, N, N)``, rows sum to one.

        Windows are samples of their own, one after the other: ``(B * windows, heads, N, N)``.

        Raises:
            LayerError: if no attention ran in this layer, or several did.
        """
        return one_inside(self._attentions, self.name).weights()

    @property
    def attention_gradient(self) -> Tensor:
        """The gradient of the differentiated score with respect to :attr:`attention`; ``(T, ...)`` for T targets."""
        return one_inside(self._attentions, self.name).gradient()

    def without_graph(self) -> Record:
        """The same, whose tensors have no graph."""
        other = Record(self.name, self.module, self._attentions)
        other.calls = [call.without_graph() for call in self.calls]
        return other

    def _call(self) -> Call:
        if not self.calls:
            raise LayerError(f"layer {self.name!r} didn't run in this forward pass; capture a layer that does")
        if len(self.calls) > 1:
            warn(f"layer {self.name!r} ran {len(self.calls)} times; this is its last call, the others are in .calls")
        return self.calls[-1]


class Capture(Mapping[str, Record]):
    """A running capture: records by layer name. Made by :func:`hookmap.capture`."""

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        *,
        gradients: bool,
        keep: Callable[[Tensor], Tensor] | None,
        made: Origins | None,
    ) -> None:
        self._model = model
        self._attentions: list[Attention] = []
        self._samplings: list[Sampling] = []
        self._records = {name: Record(name, module, self._attentions) for name, module in layers.items()}
        self._gradients = gradients
        self._keep = keep
        self._thread = threading.get_ident()
        self._recording = False
        self._replaying = False
        self._inputs: Inputs | None = None
        self._output: Any = None
        self._replays: dict[tuple[str, int], Replay] = {}
        self._order: list[str] = []
        self._made = made

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
        return [name for name in dict.fromkeys(self._order) if name in self._records]

    @property
    def attentions(self) -> list[Attention]:
        """All attentions of the last pass, in the order in which they ran; with ``capture(..., attention=True)``."""
        return self._attentions

    @property
    def samplings(self) -> list[Sampling]:
        """Where queries of deformable attention looked in the last pass; with ``capture(..., attention=True)``."""
        return self._samplings

    def differentiate(
        self, scores: Tensor, by: Gradients = plain_gradients, *, layers: Iterable[str] | None = None
    ) -> None:
        r"""Write the gradient of each score into the records' ``gradient``.

        Samples of a batch don't influence each other in evaluation mode, so the gradient of the sum
        over the batch holds each sample's own gradient: :math:`\partial \sum_b s_b / \partial A`.

        Args:
            scores: ``()`` or ``(B,)``: one score per sample; gradients take the activation's shape.
                ``(T, B)``: T targets at once, differentiated one after the other on the same graph (on
                CPU a loop is as fast as a batched vector-Jacobian product); gradients gain a leading T.
            by: how gradients are taken: by autograd, or in another way of walking the same graph.
            layers: which of the captured layers are wanted, by name, and the attention; by default all. The backward
                pass goes no further than they are.

        Raises:
            DisconnectedError: if the scores don't depend on any captured layer.
        """
        leaves = self._leaves(scores, layers)
        edges = [attention.edges for attention in self._attentions]
        ends: list[Any] = [tensor for _, _, tensor in leaves] + [edge for several in edges for edge in several]
        self._replaying = True  # walking nodes of a checkpointed segment runs it again
        try:
            rows = [by(row.sum(), ends) for row in (scores if scores.ndim == 2 else [scores])]
        finally:
            self._replaying = False
        if all(gradient is None for row in rows for gradient in row):
            raise DisconnectedError("the score doesn't depend on any captured layer; capture a layer that leads to it")
        columns = iter(zip(*rows, strict=True))
        for call, key, _ in leaves:
            if (gradient := _stacked(next(columns), scores)) is None:
                call.gradients.pop(key, None)
            else:
                call.gradients[key] = gradient
        for attention, several in zip(self._attentions, edges, strict=True):
            attention.receive([_stacked(next(columns), scores) for _ in several])

    def curve(self, scores: Tensor) -> None:
        r"""Write the curvature along each activation into the calls' ``curvatures``.

        That is the Hessian of the score with respect to one layer's activation, times that activation:
        :math:`H A = \partial \langle g, A_{\text{fixed}} \rangle / \partial A`, exactly, by a second backward pass.
        It is zero where everything after the layer is piecewise linear.

        Args:
            scores: as in :meth:`differentiate`.
        """
        leaves = self._leaves(scores)
        columns: list[list[Tensor | None]] = [[] for _ in leaves]
        tensors = [tensor for _, _, tensor in leaves]
        with torch.enable_grad():
            for row in scores if scores.ndim == 2 else [scores]:
                slopes = torch.autograd.grad(
                    row.sum(), tensors, retain_graph=True, create_graph=True, allow_unused=True
                )
                for column, tensor, slope in zip(columns, tensors, slopes, strict=True):
                    if slope is None or not slope.requires_grad:
                        column.append(None)
                        continue
                    along = (slope * tensor.detach()).sum()
                    column += torch.autograd.grad(along, tensor, retain_graph=True, allow_unused=True)
        for (call, key, tensor), column in zip(leaves, columns, strict=True):
            curvature = _stacked([torch.zeros_like(tensor) if part is None else part for part in column], scores)
            assert curvature is not None
            call.curvatures[key] = curvature

    def _leaves(self, scores: Tensor, layers: Iterable[str] | None = None) -> list[tuple[Call, str, Tensor]]:
        if not self._gradients:
            raise TargetError("this capture records no gradients; use capture(model, layers, gradients=True)")
        leaves = [
            (call, key, tensor)
            for record in (self._records.values() if layers is None else [self[name] for name in layers])
            for call in record.calls
            for key, tensor in call.activations.items()
        ]
        if not leaves and not self._attentions:
            if self._made is not None and self._inputs is not None:
                raise LayerError(
                    "no attention was found in this model: no fused one, and no softmax whose rows weigh values; name "
                    "layers to record"
                )
            raise LayerError("no captured layer has run; call the model inside the capture block first")
        if not scores.requires_grad:
            raise DisconnectedError(
                "the score isn't connected to a captured layer: it must be computed inside the capture block "
                "from the model's output, without detach(), and the model must not switch gradients off "
                "after the layer (capture 'input' as well if it does)"
            )
        if scores.is_complex():
            raise TargetError(
                f"the scores are complex numbers ({scores.dtype}), which have no gradient; pass a target that gives "
                "real ones, such as lambda output: output.abs()[:, 3]"
            )
        if scores.ndim > 2:
            raise TargetError(f"scores have shape {tuple(scores.shape)}; expected (), (B,) or (T, B)")
        return leaves

    def replay(self, layer: str, changed: Tensor, *, sample: int | None = None, call: int = 0, axis: int = 0) -> Any:
        """Run the model again from a layer on, with changed activations.

        Args:
            layer: name of a captured layer.
            changed: ``(B, ...)``, the layer's activation with the samples first, or, with ``sample``, ``(K, ...)``:
                K variants of that sample's activation. It isn't written to. If it requires a gradient, the
                output has one with respect to it: make scores of it under ``torch.enable_grad()``.
            sample: index in the batch that the variants belong to. The part before the layer then costs
                next to nothing wherever the model's wiring allows it: see ``hookmap.hooks.replay``.
            call: which call of the layer to change, where it runs several times.
            axis: along which the layer holds its samples.

        Returns:
            The model's output for the B samples or the K variants.
        """
        record = self[layer]
        if self._inputs is None or not record.calls:
            raise LayerError(f"layer {layer!r} hasn't run; call the model inside the capture block first")
        seen = record.calls[call].activation.movedim(axis, 0)
        batch = seen.shape[0]
        if changed.shape[1:] != seen.shape[1:] or (sample is None and changed.shape[0] != batch):
            raise LayerError(
                f"changed activations of {layer!r} have shape {tuple(changed.shape)}; expected "
                f"{('B' if sample is None else 'K', *seen.shape[1:])} as recorded {tuple(seen.shape)}"
            )
        self._replaying = True
        try:
            with torch.set_grad_enabled(changed.requires_grad):
                if sample is None:
                    return rerun(self._model, self._inputs, record.module, changed, call, axis)
                if (layer, call) not in self._replays:
                    replay = Replay(self._model, self._inputs, record.module, seen, self._output, call, axis)
                    self._replays[layer, call] = replay
                return self._replays[layer, call](changed, sample)
        finally:
            self._replaying = False

    def _active(self) -> bool:
        # A checkpointed segment runs again inside of a backward pass: that is no call of its layers.
        in_backward = torch._C._current_graph_task_id() != -1
        return threading.get_ident() == self._thread and not self._replaying and not in_backward

    # Torch says apart from a hook that it takes keywords: another thread may meet it without.
    def _start_run(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if not self._active():
            return None
        # An inference tensor can't be saved for backward; a copy made here, outside inference mode, can.
        copied = map_tensors(lambda _, t: t.clone() if t.is_inference() else t, (args, kwargs))
        if INPUT in self._records:
            copied = self._record(self._records[INPUT], copied)
        elif self._made is not None and not self._records:
            copied = self._started(copied)
        self._inputs = map_tensors(lambda _, t: t.detach(), copied)
        return copied

    def _start_layer(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        return self._started((args, kwargs)) if self._active() else None

    def _end_run(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._active():
            if self._made is not None:
                self._read_attentions(output)
            self._output = map_tensors(lambda _, t: t.detach(), output)
        # A model that is decorated with no_grad has just restored the mode of before the layer.
        if self._active() and self._recording:
            torch.set_grad_enabled(True)

    def _read_attentions(self, output: Any) -> None:
        assert self._made is not None
        field = next((t.shape for t in tensors_in(self._inputs).values() if t.ndim), torch.Size((1,)))
        self._replaying = True  # reading what a checkpointed segment kept runs it again
        try:
            nodes = nodes_of(tensors_in(output).values())
            self._attentions[:] = attentions_in(nodes, self._made, field)
            self._samplings[:] = samplings_in(nodes, self._made, field[0])
        finally:
            self._replaying = False

    def _started(self, inputs: Any) -> Any:
        """A layer's inputs, or the model's, as the place where the graph starts."""
        return map_tensors(lambda _, t: self._leaf(t) if t.is_floating_point() and not t.requires_grad else t, inputs)

    def _leaf(self, tensor: Tensor) -> Tensor:
        """The graph starts here."""
        torch.set_grad_enabled(True)
        self._recording = True
        return tensor.detach().requires_grad_()

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
                tensor = self._leaf(tensor)
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
        with REGISTRATION:
            handle = self._model.register_forward_pre_hook(self._start_run, with_kwargs=True)
            stack.callback(handle.remove)
            for name, record in self._records.items():
                if name != INPUT:
                    if self._made is not None:  # attention inside of the layer has a graph too
                        handle = record.module.register_forward_pre_hook(self._start_layer, with_kwargs=True)
                        stack.callback(handle.remove)
                    stack.callback(register(record.module, self._hook(record)).remove)
            stack.callback(self._model.register_forward_hook(self._end_run).remove)

    def without_graph(self, layers: Iterable[str]) -> Capture:
        """What stands of some layers now, apart from the graph that this capture retains."""
        other = copy.copy(self)
        other._records = {name: self[name].without_graph() for name in layers}
        return other

    def _release_graph(self) -> None:
        for record in self._records.values():
            for call in record.calls:
                vars(call).update(vars(call.without_graph()))
        for attention in self._attentions:
            attention.release()


INPUT = "input"
"""Captures the model's own input: the graph then starts at the pixels."""


@contextmanager
def capture(
    model: nn.Module,
    layers: LayerSpec,
    *,
    gradients: bool = True,
    keep: Callable[[Tensor], Tensor] | None = None,
    attention: bool = False,
    retain_graph: bool = False,
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
            :meth:`~hookmap.hooks.capture.Capture.differentiate` works.
        keep: with ``gradients=False``, what to store of each output tensor instead of a copy of it.
        attention: read the attention that ran, in fused kernels too: of a layer by its record's
            ``Record.attention``, of all by ``Capture.attentions``. The graph then starts at the input of the
            first captured layer, or where ``layers`` is empty at the model's, and attention before that isn't seen.
        retain_graph: keep the graph when the block is left, so that scores made in it can be differentiated later. The
            memory of the model's tail is held as long as the capture is.

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

    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    >>> with hm.capture(layer, "self_attn", attention=True) as seen:
    ...     seen.differentiate(layer(torch.randn(3, 5, 8))[:, 0, 0])
    >>> seen["self_attn"].attention.shape, seen["self_attn"].attention_gradient.shape
    (torch.Size([3, 2, 5, 5]), torch.Size([3, 2, 5, 5]))
    """
    check_hookable(model)
    if attention and not gradients:
        raise TargetError("attention is read from the graph of gradients; leave gradients=True")
    with ExitStack() as stack:
        made = stack.enter_context(origins(model)) if attention else None
        matched = {} if attention and not listed(layers) else _matched(model, layers)
        seen = Capture(model, matched, gradients=gradients, keep=keep, made=made)
        # Order matters: leaving inference mode resets the gradient mode, so it is entered first.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if not retain_graph:
            stack.callback(seen._release_graph)
        # Under no_grad, autocast caches weights cast without a graph: a training step must not find them.
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            stack.callback(torch.clear_autocast_cache)
        seen._register(stack)
        try:
            yield seen
        except (RuntimeError, DisconnectedError) as error:
            _check_differentiable(model, error)
            raise


def _matched(model: nn.Module, layers: LayerSpec) -> dict[str, nn.Module]:
    specs = listed(layers)
    wants_input = INPUT in specs and INPUT not in dict(model.named_children())
    rest = [spec for spec in specs if not (wants_input and spec == INPUT)]
    matched = match_layers(model, rest) if rest or not wants_input else {}
    return {INPUT: model, **matched} if wants_input else matched


def _check_differentiable(model: nn.Module, error: Exception) -> None:
    """Raise a :class:`ModelError` if a derivative failed because of what the model is made of."""
    if any(p is not None and p.is_inference() for module in model.modules() for p in module._parameters.values()):
        raise ModelError(
            "the model's parameters were created inside torch.inference_mode(), so nothing can be "
            "differentiated; build or load the model outside of it"
        ) from None
    if "use_reentrant" in str(error):
        raise ModelError(
            "a part of the model runs under reentrant gradient checkpointing, which gives no gradient with respect to "
            f"layers; {NOT_REENTRANT}"
        ) from None
    quantised = next((m for m in model.modules() if ".quantized" in type(m).__module__), None)
    if isinstance(error, DisconnectedError) and quantised is not None:
        raise ModelError(
            f"the model is quantised ({type(quantised).__name__}), and quantised layers have no gradient; take a "
            "method that needs none (ablationcam, reciprocam, scorecam, eigencam, rise), or the model before it was "
            "quantised"
        ) from None


def _stacked(column: Sequence[Tensor | None], scores: Tensor) -> Tensor | None:
    """Derivatives of all targets at one place, zero where a target doesn't depend on it; None if none does."""
    known = next((derivative for derivative in column if derivative is not None), None)
    if known is None:
        return None
    filled = [torch.zeros_like(known) if derivative is None else derivative for derivative in column]
    return torch.stack(filled) if scores.ndim == 2 else filled[0]
