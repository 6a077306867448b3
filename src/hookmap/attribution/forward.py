"""One pass of a model over a batch, from which all methods take what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._progress import Track
from hookmap.attribution.execution import Execution, copies_at_once
from hookmap.attribution.passes import Passes
from hookmap.errors import DisconnectedError, HookmapError, LayerError, TargetError
from hookmap.hooks.capture import INPUT, Capture, capture
from hookmap.hooks.graph import Gradients, plain_gradients
from hookmap.hooks.registration import plain_attention
from hookmap.layers.choice import attention_follows
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods import METHODS, Method
from hookmap.methods.ingredients import Pass, Records, Request
from hookmap.methods.ingredients.attention import attended
from hookmap.methods.ingredients.recorded import gradients
from hookmap.methods.weighting import full_precision
from hookmap.relevance import balanced_gradients
from hookmap.results.question import Settings
from hookmap.targets.resolved import ResolvedTargets


class Forward(Pass):
    """A pass over one batch, and the maps of methods that share what it recorded; see :class:`Pass`.

    Args:
        execution: the model, in evaluation mode, and how to run it.
        x: its input, ``(B, C, *size)``.
        layouts: how to read the layers that maps are wanted of.
        methods: that will be asked; only what they need is recorded.
        traced: the model's layers.
        settings: seed and budget.
        track: called with a description and a total, gives a function that is told of progress.
        resolve: from the model's output to T targets.
        passes: that are kept over this input, among which its own may be; None: it is made and forgotten.
    """

    def __init__(
        self,
        execution: Execution,
        x: Tensor,
        layouts: Mapping[str, Layout],
        methods: Sequence[Method],
        traced: Trace,
        settings: Settings,
        track: Track,
        resolve: Callable[[Any], ResolvedTargets],
        passes: Passes | None = None,
    ) -> None:
        self.model = execution.model
        self.x = x
        self.layouts = layouts
        self.traced = traced
        self.budget = settings.budget
        self.track = track
        self.logits: Tensor | None = None
        self.pixel_gradient: Tensor | None = None
        self.cautions: dict[tuple[str, int], Sequence[str]] = {}
        self.no_curvature: RuntimeError | None = None
        self._execution = execution
        self._settings = settings
        self._passes = passes
        self._records = max((i.records for method in methods for i in method.ingredients), default=Records.NOTHING)
        wanted = [i for method in methods for i in method.ingredients if i.attention]
        self._attention = bool(wanted)
        whole = any(not i.of_layer for i in wanted) or not all(attention_follows(name, traced) for name in layouts)
        self._start = [INPUT] if wanted and whole else []
        self._resolve = resolve
        self._transforms = [m for m in methods if m.score is not None]
        self._undefined: dict[str, TargetError] = {}
        self._maps: dict[tuple[str, str | None], Tensor] = {}
        self._kept: dict[tuple[str, object], Any] = {}
        self._same: dict[str, set[str]] = {}
        kind = x.device.type
        # The user's own autocast, which holds for the model and not for sums over what it gives.
        self._autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # Several passes would need less memory: a batch whose graph doesn't fit is left to them.
        whole = (
            not (layouts or self._records)
            and any(i.starts_at_input for method in methods for i in method.ingredients)
            and len(x) <= copies_at_once(x, traced, graph=True)
        )
        try:
            self._run([INPUT] if whole else [*layouts, *self._start], Records.GRADIENTS if whole else self._records)
            if whole:
                self.pixel_gradient = full_precision(self.seen[INPUT].calls[-1].gradient[: len(self.scores)])
        except DisconnectedError:
            # A model that runs its backbone under no_grad needs a graph that starts at the input.
            try:
                self._run([*layouts, INPUT], self._records)
            except DisconnectedError:
                raise DisconnectedError(
                    "no gradient leads from the score to the picture: either nothing in the picture changes it, or the "
                    "model computes it without a graph (no_grad, detach, argmax, NumPy); ask for something else, or "
                    "take a method without gradients, such as rise"
                ) from None

    def _run(self, names: list[str], records: Records) -> None:
        if records == Records.NOTHING:
            with torch.no_grad(), self.casting(self.x):
                output = self._execution.module(())(self.x)
            self.targets = self._resolve(output)
            self.scores = self.targets.scores(output).detach()
            return
        differentiated, curved = records >= Records.GRADIENTS, records >= Records.CURVATURES
        # Neither compiled code nor fused attention can be differentiated twice, and compiled code hides its nodes.
        model = self.model if curved or self._attention else self._differentiable(names)
        graph = differentiated or self._attention
        with (
            self._captured(model, names, graph=graph, curved=curved) as (seen, output),
            torch.set_grad_enabled(differentiated),
        ):
            self.targets = self._resolve(output)
            rows = self.targets.scores(output)
            if (classes := self.targets.class_scores(output)) is not None:
                self.logits = classes.values.detach()
            if rows.shape[1] != self.x.shape[0]:
                raise TargetError(
                    f"a target gave {rows.shape[1]} scores for {self.x.shape[0]} images; expected one per image, (B,)"
                )
            if differentiated:
                scores = torch.cat([rows, *self._transformed(output)])
                seen.differentiate(scores, self.gradients(output), layers=names)
            if curved:
                try:
                    seen.curve(rows)
                except RuntimeError as error:  # not every operation can be differentiated twice
                    if out_of_memory(error):
                        raise
                    self.no_curvature = error
            for attended_to in seen.attentions if self._passes is None else ():
                attended(self.traced, attended_to)  # which finds what the graph alone can tell
        self.scores = rows.detach()
        self.seen = seen if self._passes is None else seen.without_graph(names)

    @contextmanager
    def _captured(
        self, model: nn.Module, names: list[str], *, graph: bool, curved: bool
    ) -> Iterator[tuple[Capture, Any]]:
        """The block of a pass without gradients: what was captured, and the output; with its graph if that is asked."""
        if self._passes is not None and graph and not curved:
            casting = self.casting(self.x)
            kept = self._passes.over(model, self.x, names, casting, attention=self._attention)
            with torch.no_grad():
                yield kept
            return
        attention = plain_attention() if curved else nullcontext()
        with (
            capture(model, names, gradients=graph, attention=self._attention) as seen,
            torch.set_grad_enabled(False),
            attention,
        ):
            with self.casting(self.x):
                output = model(self.x)
            yield seen, output

    def _transformed(self, output: Any) -> list[Tensor]:
        """The scores of methods that differentiate others than the targets' own; those that can't be are noted."""
        scores, defined = [], []
        for method in self._transforms:
            assert method.score is not None
            try:
                scores.append(self.targets.transformed(output, method.score, method.name))
            except TargetError as error:
                self._undefined[method.name] = error
            else:
                defined.append(method)
        self._transforms = defined
        return scores

    # ---------------------------------------------------------------- maps

    def map(self, method: Method, layer: str | None) -> Tensor:
        """The signed maps of a method, ``(T, B, *grid)``."""
        key = method.name, layer
        if key not in self._maps:
            maps = self._computed(method, layer)
            self._maps[key] = maps if layer is None else self.layouts[layer].whole(maps)
        return self._maps[key]

    def calls(self, layer: str) -> int:
        """How often a layer ran; maps are of its last call."""
        return len(self.seen[layer].calls) if self._records else 1

    def same(self, layer: str) -> set[str]:
        """Names of methods that gave one and the same map at this layer because its gradient is the same everywhere."""
        return self._same.get(layer, set())

    def _computed(self, method: Method, layer: str | None) -> Tensor:
        count, batch = self.scores.shape
        if method.name in self._undefined:
            raise self._undefined[method.name]
        if method.objects:
            self.targets.check_objects(method.name)
        if method.uniform and layer is not None and method.score is None and self._is_uniform(layer):
            other = METHODS[method.uniform]
            self._same.setdefault(layer, {other.name}).add(method.name)
            return self.map(other, layer)
        request = Request(method.name, layer or "")
        if layer is not None and "image" in method.needs and len(self.layouts[layer].grid) != self.x.ndim - 2:
            raise LayerError(
                f"{method.name} lays feature maps over the input, and at {layer!r} they are {self.layouts[layer]}; "
                "take hirescam, or featureablation, which needs no layer"
            )
        if method.one_by_one:
            images = []
            for sample in range(batch):
                given = {i.name: i.of_image(self, request, sample) for i in method.ingredients}
                maps = self._called(method, given, (1, count))
                images.append(maps.expand(count, *maps.shape[1:]))
            return torch.stack(images, 1)
        given = {i.name: i.of_batch(self, request) for i in method.ingredients}
        if not method.knows_target:
            maps = self._called(method, given, (batch,))
            return maps.expand(count, *maps.shape)
        # T targets and B images are one axis.
        for i in method.ingredients:
            if isinstance(value := given[i.name], Tensor):
                given[i.name] = (value if i.of_target else value.expand(count, *value.shape)).flatten(0, 1)
        maps = self._called(method, given, (count * batch,))
        return maps.reshape(count, batch, *maps.shape[1:])

    def _called(self, method: Method, given: Mapping[str, Any], lengths: Sequence[int]) -> Tensor:
        """A method's maps; what is None is left to the method's own default."""
        with torch.autocast(self.x.device.type, enabled=False) if self._autocast else nullcontext():
            maps = method.function(**{name: value for name, value in given.items() if value is not None})
        if not isinstance(maps, Tensor) or maps.ndim < 2 or maps.shape[0] not in lengths:
            got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
            raise HookmapError(
                f"the method {method.name!r} gave {got}; expected maps (B, *grid) with B = {max(lengths)}"
            )
        return full_precision(maps.detach())

    def _is_uniform(self, layer: str) -> bool:
        gradient = gradients(self, layer)[: len(self.scores)].flatten(3)
        return bool((gradient == gradient[..., :1]).all())

    # ---------------------------------------------------------------- what ingredients ask

    def casting(self, x: Tensor) -> AbstractContextManager[Any]:
        """The block in which the model is to be called: the execution's precision, else the user's own autocast."""
        if self._execution.precision == "fp32" and self._autocast:
            return torch.autocast(x.device.type, self._autocast)
        return self._execution.casting(x)

    def generator(self) -> torch.Generator:
        """Random numbers from the start of the seed."""
        return self._settings.generator()

    def rows(self, method: str) -> slice:
        """Which of the differentiated scores are a method's."""
        block = next((n for n, other in enumerate(self._transforms, 1) if other.name == method), 0)
        return slice(block * len(self.scores), (block + 1) * len(self.scores))

    def grid(self, layer: str, tensor: Tensor) -> Tensor:
        """What a layer gave, or its derivative, as channels over its grid, in float32 at least."""
        return full_precision(self.layouts[layer].to_grid(tensor))

    def kept(self, key: tuple[str, object], take: Callable[[], Any]) -> Any:
        """What several methods ask for, taken once."""
        if key not in self._kept:
            self._kept[key] = take()
        return self._kept[key]

    def differentiated(self, x: Tensor, layers: Sequence[str], of: int | slice | None = None) -> tuple[Capture, Any]:
        """Gradients for other inputs ``x``, and the model's output."""
        try:
            return self._differentiated(x, layers, of)
        except DisconnectedError:
            return self._differentiated(x, [*layers, INPUT], of)

    def _differentiated(self, x: Tensor, names: Sequence[str], of: int | slice | None) -> tuple[Capture, Any]:
        model = self._differentiable(names)
        with capture(model, names) as seen:
            with self.casting(x):
                output = model(x)
            seen.differentiate(self.targets.scores(output, of), self.gradients(output))
        return seen, output

    def _differentiable(self, names: Sequence[str]) -> nn.Module:
        return self.model if self._settings.libra else self._execution.module(names)

    def gradients(self, output: Any) -> Gradients:
        """How gradients are taken of what is made of an output of the model, or of one of its layers."""
        return balanced_gradients(output) if self._settings.libra else plain_gradients

    def output(self, x: Tensor) -> Any:
        """The model's output for changed inputs, without gradients."""
        with self.casting(x):
            return self._many(x)

    @cached_property
    def _many(self) -> Callable[[Tensor], Any]:
        return self._execution.for_many_passes(self.x)

    def takes_batches(self) -> bool:
        """Whether copies of an image can run together."""
        return self._execution.takes_batches(self.x)

    def slices(self, count: int, what: str, layer: str | None = None, *, graph: bool = False) -> Iterator[slice]:
        """Indices 0..count in slices whose copies fit into memory."""
        together = count > 1 and self.takes_batches()
        size = copies_at_once(self.x, self.traced, layer, graph=graph) if together else 1
        done = self.track(what, count)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield part
            done(part.stop - part.start)
