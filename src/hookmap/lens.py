"""Lens: a model with what is known of it, ready to be looked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Tensor, nn

from hookmap import models
from hookmap._devices import best_device, usable_device
from hookmap._progress import tracking
from hookmap.adapters.adapter import Adapter, Fusion
from hookmap.answers import Answer
from hookmap.answers.answer import ask
from hookmap.attribution.answering import MOST
from hookmap.attribution.attention import attention_distances, attention_maps, attention_rollout
from hookmap.attribution.batch import Plan
from hookmap.attribution.concepts import CONCEPTS, find_concepts
from hookmap.attribution.engine import Engine, Failure
from hookmap.attribution.execution import Execution, Precision
from hookmap.attribution.explain import (
    asked_again,
    explain_again,
    explain_each,
    explain_each_in_tiles,
    warn_of_maps_that_show_nothing,
)
from hookmap.attribution.features import features_of_batch, joined
from hookmap.attribution.film import explain_film
from hookmap.attribution.logit_lens import logit_lens
from hookmap.attribution.missed import missed
from hookmap.attribution.muting import ConceptMuting, Muting, muted
from hookmap.attribution.opened import Opened
from hookmap.attribution.planning import ExplainOptions, MethodSpec, planned
from hookmap.attribution.scoring import Scale, Scoring
from hookmap.attribution.similarity import similar_patches
from hookmap.attribution.words import word_evidence
from hookmap.errors import HookmapError, ImageError, LayerError, ModelError, TargetError
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Explain, PictureAbout
from hookmap.explorer.view import questions_of, write_view
from hookmap.explorer.widget import widget
from hookmap.export import export
from hookmap.hooks.matching import LayerSpec
from hookmap.hooks.registration import check_hookable, unwrapped
from hookmap.images.loading import Picture, Unreadable, load_each, only
from hookmap.images.preprocessing import Fit, Preprocessing
from hookmap.images.video import Video
from hookmap.images.views import input_rank, is_input, patch_size
from hookmap.layers.layouts import Layout
from hookmap.layers.tree import LayerTree
from hookmap.metrics.check import checked_each
from hookmap.render.look import LookOptions, Part
from hookmap.results.attention import AttentionDistances, AttentionMaps, AttentionRollout
from hookmap.results.check import Check
from hookmap.results.concepts import Concepts, Factorization
from hookmap.results.explanation import Explanation
from hookmap.results.features import FeatureMaps, LayerMaps
from hookmap.results.heatmap import Heatmap
from hookmap.results.logit_lens import LogitLens
from hookmap.results.missed import Missed
from hookmap.results.predictions import Prediction, predictions
from hookmap.results.words import WordEvidence
from hookmap.targets import PREDICTED, TargetSpec

if TYPE_CHECKING:
    from PIL import Image


class Lens:
    """A model and what hookmap knows of it: preprocessing, labels, layers and how to read their outputs.

    Args:
        model: an ``nn.Module`` (or a library's object that holds one: ``RFDETRNano()``), or a name:
            ``"efficientnet_lite0"`` (the embedded default), a torchvision or timm model, ``"net.onnx"``,
            ``"package.module:factory"`` or ``"file.py:factory"``.
        weights: a checkpoint (safetensors, or a state dict) to load into a model given by name.
        pretrained: with False, a model given by name keeps its random weights.
        labels: class names, if the model doesn't bring its own.
        preprocessing: from image to input, if the model doesn't bring its own: a
            :class:`hookmap.Preprocessing`, torchvision transforms, or a timm data config.
        fit: what of a picture the model sees: ``"crop"``, as its library preprocesses (most cut off what lies beyond a
            square in the middle); ``"whole"``, all of it at the same scale, for networks that take inputs of any size;
            ``"stretch"``, all of it pressed into the usual input.
        layouts: how to read layers that can't be read from their shape, by layer name.
        device: where to run; by default where the module is, or the best there is for a name.
        precision: ``"fp32"`` (as the model is), or ``"bf16"`` or ``"fp16"`` by autocast: about half the time where the
            hardware has it. How near maps stay to those of fp32 depends on method and layer: of 108 (18 methods, 3
            layers, 2 photos) 88 correlated at .98 or more in bf16, the worst at .79, and 103 at .995 or more in fp16,
            the worst at .18: Grad-CAM++ at an early layer. Compare a few of yours before you rely on them.
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
        fit: Fit = "crop",
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
            raise ModelError(models.why_no_model(model))
        plain = unwrapped(known.model)
        check_hookable(plain)
        if device is not None:
            plain.to(usable_device(device))
        called: nn.Module = known.adapter if known.adapter is not None else plain
        names = list(labels) if labels is not None else known.labels
        if isinstance(called, Adapter) and names:
            called = called.with_labels(names)
        steps = _as_preprocessing(preprocessing) or known.preprocessing
        if steps is None and fit != "crop":
            raise ModelError(
                f"fit={fit!r} changes how pictures are preprocessed, which isn't known; pass preprocessing="
            )
        self.engine = Engine(
            known.name,
            plain,
            called,
            Execution(called, precision, compile=compile),
            names,
            None if steps is None else steps.fitted(fit, patch_size(plain)),
            layouts,
            [
                note
                for note, told in ((known.note, preprocessing), (known.unnamed, labels))
                if note is not None and told is None
            ],
            labelled=labels is not None,
        )

    def __repr__(self) -> str:
        return f"Lens({self.name!r} on {self.device})"

    @property
    def name(self) -> str:
        """How the model is called."""
        return self.engine.name

    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self.engine.model

    @property
    def labels(self) -> Sequence[str] | None:
        """Class names, if known."""
        return self.engine.labels

    @property
    def preprocessing(self) -> Preprocessing | None:
        """From image to input, if known."""
        return self.engine.preprocessing

    @property
    def precision(self) -> Precision:
        """What the model runs in."""
        return self.engine.execution.precision

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return self.engine.device

    # ---------------------------------------------------------------- what it can be asked

    def predict(self, images: Any, *, top: int | None = None, batch_size: int = 16) -> list[list[Prediction]]:
        """What the model sees in each image, the strongest first.

        That is classes (the five most probable), a detector's detections, or a segmenter's regions, the largest first;
        ``top`` says how many.
        """
        results = []
        for batch in self.engine.batches(images, batch_size):
            geometries = [view.geometry for view in batch.views]
            reading = batch.engine.trace(batch.x).reading
            results += predictions(self.engine.output(batch), reading, geometries, top, self.engine.label)
        return results

    def explain(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] | Tensor | None = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Heatmaps that show where the evidence for ``target`` is.

        Activations and gradients are taken once and shared by all targets, layers and methods.

        Args:
            images: a path, bytes, PIL image, NumPy array or uint8 tensor, or any iterable of them, decoded batch by
                batch; or a floating-point tensor ``(C, H, W)``, ``(B, C, H, W)``, ``(B, C, T, H, W)`` or, for series,
                ``(B, C, L)``, that is already preprocessed; or, for models of several inputs, a dict of
                them by the names of the model's arguments.
            target: ``"predicted"`` (each image's top-1 class), a class index, a label, a target
                (:class:`hookmap.Probability`, :class:`hookmap.Contrast`, :class:`hookmap.Text`, ...), a function from
                the model's output to ``(B,)`` scores, or a list of these: each of them for every image (one per
                image is :class:`hookmap.PerImage`).
            layer: where to look; by default the last layer that has places through which the decision
                passes. Several are explained one by one.
            method: a name of ``hookmap.methods.METHODS``, ``"all"``, a function of ingredients (also a
                ``functools.partial`` of one of hookmap's), or a list of these. By default Grad-CAM; where
                class tokens read the places the value path, for detections ODAM and for embeddings HiResCAM, which
                don't average the gradient over places. ``"auto"``: the method
                and layer that :func:`hookmap.compare` found best for these weights, else the default.
            **options: any of

                - ``aug_smooth``: average the maps of six mirrored, darker and brighter copies.
                - ``noise_smooth``: average over so many noisy copies too (True: 25), seeded.
                - ``eigen_smooth``: reduce the weighted feature maps to their first principal component.
                - ``libra``: balance the gradients (LibraGrad), so that each part of the network hands on all that it
                  has; methods without gradients, and those of relevance, stay as they are.
                - ``rivals``: let so many of the most probable other classes compete for each place (True: 3).
                - ``fuse``: one map of several layers: ``"mean"``, ``"max"``, ``"product"`` (RefineCAM), ``"layercam"``.
                - ``part``: ``"positive"``, ``"negative"`` (what speaks against the target) or ``"signed"``; by default
                  what the method's paper shows.
                - ``seed``: of everything random; the same seed gives the same maps.
                - ``budget``: the most changed copies of one image that methods which mask, or gather gradients, may
                  look at; by default as many as their papers do.
                - ``batch_size``: images per forward pass, 16.
                - ``on_error``: ``"raise"``, or ``"skip"``: an image that can't be read, or can't be asked this, doesn't
                  stop the others; why stands in ``Explanation.errors``.
                - ``progress``: show a bar while masking methods run.
                - ``check``: also measure how far each heatmap can be believed, into ``Heatmap.check``:
                  some 60 forward passes more for each; see :meth:`check`.

        Returns:
            One heatmap per image, target, layer and method, in that order. Index it by name:
            ``explanation["layercam", "layer4"]``.
        """
        explanation = _joined(self._each(images, target, layer, method, options))
        warn_of_maps_that_show_nothing(explanation)
        return explanation

    def stream(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] | Tensor | None = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Iterator[Explanation]:
        """What :meth:`explain` gives, image by image as it comes, for any number of images.

        Yields:
            The explanation of each image; of one that was skipped, one that holds only why.
        """
        for explanation in self._each(images, target, layer, method, options):
            warn_of_maps_that_show_nothing(explanation)
            yield explanation

    def film(
        self,
        video: str | Path | Video,
        path: str | Path,
        target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        *,
        size: int | None = None,
        look: LookOptions | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Path:
        """Write a film of a video with the heatmaps of its frames over them, in memory for a few frames.

        One scale of colour holds for the whole film, so the video is read twice: to explain, and to draw. The film has
        the frames' own times, and no sound. Models that see clips explain the video clip by clip.

        Args:
            video: the path of a file, or a :class:`hookmap.Video` of a part of it or every so many-th frame.
            path: of the film: ``.mp4`` (H.264), ``.webm`` (VP9), ``.gif``, ``.mov``, ``.m4v`` or ``.mkv``.
            target: as in :meth:`explain`; ``"predicted"`` is each frame's own. Several, as several layers and methods,
                stand side by side; all detections of a frame are drawn together.
            layer: as in :meth:`explain`.
            method: likewise.
            size: the longer side of each picture in pixels; by default the video's, up to 1280, in a GIF 480.
            look: what is to be drawn otherwise: see :class:`hookmap.Look`.
            **options: as in :meth:`explain`; ``batch_size`` counts frames.

        Raises:
            ImageError: if the video can't be read.
            TargetError: if the target is found in no frame; one without it is shown as it is.
            HookmapError: if the place can't be written; nothing half-written is left.
            MissingLibraryError: without PyAV: ``pip install 'hookmap[video]'``.
        """
        if options.pop("check", False) or "on_error" in options:
            raise HookmapError("a film is made of all frames, and unchecked; leave out check= and on_error=")
        source, batch_size = video if isinstance(video, Video) else Video(video), options.pop("batch_size", 16)
        with tracking(options.pop("progress", True)) as track:
            plan = replace(self.plan(target, layer, method, options), track=track)
            how = look or LookOptions()
            return explain_film(self.engine, source, Path(path), plan, size=size, batch_size=batch_size, look=how)

    def ask(
        self,
        image: Any,
        question: str = "",
        *,
        answer: str | None = None,
        max_tokens: int = MOST,
        progress: bool = True,
    ) -> Answer:
        """What a vision-language model says about an image, each word of which can be traced to its pixels.

        ``lens.ask("street.jpg", "What is the man holding?").explain("umbrella")``

        Args:
            image: one picture, as in :meth:`explain`.
            question: in the user's own words, where the model has a chat template; else as it was trained to read it.
                Without one, a captioner says what it sees.
            answer: of your own, which the model is given word by word instead of making one.
            max_tokens: of an answer of its own.
            progress: show a bar.

        Raises:
            ModelError: if the model doesn't answer in words, or how it reads pictures isn't known.
        """
        picture = only(load_each(image))
        if isinstance(picture, Unreadable):
            raise picture.error
        return ask(self.engine, picture, question, answer, max_tokens, progress=progress)

    def open(self, image: Any) -> Opened:
        """One image whose pass is kept, so that each further question of it costs only what is new.

        Another class costs a gradient from the output to the layer, another layer of ``Opened.stages`` one to
        there; methods that mask take what they always take.

        Args:
            image: one, as in :meth:`explain`.
        """
        return Opened(self.engine, image)

    def explore(self, image: Any, target: str = PREDICTED) -> Any:
        """The image in this model, to be walked through in a notebook: ask, change layers, mute, compare.

        Args:
            image: one, as in :meth:`explain`.
            target: what is explained first, in words, as on the command line.

        Returns:
            A widget that shows itself.

        Raises:
            MissingLibraryError: without anywidget: ``pip install 'hookmap[notebook]'``.
        """
        explorer, about = self._explorer(image)
        return widget(explorer, {"model": self.name, "picture": about.id, "target": target})

    def save_view(
        self, image: Any, path: str | Path, target: str | Sequence[str] = PREDICTED, *, progress: bool = True
    ) -> Path:
        """Write one HTML page in which the image can be walked through without Python and without a network.

        It holds the picture, the answers for the targets and the strongest classes, the stages with their feature maps,
        and the interface; what it can't answer any more it says.

        Args:
            image: one, as in :meth:`explain`.
            path: of the page.
            target: what is explained first, in words, as on the command line.
            progress: show a bar.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        explorer, about = self._explorer(image)
        targets = [target] if isinstance(target, str) else list(target)
        asked = [Explain(model=self.name, picture=about.id, target=one) for one in targets]
        with tracking(progress) as track:
            questions = questions_of(explorer, self.name, about.id, asked)
            return write_view(explorer, Path(path), questions, {"target": targets[0]}, track)

    def _explorer(self, image: Any) -> tuple[Explorer, PictureAbout]:
        explorer = Explorer({self.name: self.engine})
        return explorer, explorer.open(image)

    @contextmanager
    def muted(
        self,
        layer: str | Concepts,
        numbers: Sequence[int],
        *,
        factor: float = 0.0,
        of: Literal["channels", "heads"] = "channels",
        image: Any = None,
    ) -> Iterator[None]:
        r"""Inside the block, in this thread, channels of a layer, heads of an attention or concepts are weaker.

        Everything that the lens is asked is asked of the model as it is then; the model itself isn't changed.

        Of concepts, whose vectors are the rows of :math:`V`, the layer's activation :math:`a` of each place has the
        coordinates :math:`m = a V^+` by least squares; it becomes :math:`a - (1 - f) \sum_j m_j v_j`. The other
        concepts, and what none of them explains, stay as they are.

        Args:
            layer: by name; or the concepts that :meth:`concepts` found.
            numbers: of the channels, heads or concepts.
            factor: what they are multiplied with; 0 mutes them.
            of: whether the numbers are those of channels or of heads.
            image: an example, where the model's input size isn't known.

        Raises:
            LayerError: for layers, channels, heads and concepts that there aren't.

        >>> import hookmap as hm
        >>> lens = hm.Lens()
        >>> with lens.muted("bn2", range(1280)):
        ...     round(lens.predict("examples/photos/coffee.jpg", top=1)[0][0].probability, 3)
        0.001
        """
        x = self.engine.example() if image is None else next(self.engine.batches(image, 1)).x
        muting = (
            Muting(layer, tuple(numbers), factor, of)
            if isinstance(layer, str)
            else ConceptMuting(layer.layer, layer.vectors, tuple(numbers), factor)
        )
        with muted(self.engine, x, [muting]):
            yield

    def missed(self, image: Any, box: tuple[float, float, float, float]) -> Missed:
        """Why a detector didn't detect what is in a box: its best candidate there, and where that was lost.

        Args:
            image: one, as in :meth:`explain`.
            box: (left, top, right, bottom) in pixels of the picture.

        Returns:
            What was found; ``lens.explain(image, missed.target)`` shows what spoke for the candidate.

        Raises:
            TargetError: if the model is no detector, or the box is empty.
        """
        return missed(self.engine, image, box)

    def again(self, heatmap: Heatmap) -> Heatmap:
        """The heatmap that the same question gives of this model: with the same weights the same, bit for bit.

        Args:
            heatmap: of :meth:`explain`, also one that was pickled or saved and read by another process.

        Raises:
            HookmapError: if the heatmap doesn't know its question, or its target or method was a function that the file
                doesn't hold.
        """
        return explain_again(self.engine, heatmap)

    def scorer(self, heatmap: Heatmap, scale: Scale = "probability") -> Callable[[Tensor], Tensor]:
        """What the model says of changed copies of a heatmap's input, as metrics ask it: ``(K, C, *size)`` to ``(K,)``.

        Args:
            heatmap: of :meth:`explain`: its image and its target are meant.
            scale: ``"probability"`` of the target, where it has one, or ``"score"`` (of a class, the logit).
        """
        engine, batch, plan = asked_again(self.engine, heatmap)
        return Scoring(engine, batch.x, scale, batch_size=1).of(batch[0], plan.targets[0])[0]

    def check(self, heatmap: Heatmap) -> Check:
        """How far a heatmap can be believed: against random maps, by its hot region alone, and under a little noise.

        It takes at most 60 forward passes; :class:`hookmap.results.check.Check` says what is measured. For which method
        to take for a model, see :func:`hookmap.compare`.

        Raises:
            HookmapError: if it isn't one heatmap.
        """
        if not isinstance(heatmap, Heatmap):
            raise HookmapError(f"{type(heatmap).__name__} came; check takes one heatmap, such as explanation[0]")
        check = checked_each(self.engine, [heatmap])[0].check
        assert check is not None
        return check

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
        goal = None if target is None else self.engine.goal(target)
        parts: list[list[LayerMaps]] = []
        pictures: list[Picture] = []
        for batch in self.engine.batches(images, batch_size):
            parts.append(features_of_batch(batch, layers, goal))
            pictures += [view.picture for view in batch.views]
        return FeatureMaps(joined(parts), pictures, self._overlays(images, batch_size), self.name)

    def explain_in_tiles(
        self,
        images: Any,
        target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        *,
        tile: int | tuple[int, ...] | None = None,
        overlap: float = 0.5,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Heatmaps of pictures or volumes far larger than the input, at full resolution.

        Tiles overlap, and their maps are blended: see ``hookmap.attribution.tiles``.

        Args:
            images: as in :meth:`explain`; of preprocessed tensors only volumes, ``(C, D, H, W)`` or
                ``(B, C, D, H, W)``.
            target: of all tiles; ``"predicted"`` is the class whose probability is largest on average over them.
            layer: as in :meth:`explain`.
            method: likewise.
            tile: side, or (h, w), in pixels of the picture; by default the model's input size. Of volumes side, or
                (d, h, w), in voxels: the model's input size, which has to be said.
            overlap: the least share of a tile that its neighbour covers too.
            **options: as in :meth:`explain`; ``batch_size`` counts tiles.
        """
        axes = 3 if is_input(images) and input_rank(self.model) == 3 else 2
        if axes == 2 and (self.preprocessing is None or is_input(images)):
            raise ImageError("tiles are cut from pictures; pass paths or pixels, and to Lens how they are preprocessed")
        if options.pop("check", False):
            raise HookmapError("a heatmap of many tiles can't be checked; check that of one of them, by explain")
        side = (tile,) * axes if isinstance(tile, int) else tile
        if side is not None and len(side) != axes:
            raise HookmapError(f"tile is {side}; expected {'(d, h, w) in voxels' if axes == 3 else '(h, w) in pixels'}")
        on_error, batch_size = options.pop("on_error", "raise"), options.pop("batch_size", 16)
        with tracking(options.pop("progress", True)) as track:
            plan = replace(self.plan(target, layer, method, options), track=track)
            answers = explain_each_in_tiles(
                self.engine, images, plan, side, overlap, batch_size=batch_size, on_error=on_error
            )
            explanation = _joined(_explanations(answers))
        warn_of_maps_that_show_nothing(explanation)
        return explanation

    def concepts(
        self,
        images: Any,
        layer: LayerSpec | None = None,
        concepts: int = CONCEPTS,
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
                ``hookmap.methods.factorization``.
            top: how many classes name each concept.
            batch_size: images per forward pass.
            seed: by default nothing is random; a number starts NMF from random numbers, to see which concepts stay.
        """
        return find_concepts(self.engine, images, layer, concepts, method, top=top, seed=seed, batch_size=batch_size)

    def embed(self, images: Any, *, batch_size: int = 16) -> Tensor:
        """The vectors that an embedding model makes of images, ``(N, D)``, in their order."""
        return self.engine.embed(images, batch_size=batch_size)

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
        return similar_patches(self.engine, images, point, layer, centred=centred, batch_size=batch_size)

    def words(
        self, image: Any, text: str | Sequence[str], *, budget: int = 512, seed: int = 0, progress: bool = True
    ) -> WordEvidence:
        """Which words of a text make it like an image, for models that read texts (CLIP, SigLIP, ...).

        Each word gets its Shapley value: what it adds to the similarity (the cosine of both embeddings) of the words
        that are there, on average over all orders of the words. The shares sum to the similarity of the text minus that
        of the empty text, as MM-SHAP shares out tokens (Parcalabescu and Frank, ACL 2023, arXiv:2212.08158). Words are
        left out of the text itself, so whatever a model's tokens are, a word is a word; the image is embedded once.

        Args:
            image: one, as in :meth:`explain`.
            text: as the model was trained to read it; a list of phrases shares out among those. Where a script writes
                no spaces (Chinese, Japanese), each character is a word.
            budget: about how many texts may be read: all combinations of up to nine words, of more words orders are
                drawn, and each share has an error.
            seed: of the orders.
            progress: show a bar.

        Raises:
            TargetError: if the model reads no texts, or the text is empty.
        """
        with tracking(progress) as track:
            return word_evidence(self.engine, image, text, budget=budget, seed=seed, track=track)

    def attention(
        self,
        image: Any,
        layer: LayerSpec | None = None,
        *,
        at: tuple[float, float] | None = None,
        without_artefacts: bool = False,
    ) -> AttentionMaps:
        """What every head looks at: attention itself, of a transformer as it is, in fused kernels too.

        Args:
            image: one, as in :meth:`explain`.
            layer: whose attention: name, glob, module or a list of these; by default of all.
            at: (x, y) in pixels of the picture: what the patch there looks at. By default what the class token looks
                at, in models without one all tokens on average.
            without_artefacts: patches whose token's norm is an outlier attract attention whatever they show; set what
                falls on them to the mean of their neighbours.

        Raises:
            LayerError: if the model has no attention, or none in these layers.
        """
        return attention_maps(self.engine, image, layer, at, without_artefacts=without_artefacts)

    def attention_distances(self, image: Any, layer: LayerSpec | None = None) -> AttentionDistances:
        """How far every head looks, in pixels of the input: near, as a convolution does, or all over the picture."""
        return attention_distances(self.engine, image, layer)

    def attention_rollout(self, image: Any) -> AttentionRollout:
        """Attention followed from the picture up to each layer, as a film over depth."""
        return attention_rollout(self.engine, image)

    def logit_lens(self, image: Any, target: TargetSpec | None = None) -> LogitLens:
        """What the model's own head would say of a transformer's tokens after each block: when it knows, and where.

        Args:
            image: one, as in :meth:`explain`.
            target: one, as in :meth:`explain`; by default the predicted class.

        Raises:
            LayerError: if the model isn't a row of blocks with one attention each.
        """
        return logit_lens(self.engine, image, target)

    def layers(self, image: Any = None) -> LayerTree:
        """The model's layers as a tree to read: name, type, output shape and layout.

        Args:
            image: an example to run on, where the model's input size isn't known.
        """
        engine = self.engine
        x = next(engine.batches(image, 1)).x if image is not None else engine.example()
        traced = engine.trace(x)
        try:
            choice = engine.choice(x)
        except LayerError:
            return LayerTree(traced, model=type(self.model).__name__)
        return LayerTree(traced, model=type(self.model).__name__, default=choice.layers, why=choice.why)

    def default_layer(self, inputs: Tensor | None = None) -> str:
        """The layer that :meth:`explain` uses for inputs of this size ``(B, C, H, W)``."""
        return self.engine.default_layer(self.engine.example() if inputs is None else inputs)

    def export(
        self,
        path: str | Path,
        method: MethodSpec | None = None,
        layer: LayerSpec | None = None,
        target: TargetSpec | Sequence[TargetSpec] = PREDICTED,
        *,
        part: Part | None = None,
        fuse: Fusion | None = None,
        image: Any = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> Path:
        """Write one file that gives the prediction **and** the heatmap, gradient included, without hookmap or PyTorch.

        The file takes a preprocessed batch ``"input"`` ``(B, C, H, W)`` and gives the model's own outputs (a bare
        tensor as ``"prediction"``) and ``"heatmap"`` ``(B, T, h, w)``, one for each of T targets, on the layer's grid:
        the values that :attr:`Heatmap.values <hookmap.Heatmap.values>` has. Preprocessing, labels, method, layers and
        targets stand in its metadata, as JSON under ``"hookmap"``. Before it takes its name, it is run on pictures that
        it wasn't traced with, and refused if it differs from the model.

        Args:
            path: ending in ``.onnx``, or in ``.pt2`` for ``torch.export.load``.
            method: one, as in :meth:`explain`; those that take one pass can be exported.
            layer: as in :meth:`explain`; several, if ``fuse`` says how they become one.
            target: one or several, as in :meth:`explain`; ``"predicted"`` is each image's own, of a detector the most
                probable candidate.
            part: as in :meth:`explain`.
            fuse: likewise.
            image: an example, where the model's input size isn't known.
            overwrite: replace a file of this name.
            progress: show a bar.

        Raises:
            HookmapError: for what can't be exported, with what can; nothing is then written.
            MissingLibraryError: without onnx, onnxscript and onnxruntime: ``pip install 'hookmap[onnx]'``.
        """
        with tracking(progress) as track:
            plan = self.plan(target, layer, method, {"part": part, "fuse": fuse})
            x = self.engine.example() if image is None else self.engine.only(image).x
            return export(self.engine, Path(path), plan, x, overwrite=overwrite, track=track)

    # ---------------------------------------------------------------- how it is done

    def plan(self, target: Any, layer: LayerSpec | None, method: Any, options: ExplainOptions) -> Plan:
        """What :meth:`explain` would ask of every image, with all words looked up."""
        return planned(self.engine, target, layer, method, options)

    def _each(
        self, images: Any, target: Any, layer: LayerSpec | None, method: Any, options: ExplainOptions
    ) -> Iterator[Explanation]:
        """Image by image; nothing is warned of maps yet."""
        on_error, batch_size = options.pop("on_error", "raise"), options.pop("batch_size", 16)
        check = options.pop("check", False)
        with tracking(options.pop("progress", True)) as track:
            plan = replace(self.plan(target, layer, method, options), track=track)
            answers = explain_each(self.engine, images, plan, batch_size=batch_size, on_error=on_error)
            for explanation in _explanations(answers):
                heatmaps = checked_each(self.engine, explanation) if check else explanation
                yield Explanation(heatmaps, explanation.errors)

    def _overlays(self, images: Any, batch_size: int) -> list[tuple[str, Image.Image]]:
        try:
            explained = self.explain(images, batch_size=batch_size)
        except (TargetError, LayerError):
            return []  # not a classifier, or no layer to explain: feature maps stand on their own
        return [(f"{h.picture.name}/{h.method.name}", h.overlay()) for h in explained]


def _explanations(answers: Iterable[list[Heatmap] | Failure]) -> Iterator[Explanation]:
    """The explanation of each image."""
    for answer in answers:
        if isinstance(answer, Failure):
            yield Explanation([], {answer.name: answer.error})
        else:
            yield Explanation(answer)


def _joined(parts: Iterable[Explanation]) -> Explanation:
    heatmaps: list[Heatmap] = []
    errors: dict[str, HookmapError] = {}
    for part in parts:
        heatmaps += part
        for name, error in part.errors.items():
            # Two images may have one name.
            errors[f"{name} ({len(errors) + 1})" if name in errors else name] = error
    return Explanation(heatmaps, errors)


def _as_preprocessing(given: Any) -> Preprocessing | None:
    if given is None or isinstance(given, Preprocessing):
        return given
    return Preprocessing.from_timm(given) if isinstance(given, Mapping) else Preprocessing.from_transform(given)
