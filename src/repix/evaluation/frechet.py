"""The Frechet distance of two sets of features, taken as Gaussians (Heusel et al. 2017, equation 6).

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

With factors S1 = F1' F1 and S2 = F2' F2, the last trace is the nuclear norm (the sum of the
singular values) of F1 F2': the eigenvalues of S1 S2 are the squared singular values of F1 F2'.
This is exact, needs no square root of a matrix, and is cheap where it matters: n images with
n < dims have a factor of n rows, so 106 images at 2048 dims take the singular values of a
106 x 106 matrix instead of sqrtm of a singular 2048 x 2048 one. Covariances are never formed,
so their small eigenvalues do not lose half of their digits. With n >= dims the factor is the
triangle of a QR decomposition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PROTOCOL = {
    "definition": "squared Frechet distance of Gaussians, sample covariance (n - 1), float64",
    "trace": "nuclear norm of the product of covariance factors",
}


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of features, the covariance as a factor.

    Attributes:
        n: number of images; 0 where it is not known.
        mean: (dims,) float64.
        factor: (k, dims) float64 with ``factor.T @ factor`` the sample covariance; k <= dims.
    """

    n: int
    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def from_batches(cls, batches: Iterable[np.ndarray]) -> Statistics:
        """Return the statistics of features that arrive in batches of any sizes.

        Rows are folded in blocks of fixed size whatever the batches are, so the batch size does
        not change a bit. Memory is a few (dims, dims) matrices.

        Args:
            batches: (rows, dims) arrays.

        Raises:
            ValueError: fewer than two rows, or a number that is not finite.
        """
        state: tuple[int, np.ndarray, np.ndarray] | None = None
        waiting: list[np.ndarray] = []
        rows = 0
        for batch in batches:
            batch = np.asarray(batch, np.float64)
            if batch.ndim != 2 or not np.isfinite(batch).all():
                raise ValueError(f"expected finite features (rows, dims), got an array of shape {batch.shape}")
            waiting.append(batch)
            rows += len(batch)
            block = 2 * batch.shape[1]
            if rows >= block:
                stacked = np.concatenate(waiting)
                while len(stacked) >= block:
                    state = _fold(state, stacked[:block])
                    stacked = stacked[block:]
                waiting, rows = [stacked], len(stacked)
        if rows:
            state = _fold(state, np.concatenate(waiting))
        if state is None or state[0] < 2:
            raise ValueError("a covariance takes two images or more")
        n, mean, scatter = state
        return cls(n, mean, scatter / np.sqrt(n - 1.0))

    @classmethod
    def from_features(cls, features: np.ndarray) -> Statistics:
        """Return the statistics of (n, dims) features."""
        return cls.from_batches([features])

    @classmethod
    def from_covariance(cls, mean: np.ndarray, covariance: np.ndarray, n: int = 0) -> Statistics:
        """Return the statistics with a known mean (dims,) and covariance (dims, dims)."""
        mean = np.atleast_1d(np.asarray(mean, np.float64))
        values, vectors = np.linalg.eigh(np.atleast_2d(np.asarray(covariance, np.float64)))
        return cls(n, mean, np.sqrt(values.clip(min=0.0))[:, None] * vectors.T)

    def covariance(self) -> np.ndarray:
        """Return the sample covariance, (dims, dims)."""
        return self.factor.T @ self.factor


def _fold(state: tuple[int, np.ndarray, np.ndarray] | None, block: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return (n, mean, factor of the scatter matrix) after adding a block of rows: Chan et al. 1979, in factors."""
    n, mean = len(block), block.mean(axis=0)
    factor = block - mean
    if state is not None:
        n_old, mean_old, factor_old = state
        step = mean - mean_old
        shift = np.sqrt(n_old * (n / (n_old + n))) * step
        factor = np.concatenate([factor_old, factor, shift[None]])
        mean = mean_old + step * (n / (n_old + n))
        n += n_old
    if len(factor) > factor.shape[1]:
        factor = np.linalg.qr(factor, mode="r")
    return n, mean, factor


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return the squared Frechet distance of two Gaussians.

    For tiny sets of equal features rounding could leave it just below 0; it is then 0.

    Raises:
        ValueError: the features have different dims.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {a.mean.size} and {b.mean.size} dims have no distance")
    step = a.mean - b.mean
    shared = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    spread = np.square(a.factor).sum() + np.square(b.factor).sum()
    return max(0.0, float(step @ step + spread - 2.0 * shared))
