"""Random numbers that are a pure function of (seed, stream), with the same bits everywhere.

NumPy promises the raw words of Philox for ever, but not what ``Generator`` makes of them;
so the few distributions needed here are made of the raw words.

:mod:`repix.seeds` keys its streams by hashed names and gives float32. The protocols of the
metrics name a seed by its number: these streams cannot move there without moving every score.
"""

from __future__ import annotations

import math

import numpy as np


def uniform(seed: int, stream: int, n: int) -> np.ndarray:
    """Return n float64 in [0, 1), multiples of 2**-53.

    Args:
        seed: which protocol or experiment.
        stream: which of its independent sequences.
    """
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return (words >> np.uint64(11)) * 2.0**-53


def integers(seed: int, stream: int, n: int, below: int) -> np.ndarray:
    """Return n int64 in [0, below)."""
    return (uniform(seed, stream, n) * below).astype(np.int64)


def normal(seed: int, stream: int, n: int) -> np.ndarray:
    """Return n standard normal float64 (Box-Muller), rounded to float32.

    The rounding drops the last bits of log and cos, the only ones in which mathematical
    libraries differ.
    """
    u = uniform(seed, stream, 2 * n)
    radius = np.sqrt([-2.0 * math.log(1.0 - value) for value in u[:n].tolist()])
    angle = np.array([math.cos(math.tau * value) for value in u[n:].tolist()])
    return (radius * angle).astype(np.float32).astype(np.float64)


def subset(seed: int, stream: int, n: int, size: int) -> np.ndarray:
    """Return ``size`` of range(n), without replacement, in ascending order."""
    return np.sort(np.argsort(uniform(seed, stream, n), kind="stable")[:size])
