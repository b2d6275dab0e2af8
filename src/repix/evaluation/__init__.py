"""Measure how good translations are: image by image, and as a set.

:mod:`repix.evaluation.metrics` has one file for each metric, :mod:`repix.evaluation.score` computes them all.
Each contributes its definition to the metrics JSON, because a number without it cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNIT_RANGE = "float64 in [0, 1], per channel (value - low) / (high - low)"


def unit_range(images: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return integer images as float64 in [0, 1].

    Args:
        images: (..., channels) integers.
        low, high: per channel, the integers that stand for -1 and +1 (``Side.low``, ``Side.high``).

    Raises:
        ValueError: the range does not have one entry per channel, or is empty.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if low.shape != (images.shape[-1],) or high.shape != low.shape or not (high > low).all():
        raise ValueError(f"value range {low} to {high} does not fit images of shape {images.shape}")
    return (np.asarray(images, np.float64) - low) / (high - low)


def check_pairs(output: np.ndarray, target: np.ndarray) -> None:
    """Raise ValueError unless both are (n, height, width, channels) of the same shape, n > 0."""
    if output.ndim != 4 or output.shape != target.shape or not len(output):
        raise ValueError(f"expected two equal (n, height, width, channels), got {output.shape} and {target.shape}")
