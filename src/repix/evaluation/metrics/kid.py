"""KID: kernel distance of two sets of features (Binkowski et al. 2018), lower is better.

The unbiased estimate of the squared maximum mean discrepancy under the polynomial kernel
k(x, y) = (x . y / dims + 1)^3. Unlike the Frechet distance its expectation does not depend on
the number of images, so it is the one to read on small sets. It can be slightly negative.
"""

from __future__ import annotations

import numpy as np

from repix import rng
from repix.evaluation.metrics import Score, Scorer

SEED = 2018
SUBSETS = 100
SUBSET_SIZE = 1000

PROTOCOL = {
    "definition": "Binkowski et al. 2018: unbiased squared MMD over the full sets, kernel (x.y / dims + 1)^3, float64",
    "subsets": SUBSETS,
    "subset_size": f"at most {SUBSET_SIZE} and half of the smaller set",
    "seed": SEED,
}

_ROWS_AT_ONCE = 1024  # bounds the memory of the kernel matrices


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the (n, m) kernel matrix of (n, dims) and (m, dims)."""
    k = x @ y.T / x.shape[1] + 1.0
    return k * k * k


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Return the sum of the kernel matrix, block of rows by block of rows."""
    return float(sum(_kernel(x[i : i + _ROWS_AT_ONCE], y).sum() for i in range(0, len(x), _ROWS_AT_ONCE)))


def _diagonal_sum(x: np.ndarray) -> float:
    """Return the sum of k(x_i, x_i)."""
    k = np.square(x).sum(axis=1) / x.shape[1] + 1.0
    return float((k * k * k).sum())


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared MMD of two sets of features, all pairs of them.

    Args:
        a, b: (n, dims) and (m, dims), n and m at least 2.
    """
    a, b = _checked(a, b)
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _diagonal_sum(a)) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _diagonal_sum(b)) / (m * (m - 1))
    return within_a + within_b - 2.0 * _kernel_sum(a, b) / (n * m)


def kid_subsets(a: np.ndarray, b: np.ndarray) -> dict[str, float | int] | None:
    """Return mean and sd of the estimate over random subsets: a description of its spread.

    Returns:
        ``{"mean", "sd", "size", "count"}``; None where a set has fewer than four images.
    """
    a, b = _checked(a, b)
    size = min(SUBSET_SIZE, len(a) // 2, len(b) // 2)
    if size < 2:
        return None
    estimates = [
        kid(a[rng.numbered(SEED, 2 * i).subset(len(a), size)], b[rng.numbered(SEED, 2 * i + 1).subset(len(b), size)])
        for i in range(SUBSETS)
    ]
    return {
        "mean": float(np.mean(estimates)),
        "sd": float(np.std(estimates, ddof=1)),
        "size": size,
        "count": SUBSETS,
    }


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"expected two sets of two or more features of equal dims, got {a.shape} and {b.shape}")
    return a, b


SCORER = Scorer(
    PROTOCOL,
    lambda output, reference: Score(kid(output, reference)),
    details=lambda output, reference: {"subsets": kid_subsets(output, reference)},
)
