"""PSNR: peak signal-to-noise ratio in dB, higher is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from repix.evaluation import UNIT_RANGE, check_pairs, unit_range
from repix.evaluation.metrics import Score, Scorer

CAP_DB = 100.0
"""What equal images score. Infinity has no place in JSON and would swallow the mean."""

PROTOCOL = {
    "definition": "10 log10(1 / mean squared error over pixels and channels), dB; equals scikit-image's",
    "scale": UNIT_RANGE,
    "data_range": 1.0,
    "cap_db": CAP_DB,
    "aggregate": "mean over images",
}


def psnr(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return the PSNR of each image in dB, at most :data:`CAP_DB`, as (n,) float64.

    Args:
        output, target: (n, height, width, channels) integers.
        low, high: value range per channel (``Side.low``, ``Side.high``).
    """
    check_pairs(output, target)
    scores = []
    for o, t in zip(output, target, strict=True):
        error = float(np.square(unit_range(o, low, high) - unit_range(t, low, high)).mean())
        scores.append(min(CAP_DB, -10.0 * math.log10(error)) if error else CAP_DB)
    return np.array(scores)


def _score(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> Score:
    values = psnr(output, target, low, high)
    return Score.of_images(values, details={"capped": int((values >= CAP_DB).sum())})


SCORER = Scorer(PROTOCOL, _score)
