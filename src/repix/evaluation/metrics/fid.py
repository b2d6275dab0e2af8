"""FID: Frechet distance of two sets of Inception features (Heusel et al. 2017), lower is better."""

from __future__ import annotations

import numpy as np

from repix.evaluation import frechet
from repix.evaluation.metrics import Score, Scorer


def fid(output: np.ndarray, reference: np.ndarray) -> float:
    """Return the squared Frechet distance of two sets of features, (n, dims) and (m, dims)."""
    sets = (frechet.Statistics.from_features(features) for features in (output, reference))
    return frechet.frechet_distance(*sets)


SCORER = Scorer(frechet.PROTOCOL, lambda output, reference: Score(fid(output, reference)))
