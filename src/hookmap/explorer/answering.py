"""From questions to answers: models that are named, pictures that were opened, and the passes that are kept of them."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import singledispatchmethod
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap import __version__
from hookmap._progress import Track, silent
from hookmap._warnings import hearing, warn
from hookmap.attribution.attention import attention_maps
from hookmap.attribution.engine import Engine
from hookmap.attribution.missed import missed
from hookmap.attribution.opened import Opened
from hookmap.attribution.similarity import cell_at, patch_at, similar_patches
from hookmap.errors import DisconnectedError, HookmapError, ImageError, LayerError, TargetError
from hookmap.explorer.questions import (
    Believed,
    Box,
    Candidate,
    Channels,
    Conceived,
    ConceptAbout,
    Concepts,
    Drawn,
    Erase,
    Explain,
    Explained,
    Features,
    Fires,
    MethodAbout,
    Missed,
    Missing,
    ModelAbout,
    Patch,
    Patched,
    PictureAbout,
    Predict,
    Predicted,
    Question,
    Seen,
    Stage,
    Staged,
    Stages,
    Stroke,
)
from hookmap.explorer.wire import Answer
from hookmap.hooks.capture import capture
from hookmap.hooks.preserve import preserved
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture, load, load_all
from hookmap.layers.receptive import receptive_field
from hookmap.methods import METHODS
from hookmap.metrics.check import checked_each
from hookmap.metrics.fills import FILLS
from hookmap.render.look import Look, LookOptions
from hookmap.results.explanation import Explanation
from hookmap.results.features import Ranking
from hookmap.results.heatmap import Heatmap
from hookmap.results.predictions import Prediction
from hookmap.targets import Contrast, TargetSpec

OPENED = 3
"""So many passes are kept, the last that were asked of."""
PICTURES = 256 * 2**20
"""So many bytes of encoded pictures are kept."""
CHANNEL_VALUES = 2**22
"""So many values of a layer are sent; of more, the first channels of each order."""
FIRST = 96
FIRING = 24
FILLED = 512
"""Longer side in pixels at which an erased region's fill is computed."""
FAR = 1e6
"""No brush is so wide or so far away, in pixels."""
_SHOWN_AS: dict[str, tuple[str, str]] = {
    "png": ("image/png", ".png"),
    "svg": ("image/svg+xml", ".svg"),
    "pdf": ("application/pdf", ".pdf"),
    "npz": ("application/octet-stream", ".npz"),
}


@dataclass(frozen=True)
class Named:
    """A model and how it is asked for elsewhere.

    Attributes:
        engine: of the model.
        python: makes a lens of it.
        command: the command line's options that name it.
    """

    engine: Engine
    python: str
    command: str

    @classmethod
    def of(cls, engine: Engine) -> Named:
        """By the name that the engine knows."""
        return cls(engine, f"hm.Lens({engine.name!r})", f"-m {shlex.quote(engine.name)}")


class Explorer:
    """Answers the questions of an interface: one at a time, while other threads open and show pictures.

    Args:
        models: by the ids that questions name; the first is asked by default.
        samples: pictures to begin with.
    """

    def __init__(self, models: Mapping[str, Named | Engine], samples: Sequence[Path] = ()) -> None:
        self._models = {id: one if isinstance(one, Named) else Named.of(one) for id, one in models.items()}
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._shelf = RLock()
        self._lasting: set[str] = set()
        self._samples = tuple(self._readable(samples))
        self._lasting = {sample.id for sample in self._samples}
        self._opened: OrderedDict[tuple[Any, ...], Opened] = OrderedDict()
        self._fields: dict[tuple[str, str, tuple[int, ...]], tuple[float, float] | None] = {}
        self._about: tuple[ModelAbout, ...] = ()

    def _readable(self, samples: Sequence[Path]) -> Iterator[PictureAbout]:
        """What can be read of some files; of the others it is said why not."""
        for path in samples:
            try:
                yield self.add(path.read_bytes(), path.name)
            except (ImageError, OSError) as error:
                warn(f"{path.name} is left out: {error}")

    # ---------------------------------------------------------------- what there is

    def models(self) -> tuple[ModelAbout, ...]:
        """What can be asked, and of what."""
        if not self._about:
            self._about = tuple(_about(id, named.engine) for id, named in self._models.items())
        return self._about

    @property
    def device(self) -> str:
        """Where the models run."""
        return ", ".join(dict.fromkeys(str(named.engine.device) for named in self._models.values()))

    def engine(self, id: str) -> Engine:
        """Of a model.

        Raises:
            HookmapError: if there's no such model.
        """
        return self._model(id).engine

    def samples(self) -> tuple[PictureAbout, ...]:
        """Pictures to begin with."""
        return self._samples

    def add(self, data: bytes, name: str) -> PictureAbout:
        """Open a picture.

        Raises:
            ImageError: if it can't be read.
        """
        id = id_of(data)
        if id not in self._pictures:
            self._keep(id, load(data).renamed(Path(name).name or "picture"))
        return self.about(id)

    def open(self, image: Any) -> PictureAbout:
        """Open one image, as :meth:`hookmap.Lens.explain` takes it.

        Raises:
            ImageError: if it can't be read, or several came.
        """
        pictures = load_all(image)
        if len(pictures) != 1:
            raise ImageError(f"{len(pictures)} images came; pass one")
        picture = pictures[0]
        data = picture.encoded or picture.pixels.tobytes()
        id = id_of(data)
        if id not in self._pictures:
            self._keep(id, picture)
        self._samples = (*self._samples, self.about(id))
        self._lasting.add(id)
        return self.about(id)

    def erase(self, question: Erase) -> PictureAbout:
        """The picture without what was brushed out, as a picture of its own.

        Raises:
            HookmapError: if nothing, or a fill that there isn't, was asked.
        """
        picture = self.picture(question.picture)
        id = _digest(["erased", asdict(question)])
        if id not in self._pictures:
            pixels = _erased(picture.pixels, question.strokes, question.fill)
            stem, dot, ending = picture.name.rpartition(".")
            self._keep(id, Picture(pixels, f"{stem or ending}-erased{dot}{ending if stem else ''}"))
        return self.about(id)

    def shown(self, id: str, longer: int | None = None) -> tuple[bytes, str]:
        """A picture as a browser shows it, upright, and its media type; no longer than so many pixels.

        Raises:
            ImageError: if it isn't open.
        """
        from PIL import Image

        picture = self.picture(id)
        image = Image.fromarray(picture.pixels)
        if longer is not None and max(image.size) > longer:
            image.thumbnail((longer, longer), Image.Resampling.LANCZOS, reducing_gap=2.0)
        file = io.BytesIO()
        small = image.width * image.height <= 2**18
        image.save(file, "PNG" if small else "JPEG", quality=92)
        return file.getvalue(), "image/png" if small else "image/jpeg"

    def key(self, question: Question) -> str:
        """What decides the answer to a question, in 32 letters: hookmap, model and weights, picture, what is asked."""
        about = self._model(question.model).engine.about()
        self.picture(question.picture)
        return _digest([__version__, about, type(question).__name__, asdict(question)])

    def _keep(self, id: str, picture: Picture) -> None:
        _ = picture.width  # decoded now, so that what can't be read is refused now
        with self._shelf:
            self._pictures[id] = picture
            held = [(one, _bytes(kept)) for one, kept in self._pictures.items()]
            room = PICTURES - sum(size for _, size in held)
            for one, size in held[:-1]:
                if room >= 0:
                    break
                if one not in self._lasting:
                    del self._pictures[one]
                    room += size

    def picture(self, id: str) -> Picture:
        """A picture that is open.

        Raises:
            ImageError: if it isn't.
        """
        with self._shelf:
            picture = self._pictures.get(id)
            if picture is None:
                raise ImageError("this picture isn't open any more; open it again")
            self._pictures.move_to_end(id)
            return picture

    def about(self, id: str) -> PictureAbout:
        """What is said of a picture that is open.

        Raises:
            ImageError: if it isn't.
        """
        picture = self.picture(id)
        return PictureAbout(id, picture.name, picture.width, picture.height)

    def _model(self, id: str) -> Named:
        if id not in self._models:
            raise HookmapError(f"there's no model {id!r} here; there are {', '.join(self._models)}")
        return self._models[id]

    def _open(self, question: Question) -> Opened:
        engine = self._model(question.model).engine
        key = (question.model, engine.about()[1], question.picture, question.muted)
        if key not in self._opened:
            self._opened[key] = Opened(engine, self.picture(question.picture), question.muted)
            while len(self._opened) > OPENED:
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        return self._opened[key]

    # ---------------------------------------------------------------- answers

    @singledispatchmethod
    def answer(self, question: Question, track: Track = silent) -> Answer:
        """What a question is told.

        Args:
            question: of :mod:`hookmap.explorer.questions`.
            track: called with a description and a total, gives a function that is told of progress; what either raises
                ends the work.

        Raises:
            HookmapError: for what is wrong with the question.
        """
        raise HookmapError(f"there's no answer to a {type(question).__name__}")

    @answer.register
    def _(self, question: Predict, track: Track = silent) -> Answer:
        opened = self._open(question)
        geometry, batch = opened.geometry, opened.batch
        if batch.engine.trace(batch.x).form in ("embeddings", "masks"):  # asked for a text or a prompt first
            return Answer(Predicted((), geometry.seen))
        found = opened.predict(top=question.top)
        detected = any(prediction.box is not None for prediction in found)
        seen = tuple(_seen(one, f"box:{n}" if detected else str(one.index)) for n, one in enumerate(found))
        return Answer(Predicted(seen, geometry.seen))

    @answer.register
    def _(self, question: Explain, track: Track = silent) -> Answer:
        with hearing() as heard:
            explanation = self.explanation(question, track)
        named = self._model(question.model)
        drawn, arrays = list[Drawn](), dict[str, Tensor]()
        for number, heatmap in enumerate(explanation):
            arrays[name := f"map.{number}"] = _flat(heatmap)
            drawn.append(_drawn(heatmap, name, *_again(question, heatmap, named)))
        return Answer(Explained(tuple(drawn), tuple(dict.fromkeys(heard))), arrays)

    def explanation(self, question: Explain, track: Track = silent) -> Explanation:
        """The heatmaps that a question is told of.

        Raises:
            HookmapError: for what is wrong with the question.
        """
        opened = self._open(question)
        explanation = opened.explain(
            _target(question), question.layer, question.method, track=track, **_options(question)
        )
        if question.check:
            done = track("checking", len(explanation))
            checked = []
            with opened.muted():
                for heatmap in explanation:
                    checked += checked_each(self._model(question.model).engine, [heatmap])
                    done(1)
            return Explanation(checked)
        return explanation

    @answer.register
    def _(self, question: Stages, track: Track = silent) -> Answer:
        opened, engine = self._open(question), self._model(question.model).engine
        x = opened.batch.x
        traced = engine.trace(x)
        try:
            default = set(engine.choice(x).layers)
        except LayerError:
            default = set()
        stages, arrays = list[Stage](), dict[str, Tensor]()
        for number, maps in enumerate(opened.features()):
            _, channels, rows, columns = maps.maps.shape
            arrays[name := f"stage.{number}"] = maps.reduce("mean")[0].float()
            stages.append(Stage(name, maps.name, maps.kind, channels, rows, columns, maps.name in default))
        order = traced.order
        readable = [n for n, info in traced.layers.items() if n and info.layout and len(info.layout.grid) == 2]
        layers = tuple(sorted((name for name in readable if name in order), key=order.__getitem__))
        return Answer(Staged(tuple(stages), opened.span.span, layers), arrays)

    @answer.register
    def _(self, question: Features, track: Track = silent) -> Answer:
        opened = self._open(question)
        try:
            maps = opened.features(question.layer, target=question.target)[0]
        except (TargetError, DisconnectedError):  # without a target, or none that depends on the layer
            maps = opened.features(question.layer)[0]
        if maps.maps.ndim != 4:
            raise LayerError(f"layer {question.layer!r} gives {maps.shape}, which has no rows and columns to show")
        count = maps.maps.shape[1]
        rankings: list[Ranking] = ["mean", "variance", "influence"]
        if maps.gradient is None:
            rankings.remove("influence")
        orders = {ranking: maps.select(ranking, top=count) for ranking in rankings}
        numbers = list(range(count))
        if maps.maps.numel() > CHANNEL_VALUES:
            numbers = sorted({number for order in orders.values() for number in order[:FIRST]})
        place = {number: at for at, number in enumerate(numbers)}
        values = maps.maps[0].float().nan_to_num()
        about = Channels(
            layer=maps.name,
            kind=maps.kind,
            count=count,
            numbers=tuple(numbers),
            area=opened.span.span,
            orders={ranking: tuple(place[n] for n in order if n in place) for ranking, order in orders.items()},
            low=float(values.min()),
            high=float(values.max()),
        )
        largest = torch.finfo(torch.float16).max
        return Answer(about, {"maps": values[numbers].clamp(-largest, largest).half()})

    @answer.register
    def _(self, question: Concepts, track: Track = silent) -> Answer:
        opened = self._open(replace(question, muted=()))
        with hearing():  # that they have no names is seen
            found = opened.concepts(question.layer)
        maps = found.memberships[0].float()
        if maps.ndim != 3:
            raise LayerError(f"layer {question.layer!r} has no rows and columns, so its concepts can't be shown")
        concepts = tuple(ConceptAbout(one.share, tuple(one.labels)) for one in found)
        return Answer(Conceived(found.layer, concepts, opened.span.span), {"maps": maps})

    @answer.register
    def _(self, question: Patch, track: Track = silent) -> Answer:
        opened = self._open(question)
        engine, maps = opened.batch.engine, opened.features(question.layer)[0].maps
        if maps.ndim != 4:
            raise LayerError(f"layer {question.layer!r} has no rows and columns, so no place in it can be looked at")
        geometry, grid, point = opened.span, maps.shape[2:], (question.x, question.y)
        row, column = cell_at(geometry, grid, point)
        with opened.muted():
            alike = similar_patches(engine, opened.image, point, question.layer, centred=True, batch_size=1)[0]
            heads, arrays = self._heads(question, point)
            field = self._field(question, geometry, row, column, grid)
        about = Patched(
            cell=(row, column),
            patch=patch_at(geometry, grid, row, column),
            field=field,
            channels=_firing(maps[0].float(), row, column),
            alike=_drawn(alike, "alike", "", ""),
            heads=tuple(heads),
            area=geometry.span if heads else None,
        )
        return Answer(about, {"alike": _flat(alike), **arrays})

    @answer.register
    def _(self, question: Missed, track: Track = silent) -> Answer:
        opened = self._open(question)
        with opened.muted():
            found = missed(opened.batch.engine, opened.image, question.box)
        candidate = winner = None
        if (best := found.candidate) is not None and best.box is not None:
            candidate = Candidate(best.label, best.box, best.probability, found.overlap, found.target)
        if (kept := found.winner) is not None and kept.box is not None:
            winner = Candidate(kept.label, kept.box, kept.probability, 0.0, "")
        return Answer(Missing(found.died, str(found), candidate, winner))

    def export(
        self, question: Explain, form: Literal["png", "svg", "pdf", "npz"], look: Look | None = None
    ) -> tuple[bytes, str, str]:
        """The heatmaps of a question as a file: its bytes, media type and name.

        Raises:
            HookmapError: for what is wrong with the question or the look.
        """
        with hearing():  # who sees the heatmap has been told
            explanation = self.explanation(question)
        media, ending = _SHOWN_AS[form]
        options: Any = {} if look is None else {name: getattr(look, name) for name in LookOptions.__annotations__}
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"map{ending}"
            explanation.save(path, **options if form != "npz" else {})
            data = path.read_bytes()
        stem = Path(explanation[0].picture.name).stem
        return data, media, f"{stem}_{explanation[0].method.name}{ending}"

    # ---------------------------------------------------------------- how it is done

    def _heads(self, question: Patch, point: tuple[float, float]) -> tuple[list[str], dict[str, Tensor]]:
        """Where the heads look from a point, in the attention of the layer or else in the next one, which reads it."""
        opened = self._open(question)
        engine, image = opened.batch.engine, opened.image
        order = {name: place for place, name in enumerate(engine.trace(image.x).layers)}
        try:
            every = attention_maps(engine, image, None, point, without_artefacts=False)
        except HookmapError:  # no attention, or none whose queries lie on the picture
            return [], {}
        inside = [name for name in every if f"{name}.".startswith(f"{question.layer}.")]
        after = [name for name in every if order.get(name.partition("#")[0], -1) > order[question.layer]]
        if not inside and not after:
            return [], {}
        maps = every[inside[-1] if inside else after[0]]
        arrays = {f"head.{number}": one.float() for number, one in enumerate(maps)}
        return list(arrays), arrays

    def _field(self, question: Patch, geometry: Geometry, row: int, column: int, grid: Sequence[int]) -> Box | None:
        """What of the picture a cell sees: the central cell's field, moved to the cell."""
        batch = self._open(question).batch
        engine, x = batch.engine, batch.x.clone()
        key = (question.model, question.layer, tuple(x.shape[1:]))
        if key not in self._fields:
            try:
                self._fields[key] = receptive_field(
                    engine.called, question.layer, engine.trace(x).layout(question.layer), x
                )
            except (HookmapError, RuntimeError):  # nothing goes back to the pixels
                self._fields[key] = None
        field = self._fields[key]
        if field is None:
            return None
        middle = torch.tensor([(column + 0.5) / grid[1], (row + 0.5) / grid[0]])
        span, half = torch.tensor(geometry.input[::-1]), torch.tensor(field[::-1]) / 2
        corners = torch.stack([middle * span - half, middle * span + half])
        left, top, right, bottom = geometry.to_original(corners).flatten().tolist()
        height, width = geometry.original
        return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def id_of(data: bytes) -> str:
    """Of a picture, by the bytes of its file."""
    return hashlib.sha256(data).hexdigest()[:32]


def _about(id: str, engine: Engine) -> ModelAbout:
    form, attends, choice = "other", False, None
    try:
        x = engine.example()
        form = engine.trace(x).form
        attends = _attends(engine, x)
        choice = engine.choice(x)
    except HookmapError:
        pass
    methods = tuple(
        MethodAbout(
            method.name,
            method.title,
            method.summary,
            method.family,
            method.per_layer,
            method.look.symmetric or not method.rectified,
            method.one_by_one or method.family in ("masking", "replay", "pixels"),
        )
        for method in METHODS.values()
        if (form == "detections" or not method.objects)
        and (attends or not any(ingredient.attention for ingredient in method.ingredients))
    )
    texts = form == "embeddings" and hasattr(engine.called, "embed_texts")
    return ModelAbout(
        id=id,
        name=engine.name,
        form=form,  # type: ignore[arg-type]
        labels=tuple(engine.labels or ()),
        texts=texts,
        methods=methods,
        method=choice.method if choice else None,
        layers=choice.layers if choice else (),
    )


def _attends(engine: Engine, x: Tensor) -> bool:
    try:
        with preserved(engine.model), capture(engine.called, (), attention=True) as seen:
            engine.called(x)
            return bool(seen.attentions)
    except (HookmapError, RuntimeError):
        return False


def _target(question: Explain) -> TargetSpec:
    return question.target if question.versus is None else Contrast(question.target, question.versus)


_SETTINGS = ("part", "aug_smooth", "noise_smooth", "eigen_smooth", "libra", "rivals", "seed", "budget")


def _options(question: Explain) -> Any:
    return {name: value for name in _SETTINGS if (value := getattr(question, name)) not in (None, False, 0)}


def _again(question: Explain, heatmap: Heatmap, named: Named) -> tuple[str, str]:
    """The lines of Python and the command that ask the same."""
    picture, options = heatmap.picture.name, _options(question)
    asked = [repr(picture)]
    target: Any = int(question.target) if question.target.isdigit() else question.target
    if question.versus is not None:
        other: Any = int(question.versus) if question.versus.isdigit() else question.versus
        asked.append(f"hm.Contrast({target!r}, {other!r})")
    elif question.target != "predicted":
        asked.append(repr(target))
    named_too = {"layer": question.layer, "method": question.method, **options, "check": question.check or None}
    asked += [f"{name}={value!r}" for name, value in named_too.items() if value is not None]
    call = f"lens.explain({', '.join(asked)})"
    lines = ["import hookmap as hm", "", f"lens = {named.python}"]
    lines += [
        f"concepts_{number} = lens.concepts({picture!r}, {muting.layer!r})"
        for number, muting in enumerate(question.muted)
        if muting.of == "concepts"
    ]
    indent = ""
    for number, muting in enumerate(question.muted):
        extra = f", factor={muting.factor!r}" * (muting.factor != 0) + ', of="heads"' * (muting.of == "heads")
        weaker = f"concepts_{number}" if muting.of == "concepts" else repr(muting.layer)
        lines.append(f"{indent}with lens.muted({weaker}, {list(muting.numbers)!r}{extra}):")
        indent += "    "
    lines.append(f"{indent}heatmaps = {call}")
    if question.muted:
        return "\n".join(lines), ""
    words = ["hookmap", "explain", picture, *shlex.split(named.command)]
    if question.target != "predicted":
        words += ["--target", question.target]
    if question.versus is not None:
        words += ["--versus", question.versus]
    for name, value in named_too.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return "\n".join(lines), shlex.join(words)


def _drawn(heatmap: Heatmap, array: str, python: str, command: str) -> Drawn:
    check, choice = heatmap.check, heatmap.question.choice if heatmap.question is not None else None
    return Drawn(
        array=array,
        target=heatmap.target,
        title=heatmap.title,
        index=heatmap.index,
        score=heatmap.score,
        probability=heatmap.probability,
        where=heatmap.where,
        box=heatmap.box,
        number=heatmap.number,
        method=heatmap.method.name,
        method_title=heatmap.method.title,
        layer=heatmap.layer,
        evidence=heatmap.evidence,
        caveat=heatmap.caveat,
        coverage=heatmap.coverage,
        look=heatmap.look.as_json(),
        area=heatmap.geometry.span,
        why=choice.why if choice is not None else "",
        python=python,
        command=command,
        believed=None
        if check is None
        else Believed(check.word, str(check), check.percentile, check.kept, check.score, check.stability),
    )


def _flat(heatmap: Heatmap) -> Tensor:
    """The signed map of a picture.

    Raises:
        HookmapError: for those of videos, volumes and series.
    """
    if heatmap.raw.ndim != 2:
        raise HookmapError(
            f"this model's heatmaps are {heatmap.raw.ndim}-dimensional, and the interface shows those of pictures; use "
            "lens.explain"
        )
    return heatmap.raw.detach().float()


def _seen(one: Prediction, target: str) -> Seen:
    return Seen(target, one.index, one.label, one.score, one.probability, one.box, one.share)


def _firing(maps: Tensor, row: int, column: int) -> tuple[Fires, ...]:
    """The channels of ``(C, h, w)`` that stand out most at a place, the first first."""
    here, places = maps[:, row, column], maps.flatten(1)
    deviations = (here - places.mean(1)) / places.std(1, correction=0).clamp(min=1e-12)
    best = deviations.nan_to_num().argsort(descending=True)[:FIRING].tolist()
    return tuple(Fires(number, float(here[number]), float(deviations[number])) for number in best)


def _erased(pixels: np.ndarray[Any, Any], strokes: Sequence[Stroke], fill: str) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageDraw

    if not any(stroke.points for stroke in strokes):
        raise HookmapError("nothing was brushed out; draw over what is to be erased")
    if fill not in FILLS:
        raise HookmapError(f"there's no fill {fill!r}; there are {', '.join(FILLS)}")
    height, width = pixels.shape[:2]
    if any(abs(number) > FAR for stroke in strokes for number in chain([stroke.width], *stroke.points)):
        raise HookmapError("what was brushed out lies far outside of the picture")
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for stroke in strokes:
        half = max(stroke.width / 2, 0.5)
        draw.line([*map(tuple, stroke.points)], fill=255, width=max(1, round(stroke.width)))
        for x, y in stroke.points:
            draw.ellipse((x - half, y - half, x + half, y + half), fill=255)
    removed = torch.from_numpy(np.asarray(mask) > 127)
    if not removed.any():
        raise HookmapError("what was brushed out lies outside of the picture")
    whole = torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255
    factor = min(1.0, FILLED / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    small = F.interpolate(whole[None], size, mode="area")[0]
    left_out = F.interpolate(removed[None, None].float(), size, mode="area")[0, 0] > 0
    kept = FILLS[fill](small, left_out[None])[0]
    smooth = F.interpolate(kept[None], (height, width), mode="bilinear", align_corners=False)[0]
    mixed = torch.where(removed, smooth, whole).clamp(0, 1)
    return (mixed.movedim(0, -1) * 255).round().byte().numpy()


def _bytes(picture: Picture) -> int:
    encoded = picture.encoded
    return len(encoded) if encoded is not None else picture.pixels.nbytes


def _digest(what: Any) -> str:
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
