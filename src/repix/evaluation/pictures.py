"""Compose pictures of translations: rows of source | output | target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix.data.colour import L_MAX, lab_to_rgb, to_picture
from repix.schemas import Side

GAP = 2  # white pixels between pictures


def grid(rows: Sequence[Sequence[np.ndarray]], columns: int = 1) -> np.ndarray:
    """Return rows of equally high pictures as one picture, with white between them.

    Args:
        rows: each a sequence of (height, width, 3) uint8; all of the same sizes.
        columns: how many rows stand side by side.

    Returns:
        (height, width, 3) uint8.
    """
    strips = [_join(row, axis=1) for row in rows]
    while len(strips) % columns:
        strips.append(np.full_like(strips[0], 255))
    lines = [_join(strips[i : i + columns], axis=1, gap=4 * GAP) for i in range(0, len(strips), columns)]
    return _join(lines, axis=0)


def _join(pictures: Sequence[np.ndarray], axis: int, gap: int = GAP) -> np.ndarray:
    shape = list(pictures[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [pictures[0]]
    for picture in pictures[1:]:
        parts += [white, picture]
    return np.concatenate(parts, axis=axis)


def triples(
    sources: np.ndarray, outputs: np.ndarray, targets: np.ndarray | None, source: Side, target: Side
) -> list[list[np.ndarray]]:
    """Return for each image its pictures: source, output and, where there is one, target.

    Lab sides are shown as the colours that L with a and b make: see :func:`shown`.

    Args:
        sources, outputs, targets: (n, height, width, channels) stored integers.
        source, target: what the numbers mean.
    """
    rows = []
    for i in range(len(outputs)):
        beside = None if targets is None else targets[i]
        row = [shown(sources[i], source, beside), shown(outputs[i], target, sources[i])]
        if beside is not None:
            row.append(shown(beside, target, sources[i]))
        rows.append(row)
    return rows


def shown(image: np.ndarray, side: Side, other: np.ndarray | None = None) -> np.ndarray:
    """Return one image as a picture, (height, width, 3) uint8.

    Args:
        image: (height, width, channels) stored integers.
        side: what they mean.
        other: the same image's other side. Of Lab it completes a and b, which are no picture
            alone; without it they are shown at half of the lightness.
    """
    if side.colour == "lab_ab":
        light = np.full((*image.shape[:2], 1), L_MAX // 2, image.dtype) if other is None else other
        return to_picture(image, side, light)
    return to_picture(image, side)


def stored(output: np.ndarray, side: Side, other: np.ndarray) -> np.ndarray:
    """Return a translation as its file holds it: every channel and bit; of Lab the photo, uint8 RGB.

    Args:
        output: (height, width, channels) stored integers of ``side``.
        side: what they mean.
        other: what it was translated from; Lab takes its L, or a and b, from there.
    """
    if side.colour == "lab_ab":
        return lab_to_rgb(np.concatenate([other, output], axis=2))
    if side.colour == "lab_l":
        return lab_to_rgb(np.concatenate([output, other], axis=2))
    return output


def suffix(side: Side) -> str:
    """Return the suffix of a translation's file: PNG for pictures, TIFF for any other number of channels."""
    return ".png" if side.colour.startswith("lab") or side.channels in (1, 3) else ".tif"
