"""Words of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.adapters.wording import Said, Wording
from hookmap.errors import TargetError
from hookmap.targets.resolving import PlainOutput, Resolved


@dataclass(frozen=True)
class Word:
    r"""A word of what a vision-language model answers, or a phrase, or one of its tokens.

    The score of a phrase is the logarithm of its probability, :math:`\sum_t \log p_t` over its tokens; that of a single
    token its log-odds, :math:`\log \frac{p}{1 - p}`, whose map is the same and doesn't fade where the model is sure;
    that of one word rather than another the difference of their logits at the first token that tells them apart.

    Attributes:
        text: the word or phrase as the answer has it, or the number of a token, from 0.
        question: that is answered; empty: what the model says of the picture by itself.
        answer: the user's own, which the model is asked to say; or the ids of its tokens. None: the model's.
        occurrence: which, where it stands several times; the first is 1.
        versus: the word that might stand there instead.
    """

    text: str | int
    question: str = ""
    answer: str | Sequence[int] | None = None
    occurrence: int = 1
    versus: str | None = None

    def __call__(self, output: Any) -> Tensor:
        """Scores ``(B,)`` in what a model says."""
        return self._resolved(_said(output)).score(output)

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """The word in the answer to one image."""
        said = _said(plain.output)
        found = self._resolved(said)
        probability = float(found.probabilities(said.logits[image : image + 1].detach()))
        return [replace(found, probability=probability)]

    def _resolved(self, said: Said) -> WordScore:
        wording = said.wording
        tokens, name = self.tokens(wording)
        asked = replace(self, answer=wording.ids)
        if self.versus is None:
            return WordScore(asked=asked, name=name, tokens=tokens, ids=tuple(wording.ids[t] for t in tokens))
        token, other = wording.instead(tokens, self.versus)
        return WordScore(
            asked=asked,
            name=f"{name} rather than {self.versus}",
            tokens=(token,),
            ids=(wording.ids[token],),
            instead=other,
        )

    def tokens(self, wording: Wording) -> tuple[tuple[int, ...], str]:
        """The numbers of its tokens in an answer, and what it is called.

        Raises:
            TargetError: if the answer hasn't got it.
        """
        if isinstance(self.text, str):
            place = wording.find(self.text, self.occurrence)
            which = f" ({self.occurrence})" if self.occurrence > 1 else ""
            return wording.tokens_of(place), wording.of(place) + which
        if not 0 <= self.text < len(wording.ids):
            raise TargetError(f"token {self.text} doesn't exist; the answer has {len(wording.ids)}, counted from 0")
        text = wording.of(wording.spans[self.text]).strip()
        return (self.text,), text or f"token {self.text}"

    def __str__(self) -> str:
        return f"{self.text} rather than {self.versus}" if self.versus is not None else str(self.text)


@dataclass(frozen=True, eq=False, kw_only=True)
class WordScore(Resolved):
    """What is read of a word.

    Attributes:
        tokens: their numbers in the answer.
        ids: theirs.
        instead: the id that might stand there instead, or None.
    """

    tokens: tuple[int, ...]
    ids: tuple[int, ...]
    instead: int | None = None

    def score(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        logits = _said(output).logits
        if self.instead is not None:
            at = logits[:, self.tokens[0]].float()
            return at[:, self.ids[0]] - at[:, self.instead]
        odds = self._odds(logits)
        return odds[:, 0] if len(self.tokens) == 1 else F.logsigmoid(odds).sum(1)

    def likelihood(self, output: Any) -> Tensor:
        """Probabilities ``(K,)``."""
        return self.probabilities(_said(output).logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """How probable the word is after what stands before it, ``(K,)``, from logits ``(K, T, V)``."""
        return F.logsigmoid(self._odds(logits)).sum(1).exp()

    def _odds(self, logits: Tensor) -> Tensor:
        """The log-odds of each token, ``(K, n)``: without a difference of nearly equal numbers."""
        chosen = logits[:, list(self.tokens)].float()
        ids = torch.tensor(self.ids, device=logits.device)[None, :, None].expand(len(chosen), -1, 1)
        others = chosen.scatter(2, ids, -torch.inf).logsumexp(2)
        return chosen.gather(2, ids)[..., 0] - others


def _said(output: Any) -> Said:
    if isinstance(output, Said):
        return output
    raise TargetError("a word is asked of a model that answers in words; this one doesn't: pass a class or a place")
