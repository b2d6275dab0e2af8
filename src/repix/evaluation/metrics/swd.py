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

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from repix import profile, rng
from repix.arrays import scratch
from repix.evaluation.metrics import Score, Scorer

SEED = 2018
PATCH = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
SMALLEST = 16
FILTER = (1.0 / 16.0, 4.0 / 16.0, 6.0 / 16.0)  # and mirrored: 1, 4, 6, 4, 1 (Burt and Adelson 1983)
_DIRECTIONS_AT_ONCE = 64  # most of them: fewer where the projections would not fit
_IMAGES_AT_ONCE = 4  # bounds the memory of the pyramid, and fits a cache
_ROWS_AT_ONCE = 1 << 12  # patches that are normalised at once
_BYTES = 1 << 28  # of one set's projections, and of the levels that are made at once

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


def _blurred(padded: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Return every ``step``-th place of an axis under the binomial filter; two places at each end are padding."""
    count = padded.shape[axis] - 4

    def shifted(by: int) -> np.ndarray:
        return padded[(slice(None),) * axis + (slice(2 + by, 2 + by + count, step),)]

    outer, inner, middle = FILTER
    result = shifted(0) * middle
    result += (shifted(-2) + shifted(2)) * outer
    result += (shifted(-1) + shifted(1)) * inner
    return result


def _padded(images: np.ndarray, axis: int) -> np.ndarray:
    """Return images with two places more at both ends of an axis, mirrored about the outermost."""
    widths = [(2, 2) if i == axis else (0, 0) for i in range(images.ndim)]
    return np.pad(images, widths, mode="reflect")


def _halved(images: np.ndarray) -> np.ndarray:
    """Return images (n, h, w, c) blurred, each second row and column."""
    for axis in (1, 2):
        images = _blurred(_padded(images, axis), axis, 2)
    return images


def _doubled(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return four times the blur of images spread over each second row and column of (n, height, width, c).

    The rows between are zeros, and what they would add to a sum is left out.
    """
    outer, inner, middle = FILTER
    for axis, size in ((1, height), (2, width)):

        def at(start: int, stop: int | None, axis: int = axis) -> tuple[slice, ...]:
            return (slice(None),) * axis + (slice(start, stop),)

        # Beyond an even size lies a place between, so its mirror is the last known one; else the one before.
        last = images[at(-1, None)] if size % 2 == 0 else images[at(-2, -1)]
        wide = np.concatenate([images[at(1, 2)], images, last], axis=axis)
        shape = list(images.shape)
        shape[axis] = size
        spread = np.empty(shape)
        known = spread[(slice(None),) * axis + (slice(0, None, 2),)]
        known[...] = images * middle
        known += (wide[at(0, -2)] + wide[at(2, None)]) * outer
        between = spread[(slice(None),) * axis + (slice(1, None, 2),)]
        count = between.shape[axis]
        between[...] = (wide[at(1, 1 + count)] + wide[at(2, 2 + count)]) * inner
        images = spread
    images *= 4.0
    return images


def laplacian_bands(images: np.ndarray, levels: int, wanted: range) -> Iterator[np.ndarray]:
    """Yield the wanted levels of the Laplacian pyramid of images (n, h, w, c), finest first; the last is low-pass.

    No more of it is computed than they take.
    """
    fine = np.asarray(images, np.float64)
    for level in range(wanted.stop):
        coarse = _halved(fine) if level < levels - 1 else None
        if level in wanted:
            yield fine if coarse is None else fine - _doubled(coarse, *fine.shape[1:3])
        fine = coarse


def _patches(level: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the patches of (n, h, w, c) at (n, k) corners as (n * k, 49, c)."""
    n, height, width, channels = level.shape
    inside = (np.arange(PATCH)[:, None] * width + np.arange(PATCH)).ravel()
    corners = (np.arange(n)[:, None] * height + rows) * width + columns
    return level.reshape(-1, channels)[corners.ravel()[:, None] + inside]


def _descriptors(images: np.ndarray, rows: np.ndarray, levels: int, wanted: range) -> list[np.ndarray]:
    """Return, per wanted level, the normalised patches of images[rows] as (n * 128, 49 * c).

    Memory does not grow with the number of images: large results lie in a temporary file, which goes with them.
    """
    n, channels = len(rows), images.shape[-1]
    sizes = [images.shape[1:3]]
    for _ in range(levels - 1):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    places = []
    for i in wanted:
        height, width = sizes[i]
        stream = _STREAM_POSITION + 2 * i
        top = rng.numbered(SEED, stream).integers(n * PATCHES_PER_IMAGE, height - PATCH + 1)
        left = rng.numbered(SEED, stream + 1).integers(n * PATCHES_PER_IMAGE, width - PATCH + 1)
        places.append((top.reshape(n, -1), left.reshape(n, -1)))
    found = [scratch((n * PATCHES_PER_IMAGE, PATCH * PATCH, channels), np.float64) for _ in wanted]
    for start in range(0, n, _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        bands = laplacian_bands(images[rows[part]], levels, wanted)
        for patches, (top, left), level in zip(found, places, bands, strict=True):
            cut = _patches(level, top[part], left[part])
            patches[start * PATCHES_PER_IMAGE :][: len(cut)] = cut
    for patches in found:
        _normalise(patches)
    return [patches.reshape(len(patches), -1) for patches in found]


def _normalise(patches: np.ndarray) -> None:
    """Bring patches (points, 49, c) to mean 0 and standard deviation 1 per channel, in place; zeros where constant.

    As ``patches -= patches.mean((0, 1))`` and ``patches /= patches.std((0, 1))`` do, to the bit, some rows at a time.
    """
    count = patches.shape[0] * patches.shape[1]

    def each(change: Callable[[np.ndarray], None]) -> None:
        for start in range(0, len(patches), _ROWS_AT_ONCE):
            change(patches[start : start + _ROWS_AT_ONCE])

    mean = _sums(patches, lambda part: part) / count
    each(lambda part: np.subtract(part, mean, out=part))
    rest = _sums(patches, lambda part: part) / count  # what rounding left of the mean
    spread = np.sqrt(_sums(patches, lambda part: np.square(part - rest)) / count)
    each(lambda part: np.divide(part, np.where(spread > 0, spread, 1.0), out=part))


def _sums(patches: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the sum over points and places of a function of patches (points, 49, c), as (c,).

    The order of the sums is that in which NumPy adds up the whole: channel by channel one after the other, and
    in pairs (a tree whose leaves are multiples of 8) where there is one channel.
    """
    channels = patches.shape[-1]
    if channels == 1:
        flat = patches.reshape(-1)

        def tree(start: int, count: int) -> float:
            if count <= _ROWS_AT_ONCE * PATCH * PATCH:
                return np.add.reduce(of(flat[start : start + count]))
            half = count // 2
            half -= half % 8
            return tree(start, half) + tree(start + half, count - half)

        return np.array([tree(0, flat.size)])
    total = np.zeros(channels)
    for start in range(0, len(patches), _ROWS_AT_ONCE):
        values = np.concatenate([total, of(patches[start : start + _ROWS_AT_ONCE]).ravel()])
        total = np.bincount(_channel_numbers(channels)[: len(values)], values)  # adds one after the other
    return total


@lru_cache(1)
def _channel_numbers(channels: int) -> np.ndarray:
    return np.tile(np.arange(channels), 1 + _ROWS_AT_ONCE * PATCH * PATCH)


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
    """Return the mean one-dimensional Wasserstein-1 distance of two clouds of as many points.

    Args:
        a, b: (points, dims) float64.
        directions: (count, dims) float64 unit vectors.
    """
    fit = _BYTES // (8 * len(a)) // 8 * 8  # in eights: a matrix product of few rows may sum in another order
    at_once = max(1, min(_DIRECTIONS_AT_ONCE, fit))

    def distances(start: int) -> np.ndarray:
        part = directions[start : start + at_once]
        one, two = part @ a.T, part @ b.T
        one.sort(axis=1)
        two.sort(axis=1)
        one -= two
        return np.abs(one, out=one).mean(axis=1)

    with _threads() as threads:
        return float(np.concatenate(list(threads.map(distances, range(0, len(directions), at_once)))).mean())


def _threads() -> ThreadPoolExecutor:
    """Return workers for parts whose results do not depend on each other, nor on how many workers there are."""
    return ThreadPoolExecutor(profile.current().resolved_threads())


@lru_cache(16)
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
        rows = np.arange(n) if len(images) == n else rng.numbered(SEED, _STREAM_SUBSET).subset(len(images), n)
        sets.append((images, rows))
    of_one_level = 8 * n * PATCHES_PER_IMAGE * PATCH * PATCH * output.shape[-1]
    levels_at_once = max(1, min(levels, _BYTES // of_one_level))
    scores, side = {}, min(output.shape[1:3])
    for first in range(0, levels, levels_at_once):
        wanted = range(first, min(first + levels_at_once, levels))
        with _threads() as threads:
            clouds = list(threads.map(lambda kept, wanted=wanted: _descriptors(*kept, levels, wanted), sets))
        for level, a, b in zip(wanted, *clouds, strict=True):
            scores[str(side)] = 1000.0 * sliced_wasserstein(a, b, unit_directions(level, a.shape[1]))
            side = (side + 1) // 2
        del clouds, a, b
    return {"mean": float(np.mean(list(scores.values())))} | scores


def too_small(height: int, width: int) -> str | None:
    """Return why images of this size have no SWD, or None if they have one."""
    return None if level_count(height, width) else f"images are smaller than {SMALLEST} pixels"


def _score(output: np.ndarray, reference: np.ndarray) -> Score:
    levels = swd(output, reference)
    mean = levels.pop("mean")
    return Score(mean, details={"levels": levels}, definition={"n": min(len(output), len(reference))})


SCORER = Scorer(PROTOCOL, _score, unavailable=too_small)
