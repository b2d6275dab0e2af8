"""First weights: a pure function of (seed, name of the variable), the same on every backend."""

from __future__ import annotations

import keras
import numpy as np

from repix import rng


def initial_value(name: str, shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    """Return the first value of one variable, float32.

    ``normal``: kernels N(0, 0.02), norm scales (gamma) N(1, 0.02), as the paper's reference
    code; ``normal_kernels``: the same kernels, scales 1, as Keras tutorials have it;
    ``glorot``: uniform kernels, scales 1, Keras' defaults. The rest is 0 (Isola et al. 2016,
    section 6.2; Glorot and Bengio 2010, equation 16).

    Args:
        name: network and path of the variable, such as ``generator/down1/kernel``.
        shape: its shape; for Glorot the last two axes are channels in and out.
        kind: ``normal``, ``normal_kernels`` or ``glorot``.
        seed: the cell's seed.
    """
    last = name.rsplit("/", 1)[-1]
    generator = np.random.Generator(rng.named("weights", seed, name).bits)
    if last == "kernel" and kind == "glorot":
        area = int(np.prod(shape[:-2]))
        limit = np.float32(np.sqrt(6.0 / (area * (shape[-2] + shape[-1]))))
        return (generator.random(shape, dtype=np.float32) * 2 - 1) * limit
    if last == "kernel":
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
    if last == "gamma":
        noise = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        return noise + 1 if kind == "normal" else np.ones(shape, np.float32)
    return np.zeros(shape, np.float32)


def weights(network: str, model: keras.Model) -> dict[str, keras.Variable]:
    """Return a network's variables under their names in checkpoints and digests."""
    return {f"{network}/{variable.path}": variable for variable in model.weights}


def initialize(networks: dict[str, keras.Model], kind: str, seed: int) -> None:
    """Set all weights of all networks to their first values for ``seed``."""
    for network, model in networks.items():
        for name, variable in weights(network, model).items():
            variable.assign(initial_value(name, tuple(variable.shape), kind, seed))
