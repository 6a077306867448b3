"""Which method and layer to take for a model, found on the photos that were opened, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hookmap import __version__
from hookmap._files import cache_folder
from hookmap._progress import Track
from hookmap._warnings import hearing
from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Compared, Decided
from hookmap.report import write_verdict
from hookmap.verdict import Verdict
from hookmap.verdict.compare import compared


class Comparisons:
    """Compares methods and layers; one that was cancelled goes on where it was, in another process too.

    Args:
        explorer: that has the models.
        photos: that were opened.
    """

    def __init__(self, explorer: Explorer, photos: Sequence[Path]) -> None:
        self._explorer = explorer
        self.photos = tuple(photos)
        self._stamp = [(str(path.absolute()), (about := path.stat()).st_size, about.st_mtime_ns) for path in photos]

    def key(self, model: str) -> str:
        """What decides the verdict for a model: hookmap, the model and its weights, and the photos.

        Raises:
            HookmapError: if there's no such model.
        """
        about = self._explorer.engine(model).about()
        asked = json.dumps([__version__, about, self._stamp], default=str)
        return hashlib.sha256(asked.encode()).hexdigest()[:32]

    def decide(self, model: str, track: Track) -> Decided:
        """Compare, or say what was found before.

        Raises:
            HookmapError: if the photos are too few, or can't be read; or for what is wrong with the model.
        """
        engine, folder = self._explorer.engine(model), self._folder(model)
        if not Verdict.is_in(folder):
            with hearing():  # what a single map's caller is warned of
                compared(engine, [*map(str, self.photos)], out=folder, resume=True, track=track)
        return _decided(Verdict.read(folder), engine)

    def page(self, model: str) -> bytes:
        """What was found as one page; see :func:`hookmap.report.write_verdict`.

        Raises:
            HookmapError: if nothing was found yet.
        """
        with TemporaryDirectory() as place:
            return write_verdict(self._folder(model), Path(place) / "verdict.html").read_bytes()

    def _folder(self, model: str) -> Path:
        return cache_folder("comparisons") / self.key(model)


def _decided(verdict: Verdict, engine: Engine) -> Decided:
    try:
        default = engine.choice(engine.example()).layers
    except HookmapError:
        default = ()
    rows = []
    for standing in verdict.judgement.standings:
        candidate = verdict.candidates.get(standing.name)
        layers = () if candidate is None else candidate.layers
        rows.append(
            Compared(
                name=standing.name,
                remark=verdict.remark(standing.name),
                mean=standing.mean,
                interval=standing.mean_interval,
                cost=standing.cost,
                faults=standing.faults,
                control=candidate is None,
                method="" if candidate is None else candidate.method,
                layer="" if layers in ((), default) else layers[0] if len(layers) == 1 else None,
            )
        )
    return Decided(tuple(verdict.summary()), verdict.judgement.images, tuple(rows))
