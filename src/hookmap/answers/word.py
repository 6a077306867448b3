"""A word of an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerWord:
    """A word of an answer.

    Attributes:
        text: as it stands there.
        start: its first character in the answer's text.
        end: the character after its last.
        tokens: the numbers of the tokens that write it.
        log_probability: of these tokens, each after what stands before it.
        occurrence: which of the words that are written so, from 1.
    """

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]
    log_probability: float
    occurrence: int
