"""L1: mean absolute error, lower is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix.evaluation import UNIT_RANGE, check_pairs, unit_range
from repix.evaluation.metrics import Score, Scorer

PROTOCOL = {
    "definition": "mean absolute difference over pixels and channels; half of the L1 on the [-1, 1] scale of training",
    "scale": UNIT_RANGE,
    "aggregate": "mean over images",
}


def l1(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return the mean absolute error of each image, in [0, 1], as (n,) float64.

    It rewards blur: a constant colour per label can beat a trained generator. Read it beside
    a distribution metric.

    Args:
        output, target: (n, height, width, channels) integers.
        low, high: value range per channel (``Side.low``, ``Side.high``).
    """
    check_pairs(output, target)
    return np.array(
        [
            np.abs(unit_range(o, low, high) - unit_range(t, low, high)).mean()
            for o, t in zip(output, target, strict=True)
        ]
    )


SCORER = Scorer(PROTOCOL, lambda *images: Score.of_images(l1(*images)))
