"""Random numbers as a function of a key: counter-based streams with the same bits everywhere.

A stream is the raw output of Philox (Salmon et al. 2011), which NumPy fixes for good; what
``Generator`` makes of it is not fixed, so the few distributions that are needed are made here
of the raw words. Two processes, two backends or a resumed run that ask the same stream the
same question get the same numbers.

Three ways to a key, each of which results depend on: training names its streams
(:func:`named`), the protocols of the metrics number them (:func:`numbered`), and the drawn
sample packs split, purpose and index into such a number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def key(*name: str | int) -> int:
    """Return the 128-bit key of a named stream."""
    text = "\x1f".join(map(str, name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


class Stream:
    """One sequence of random numbers, read from its beginning.

    Args:
        key: 128 bits, or two words of 64; equal keys give equal numbers.
    """

    def __init__(self, key: int | np.ndarray):
        self.bits = np.random.Philox(key=key)

    def words(self, *shape: int) -> np.ndarray:
        """Return raw 64-bit words, uint64."""
        return self.bits.random_raw(math.prod(shape)).reshape(shape)

    def float32(self, *shape: int) -> np.ndarray:
        """Return uniform float32 in [0, 1), multiples of 2**-24."""
        return (self.words(*shape) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)

    def float64(self, *shape: int) -> np.ndarray:
        """Return uniform float64 in [0, 1), multiples of 2**-53."""
        return (self.words(*shape) >> np.uint64(11)) * 2.0**-53

    def integers(self, n: int, below: int) -> np.ndarray:
        """Return n int64 in [0, below)."""
        return (self.float64(n) * below).astype(np.int64)

    def normal(self, n: int) -> np.ndarray:
        """Return n standard normal float64 (Box-Muller), rounded to float32.

        The rounding drops the last bits of log and cos, the only ones in which mathematical
        libraries differ.
        """
        u = self.float64(2 * n)
        radius = np.sqrt([-2.0 * math.log(1.0 - value) for value in u[:n].tolist()])
        angle = np.array([math.cos(math.tau * value) for value in u[n:].tolist()])
        return (radius * angle).astype(np.float32).astype(np.float64)

    def subset(self, n: int, size: int) -> np.ndarray:
        """Return ``size`` of range(n), without replacement, in ascending order."""
        return np.sort(np.argsort(self.float64(n), kind="stable")[:size])

    def noise(self, *shape: int) -> np.ndarray:
        """Return bell-shaped float64, mean 0 and variance 1: the sum of four 16-bit uniforms."""
        raw = self.words(*shape)
        total = sum((raw >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4))
        return (total.astype(np.float64) / 65535.0 - 2.0) * 1.7320508075688772

    def uniform(self) -> float:
        """Return one number of [0, 1)."""
        return (self.bits.random_raw() >> 11) / 2**53

    def integer(self, low: int, high: int) -> int:
        """Return one integer of [low, high], both ends included."""
        return low + self.bits.random_raw() % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform() < probability

    def choice(self, options: Sequence[Any]) -> Any:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]


def named(*name: str | int) -> Stream:
    """Return the stream of a name, such as ``("batch", seed, epoch)`` or ``("weights", seed, path)``."""
    return Stream(key(*name))


def numbered(seed: int, stream: int) -> Stream:
    """Return stream number ``stream`` of ``seed``, each of 64 bits."""
    return Stream(np.array([seed, stream], np.uint64))
