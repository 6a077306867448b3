"""An answer of a vision-language model, each word of which can be traced to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from torch import Tensor

from hookmap._progress import tracking
from hookmap.adapters.wording import Span
from hookmap.answers.page import Page, write_page
from hookmap.answers.word import AnswerWord
from hookmap.attribution.answering import Spoken, spoken
from hookmap.attribution.batch import explain_batch
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.explain import warn_of_maps_that_show_nothing
from hookmap.attribution.planning import ExplainOptions, MethodSpec, planned
from hookmap.errors import TargetError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.loading import Picture
from hookmap.metrics.check import checked_each
from hookmap.results.explanation import Explanation
from hookmap.targets import Contrast, Word

WordSpec: TypeAlias = "str | int | Word | Contrast"


class Answer(Sequence[AnswerWord]):
    """What a vision-language model said about a picture, word by word; made by :meth:`hookmap.Lens.ask`.

    The pass from the picture's tokens to the words is kept as long as the answer is, so that the first word that is
    explained costs about that pass and its gradient, and each further one a gradient.

    Attributes:
        text: of the answer.
        question: that was asked.
        picture: that it was asked about.
        log_probabilities: of each token after those before it, ``(T,)``.
    """

    def __init__(self, engine: Engine, picture: Picture, question: str, said: Spoken) -> None:
        self.picture = picture
        self.question = question
        self.text = said.wording.text
        self.log_probabilities: Tensor = said.log_probabilities
        self._said = said
        self._engine = engine

    @cached_property
    def words(self) -> Sequence[AnswerWord]:
        """The words in their order; where words aren't written apart, tokens."""
        wording, found = self._said.wording, []
        for part in wording.words:
            if tokens := wording.tokens_of(part):
                found.append(self._part(part, tokens))
        return found

    def _part(self, part: Span, tokens: tuple[int, ...]) -> AnswerWord:
        wording = self._said.wording
        sure = float(self.log_probabilities[list(tokens)].sum())
        before = sum(other.start <= part.start for other in wording.every(wording.of(part)))
        return AnswerWord(wording.of(part), part.start, part.end, tokens, sure, before)

    @property
    def batch(self) -> Batch:
        """The picture, with an engine whose model says this answer whatever the picture is changed to."""
        return self._said.batch

    @property
    def tokens(self) -> list[str]:
        """The text of each token, as its number is given to :meth:`explain`."""
        return [self._said.wording.of(span) for span in self._said.wording.spans]

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the tokens."""
        return self._said.wording.ids

    def __getitem__(self, number: Any) -> Any:
        return self.words[number]

    def __len__(self) -> int:
        return len(self.words)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Answer({self.text!r} by {self._engine.name!r} about {self.picture.name!r})"

    def explain(
        self,
        words: WordSpec | AnswerWord | Sequence[WordSpec | AnswerWord] | None = None,
        layer: LayerSpec | None = None,
        method: MethodSpec | Sequence[MethodSpec] | None = None,
        *,
        versus: str | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Heatmaps of where in the picture words of the answer come from.

        Args:
            words: a word or a phrase of the answer, the number of a token, a :class:`hookmap.Word`, or a list of these;
                by default every word.
            layer: where to look; by default where the picture's tokens are handed to the language model.
            method: as in :meth:`hookmap.Lens.explain`; by default
                gradient times activation, each channel's positive part.
            versus: the word that might stand there instead: ``explain("red", versus="blue")``.
            **options: as in :meth:`hookmap.Lens.explain`.

        Returns:
            One heatmap per word, layer and method.

        Raises:
            TargetError: for words that the answer hasn't got, with those that it has.
        """
        several = words if isinstance(words, (list, tuple)) else self.words if words is None else [words]
        if not several:
            raise TargetError(f"the answer {self.text!r} has no words to explain; pass the number of a token")
        goals = [self._goal(word, versus) for word in several]
        batch = self._said.batch
        given = dict(options)
        for name in ("batch_size", "on_error"):
            given.pop(name, None)
        check = bool(given.pop("check", False))
        with tracking(bool(given.pop("progress", True))) as track:
            plan = replace(planned(batch.engine, goals, layer, method, given), track=track)  # type: ignore[arg-type]
            heatmaps = explain_batch(replace(batch, x=batch.x.clone()), plan)
            if check:
                heatmaps = checked_each(self._engine, heatmaps)
        warn_of_maps_that_show_nothing(heatmaps)
        return Explanation(heatmaps)

    def save(
        self,
        path: str | Path,
        words: Sequence[WordSpec | AnswerWord] | None = None,
        layer: LayerSpec | None = None,
        method: MethodSpec | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Path:
        """Write one HTML page: the answer, of which each word can be clicked to see where in the picture it comes from.

        It needs no Python and no network, and runs no script.

        Args:
            path: of the page.
            words: that can be clicked, as in :meth:`explain`; by default all.
            layer: likewise.
            method: likewise, one.
            **options: likewise.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        chosen = self.words if words is None else [self._word(word) for word in words]
        if overlapping := next((b for a, b in pairwise(sorted(chosen, key=_start)) if b.start < a.end), None):
            raise TargetError(f"{overlapping.text!r} is a part of another word of the page; pass one of the two")
        explained = self.explain(self.words if words is None else words, layer, method, **options)
        page = Page(
            self.text, self.question, self.picture, self._engine.name, list(zip(chosen, explained, strict=True))
        )
        return write_page(page, Path(path))

    def _word(self, word: WordSpec | AnswerWord) -> AnswerWord:
        """A word, a phrase or a token as a part of the text."""
        if isinstance(word, AnswerWord):
            return word
        goal, wording = self._goal(word, None), self._said.wording
        if isinstance(goal, Contrast):
            raise TargetError("a page shows words; explain a contrast by answer.explain")
        tokens, _ = goal.tokens(wording)
        part = wording.find(goal.text, goal.occurrence) if isinstance(goal.text, str) else wording.spans[goal.text]
        return self._part(part, tokens)

    def _goal(self, word: Any, versus: str | None) -> Any:
        if isinstance(word, Contrast):
            return Contrast(self._goal(word.this, None), self._goal(word.that, None))
        if isinstance(word, AnswerWord):
            word = Word(word.text, occurrence=word.occurrence)
        elif not isinstance(word, Word):
            word = Word(word)
        goal = replace(word, question=self.question, answer=self._said.wording.ids, versus=versus or word.versus)
        goal.tokens(self._said.wording)  # what isn't there is said at once
        return goal


def _start(word: AnswerWord) -> int:
    return word.start


def ask(engine: Engine, picture: Picture, question: str, answer: str | None, most: int, *, progress: bool) -> Answer:
    """See :meth:`hookmap.Lens.ask`."""
    with tracking(progress) as track:
        return Answer(engine, picture, question, spoken(engine, picture, question, answer, most, track))
