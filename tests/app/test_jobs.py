"""The queue: newest first, each question once, bounded, and nothing runs that nobody wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import Any

import pytest

from hookmap._progress import Track
from hookmap.app import jobs as jobs_module
from hookmap.app.jobs import ENDED, Answers, Job, Jobs, Reply
from hookmap.app.problems import Refused
from hookmap.errors import TargetError

PATIENT = 30


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


@asynccontextmanager
async def running(**given: Any) -> AsyncIterator[Jobs]:
    jobs = Jobs(**given)
    worker = asyncio.create_task(jobs.run())
    yield jobs
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker


def said(word: str) -> Callable[[Track], Reply]:
    return lambda track: Reply(word.encode(), "text/plain")


class Held:
    """Work that goes on, step by step, until it is let go."""

    def __init__(self) -> None:
        self.began, self.free = threading.Event(), threading.Event()
        self.steps = 0

    def __call__(self, track: Track) -> Reply:
        step = track("holding", 1000)
        self.began.set()
        while not self.free.wait(0.005):
            self.steps += 1
            step(1)
        return Reply(b"held", "text/plain")


async def within(wait: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(wait, PATIENT)


async def began(held: Held) -> None:
    await within(asyncio.to_thread(held.began.wait, PATIENT))


@in_a_loop
async def test_the_newest_question_is_answered_first() -> None:
    async with running() as jobs:
        held, order = Held(), list[str]()
        first = jobs.ask("first", held)
        await began(held)

        def noted(word: str) -> Callable[[Track], Reply]:
            return lambda track: order.append(word) or Reply(b"", "")

        waiting = [jobs.ask(word, noted(word)) for word in ("a", "b", "c")]
        held.free.set()
        for job in (first, *waiting):
            await within(job.end())
        assert order == ["c", "b", "a"]


@in_a_loop
async def test_the_same_question_is_answered_once() -> None:
    async with running() as jobs:
        held = Held()
        job = jobs.ask("key", held)
        await began(held)
        assert jobs.ask("key", said("never")) is job
        held.free.set()
        await within(job.end())
        assert job.about.state == "done"
        assert jobs.answers.get("key") == Reply(b"held", "text/plain")


@in_a_loop
async def test_a_job_stops_at_its_next_step_and_the_next_one_begins() -> None:
    async with running() as jobs:
        held = Held()
        job = jobs.ask("key", held)
        await began(held)
        other = jobs.ask("other", said("other"))
        jobs.cancel(job)
        assert job.about.state == "cancelled"
        again = jobs.ask("key", said("again"))
        assert again is not job
        await within(other.end())
        steps = held.steps
        await within(again.end())
        assert held.steps == steps
        assert jobs.answers.get("key") == Reply(b"again", "text/plain")
        assert job.about.state == "cancelled"


@in_a_loop
async def test_a_job_that_waits_and_is_cancelled_never_begins() -> None:
    async with running(waiting=2) as jobs:
        held, never = Held(), Held()
        first = jobs.ask("first", held)
        await began(held)
        waiting = jobs.ask("waiting", never)
        jobs.cancel(waiting)
        for word in "ab":
            jobs.ask(word, said(word))  # the cancelled one takes no room
        held.free.set()
        await within(first.end())
        await within(jobs.ask("b", said("b")).end())
        assert not never.began.is_set()


@in_a_loop
async def test_the_queue_is_bounded_and_says_so() -> None:
    async with running(waiting=3) as jobs:
        held = Held()
        jobs.ask("first", held)
        await began(held)
        asked = [jobs.ask(str(number), said("")) for number in range(3)]
        with pytest.raises(Refused, match="3 questions wait already") as refused:
            jobs.ask("one more", said(""))
        assert refused.value.status_code == 429
        assert jobs.ask("2", said("")) is asked[2]
        held.free.set()


@in_a_loop
async def test_what_nobody_waits_for_any_more_is_cancelled_unless_it_was_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_module, "PATIENCE", 0.3)
    async with running() as jobs:
        alone, shared, promised = Held(), Held(), Held()
        job = jobs.ask("alone", alone)
        with jobs.listening(job):
            await began(alone)
        await within(job.end())
        assert job.about.state == "cancelled"

        job = jobs.ask("shared", shared)
        with jobs.listening(job):
            with jobs.listening(job):
                await began(shared)
            await asyncio.sleep(0.3)
            assert job.about.state == "running"

        job = jobs.ask("promised", promised)
        with jobs.listening(job):
            await began(promised)
            jobs.promise(job)
        await asyncio.sleep(0.2)
        assert job.about.state == "running"
        await within(job.end())
        assert job.about.state == "cancelled"


@in_a_loop
async def test_events_have_numbers_and_the_newest_says_all() -> None:
    async with running() as jobs:
        held = Held()
        job = jobs.ask("key", held)
        seen = [(job.number, job.about)]
        while len(seen) < 5:
            await within(job.after(seen[-1][0]))
            seen.append((job.number, job.about))
        held.free.set()
        await within(job.end())
        numbers = [number for number, _ in seen]
        assert numbers == sorted(set(numbers))
        assert [about.state for _, about in seen[:2]] == ["waiting", "running"]
        last = seen[-1][1].progress
        assert (last.what, last.total) == ("holding", 1000)
        assert 0 < last.done <= held.steps


@in_a_loop
async def test_what_goes_wrong_is_a_problem_and_the_worker_goes_on() -> None:
    def fails(error: BaseException) -> Callable[[Track], Reply]:
        def work(track: Track) -> Reply:
            raise error

        return work

    async with running() as jobs:
        ends = {}
        for error in (TargetError("no such class"), ZeroDivisionError("by zero"), MemoryError()):
            job = jobs.ask(repr(error), fails(error))
            await within(job.end())
            assert job.about.state == "failed"
            ends[job.about.problem.kind] = job.about.problem.error
        assert ends["target"] == "no such class"
        assert ends["internal"] == "something went wrong in hookmap: ZeroDivisionError: by zero"
        assert "memory" in ends
        await within(jobs.ask("well", said("well")).end())


@in_a_loop
async def test_jobs_that_ended_are_forgotten_at_last() -> None:
    async with running() as jobs:
        asked = list[Job]()
        for number in range(ENDED + 10):
            asked.append(jobs.ask(str(number), said("")))
            await within(asked[-1].end())
        jobs.ask("one more", said(""))
        assert jobs.find(asked[-1].about.id) is asked[-1]
        with pytest.raises(Refused, match="ended long ago"):
            jobs.find(asked[0].about.id)


@in_a_loop
async def test_to_end_cancels_everything_and_waits_for_the_thread() -> None:
    held, before = Held(), set(threading.enumerate())  # servers of other tests are among them
    async with running() as jobs:
        job = jobs.ask("key", held)
        await began(held)
        waiting = jobs.ask("waiting", said(""))
    assert job.about.state == waiting.about.state == "cancelled"
    assert "hookmap_0" not in {thread.name for thread in threading.enumerate() if thread not in before}


def test_answers_are_kept_up_to_a_number_of_bytes_and_the_last_one_always() -> None:
    answers = Answers(room=10)
    for key in "abc":
        answers.keep(key, Reply(bytes(4), ""))
    assert [key for key in "abc" if answers.get(key)] == ["b", "c"]
    answers.get("b")
    answers.keep("d", Reply(bytes(4), ""))
    assert [key for key in "bcd" if answers.get(key)] == ["b", "d"]
    answers.keep("d", Reply(bytes(6), ""))
    assert [key for key in "bd" if answers.get(key)] == ["b", "d"]
    answers.keep("large", Reply(bytes(100), ""))
    assert [key for key in ("b", "d", "large") if answers.get(key)] == ["large"]


@in_a_loop
async def test_what_takes_minutes_gives_way_to_what_is_asked_now() -> None:
    long, order = Held(), list[str]()

    def short(track: Track) -> Reply:
        steps = long.steps
        threading.Event().wait(0.05)
        order.append(f"nothing else ran: {long.steps == steps}")
        return Reply(b"short", "text/plain")

    async with running() as jobs:
        slow = jobs.ask("long", long, "meanwhile")
        await asyncio.to_thread(long.began.wait, PATIENT)
        for number in range(3):
            await asyncio.wait_for(jobs.ask(f"short {number}", short).end(), PATIENT)
        assert slow.about.state == "running"
        long.free.set()
        await asyncio.wait_for(slow.end(), PATIENT)
    assert order == ["nothing else ran: True"] * 3
    assert slow.about.state == "done"


@in_a_loop
async def test_a_queue_ends_at_once_whatever_runs_meanwhile() -> None:
    long = Held()
    async with running() as jobs:
        slow = jobs.ask("long", long, "meanwhile")
        await asyncio.to_thread(long.began.wait, PATIENT)
    assert slow.about.state == "cancelled"
