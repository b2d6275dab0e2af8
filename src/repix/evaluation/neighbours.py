"""Nearest neighbours of feature vectors: the balls that precision, recall, density and coverage count in.

Distances are sums of squared differences in float64, pair by pair and block of rows by block of rows: the
distance from x to y has the bits of that from y to x, so that a point on the edge of a ball is always counted alike.
Memory is a block of distances, whatever n is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from repix.evaluation.metrics import Score, Scorer

_DISTANCES_AT_ONCE = 1 << 22


def blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of x, and their squared distances to all of y: (rows, m) float64."""
    from scipy.spatial.distance import cdist

    at_once = max(1, _DISTANCES_AT_ONCE // len(y))
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for start in range(0, len(x), at_once):
        rows = slice(start, start + at_once)
        yield rows, cdist(x[rows], y, "sqeuclidean")


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance of each of (n, dims) to its k-th nearest neighbour among the others, (n,)."""
    found = np.empty(len(x))
    for rows, distances in blocks(x, x):
        distances[np.arange(len(distances)), np.arange(len(x))[rows]] = -1.0  # itself, before any equal one
        found[rows] = np.partition(distances, k, axis=1)[:, k]
    return found


def scorer(definition: str, k: int, function: Callable[[np.ndarray, np.ndarray, int], float]) -> Scorer:
    """Return the scorer of a metric that counts in balls around features.

    Args:
        definition: what is counted.
        k: the neighbour that a ball reaches to.
        function: of outputs (n, dims), real features (m, dims) and k.
    """

    def score(outputs: np.ndarray, real: np.ndarray) -> Score:
        if min(len(outputs), len(real)) <= k:
            return Score(reason=f"takes more than {k} images on each side")
        return Score(function(outputs, real, k), definition={"n": len(outputs)})

    return Scorer({"definition": definition, "k": k, "distance": "Euclidean, float64"}, score)
