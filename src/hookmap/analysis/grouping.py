"""Vectors in groups: by density, or by the spectrum of their graph."""

from __future__ import annotations

import numpy as np

from hookmap.analysis.frames import Array
from hookmap.errors import DataError

_BLUR, _COARSE, _DIRECTIONS = 1.5, 16, 10
_CORE, _REACH, _BLOCK = 5, 3.0, 4096
_NEIGHBOURS, _MOST_CLUSTERS, _MOST_SPECTRAL, _SAMPLE = 10, 8, 4000, 1000


def rooted(maps: Array) -> Array:
    """Square roots of blurred, coarse maps: their Euclidean distance is Hellinger's times a constant.

    Args:
        maps: ``(N, side, side)``, side a multiple of 16; each sums to 1.

    Returns:
        ``(N, 256)``.
    """
    side = maps.shape[1]
    at = np.arange(side)
    kernel = np.exp(-(((at[:, None] - at) / _BLUR) ** 2) / 2)
    kernel /= kernel.sum(1, keepdims=True)
    roots = np.empty((len(maps), _COARSE**2))
    for start in range(0, len(maps), _BLOCK):
        soft = kernel @ maps[start : start + _BLOCK] @ kernel.T
        cells = soft.reshape(-1, _COARSE, side // _COARSE, _COARSE, side // _COARSE).sum((2, 4)).reshape(-1, _COARSE**2)
        roots[start : start + _BLOCK] = np.sqrt(cells / cells.sum(1, keepdims=True))
    return roots


def reduced(vectors: Array) -> Array:
    """The first 10 principal directions of vectors, ``(N, 10)`` at most."""
    from sklearn.decomposition import PCA

    directions = min(_DIRECTIONS, len(vectors) - 1, vectors.shape[1])
    along: Array = PCA(directions, svd_solver="full").fit_transform(vectors)
    return along


def by_density(vectors: Array, least: int) -> Array:
    """The cluster of each vector by HDBSCAN, ``(N,)``, from 0; -1 for none.

    Args:
        vectors: ``(N, D)``.
        least: vectors per cluster.
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import NearestNeighbors

    core = min(_CORE, len(vectors) - 1)
    tree = HDBSCAN(min_cluster_size=least, min_samples=core, copy=True).fit(vectors)
    numbers: Array = tree.labels_
    if numbers.max() < 0:
        # One cluster and a few others split nowhere into two: then what is within reach of each other.
        apart = NearestNeighbors(n_neighbors=core).fit(vectors).kneighbors(vectors)[0][:, -1]
        numbers = tree.dbscan_clustering(_REACH * float(np.median(apart)), least)
    return numbers


def by_spectrum(vectors: Array, least: int, seed: int) -> Array:
    """The cluster of each vector by the graph of nearest neighbours, ``(N,)``, from 0; -1 where it would be too small.

    There are as many clusters as eigenvalues of the normalised Laplacian before the largest gap of the first nine, so
    8 at most.

    Args:
        vectors: ``(N, D)``, 4,000 at most.
        least: vectors per cluster.
        seed: of k-means.

    Raises:
        DataError: for more vectors.
    """
    from sklearn.cluster import KMeans
    from sklearn.neighbors import kneighbors_graph

    if len(vectors) > _MOST_SPECTRAL:
        raise DataError(
            f"spectral clusters of {len(vectors):,} heatmaps were asked for, and it takes {_MOST_SPECTRAL:,} at most; "
            "take algorithm='hdbscan'"
        )
    nearest = kneighbors_graph(vectors, min(_NEIGHBOURS, len(vectors) - 1)).toarray()
    graph = np.maximum(nearest, nearest.T)
    degrees = graph.sum(1)
    laplacian = np.eye(len(graph)) - graph / np.sqrt(np.outer(degrees, degrees))
    eigenvalues, eigenvectors = np.linalg.eigh(laplacian)
    count = 1 + int(np.argmax(np.diff(eigenvalues[: min(_MOST_CLUSTERS, len(graph) // least) + 1])))
    places = eigenvectors[:, :count]  # Ng, Jordan and Weiss 2001
    places /= np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    given = KMeans(count, n_init=10, random_state=seed).fit_predict(places)
    kept = [k for k in range(count) if (given == k).sum() >= least]
    return np.array([kept.index(k) if k in kept else -1 for k in given])


def separation(vectors: Array, here: Array, seed: int = 0) -> float:
    """How far some vectors are from the rest: see :attr:`Cluster.separation`.

    Args:
        vectors: ``(N, D)``.
        here: bool ``(N,)``: which are meant. Of more than 1,000 of either kind 1,000 are drawn.
        seed: of the drawing.
    """
    from sklearn.metrics import pairwise_distances

    draw = np.random.default_rng(seed)
    inside, rest = (_some(vectors[which], draw) for which in (here, ~here))
    if not len(rest) or len(inside) < 2:
        return 0.0
    own = pairwise_distances(inside).sum(1) / (len(inside) - 1)
    other = pairwise_distances(inside, rest).mean(1)
    larger = np.maximum(own, other)
    return float(np.where(larger > 0, (other - own) / np.where(larger > 0, larger, 1), 0).mean().clip(0))


def _some(vectors: Array, draw: np.random.Generator) -> Array:
    return vectors if len(vectors) <= _SAMPLE else vectors[draw.choice(len(vectors), _SAMPLE, replace=False)]
