"""Precision: the share of translations that look real (Kynkaanniemi et al. 2019), higher is better."""

from __future__ import annotations

import numpy as np

from repix.evaluation import neighbours


def precision(outputs: np.ndarray, real: np.ndarray, k: int) -> float:
    """Return the share of outputs in the ball of any real image, which reaches to its k-th nearest real one.

    Args:
        outputs, real: (n, dims) and (m, dims), m more than k.
    """
    reach = neighbours.radii(real, k)
    return sum(int((distances <= reach).any(axis=1).sum()) for _, distances in neighbours.blocks(outputs, real)) / len(
        outputs
    )


SCORER = neighbours.scorer(
    "Kynkaanniemi et al. 2019: share of outputs at most as far from a real image as its k-th nearest real one",
    3,
    precision,
)
