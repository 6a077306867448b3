"""What methods ask for, about one batch: taken in one pass, the rest on demand, shared by all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._progress import Track
from hookmap.attribution.execution import Execution, copies_at_once
from hookmap.attribution.fullgradients import full_gradients
from hookmap.attribution.modifiers import noisy
from hookmap.errors import DisconnectedError, HookmapError, LayerError, TargetError
from hookmap.hooks.capture import INPUT, Capture, capture
from hookmap.hooks.registration import plain_attention
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods import METHODS, Method
from hookmap.methods.gradient import gradcam
from hookmap.methods.weighting import full_precision
from hookmap.results.question import Settings
from hookmap.targets.resolved import ResolvedTargets

_FROM_A_PASS = {"activation", "gradient", "curvature", "replay", "head", "ablated"}
NOISY_SAMPLES = 25


class Evidence:
    """Everything that methods may ask for, about one batch.

    Args:
        execution: the model, in evaluation mode, and how to run it.
        x: its input, ``(B, C, *size)``.
        layouts: how to read the layers that maps are wanted of.
        methods: that will be asked; only what they need is taken.
        traced: the model's layers.
        settings: seed and budget.
        track: called with a description and a total, gives a function that is told of progress.
        pin: from the model's output to T targets.
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
        pin: Callable[[Any], ResolvedTargets],
    ) -> None:
        self._execution = execution
        self._x = x
        self._layouts = layouts
        self._traced = traced
        self._settings = settings
        self._track = track
        self._needs = frozenset[str]().union(*(method.needs for method in methods))
        self._pin = pin
        self._transforms = [m for m in methods if m.score is not None]
        self._undefined: dict[str, TargetError] = {}
        self._straight: RuntimeError | None = None
        self._maps: dict[tuple[str, str | None], Tensor] = {}
        self._shares: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._cache: dict[Any, Tensor] = {}
        self._same: dict[str, set[str]] = {}
        try:
            self._pass([*layouts])
        except DisconnectedError:
            # A model that runs its backbone under no_grad needs a graph that starts at the input.
            self._pass([*layouts, INPUT])

    def _pass(self, names: list[str]) -> None:
        if not self._needs & _FROM_A_PASS:
            with torch.no_grad(), self._execution.casting(self._x):
                output = self._execution.module(())(self._x)
            self.goals = self._pin(output)
            self.scores = self.goals.scores(output)
            return
        gradients = bool(self._needs & {"gradient", "curvature"})
        # Compiled code can't be differentiated twice.
        model = self._execution.model if "curvature" in self._needs else self._execution.module(names)
        # Nor can fused attention.
        attention = plain_attention() if "curvature" in self._needs else nullcontext()
        with capture(model, names, gradients=gradients) as seen, torch.set_grad_enabled(False), attention:
            with self._execution.casting(self._x):
                output = model(self._x)
            with torch.set_grad_enabled(gradients):
                self.goals = self._pin(output)
                rows = self.goals.scores(output)
                if (scores := self.goals.class_scores(output)) is not None:
                    self._logits = scores.values.detach()
                if rows.shape[1] != len(self._x):
                    raise TargetError(
                        f"a target gave {rows.shape[1]} scores for {len(self._x)} images; expected one per image, (B,)"
                    )
                if gradients:
                    seen.differentiate(torch.cat([rows, *self._transformed(output)]))
                if "curvature" in self._needs:
                    try:
                        seen.curve(rows)
                    except RuntimeError as error:  # not every operation can be differentiated twice
                        if out_of_memory(error):
                            raise
                        self._straight = error
        self.scores = rows.detach()
        self._seen: Capture = seen

    def _transformed(self, output: Any) -> list[Tensor]:
        """The scores of methods that differentiate others than the targets' own; those that can't be are noted."""
        scores, defined = [], []
        for method in self._transforms:
            assert method.score is not None
            try:
                scores.append(self.goals.transformed(output, method.score, method.name))
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
            self._maps[key] = self._computed(method, layer)
        return self._maps[key]

    def calls(self, layer: str) -> int:
        """How often a layer ran; maps are of its last call."""
        return len(self._seen[layer].calls) if self._needs & _FROM_A_PASS else 1

    def same(self, layer: str) -> set[str]:
        """Names of methods that gave one and the same map at this layer because its gradient is the same everywhere."""
        return self._same.get(layer, set())

    def _computed(self, method: Method, layer: str | None) -> Tensor:
        count, batch = self.scores.shape
        if method.name in self._undefined:
            raise self._undefined[method.name]
        if method.objects:
            self.goals.check_objects(method.name)
        if method.uniform and layer is not None and method.score is None and self._is_uniform(layer):
            other = METHODS[method.uniform]
            self._same.setdefault(layer, {other.name}).add(method.name)
            return self.map(other, layer)
        if method.one_by_one:
            found = []
            for sample in range(batch):
                given = {word: self._of_one(word, layer, sample, method) for word in method.needs}
                maps = _checked(method, given, {1, count})
                found.append(maps.expand(count, *maps.shape[1:]))
            return torch.stack(found, 1)
        if not method.knows_target:
            given = {word: self._of_all(word, layer, method, fold=False) for word in method.needs}
            maps = _checked(method, given, {batch})
            return maps.expand(count, *maps.shape)
        given = {word: self._of_all(word, layer, method, fold=True) for word in method.needs}
        maps = _checked(method, given, {count * batch})
        return maps.reshape(count, batch, *maps.shape[1:])

    def _is_uniform(self, layer: str) -> bool:
        gradient = self.gradient(layer)[: len(self.scores)].flatten(3)
        return bool((gradient == gradient[..., :1]).all())

    # ---------------------------------------------------------------- ingredients

    def activation(self, layer: str) -> Tensor:
        """``(B, C, *grid)``, float32 at least."""
        return self._kept("activation", layer, lambda: self._grid(layer, self._seen[layer].calls[-1].activation))

    def gradient(self, layer: str) -> Tensor:
        """Of all targets, then of the transformed scores, ``(R, B, C, *grid)``."""
        return self._kept("gradient", layer, lambda: self._grid(layer, self._gradient(layer)))

    def _gradient(self, layer: str) -> Tensor:
        call = self._seen[layer].calls[-1]
        if next(iter(call.activations)) not in call.gradients:
            raise DisconnectedError(f"the target doesn't depend on layer {layer!r}; pass a layer that leads to it")
        return call.gradient

    def _kept(self, word: str, layer: str, take: Callable[[], Tensor]) -> Tensor:
        if (word, layer) not in self._cache:
            self._cache[word, layer] = take()
        return self._cache[word, layer]

    def _grid(self, layer: str, tensor: Tensor) -> Tensor:
        return full_precision(self._layouts[layer].to_grid(tensor))

    def _rows(self, method: Method, layer: str) -> Tensor:
        """The gradients ``(T, B, C, *grid)`` that a method asked for."""
        block = 1 + self._transforms.index(method) if method.score is not None else 0
        return self.gradient(layer)[block * len(self.scores) : (block + 1) * len(self.scores)]

    def _of_all(self, word: str, layer: str | None, method: Method, *, fold: bool) -> Any:
        """An ingredient for the whole batch; with ``fold``, T targets and B images are one axis."""
        times = len(self.scores) if fold else 1

        def repeated(tensor: Tensor) -> Tensor:
            return tensor if times == 1 else tensor.expand(times, *tensor.shape).flatten(0, 1)

        if word in ("generator", "budget"):
            return self._settings.generator() if word == "generator" else self._settings.budget
        if word == "image":
            return repeated(self._x)
        if word == "score":
            return full_precision(self.scores).flatten()
        assert layer is not None
        if word == "activation":
            return repeated(self.activation(layer))
        if word == "gradient":
            return self._rows(method, layer).flatten(0, 1)
        if word == "curvature":
            if self._straight is not None:
                raise LayerError(
                    f"{method.name} needs second derivatives, and this model has none ({self._straight}); take gradcam"
                ) from self._straight
            curvature = next(iter(self._seen[layer].calls[-1].curvatures.values()))
            return self._grid(layer, curvature).flatten(0, 1)
        if word == "moments":
            return self._moments[layer].flatten(0, 1)
        if word == "ablated":
            return self._kept("ablated", layer, lambda: self._ablated(layer)).flatten(0, 1)
        return self._head(layer).flatten(0, 1)

    def _of_one(self, word: str, layer: str | None, sample: int, method: Method) -> Any:
        """An ingredient for one image, with T targets."""
        if word == "generator":
            return self._settings.generator()
        if word == "budget":
            return self._settings.budget  # None leaves the method's own default
        if word == "image":
            return self._x[sample : sample + 1]
        if word == "score":
            return full_precision(self.scores[:, sample])
        what = f"{method.name}, image {sample + 1} of {len(self._x)}" if len(self._x) > 1 else method.name
        if word == "probe":
            return _InputProbe(self, sample, what)
        if word in ("terms", "magnitudes"):
            signed, magnitudes = self._full_gradients(sample)
            return signed if word == "terms" else magnitudes
        assert layer is not None
        if word == "activation":
            return self.activation(layer)[sample : sample + 1]
        if word == "gradient":
            return self._rows(method, layer)[:, sample]
        if word == "replay":
            return _LayerProbe(self, sample, what, layer)
        if word == "cam_of":
            return lambda images: self._cam_of(images, layer, sample, what)
        raise LayerError(
            f"the method {method.name!r} asks for {word!r} and looks at one image at a time; it can't have both"
        )

    def _full_gradients(self, sample: int) -> tuple[list[Tensor], list[Tensor]]:
        if sample not in self._shares:
            self._shares[sample] = full_gradients(
                self._execution.model,
                self._x[sample : sample + 1],
                lambda output: self.goals.scores(output, sample),
                self._traced,
            )
        return self._shares[sample]

    @cached_property
    def _moments(self) -> dict[str, Tensor]:
        """Means of g, g^2 and g^3 over noisy inputs, by layer, ``(T, B, 3, C, *grid)``."""
        total: dict[str, Tensor] = {}
        done = self._track("noisy inputs", NOISY_SAMPLES)
        for variation in noisy(self._x, NOISY_SAMPLES, self._settings.generator()):
            seen, _ = self._differentiated(variation.x, [*self._layouts])
            for layer in self._layouts:
                g = self._grid(layer, seen[layer].calls[-1].gradient)
                powers = torch.stack([g, g**2, g**3], 2) / NOISY_SAMPLES
                total[layer] = total[layer] + powers if layer in total else powers
            done(1)
        return total

    def _head(self, layer: str) -> Tensor:
        """The target classes' rows of the linear head, ``(T, B, C)``."""
        classes = self.goals.classes("cam")
        weight = self._plain_head(layer)
        if weight is None:
            raise LayerError(
                "cam is defined where a layer is followed by global average pooling and one linear layer only, and "
                f"{layer!r} isn't; take gradcam, its generalisation, or the layer directly before the pooling"
            )
        return weight[classes]

    def _plain_head(self, layer: str) -> Tensor | None:
        """The weights ``(classes, C)`` of a linear layer that, after average pooling, gives the very scores; or None.

        Raises:
            TargetError: if a target isn't the logit of a class.
        """
        self.goals.classes("a linear head")
        activation, true = self.activation(layer), full_precision(self._logits)
        fits = [
            module
            for module in self._execution.model.modules()
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
            and module.weight.numel() == true.shape[1] * activation.shape[1]
            and module.weight.shape[0] == true.shape[1]
        ]
        pooled = activation.flatten(2).mean(2)
        half = self._logits.dtype in (torch.float16, torch.bfloat16)
        for module in reversed(fits):
            weight = full_precision(module.weight.detach()).flatten(1)
            bias = full_precision(module.bias.detach()) if module.bias is not None else weight.new_zeros(len(weight))
            # All classes: one score alone could agree by chance, in half precision above all.
            logits = pooled @ weight.mT + bias
            if torch.allclose(logits, true, rtol=0, atol=(0.05 if half else 1e-3) * float(true.abs().max())):
                return weight
        return None

    def _ablated(self, layer: str) -> Tensor:
        """Scores with each channel set to zero, ``(T, B, C)``: in closed form if a plain linear head follows."""
        activation, scores = self.activation(layer), full_precision(self.scores)
        try:
            weight = self._plain_head(layer)
        except TargetError:
            weight = None
        if weight is not None:
            return scores[..., None] - weight[self.goals.classes("ablation")] * activation.flatten(2).mean(2)
        channels = activation.shape[1]
        ablated = scores.new_empty(*scores.shape, channels)
        for sample in range(len(self._x)):
            replay = _LayerProbe(self, sample, f"ablationcam, image {sample + 1} of {len(self._x)}", layer)
            whole = self.activation(layer)[sample : sample + 1]
            alone = None if self._execution.takes_batches(self._x) else replay(whole)
            copies: Tensor | None = None
            for part in replay.parts(channels):
                channel = torch.arange(part.start, part.stop, device=activation.device)
                copy = channel - part.start + 1
                if copies is None:  # written to and mended, because memory is what this costs
                    copies = activation[sample].repeat(len(copy) + 1, *[1] * (activation.ndim - 1))
                copies[copy, channel] = 0
                # The first copy is whole: a rounding that all share must not count as a fall for every channel.
                found = replay(copies[: len(copy) + 1])
                ablated[:, sample, part] = scores[:, sample, None] + found[:, 1:] - found[:, :1]
                copies[copy, channel] = activation[sample, part]
        return ablated

    def _cam_of(self, images: Tensor, layer: str, sample: int, what: str) -> tuple[Tensor, Tensor]:
        """Grad-CAM of other images at a layer ``(T, K, *grid)``, and their probabilities ``(T, K)``."""
        maps, sure = [], []
        for part in self.parts(len(images), what):
            seen, output = self._differentiated(images[part], [layer], sample)
            sure.append(self.goals.likely(output, sample).detach())
            call = seen[layer].calls[-1]
            activation, gradient = (self._grid(layer, t) for t in (call.activation, call.gradient))
            maps.append(torch.stack([gradcam(activation, one) for one in gradient]))
        return torch.cat(maps, 1), torch.cat(sure, 1)

    def _differentiated(self, x: Tensor, layers: Sequence[str], sample: int | None = None) -> tuple[Capture, Any]:
        """Gradients for other inputs ``x``, and their output."""
        try:
            return self._differentiated_from(layers, x, sample)
        except DisconnectedError:
            return self._differentiated_from([*layers, INPUT], x, sample)

    def _differentiated_from(self, names: Sequence[str], x: Tensor, sample: int | None) -> tuple[Capture, Any]:
        model = self._execution.module(names)
        with capture(model, names) as seen:
            with self._execution.casting(x):
                output = model(x)
            seen.differentiate(self.goals.scores(output, sample))
        return seen, output

    # ---------------------------------------------------------------- probes

    def parts(self, count: int, what: str, layer: str | None = None) -> Iterator[slice]:
        """Indices 0..count in slices whose copies fit into memory."""
        together = count > 1 and self._execution.takes_batches(self._x)
        size = copies_at_once(self._x, self._traced, layer) if together else 1
        done = self._track(what, count)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield part
            done(part.stop - part.start)

    @cached_property
    def _many(self) -> Callable[[Tensor], Any]:
        return self._execution.for_many_passes(self._x)


def _checked(method: Method, given: Mapping[str, Any], lengths: set[int]) -> Tensor:
    """A method's maps; what is None is left to the method's own default."""
    maps = method.function(**{word: value for word, value in given.items() if value is not None})
    if not isinstance(maps, Tensor) or maps.ndim < 2 or len(maps) not in lengths:
        got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
        raise HookmapError(f"the method {method.name!r} gave {got}; expected maps (B, *grid) with B = {max(lengths)}")
    return maps


class _InputProbe:
    """Scores of changed copies of one input."""

    def __init__(self, evidence: Evidence, sample: int, what: str) -> None:
        self._evidence = evidence
        self._sample = sample
        self._what = what

    def __call__(self, changed: Tensor) -> Tensor:
        return full_precision(self._evidence.goals.scores(self._run(changed), self._sample))

    def probability(self, changed: Tensor) -> Tensor:
        return self._evidence.goals.likely(self._run(changed), self._sample)

    def distribution(self, changed: Tensor) -> Tensor:
        return self._evidence.goals.distribution(self._run(changed))

    def parts(self, count: int) -> Iterator[slice]:
        return self._evidence.parts(count, self._what)

    def _run(self, changed: Tensor) -> Any:
        return self._evidence._many(changed.to(self._evidence._x.dtype))


class _LayerProbe(_InputProbe):
    """Scores of changed copies of one image's activation at a layer, ``(K, C, *grid)``."""

    def __init__(self, evidence: Evidence, sample: int, what: str, layer: str) -> None:
        super().__init__(evidence, sample, what)
        self._layer = layer

    def parts(self, count: int) -> Iterator[slice]:
        return self._evidence.parts(count, self._what, self._layer)

    def _run(self, changed: Tensor) -> Any:
        seen, layout = self._evidence._seen, self._evidence._layouts[self._layer]
        calls = seen[self._layer].calls
        like = calls[-1].activation[self._sample : self._sample + 1]
        with self._evidence._execution.casting(changed):
            changed = layout.from_grid(changed, like)
            return seen.replay(self._layer, changed, sample=self._sample, call=len(calls) - 1)
