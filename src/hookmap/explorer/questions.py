"""What the interface asks and what it is told: the only list of its messages, from which its schema is made.

Every question is about one model and one picture. An answer is a dataclass here, and arrays by name beside it, which
:mod:`hookmap.explorer.wire` packs together. Coordinates are pixels of the picture as it was given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hookmap.adapters.outputs import Form
from hookmap.attribution.muting import Muting
from hookmap.render.look import Look
from hookmap.results.heatmap import Evidence
from hookmap.results.missed import Died

Box = tuple[float, float, float, float]
"""(left, top, right, bottom)."""


# ---------------------------------------------------------------- questions


class _Asked:
    """What comes from a browser: fields that aren't known are refused (pydantic reads it)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Question(_Asked):
    """What all questions say.

    Attributes:
        model: the id of a model.
        picture: the id of a picture.
        muted: what of the model is muted.
    """

    model: str
    picture: str
    muted: tuple[Muting, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Predict(Question):
    """What does the model see?

    Attributes:
        top: how many classes; by default five, and all detections and regions.
    """

    top: int | None = None


@dataclass(frozen=True, kw_only=True)
class Explain(Question):
    """Why did a target score as it did?

    Attributes:
        target: in words, as on the command line: ``predicted``, an index, a label, ``box:2``, ``point:120,80``,
            ``text:a red car``, ``polygon:10,20 90,20 50,80``.
        versus: rather than which class.
        method: by name; by default the model's.
        layer: by name; by default the model's.
        part: of the signed map.
        aug_smooth, noise_smooth, eigen_smooth, libra, rivals, seed, budget: as in :meth:`hookmap.Lens.explain`.
        check: also measure how far it can be believed.
    """

    target: str = "predicted"
    versus: str | None = None
    method: str | None = None
    layer: str | None = None
    part: Literal["positive", "negative", "signed"] | None = None
    aug_smooth: bool = False
    noise_smooth: int = 0
    eigen_smooth: bool = False
    libra: bool = False
    rivals: int = 0
    seed: int = 0
    budget: int | None = None
    check: bool = False


@dataclass(frozen=True, kw_only=True)
class Stages(Question):
    """What does the network look like, from the picture to the decision?"""


@dataclass(frozen=True, kw_only=True)
class Features(Question):
    """What do a layer's channels see?

    Attributes:
        layer: by name.
        target: whose gradient the channels are sorted by, in words; by default the predicted class or thing.
    """

    layer: str
    target: str = "predicted"


@dataclass(frozen=True, kw_only=True)
class Concepts(Question):
    """Which few things does a layer see in the picture? Of the model before anything is muted.

    Attributes:
        layer: by name.
    """

    layer: str


@dataclass(frozen=True, kw_only=True)
class Patch(Question):
    """What is at one place of a layer?

    Attributes:
        layer: by name.
        x: of the place.
        y: likewise.
    """

    layer: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Nearest(Patch):
    """Which patches of a run's pictures are like the one at a place? Of the model before anything is muted.

    Attributes:
        run: its id.
    """

    run: str


@dataclass(frozen=True, kw_only=True)
class Missed(Question):
    """Why wasn't something detected?

    Attributes:
        box: around what was missed.
    """

    box: Box


@dataclass(frozen=True)
class Stroke(_Asked):
    """A line that was brushed.

    Attributes:
        points: (x, y), one or more.
        width: of the brush.
    """

    points: tuple[tuple[float, float], ...]
    width: float


@dataclass(frozen=True, kw_only=True)
class Erase(_Asked):
    """A picture without a region.

    Attributes:
        picture: its id.
        strokes: what is brushed out.
        fill: what comes in its place: ``blur``, ``mean`` or ``linear`` (from its edges).
    """

    picture: str
    strokes: tuple[Stroke, ...]
    fill: Literal["blur", "mean", "linear"] = "blur"


@dataclass(frozen=True, kw_only=True)
class Export(_Asked):
    """A heatmap as a file.

    Attributes:
        question: that it answers.
        look: how it is drawn, as :attr:`Drawn.look` says it; by default so.
    """

    question: Explain
    look: Look | None = None


@dataclass(frozen=True)
class Saved(_Asked):
    """A question that a saved view can answer.

    Attributes:
        kind: the name of what is asked; see :data:`QUESTIONS`.
        question: as it is asked.
    """

    kind: Literal["predict", "explain", "stages", "features", "concepts", "patch", "missed"]
    question: dict[str, Any]


@dataclass(frozen=True)
class View(_Asked):
    """What is on the screen as one page.

    Attributes:
        state: of the interface.
        questions: that the page can answer.
    """

    state: dict[str, Any]
    questions: tuple[Saved, ...]


@dataclass(frozen=True, kw_only=True)
class Compare(_Asked):
    """Which method and layer to take for a model, on the photos that were opened?

    Attributes:
        model: its id.
    """

    model: str


# ---------------------------------------------------------------- answers


@dataclass(frozen=True)
class MethodAbout:
    """A method that a model can be asked by.

    Attributes:
        name: as it is asked for.
        title: for people.
        summary: what it does, in a sentence.
        family: what it is built on.
        per_layer: whether it looks at a layer.
        signed: whether its map has two signs.
        slow: whether it takes many passes.
    """

    name: str
    title: str
    summary: str
    family: str
    per_layer: bool
    signed: bool
    slow: bool


@dataclass(frozen=True)
class ModelAbout:
    """A model that can be asked.

    Attributes:
        id: as it is asked for.
        name: for people.
        form: of its output.
        labels: names of its classes, in the order of their indices; empty if they aren't known.
        texts: whether it can be asked for a text.
        methods: that it can be asked by.
        method: the default.
        layers: the default layers.
    """

    id: str
    name: str
    form: Form
    labels: tuple[str, ...]
    texts: bool
    methods: tuple[MethodAbout, ...]
    method: str | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureAbout:
    """A picture that was opened.

    Attributes:
        id: as it is asked for.
        name: for people.
        width: in pixels.
        height: in pixels.
    """

    id: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Seen:
    """Something that the model sees; see :class:`hookmap.Prediction`.

    Attributes:
        target: what is asked to explain it, in words.
    """

    target: str
    index: int
    label: str
    score: float
    probability: float
    box: Box | None = None
    share: float | None = None


@dataclass(frozen=True)
class Predicted:
    """What the model sees, the strongest first; ``seen`` is what of the picture it looks at."""

    predictions: tuple[Seen, ...]
    seen: Box


@dataclass(frozen=True)
class Believed:
    """How far a heatmap can be believed; see :class:`hookmap.results.check.Check`."""

    word: str
    text: str
    percentile: float
    kept: float
    score: float
    stability: float | None = None


@dataclass(frozen=True)
class Drawn:
    """A heatmap as it is drawn: its signed map is an array ``(h, w)``, float32.

    Attributes:
        array: the name of its array.
        target: in words, with the class's synonyms.
        title: the target and how sure the model is of it.
        index: of the class, if it is one.
        score: of the target.
        probability: of the target, if it has one.
        where: on the picture, in words.
        box: of a detection.
        number: of a detection.
        method: by name.
        method_title: for people.
        layer: by name, or several that were fused, in words.
        evidence: none, faint, even or some.
        caveat: why there is little to see or to trust; empty where there is evidence.
        coverage: the share of what passes the layer that passes these places, if it was measured.
        look: how it is drawn, as :meth:`hookmap.Look.as_json` says it.
        area: of the picture that the map's grid spans.
        why: what was chosen by default, and why; empty where all was named.
        python: the lines that give it again.
        command: the command that gives it again.
        believed: how far, if that was asked.
    """

    array: str
    target: str
    title: str
    index: int | None
    score: float
    probability: float | None
    where: str
    box: Box | None
    number: int | None
    method: str
    method_title: str
    layer: str
    evidence: Evidence
    caveat: str
    coverage: float | None
    look: dict[str, Any]
    area: Box
    why: str
    python: str
    command: str
    believed: Believed | None = None


@dataclass(frozen=True)
class Explained:
    """Heatmaps of a question: one, but of a detector as many as it means detections.

    Attributes:
        heatmaps: what was asked.
        remarks: what the library warned of.
    """

    heatmaps: tuple[Drawn, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A layer of the strip: its mean feature map is an array ``(h, w)``, float32.

    Attributes:
        array: the name of its array.
        layer: by name.
        kind: its class.
        channels: how many.
        rows: of its grid.
        columns: of its grid.
        default: whether heatmaps are taken here by default.
    """

    array: str
    layer: str
    kind: str
    channels: int
    rows: int
    columns: int
    default: bool


@dataclass(frozen=True)
class Staged:
    """The network as a strip.

    Attributes:
        stages: in the order in which they ran.
        area: of the picture that their grids span.
        layers: all layers that can be looked at, by name, in the order in which they ran.
    """

    stages: tuple[Stage, ...]
    area: Box
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Channels:
    """Feature maps of a layer: an array ``maps (C, h, w)``, float16, of the channels in ``numbers``.

    Attributes:
        layer: by name.
        kind: its class.
        count: how many channels the layer has.
        numbers: of those that came: all, or the first of each order where they would be too many.
        area: of the picture that the grid spans.
        orders: places in ``numbers``, the first first: by ``mean``, ``variance`` and ``influence`` on the target.
        low: the smallest value of all.
        high: the largest.
    """

    layer: str
    kind: str
    count: int
    numbers: tuple[int, ...]
    area: Box
    orders: dict[str, tuple[int, ...]]
    low: float
    high: float


@dataclass(frozen=True)
class ConceptAbout:
    """A thing that a layer sees in a picture.

    Attributes:
        share: of the activation's energy that it explains, 0..1.
        labels: what the model calls it, the most probable first; empty where its output isn't classes.
    """

    share: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Conceived:
    """The concepts of a layer, the largest share first: where they are is an array ``maps (k, h, w)``, float32, 0..1.

    Attributes:
        layer: by name.
        concepts: in the order in which they are muted by number.
        area: of the picture that the grid spans.
    """

    layer: str
    concepts: tuple[ConceptAbout, ...]
    area: Box


@dataclass(frozen=True)
class Fires:
    """A channel at a place: its value there, and how far that is above its mean over the picture, in deviations."""

    number: int
    value: float
    deviations: float


@dataclass(frozen=True)
class Patched:
    """What is at one place of a layer.

    Attributes:
        cell: (row, column) of the layer's grid.
        patch: the cell on the picture.
        field: what of the picture the cell sees; None where that can't be measured.
        channels: that fire most there.
        alike: how alike every other place is; its map is the array ``alike``.
        heads: where each head looks from there, arrays ``(h, w)`` by name; empty without attention.
        area: of the picture that the grids of heads span.
    """

    cell: tuple[int, int]
    patch: Box
    field: Box | None
    channels: tuple[Fires, ...]
    alike: Drawn
    heads: tuple[str, ...] = ()
    area: Box | None = None


@dataclass(frozen=True)
class Candidate:
    """A row that the detector proposed and that isn't among its detections.

    Attributes:
        label: of its strongest class.
        box: on the picture.
        probability: 0..1.
        overlap: with the box that was asked about, intersection over union, 0..1.
        target: what is asked to explain it, in words.
    """

    label: str
    box: Box
    probability: float
    overlap: float
    target: str


@dataclass(frozen=True)
class Missing:
    """Why something wasn't detected.

    Attributes:
        died: where; see :class:`hookmap.Missed`.
        sentence: the same in words.
        candidate: the best row near the box.
        winner: the detection that suppressed it.
    """

    died: Died
    sentence: str
    candidate: Candidate | None = None
    winner: Candidate | None = None


@dataclass(frozen=True)
class ColumnAbout:
    """A column of a run's index; see :data:`hookmap.runs.rows.COLUMNS`.

    Attributes:
        name: of the column.
        group: what it is about, as a person reads it.
        unit: ``"share"`` (0..1), ``"pixels"`` of the picture, ``"number"`` (of a class, a heatmap), or nothing.
    """

    name: str
    group: str
    unit: Literal["share", "pixels", "number", ""]


@dataclass(frozen=True)
class RunAbout:
    """A run that can be browsed.

    Attributes:
        id: as it is asked for.
        name: for people.
        model: the name of its model.
        rows: how many it has.
        columns: of its rows.
    """

    id: str
    name: str
    model: str
    rows: int
    columns: tuple[ColumnAbout, ...]


@dataclass(frozen=True)
class RunRow:
    """A heatmap of a run, or an image that has none.

    Attributes:
        number: of the row.
        values: by the names of columns; None where there's none.
    """

    number: int
    values: dict[str, str | bool | float | None]


@dataclass(frozen=True)
class RunRows:
    """Rows of a run.

    Attributes:
        count: how many fit.
        rows: those that were asked for.
    """

    count: int
    rows: tuple[RunRow, ...]


@dataclass(frozen=True)
class Near:
    """The patch of a run's picture that is like another.

    Attributes:
        array: the name of the array that shows the patch and what is around it: ``(h, w, 3)``, uint8, RGB.
        frame: of the patch there, in shares of it, 0..1.
        name: of the picture.
        row: of the picture, in the run.
        place: the patch's centre, (x, y) in pixels of the picture.
        similarity: cosine of the feature vectors, less the mean of all, -1..1.
    """

    array: str
    frame: Box
    name: str
    row: int
    place: tuple[float, float]
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """Patches that are like one, of each picture the nearest.

    Attributes:
        near: the most alike first.
        looked: at so many pictures of the run.
    """

    near: tuple[Near, ...]
    looked: int


@dataclass(frozen=True)
class ValueCount:
    """A value of a column, and how many rows have it."""

    value: str | bool
    count: int


@dataclass(frozen=True)
class RunMap:
    """The heatmap of a row: its signed map is the array ``map``.

    Attributes:
        look: how it is drawn, as :meth:`hookmap.Look.as_json` says it.
        area: of the picture that the map's grid spans.
    """

    look: dict[str, Any]
    area: Box


@dataclass(frozen=True)
class Compared:
    """A way to take heatmaps, or a control that knows nothing of the question, and how it did.

    Attributes:
        name: of method and layers.
        remark: that it is recommended, tied, or the default; or nothing.
        mean: of its votes, in standard deviations of random maps: 0 is what a random map gets.
        interval: of the mean, 95 %.
        cost: of one heatmap, in forward passes; None if it wasn't measured.
        faults: why it isn't recommended.
        control: whether it is one.
        method: by name.
        layer: by name, empty for the default; None where it takes several that aren't the default.
    """

    name: str
    remark: str
    mean: float
    interval: tuple[float, float]
    cost: float | None
    faults: tuple[str, ...]
    control: bool
    method: str
    layer: str | None


@dataclass(frozen=True)
class Decided:
    """Which method and layer to take; see :class:`hookmap.Verdict`.

    Attributes:
        sentences: that say it.
        images: that decided.
        compared: the best first.
    """

    sentences: tuple[str, ...]
    images: int
    compared: tuple[Compared, ...]


@dataclass(frozen=True)
class Problem:
    """What was wrong with a question, in one sentence."""

    error: str
    kind: str = "error"


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    what: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class JobAbout:
    """A question that is being answered.

    Attributes:
        id: of the job.
        key: of its answer, once it is there.
        state: how it stands.
        progress: of what it is doing.
        problem: why it failed.
    """

    id: str
    key: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: Progress = field(default_factory=Progress)
    problem: Problem | None = None


@dataclass(frozen=True)
class About:
    """What is asked.

    Attributes:
        version: of hookmap.
        device: where the models run.
        photos: how many were opened that methods can be compared on.
    """

    version: str
    device: str
    photos: int = 0


QUESTIONS: dict[str, tuple[type[Question], type]] = {
    "predict": (Predict, Predicted),
    "explain": (Explain, Explained),
    "stages": (Stages, Staged),
    "features": (Features, Channels),
    "concepts": (Concepts, Conceived),
    "patch": (Patch, Patched),
    "missed": (Missed, Missing),
}
"""What is asked by which name, and what it is told."""
