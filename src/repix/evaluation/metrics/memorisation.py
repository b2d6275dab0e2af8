"""Memorisation: how near the translations are to training photos, against real photos that were never trained on.

Each translation and each test photo has a nearest training photo. The score is the median distance of the
translations over that of the test photos: about 1 where a translation is as far from the training set as a real
new photo is, towards 0 where translations are copies of training photos. A generator has seen windows of enlarged
photos, mirrored half of the time, and is asked for whole ones: a copy may be of any of these, so a training photo is
compared in several views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from repix.data.resizing import crop_centre, resize
from repix.evaluation import unit_range
from repix.evaluation.metrics import Score, Scorer
from repix.schemas import Side

GRID = 32  # most cells a side that pixels are averaged to
COARSE = 3  # windows a side of every training photo
SHORTLIST = 5  # of the photos that are nearest by these, all windows are looked at
MOST = 16  # most steps a side between those windows
_BLOCK_BYTES = 64e6

PIXELS = {
    "on": f"pixels, means of at most {GRID} x {GRID} cells, per channel (value - low) / (high - low)",
    "views": (
        f"of a training photo: the whole, resized; windows half a cell apart, at most {MOST + 1} a side, of the "
        f"{SHORTLIST} photos that are nearest by {COARSE} x {COARSE} of them; each of these mirrored as well"
    ),
}
FEATURES = {
    "on": "features",
    "views": "of a training photo: the whole, resized; its middle; each of these mirrored as well",
}


def memorisation(ours: np.ndarray, real: np.ndarray) -> Score:
    """Return the ratio of medians of the distance to the nearest training photo.

    Its details are the share of outputs that are nearer to a training photo than all but a twentieth of the
    real test photos are, and the two medians.

    Args:
        ours, real: the distances of outputs, (n,), and of test photos, (m,).
    """
    if not np.median(real):
        return Score(reason="half of the test photos are training photos themselves")
    nearer = float((ours < np.quantile(real, 0.05)).mean())
    medians = {"outputs": float(np.median(ours)), "test_photos": float(np.median(real))}
    return Score(
        medians["outputs"] / medians["test_photos"],
        details={"share_nearer_than_5_percent_of_test_photos": nearer, "median_distance": medians},
    )


# --- on features


def views(train: Sequence[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the views of :data:`FEATURES` of training photos, some photos at a time: all of them may not fit.

    Args:
        train: (k, height, width, channels) as they are stored, of ``size`` or larger, 8 or 16 bits without a sign.
        size: (height, width) of what is yielded, (n, height, width, channels).
    """
    at_once = max(1, int(_BLOCK_BYTES / (4 * train[:1].nbytes)))
    for start in range(0, len(train), at_once):
        photos = np.asarray(train[start : start + at_once])
        found = [crop_centre(photos, size)]
        if photos.shape[1:3] != size:
            found.append(np.stack([resize(photo, size) for photo in photos]))
        for one in found:
            yield one
            yield one[:, :, ::-1]


def nearest(queries: np.ndarray, train: Iterable[np.ndarray]) -> np.ndarray:
    """Return the Euclidean distance of each of (n, dims) to the nearest of all rows of ``train``, (n,) float64."""
    found = np.full(len(queries), np.inf)
    for block in train:
        np.minimum(found, _distances(queries, block).min(axis=1), out=found)
    return found


def _distances(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(np.asarray(queries, np.float64), np.asarray(rows, np.float64))


# --- on pixels


def nearest_on_pixels(
    queries: np.ndarray, train: Sequence[np.ndarray], side: Side, size: tuple[int, int]
) -> np.ndarray:
    """Return the distance of each of some :func:`cells` to the nearest view of a training photo, (n,) float64.

    Args:
        queries: (n, dims).
        train: (k, height, width, channels) as they are stored, of ``size`` or larger.
        side: what their numbers mean.
        size: (height, width) of the images that the cells are of.
    """
    found = np.empty((len(queries), len(train)))
    for place, photo in enumerate(train):
        found[:, place] = _distances(queries, _seen(photo, side, size, COARSE)).min(axis=1)
    result = found.min(axis=1)
    listed = np.argsort(found, axis=1, kind="stable")[:, :SHORTLIST]
    for place in np.unique(listed):
        asked = (listed == place).any(axis=1)
        rows = _seen(train[place], side, size, None)
        result[asked] = np.minimum(result[asked], _distances(queries[asked], rows).min(axis=1))
    return result


def _seen(photo: np.ndarray, side: Side, size: tuple[int, int], windows: int | None) -> np.ndarray:
    """Return the cells of a training photo's views, (n, dims): so many windows a side, None: half a cell apart."""
    unit = unit_range(photo, side.low, side.high)
    rows = [window_cells(one, size, windows) for one in (unit, unit[:, ::-1])]
    if unit.shape[:2] != size:
        whole = resize(unit.astype(np.float32), size)
        rows += [window_cells(one, size, 1) for one in (whole, whole[:, ::-1])]
    return np.concatenate(rows)


def _edges(size: int) -> np.ndarray:
    """Return where the cells of a side begin, and its end."""
    return np.append(np.unique(np.arange(min(size, GRID)) * size // min(size, GRID)), size)


def window_cells(unit: np.ndarray, size: tuple[int, int], windows: int | None) -> np.ndarray:
    """Return the cells of windows of an image in [0, 1] (h, w, c), (n, cells * c) float32, by its sums from one corner.

    Args:
        unit: the image.
        size: (height, width) of a window.
        windows: how many a side; None: at most half a cell apart, but no more than :data:`MOST` steps.
    """
    sums = np.pad(unit.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))
    edges, places = [_edges(one) for one in size], []
    for have, want in zip(unit.shape, size, strict=False):
        count = windows or min(MOST, -(-(have - want) // max(1, want // (2 * GRID)))) + 1
        starts = [(have - want) // 2] if count == 1 else [(have - want) * i // (count - 1) for i in range(count)]
        places.append(np.unique(starts))
    rows, columns = (start[:, None] + edge for start, edge in zip(places, edges, strict=True))
    corners = sums[rows[:, :, None, None], columns[None, None]]  # (tops, edges, lefts, edges, c)
    areas = np.outer(*map(np.diff, edges))[:, None, :, None]
    means = np.diff(np.diff(corners, axis=1), axis=3) / areas
    count = len(places[0]) * len(places[1])
    return means.transpose(0, 2, 1, 3, 4).reshape(count, -1).astype(np.float32)


def cells(images: np.ndarray, side: Side) -> np.ndarray:
    """Return images (n, h, w, c) averaged over a grid, (n, cells * c) float32 in [0, 1], image by image."""
    size = images.shape[1:3]
    return np.concatenate([window_cells(unit_range(image, side.low, side.high), size, 1) for image in images])


SCORER = Scorer(
    {"definition": "median distance of outputs to their nearest training photo / the same of the real test photos"},
    memorisation,
)
