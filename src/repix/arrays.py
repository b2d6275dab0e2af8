"""Named arrays in one ``.npz`` file: written atomically, equal arrays as equal bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from repix.files import atomic_path

_HEADER_BYTES = 1 << 16  # most of what stands before the numbers of an array


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``, atomically; equal arrays give equal bytes.

    Stored, not compressed: weights do not shrink, and zlib builds differ. Not by ``np.savez``: it asks for the
    form of files above 4 GiB, whose headers Python 3.11.4 and later write otherwise than those before.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array, entry = np.asanyarray(arrays[name]), zipfile.ZipInfo(f"{name}.npy")
            entry.file_size = array.nbytes + _HEADER_BYTES  # no less than comes: it decides the form
            with archive.open(entry, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        OSError: it is missing. A damaged one raises whatever NumPy or zipfile stumbles over.
        ValueError: it is compressed, which could make any amount of memory of a small file.
    """
    with np.load(path, allow_pickle=False) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.zip.infolist()):
            raise ValueError("its arrays are compressed; repix stores them as they are")
        return {name: archive[name] for name in archive.files}
