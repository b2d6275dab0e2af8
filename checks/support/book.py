"""The book's HDF5 tree, written: what the reader of :mod:`repix.data.hdf5` is tried with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from repix.data import hdf5
from repix.data.hdf5_reader import KEY
from repix.errors import UserError

ROWS_AT_ONCE = 64


def write_book_tree(folder: str | Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write arrays as the book's tree below ``folder``; equal arrays give equal bytes.

    Args:
        folder: made where it is missing. Wrap it in :func:`repix.files.atomic_folder` for an out.
        splits: train, val and test (or some of them) -> (photos, labels), each (n, height,
            width, channels) of uint8 or uint16; memory maps are read a few rows at a time.

    Raises:
        UserError: another split's name, another shape or dtype, or photos and labels that
            differ in number.
    """
    for split in sorted(splits):
        if split not in hdf5.FOLDERS:
            raise UserError(f"{split!r} is no split of the book's tree; it has {', '.join(hdf5.FOLDERS)}")
        photos, labels = splits[split]
        for what, array in (("photos", photos), ("labels", labels)):
            if array.ndim != 4 or array.dtype not in (np.uint8, np.uint16):
                given = f"{array.dtype} {array.shape}"
                raise UserError(f"{split}: {what} are {given}; expected uint8 (n, height, width, channels)")
        if len(photos) != len(labels):
            raise UserError(f"{split}: {len(photos)} photos and {len(labels)} labels; every photo needs its label")
    for split in sorted(splits):
        for side, array in zip("AB", splits[split], strict=True):
            path = Path(folder) / hdf5.FOLDERS[split] / hdf5.SIDES[side] / f"{KEY}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                data = file.create_dataset(KEY, array.shape, array.dtype, track_times=False)
                for start in range(0, len(array), ROWS_AT_ONCE):
                    data[start : start + ROWS_AT_ONCE] = array[start : start + ROWS_AT_ONCE]
