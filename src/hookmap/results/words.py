"""Which words of a text make it like a picture, as a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from hookmap._files import keep_inputs, save_image
from hookmap._text import closest
from hookmap.errors import TargetError
from hookmap.images.loading import Picture
from hookmap.render.notebook import html_of
from hookmap.targets import Contrast, Goal, Text

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Word:
    """One word of a text, or a phrase that was given as one.

    Attributes:
        text: of the word.
        start: its place in the whole text, in characters.
        share: what it adds to the similarity, on average over all orders of the words; below 0 it speaks against.
        error: the standard error of that; 0 where all combinations of words were read.
        without: the similarity of the text without it.
        rest: the text without it.
    """

    text: str
    start: int
    share: float
    error: float
    without: float
    rest: str

    def __str__(self) -> str:
        return f"{self.text} {self.share:+.3f}"


@dataclass(frozen=True, eq=False)
class WordEvidence(Sequence[Word]):
    """What each word of a text adds to its similarity with a picture. Made by :meth:`hookmap.Lens.words`.

    The shares of all words and the similarity of the empty text sum to the similarity of the text.

    Attributes:
        text: all of it.
        words: in their order.
        score: the similarity of the text and the picture, -1..1.
        empty: that of the empty text.
        exact: whether all combinations of words were read; else orders were drawn, and each word has an error.
        picture: the image as it was given.
        model: its name.
    """

    text: str
    words: tuple[Word, ...]
    score: float
    empty: float
    exact: bool
    picture: Picture
    model: str

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[Word]:
        return iter(self.words)

    @overload
    def __getitem__(self, word: int | str) -> Word: ...
    @overload
    def __getitem__(self, word: slice) -> tuple[Word, ...]: ...
    def __getitem__(self, word: int | str | slice) -> Word | tuple[Word, ...]:
        """A word by its number or as it is written, whatever its capitals and the marks around it.

        Raises:
            TargetError: for a word that the text doesn't hold.
        """
        if not isinstance(word, str):
            return self.words[word]
        found = next((one for one in self.words if _plain(one.text) == _plain(word)), None)
        if found is None:
            near = closest(word, (one.text for one in self.words)) or [one.text for one in self.words]
            raise TargetError(f"the text has no word {word!r}; it has {', '.join(near)}")
        return found

    def target(self, word: int | str) -> Goal:
        """What explains where in the picture a word matters: the text rather than the text without it."""
        one = self[word]
        return Contrast(Text(self.text), Text(one.rest)) if one.rest else Text(self.text)

    @property
    def strongest(self) -> list[Word]:
        """The words that add or take away most, first."""
        return sorted(self.words, key=lambda word: -abs(word.share))

    @property
    def row(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        about = {"image": self.picture.name, "text": self.text, "score": self.score, "empty": self.empty}
        return {**about, "exact": self.exact, "words": [vars(word) for word in self.words]}

    def __repr__(self) -> str:
        words = ", ".join(map(str, self.strongest[:4])) + (", ..." if len(self) > 4 else "")
        return f"WordEvidence({self.text!r} in {self.picture.name!r}, similarity {self.score:.3f}: {words})"

    def page(self) -> Image.Image:
        """The photo, and the text with its words coloured by what they add."""
        from hookmap.render.words import words_page

        sure = max((word.error for word in self.words), default=0.0)
        note = f"{self.model}: similarity {self.score:.3f} = {self.empty:.3f} of the empty text and what the words add"
        if not self.exact:
            note += f", each within ±{2 * sure:.3f}"
        return words_page(self.picture.pixels, [(word.text, word.share) for word in self.words], note)

    def save(self, path: str | Path) -> Path:
        """Write the :meth:`page` as an image file.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        return save_image(self.page(), path)

    def _repr_html_(self) -> str:
        rows = [[word.text, f"{word.share:+.4f}", f"{word.without:.4f}"] for word in self.words]
        return html_of(self.page(), self.text, self.picture.name, rows, heads=["word", "adds", "similarity without it"])


def _plain(word: str) -> str:
    return word.strip(".,;:!?\"'()[]").casefold()
