"""Density: how many real neighbourhoods a translation lies in (Naeem et al. 2020), higher is better.

Precision lets one outlier among the real images count everything in its wide ball; density counts the balls.
"""

from __future__ import annotations

import numpy as np

from repix.evaluation import neighbours


def density(outputs: np.ndarray, real: np.ndarray, k: int) -> float:
    """Return the mean number of balls of real images that an output lies in, divided by k.

    Args:
        outputs, real: (n, dims) and (m, dims), m more than k.
    """
    reach = neighbours.radii(real, k)
    inside = sum(int((distances < reach).sum()) for _, distances in neighbours.blocks(outputs, real))
    return inside / (k * len(outputs))


SCORER = neighbours.scorer(
    "Naeem et al. 2020: real images to which an output is nearer than their k-th nearest real one, / k, outputs' mean",
    5,
    density,
)
