"""Bootstrap confidence intervals of a mean over test images.

They describe: they say how much a mean depends on which images happened to be in the split. They do not say
how much it depends on the training seed (two seeds often differ by more than the interval),
so no gate may take its tolerance from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix import rng

SEED = 1979
RESAMPLES = 2000
LEVEL = 0.95

PROTOCOL = {"definition": "percentile bootstrap of the mean over images", "level": LEVEL, "seed": SEED}

_INDICES_AT_ONCE = 1 << 20


def interval(values: Sequence[float] | np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: one score per image.
        resamples: how many sets of n images are drawn with replacement.

    Returns:
        (low, high); None with fewer than two images.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2:
        return None
    at_once = max(1, _INDICES_AT_ONCE // n)
    means = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        # A stream per resample, so that the blocks are a matter of memory only.
        index = np.stack([rng.numbered(SEED, start + i).integers(n, n) for i in range(count)])
        means.append(values[index].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
