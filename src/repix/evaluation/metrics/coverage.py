"""Coverage: the share of real images that have a translation near them (Naeem et al. 2020), higher is better."""

from __future__ import annotations

import numpy as np

from repix.evaluation import neighbours


def coverage(outputs: np.ndarray, real: np.ndarray, k: int) -> float:
    """Return the share of real images in whose ball lies an output; a ball reaches to the k-th nearest real image.

    Args:
        outputs, real: (n, dims) and (m, dims), m more than k.
    """
    reach = neighbours.radii(real, k)
    near = (distances.min(axis=1) < reach[rows] for rows, distances in neighbours.blocks(real, outputs))
    return sum(int(covered.sum()) for covered in near) / len(real)


SCORER = neighbours.scorer(
    "Naeem et al. 2020: share of real images to which an output is nearer than their k-th nearest real one", 5, coverage
)
