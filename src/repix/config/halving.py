"""How often sizes can be halved: one that halves seldom makes a toy of a U-Net, without an error."""

from __future__ import annotations

import math

from repix.config import sizes
from repix.config.images import height_width
from repix.config.models import TERMS, Recipe

Size = tuple[int, int]


def nearest(size: tuple[float, float]) -> Size:
    """Return the nearest size (height, width) that halves down to a few pixels: multiples of up to 64."""
    unit = _unit(size)
    height, width = (max(unit, math.floor(side / unit + 0.5) * unit) for side in size)
    return height, width


def enclosing(size: tuple[float, float]) -> Size:
    """Return the least size (height, width) not below ``size`` that halves down to a few pixels, as :func:`nearest`."""
    unit = _unit(size)
    height, width = (math.ceil(side / unit) * unit for side in size)
    return height, width


def _unit(size: tuple[float, float]) -> int:
    return 2 ** max(2, min(6, int(math.log2(max(min(size), 4))) - 1))


def halvings(size: Size) -> int:
    """Return how often both sides of a size can be halved, at most 8 times."""
    return next((n for n in range(8, 0, -1) if size[0] % 2**n == 0 and size[1] % 2**n == 0), 0)


def warning(recipe: Recipe, crop_size: int | Size) -> str | None:
    """Return one line where a crop size makes a U-Net far shallower than images of about that size allow.

    A depth that the recipe spells is as it was asked for.
    """
    if recipe.system not in TERMS or recipe.generator.kind != "unet" or recipe.generator.depth is not None:
        return None
    size = height_width(crop_size)
    depth = sizes.unet_depth(recipe.generator, size)
    # Three halvings short of one pixel, a network still sees most of the image.
    if depth >= int(math.log2(min(size))) - 3:
        return None
    near = nearest(size)
    return (
        f"crop_size {size[0]} x {size[1]} can be halved only {depth} times, which makes a toy of the U-Net: it sees "
        f"a small patch of the image; crop_size: [{near[0]}, {near[1]}] can be halved {halvings(near)} times"
    )
