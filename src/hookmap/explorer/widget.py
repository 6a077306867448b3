"""The interface in a notebook: the page's questions come as messages of a widget, and its answers go back as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from hookmap import __version__, pages
from hookmap._optional import require
from hookmap._progress import Track
from hookmap.errors import HookmapError, first_line
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import QUESTIONS, About, Erase, Export, Progress, View
from hookmap.explorer.view import page_of
from hookmap.explorer.wire import packed, plain, read

Send: TypeAlias = Callable[[dict[str, Any], list[bytes]], None]
Told: TypeAlias = tuple[Any, list[bytes]]


def widget(explorer: Explorer, state: Mapping[str, Any]) -> Any:
    """The widget, ready to be shown.

    Args:
        explorer: that answers.
        state: of the interface, from which it begins.

    Raises:
        MissingLibraryError: without anywidget.
    """
    require("anywidget", "pydantic", extra="notebook")
    import anywidget
    import traitlets

    class Exploration(anywidget.AnyWidget):
        """An image in a model, to be walked through."""

        _esm = pages.BUILT / "widget.js"
        state = traitlets.Dict().tag(sync=True)

    shown = Exploration(state=dict(state))
    conversation = Conversation(explorer, lambda told, buffers: shown.send(told, buffers))
    shown.on_msg(lambda _, content, buffers: conversation.hear(content, buffers))
    return shown


class Conversation:
    """Answers a page's messages, one after the other.

    A message has a number ``id``, what is asked, ``ask``, and what goes with it; what it is told has the same ``id``
    and ``told`` (and buffers), or ``problem``, and before that ``progress``.

    Args:
        explorer: that answers.
        send: a message, and buffers beside it.
    """

    def __init__(self, explorer: Explorer, send: Send) -> None:
        self._explorer = explorer
        self._send = send

    def hear(self, content: Any, buffers: Sequence[Any] = ()) -> None:
        """Answer a message; what is wrong with it is told too."""
        number = content.get("id") if isinstance(content, Mapping) else None
        try:
            told, data = self._told(content, buffers, self._track(number))
        except HookmapError as error:
            self._send({"id": number, "problem": {"error": str(error), "kind": type(error).__name__}}, [])
        except Exception as error:  # of the model, or a message that makes no sense
            said = f"{type(error).__name__}: {first_line(error)}"
            self._send({"id": number, "problem": {"error": said, "kind": "error"}}, [])
        else:
            self._send({"id": number, "told": told}, data)

    def _track(self, number: Any) -> Track:
        def track(what: str, total: int) -> Callable[[int], None]:
            done = 0

            def step(more: int) -> None:
                nonlocal done
                done += more
                self._send({"id": number, "progress": plain(Progress(what, done, total))}, [])

            return step

        return track

    def _told(self, content: Any, buffers: Sequence[Any], track: Track) -> Told:
        explorer, ask = self._explorer, content.get("ask")
        if ask == "about":
            return plain(About(__version__, explorer.device)), []
        if ask == "models":
            return [plain(one) for one in explorer.models()], []
        if ask == "samples":
            return [plain(one) for one in explorer.samples()], []
        if ask == "picture":
            data, media = explorer.shown(str(content["picture"]), int(content["longer"]))
            return {"media": media}, [data]
        if ask == "upload":
            return plain(explorer.add(bytes(buffers[0]), str(content["name"]))), []
        if ask == "erase":
            return plain(explorer.erase(read(Erase, content["erase"]))), []
        if ask == "export":
            asked = read(Export, {"question": content["question"], "look": content.get("look") or None})
            data, media, name = explorer.export(asked.question, content["form"], asked.look)
            return {"media": media, "name": name}, [data]
        if ask == "view":
            page = page_of(explorer, read(View, {"state": content["state"], "questions": content["questions"]}), track)
            return {"media": "text/html", "name": "view.html"}, [page.encode()]
        if ask in QUESTIONS:
            return {}, [packed(explorer.answer(read(QUESTIONS[ask][0], content["question"]), track))]
        raise HookmapError(f"the page asked for {ask!r}, which there isn't")
