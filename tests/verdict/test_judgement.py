from __future__ import annotations

import numpy as np
import pytest

from hookmap.verdict.judgement import Judgement, judged

VOTES = ("SRG (mean)", "SRG (blur)", "ROAD")


def votes(*means: float, seed: int, images: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).normal(means, 1, (images, 3))


def asked(contestants: dict[str, np.ndarray], gates: dict | None = None, costs: dict | None = None) -> Judgement:
    table = {**contestants, "edges": votes(0, 0, 0, seed=90), "random": votes(0, 0, 0, seed=91, images=200)}
    table["random"] = table["random"].reshape(100, 2, 3)
    names = list(contestants)
    return judged(
        table,
        contestants=names,
        controls=["edges"],
        votes=VOTES,
        costs=costs or dict.fromkeys(names, 1.0),
        gates=gates or {},
        flips=1000,
    )


def test_what_is_better_by_all_votes_wins() -> None:
    j = asked({"good": votes(3, 3, 3, seed=1), "bad": votes(1, 1, 1, seed=2)})
    assert (j.outcome, j.best, j.answer) == ("winner", "good", ("good",))
    assert j.against["good > bad"] == VOTES
    assert j.standings[0].beats == ("edges", "random")


def test_what_cannot_be_told_apart_is_tied_and_the_cheapest_is_taken() -> None:
    one = votes(2, 2, 2, seed=1)
    j = asked({"dear": one + 0.01, "cheap": one + votes(0, 0, 0, seed=5) * 0.2}, costs={"dear": 50, "cheap": 3})
    assert (j.outcome, j.best) == ("tied", "cheap")
    assert set(j.answer) == {"dear", "cheap"}


def test_votes_that_contradict_each_other_are_said() -> None:
    j = asked({"a": votes(4, 2, 2, seed=1), "b": votes(2, 2, 4, seed=2)})
    assert j.outcome == "disagree"
    assert j.orders["SRG (mean)"] == ("a", "b")
    assert j.orders["ROAD"] == ("b", "a")


def test_nothing_is_recommended_where_nothing_beats_the_controls() -> None:
    j = asked({"a": votes(0, 0, 0, seed=1), "b": votes(0.05, 0, 0, seed=2)})
    assert (j.outcome, j.best, j.answer) == ("nothing", None, ())
    assert "isn't better than edges, random" in j.standings[0].faults[0]


@pytest.mark.parametrize(("gate", "value", "why"), [("leakage", 0.3, "30%"), ("similarity", 1.0, "whatever class")])
def test_the_best_by_votes_is_not_taken_if_it_fails_a_gate(gate: str, value: float, why: str) -> None:
    given = {"good": votes(3, 3, 3, seed=1), "honest": votes(1.5, 1.5, 1.5, seed=2)}
    j = asked(given, gates={gate: {"good": value, "honest": 0.0}})
    assert (j.outcome, j.best) == ("winner", "honest")
    assert why in next(s for s in j.standings if s.name == "good").faults[0]


def test_intervals_hold_the_means_and_the_unit_is_that_of_random_maps() -> None:
    j = asked({"a": votes(2, 0, 4, seed=1) * 10})
    random = votes(0, 0, 0, seed=91, images=200)
    for mean, (low, high) in zip(j.standings[0].votes, j.standings[0].intervals, strict=True):
        assert low < mean < high
    assert j.standings[0].votes[0] == pytest.approx(20 / random[:, 0].std(ddof=1), rel=0.15)
