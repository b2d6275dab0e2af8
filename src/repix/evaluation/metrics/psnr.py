"""PSNR: peak signal-to-noise ratio in dB, higher is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from repix.evaluation import UNIT_RANGE, check_pairs, unit_range
from repix.evaluation.metrics import Score, Scorer

CAP_DB = 100.0
"""What equal images score, and they alone: infinity has no place in JSON and would swallow the mean."""

PROTOCOL = {
    "definition": "10 log10(1 / mean squared error over pixels and channels), dB; equals scikit-image's",
    "scale": UNIT_RANGE,
    "data_range": 1.0,
    "cap_db": CAP_DB,
    "aggregate": "mean over images",
}


def psnr(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return the PSNR of each image in dB, :data:`CAP_DB` where output and target are equal, as (n,) float64.

    Args:
        output, target: (n, height, width, channels) integers.
        low, high: value range per channel (``Side.low``, ``Side.high``).
    """
    check_pairs(output, target)
    scores = []
    for o, t in zip(output, target, strict=True):
        error = float(np.square(unit_range(o, low, high) - unit_range(t, low, high)).mean())
        # Adding 0 makes 0 dB of -0 dB, and changes nothing else.
        scores.append(-10.0 * math.log10(error) + 0.0 if error else CAP_DB)
    return np.array(scores)


def _score(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> Score:
    equal = sum(np.array_equal(o, t) for o, t in zip(output, target, strict=True))
    return Score.of_images(psnr(output, target, low, high), details={"capped": equal})


SCORER = Scorer(PROTOCOL, _score)
