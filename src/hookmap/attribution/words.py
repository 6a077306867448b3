"""Which words of a text make it like a picture: the gain of their similarity shared out among the words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import torch
from torch import Tensor

from hookmap._progress import Track
from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError, TargetError
from hookmap.results.words import Word, WordEvidence
from hookmap.targets import Similarity, Text
from hookmap.targets.likeness import reader_of

_AT_ONCE = 64
_NOTHING = 1e-6
"""So little rounding alone changes."""
# Scripts that write no spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")

Value = Callable[[Tensor], Tensor]
"""From which players take part, ``(N, W)`` of truth values, to what each of the N coalitions is worth, ``(N,)``."""


def word_evidence(
    engine: Engine, image: Any, text: str | Sequence[str], *, budget: int, seed: int, track: Track
) -> WordEvidence:
    """The similarity of an image and a text, shared out among the text's words: see :meth:`hookmap.Lens.words`.

    Raises:
        TargetError: if the model reads no texts, or the text is empty.
    """
    sentence = _split(text)
    read = reader_of(engine.called, sentence.text)
    batch = engine.only(image)
    likeness = Similarity(engine.embed(batch.views)[0])
    count = len(sentence.words)

    def value(takes_part: Tensor) -> Tensor:
        texts = [sentence.of(row) for row in takes_part.tolist()]
        done, found = track("reading texts", len(texts)), []
        for start in range(0, len(texts), _AT_ONCE):
            part = texts[start : start + _AT_ONCE]
            found.append(likeness(read(part)).double().cpu())
            done(len(part))
        return torch.cat(found)

    shares = shapley_values(value, count, budget=budget, seed=seed)
    ends = torch.tensor([[False] * count, [True] * count])
    empty, score, *without = value(torch.cat([ends, ~torch.eye(count, dtype=torch.bool)])).tolist()
    if count > 1 and abs(without[-1] - score) < _NOTHING:
        engine.remark(
            f"without its last word {sentence.words[-1]!r} the text is the same to the model; a text may be longer "
            "than what a model reads (77 tokens for CLIP): shorten it, if so"
        )
    words = [
        Word(part, start, float(share), float(error), rest, sentence.of([i != k for i in range(count)]))
        for k, (part, start, share, error, rest) in enumerate(
            zip(sentence.words, sentence.starts, shares.values, shares.errors, without, strict=True)
        )
    ]
    return WordEvidence(sentence.text, tuple(words), score, empty, shares.exact, batch.views[0].picture, engine.name)


@dataclass(frozen=True)
class _Sentence:
    """A text and where its words are.

    Attributes:
        text: all of it.
        words: its parts.
        starts: the place of each in the text.
    """

    text: str
    words: Sequence[str]
    starts: Sequence[int]

    def of(self, takes_part: Sequence[bool]) -> str:
        """The text of some of its words, each with the space that follows it."""
        ends = [*self.starts[1:], len(self.text)]
        spans = zip(takes_part, self.starts, ends, strict=True)
        return "".join(self.text[start:end] for kept, start, end in spans if kept).strip()


def _split(text: str | Sequence[str]) -> _Sentence:
    if isinstance(text, str):
        found = list(_WORD.finditer(text))
        sentence = _Sentence(text, [match[0] for match in found], [match.start() for match in found])
    else:
        if not all(isinstance(part, str) and part.strip() for part in text):
            raise TargetError("parts of a text were given, and one of them is no text; pass words or phrases")
        starts, whole = [], ""
        for part in text:
            whole += " " if whole else ""
            starts.append(len(whole))
            whole += part.strip()
        sentence = _Sentence(whole, [part.strip() for part in text], starts)
    Text(sentence.text)  # which says what is wrong with an empty one
    return sentence


# ---------------------------------------------------------------- shared out


@dataclass(frozen=True, eq=False)
class Shares:
    """What each of W players adds to what all of them are worth.

    Attributes:
        values: ``(W,)``; they sum to the worth of all minus that of none.
        errors: the standard error of each, ``(W,)``; 0 where all coalitions were asked.
        exact: whether they were.
    """

    values: Tensor
    errors: Tensor
    exact: bool


def shapley_values(value: Value, count: int, *, budget: int, seed: int) -> Shares:
    r"""Shapley values: what a player adds to those before it, on average over all orders.

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\,(W - |S| - 1)!}{W!} \bigl(v(S \cup i) - v(S)\bigr)

    Shapley, *A Value for n-Person Games*, 1953. They are the only shares that sum to what all are worth minus what
    none is, are equal for players that add the same, 0 for one that never adds anything, and add up where games do.
    Where there are more coalitions than ``budget``, orders are drawn in pairs, each with its reverse (Mitchell et al.,
    *Sampling Permutations for Shapley Value Estimation*, JMLR 2022): the sum stays exact.

    Args:
        value: of coalitions.
        count: W, one or more.
        budget: about how many coalitions may be asked.
        seed: of the orders.

    >>> both = shapley_values(lambda rows: rows.all(1).double(), 2, budget=4, seed=0)
    >>> both.values.tolist(), both.exact
    ([0.5, 0.5], True)
    """
    if budget < 1:
        raise HookmapError(f"budget is {budget}; expected how many texts may be read, 1 or more")
    if 2**count <= budget or count <= 2:
        return _of_all(value, count)
    generator, pairs = torch.Generator().manual_seed(seed), max(2, budget // (2 * (count - 1)))
    drawn = torch.stack([torch.randperm(count, generator=generator) for _ in range(pairs)])
    orders = torch.stack([drawn, drawn.flip(1)], 1).flatten(0, 1)  # (2 P, W)
    places = orders.argsort(1)
    # Before the first player, after the first, ..., after the last: (2 P, W + 1, W).
    before = places[:, None] < torch.arange(count + 1)[None, :, None]
    rows, which = before.flatten(0, 1).unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    added = value(rows)[which].reshape(2 * pairs, count + 1).diff(dim=1).gather(1, places)
    means = added.reshape(pairs, 2, count).mean(1)
    return Shares(means.mean(0), means.std(0) / pairs**0.5, exact=False)


def _of_all(value: Value, count: int) -> Shares:
    numbers = torch.arange(2**count)
    rows = (numbers[:, None] >> torch.arange(count)) & 1 == 1
    worth = value(rows)
    sizes = rows.sum(1)
    weights = torch.tensor([1 / (count * comb(count - 1, size)) for size in range(count)], dtype=torch.float64)
    shares = []
    for player in range(count):
        without = numbers[~rows[:, player]]
        added = worth[without + (1 << player)] - worth[without]
        shares.append((weights[sizes[without]] * added).sum())
    return Shares(torch.stack(shares), torch.zeros(count, dtype=torch.float64), exact=True)
