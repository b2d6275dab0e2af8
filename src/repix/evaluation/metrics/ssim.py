"""SSIM: structural similarity (Wang et al. 2004, equation 13), higher is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix.evaluation import UNIT_RANGE, check_pairs, unit_range
from repix.evaluation.metrics import Score, Scorer

WINDOW = 11

PROTOCOL = {
    "definition": "Wang et al. 2004, by skimage.metrics.structural_similarity",
    "scale": UNIT_RANGE,
    "data_range": 1.0,
    "window": "Gaussian, sigma 1.5, 11 x 11",
    "covariance": "population",
    "channels": "mean over channels",
    "aggregate": "mean over pixels 5 or more from the border, then over images",
}


def too_small(height: int, width: int) -> str | None:
    """Return why images of this size have no SSIM, or None if they have one."""
    if min(height, width) < WINDOW:
        return f"images of {height} x {width} are smaller than the window of {WINDOW} x {WINDOW}"
    return None


def ssim(output: np.ndarray, target: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray | None:
    """Return the mean SSIM of each image, in [-1, 1], as (n,) float64.

    Args:
        output, target: (n, height, width, channels) integers.
        low, high: value range per channel (``Side.low``, ``Side.high``).

    Returns:
        None where the images are smaller than the window; :func:`too_small` says so in words.
    """
    from skimage.metrics import structural_similarity

    check_pairs(output, target)
    if too_small(*output.shape[1:3]):
        return None
    scores = [
        structural_similarity(
            unit_range(o, low, high),
            unit_range(t, low, high),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for o, t in zip(output, target, strict=True)
    ]
    return np.array(scores, np.float64)


SCORER = Scorer(PROTOCOL, lambda *images: Score.of_images(ssim(*images)), unavailable=too_small)
