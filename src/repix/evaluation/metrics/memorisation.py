"""Memorisation: how near the translations are to training photos, against real photos that were never trained on.

Each translation and each test photo has a nearest training photo. The score is the median distance of the
translations over that of the test photos: about 1 where a translation is as far from the training set as a real
new photo is, towards 0 where translations are copies of training photos.
"""

from __future__ import annotations

import numpy as np

from repix.evaluation import unit_range
from repix.evaluation.metrics import Score, Scorer
from repix.schemas import Side

GRID = 32  # most cells a side that pixels are averaged to
_IMAGES_AT_ONCE = 256

PIXELS = {"on": f"pixels, means of at most {GRID} x {GRID} cells, per channel (value - low) / (high - low)"}


def nearest(queries: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each of (n, dims) to the nearest of (m, dims), (n,) float64."""
    from scipy.spatial.distance import cdist

    found = np.full(len(queries), np.inf)
    queries = np.asarray(queries, np.float64)
    for start in range(0, len(train), _IMAGES_AT_ONCE):
        block = np.asarray(train[start : start + _IMAGES_AT_ONCE], np.float64)
        np.minimum(found, cdist(queries, block).min(axis=1), out=found)
    return found


def memorisation(outputs: np.ndarray, reference: np.ndarray, train: np.ndarray) -> Score:
    """Return the ratio of medians of the distance to the nearest training photo.

    Its details are the share of outputs that are nearer to a training photo than all but a twentieth of the
    real test photos are, and the two medians.

    Args:
        outputs, reference, train: features or averaged pixels, (n, dims), (m, dims) and (k, dims).
    """
    ours, real = nearest(outputs, train), nearest(reference, train)
    if not np.median(real):
        return Score(reason="half of the test photos are training photos themselves")
    nearer = float((ours < np.quantile(real, 0.05)).mean())
    medians = {"outputs": float(np.median(ours)), "test_photos": float(np.median(real))}
    return Score(
        medians["outputs"] / medians["test_photos"],
        details={"share_nearer_than_5_percent_of_test_photos": nearer, "median_distance": medians},
        definition={"train_n": len(train)},
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
