"""Checkpoints: complete, atomic, checked on load, and never somebody else's.

A checkpoint is one ``.npz`` in a folder that carries the run key of what produced it. It
holds all arrays that move and a JSON header with the step, the rows of the loss table so
far and the canonical digest of the arrays. The last two are kept.
"""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repix.files import atomic_path, digest_arrays

KEEP = 2
_HEADER = "__header__"


@dataclass(frozen=True)
class Checkpoint:
    """A state between two steps: ``step`` is the next one to play."""

    step: int
    arrays: dict[str, np.ndarray]
    extra: dict[str, Any]


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``, atomically; equal arrays give equal bytes.

    Stored, not compressed: weights do not shrink, and zlib builds differ.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **{name: arrays[name] for name in sorted(arrays)})


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


class Checkpoints:
    """The checkpoints of one run key.

    Args:
        folder: an ignored folder; ``<folder>/<run_key>/`` is used.
        run_key: digest of everything declared that determines the training.
    """

    def __init__(self, folder: Path, run_key: str):
        self.run_key = run_key
        self.folder = Path(folder) / run_key

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then drop all but the last two.

        Raises:
            OSError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        header = {
            "run_key": self.run_key,
            "step": checkpoint.step,
            "digest": digest_arrays(checkpoint.arrays),
            "extra": checkpoint.extra,
        }
        text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
        path = self.folder / f"step-{checkpoint.step:09d}.npz"
        save_arrays(path, checkpoint.arrays | {_HEADER: text})
        for old in sorted(self.folder.glob("step-*.npz"))[:-KEEP]:
            old.unlink()
        return path

    def _load(self, path: Path) -> Checkpoint:
        arrays = load_arrays(path)
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if header["run_key"] != self.run_key:
            raise ValueError(f"it belongs to run {header['run_key'][:12]}")
        if header["digest"] != digest_arrays(arrays):
            raise ValueError("its digest does not fit its contents")
        return Checkpoint(header["step"], arrays, header["extra"])

    def latest(self) -> Checkpoint | None:
        """Return the newest sound checkpoint, or None.

        A damaged or foreign one is named on standard error and the previous one is used.
        """
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                return self._load(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                print(f"repix: checkpoint {path.name} refused: {error}; trying the one before", file=sys.stderr)
        return None
