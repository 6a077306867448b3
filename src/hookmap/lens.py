"""Lens: a model with what is known of it, ready to be looked through."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from hookmap import models
from hookmap.capture import Capture, capture
from hookmap.concepts import Concepts, Factorization
from hookmap.errors import (
    HookmapError,
    HookmapWarning,
    ImageError,
    LayerError,
    ModelError,
    TargetError,
)
from hookmap.evidence import Settings
from hookmap.execution import Execution, Precision
from hookmap.explaining import Plan, explain_batch
from hookmap.factoring import Asked, Seen, find_concepts, look, one_layer
from hookmap.features import FeatureMaps, LayerMaps
from hookmap.goals import Goals
from hookmap.heatmap import Explanation, Heatmap, Part
from hookmap.hooks import check_hookable, unwrapped
from hookmap.images import Picture, load_all
from hookmap.layers import LayerTree, Trace, choose_layer, trace
from hookmap.layouts import Layout
from hookmap.matching import LayerSpec, match_layers
from hookmap.methods import METHODS, Method, find_method
from hookmap.models.adapter import Adapter
from hookmap.modifiers import Fusion
from hookmap.outputs import class_scores
from hookmap.preprocessing import Preprocessing
from hookmap.preserve import preserved
from hookmap.progress import tracking
from hookmap.targets import PREDICTED, TargetSpec, resolve
from hookmap.views import View, is_input, tensor_views

if TYPE_CHECKING:
    from PIL import Image


MethodSpec: TypeAlias = "str | Callable[..., Tensor]"


@dataclass(frozen=True)
class Prediction:
    """One class that a model sees in an image."""

    index: int
    label: str
    score: float
    probability: float


class Lens:
    """A model and what hookmap knows of it: preprocessing, labels, layers and how to read their outputs.

    Args:
        model: an ``nn.Module``, or a name: ``"efficientnet_lite0"`` (the embedded default),
            a torchvision or timm model, ``"package.module:factory"`` or ``"file.py:factory"``.
        weights: a checkpoint (safetensors, or a state dict) to load into a model given by name.
        pretrained: with False, a model given by name keeps its random weights.
        labels: class names, if the model doesn't bring its own.
        preprocessing: from image to input, if the model doesn't bring its own: a
            :class:`hookmap.Preprocessing`, torchvision transforms, or a timm data config.
        layouts: how to read layers that can't be read from their shape, by layer name.
        device: where to run; by default where the module is, or the best there is for a name.
        precision: ``"fp32"`` (as the model is), or ``"bf16"`` or ``"fp16"`` by autocast: about half the time where the
            hardware has it; maps correlate with those of fp32 at .98 (bf16) and .995 (fp16) or more, Grad-CAM at .99.
        compile: run what lies between the layers that are looked at through ``torch.compile``: worth its minutes of
            preparation for thousands of images of one size, on a GPU above all.

    Raises:
        ModelError: if the model can't be found, loaded or hooked.

    The model is used in evaluation mode and left exactly as it came.
    """

    def __init__(
        self,
        model: nn.Module | str = models.DEFAULT,
        *,
        weights: str | Path | None = None,
        pretrained: bool = True,
        labels: Sequence[str] | None = None,
        preprocessing: Any = None,
        layouts: Mapping[str, Layout] | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        compile: bool = False,
    ) -> None:
        if isinstance(model, str):
            known = models.load(model, pretrained=pretrained, weights=weights)
            device = device or _best_device()
        elif isinstance(model, nn.Module):
            if weights is not None or not pretrained:
                raise ModelError("weights= and pretrained= go with a model's name; load them into your module yourself")
            known = models.describe(unwrapped(model))
        else:
            raise ModelError(f"the model is a {type(model).__name__}; expected a torch.nn.Module or a model's name")
        self.model = unwrapped(known.model)
        check_hookable(self.model)
        if device is not None:
            self.model.to(_device(device))
        self._called: nn.Module = known.adapter if known.adapter is not None else self.model
        self._execution = Execution(self._called, precision, compile=compile)
        self.name = known.name
        self.labels = list(labels) if labels is not None else known.labels
        self.preprocessing = _as_preprocessing(preprocessing) or known.preprocessing
        self._layouts = dict(layouts or {})
        self._note = known.note if preprocessing is None else None
        self._said: set[str] = set()
        self._traces: dict[tuple[int, ...], Trace] = {}
        self._defaults: dict[tuple[int, ...], str] = {}

    def __repr__(self) -> str:
        return f"Lens({self.name!r} on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        parameter = next(self.model.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    # ---------------------------------------------------------------- what it can be asked

    def predict(self, images: Any, *, top: int = 5, batch_size: int = 16) -> list[list[Prediction]]:
        """The ``top`` classes of each image, the most probable first (softmax over the classes)."""
        results = []
        for batch, x in self._batches(images, batch_size):
            with preserved(self.model), torch.no_grad(), self._execution.casting(x):
                scores = class_scores(self._execution.module(())(x)).float()
            best = scores.topk(min(top, scores.shape[1]))
            probabilities = scores.softmax(1).gather(1, best.indices)
            for i in range(len(batch)):
                rows = zip(best.indices[i].tolist(), best.values[i].tolist(), probabilities[i].tolist(), strict=True)
                results.append([Prediction(index, self._label(index), score, p) for index, score, p in rows])
        return results

    def explain(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] = "gradcam",
        *,
        aug_smooth: bool = False,
        noise_smooth: bool | int = False,
        eigen_smooth: bool = False,
        fuse: Fusion | None = None,
        part: Part | None = None,
        seed: int = 0,
        budget: int | None = None,
        batch_size: int = 16,
        progress: bool = True,
    ) -> Explanation:
        """Heatmaps that show where the evidence for ``target`` is.

        Activations and gradients are taken once and shared by all targets, layers and methods.

        Args:
            images: a path, bytes, PIL image, NumPy array or uint8 tensor, or a list of them; or a
                floating-point tensor ``(C, H, W)``, ``(B, C, H, W)`` or ``(B, C, T, H, W)`` that is
                already preprocessed.
            target: ``"predicted"`` (each image's top-1 class), a class index, a label, a target
                (:class:`hookmap.Probability`, :class:`hookmap.Contrast`, ...), a function from the model's output to
                ``(B,)`` scores, or a list of these.
            layer: where to look; by default the last layer that has places through which the decision
                passes. Several are explained one by one.
            method: a name of ``hookmap.methods.METHODS``, ``"all"``, a function of ingredients (also a
                ``functools.partial`` of one of hookmap's), or a list of these.
            aug_smooth: average the maps of six mirrored, darker and brighter copies.
            noise_smooth: average over so many noisy copies too (True: 25), seeded.
            eigen_smooth: reduce the weighted feature maps to their first principal component.
            fuse: one map of several layers: ``"mean"``, ``"max"``, ``"product"`` (RefineCAM) or ``"layercam"``.
            part: ``"positive"``, ``"negative"`` (what speaks against the target) or ``"signed"``; by default what
                the method's paper shows.
            seed: of everything random; the same seed gives the same maps.
            budget: the most changed copies of one image that methods which mask may look at; by default as many
                as their papers do.
            batch_size: images per forward pass.
            progress: show a bar on a terminal while masking methods run.

        Returns:
            One heatmap per image, target, layer and method, in that order. Index it by name:
            ``explanation["layercam", "layer4"]``.
        """
        wanted = [target] if isinstance(target, (str, int)) or callable(target) else list(target)
        targets = [resolve(spec, self.labels) for spec in wanted]
        specs = [method] if isinstance(method, str) or callable(method) else list(method)
        methods = _methods(specs)
        if not targets or not methods:
            raise TargetError("an empty list of targets or methods was given; pass at least one")
        heatmaps: list[Heatmap] = []
        with tracking(progress) as track:
            samples = 25 if noise_smooth is True else int(noise_smooth)
            plan = Plan(
                targets, methods, Settings(seed, budget, track), aug_smooth, samples, fuse, part, "all" in specs
            )
            plan = plan.with_eigen_smooth() if eigen_smooth else plan
            for batch, x in self._batches(images, batch_size):
                traced = self._trace(x)
                names: list[str] = []
                if any(one.per_layer for one in methods):
                    names = self._default_layers(x) if layer is None else list(match_layers(self._called, layer))
                layouts = {name: traced.layout(name) for name in names}
                several = layer is None and len(names) > 1 and plan.fuse is None
                with preserved(self.model):
                    found, remarks = explain_batch(
                        self._execution,
                        batch,
                        x,
                        layouts,
                        traced,
                        replace(plan, fuse="sum") if several else plan,
                        self._label,
                    )
                heatmaps += found
                for sentence in remarks:
                    self._remark(sentence)
        for heatmap in heatmaps:
            if not heatmap.values.any():
                warnings.warn(
                    f"the heatmap of {heatmap.target!r} on {heatmap.picture.name!r} by {heatmap.method.name} is zero "
                    f"everywhere: nothing in layer {heatmap.layer!r} speaks for it; look at .raw (what speaks "
                    "against), or pass another layer",
                    HookmapWarning,
                    stacklevel=2,
                )
        return Explanation(heatmaps)

    def features(
        self,
        images: Any,
        layers: LayerSpec = "conv",
        *,
        target: TargetSpec | None = None,
        batch_size: int = 16,
    ) -> FeatureMaps:
        """Feature maps of ``layers``, each under its own name, in the order in which they ran.

        Args:
            images: as in :meth:`explain`.
            layers: name, glob, module, type, kind (``"conv"``, ``"all"``, ...) or a list of these.
            target: also take gradients of this target, so that channels can be ranked by them.
            batch_size: images per forward pass.

        Raises:
            LayerError: if a layer that was named can't be read as a grid, or none of a pattern's can.
        """
        goal = None if target is None else resolve(target, self.labels)
        parts: list[list[LayerMaps]] = []
        pictures: list[Picture] = []
        for batch, x in self._batches(images, batch_size):
            traced = self._trace(x)
            names = list(match_layers(self._called, layers))
            model = self._execution.module(names)
            with preserved(self.model), capture(model, names, gradients=goal is not None) as seen:
                with self._execution.casting(x):
                    output = model(x)
                if goal is not None:
                    seen.differentiate(Goals([goal], output).scores(output)[0])
            parts.append(self._layer_maps(seen, traced, layers))
            pictures += [view.picture for view in batch]
        return FeatureMaps(_joined(parts), pictures, self._overlays(images, batch_size), self.name)

    def concepts(
        self,
        images: Any,
        layer: LayerSpec | None = None,
        concepts: int = 5,
        method: Factorization = "nmf",
        *,
        top: int = 3,
        batch_size: int = 16,
        seed: int | None = None,
    ) -> Concepts:
        """The few things that a layer sees in all images together, where they are, and what the model calls them.

        Args:
            images: as in :meth:`explain`; the concepts are shared by all of them.
            layer: one layer; by default the one that is explained.
            concepts: how many.
            method: ``"nmf"``, parts (Deep Feature Factorization), or ``"pca"``, directions; see
                :mod:`hookmap.methods.factorization`.
            top: how many classes name each concept.
            batch_size: images per forward pass.
            seed: by default nothing is random; a number starts NMF from random numbers, to see which concepts stay.
        """
        name, seen = "", list[Seen]()
        for batch, x in self._batches(images, batch_size):
            name = name or (self.default_layer(x) if layer is None else one_layer(self._called, layer))
            layout = self._trace(x).layout(name)
            with preserved(self.model):
                seen += look(self._called, batch, x, name, layout)
        with preserved(self.model):
            asked = Asked(name, concepts, method, top, seed, self._label, self._to_model)
            found, remarks = find_concepts(self._called, seen, asked)
        for sentence in remarks:
            self._remark(sentence)
        return found

    def layers(self, image: Any = None) -> LayerTree:
        """The model's layers as a tree to read: name, type, output shape and layout.

        Args:
            image: an example to run on, where the model's input size isn't known.
        """
        x = next(self._batches(image, 1))[1] if image is not None else self._example()
        traced = self._trace(x)
        try:
            default: str | None = self.default_layer(x)
        except LayerError:
            default = None
        return LayerTree(traced, model=type(self.model).__name__, default=default)

    def default_layer(self, inputs: Tensor | None = None) -> str:
        """The layer that :meth:`explain` uses for inputs of this size ``(B, C, H, W)``."""
        x = self._example() if inputs is None else inputs
        traced = self._trace(x)
        key = tuple(x.shape[1:])
        if key not in self._defaults:
            with preserved(self.model):
                self._defaults[key] = choose_layer(self._called, x[:1], traced)
        return self._defaults[key]

    # ---------------------------------------------------------------- how it is done

    def _default_layers(self, x: Tensor) -> list[str]:
        levels = self._called.levels if isinstance(self._called, Adapter) else ()
        return list(levels) or [self.default_layer(x)]

    def _layer_maps(self, seen: Capture, traced: Trace, spec: LayerSpec) -> list[LayerMaps]:
        # A layer asked for by its very name must be readable; what a pattern brought along may be left out.
        asked = [spec] if isinstance(spec, (str, nn.Module, type)) else list(spec)
        found = []
        for name in seen.order:
            info = traced.layers[name]
            vector = info.shape is not None and len(info.shape) == 2
            if info.layout is None and not vector and name not in asked:
                continue
            layout = None if vector else traced.layout(name)
            for i, call in enumerate(seen[name].calls):
                key = next(iter(call.activations))
                maps, gradient = call.activation, call.gradients.get(key)
                if layout is not None:
                    maps = layout.to_grid(maps)
                    gradient = layout.to_grid(gradient) if gradient is not None else None
                title = name if i == 0 else f"{name}#{i + 1}"
                found.append(LayerMaps(title, info.kind, maps, str(layout or "vector"), gradient))
        if not found:
            raise LayerError(f"none of the layers {list(seen)[:5]} ran and gave feature maps; pass other layers")
        return found

    def _overlays(self, images: Any, batch_size: int) -> list[tuple[str, Image.Image]]:
        try:
            explained = self.explain(images, batch_size=batch_size)
        except (TargetError, LayerError):
            return []  # not a classifier, or no layer to explain: feature maps stand on their own
        return [(f"{h.picture.name}/{h.method.name}", h.overlay()) for h in explained]

    def _remark(self, sentence: str) -> None:
        """A warning that is said once per lens."""
        if sentence not in self._said:
            self._said.add(sentence)
            warnings.warn(sentence, HookmapWarning, stacklevel=4)

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"

    def _trace(self, x: Tensor) -> Trace:
        key = tuple(x.shape[1:])
        if key not in self._traces:
            prefix = getattr(self.model, "num_prefix_tokens", None)
            try:
                with preserved(self.model):
                    field = self._called.field(x.shape[2:]) if isinstance(self._called, Adapter) else None
                    prefix = prefix if isinstance(prefix, int) else None
                    traced = trace(self._called, x[:1], prefix=prefix, field=field)
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                if isinstance(error, HookmapError):
                    raise
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ModelError(
                    f"the model failed on an input of shape {(1, *key)}: {reason}; check the input's size and channels"
                ) from error
            for name, layout in self._layouts.items():
                if name not in traced.layers:
                    raise LayerError(f"layouts= names a layer {name!r} that the model doesn't have")
                traced.layers[name].layout = layout
            self._traces[key] = traced
        return self._traces[key]

    def _example(self) -> Tensor:
        if self.preprocessing is None:
            raise ModelError(
                "this model's input size isn't known; pass an example image or tensor, or preprocessing= to Lens"
            )
        channels = len(self.preprocessing.mean)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, channels, *self.preprocessing.size, generator=generator)
        return self._to_model(noise)

    def _to_model(self, x: Tensor) -> Tensor:
        parameter = next(self.model.parameters(), None)
        return x.to(self.device, parameter.dtype if parameter is not None else x.dtype)

    def _batches(self, images: Any, batch_size: int) -> Iterator[tuple[list[View], Tensor]]:
        """Images as batches of one input size each, in order."""
        if batch_size < 1:
            raise ImageError(f"batch_size is {batch_size}; expected 1 or more")
        views = tensor_views(images, self.preprocessing) if is_input(images) else self._image_views(images)
        for _, group in groupby(views, key=lambda view: view.tensor.shape):
            while batch := list(islice(group, batch_size)):
                x = self._to_model(torch.stack([view.tensor for view in batch]))
                yield batch, x

    def _image_views(self, images: Any) -> Iterator[View]:
        if self.preprocessing is None:
            raise ModelError(
                "how this model's images are preprocessed isn't known; pass preprocessing= to Lens (a "
                "hookmap.Preprocessing or your torchvision transforms), or a tensor that is already preprocessed"
            )
        if self._note:
            warnings.warn(self._note, HookmapWarning, stacklevel=4)
            self._note = None
        for picture in load_all(images):
            tensor, geometry = self.preprocessing(picture)
            yield View(tensor, picture, geometry)


def _methods(specs: Sequence[MethodSpec]) -> list[Method]:
    chosen = [one for spec in specs for one in (METHODS.values() if spec == "all" else [find_method(spec)])]
    named = {one.name: one for one in chosen}
    for one in chosen:
        if one.function is not named[one.name].function:
            raise HookmapError(f"two methods are called {one.name!r}; give your functions different names")
    return list(named.values())


def _as_preprocessing(given: Any) -> Preprocessing | None:
    if given is None or isinstance(given, Preprocessing):
        return given
    return Preprocessing.from_timm(given) if isinstance(given, Mapping) else Preprocessing.from_transform(given)


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {str(device)!r} can't be used here ({reason}); try 'cpu'") from None
    return chosen


def _joined(parts: list[list[LayerMaps]]) -> list[LayerMaps]:
    if len(parts) == 1:
        return parts[0]
    joined = []
    for same in zip(*parts, strict=True):
        first = same[0]
        if any(layer.maps.shape[1:] != first.maps.shape[1:] for layer in same):
            raise ImageError("the images have different input sizes; ask for the features of each size on its own")
        gradients = [layer.gradient for layer in same if layer.gradient is not None]
        joined.append(
            LayerMaps(
                first.name,
                first.kind,
                torch.cat([layer.maps for layer in same]),
                first.layout,
                torch.cat(gradients) if gradients else None,
            )
        )
    return joined
