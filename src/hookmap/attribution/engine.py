"""The engine under the Lens: how a model is called, what a trace of it says, and the batches that it is given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._warnings import warn
from hookmap.adapters.adapter import Adapter
from hookmap.adapters.outputs import vectors_in
from hookmap.attribution.execution import Execution, Precision
from hookmap.attribution.inputs import WithInputs, image_among, of_sample
from hookmap.attribution.passes import Passes
from hookmap.errors import HookmapError, ImageError, LayerError, ModelError, TargetError, first_line
from hookmap.hooks.fingerprint import fingerprint
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.hooks.structure import Structure, structure
from hookmap.images.loading import Picture, Unreadable, load_each, only
from hookmap.images.preprocessing import Preprocessing
from hookmap.images.video import Video, clip_length, clip_views
from hookmap.images.views import Prepared, View, input_rank, is_input, is_view, looks_like_pixels, tensor_views
from hookmap.layers.choice import alikeness, choose
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace, trace
from hookmap.methods import default_method
from hookmap.results.choice import Choice
from hookmap.targets import PREDICTED, Class, Goal, PerImage, are_detections, boxes_of, resolve, with_references

About: TypeAlias = tuple[str, str, Precision, Preprocessing | None]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one input size that run together.

    Attributes:
        views: B of them.
        x: their input where the model is, ``(B, C, *size)``.
        numbers: of the images among all that were given.
        engine: that they are to be asked of: one that knows a sample's other inputs, where a model takes several.
        passes: over this input that are kept for more questions, if any are.
    """

    views: list[View]
    x: Tensor
    numbers: list[int]
    engine: Engine
    passes: Passes | None = None

    def __getitem__(self, place: int) -> Batch:
        """One of its images as a batch of its own."""
        here = slice(place, place + 1)
        kept = self.passes if len(self.views) == 1 else None
        return replace(self, views=self.views[here], x=self.x[here], numbers=self.numbers[here], passes=kept)


@dataclass(frozen=True)
class Failure:
    """An image that couldn't be read or answered.

    Attributes:
        number: of the image among all that were given.
        name: of the image.
        error: what was wrong.
    """

    number: int
    name: str
    error: HookmapError


class Engine:
    """A model, how to call it, and what is known of it.

    Args:
        name: how the model is called.
        model: the user's, unwrapped.
        called: what is called: the model, or an adapter of it.
        execution: precision and compilation.
        labels: class names, if known.
        preprocessing: from image to input, if known.
        layouts: how to read layers that can't be read from their shape, by layer name.
        notes: what was assumed about the model without knowing.
        labelled: whether the user gave the labels, so that they must fit the model.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        called: nn.Module,
        execution: Execution,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        layouts: Mapping[str, Layout] | None = None,
        notes: Sequence[str] = (),
        labelled: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.called = called
        self.execution = execution
        self.labels = labels
        self.preprocessing = preprocessing
        self._layouts = dict(layouts or {})
        self._notes = notes
        self._labelled = labelled
        self._said: set[str] = set()
        self._words: list[str] = []
        self._forget()

    def _forget(self) -> None:
        """What was found by looking at the model is found again when it's needed."""
        self._structure: Structure | None = None
        self._traces: dict[tuple[int, ...], Trace] = {}
        self._choices: dict[tuple[int, ...], Choice] = {}
        self._alike: dict[tuple[str, tuple[int, ...]], float] = {}
        self.execution = self.execution.of(self.called)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes."""
        other = Engine.__new__(Engine)
        other.__dict__.update(self.__dict__)
        other._forget()
        return other.__dict__

    def beside(self, called: nn.Module, layouts: Mapping[str, Layout] | None = None) -> Engine:
        """The same model under another way of calling it, in which layers may be laid out in another way."""
        twin = copy.copy(self)
        twin.called = called
        if layouts is not None:
            twin._layouts = dict(layouts)
        twin._forget()
        return twin

    def preprocessed_by(self, preprocessing: Preprocessing) -> Engine:
        """The same model for pictures that are preprocessed in another way."""
        twin = copy.copy(self)
        twin.preprocessing = preprocessing
        return twin

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        parameter = next(self.model.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    def check_weights(self) -> None:
        """Raise a :class:`ModelError` for a model that has shapes and no values."""
        if self.device.type == "meta":
            raise ModelError(
                "the model is on the meta device, where weights have no values; give it a device "
                "(model.to_empty(device='cpu')) and load its weights first"
            )

    def label(self, index: int) -> str:
        """The name of a class, or its number in words."""
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"

    def about(self, parts: Structure | None = None) -> About:
        """What decides results: the model's name and fingerprint, what it runs in, and how images are preprocessed.

        Args:
            parts: the model's structure, from who has just walked it.
        """
        return self.name, fingerprint(self.model, parts), self.execution.precision, self.preprocessing

    # ---------------------------------------------------------------- targets

    def goals(self, target: Any) -> list[Goal]:
        """The targets that are meant, with their words looked up; detections of supervision are one for each box."""
        if are_detections(target):
            return boxes_of(target, self.labels)
        several = isinstance(target, Iterable) and not (isinstance(target, (str, bytes, Mapping)) or callable(target))
        if several and not isinstance(target, (Tensor, np.ndarray)):
            return [
                goal for spec in target for goal in (self.goals(spec) if are_detections(spec) else [self.goal(spec)])
            ]
        return [self.goal(target)]

    def goal(self, spec: Any) -> Goal:
        """One target with its words looked up; labels as a data loader gives them, ``(B,)``, are one per image."""
        plain: Any = spec.tolist() if isinstance(spec, (Tensor, np.ndarray, np.generic)) else spec
        if isinstance(plain, list) and not isinstance(spec, list):
            plain = PerImage(plain)
        goal = resolve(PREDICTED if plain is None else plain, self.labels)
        if isinstance(plain, str) and isinstance(goal, Class) and goal.label is not None:
            self._words.append(plain)
        return with_references(goal, self.called, self.embed)

    def embed(self, images: Any, *, batch_size: int = 16) -> Tensor:
        """The vectors that an embedding model makes of images, ``(N, D)``, in their order."""
        return torch.cat([vectors_in(self.output(batch)) for batch in self.batches(images, batch_size)])

    # ---------------------------------------------------------------- layers

    def trace(self, x: Tensor) -> Trace:
        """What one pass over an input of this size ``(B, C, *size)`` showed."""
        self._notice_changes()
        key = tuple(x.shape[1:])
        if key not in self._traces:
            prefix = getattr(self.model, "num_prefix_tokens", None)
            try:
                with preserved(self.model):
                    field = self.called.field(x.shape[2:]) if isinstance(self.called, Adapter) else None
                    prefix = prefix if isinstance(prefix, int) else None
                    labels = len(self.labels) if self.labels else None
                    traced = trace(self.called, x[:1].clone(), prefix=prefix, field=field, labels=labels)
            except Exception as error:
                if isinstance(error, (HookmapError, OSError)) or out_of_memory(error):
                    raise
                own = self.preprocessing is not None and self.preprocessing.any_size
                raise ModelError(
                    f"the model failed on an input of shape {(1, *key)}: {first_line(error)}; check the input's size "
                    "and channels" + (", or take fit='stretch' if it takes one size only" if own else "")
                ) from error
            for name, layout in self._layouts.items():
                if name not in traced.layers and name not in traced.second_names:
                    raise LayerError(f"layouts= names a layer {name!r} that the model doesn't have")
                traced.info(name).layout = layout
            self._check_labels(traced)
            if traced.reading.remark:
                self.remark(traced.reading.remark)
            self._traces[key] = traced
        return self._traces[key]

    def _check_labels(self, traced: Trace) -> None:
        """Labels that the user gave must be as many as the classes; others are dropped if they aren't."""
        count = traced.classes
        if self.labels is None or count in (None, len(self.labels)):
            return
        counted = f"{len(self.labels)} labels {{}}, and the model's output has {count} class{'es' * (count != 1)}"
        if self._labelled:
            hint = "the name of what yes means" if count == 1 else "one per class, in the order of the output"
            raise ModelError(f"{counted.format('were given')}; pass labels= {hint}")
        came, self.labels = counted.format("came with the model"), None
        if self._words:
            raise TargetError(f"{came}, so {self._words[0]!r} may be none of them; pass labels=, or the class's index")
        self.remark(f"{came}, so they name others and are left out; pass labels=")

    def _notice_changes(self) -> None:
        now = structure(self.called)
        if now != self._structure:  # the model is another than it was at the last call
            self._forget()
            self._structure = now

    def choice(self, x: Tensor) -> Choice:
        """Where and how inputs of this size ``(B, C, *size)`` are explained by default.

        It is found by looking at the first such input, once, and then stays.
        """
        self._notice_changes()
        key = tuple(x.shape[1:])
        if key not in self._choices:
            self._choices[key] = self._chosen(x)
        return self._choices[key]

    def settle(self, size: Sequence[int], choice: Choice) -> None:
        """Take a choice that was made before for inputs of a size ``(C, *size)``, instead of looking again."""
        self._notice_changes()
        self._choices[tuple(size)] = choice

    def _chosen(self, x: Tensor) -> Choice:
        traced, adapter = self.trace(x), self.called if isinstance(self.called, Adapter) else None
        if adapter is not None and adapter.levels:
            return Choice(tuple(adapter.levels), default_method(traced.form).name, adapter.fuse)
        with preserved(self.model):
            measured = choose(self.called, x[:1].clone(), traced)
        layers, fuse = measured.layers, measured.fuse
        if adapter is not None and fuse == "last" and len(layers) == 1:
            layers, fuse = tuple(adapter.around(layers[0])), adapter.fuse
        method = default_method(traced.form, measured.alike, attended=measured.attended).name
        return Choice(layers, method, fuse, measured.alike, measured.coverage)

    def default_layer(self, x: Tensor) -> str:
        """The layer that is explained by default for inputs of this size ``(B, C, *size)``; of several the last."""
        return self.choice(x).layers[-1]

    def alike(self, x: Tensor, layer: str, gradient: Callable[[str], Tensor]) -> float:
        """How much of the gradient ``(R, B, C, *grid)`` at a layer is the same at all places, 0..1; looked at once."""
        key = layer, tuple(x.shape[1:])
        if key not in self._alike:
            self._alike[key] = alikeness(gradient(layer)[0, 0])
        return self._alike[key]

    def default_layers(self, x: Tensor) -> list[str]:
        """The layers that are explained together by default."""
        return list(self.choice(x).layers)

    def grids(self, layers: LayerSpec | None, x: Tensor) -> dict[str, tuple[nn.Module, Layout]]:
        """Layers that are read as channels over a grid, and how; by default those that are explained.

        Args:
            layers: name, glob, module, type, kind or a list of these; what a pattern brings along that can't be read is
                left out.
            x: an input of the size that is meant, ``(B, C, *size)``.
        """
        traced = self.trace(x)
        names = self.default_layers(x) if layers is None else match_layers(self.called, layers)
        modules = dict(self.called.named_modules())
        named = [layers] if isinstance(layers, str) else [*layers] if isinstance(layers, Sequence) else []
        readable = [n for n in names if n in named or (n in traced.layers and traced.layers[n].layout is not None)]
        return {name: (modules[name], traced.layout(name)) for name in readable}

    # ---------------------------------------------------------------- inputs

    def example(self) -> Tensor:
        """Noise as the model takes it, ``(1, C, H, W)`` or, of clips, ``(1, C, T, H, W)``, the same every time.

        Raises:
            ModelError: if its input size isn't known.
        """
        if self.preprocessing is None:
            raise ModelError(
                "this model's input size isn't known; pass an example image or tensor, or preprocessing= to Lens (on "
                "the command line --size, --mean and --std)"
            )
        channels = len(self.preprocessing.mean)
        generator, length = torch.Generator().manual_seed(0), clip_length(self.model)
        frames = [] if length is None else [length]
        return self.to_model(torch.randn(1, channels, *frames, *self.preprocessing.size, generator=generator))

    def to_model(self, x: Tensor) -> Tensor:
        """A tensor where the model is, in the type of its parameters."""
        parameter = next(self.model.parameters(), None)
        dtype = parameter.dtype if parameter is not None else x.dtype
        # To a GPU the copy goes on beside what the CPU does next.
        return x.to(self.device, dtype, non_blocking=self.device.type == "cuda")

    def batches(self, images: Any, batch_size: int) -> Iterator[Batch]:
        """Images as batches of one input size each, in order; each is decoded when its batch comes.

        Raises:
            ImageError: for an image that can't be read.
        """
        for batch in self.batches_and_failures(images, batch_size):
            if isinstance(batch, Failure):
                raise batch.error
            yield batch

    def only(self, image: Any) -> Batch:
        """The one image that came, as a batch of its own.

        Raises:
            ImageError: if several came, or none.
        """
        return only(self.batches(image, 1))

    def batches_and_failures(self, images: Any, batch_size: int) -> Iterator[Batch | Failure]:
        """Likewise, where an image that can't be read doesn't stop the others."""
        if batch_size < 1:
            raise ImageError(f"batch_size is {batch_size}; expected 1 or more")
        if isinstance(images, Mapping):
            yield from self._with_inputs(images)
            return
        if isinstance(images, Prepared):
            yield from self._together(Batch(images.views, self.to_model(images.x), [*range(len(images.views))], self))
            return
        if isinstance(images, Video):
            batch_size = max(1, batch_size // (clip_length(self.model) or 1))
        for shape, group in groupby(enumerate(self._views(images)), key=_shape):
            while members := list(islice(group, batch_size)):
                numbers, views = [n for n, _ in members], [view for _, view in members if isinstance(view, View)]
                if shape is None:
                    yield from (Failure(n, bad.name, bad.error) for n, bad in members if isinstance(bad, Unreadable))
                else:
                    x = self.to_model(torch.stack([view.tensor for view in views]))
                    yield from self._together(Batch(views, x, numbers, self))

    def _together(self, batch: Batch) -> Iterator[Batch]:
        """The batch, or its images one by one where a model can't take several without mixing them up."""
        if len(batch.views) > 1:
            with preserved(self.model):
                why = self.execution.why_one_by_one(batch.x)
            if why:
                self.remark(why)
                yield from (batch[place] for place in range(len(batch.views)))
                return
        yield batch

    def _with_inputs(self, inputs: Mapping[str, Any]) -> Iterator[Batch | Failure]:
        """Samples of a model of several inputs, one by one."""
        name, x = image_among(inputs)
        called = WithInputs(self.called, name)
        twin = self.beside(called)
        for b in range(len(x)):
            called.others = of_sample(inputs, name, b)
            for batch in twin.batches_and_failures(x[b : b + 1], 1):
                yield replace(batch, numbers=[b]) if isinstance(batch, Batch) else batch

    def _views(self, images: Any) -> Iterator[View | Unreadable]:
        if is_view(images):
            yield from images
        elif is_input(images):
            for view in tensor_views(images, self.preprocessing, input_rank(self.model)):
                if self.preprocessing is not None and looks_like_pixels(view.tensor, self.preprocessing):
                    self.remark(
                        "a floating-point tensor in 0..255 came, which is taken as it is and looks like pixels; pass "
                        "them as uint8, so that they are preprocessed"
                    )
                yield view
        else:
            if isinstance(self.called, Adapter) and self.called.unasked:
                raise ModelError(self.called.unasked)
            if self.preprocessing is None:
                raise ModelError(
                    "how this model's images are preprocessed isn't known; pass preprocessing= to Lens (a "
                    "hookmap.Preprocessing or your torchvision transforms; on the command line --size, --mean and "
                    "--std), or a tensor that is already preprocessed"
                )
            self.say_what_is_assumed()
            if (length := clip_length(self.model)) is not None:
                if not isinstance(images, Video):
                    raise ImageError(
                        f"{self.name} sees clips of {length} frames; pass a hookmap.Video, or frames that are already "
                        "preprocessed as a tensor (B, C, T, H, W)"
                    )
                yield from clip_views(images, length, self.preprocessing)
                return
            for picture in load_each(images):
                if isinstance(picture, Picture):
                    tensor, geometry = self.preprocessing(picture)
                    yield View(tensor, picture, geometry)
                else:
                    yield picture

    def output(self, batch: Batch) -> Any:
        """What the model gives for a batch, without gradients."""
        self.check_weights()
        with preserved(self.model), torch.no_grad(), self.execution.casting(batch.x):
            return batch.engine.execution.module(())(batch.x)

    # ---------------------------------------------------------------- remarks

    def remark(self, sentence: str) -> None:
        """A warning that is said once."""
        if sentence not in self._said:
            self._said.add(sentence)
            warn(sentence)

    def say_what_is_assumed(self) -> None:
        """Warn, once, of what was assumed about the model without knowing, such as its preprocessing."""
        for note in self._notes:
            self.remark(note)


def _shape(numbered: tuple[int, View | Unreadable]) -> torch.Size | None:
    """Of an image's input; None if it can't be read."""
    return numbered[1].tensor.shape if isinstance(numbered[1], View) else None
