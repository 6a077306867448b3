"""Questions that wait for the thread that answers them, and the answers that were given last.

All state belongs to the event loop; a thread only works, and is told to stop by what its steps raise. What takes
minutes has a thread of its own and gives way at each of its steps: one at a time runs on the device.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

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
Lane: TypeAlias = Literal["now", "meanwhile"]
"""A question that somebody waits for, or one that takes minutes and gives way to all others."""


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

    def work(self, give_way: Callable[[], None]) -> Reply:
        """Answer the question, in the thread.

        Args:
            give_way: is called at each step.
        """

        def track(what: str, total: int) -> Callable[[int], None]:
            progress = Progress(what, 0, total)

            def step(done: int) -> None:
                nonlocal progress
                progress = replace(progress, done=progress.done + done)
                self._step(progress)
                give_way()

            self._step(progress)
            return step

        self._step(Progress())
        return self._work(track)

    def _step(self, progress: Progress) -> None:
        if self.ended:
            raise Cancelled
        if (now := time.monotonic()) - self._told >= PAUSE:
            self._told = now
            self._loop.call_soon_threadsafe(partial(self.tell, progress=progress))


class Turns:
    """Whose turn on the device it is: what is asked now comes before what is done meanwhile."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._asked = 0

    @contextmanager
    def now(self) -> Iterator[Callable[[], None]]:
        """As soon as the device is free; gives a function that does nothing."""
        with self._changed:
            self._asked += 1
            self._changed.wait_for(lambda: not self._busy)
            self._asked -= 1
            self._busy = True
        try:
            yield lambda: None
        finally:
            self._free()

    @contextmanager
    def meanwhile(self) -> Iterator[Callable[[], None]]:
        """While nothing else is asked; gives a function that lets what was asked since come first."""
        self._take()
        try:
            yield self._give_way
        finally:
            self._free()

    def _give_way(self) -> None:
        if self._asked:
            self._free()
            self._take()

    def _take(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._asked)
            self._busy = True

    def _free(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()


class _Queue:
    """Jobs that wait for a thread."""

    def __init__(self, turn: Callable[[], AbstractContextManager[Callable[[], None]]]) -> None:
        self.waiting: list[Job] = []
        self.asked = asyncio.Event()
        self._turn = turn

    def work(self, job: Job) -> Reply:
        """Answer a question when it is its turn, in the thread."""
        with self._turn() as give_way:
            return job.work(give_way)


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
    """The queues of one device: the newest question first, each once, however many ask it."""

    def __init__(self, waiting: int = WAITING, room: int = ROOM) -> None:
        self.answers = Answers(room)
        self._most = waiting
        turns = Turns()
        self._queues: dict[Lane, _Queue] = {"now": _Queue(turns.now), "meanwhile": _Queue(turns.meanwhile)}
        self._live: dict[str, Job] = {}
        self._known: dict[str, Job] = {}

    def ask(self, key: str, work: Work, lane: Lane = "now") -> Job:
        """The job that answers the question of this key: the one that is under way, or a new one.

        Raises:
            Refused: if too many wait.
        """
        if key in self._live:
            return self._live[key]
        queue = self._queues[lane]
        if len(queue.waiting) >= self._most:
            raise Refused("busy", f"{len(queue.waiting)} questions wait already; try again when some are answered")
        job = Job(key, work)
        queue.waiting.append(job)
        self._live[key] = job
        self._known[job.about.id] = job
        for old in [name for name, known in self._known.items() if known.ended][:-ENDED]:
            del self._known[old]
        queue.asked.set()
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
        await asyncio.gather(*map(self._serve, self._queues.values()))

    def close(self) -> None:
        """Cancel everything."""
        for job in list(self._live.values()):
            self.cancel(job)

    async def _serve(self, queue: _Queue) -> None:
        with ThreadPoolExecutor(1, "hookmap") as thread:
            try:
                while True:
                    await queue.asked.wait()
                    if queue.waiting:
                        await self._answer(queue.waiting.pop(), queue, thread)
                    else:
                        queue.asked.clear()
            finally:
                self.close()

    async def _answer(self, job: Job, queue: _Queue, thread: ThreadPoolExecutor) -> None:
        job.tell(state="running")
        try:
            reply = await asyncio.get_running_loop().run_in_executor(thread, queue.work, job)
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
        for queue in self._queues.values():
            if job in queue.waiting:
                queue.waiting.remove(job)
        if self._live.get(job.about.key) is job:
            del self._live[job.about.key]
