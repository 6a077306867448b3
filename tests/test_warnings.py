"""What is warned of, and who hears it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import hookmap as hm
from hookmap._warnings import hearing, warn


def test_a_warning_points_at_the_users_line() -> None:
    with pytest.warns(hm.HookmapWarning, match="too dark") as caught:
        warn("too dark")
    assert caught[0].filename == __file__


def test_who_hears_is_told_alone_and_the_outer_one_again_afterwards() -> None:
    with hearing() as outer:
        warn("one")
        with hearing() as inner:
            warn("two")
        warn("three")
    assert (outer, inner) == (["one", "three"], ["two"])
    with pytest.warns(hm.HookmapWarning, match="four"):
        warn("four")


def test_threads_hear_what_is_warned_of_in_themselves() -> None:
    """With ``warnings.catch_warnings`` what one thread warns of goes to whoever came last."""
    both, told = threading.Barrier(2), dict[str, list[str]]()

    def ask(name: str) -> None:
        with hearing() as heard:
            both.wait(10)
            warn(f"{name}: one")
            both.wait(10)
            warn(f"{name}: two")
        told[name] = heard

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == {name: [f"{name}: one", f"{name}: two"] for name in ("a", "b")}


def test_what_an_explanation_warns_of_is_heard(cat: Path) -> None:
    lens = hm.Lens()  # of its own: each says a thing once
    with hearing() as heard:
        lens.explain(cat, layer="blocks.5")
    assert any("averages the gradient over all places" in sentence for sentence in heard)
