"""Whether verdicts can be believed: simulations on the votes of a comparison that was made.

``python benchmarks/verdicts.py FOLDER`` with the folder of a `hookmap compare`. Its confirming votes are real: skewed,
heavy-tailed, alike between votes and methods. From them:

- **False findings**: within every image the methods' votes change hands at random, so that all are equally good. How
  often is any found better than another?
- **Power**: one of these equal methods gets .2 standard deviations of random maps more, by all votes. How often is that
  found?
- **Halves**: the images are split at random. How often do both halves give the same answer, or one that overlaps?
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import hookmap as hm
from hookmap.metrics.statistics import sign_flips
from hookmap.verdict.candidates import RANDOM
from hookmap.verdict.judgement import judged
from hookmap.verdict.stages import VOTES

ADDED = 0.2


def votes_of(folder: Path) -> dict[str, np.ndarray]:
    """Of each contestant, control and random map, ``(n, 3)``."""
    parts = [json.loads(path.read_text()) for path in sorted((folder / "done").glob("confirm-*.json"))]
    parts = [part for part in parts if isinstance(part, dict)]
    return {name: np.array([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--simulations", type=int, default=1000)
    given = parser.parse_args()
    verdict = hm.Verdict.read(given.folder)
    table = votes_of(given.folder)
    noises = np.stack([values for name, values in table.items() if name.startswith(f"{RANDOM} ")], 1)
    contestants = list(verdict.candidates)
    controls = [name for name in table if name not in contestants and not name.startswith(f"{RANDOM} ")]
    unit = noises.reshape(-1, 3).std(0, ddof=1)
    real = np.stack([table[name] for name in contestants], 1) / unit  # (n, methods, votes)
    n, methods, _ = real.shape
    pairs = [(a, b) for a in range(methods) for b in range(a)]
    random = np.random.default_rng(0)
    found = strong = 0
    for seed in range(given.simulations):
        order = random.random((n, methods)).argsort(1)
        equal = np.take_along_axis(real, order[:, :, None], 1)
        for added in (0.0, ADDED):
            values = equal + added * (np.arange(methods) == 0)[None, :, None]
            differences = np.concatenate([values[:, a] - values[:, b] for a, b in pairs], 1)
            test = sign_flips(differences, flips=1000, seed=seed)
            of_first = np.array([b == 0 for _, b in pairs for _ in range(3)])
            if added:
                strong += bool(((test.p <= 0.05) & of_first & (test.mean < 0)).any())
            else:
                found += bool((test.p <= 0.05).any())
    print(f"{n} images, {methods} contestants, {given.simulations} simulations")
    print(f"any false finding: {found / given.simulations:.1%}")
    print(f"a difference of {ADDED} standard deviations of random maps is found: {strong / given.simulations:.1%}")
    gates = {
        gate: {s.name: getattr(s, gate) for s in verdict.contestants if getattr(s, gate) is not None}
        for gate in ("leakage", "similarity", "pasted")
    }
    costs = {s.name: s.cost or 0.0 for s in verdict.contestants}
    same = overlap = 0
    splits = 200
    for seed in range(splits):
        order = random.permutation(n)
        answers = []
        for part in (order[: n // 2], order[n // 2 :]):
            half = {name: table[name][part] for name in [*contestants, *controls]} | {RANDOM: noises[part]}
            judgement = judged(
                half,
                contestants=contestants,
                controls=controls,
                votes=VOTES,
                costs=costs,
                gates=gates,
                seed=seed,
                flips=1000,
            )
            answers.append(set(judgement.answer))
        same += answers[0] == answers[1]
        overlap += bool(answers[0] & answers[1]) or answers[0] == answers[1]
    print(f"both halves give the same answer: {same / splits:.1%}; one that overlaps: {overlap / splits:.1%}")


if __name__ == "__main__":
    main()
