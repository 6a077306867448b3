"""Groups of images that a model explains alike: spectral relevance analysis and its kin.

Lapuschkin et al. 2019, "Unmasking Clever Hans predictors and assessing what machines really learn" (SpRAy), cluster the
heatmaps of a class: where a class has a shortcut, the images that take it come out as a group of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hookmap._optional import require
from hookmap._text import counted
from hookmap.analysis.confusion import right
from hookmap.analysis.crops import attended_crops, described
from hookmap.analysis.drawing import Line, Page, dots_page, heat_tile, lines_page, overlay_of
from hookmap.analysis.frames import REGIONS, Array, By, Frames, distance, frames, is_spoken_for, mean_of, short
from hookmap.analysis.grouping import by_density, by_spectrum, reduced, rooted, separation
from hookmap.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.lens import Lens
    from hookmap.runs.results import Run

Of = Literal["heatmaps", "crops"]
Algorithm = Literal["hdbscan", "spectral"]

SUSPICIOUS = 0.25
"""A cluster is flagged from this suspicion on."""
EACH, MOST = 10_000, 25_000
"""So many heatmaps of a class are clustered at most, and so many of all."""
LEAST, SHARE = 5, 0.05
"""A cluster has so many images at least, and this share of its class."""
_LITTLE, _TIMES = 0.02, 2.0
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Cluster:
    """Images of one class that are explained alike.

    Attributes:
        name: of the class; None where all classes were clustered together.
        number: in its class, from 1, the most suspicious first.
        rows: numbers of rows of the run's table, the most typical first.
        share: of the heatmaps of its class that show evidence and were clustered, 0..1.
        count: heatmaps of its class that show evidence, clustered or not.
        silent: those that show none, and are in no cluster.
        map: ``(side, side)``: the mean heatmap; it sums to 1.
        label: the most frequent true class; None if none is known.
        purity: the share of the images with a label that have this one; NaN if none is known.
        accuracy: the share of the images that were recognised, among those of which that is known; NaN if of none.
        tightness: how much of the heat its heatmaps share with their mean: 1 minus the mean total variation, 0..1.
        separation: how far its images are from the rest of their class: with a an image's mean distance to the others
            of the cluster and b to the rest of the class, the mean of (b - a) / max(a, b), and 0 if that is below 0
            (a silhouette against all of the rest, Rousseeuw 1987). A cluster that is nine tenths of its class or more
            is held against the other classes instead; 0 where there are none.
        border: share of the heat in the picture's outer tenth on each side.
        border_uniform: that of a map that is the same wherever the model sees.
        corner: share in the corner where it exceeds its uniform share most.
        corner_uniform: that of a map that is the same wherever the model sees.
        corner_name: which corner.
        outside: how much more than an even map this one lies at the picture's edge: with the share s of the heat and
            the uniform share u, and odds o(p) = (p + 0.02) / (1 - p + 0.02), the largest of 1 - 2 o(u) / o(s) over the
            border and the corners; 0 where no odds are more than twice those of an even map. The 0.02 keeps shares
            that are next to nothing from counting.
    """

    name: str | None
    number: int
    rows: list[int]
    share: float
    count: int
    silent: int
    map: Array
    label: str | None
    purity: float
    accuracy: float
    tightness: float
    separation: float
    border: float
    border_uniform: float
    corner: float
    corner_uniform: float
    corner_name: str
    outside: float

    @property
    def size(self) -> int:
        """How many heatmaps."""
        return len(self.rows)

    @property
    def suspicion(self) -> float:
        """``separation`` times ``outside``, 0..1: a group of its own that looks past the picture's inside."""
        return self.separation * self.outside

    @property
    def flagged(self) -> bool:
        """Whether :attr:`suspicion` is 0.25 or more: worth a look, and no proof.

        Never where more heatmaps of the class show no evidence than do.
        """
        return self.suspicion >= SUSPICIOUS and is_spoken_for(self.count, self.silent)

    @property
    def title(self) -> str:
        """Class and number."""
        return f"{'all' if self.name is None else short(self.name)}, cluster {self.number}"


@dataclass(frozen=True, eq=False)
class Clusters(Page):
    """The clusters of a run, the most suspicious first.

    Attributes:
        run: they are of.
        of: what was compared: ``"heatmaps"`` or ``"crops"``.
        by: what the classes are; None: all heatmaps together.
        clusters: of all classes.
        loose: rows of the run's table that are in no cluster, by class.
        skipped: classes with too few heatmaps to be clustered.
        vectors: what was clustered, by class: rows of the run's table, and ``(N, D)``.
        taken: how many heatmaps were looked at: of each class 10,000 at most, and 25,000 in all, spread evenly over
            each class.
        among: how many there are that show evidence.
    """

    run: Run
    of: Of
    by: By | None
    clusters: list[Cluster]
    loose: dict[str | None, list[int]]
    skipped: list[str | None]
    vectors: dict[str | None, tuple[list[int], Array]]
    taken: int
    among: int

    def __len__(self) -> int:
        return len(self.clusters)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.clusters)

    def __getitem__(self, number: int) -> Cluster:
        return self.clusters[number]

    @property
    def flagged(self) -> list[Cluster]:
        """The clusters that are worth a look."""
        return [cluster for cluster in self.clusters if cluster.flagged]

    @property
    def table(self) -> pd.DataFrame:
        """A row per cluster: the attributes of :class:`Cluster` but its map."""
        import pandas as pd

        return pd.DataFrame(
            [[getattr(cluster, name) for name in _COLUMNS] for cluster in self.clusters], columns=_COLUMNS
        )

    def layout(self, name: str | None = None, how: Literal["tsne", "pca"] = "tsne", *, seed: int = 0) -> pd.DataFrame:
        """Places of the images of a class in a plane, alike ones near each other.

        Args:
            name: of the class; None where all were clustered together, else the class of the first cluster.
            how: t-SNE (van der Maaten and Hinton 2008), started from PCA; or PCA alone.
            seed: of t-SNE.

        Returns:
            A row per heatmap: ``row`` (of the run's table), ``x``, ``y``, ``cluster`` (its number, 0 if in none).

        Raises:
            DataError: if nothing of this name was clustered.
        """
        import pandas as pd
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        name = self.clusters[0].name if name is None and None not in self.vectors and self.clusters else name
        if not self.vectors:
            raise DataError("no class has heatmaps enough to be clustered; take by=None, which clusters all together")
        if name not in self.vectors:
            known = ", ".join(repr(short(str(one))) for one in [*self.vectors][:5]) or "none"
            raise DataError(f"no class {name!r} was clustered; those that were: {known}")
        rows, vectors = self.vectors[name]
        plane = PCA(2, svd_solver="full").fit_transform(vectors)
        if how == "tsne" and len(rows) > 5:
            start = plane / max(float(plane[:, 0].std()), 1e-12) * 1e-4
            perplexity = min(30.0, (len(rows) - 1) / 3)
            plane = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors)
        number = {row: one.number for one in self.clusters if one.name == name for row in one.rows}
        clusters = [number.get(row, 0) for row in rows]
        return pd.DataFrame({"row": rows, "x": plane[:, 0], "y": plane[:, 1], "cluster": clusters})

    def figure(self, most: int = 12, members: int = 7) -> Image.Image:
        """The atlas: a row per cluster with its mean heatmap and its most typical members.

        Args:
            most: so many clusters at most.
            members: of each.
        """
        lines = [self._line(cluster, members) for cluster in self.clusters[:most]]
        shown = "" if len(self) <= most else f", the {most} most suspicious shown"
        shown += "" if self.taken == self.among else f", sought among {self.taken:,} of {self.among:,} heatmaps"
        few = f"; {counted(len(self.skipped), 'class', 'classes')} with too few heatmaps" if self.skipped else ""
        note = (
            f"{counted(len(self), 'cluster')} of {self.of}{shown}; {len(self.flagged)} flagged{few}\n"
            f"suspicion: how far apart from its class x how far outside of the picture's inside, flagged from "
            f"{SUSPICIOUS:g}; in brackets: of an even map"
        )
        heads = ("mean", "most typical") if lines else ()
        return lines_page("What is explained alike", note, lines, text=250, heads=heads)

    def layout_figure(self, name: str | None = None, how: Literal["tsne", "pca"] = "tsne") -> Image.Image:
        """:meth:`layout` as a picture: overlays in their places, framed in their cluster's colour."""
        places = self.layout(name, how)
        dots = [(overlay_of(self.run, row, 56), x, y, cluster) for row, x, y, cluster in places.itertuples(index=False)]
        return dots_page(dots)

    def _line(self, cluster: Cluster, members: int) -> Line:
        notes = [
            counted(cluster.size, "image") + ("" if cluster.name is None else f", {cluster.share:.0%} of the class")
        ]
        known = [f"{cluster.purity:.0%} are {short(str(cluster.label))}"] * (cluster.label is not None)
        known += [f"{cluster.accuracy:.0%} recognised"] * (not np.isnan(cluster.accuracy))
        notes += [", ".join(known)] * bool(known)
        notes += [
            f"suspicion {cluster.suspicion:.2f} = {cluster.separation:.2f} apart x {cluster.outside:.2f} outside",
            f"border {cluster.border:.0%} ({cluster.border_uniform:.0%})",
            f"{cluster.corner_name} {cluster.corner:.0%} ({cluster.corner_uniform:.0%}), "
            f"tightness {cluster.tightness:.2f}",
        ]
        tiles = [heat_tile(cluster.map, 116), *(overlay_of(self.run, row, 116) for row in cluster.rows[:members])]
        return Line(cluster.title, notes, tiles, "suspicious" * cluster.flagged)


_COLUMNS = ["name", "number", "size", "share", "silent", "label", "purity", "accuracy", "tightness", "separation"]
_COLUMNS += ["border", "border_uniform", "corner", "corner_uniform", "corner_name", "outside", "suspicion", "flagged"]
_COLUMNS += ["rows"]


def clusters(
    run: Run,
    of: Of = "heatmaps",
    by: By | None = "prediction",
    *,
    lens: Lens | None = None,
    algorithm: Algorithm = "hdbscan",
    least: int | None = None,
    asked: str | None = None,
    seed: int = 0,
) -> Clusters:
    """Cluster the heatmaps of each class, or what lies under them.

    Heatmaps are compared on the common frame: blurred, coarsened to 16 x 16 cells, scaled to sum 1; their distance is
    Hellinger's, Euclidean between square roots. Crops, the squares of the pictures that hold most of the heat, are
    compared by their descriptors. Either is reduced to its first 10 principal directions before it is clustered.

    Args:
        run: what was run.
        of: ``"heatmaps"``: those in the same place and form are alike; ``"crops"``: those on alike parts of pictures.
        by: the classes that are clustered one by one: ``"prediction"``, ``"label"``, ``"target"``; None: all together.
        lens: of crops: the network whose default layer describes them; by default edges and colours do.
        algorithm: ``"hdbscan"`` (Campello et al. 2013), which leaves out what lies between clusters; or ``"spectral"``
            over the 10 nearest neighbours with as many clusters, 8 at most, as the largest gap between the first
            eigenvalues of the Laplacian says, as SpRAy has it, for classes of up to 4,000 heatmaps.
        least: images per cluster; by default 5, and 5 % of the class if that is more.
        asked: see ``hookmap.analysis.frames.frames``.
        seed: of all that is random; the same seed gives the same clusters.

    Raises:
        DataError: if there are no heatmaps of this question, scikit-learn or scikit-image isn't there, or a word isn't
            known.
    """
    require("sklearn", extra="dataset")
    if of not in ("heatmaps", "crops") or algorithm not in ("hdbscan", "spectral") or (least or 2) < 2:
        raise DataError(
            f"clusters of {of!r} by {algorithm!r} with {least} images or more were asked for; take of 'heatmaps' or "
            "'crops', algorithm 'hdbscan' or 'spectral', least 2 or more"
        )
    every = frames(run, asked=asked)
    heat = every.spread(by, MOST, EACH)
    all_vectors = rooted(heat.maps) if of == "heatmaps" else described(attended_crops(run, heat.table.index), lens)
    all_reduced: Array | None = None
    groups: dict[Any, Array] = {None: np.arange(len(heat))} if by is None else dict(heat.groups(by))
    everything: list[Cluster] = []
    loose: dict[str | None, list[int]] = {}
    vectors: dict[str | None, tuple[list[int], Array]] = {}
    skipped: list[str | None] = []
    for name, positions in groups.items():
        smallest = least or max(LEAST, round(SHARE * len(positions)))
        if len(positions) < 2 * smallest:
            skipped.append(name)
            continue
        rows = heat.table.index[positions]
        of_all = len(every) if by is None else len(every.groups(by)[name])
        silent = len(heat.silent) if by is None else heat.silent_of(by, name)
        mine = reduced(all_vectors[positions])
        numbers = by_density(mine, smallest) if algorithm == "hdbscan" else by_spectrum(mine, smallest, seed)
        parts = []
        for k in range(numbers.max() + 1):
            here = numbers == k
            apart = separation(mine, here, seed)
            if here.mean() >= _NEARLY_ALL:
                all_reduced = reduced(all_vectors) if all_reduced is None else all_reduced
                apart = separation(all_reduced, np.isin(np.arange(len(heat)), positions[here]), seed)
            parts.append(_cluster(heat, name, positions, here, mine, apart, (of_all, silent)))
        everything += _numbered(parts)
        loose[name] = [*map(int, rows[numbers < 0])]
        vectors[name] = [*map(int, rows)], mine
    everything.sort(key=_order)
    return Clusters(run, of, by, everything, loose, skipped, vectors, len(heat), len(every))


def _order(cluster: Cluster) -> tuple[Any, ...]:
    return -cluster.suspicion, -cluster.size, str(cluster.name), cluster.rows[0]


def _numbered(some: list[Cluster]) -> list[Cluster]:
    return [replace(one, number=number) for number, one in enumerate(sorted(some, key=_order), 1)]


def _cluster(
    heat: Frames, name: str | None, positions: Array, here: Array, vectors: Array, apart: float, counts: tuple[int, int]
) -> Cluster:
    mine = positions[here]
    table = heat.table.iloc[mine]
    mean = mean_of(heat.maps, mine)
    typical = np.linalg.norm(vectors[here] - vectors[here].mean(0), axis=1)
    labels = table["label"].dropna().value_counts()
    known = table["correct"].notna().to_numpy()
    shares, uniform = heat.shares[mine].mean(0), heat.uniform_shares[mine].mean(0)
    corner = 1 + int(np.argmax(shares[1:] - uniform[1:]))
    return Cluster(
        name=name,
        number=0,
        rows=[int(table.index[i]) for i in np.lexsort((table.index, typical))],
        share=len(mine) / len(positions),
        count=counts[0],
        silent=counts[1],
        map=mean,
        label=None if labels.empty else str(labels.index[0]),
        purity=float("nan") if labels.empty else float(labels.iloc[0] / labels.sum()),
        accuracy=float(right(heat)[mine][known].mean()) if known.any() else float("nan"),
        tightness=float(1 - distance(heat.maps[mine], mean).mean()),
        separation=apart,
        border=float(shares[0]),
        border_uniform=float(uniform[0]),
        corner=float(shares[corner]),
        corner_uniform=float(uniform[corner]),
        corner_name=REGIONS[corner],
        outside=float((1 - _TIMES * _odds(uniform) / _odds(shares)).max().clip(0)),
    )


def _odds(share: Array) -> Array:
    odds: Array = (share + _LITTLE) / (1 - share + _LITTLE)
    return odds
