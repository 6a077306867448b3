"""Lens: a model with what is known of it, ready to be looked through."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hookmap import models
from hookmap.devices import best_device, usable_device
from hookmap.errors import (
    HookmapError,
    HookmapWarning,
    ImageError,
    LayerError,
    ModelError,
    TargetError,
    first_line,
)
from hookmap.explaining.batch import Plan, explain_batch
from hookmap.explaining.evidence import Settings
from hookmap.explaining.execution import Execution, Precision
from hookmap.explaining.factoring import Asked, Seen, find_concepts, look, one_layer
from hookmap.explaining.featuring import joined, layer_maps
from hookmap.explaining.goals import Goals
from hookmap.explaining.inputs import with_others
from hookmap.explaining.modifiers import Fusion
from hookmap.explaining.patches import similar_places
from hookmap.explaining.tiles import explain_in_tiles
from hookmap.looking.adapter import Adapter
from hookmap.looking.capture import capture
from hookmap.looking.hooks import check_hookable, unwrapped
from hookmap.looking.layers import LayerTree, Trace, choose_layer, last_layer, trace
from hookmap.looking.layouts import Layout
from hookmap.looking.matching import LayerSpec, match_layers
from hookmap.looking.outputs import Form, vectors_in
from hookmap.looking.preserve import preserved
from hookmap.methods import METHODS, Method, default_method, find_method
from hookmap.pictures.images import Picture, load_all
from hookmap.pictures.preprocessing import Preprocessing
from hookmap.pictures.views import Prepared, View, input_rank, is_input, is_view, tensor_views
from hookmap.progress import tracking
from hookmap.results.concepts import Concepts, Factorization
from hookmap.results.features import FeatureMaps, LayerMaps
from hookmap.results.heatmap import Explanation, Heatmap, Part
from hookmap.results.predictions import Prediction, predictions
from hookmap.targets import PREDICTED, Goal, TargetSpec, resolve, with_references

if TYPE_CHECKING:
    from PIL import Image


MethodSpec: TypeAlias = "str | Callable[..., Tensor]"


class Lens:
    """A model and what hookmap knows of it: preprocessing, labels, layers and how to read their outputs.

    Args:
        model: an ``nn.Module`` (or a library's object that holds one: ``RFDETRNano()``), or a name:
            ``"efficientnet_lite0"`` (the embedded default), a torchvision or timm model,
            ``"package.module:factory"`` or ``"file.py:factory"``.
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
            device = device or best_device()
        elif models.holds_one(model):
            if weights is not None or not pretrained:
                raise ModelError("weights= and pretrained= go with a model's name; load them into your module yourself")
            known = models.describe(unwrapped(model))
        else:
            raise ModelError(f"the model is a {type(model).__name__}; expected a torch.nn.Module or a model's name")
        self.model = unwrapped(known.model)
        check_hookable(self.model)
        if device is not None:
            self.model.to(usable_device(device))
        self._called: nn.Module = known.adapter if known.adapter is not None else self.model
        self.labels = list(labels) if labels is not None else known.labels
        if isinstance(self._called, Adapter) and self.labels:
            self._called = self._called.with_labels(self.labels)
        self._execution = Execution(self._called, precision, compile=compile)
        self.name = known.name
        self.preprocessing = _as_preprocessing(preprocessing) or known.preprocessing
        self._layouts = dict(layouts or {})
        self._note = known.note if preprocessing is None else None
        self._said: set[str] = set()
        self._traces: dict[tuple[int, ...], Trace] = {}
        self._defaults: dict[tuple[int, ...], str] = {}

    def __repr__(self) -> str:
        return f"Lens({self.name!r} on {self.device})"

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: what was found by looking is found again there."""
        execution = Execution(self._called, self._execution.precision, compile=self._execution.compile)
        return {**self.__dict__, "_traces": {}, "_defaults": {}, "_execution": execution}

    @property
    def compiled(self) -> bool:
        """Whether it runs through ``torch.compile``."""
        return self._execution.compile

    @property
    def precision(self) -> Precision:
        """What the model runs in."""
        return self._execution.precision

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        parameter = next(self.model.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    # ---------------------------------------------------------------- what it can be asked

    def predict(self, images: Any, *, top: int | None = None, batch_size: int = 16) -> list[list[Prediction]]:
        """What the model sees in each image, the strongest first.

        That is classes (the five most probable), a detector's detections, or a segmenter's regions, the largest first;
        ``top`` says how many.
        """
        results = []
        for lens, batch, x in self._inputs(images, batch_size):
            with preserved(self.model), torch.no_grad(), self._execution.casting(x):
                output = lens._execution.module(())(x)
            results += predictions(output, [view.geometry for view in batch], top, self._label)
        return results

    def explain(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] | Tensor | None = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
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
                floating-point tensor ``(C, H, W)``, ``(B, C, H, W)``, ``(B, C, T, H, W)`` or, for series,
                ``(B, C, L)``, that is already preprocessed; or, for models of several inputs, a dict of
                them by the names of the model's arguments.
            target: ``"predicted"`` (each image's top-1 class), a class index, a label, a target
                (:class:`hookmap.Probability`, :class:`hookmap.Contrast`, :class:`hookmap.Text`, ...), a function from
                the model's output to ``(B,)`` scores, or a list of these: each of them for every image (one per
                image is :class:`hookmap.PerImage`).
            layer: where to look; by default the last layer that has places through which the decision
                passes. Several are explained one by one.
            method: a name of ``hookmap.methods.METHODS``, ``"all"``, a function of ingredients (also a
                ``functools.partial`` of one of hookmap's), or a list of these. By default Grad-CAM; for detections
                ODAM and for embeddings HiResCAM, which don't average the gradient over places.
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
        targets = self._goals(target)
        specs = _listed(method)
        methods = methods_of(method)
        if not targets or (method is not None and not methods):
            raise TargetError("an empty list of targets or methods was given; pass at least one")
        heatmaps: list[Heatmap] = []
        with tracking(progress) as track:
            samples = 25 if noise_smooth is True else int(noise_smooth)
            plan = Plan(
                targets, methods, Settings(seed, budget, track), aug_smooth, samples, fuse, part, "all" in specs
            )
            done = 0
            for lens, batch, x in self._inputs(images, batch_size):
                traced = lens._trace(x)
                asked = plan.for_images(done, len(batch))
                asked = asked if methods else replace(asked, methods=[default_method(traced.form)])
                done += len(batch)
                asked = asked.with_eigen_smooth() if eigen_smooth else asked
                names: list[str] = []
                if any(one.per_layer for one in asked.methods):
                    names = lens._default_layers(x) if layer is None else list(match_layers(self._called, layer))
                layouts = {name: traced.layout(name) for name in names}
                if layer is None and plan.fuse is None and len(names) > 1 and isinstance(self._called, Adapter):
                    asked = replace(asked, fuse=self._called.fuse)
                with preserved(self.model):
                    found, remarks = explain_batch(
                        lens._execution,
                        batch,
                        x,
                        layouts,
                        traced,
                        asked,
                        self._label,
                    )
                heatmaps += found
                for sentence in remarks:
                    self._remark(sentence)
            plan.check(done)
        return _explanation(heatmaps)

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
        images = list(images) if isinstance(images, Iterator) else images  # they are looked at twice
        goal = None if target is None else self._goal(target)
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
                    goals = Goals([goal], output, [view.geometry for view in batch], self._label)
                    seen.differentiate(goals.scores(output)[0])
            parts.append(layer_maps(seen, traced, layers))
            pictures += [view.picture for view in batch]
        return FeatureMaps(joined(parts), pictures, self._overlays(images, batch_size), self.name)

    def explain_in_tiles(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
        *,
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.5,
        batch_size: int = 16,
        **how: Any,
    ) -> Explanation:
        """Heatmaps of pictures far larger than the input, at full resolution: see :mod:`hookmap.explaining.tiles`.

        Args:
            images: as in :meth:`explain`, without preprocessed tensors.
            target: of all tiles; ``"predicted"`` is the class whose probability is largest on average over them.
            tile: side, or (h, w), in pixels of the picture; by default the model's input size.
            overlap: the least share of a tile that its neighbour covers too.
            batch_size: tiles per forward pass.
            **how: ``layer``, ``method`` and all else that :meth:`explain` takes.
        """
        if self.preprocessing is None or is_input(images):
            raise ImageError("tiles are cut from pictures; pass paths or pixels, and to Lens how they are preprocessed")
        goals, side = self._goals(target), (tile, tile) if isinstance(tile, int) else tile
        given = (goals, self.preprocessing, side, overlap, batch_size)
        found = [explain_in_tiles(self.explain, self.predict, one, *given, **how) for one in load_all(images)]
        return _explanation([heatmap for some in found for heatmap in some])

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
            asked = Asked(name, concepts, method, top, seed, self._label, self.to_model)
            found, remarks = find_concepts(self._called, seen, asked)
        for sentence in remarks:
            self._remark(sentence)
        return found

    def embed(self, images: Any, *, batch_size: int = 16) -> Tensor:
        """The vectors that an embedding model makes of images, ``(N, D)``, in their order."""
        vectors = []
        for _, x in self._batches(images, batch_size):
            with preserved(self.model), torch.no_grad(), self._execution.casting(x):
                vectors.append(vectors_in(self._execution.module(())(x)))
        return torch.cat(vectors)

    def similar_patches(
        self,
        images: Any,
        point: tuple[float, float],
        layer: LayerSpec | None = None,
        *,
        centred: bool = True,
        batch_size: int = 16,
    ) -> Explanation:
        """How like one place every patch is: the cosine of their feature vectors, as one heatmap per image.

        Args:
            images: as in :meth:`explain`; the point is in the first, and all are compared with it.
            point: (x, y) in pixels of the first picture.
            layer: whose features; by default the last that has places.
            centred: first subtract the mean of all patches, which all have in common: then 0 is as alike as any.
            batch_size: images per forward pass.
        """
        name, seen = "", list[Seen]()
        for batch, x in self._batches(images, batch_size):
            traced = self._trace(x)
            name = name or (last_layer(traced) if layer is None else one_layer(self._called, layer))
            spanning = [replace(view, geometry=view.geometry.spanning(traced.field)) for view in batch]
            with preserved(self.model):
                seen += look(self._called, spanning, x, name, traced.layout(name))
        return similar_places(seen, name, point, centred=centred)

    def layers(self, image: Any = None) -> LayerTree:
        """The model's layers as a tree to read: name, type, output shape and layout.

        Args:
            image: an example to run on, where the model's input size isn't known.
        """
        x = next(self._batches(image, 1))[1] if image is not None else self.example()
        traced = self._trace(x)
        try:
            default: str | None = self.default_layer(x)
        except LayerError:
            default = None
        return LayerTree(traced, model=type(self.model).__name__, default=default)

    def default_layer(self, inputs: Tensor | None = None) -> str:
        """The layer that :meth:`explain` uses for inputs of this size ``(B, C, H, W)``."""
        x = self.example() if inputs is None else inputs
        traced = self._trace(x)
        key = tuple(x.shape[1:])
        if key not in self._defaults:
            with preserved(self.model):
                self._defaults[key] = choose_layer(self._called, x[:1].clone(), traced)
        return self._defaults[key]

    def form(self, inputs: Tensor) -> Form:
        """What the model gives for inputs of this size ``(B, C, *size)``: classes, regions, detections, ..."""
        return self._trace(inputs).form

    def classes(self, inputs: Tensor) -> int | None:
        """How many classes the model tells apart for inputs of this size; None if it gives none."""
        return self._trace(inputs).classes

    def grids(self, layers: LayerSpec | None, inputs: Tensor) -> dict[str, tuple[nn.Module, Layout]]:
        """Layers that are read as channels over a grid, and how; by default those that :meth:`explain` looks at.

        Args:
            layers: as in :meth:`features`; what a pattern brings along that can't be read is left out.
            inputs: of the size that is meant, ``(B, C, *size)``.
        """
        traced = self._trace(inputs)
        names = self._default_layers(inputs) if layers is None else match_layers(self._called, layers)
        modules = dict(self._called.named_modules())
        named = [layers] if isinstance(layers, str) else [*layers] if isinstance(layers, Sequence) else []
        readable = [n for n in names if n in named or (n in traced.layers and traced.layers[n].layout is not None)]
        return {name: (modules[name], traced.layout(name)) for name in readable}

    # ---------------------------------------------------------------- how it is done

    def _goals(self, target: Any) -> list[Goal]:
        # What a data set gives: no target, numbers of NumPy, a tensor of labels.
        plain: Any = target.tolist() if isinstance(target, (Tensor, np.ndarray, np.integer)) else target
        several = not (plain is None or isinstance(plain, (str, int)) or callable(plain))
        return [self._goal(PREDICTED if spec is None else spec) for spec in (plain if several else [plain])]

    def _goal(self, spec: TargetSpec) -> Goal:
        return with_references(resolve(spec, self.labels), self._called, self.embed)

    def _default_layers(self, x: Tensor) -> list[str]:
        if not isinstance(self._called, Adapter):
            return [self.default_layer(x)]
        return list(self._called.levels or self._called.around(self.default_layer(x)))

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
            _warn(sentence)

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
                    traced = trace(self._called, x[:1].clone(), prefix=prefix, field=field)
            except Exception as error:
                if isinstance(error, (HookmapError, torch.OutOfMemoryError)):
                    raise
                raise ModelError(
                    f"the model failed on an input of shape {(1, *key)}: {first_line(error)}; check the input's size "
                    "and channels"
                ) from error
            for name, layout in self._layouts.items():
                if name not in traced.layers:
                    raise LayerError(f"layouts= names a layer {name!r} that the model doesn't have")
                traced.layers[name].layout = layout
            self._traces[key] = traced
        return self._traces[key]

    def say_what_is_assumed(self) -> None:
        """Warn, once, of what was assumed about the model without knowing, such as its preprocessing."""
        if self._note:
            _warn(self._note)
            self._note = None

    def example(self) -> Tensor:
        """Noise as the model takes it, ``(1, C, H, W)``, the same every time.

        Raises:
            ModelError: if its input size isn't known.
        """
        if self.preprocessing is None:
            raise ModelError(
                "this model's input size isn't known; pass an example image or tensor, or preprocessing= to Lens"
            )
        channels = len(self.preprocessing.mean)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, channels, *self.preprocessing.size, generator=generator)
        return self.to_model(noise)

    def to_model(self, x: Tensor) -> Tensor:
        """A tensor where the model is, in the type of its parameters."""
        parameter = next(self.model.parameters(), None)
        dtype = parameter.dtype if parameter is not None else x.dtype
        # To a GPU the copy goes on beside what the CPU does next.
        return x.to(self.device, dtype, non_blocking=self.device.type == "cuda")

    def _inputs(self, images: Any, batch_size: int) -> Iterator[tuple[Lens, list[View], Tensor]]:
        """Batches, and the lens that each is seen through: one that knows a sample's other inputs."""
        if not isinstance(images, Mapping):
            yield from ((self, *one) for one in self._batches(images, batch_size))
            return
        for lens, x in with_others(self, images):
            yield from ((lens, *one) for one in lens._batches(x, 1))

    def _batches(self, images: Any, batch_size: int) -> Iterator[tuple[list[View], Tensor]]:
        """Images as batches of one input size each, in order."""
        if batch_size < 1:
            raise ImageError(f"batch_size is {batch_size}; expected 1 or more")
        if isinstance(images, Mapping):
            raise ImageError("inputs by name are for explain and predict; pass the preprocessed image alone")
        rank = input_rank(self.model)
        if isinstance(images, Prepared):
            yield images.views, self.to_model(images.x)
            return
        if is_view(images):
            views = iter(images)
        else:
            views = tensor_views(images, self.preprocessing, rank) if is_input(images) else self._image_views(images)
        for _, group in groupby(views, key=lambda view: view.tensor.shape):
            while batch := list(islice(group, batch_size)):
                x = self.to_model(torch.stack([view.tensor for view in batch]))
                yield batch, x

    def _image_views(self, images: Any) -> Iterator[View]:
        if self.preprocessing is None:
            raise ModelError(
                "how this model's images are preprocessed isn't known; pass preprocessing= to Lens (a "
                "hookmap.Preprocessing or your torchvision transforms), or a tensor that is already preprocessed"
            )
        self.say_what_is_assumed()
        for picture in load_all(images):
            tensor, geometry = self.preprocessing(picture)
            yield View(tensor, picture, geometry)


def _explanation(heatmaps: Sequence[Heatmap]) -> Explanation:
    """The result for the user, with a warning for each map that shows nothing."""
    for heatmap in heatmaps:
        which = f"the heatmap of {heatmap.target!r} on {heatmap.picture.name!r} by {heatmap.method.name}"
        if not heatmap.raw.isfinite().all():
            _warn(
                f"{which} isn't finite: the weights, or what layer {heatmap.layer!r} gives, hold NaN or infinity; "
                "look for them, or take precision='fp32'"
            )
        elif not heatmap.values.any():
            _warn(
                f"{which} is zero everywhere: nothing in layer {heatmap.layer!r} speaks for it; look at .raw (what "
                "speaks against), or pass another layer"
            )
    return Explanation(heatmaps)


def _warn(sentence: str) -> None:
    """A warning that points at the user's line: the first that isn't hookmap's."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hookmap":
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, HookmapWarning, stacklevel=level + 1)


def _listed(method: MethodSpec | Sequence[MethodSpec] | None) -> list[MethodSpec]:
    return [method] if isinstance(method, str) or callable(method) else list(method or [])


def methods_of(method: MethodSpec | Sequence[MethodSpec] | None) -> list[Method]:
    """The methods that are meant, in the order of the table if all are; none of None.

    Raises:
        HookmapError: for names that no method has, and different methods of one name.
    """
    specs = _listed(method)
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
