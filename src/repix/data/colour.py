"""CIE Lab as integers, and pictures of whatever an array holds.

Lab is that of sRGB under D65. It is stored as ``int16``: L * 300 (0 to 30000), a and b * 256
(-28160 to 28160, which is +-110). With these as low and high, the scaling to [-1, 1] is the
L / 50 - 1, a / 110, b / 110 of affinelayer/pix2pix-tensorflow; a and b of sRGB lie within
(-86.2, 98.3) and (-107.9, 94.5). The step is 1/300 in L and 1/256 in a and b, far below one
8-bit step of RGB.
"""

from __future__ import annotations

import warnings

import numpy as np

from repix.errors import UserError
from repix.schemas import Side

L_SCALE, L_MAX = 300, 30000
AB_SCALE, AB_MAX = 256, 28160
_SCALES = np.array([L_SCALE, AB_SCALE, AB_SCALE], np.float64)

LAB_PARTS = {"lab_l": slice(0, 1), "lab_ab": slice(1, 3)}
LAB_L = Side(channels=1, dtype="int16", low=(0,), high=(L_MAX,), meaning=("L",), colour="lab_l")
LAB_AB = Side(channels=2, dtype="int16", low=(-AB_MAX,) * 2, high=(AB_MAX,) * 2, meaning=("a", "b"), colour="lab_ab")


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB (H, W, 3) of ``uint8`` or ``uint16`` as stored Lab (H, W, 3) ``int16``."""
    from skimage.color import rgb2lab

    lab = rgb2lab(rgb / np.float64(np.iinfo(rgb.dtype).max), illuminant="D65")
    return np.rint(lab * _SCALES).astype(np.int16)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Return stored Lab (H, W, 3) ``int16`` as sRGB ``uint8``; colours outside the gamut are clipped."""
    from skimage.color import lab2rgb

    with warnings.catch_warnings():
        # A translation's Lab often leaves the gamut; the clipping that this warns of is meant.
        warnings.filterwarnings("ignore", message=".*negative Z values.*")
        rgb = lab2rgb(lab / _SCALES, illuminant="D65")
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def to_picture(array: np.ndarray, side: Side, other: np.ndarray | None = None) -> np.ndarray:
    """Return one side's integers as a picture that can be looked at.

    Args:
        array: (H, W, C) as stored, of the dtype that ``side`` names.
        side: what the integers mean.
        other: for ``lab_ab`` the stored L (H, W, 1) that belongs to it; else not used.

    Returns:
        (H, W, 3) ``uint8``: RGB as it is, gray and L repeated, a and b with their L as colour;
        of n channels the first three, or the mean where there are fewer.

    Raises:
        UserError: the array has other channels than ``side``, or lab_ab comes without its L.
    """
    if array.ndim != 3 or array.shape[2] != side.channels:
        raise UserError(f"an array of shape {array.shape} is not (height, width, {side.channels}) as its side says")
    if side.colour == "lab_l":
        return lab_to_rgb(np.concatenate([array, np.zeros((*array.shape[:2], 2), array.dtype)], axis=2))
    if side.colour == "lab_ab":
        if other is None or other.shape != (*array.shape[:2], 1):
            raise UserError("a and b alone are no picture; give the L of the other side, (height, width, 1)")
        return lab_to_rgb(np.concatenate([other, array], axis=2))
    if array.dtype == np.uint8:
        picture = array
    else:
        low, high = np.array(side.low), np.array(side.high)
        picture = np.rint(np.clip((array - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if side.channels >= 3:
        return np.ascontiguousarray(picture[..., :3])
    mean = picture if side.channels == 1 else np.rint(picture.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(mean, 3, axis=2)
