"""Image files to integer arrays and back, with every bit that the file holds.

Arrays are (height, width, channels), ``uint8`` or ``uint16``, upright. Reading is :mod:`repix.data.image_reader`,
here with the path in every error, and writing :mod:`repix.data.image_writer`, which a stage that only writes imports.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repix.data import image_reader
from repix.data.image_reader import FULL, IMAGE_SUFFIXES, SUFFIXES, Colour, Decoded, ImageError, Limit, to_gray
from repix.data.image_writer import write
from repix.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "SUFFIXES", "BadImageError", "Colour", "Decoded", "Limit", "to_gray", "write"]


class BadImageError(UserError):
    """One image that cannot be used: ``path`` and, apart from it, the ``reason``."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def from_array(array: np.ndarray, path: str | Path) -> Decoded:
    """Take an array (height, width) or (height, width, channels) as an image; ``path`` names it in errors.

    Raises:
        BadImageError: another number of dimensions, or numbers that are not uint8 or uint16.
    """
    try:
        return image_reader.from_array(array)
    except ImageError as error:
        raise BadImageError(path, str(error)) from None


def decode(path: str | Path, limit: Limit | None = None) -> Decoded:
    """Read a file as it is; see :func:`repix.data.image_reader.decode`.

    Raises:
        BadImageError: no such file, not an image, truncated, several frames, too large, or numbers that
            are neither 8 nor 16 bits.
    """
    try:
        return image_reader.decode(path, limit)
    except ImageError as error:
        raise BadImageError(path, str(error)) from None


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an upright image, read off the file's header.

    Raises:
        BadImageError: as for :func:`decode`, as far as the header shows it.
    """
    try:
        return image_reader.size(path)
    except ImageError as error:
        raise BadImageError(path, str(error)) from None


def convert(decoded: Decoded, path: str | Path, *, colour: Colour, channels: int, bit_depth: int = 8) -> np.ndarray:
    """Bring what a file holds to what is asked for; see :func:`repix.data.image_reader.convert`.

    Raises:
        BadImageError: transparency, other channels, or more bits than ``bit_depth``.
    """
    try:
        return image_reader.convert(decoded, colour=colour, channels=channels, bit_depth=bit_depth)
    except ImageError as error:
        raise BadImageError(path, str(error)) from None


def read(path: str | Path, *, colour: Colour = "rgb", channels: int = 3, bit_depth: int = 8) -> np.ndarray:
    """Read one image as (height, width, channels); see :func:`decode` and :func:`convert`.

    Raises:
        BadImageError: it cannot be decoded, or is not what was asked for.
    """
    return convert(decode(path), path, colour=colour, channels=channels, bit_depth=bit_depth)


def resize(array: np.ndarray, size: tuple[int, int], resample: str = "bicubic") -> np.ndarray:
    """Resize (H, W, C) to ``size`` = (height, width) with Pillow's antialiased filters.

    8-bit images go through Pillow's own fixed-point resize, RGB at once and other counts channel
    by channel; 16-bit ones through 32-bit floats, rounded and clipped back.

    Args:
        array: ``uint8`` or ``uint16``.
        size: (height, width).
        resample: bicubic, bilinear, nearest, lanczos or box.
    """
    from PIL import Image

    if array.shape[:2] == tuple(size):
        return array
    method = Image.Resampling[resample.upper()]
    extent = (size[1], size[0])
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return np.asarray(Image.fromarray(array).resize(extent, method))
    planes = []
    for channel in range(array.shape[2]):
        plane = array[..., channel]
        if array.dtype == np.uint8:
            planes.append(np.asarray(Image.fromarray(plane).resize(extent, method)))
        else:
            wide = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(extent, method))
            planes.append(np.clip(np.rint(wide), 0, FULL[array.dtype]).astype(array.dtype))
    return np.stack(planes, axis=2)


def crop_centre(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle (height, width) of (H, W, C); an odd remainder goes right and below."""
    top, left = (array.shape[0] - size[0]) // 2, (array.shape[1] - size[1]) // 2
    return array[top : top + size[0], left : left + size[1]]
