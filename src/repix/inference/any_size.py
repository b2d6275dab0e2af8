"""A Keras generator at other sizes than the one that it was trained at."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import keras
import numpy as np

from repix.inference.sizes import Size, Sizes
from repix.inference.translator import Translator
from repix.models.layers import ReflectionPadding2D

if TYPE_CHECKING:
    from repix.schemas import Side

KEPT = 4  # sizes whose compiled functions are kept


def size_unit(network: keras.Model) -> int:
    """Return what both sides of an image must be divisible by: the product of all strides."""
    return math.prod(layer.strides[0] for layer in network.layers if isinstance(layer, keras.layers.Conv2D))


def at_size(network: keras.Model, size: Size) -> keras.Model:
    """Return the same layers, with the same weights, as a model of images of ``size`` (height, width).

    The depth stays that of the network; all its layers are convolutions, norms and the like,
    which have no size of their own.
    """
    if network.input_shape[1:3] == tuple(size):
        return network
    image = keras.Input((*size, network.input_shape[3]), name="source")
    return keras.models.clone_model(network, input_tensors=image, clone_function=lambda layer: layer)


class AnySize(Sizes):
    """A Keras generator as a function of images of any size; see :class:`~repix.inference.sizes.Sizes`.

    Args:
        network: the generator at its trained size.
        source, target: value ranges of both sides.
        compile_function: the backend's compiler of tensor functions.
        paper: whether dropout stays on, as in :class:`Translator`.

    Attributes:
        trained: (height, width) that the network was trained at.
        unit: what the sides of an image are padded to a multiple of.
    """

    def __init__(self, network: keras.Model, source: Side, target: Side, compile_function, *, paper: bool = False):
        super().__init__(network.input_shape[1:3], source, target)
        self.network, self.paper, self._compile = network, paper, compile_function
        self.unit = size_unit(network)
        # A mirror needs more than one pixel where the image is smallest.
        mirrors = any(isinstance(layer, ReflectionPadding2D) for layer in network.layers)
        self._least = 2 * self.unit if mirrors else self.unit
        self._translators: OrderedDict[Size, Translator] = OrderedDict()

    def padded(self, size: Size) -> Size:
        """Return the size that an image of ``size`` is padded to when it is seen whole."""
        if tuple(size) == self.trained:
            return self.trained
        return tuple(max(self._least, math.ceil(side / self.unit) * self.unit) for side in size)

    def _translate(self, image: np.ndarray, index: int) -> np.ndarray:
        size = image.shape[:2]
        if size not in self._translators:
            network = at_size(self.network, size)
            self._translators[size] = Translator(network, self.source, self.target, self._compile, paper=self.paper)
            while len(self._translators) > KEPT:
                self._translators.popitem(last=False)
        self._translators.move_to_end(size)
        return next(iter(self._translators[size]([image], index)))
