"""The book's HDF5 tree: ``training|validation|testing/{images,facades}/*.h5``, dataset key ``data``.

``images`` holds photos (side A), ``facades`` labels (side B), each (n, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repix.errors import UserError

if TYPE_CHECKING:
    from repix.data.prepared import Prepared

KEY = "data"
FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
SIDES = {"A": "images", "B": "facades"}
ROWS_AT_ONCE = 64


def shape(path: str | Path) -> tuple[int, int, int, int]:
    """Return (n, height, width, channels) of a file's ``data``.

    Raises:
        UserError: not an HDF5 file, no such key, another number of dimensions, or other numbers
            than uint8 and uint16.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get(KEY)
            if not isinstance(data, h5py.Dataset):
                has = ", ".join(sorted(file)) or "nothing"
                raise UserError(f"{path}: no dataset {KEY!r}; it has {has}; store the images under {KEY!r}")
            if data.ndim != 4 or 0 in data.shape[1:]:
                raise UserError(f"{path}: {KEY!r} has shape {data.shape}; expected (n, height, width, channels)")
            if data.dtype not in (np.uint8, np.uint16):
                raise UserError(f"{path}: {KEY!r} holds {data.dtype} numbers; expected uint8 (or uint16)")
            return data.shape
    except OSError as error:
        raise UserError(f"{path}: cannot be read as HDF5 ({error}); restore the file") from None


def read_row(path: str | Path, row: int) -> np.ndarray:
    """Return image ``row`` of a file that :func:`shape` has accepted, (height, width, channels)."""
    import h5py

    with h5py.File(path, "r") as file:
        return file[KEY][row]


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
    import h5py

    for split in sorted(splits):
        if split not in FOLDERS:
            raise UserError(f"{split!r} is no split of the book's tree; it has {', '.join(FOLDERS)}")
        photos, labels = splits[split]
        for what, array in (("photos", photos), ("labels", labels)):
            if array.ndim != 4 or array.dtype not in (np.uint8, np.uint16):
                given = f"{array.dtype} {array.shape}"
                raise UserError(f"{split}: {what} are {given}; expected uint8 (n, height, width, channels)")
        if len(photos) != len(labels):
            raise UserError(f"{split}: {len(photos)} photos and {len(labels)} labels; every photo needs its label")
    for split in sorted(splits):
        for side, array in zip("AB", splits[split], strict=True):
            path = Path(folder) / FOLDERS[split] / SIDES[side] / f"{KEY}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                data = file.create_dataset(KEY, array.shape, array.dtype, track_times=False)
                for start in range(0, len(array), ROWS_AT_ONCE):
                    data[start : start + ROWS_AT_ONCE] = array[start : start + ROWS_AT_ONCE]


def write_prepared(folder: str | Path, prepared: Prepared) -> None:
    """Write a prepared, paired set as the book's tree: side A as photos, side B as labels.

    The book's ``facades_bw`` is the façades archive prepared as aligned, gray, load and crop
    size 256, and written by this function.

    Raises:
        UserError: the set is not paired, or its arrays are not what the tree can hold (Lab).
    """
    manifest = prepared.manifest
    if not manifest.paired:
        raise UserError(f"{manifest.dataset}: not paired; the book's tree holds pairs of photo and label")
    splits = {name: prepared.split(name) for name in manifest.splits}
    write_book_tree(
        folder,
        {
            name: (split.source, split.target) if manifest.direction == "AtoB" else (split.target, split.source)
            for name, split in splits.items()
        },
    )
