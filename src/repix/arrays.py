"""Arrays in files: named ones in one ``.npz``, equal arrays as equal bytes, and large ones that no memory need hold."""

from __future__ import annotations

import math
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from repix.files import atomic_path

SCRATCH_BYTES = 1 << 28  # arrays above lie in a temporary file
_HEADER_BYTES = 1 << 16  # most of what stands before the numbers of an array


def scratch(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array to be filled: in memory or, if it is large, in a file without a name, which goes with it."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= SCRATCH_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="repix-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


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
        ValueError: it is no such file, or compressed: that could make any amount of memory of a small file.
    """
    if path.exists() and not (path.is_file() and zipfile.is_zipfile(path)):
        raise ValueError("it is no .npz, or was cut short")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its arrays are compressed; repix stores them as they are")
        # A few bytes of a table of contents could name the same bytes many times.
        if len({member.filename for member in members}) < len(members):
            raise ValueError("it holds two arrays of one name")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its arrays overlap")
        return {member.filename.removesuffix(".npy"): _load_member(archive, member) for member in members}


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _load_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!a} is no array")
    with archive.open(member) as stream:
        # NumPy makes room for what the header claims, before any checksum is looked at.
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename!a} is of version {version}; expected 1.0 or 2.0")
        shape, _, dtype = _HEADERS[version](stream)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename!a} claims more bytes than it has")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"{member.filename!a} has bytes behind its array")
    return array


def check_numbers(arrays: dict[str, np.ndarray], wanted: dict[str, str]) -> None:
    """Refuse weights that are other numbers than a network has, or none at all.

    Args:
        arrays: name -> array.
        wanted: name -> dtype of the network's variable.

    Raises:
        ValueError: with the first name and the reason.
    """
    for name in sorted(wanted):
        if str(arrays[name].dtype) != wanted[name]:
            raise ValueError(f"{name} holds {arrays[name].dtype} numbers, not {wanted[name]}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
