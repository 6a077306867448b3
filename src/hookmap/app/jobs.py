"""Questions that wait for the one thread that answers them, and the answers that were given last.

All state belongs to the event loop; the thread only works, and is told to stop by what its steps raise.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hookmap._progress import Track
from hookmap.app.problems import Refused, problem_of
from hookmap.explorer.questions import JobAbout, Progress

WAITING = 256
"""The most questions that wait."""
ENDED = 256
"""Of the last so many jobs it is known how they ended."""
ROOM = 256 * 2**20
"""Bytes of answers that are kept."""
PATIENCE = 30.0
"""Seconds for which a job that was promised goes on while nobody listens."""
PAUSE = 0.1
"""Seconds between two words of progress."""


class Cancelled(Exception):
    """The job was cancelled: what its steps raise."""


@dataclass(frozen=True)
class Reply:
    """What is sent.

    Attributes:
        data: the bytes.
        media: their media type.
        name: of the file, if it is one.
    """

    data: bytes
    media: str
    name: str | None = None


Work = Callable[[Track], Reply]


class Job:
    """A question that is being answered: what is known of it, of which every change is an event with a number."""

    def __init__(self, key: str, work: Work) -> None:
        self.about = JobAbout(secrets.token_urlsafe(12), key, "waiting")
        self.number = 1
        self.listeners = 0
        self.wanted_until = 0.0
        self._work = work
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._told = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.about.state not in ("waiting", "running")

    def tell(self, **news: Any) -> None:
        """Change what is known, unless it has ended."""
        if not self.ended:
            self.about = replace(self.about, **news)
            self.number += 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def after(self, number: int) -> None:
        """Wait until there is an event with a larger number, or it has ended."""
        while self.number <= number and not self.ended:
            await self._changed.wait()

    async def end(self) -> None:
        """Wait until it has ended."""
        while not self.ended:
            await self._changed.wait()

    def work(self) -> Reply:
        """Answer the question, in the thread."""
        self._step(Progress())
        return self._work(self._track)

    def _track(self, what: str, total: int) -> Callable[[int], None]:
        progress = Progress(what, 0, total)

        def step(done: int) -> None:
            nonlocal progress
            progress = replace(progress, done=progress.done + done)
            self._step(progress)

        self._step(progress)
        return step

    def _step(self, progress: Progress) -> None:
        if self.ended:
            raise Cancelled
        if (now := time.monotonic()) - self._told >= PAUSE:
            self._told = now
            self._loop.call_soon_threadsafe(partial(self.tell, progress=progress))


class Answers:
    """The replies that were given or asked for last: the very last, and as many before it as fit into the room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[str, Reply] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Reply | None:
        """Of a question's key, if it is still there."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """For whoever asks again."""
        self._bytes += len(reply.data) - (len(self._kept.pop(key).data) if key in self._kept else 0)
        self._kept[key] = reply
        while self._bytes > self._room and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].data)


class Jobs:
    """The queue of one device: the newest question first, each once, however many ask it."""

    def __init__(self, waiting: int = WAITING, room: int = ROOM) -> None:
        self.answers = Answers(room)
        self._most = waiting
        self._waiting: list[Job] = []
        self._live: dict[str, Job] = {}
        self._known: dict[str, Job] = {}
        self._asked = asyncio.Event()

    def ask(self, key: str, work: Work) -> Job:
        """The job that answers the question of this key: the one that is under way, or a new one.

        Raises:
            Refused: if too many wait.
        """
        if key in self._live:
            return self._live[key]
        if len(self._waiting) >= self._most:
            raise Refused("busy", f"{len(self._waiting)} questions wait already; try again when some are answered")
        job = Job(key, work)
        self._waiting.append(job)
        self._live[key] = job
        self._known[job.about.id] = job
        for old in [name for name, known in self._known.items() if known.ended][:-ENDED]:
            del self._known[old]
        self._asked.set()
        return job

    def find(self, name: str) -> Job:
        """The job of an id.

        Raises:
            Refused: if there is none, or it ended long ago.
        """
        if name not in self._known:
            raise Refused("absent", "there's no such job, or it ended long ago; ask again")
        return self._known[name]

    def cancel(self, job: Job) -> None:
        """End a job; one that runs stops at its next step."""
        job.tell(state="cancelled")
        self._forget(job)

    @contextmanager
    def listening(self, job: Job) -> Iterator[None]:
        """While somebody waits for a job; one that nobody wants any more is cancelled."""
        job.listeners += 1
        try:
            yield
        finally:
            job.listeners -= 1
            left = job.wanted_until - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, left + PAUSE), self._cancel_if_unwanted, job)

    def promise(self, job: Job) -> None:
        """Go on for a while although nobody listens: whoever asked comes back."""
        job.wanted_until = time.monotonic() + PATIENCE

    async def run(self) -> None:
        """Answer what is asked, until cancelled."""
        with ThreadPoolExecutor(1, "hookmap") as thread:
            try:
                while True:
                    await self._asked.wait()
                    if self._waiting:
                        await self._answer(self._waiting.pop(), thread)
                    else:
                        self._asked.clear()
            finally:
                self.close()

    def close(self) -> None:
        """Cancel everything."""
        for job in list(self._live.values()):
            self.cancel(job)

    async def _answer(self, job: Job, thread: ThreadPoolExecutor) -> None:
        job.tell(state="running")
        try:
            reply = await asyncio.get_running_loop().run_in_executor(thread, job.work)
        except Cancelled:
            self.cancel(job)
        except Exception as error:
            job.tell(state="failed", problem=problem_of(error))
        else:
            self.answers.keep(job.about.key, reply)
            job.tell(state="done")
        self._forget(job)

    def _cancel_if_unwanted(self, job: Job) -> None:
        if not job.listeners and time.monotonic() >= job.wanted_until:
            self.cancel(job)

    def _forget(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        if self._live.get(job.about.key) is job:
            del self._live[job.about.key]
