"""SWD: sliced Wasserstein distance on Laplacian-pyramid patches (Karras et al. 2018), lower is better.

Karras et al., "Progressive Growing of GANs", section 5 and appendix B: both sets are split
into the levels of a Laplacian pyramid; 7 x 7 patches are drawn from each level and normalised
per channel; the distance of the two clouds of patches is the mean, over random directions, of
the one-dimensional Wasserstein distance of their projections. It needs no network, works with
any number of channels, and says at which scale two sets differ.

Where this differs from the authors' code: image i of both sets is cut at the same places, so
that equal sets score exactly 0; float64 instead of float32; any size, not only powers of two.
"""

from __future__ import annotations

import numpy as np

from repix import rng
from repix.evaluation.metrics import Score, Scorer

SEED = 2018
PATCH = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
SMALLEST = 16
FILTER = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0  # Burt and Adelson 1983
_DIRECTIONS_AT_ONCE = 64  # bounds the memory of the projections
_IMAGES_AT_ONCE = 16  # and of the pyramid

# Streams of the seed; the levels follow each, so that they are wide apart.
_STREAM_SUBSET, _STREAM_POSITION, _STREAM_DIRECTION = 0, 1000, 2000

PROTOCOL = {
    "definition": "Karras et al. 2018, appendix B; x 1000; mean over the levels",
    "patch": f"{PATCH} x {PATCH}",
    "patches_per_image": PATCHES_PER_IMAGE,
    "directions": DIRECTIONS,
    "smallest_level": SMALLEST,
    "normalisation": "per level, set and channel: mean 0, standard deviation 1 over all patches",
    "positions": "the same in image i of both sets",
    "seed": SEED,
}


def level_count(height: int, width: int) -> int:
    """Return the number of levels: the full size, then halves while the shorter side is at least 16.

    0 means that images of this size are too small for the metric.
    """
    count, side = 0, min(height, width)
    while side >= SMALLEST:
        count, side = count + 1, (side + 1) // 2
    return count


def _blur(images: np.ndarray) -> np.ndarray:
    """Return images (n, h, w, c) under the 5 x 5 binomial filter, mirrored at the border."""
    from scipy.ndimage import correlate1d

    return correlate1d(correlate1d(images, FILTER, axis=1, mode="mirror"), FILTER, axis=2, mode="mirror")


def laplacian_pyramid(images: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return the band-pass levels of images (n, h, w, c), finest first; the last is low-pass."""
    pyramid = [np.asarray(images, np.float64)]
    for _ in range(levels - 1):
        fine = pyramid[-1]
        coarse = _blur(fine)[:, ::2, ::2]
        expanded = np.zeros_like(fine)
        expanded[:, ::2, ::2] = coarse
        pyramid[-1] = fine - 4.0 * _blur(expanded)
        pyramid.append(coarse)
    return pyramid


def _patches(level: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the patches of (n, h, w, c) at (n, k) corners as (n * k, 49, c)."""
    windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH, PATCH), axis=(1, 2))
    image = np.arange(len(level))[:, None]
    cut = windows[image, rows, columns]  # n, k, c, 7, 7
    return np.ascontiguousarray(np.moveaxis(cut, 2, -1)).reshape(-1, PATCH * PATCH, level.shape[-1])


def _descriptors(images: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return, per level, the normalised patches of all images as (n * 128, 49 * c)."""
    collected: list[list[np.ndarray]] = [[] for _ in range(levels)]
    n = len(images)
    sizes = [images.shape[1:3]]
    for _ in range(levels - 1):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    places = []
    for i, (height, width) in enumerate(sizes):
        stream = _STREAM_POSITION + 2 * i
        rows = rng.numbered(SEED, stream).integers(n * PATCHES_PER_IMAGE, height - PATCH + 1)
        columns = rng.numbered(SEED, stream + 1).integers(n * PATCHES_PER_IMAGE, width - PATCH + 1)
        places.append((rows.reshape(n, -1), columns.reshape(n, -1)))
    for start in range(0, n, _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        for i, level in enumerate(laplacian_pyramid(images[part], levels)):
            collected[i].append(_patches(level, places[i][0][part], places[i][1][part]))
    result = []
    for i in range(levels):
        patches = np.concatenate(collected[i])
        collected[i].clear()
        patches -= patches.mean(axis=(0, 1))
        spread = patches.std(axis=(0, 1))
        patches /= np.where(spread > 0, spread, 1.0)  # a constant level has patches of zeros
        result.append(patches.reshape(len(patches), -1))
    return result


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
    """Return the mean one-dimensional Wasserstein-1 distance of two clouds of as many points.

    Args:
        a, b: (points, dims) float64.
        directions: (count, dims) float64 unit vectors.
    """
    distances = []
    for start in range(0, len(directions), _DIRECTIONS_AT_ONCE):
        part = directions[start : start + _DIRECTIONS_AT_ONCE]
        distances.append(np.abs(np.sort(part @ a.T, axis=1) - np.sort(part @ b.T, axis=1)).mean(axis=1))
    return float(np.concatenate(distances).mean())


def unit_directions(level: int, dims: int) -> np.ndarray:
    """Return the fixed directions of a level: (512, dims) float64, uniform on the sphere."""
    vectors = rng.numbered(SEED, _STREAM_DIRECTION + level).normal(DIRECTIONS * dims).reshape(DIRECTIONS, dims)
    return vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))


def swd(output: np.ndarray, reference: np.ndarray) -> dict[str, float] | None:
    """Return the distance of two sets of images at each level and their mean, x 1000.

    Args:
        output, reference: (n, h, w, c) and (m, h, w, c), integers or floats. Scale and offset
            play no part, since each level is normalised. Of the larger set, a fixed random
            subset as large as the smaller one is used.

    Returns:
        ``{"mean": ..., "64": ..., "32": ..., "16": ...}``, the levels named by their shorter
        side, finest first; None where the images are smaller than 16 pixels.
    """
    if output.ndim != 4 or output.shape[1:] != reference.shape[1:] or not (len(output) and len(reference)):
        raise ValueError(f"expected two sets of images of one shape, got {output.shape} and {reference.shape}")
    levels = level_count(*output.shape[1:3])
    if not levels:
        return None
    n = min(len(output), len(reference))
    sets = []
    for images in (output, reference):
        kept = images if len(images) == n else images[rng.numbered(SEED, _STREAM_SUBSET).subset(len(images), n)]
        sets.append(_descriptors(kept, levels))
    scores, side = {}, min(output.shape[1:3])
    for level, (a, b) in enumerate(zip(*sets, strict=True)):
        scores[str(side)] = 1000.0 * sliced_wasserstein(a, b, unit_directions(level, a.shape[1]))
        side = (side + 1) // 2
    return {"mean": float(np.mean(list(scores.values())))} | scores


def too_small(height: int, width: int) -> str | None:
    """Return why images of this size have no SWD, or None if they have one."""
    return None if level_count(height, width) else f"images are smaller than {SMALLEST} pixels"


def _score(output: np.ndarray, reference: np.ndarray) -> Score:
    levels = swd(output, reference)
    mean = levels.pop("mean")
    return Score(mean, details={"levels": levels}, definition={"n": min(len(output), len(reference))})


SCORER = Scorer(PROTOCOL, _score, unavailable=too_small)
