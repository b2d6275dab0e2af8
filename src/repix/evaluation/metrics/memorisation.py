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

from repix.data.resizing import resize
from repix.evaluation import unit_range
from repix.evaluation.metrics import Score, Scorer
from repix.schemas import Side

GRID = 32  # most cells a side that pixels are averaged to
_PHOTOS_AT_ONCE = 32
_RESIZED = ("uint8", "uint16")  # what the filters of images take

PIXELS = {
    "on": f"pixels, means of at most {GRID} x {GRID} cells, per channel (value - low) / (high - low)",
    "views": "of a training photo: the whole, resized; 3 x 3 windows; each of these mirrored as well",
}
FEATURES = {
    "on": "features",
    "views": "of a training photo: the whole, resized; its middle; each of these mirrored as well",
}


def views(photo: np.ndarray, size: tuple[int, int], windows: int) -> Iterator[np.ndarray]:
    """Yield a stored training photo as a generator may have seen it, and as test photos are.

    Args:
        photo: (height, width, channels), of ``size`` or larger.
        size: (height, width) of what is yielded.
        windows: a side of the grid of windows, 1 for the middle alone.
    """
    spare = [have - want for have, want in zip(photo.shape, size, strict=False)]
    places = [[one // 2] if windows == 1 else [one * i // (windows - 1) for i in range(windows)] for one in spare]
    found = [
        photo[top : top + size[0], left : left + size[1]]
        for top in dict.fromkeys(places[0])
        for left in dict.fromkeys(places[1])
    ]
    if any(spare) and photo.dtype.name in _RESIZED:
        found.append(resize(photo, size))
    for one in found:
        yield one
        yield one[:, ::-1]


def blocks(train: Sequence[np.ndarray], size: tuple[int, int], windows: int) -> Iterator[np.ndarray]:
    """Yield the :func:`views` of training photos (k, h, w, c), some photos at a time: all of them may not fit."""
    for start in range(0, len(train), _PHOTOS_AT_ONCE):
        photos = np.asarray(train[start : start + _PHOTOS_AT_ONCE])
        yield np.stack([view for photo in photos for view in views(photo, size, windows)])


def nearest(queries: np.ndarray, train: Iterable[np.ndarray]) -> np.ndarray:
    """Return the Euclidean distance of each of (n, dims) to the nearest of all rows of ``train``, (n,) float64."""
    from scipy.spatial.distance import cdist

    found = np.full(len(queries), np.inf)
    queries = np.asarray(queries, np.float64)
    for block in train:
        np.minimum(found, cdist(queries, np.asarray(block, np.float64)).min(axis=1), out=found)
    return found


def memorisation(outputs: np.ndarray, reference: np.ndarray, train: Iterable[np.ndarray]) -> Score:
    """Return the ratio of medians of the distance to the nearest training photo.

    Its details are the share of outputs that are nearer to a training photo than all but a twentieth of the
    real test photos are, and the two medians.

    Args:
        outputs, reference: features or averaged pixels, (n, dims) and (m, dims).
        train: the same of the views of training photos, in blocks (k, dims).
    """
    ours, real = np.split(nearest(np.concatenate([outputs, reference]), train), [len(outputs)])
    if not np.median(real):
        return Score(reason="half of the test photos are training photos themselves")
    nearer = float((ours < np.quantile(real, 0.05)).mean())
    medians = {"outputs": float(np.median(ours)), "test_photos": float(np.median(real))}
    return Score(
        medians["outputs"] / medians["test_photos"],
        details={"share_nearer_than_5_percent_of_test_photos": nearer, "median_distance": medians},
    )


def cells(images: np.ndarray, side: Side) -> np.ndarray:
    """Return images (n, h, w, c) averaged over a grid, (n, cells * c) float32 in [0, 1], image by image."""
    height, width, channels = images.shape[1:]
    edges = [np.unique(np.arange(min(size, GRID)) * size // min(size, GRID)) for size in (height, width)]
    areas = np.outer(*(np.diff([*starts, size]) for starts, size in zip(edges, (height, width), strict=True)))
    found = np.empty((len(images), areas.size * channels), np.float32)
    for i, image in enumerate(images):
        sums = np.add.reduceat(np.add.reduceat(unit_range(image, side.low, side.high), edges[0], 0), edges[1], 1)
        found[i] = (sums / areas[..., None]).ravel()
    return found


SCORER = Scorer(
    {"definition": "median distance of outputs to their nearest training photo / the same of the real test photos"},
    memorisation,
)
