"""Pictures of translations: rows of source | output | target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix.data.colour import to_picture
from repix.schemas import Side

GAP = 2  # white pixels between pictures


def grid(rows: Sequence[Sequence[np.ndarray]], columns: int = 1) -> np.ndarray:
    """Return rows of equally high pictures as one, white between them.

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

    Lab sides are shown as the colours that L with a and b make.

    Args:
        sources, outputs, targets: (n, height, width, channels) stored integers.
        source, target: what the numbers mean.
    """
    rows = []
    for i in range(len(outputs)):
        other = sources[i] if target.colour == "lab_ab" else None
        row = [to_picture(sources[i], source), to_picture(outputs[i], target, other)]
        if targets is not None:
            row.append(to_picture(targets[i], target, other))
        rows.append(row)
    return rows
