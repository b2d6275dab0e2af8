"""Rows of several arrays seen as one array: what a large side of a split is, whose shards are files of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class Rows:
    """Arrays of equal rows, one after the other, read as one (n, ...) array; only what is asked for is read.

    It takes the indices that images are asked for by: an integer, a slice or integers for the rows, and after these
    anything that NumPy takes. A slice of all rows stays a view; other slices and integers are copied.

    Args:
        parts: (n_i, ...) arrays of one dtype, memory-mapped or not, at least one.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.shape = (int(self._ends[-1]), *self.parts[0].shape[1:])
        self.dtype, self.ndim = self.parts[0].dtype, self.parts[0].ndim
        self.nbytes = sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts:
            yield from part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory."""
        if copy is False:
            raise ValueError("rows of several files are no array without a copy")
        return np.concatenate([np.asarray(part, dtype) for part in self.parts])

    def __getitem__(self, index: Any) -> Any:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, int | np.integer):
            return self._row(int(rows))[tuple(rest)]
        if isinstance(rows, slice):
            if rows == slice(None):
                return Rows([part[(rows, *rest)] for part in self.parts])
            rows = range(*rows.indices(len(self)))
        rows = np.asarray(rows, np.int64)
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            found[place] = self._row(int(row))
        return found[(slice(None), *rest)]

    def _row(self, row: int) -> np.ndarray:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self.parts[part][row - (int(self._ends[part - 1]) if part else 0)]
