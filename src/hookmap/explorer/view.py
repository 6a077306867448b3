"""A view as a file: a page that holds a picture, its answers and the interface, without Python or a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookmap import __version__
from hookmap._files import keep_inputs, write_bytes
from hookmap._progress import Track, silent
from hookmap.errors import HookmapError
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import QUESTIONS, About, Explain, Features, Predict, Question, Stages, View
from hookmap.explorer.wire import packed, plain, read
from hookmap.pages import embedded, render_page
from hookmap.targets import PREDICTED

KIND = {kind: name for name, (kind, _) in QUESTIONS.items()}
SHOWN = 1600
"""Longer side in pixels of the pictures in a view."""
CLASSES = 5
"""So many of the strongest classes or detections can be asked for in a view that nobody chose the questions of."""


def questions_of(explorer: Explorer, model: str, picture: str, asked: Sequence[Explain]) -> list[Question]:
    """What a person may want to walk through: the strongest classes, the stages, and their feature maps.

    Args:
        explorer: that answers.
        model: the id of the model.
        picture: the id of the picture.
        asked: what is explained first; of the first also each stage is shown.

    Raises:
        HookmapError: if one of these can't be answered.
    """
    for one in asked:  # what was named isn't left out
        explorer.answer(one)
    predict, stages = Predict(model=model, picture=picture), Stages(model=model, picture=picture)
    questions: list[Question] = [*asked, predict, stages]
    told = explorer.answer(predict).about
    questions += [Explain(model=model, picture=picture, target=one.target) for one in told.predictions[:CLASSES]]
    # Of all detections the interface asks for the strongest first.
    detected = asked[0].target == PREDICTED and any(one.box is not None for one in told.predictions)
    target = told.predictions[0].target if detected else asked[0].target
    for stage in explorer.answer(stages).about.stages:
        questions.append(Features(model=model, picture=picture, layer=stage.layer, target=asked[0].target))
        questions.append(Explain(model=model, picture=picture, target=target, layer=stage.layer))
    return questions


def saved_view(
    explorer: Explorer, questions: Iterable[Question], state: Mapping[str, Any] | None = None, track: Track = silent
) -> str:
    """The page.

    Args:
        explorer: that answers.
        questions: that the page can answer; what can't be answered is left out.
        state: of the interface, from which it begins.
        track: called with a description and a total, gives a function that is told of progress.

    Raises:
        HookmapError: if none of the questions can be answered.
    """
    questions = list(dict.fromkeys(questions))
    done, answers, problem = track("saving", len(questions)), [], None
    for question in questions:
        try:
            answer = base64.b64encode(packed(explorer.answer(question))).decode()
        except HookmapError as error:
            problem = problem or error
        else:
            answers.append({"kind": KIND[type(question)], "question": plain(question), "answer": answer})
        done(1)
    if not answers:
        raise problem or HookmapError("a view without a question was to be saved; ask something first")
    used = dict.fromkeys(question.picture for question in questions)
    models = {question.model for question in questions}
    view: dict[str, Any] = {
        "about": plain(About(__version__, explorer.device)),
        "models": [plain(about) for about in explorer.models() if about.id in models],
        "pictures": [plain(explorer.about(id)) | {"address": _address(*explorer.shown(id, SHOWN))} for id in used],
        "answers": answers,
        "state": dict(state or {}),
    }
    names = " and ".join(picture["name"] for picture in view["pictures"])
    title = f"{names} in {' and '.join(about['name'] for about in view['models'])}"
    return render_page(
        "view", style="app/assets/index.css", script="app/assets/index.js", title=title, view=embedded(view)
    )


def page_of(explorer: Explorer, view: View, track: Track = silent) -> str:
    """The page that an interface asks for.

    Raises:
        HookmapError: if it makes no sense, or none of its questions can be answered.
    """
    return saved_view(explorer, questions_in(view), view.state, track)


def questions_in(view: View) -> list[Question]:
    """The questions of a view that an interface asks for.

    Raises:
        HookmapError: if they make no sense.
    """
    return [read(QUESTIONS[one.kind][0], one.question) for one in view.questions]


def write_view(
    explorer: Explorer,
    path: Path,
    questions: Iterable[Question],
    state: Mapping[str, Any] | None = None,
    track: Track = silent,
) -> Path:
    """Write the page; see :func:`saved_view`.

    Raises:
        HookmapError: if nothing can be answered, or the place can't be written or holds one of the pictures; nothing
            half-written is left.
    """
    questions = list(questions)
    keep_inputs({explorer.picture(question.picture).path for question in questions}, [path])
    page = saved_view(explorer, questions, state, track)
    return write_bytes(path, page.encode)


def _address(data: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
