"""One image in a model, its pass kept: each further question costs only what is new of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Unpack

from hookmap._nested import map_tensors
from hookmap._progress import Track, silent
from hookmap.attribution.batch import explain_batch
from hookmap.attribution.concepts import CONCEPTS, find_concepts
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.explain import warn_of_maps_that_show_nothing
from hookmap.attribution.features import features_of_batch
from hookmap.attribution.muting import ConceptMuting, Muting, muted
from hookmap.attribution.passes import Passes
from hookmap.attribution.planning import ExplainOptions, MethodSpec, planned
from hookmap.errors import LayerError
from hookmap.hooks.matching import LayerSpec
from hookmap.hooks.preserve import preserved
from hookmap.images.geometry import Geometry
from hookmap.images.views import Prepared
from hookmap.layers.stages import stages_of
from hookmap.methods import METHODS
from hookmap.results.concepts import Concepts
from hookmap.results.explanation import Explanation
from hookmap.results.features import LayerMaps
from hookmap.results.predictions import Prediction, predictions
from hookmap.targets import PREDICTED, TargetSpec

ROOM = 2**30
"""Bytes of activations that a kept pass may hold; of larger ones only what follows the default layer is kept."""


class Opened:
    """One image in a model, whose pass is kept, so that another target costs its gradient and not another prediction.

    Made by :meth:`hookmap.Lens.open`. It holds the pass's activations as long as it lives. Not for several threads at
    once.

    Attributes:
        batch: the image as a batch of its own.
        stages: the layers that one walks through from the picture to the decision, by name.

    >>> import hookmap as hm
    >>> opened = hm.Lens().open("examples/photos/coffee.jpg")
    >>> opened.predict(top=1)[0].label
    'espresso'
    >>> opened.explain("espresso")[0].method.name, opened.explain("cup", "blocks.4", "layercam")[0].layer
    ('gradcam', 'blocks.4')
    """

    def __init__(self, engine: Engine, image: Any, mutings: Sequence[Muting] = ()) -> None:
        batch = engine.only(image)
        self.stages = stages_of(batch.engine.trace(batch.x))
        self.batch = batch
        self._mutings: tuple[Muting | ConceptMuting, ...] = ()
        self._mutings = tuple(self._settled(muting) for muting in mutings)
        with self.muted():
            self.batch = replace(batch, passes=self._passes())

    def _passes(self) -> Passes:
        engine, x = self.batch.engine, self.batch.x
        traced = engine.trace(x)
        try:
            choice = engine.choice(x)
        except LayerError:  # nothing to explain by default: it can still be predicted
            return Passes(self.stages)
        small = traced.held * x.element_size() <= ROOM
        layers = dict.fromkeys([*(self.stages if small else ()), *choice.layers])
        attends = any(ingredient.attention for ingredient in METHODS[choice.method].ingredients)
        return Passes(list(layers), attention=attends)

    def _settled(self, muting: Muting) -> Muting | ConceptMuting:
        if muting.of != "concepts":
            return muting
        return ConceptMuting(muting.layer, self.concepts(muting.layer, top=0).vectors, muting.numbers, muting.factor)

    def concepts(self, layer: LayerSpec, *, top: int = 3) -> Concepts:
        """The concepts of a layer on this image, of the model before anything is muted; see :meth:`Lens.concepts`.

        Args:
            layer: one layer.
            top: how many classes name each concept.
        """
        return find_concepts(self.batch.engine, self.image, layer, CONCEPTS, "nmf", top=top, seed=None, batch_size=1)

    def muted(self) -> AbstractContextManager[None]:
        """A block in which the model is muted as this image was opened with."""
        return muted(self.batch.engine, self.batch.x, self._mutings) if self._mutings else nullcontext()

    @property
    def _fresh(self) -> Batch:
        """The batch with an input of its own: a model may work in place on it."""
        return replace(self.batch, x=self.batch.x.clone())

    @property
    def image(self) -> Prepared:
        """The image as the model takes it, for what else is asked of it."""
        return Prepared(self.batch.views, self.batch.x.clone())

    @property
    def geometry(self) -> Geometry:
        """From the picture to the model's input."""
        return self.batch.views[0].geometry

    @property
    def span(self) -> Geometry:
        """From the picture to what the grids of layers span: more than the input where the model pads it."""
        return self.geometry.spanning(self.batch.engine.trace(self.batch.x).field)

    def predict(self, *, top: int | None = None) -> list[Prediction]:
        """What the model sees, the strongest first; see :meth:`hookmap.Lens.predict`."""
        batch, engine = self.batch, self.batch.engine
        engine.check_weights()
        assert batch.passes is not None
        with self.muted(), preserved(engine.model):
            kept = batch.passes.output(engine.execution, batch.x)
            output = map_tensors(lambda _, tensor: tensor.detach(), kept)
            geometries = [view.geometry for view in batch.views]
            return predictions(output, engine.trace(batch.x).reading, geometries, top, engine.label)[0]

    def explain(
        self,
        target: TargetSpec | Sequence[TargetSpec] | None = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        *,
        track: Track = silent,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Heatmaps, as :meth:`hookmap.Lens.explain` gives them, from the kept pass where the method needs no other.

        Args:
            target: as there.
            layer: as there.
            method: as there.
            track: called with a description and a total, gives a function that is told of progress.
            **options: as there, but for those of many images.
        """
        plan = replace(planned(self.batch.engine, target, layer, method, options), track=track)
        with self.muted():
            heatmaps = explain_batch(self._fresh, plan)
        plan.check(1)
        warn_of_maps_that_show_nothing(heatmaps)
        return Explanation(heatmaps)

    def features(self, layers: LayerSpec | None = None, *, target: TargetSpec | None = None) -> list[LayerMaps]:
        """Feature maps of layers, by default of the ``stages``; see :meth:`hookmap.Lens.features`.

        Args:
            layers: as there.
            target: also take gradients of it, so that channels can be ranked by them.
        """
        goal = None if target is None else self.batch.engine.goal(target)
        with self.muted():
            return features_of_batch(self._fresh, self.stages if layers is None else layers, goal)
