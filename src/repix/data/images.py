"""Image files to integer arrays and back, with every bit that the file holds.

Arrays are (height, width, channels), ``uint8`` or ``uint16``, upright. Reading is that of
:mod:`repix.data.image_reader`, here with the path in every error. A stage that only writes or resizes imports
:mod:`repix.data.image_writer` or :mod:`repix.data.resizing` alone, so that no change of the reader runs it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from repix.data import image_reader
from repix.data.image_reader import (
    IMAGE_SUFFIXES,
    SUFFIXES,
    Colour,
    Decoded,
    ImageError,
    Limit,
    MissingReaderError,
    to_gray,
)
from repix.data.image_writer import write
from repix.data.resizing import crop_centre, pad_to, resize
from repix.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "SUFFIXES", "BadImageError", "Colour", "Decoded", "Limit", "NoReaderError"]
__all__ += ["UnreadImageError", "crop_centre", "pad_to", "resize", "to_gray", "write"]


class UnreadImageError(UserError):
    """One image that gives no pixels: ``path`` and, apart from it, the ``reason``."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class BadImageError(UnreadImageError):
    """One that cannot be used."""


class NoReaderError(UnreadImageError):
    """One that this machine lacks the library for: no ``on_error: skip`` leaves it out, since others read it."""


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except MissingReaderError as error:
        raise NoReaderError(path, str(error)) from None
    except ImageError as error:
        raise BadImageError(path, str(error)) from None


def from_array(array: np.ndarray, path: str | Path) -> Decoded:
    """Take an array (height, width) or (height, width, channels) as an image; ``path`` names it in errors.

    Raises:
        BadImageError: another number of dimensions, or numbers that are not uint8 or uint16.
    """
    with _named(path):
        return image_reader.from_array(array)


def decode(path: str | Path, limit: Limit | None = None) -> Decoded:
    """Read a file as it is; see :func:`repix.data.image_reader.decode`.

    Raises:
        BadImageError: no such file, not an image, truncated, several frames, too large, or numbers that
            are neither 8 nor 16 bits.
    """
    with _named(path):
        return image_reader.decode(path, limit)


def check_pixels(path: str | Path, height: int, width: int, channels: int, limit: Limit) -> None:
    """Refuse an image of more pixels than the limit; see :func:`repix.data.image_reader.check_pixels`.

    Raises:
        BadImageError: it has more.
    """
    with _named(path):
        image_reader.check_pixels(height, width, channels, limit)


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an upright image, read off the file's header.

    Raises:
        BadImageError: as for :func:`decode`, as far as the header shows it.
    """
    with _named(path):
        return image_reader.size(path)


def convert(decoded: Decoded, path: str | Path, *, colour: Colour, channels: int, bit_depth: int = 8) -> np.ndarray:
    """Bring what a file holds to what is asked for; see :func:`repix.data.image_reader.convert`.

    Raises:
        BadImageError: transparency, other channels, or more bits than ``bit_depth``.
    """
    with _named(path):
        return image_reader.convert(decoded, colour=colour, channels=channels, bit_depth=bit_depth)


def read(path: str | Path, *, colour: Colour = "rgb", channels: int = 3, bit_depth: int = 8) -> np.ndarray:
    """Read one image as (height, width, channels); see :func:`decode` and :func:`convert`.

    Raises:
        BadImageError: it cannot be decoded, or is not what was asked for.
    """
    return convert(decode(path), path, colour=colour, channels=channels, bit_depth=bit_depth)
