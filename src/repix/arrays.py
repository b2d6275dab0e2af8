"""Named arrays in one ``.npz`` file: written atomically, equal arrays as equal bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repix.files import atomic_path


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``, atomically; equal arrays give equal bytes.

    Stored, not compressed: weights do not shrink, and zlib builds differ.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **{name: arrays[name] for name in sorted(arrays)})


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        OSError: it is missing. A damaged one raises whatever NumPy or zipfile stumbles over.
    """
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
