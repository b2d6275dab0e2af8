"""Image files to what a model takes, and back: formats, halves, Lab and other sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repix.data import colour, images
from repix.inference.sizes import Sizes
from repix.schemas import Side
from repix.translation.model import PIXELS


def read_source(path: Path, source: Side, half: str | None, pixels: int = PIXELS, mend: str = "--pixels") -> np.ndarray:
    """Return an image as (height, width, channels) of what the source takes; of Lab the photo, RGB.

    Args:
        path: the file.
        source: what the model takes.
        half: ``left`` or ``right`` of a side-by-side file.
        pixels: most pixels that are taken, counted before they are decoded.
        mend: what raises that, for the refusal.

    Raises:
        BadImageError: it cannot be read, or is not what the model takes.
    """
    decoded = images.decode(path, images.Limit(pixels, f"{mend} raises it"))
    if half:
        width = decoded.pixels.shape[1]
        if width % 2:
            raise images.BadImageError(path, f"is {width} px wide, which is no two halves")
        columns = slice(width // 2) if half == "left" else slice(width // 2, None)
        decoded = decoded._replace(pixels=decoded.pixels[:, columns])
    return to_source(decoded, path, source)


def to_source(decoded: images.Decoded, name: str | Path, source: Side) -> np.ndarray:
    """Return a decoded image as (height, width, channels) of what the source takes; of Lab the photo, RGB.

    Raises:
        BadImageError: it is not what the model takes; ``name`` is what the refusal calls it.
    """
    if source.colour.startswith("lab"):
        bits = decoded.pixels.dtype.itemsize * 8
        return images.convert(decoded, name, colour="rgb", channels=3, bit_depth=bits)
    bits = 16 if source.dtype == "uint16" else 8
    return images.convert(decoded, name, colour=source.colour, channels=source.channels, bit_depth=bits)


def translate_image(pixels: np.ndarray, network: Sizes, how: str | None, index: int) -> np.ndarray:
    """Return the translation of what :func:`read_source` returned, at its size.

    With a Lab model the result is a photo: what the network made, and what it saw as it was.
    """
    size = pixels.shape[:2]
    resized, how = how == "resize", None if how == "resize" else how
    seen = images.resize(pixels, network.trained) if resized else pixels
    if not network.source.colour.startswith("lab"):
        output = network(seen, how, index)
        return images.resize(output, size) if resized else output
    given, made = colour.LAB_PARTS[network.source.colour], colour.LAB_PARTS[network.target.colour]
    lab = colour.rgb_to_lab(seen)
    lab[..., made] = network(lab[..., given], how, index)
    if resized:
        # The part that the network only saw keeps the sharpness of the original.
        lab = colour.rgb_to_lab(images.resize(colour.lab_to_rgb(lab), size))
        lab[..., given] = colour.rgb_to_lab(pixels)[..., given]
    return colour.lab_to_rgb(lab)
