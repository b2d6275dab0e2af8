"""Metrics written out slowly, from their definitions, to hold the fast ones against."""

from __future__ import annotations

import numpy as np

from repix import rng
from repix.evaluation.metrics.swd import level_count, unit_directions


def plain_pyramid(image: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return the Laplacian pyramid of one channel (h, w), with loops."""
    taps = [1, 4, 6, 4, 1]

    def blur(x):
        padded = np.pad(x, 2, mode="reflect")
        out = np.zeros_like(x)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = sum(taps[a] * taps[b] / 256 * padded[i + a, j + b] for a in range(5) for b in range(5))
        return out

    result = [image.astype(float)]
    for _ in range(levels - 1):
        coarse = blur(result[-1])[::2, ::2]
        up = np.zeros_like(result[-1])
        up[::2, ::2] = coarse
        result[-1] = result[-1] - 4 * blur(up)
        result.append(coarse)
    return result


def plain_swd(a: np.ndarray, b: np.ndarray) -> tuple[float, list[float]]:
    """Return the sliced Wasserstein distance patch by patch, direction by direction: mean, and per level."""
    n, height, width, channels = a.shape
    levels = level_count(height, width)
    scores = []
    for level in range(levels):
        clouds = []
        for images in (a, b):
            pyramids = [[plain_pyramid(image[..., c], levels)[level] for c in range(channels)] for image in images]
            h, w = pyramids[0][0].shape
            rows = rng.numbered(2018, 1000 + 2 * level).integers(n * 128, h - 6)
            columns = rng.numbered(2018, 1001 + 2 * level).integers(n * 128, w - 6)
            patches = []
            for i in range(n):
                for k in range(i * 128, (i + 1) * 128):
                    y, x = rows[k], columns[k]
                    patches.append(np.stack([p[y : y + 7, x : x + 7] for p in pyramids[i]], axis=-1))
            patches = np.array(patches)
            for c in range(channels):
                values = patches[..., c]
                patches[..., c] = (values - values.mean()) / values.std()
            clouds.append(patches.reshape(len(patches), -1))
        distance = [
            np.abs(np.sort(clouds[0] @ d) - np.sort(clouds[1] @ d)).mean()
            for d in unit_directions(level, clouds[0].shape[1])
        ]
        scores.append(float(1000 * np.mean(distance)))
    return float(np.mean(scores)), scores


def plain_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Return equation 4 of Binkowski et al. 2018, one pair of features after the other."""

    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(x):
        return np.mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])

    return float(within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b]))
