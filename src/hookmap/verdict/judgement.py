"""From votes on images to words: which candidates aren't worse than the best, and whether any beats the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from hookmap.metrics.statistics import FLIPS, LEVEL, bca_interval, sign_flips, smallest_difference
from hookmap.verdict.candidates import RANDOM
from hookmap.verdict.gates import passed

Array: TypeAlias = "np.ndarray[Any, Any]"
Outcome = Literal["winner", "tied", "disagree", "nothing"]


@dataclass(frozen=True)
class Standing:
    """How one candidate, or control, stands.

    Attributes:
        name: in words.
        votes: mean of each vote over images, in standard deviations of random maps; 0 is what random maps get.
        intervals: of each vote's mean, 95 % (BCa).
        mean_interval: of the mean of all votes, likewise.
        cost: in forward passes; None for controls.
        leakage: the share of energy where the model can't have looked (DiFull); None where that can't be asked.
        similarity: of the maps of two classes; None likewise.
        pasted: the share of energy on what was pasted into an image, by chance .25; None likewise.
        beats: the controls that it is better than.
        faults: why it isn't recommended, in words; empty where nothing is wrong.
    """

    name: str
    votes: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    mean_interval: tuple[float, float]
    cost: float | None = None
    leakage: float | None = None
    similarity: float | None = None
    pasted: float | None = None
    beats: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Of all votes."""
        return float(np.mean(self.votes))


@dataclass(frozen=True)
class Judgement:
    """What the votes say.

    Attributes:
        outcome: ``"winner"``: one is better than all others; ``"tied"``: several aren't worse than the best, and the
            cheapest of them is taken; ``"disagree"``: the votes contradict each other; ``"nothing"``: nothing is better
            than the controls.
        best: the name of what is recommended; None for nothing.
        answer: the set that isn't significantly worse than the best.
        standings: of the contestants, the best first, then of the controls.
        against: for each pair of contestants "A > B" that is decided, the votes that decide it.
        orders: by each vote, the contestants from the best to the worst.
        images: how many decided.
        detectable: the smallest true difference, in the units of the votes, that would be found 8 times in 10.
    """

    outcome: Outcome
    best: str | None
    answer: tuple[str, ...]
    standings: tuple[Standing, ...]
    against: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    images: int = 0
    detectable: float = 0.0


def judged(
    table: Mapping[str, Array],
    *,
    contestants: Sequence[str],
    controls: Sequence[str],
    votes: Sequence[str],
    costs: Mapping[str, float],
    gates: Mapping[str, Mapping[str, float]],
    seed: int = 0,
    flips: int = FLIPS,
) -> Judgement:
    """Compare all contestants with each other and with the controls, at once.

    A is better than B if one vote is significantly better and none significantly worse, by sign flips over images with
    the largest statistic of all pairs and votes; see :func:`hookmap.metrics.statistics.sign_flips`.

    Args:
        table: of each contestant and control its votes ``(n, V)``, and as ``"random"`` those of random maps
            ``(n, R, V)``, which are the zero and the unit of each vote.
        contestants: names.
        controls: names.
        votes: names of the V votes.
        costs: of contestants.
        gates: by name of the gate, of contestants: ``"leakage"``, ``"similarity"``, ``"pasted"``.
        seed: of the signs.
        flips: how many sets of signs.
    """
    random = table[RANDOM]
    unit = np.maximum(random.reshape(-1, random.shape[-1]).std(0, ddof=1), 1e-12)
    centre = random.mean(1)
    standard = {name: (table[name] - centre) / unit for name in [*contestants, *controls]}
    against_controls = [(a, c) for a in contestants for c in controls]
    pairs = [(a, b) for i, a in enumerate(contestants) for b in contestants[i + 1 :]]
    random_pairs = [(a, None) for a in contestants]
    every: list[tuple[str, str | None]] = [*pairs, *against_controls, *random_pairs]
    differences = np.concatenate([standard[a] - (standard[b] if b is not None else 0) for a, b in every], 1)
    test = sign_flips(differences, seed=seed, flips=flips)
    signs = dict(zip(every, test.significant(LEVEL).reshape(len(every), -1), strict=True))

    def row(a: str, b: str | None) -> Array:
        """By each vote, whether the first is better (1), worse (-1) or neither (0)."""
        if (a, b) in signs:
            return signs[a, b]
        return np.zeros(len(votes)) if a == b or b is None else -signs[b, a]

    def better(a: str, b: str | None) -> bool:
        return bool((row(a, b) > 0).any() and not (row(a, b) < 0).any())

    def contradict(a: str, b: str) -> bool:
        return bool((row(a, b) > 0).any() and (row(a, b) < 0).any())

    standings = []
    for name in contestants:
        beaten = tuple(c for c in controls if better(name, c)) + ((RANDOM,) if better(name, None) else ())
        own = {gate: values.get(name) for gate, values in gates.items()}
        lost = [c for c in (*controls, RANDOM) if c not in beaten]
        faults = ([f"it isn't better than {', '.join(lost)}"] if lost else []) + passed(own)
        about = {"cost": costs.get(name), "beats": beaten, "faults": tuple(faults), **own}
        standings.append(_standing(name, standard[name], seed, **about))
    standings.sort(key=lambda standing: -standing.mean)
    shown = [_standing(name, standard[name], seed) for name in controls]
    fit = [s.name for s in standings if not s.faults]
    against: dict[str, tuple[str, ...]] = {}
    for a, b in pairs:
        for this, that in ((a, b), (b, a)):
            if better(this, that):
                decided = zip(votes, row(this, that), strict=True)
                against[f"{this} > {that}"] = tuple(vote for vote, sign in decided if sign > 0)
    orders = {
        vote: tuple(sorted(contestants, key=lambda name: -standard[name][:, v].mean())) for v, vote in enumerate(votes)
    }
    n = len(differences)
    spread = [float((standard[a] - standard[b]).std(0, ddof=1).mean()) for a, b in pairs] or [
        float(standard[contestants[0]].std(0, ddof=1).mean())
    ]
    detectable = smallest_difference(float(np.median(spread)), n, test.critical)
    outcome: Outcome = "nothing"
    best: str | None = None
    answer: tuple[str, ...] = ()
    if fit:
        leader = next((a for a in fit if not any(better(b, a) for b in fit if b != a)), fit[0])
        answer = tuple(a for a in fit if a == leader or not better(leader, a))
        if len(answer) == 1:
            outcome, best = "winner", leader
        elif any(contradict(leader, a) for a in answer if a != leader):
            outcome, best = "disagree", leader
        else:
            outcome = "tied"
            best = min(answer, key=lambda name: (round(costs.get(name, 0.0), 1), answer.index(name)))
    return Judgement(outcome, best, answer, (*standings, *shown), against, orders, n, detectable)


def _standing(name: str, values: Array, seed: int, **about: Any) -> Standing:
    intervals = tuple(bca_interval(values[:, v], seed=seed) for v in range(values.shape[1]))
    whole = bca_interval(values.mean(1), seed=seed)
    return Standing(name, tuple(map(float, values.mean(0))), intervals, whole, **about)
