"""Images of other sizes than the trained one, for any runtime: padded whole, or in tiles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from repix.data.resizing import pad_to
from repix.errors import UserError

if TYPE_CHECKING:
    from repix.schemas import Side

Size = tuple[int, int]

WHOLE_PIXELS = 1024 * 1024
"""Largest padded image that goes through the network in one piece unless asked for: about 1 GB of activations."""


class SizeError(UserError):
    """An image of a size that the runtime at hand does not take."""


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


class Sizes(ABC):
    """A generator as a function of stored integers, (height, width, channels) of any size.

    Norms use the statistics of what is in sight, so an image that is seen whole, in tiles or
    resized gives three different, and all meaningful, translations. At the trained size they
    are one and the same: the function that was scored.

    Args:
        trained: (height, width) that the network was trained at.
        source, target: value ranges of both sides.
    """

    def __init__(self, trained: Size, source: Side, target: Side):
        self.trained: Size = tuple(trained)
        self.source, self.target = source, target

    @abstractmethod
    def padded(self, size: Size) -> Size:
        """Return the size nearest above ``size`` that the network allows."""

    @abstractmethod
    def _translate(self, image: np.ndarray, index: int) -> np.ndarray:
        """Return the translation of an image of a size that the network allows."""

    def choose(self, size: Size, asked: str | None = None) -> str:
        """Return how an image of ``size`` is translated: ``trained``, or as asked, or else ``whole`` or ``tile``."""
        if tuple(size) == self.trained:
            return "trained"
        if asked is not None:
            return asked
        most = max(WHOLE_PIXELS, math.prod(self.trained))
        # Padding adds only: what is too large without it need not be asked how much it would add.
        return "whole" if math.prod(size) <= most and math.prod(self.whole(size)) <= most else "tile"

    def whole(self, size: Size) -> Size:
        """Return the size that an image is mirrored to when it is seen whole: the trained one where it fits into that.

        So ``resize: pad`` prepared the images of such a set, and every runtime takes that size.
        """
        fits = all(side <= most for side, most in zip(size, self.trained, strict=True))
        return self.trained if fits else self.padded(size)

    def __call__(self, image: np.ndarray, how: str | None = None, index: int = 0) -> np.ndarray:
        """Return the translation of an image, at its own height and width.

        Args:
            image: (height, width, channels) stored integers of the source.
            how: ``trained`` (at that size), ``whole`` (mirrored at the borders to a size that the
                network allows, and cropped back) or ``tile`` (tiles of the trained size, a quarter
                of it shared, blended); None chooses by size.
            index: names the dropout masks of ``paper``; the tiles of an image count on from it.
        """
        how = self.choose(image.shape[:2]) if how is None else how
        height, width = image.shape[:2]
        if how == "tile":
            return self._tiled(image, index)
        padded, (top, left) = pad_to(image, self.whole((height, width)))
        return self._translate(padded, index)[top : top + height, left : left + width]

    def _tiled(self, image: np.ndarray, index: int) -> np.ndarray:
        """Return the blend of tiles. Sums are kept for one row of tiles alone: of a large image they are gigabytes."""
        padded, (top, left) = pad_to(image, self.trained)
        (height, width), (tall, wide) = padded.shape[:2], self.trained
        rows, columns = (tile_starts(side, tile, tile // 4) for side, tile in ((height, tall), (width, wide)))
        weight = tile_weight(self.trained, min(tall // 4, wide // 4))
        blended = np.empty((height, width, len(self.target.low)), self.target.dtype)
        total, weights = np.zeros((tall, width, len(self.target.low))), np.zeros((tall, width, 1))
        for number, y in enumerate(rows):
            for place, x in enumerate(columns, number * len(columns)):
                tile = np.ascontiguousarray(padded[y : y + tall, x : x + wide])
                total[:, x : x + wide] += weight * self._translate(tile, index + place)
                weights[:, x : x + wide] += weight
            done = (*rows, height)[number + 1] - y  # rows of pixels that no further tile covers
            blended[y : y + done] = np.rint(total[:done] / weights[:done])
            for sums in (total, weights):
                sums[: tall - done] = sums[done:].copy()
                sums[tall - done :] = 0
        return blended[top : top + image.shape[0], left : left + image.shape[1]]
