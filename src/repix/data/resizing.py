"""Images at another size: Pillow's antialiased filters at any depth, mirrored borders, and the middle of an image."""

from __future__ import annotations

import numpy as np


def resize(array: np.ndarray, size: tuple[int, int], resample: str = "bicubic") -> np.ndarray:
    """Resize (H, W, C) to ``size`` = (height, width) with Pillow's antialiased filters.

    8-bit images go through Pillow's own fixed-point resize, RGB at once and other counts channel
    by channel; 16-bit ones through 32-bit floats, rounded and clipped back; floats as they are.

    Args:
        array: ``uint8``, ``uint16`` or ``float32``.
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
            whole = array.dtype != np.float32
            planes.append(np.clip(np.rint(wide), 0, np.iinfo(array.dtype).max).astype(array.dtype) if whole else wide)
    return np.stack(planes, axis=2)


def crop_centre(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle (height, width) of (..., H, W, C); an odd remainder goes right and below."""
    top, left = ((have - want) // 2 for have, want in zip(array.shape[-3:-1], size, strict=True))
    return array[..., top : top + size[0], left : left + size[1], :]


def pad_to(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Mirror (height, width, channels) outwards to at least ``size``; return it with its (top, left) within."""
    missing = [max(0, want - have) for want, have in zip(size, image.shape[:2], strict=True)]
    if not any(missing):
        return image, (0, 0)
    top, left = missing[0] // 2, missing[1] // 2
    margins = ((top, missing[0] - top), (left, missing[1] - left), (0, 0))
    return np.pad(image, margins, mode="reflect"), (top, left)
