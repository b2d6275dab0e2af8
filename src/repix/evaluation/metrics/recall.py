"""Recall: the share of real images that the translations come near to (Kynkaanniemi et al. 2019), higher is better."""

from __future__ import annotations

from repix.evaluation import neighbours
from repix.evaluation.metrics.precision import precision

SCORER = neighbours.scorer(
    "Kynkaanniemi et al. 2019: share of real images at most as far from an output as its k-th nearest output",
    3,
    lambda outputs, real, k: precision(real, outputs, k),
)
