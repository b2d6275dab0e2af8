"""Randomness as a function: named streams of counter-based numbers, no hidden state.

Every random choice of repix is drawn from the stream of its name (``("batch", seed,
epoch)``, ``("weights", seed, "generator/down1/kernel")`` ...). Two processes, two backends
or a resumed run that ask the same question get the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def key(*name: str | int) -> int:
    """Return the 128-bit key of a stream's name."""
    text = "\x1f".join(map(str, name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def stream(*name: str | int) -> np.random.Philox:
    """Return the counter-based bit generator (Salmon et al. 2011) of a stream's name."""
    return np.random.Philox(key=key(*name))


def integers(shape: tuple[int, ...], *name: str | int) -> np.ndarray:
    """Return raw 64-bit draws of the stream, shape ``shape``, dtype uint64."""
    return stream(*name).random_raw(int(np.prod(shape))).reshape(shape)


def uniforms(shape: tuple[int, ...], *name: str | int) -> np.ndarray:
    """Return float32 draws in [0, 1) of the stream (24 random bits each, exact)."""
    return (integers(shape, *name) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
