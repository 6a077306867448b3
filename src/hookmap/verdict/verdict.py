"""The verdict of a comparison: words, tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import write_bytes
from hookmap._optional import require
from hookmap._text import counted, listed
from hookmap.errors import DataError
from hookmap.render.notebook import table_html
from hookmap.verdict.candidates import Candidate
from hookmap.verdict.figure import quality_figure
from hookmap.verdict.folder import NAME
from hookmap.verdict.judgement import Judgement, Standing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FULL, CONFIRMED = 100, 30
"""So many confirming images make a full answer; below the second number it is a hint."""
RELIABLE = 0.5


@dataclass(frozen=True)
class Verdict:
    """Which method and layer to take, and how sure that is.

    Attributes:
        judgement: what decided.
        candidates: of each contestant's name, its method, layers and how they are fused.
        default: the name of what is drawn where nothing is named.
        asked: of which model, about what, on which images.
        stages: of each earlier stage, what every candidate got there, by name.
        looked_at: so many images each of these stages looked at.
        equal: candidates that give the same map as another, by that one's name.
        reliability: of the shared evidence, -1..1: how alike its halves are; None if nothing was screened.
        failures: images that couldn't be read or asked, and why.
        images: that decided.
        unsure: how many of these the model gives less than 10 % for its own answer.
    """

    judgement: Judgement
    candidates: dict[str, Candidate]
    default: str
    asked: dict[str, Any]
    stages: dict[str, Any] = field(default_factory=dict)
    looked_at: dict[str, int] = field(default_factory=dict)
    equal: dict[str, list[str]] = field(default_factory=dict)
    reliability: float | None = None
    failures: dict[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    unsure: int = 0

    @property
    def best(self) -> Candidate | None:
        """What is recommended; None where nothing beats the controls."""
        return self.candidates[self.judgement.best] if self.judgement.best else None

    def __str__(self) -> str:
        return "\n".join(self.summary())

    def summary(self) -> list[str]:
        """The recommendation in plain sentences."""
        j, unit = self.judgement, "standard deviations of random maps"
        about = f"{self.asked['model']}, {counted(j.images, 'unused image')}"
        if j.outcome == "nothing":
            head = f"Nothing here passes ({about}): no heatmap of these methods can be recommended."
        elif j.outcome == "winner":
            others = [standing for standing in j.standings if standing.name != j.best]
            rivals = [standing for standing in others if not standing.faults]
            if rivals == others:
                why = "better than everything else that was compared"
            else:
                why = "better than everything else that has no fault" if rivals else "the only one that has no fault"
            head = f"Take {j.best} ({about}): it is {why}."
        elif j.outcome == "tied":
            tied = [name for name in j.answer if name != j.best]
            head = f"Take {j.best} ({about}): it is tied with {listed(tied)}, and the cheapest of them."
        else:
            orders = "; ".join(f"by {vote}: {', '.join(order)}" for vote, order in j.orders.items())
            head = f"The metrics disagree ({about}), so none is clearly best: {orders}."
        sentences = [head]
        if j.best is not None:
            votes = zip(self.votes, self._standing(j.best).votes, strict=True)
            sentences.append(
                f"Its votes, in {unit}: " + ", ".join(f"{name} {value:+.2f}" for name, value in votes) + "."
            )
        if j.best != self.default:
            sentences.append(self._of_the_default())
        for standing in self.contestants:
            if standing.faults:
                sentences.append(f"{standing.name} isn't recommended: {'; '.join(standing.faults)}.")
        sentences.append(f"A difference of {j.detectable:.2f} {unit} would have been found 8 times in 10.")
        if j.images < FULL:
            how = "only a hint" if j.images < CONFIRMED else "weaker than it could be"
            sentences.append(f"With {counted(j.images, 'image')} this is {how}; some 200 images give a full answer.")
        if self.reliability is not None and self.reliability < RELIABLE:
            sentences.append(
                f"The screening's evidence is unreliable here (its halves correlate at {self.reliability:.2f}): a good "
                "candidate may have been dropped; compare fewer methods and layers."
            )
        if self.unsure:
            sentences.append(f"Of {self.unsure} of these images the model gives less than 10 % for what was asked.")
        for name, same in self.equal.items():
            sentences.append(f"{listed(same)} {'gives' if len(same) == 1 else 'give'} the same map as {name} here.")
        if self.failures:
            name, why = next(iter(self.failures.items()))
            sentences.append(f"{counted(len(self.failures), 'image')} left out, e.g. {name}: {why}")
        return sentences

    def _of_the_default(self) -> str:
        j = self.judgement
        if j.best is None:
            return f"Nor can what is drawn by default, {self.default}."
        if f"{j.best} > {self.default}" in j.against:
            deciding = j.against[f"{j.best} > {self.default}"]
            return f"It is better than what is drawn by default, {self.default} (by {listed(list(deciding))})."
        if f"{self.default} > {j.best}" in j.against:
            return f"What is drawn by default, {self.default}, gets better votes, but isn't recommended."
        return f"It isn't significantly better than what is drawn by default, {self.default}."

    @property
    def votes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.judgement.orders)

    @property
    def contestants(self) -> list[Standing]:
        """The best first."""
        return [s for s in self.judgement.standings if s.name in self.candidates]

    @property
    def controls(self) -> list[Standing]:
        """What knows nothing of the question."""
        return [s for s in self.judgement.standings if s.name not in self.candidates]

    def _standing(self, name: str) -> Standing:
        return next(s for s in self.judgement.standings if s.name == name)

    @property
    def table(self) -> pd.DataFrame:
        """A row per contestant and control."""
        require("pandas", extra="dataset")
        import pandas as pd

        rows = []
        for s in self.judgement.standings:
            row: dict[str, Any] = {"name": s.name, "control": s.name not in self.candidates}
            for vote, value, (low, high) in zip(self.votes, s.votes, s.intervals, strict=True):
                row |= {vote: value, f"{vote} low": low, f"{vote} high": high}
            row |= {"mean": s.mean, "cost": s.cost, "leakage": s.leakage, "similarity": s.similarity}
            row["pasted"] = s.pasted
            row |= {"in the answer": s.name in self.judgement.answer, "faults": "; ".join(s.faults)}
            rows.append(row)
        return pd.DataFrame(rows)

    def remark(self, name: str) -> str:
        """What is said of a contestant beside its name: that it is recommended, tied, or the default; or nothing."""
        tied = self.judgement.outcome == "tied" and name in self.judgement.answer
        if name == self.judgement.best:
            said = ["not clearly best" if self.judgement.outcome == "disagree" else "recommended"]
        else:
            said = ["tied with the best"] if tied else []
        return ", ".join([*said, "default"] if name == self.default else said)

    def figure(self, *, dark: bool = False) -> Figure:
        """The mean vote against the cost in forward passes, as a matplotlib figure.

        Args:
            dark: for a dark page; its background is transparent.
        """
        best = self.judgement.best
        return quality_figure(self.contestants, self.controls, best=best, remark=self.remark, dark=dark)

    def _repr_html_(self) -> str:
        text = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.summary())
        heads = ["", *self.votes, "mean", "passes", "leakage", "class similarity", "pasted"]
        rows = [
            [
                s.name + (f" ({remark})" if (remark := self.remark(s.name)) else ""),
                *(
                    f"{vote:+.2f} [{low:+.2f}, {high:+.2f}]"
                    for vote, (low, high) in zip(s.votes, s.intervals, strict=True)
                ),
                f"{s.mean:+.2f}",
                *("" if number is None else f"{number:.2f}" for number in (s.cost, s.leakage, s.similarity, s.pasted)),
            ]
            for s in self.judgement.standings
        ]
        return text + table_html(rows, heads)

    # ---------------------------------------------------------------- one file

    def json(self) -> str:
        """All of it as JSON; :meth:`read` takes it back."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether a folder holds a verdict."""
        return (Path(folder).expanduser() / NAME).is_file()

    @classmethod
    def read(cls, path: str | Path) -> Verdict:
        """The verdict that was written to a file, or to the folder of a comparison.

        Raises:
            DataError: if there's none.
        """
        place = Path(path).expanduser()
        place = place / NAME if place.is_dir() else place
        try:
            about: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
            judgement = dict(about["judgement"])
            judgement["standings"] = tuple(_standing(s) for s in judgement["standings"])
            for name in ("against", "orders"):
                judgement[name] = {key: tuple(value) for key, value in judgement[name].items()}
            judgement["answer"] = tuple(judgement["answer"])
            candidates = {
                n: Candidate(c["method"], tuple(c["layers"]), c["fuse"]) for n, c in about["candidates"].items()
            }
            given = {**about, "judgement": Judgement(**judgement), "candidates": candidates}
            return cls(**{**given, "images": tuple(about["images"])})
        except FileNotFoundError:
            raise DataError(f"{place} doesn't exist; pass what `hookmap compare --out` wrote") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{place} holds no verdict ({error})") from None

    def save(self, path: str | Path) -> Path:
        """Write it as JSON.

        Raises:
            HookmapError: if the place can't be written.
        """
        return write_bytes(Path(path), lambda: self.json().encode())


def _standing(about: Mapping[str, Any]) -> Standing:
    given = dict(about)
    given["intervals"] = tuple((low, high) for low, high in given["intervals"])
    return Standing(**{**given, **{name: tuple(given[name]) for name in ("votes", "mean_interval", "beats", "faults")}})


def named(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """By their names."""
    return {candidate.name: candidate for candidate in candidates}
