"""An answer in words: its tokens, where each stands in the text, and what a model says at each place of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from hookmap._text import closest, listed
from hookmap.errors import TargetError


class Span(NamedTuple):
    """A part of a text: its characters ``start`` to ``end``."""

    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Wording:
    """Tokens and the text that they are.

    Attributes:
        ids: of the tokens.
        tokenizer: of the model, as transformers has it.
    """

    ids: tuple[int, ...]
    tokenizer: Any

    @cached_property
    def text(self) -> str:
        """What the tokens say, without marks such as that of the end."""
        return self._decoded(len(self.ids))

    def _decoded(self, count: int) -> str:
        text: str = self.tokenizer.decode(
            list(self.ids[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @cached_property
    def spans(self) -> Sequence[Span]:
        """Which characters of the text each token adds; none for marks, and for all but the last that make one letter.

        Found by reading ever longer beginnings: a text that is written and read again may be other tokens.
        """
        spans, end = [], 0
        for count in range(1, len(self.ids) + 1):
            begun = self._decoded(count)
            same = next((i for i, (a, b) in enumerate(zip(begun, self.text, strict=False)) if a != b), None)
            reached = max(end, min(len(begun), len(self.text)) if same is None else same)
            if begun.endswith("\ufffd") and count < len(self.ids):  # a letter's first bytes
                reached = max(end, min(reached, len(begun.rstrip("\ufffd"))))
            spans.append(Span(end, reached))
            end = reached
        return spans

    @cached_property
    def words(self) -> Sequence[Span]:
        """The words of the text; where words aren't written apart, what each token adds."""
        found = []
        for match in re.finditer(r"\w+(?:['’\-]\w+)*", self.text):
            if not any(map(_unspaced, match[0])):
                found.append(Span(*match.span()))
                continue
            cuts = {match.start(), match.end(), *(s.end for s in self.spans if match.start() < s.end < match.end())}
            found += [Span(*pair) for pair in pairwise(sorted(cuts))]
        return found

    def of(self, part: Span) -> str:
        """The characters of a part."""
        return self.text[part.start : part.end]

    def tokens_of(self, part: Span) -> tuple[int, ...]:
        """The numbers of the tokens that write a part of the text."""
        chosen: list[int] = []
        waiting: list[int] = []
        for number, span in enumerate(self.spans):
            if span.start == span.end:
                waiting.append(number)
                continue
            if span.start < part.end and span.end > part.start:
                chosen += [*waiting, number] if span.start >= part.start or not chosen else [number]
            waiting = []
        return tuple(chosen)

    def every(self, phrase: str) -> list[Span]:
        """Where a word or a phrase stands, each time; letters' case counts only if both spellings are there."""
        wanted = phrase.strip()
        apart = not any(map(_unspaced, wanted))
        left = r"(?<!\w)" if apart and re.match(r"\w", wanted) else ""
        right = r"(?!\w)" if apart and re.search(r"\w$", wanted) else ""
        pattern = left + r"\s+".join(map(re.escape, wanted.split())) + right
        for flags in (re.NOFLAG, re.IGNORECASE):
            if wanted and (found := [Span(*match.span()) for match in re.finditer(pattern, self.text, flags)]):
                return found
        return []

    def find(self, phrase: str, occurrence: int = 1) -> Span:
        """Where a word or a phrase stands for the first, second, ... time: one of :meth:`every`.

        Raises:
            TargetError: if it isn't there so often.
        """
        wanted, found = phrase.strip(), self.every(phrase)
        if 1 <= occurrence <= len(found):
            return found[occurrence - 1]
        if found:
            raise TargetError(
                f"{wanted!r} stands {len(found)} time{'s' * (len(found) > 1)} in the answer, and occurrence is "
                f"{occurrence}; count from 1"
            )
        names = list(dict.fromkeys(self.of(word) for word in self.words))
        meant = closest(wanted, names)
        hint = f"did you mean {', '.join(meant)}?" if meant else f"its words are {listed(names, 12) or '(none)'}"
        raise TargetError(f"the answer {_shortened(self.text)!r} has no {phrase!r}; {hint}")

    def instead(self, tokens: Sequence[int], other: str) -> tuple[int, int]:
        """The first of a word's tokens in which another word in its place differs, and the id that the other has there.

        Raises:
            TargetError: if both begin with the same tokens.
        """
        own = tuple(self.ids[number] for number in tokens)
        start, end = self.spans[tokens[0]].start, self.spans[tokens[-1]].end
        word = self.text[start:end]
        # Many tokenizers write the space before a word with it.
        spaced = word[:1].isspace() or self._encoded(" " + word.strip()) == own
        ids = self._encoded((" " if spaced else "") + other.strip())
        for number, mine, theirs in zip(tokens, own, ids, strict=False):
            if mine != theirs:
                return number, theirs
        raise TargetError(
            f"{word.strip()!r} and {other!r} begin with the same tokens, so they can't be told apart; name another word"
        )

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass
class Said:
    """What a model says at each place of an answer.

    Attributes:
        logits: of the vocabulary, ``(B, T, V)``, at each of the answer's T tokens.
        wording: the answer.
    """

    logits: Tensor
    wording: Wording


def _unspaced(letter: str) -> bool:
    """Whether a letter is of a script in which words aren't written apart."""
    if unicodedata.category(letter)[0] not in "LM":
        return False
    name = unicodedata.name(letter, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"))


def _shortened(text: str) -> str:
    return text if len(text) < 60 else text[:57] + "..."
