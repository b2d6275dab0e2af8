"""Inception without its published weights, for what looks through 2048 features and must not fetch 91 MB."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repix.evaluation import features


def random_network(dims: Sequence[int], seed: int = 0) -> features.FeatureNetwork:
    """Return Inception with seeded random weights (He et al. 2015), for tests of the 2048-d path.

    Its numbers say nothing about images, and its metrics never carry the plain names.
    """
    network = features._inception()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
    return features._wrap(network, dims, f"random-{seed}")
