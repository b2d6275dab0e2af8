"""Conversion between stored integers and the [-1, 1] that networks compute on, channel by channel."""

from __future__ import annotations

import numpy as np
from keras import ops


def to_network_range(images, low: tuple[float, ...], high: tuple[float, ...]):
    """Return integer images scaled so that ``low`` is -1 and ``high`` is +1, float32.

    Args:
        images: (batch, height, width, channels) of any integer type.
        low, high: per channel, the stored values of -1 and +1.
    """
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return (ops.cast(images, "float32") - low) * (np.float32(2) / (high - low)) - 1


def to_stored_range(images, low: tuple[float, ...], high: tuple[float, ...], dtype: str):
    """Return images in [-1, 1] as integers of ``dtype``: the inverse of :func:`to_network_range`.

    Values are rounded to the nearest integer (halves to even); what lies outside of
    [low, high] is clipped.
    """
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    values = (ops.cast(images, "float32") + 1) * ((high - low) / np.float32(2)) + low
    return ops.cast(ops.round(ops.clip(values, low, high)), dtype)
