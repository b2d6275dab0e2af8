"""A trained generator as a function of stored integers: what is scored, shown and exported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import keras
import numpy as np

from repix import rng
from repix.models.layers import DRAWS_PER_STEP, dropouts
from repix.models.scaling import to_network_range, to_stored_range

if TYPE_CHECKING:
    from repix.schemas import Side


class Translator:
    """Integer images in, integer images out, one at a time.

    One image at a time, because then no result depends on a batch size. Dropout is off and
    norms use the statistics of the image itself; ``paper`` keeps dropout on (Isola et al.
    2016, section 3.3), its mask a function of the image's index, so that an evaluation can
    be repeated.

    Args:
        network: a generator, (batch, height, width, channels) in [-1, 1] both ways.
        source, target: value ranges of both sides.
        compile_function: the backend's compiler of tensor functions.
        paper: whether dropout stays on.
    """

    def __init__(self, network: keras.Model, source: Side, target: Side, compile_function, *, paper: bool = False):
        self.network, self.target, self.paper = network, target, paper
        streams = dropouts(network) if paper else []

        def function(image, index):
            for layer in streams:
                layer.reseed(rng.key("paper", layer.name) % 2**32, index * DRAWS_PER_STEP)
            unit = network(to_network_range(image, source.low, source.high), training=paper)
            return to_stored_range(unit, target.low, target.high, target.dtype)

        self._function = compile_function(function, network)

    def __call__(self, images: Iterable[np.ndarray], first: int = 0) -> Iterable[np.ndarray]:
        """Yield the translation of each (height, width, channels) image, in order.

        ``first`` is the index of the first one, on which only the masks of ``paper`` depend.
        """
        for index, image in enumerate(images, first):
            result = self._function(keras.ops.convert_to_tensor(image[None]), keras.ops.convert_to_tensor(index))
            yield np.asarray(keras.ops.convert_to_numpy(result))[0]

    def translate(self, images: np.ndarray) -> np.ndarray:
        """Return the translations of (n, height, width, channels) images as one array."""
        return np.stack(list(self(images)))
