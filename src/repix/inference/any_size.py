"""A generator at other sizes than the one that it was trained at: padded whole, or in tiles."""

from __future__ import annotations

import math
from collections import OrderedDict

import keras
import numpy as np

from repix.inference.translator import Side, Translator
from repix.models.layers import ReflectionPadding2D

Size = tuple[int, int]

WHOLE_PIXELS = 1024 * 1024
"""Largest padded image that goes through the network in one piece unless asked for: about 1 GB of activations."""
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


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin that cover ``length`` evenly, neighbours sharing ``overlap`` or more."""
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tile_weight(size: Size, overlap: int) -> np.ndarray:
    """Return the weight of a tile's pixels, (height, width, 1) in (0, 1]: a ramp over ``overlap`` at each border."""

    def ramp(length: int) -> np.ndarray:
        place = np.arange(length) + 0.5
        return np.minimum(1.0, np.minimum(place, length - place) / max(overlap, 1))

    return (ramp(size[0])[:, None] * ramp(size[1]))[..., None]


def pad_to(image: np.ndarray, size: Size) -> tuple[np.ndarray, Size]:
    """Mirror (height, width, channels) outwards to at least ``size``; return it with its (top, left) within."""
    missing = [max(0, want - have) for want, have in zip(size, image.shape[:2], strict=True)]
    top, left = missing[0] // 2, missing[1] // 2
    margins = ((top, missing[0] - top), (left, missing[1] - left), (0, 0))
    return np.pad(image, margins, mode="reflect"), (top, left)


class AnySize:
    """A generator as a function of stored integers, (height, width, channels) of any size.

    Norms use the statistics of what is in sight, so an image that is seen whole, in tiles or
    resized gives three different, and all meaningful, translations. At the trained size they
    are one and the same: the function that was scored.

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
        self.network, self.paper = network, paper
        self.source, self.target, self._compile = source, target, compile_function
        self.trained: Size = tuple(network.input_shape[1:3])
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

    def choose(self, size: Size) -> str:
        """Return ``trained``, ``whole`` or ``tile``: what :meth:`__call__` does with an image of ``size``."""
        if tuple(size) == self.trained:
            return "trained"
        return "whole" if math.prod(self.padded(size)) <= max(WHOLE_PIXELS, math.prod(self.trained)) else "tile"

    def _translate(self, image: np.ndarray, index: int) -> np.ndarray:
        size = image.shape[:2]
        if size not in self._translators:
            network = at_size(self.network, size)
            self._translators[size] = Translator(network, self.source, self.target, self._compile, paper=self.paper)
            while len(self._translators) > KEPT:
                self._translators.popitem(last=False)
        self._translators.move_to_end(size)
        return next(iter(self._translators[size]([image], index)))

    def __call__(self, image: np.ndarray, how: str | None = None, index: int = 0) -> np.ndarray:
        """Return the translation of an image, at its own height and width.

        Args:
            image: (height, width, channels) stored integers of the source.
            how: ``whole`` (mirrored at the borders to a size that the network allows, and cropped
                back) or ``tile`` (tiles of the trained size, a quarter of it shared, blended);
                None chooses by size.
            index: names the dropout masks of ``paper``; the tiles of an image count on from it.
        """
        how = self.choose(image.shape[:2]) if how is None else how
        height, width = image.shape[:2]
        if how == "tile":
            return self._tiled(image, index)
        padded, (top, left) = pad_to(image, self.padded((height, width)))
        return self._translate(padded, index)[top : top + height, left : left + width]

    def _tiled(self, image: np.ndarray, index: int) -> np.ndarray:
        height, width = image.shape[:2]
        padded, (top, left) = pad_to(image, self.trained)
        overlaps = [side // 4 for side in self.trained]
        starts = [
            tile_starts(length, tile, overlap)
            for length, tile, overlap in zip(padded.shape[:2], self.trained, overlaps, strict=True)
        ]
        weight = tile_weight(self.trained, min(overlaps))
        total = np.zeros((*padded.shape[:2], len(self.target.low)))
        weights = np.zeros((*padded.shape[:2], 1))
        for number, (y, x) in enumerate((y, x) for y in starts[0] for x in starts[1]):
            place = slice(y, y + self.trained[0]), slice(x, x + self.trained[1])
            total[place] += weight * self._translate(np.ascontiguousarray(padded[place]), index + number)
            weights[place] += weight
        blended = np.rint(total / weights).astype(self.target.dtype)
        return blended[top : top + height, left : left + width]
