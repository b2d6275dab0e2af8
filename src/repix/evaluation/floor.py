"""The distance between two halves of the real images: what real images differ by, at half as many as are scored.

The metrics file has it as ``floor``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from repix.data.rows import Rows
from repix.files import digest_text

T = TypeVar("T")


def halves(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of two equal halves, chosen by the sha256 of the names.

    The order of the names plays no part. Of an odd number, the last by hash is left out.
    """
    order = np.array(sorted(range(len(names)), key=lambda i: (digest_text(names[i]), i)), np.int64)
    half = len(names) // 2
    return np.sort(order[:half]), np.sort(order[half : 2 * half])


def self_distance(distance: Callable[[np.ndarray, np.ndarray], T], rows: np.ndarray, names: Sequence[str]) -> T:
    """Return ``distance`` between two halves of the real images (or of their features).

    Args:
        distance: of two arrays of as many rows.
        rows: (n, ...) images or features; names: one per row.
    """
    if len(rows) != len(names):
        raise ValueError(f"{len(rows)} rows have {len(names)} names")
    first, second = halves(names)
    if rows.ndim > 2:  # images are looked at where they lie: a copy of many takes gigabytes
        return distance(*(Rows([rows[i : i + 1] for i in half]) for half in (first, second)))
    return distance(rows[first], rows[second])
