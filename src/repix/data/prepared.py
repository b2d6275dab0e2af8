"""Prepared arrays, as ``preprocess`` left them: opened as memory maps, checked against the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repix.errors import UserError
from repix.schemas import Half, Manifest, Side

MANIFEST = "manifest.json"


class SplitArrays(NamedTuple):
    """The arrays of one split, mapped and not loaded.

    Attributes:
        source, target: (n, height, width, channels), read-only.
        names: of the rows of ``source``; in a paired set also those of ``target``.
        target_names: of the rows of ``target``.
    """

    source: np.memmap
    target: np.memmap
    names: tuple[str, ...]
    target_names: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A folder that :func:`prepare` wrote."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Prepared:
        """Open a prepared folder and check that its arrays are those of its manifest.

        Checks shapes and dtypes, not digests (which are for ``verify``).

        Raises:
            UserError: no manifest, or an array that is missing, damaged or of another shape or dtype.
        """
        prepared = cls(Path(folder), Manifest.read(Path(folder) / MANIFEST))
        for name in prepared.manifest.splits:
            prepared.split(name)
        return prepared

    def split(self, name: str) -> SplitArrays:
        """Map the arrays of a split.

        Raises:
            UserError: there is no such split, or its arrays do not fit the manifest.
        """
        manifest = self.manifest
        if name not in manifest.splits:
            raise UserError(f"{self.folder}: no split {name!r}; there is {', '.join(sorted(manifest.splits))}")
        split = manifest.splits[name]
        if manifest.paired and split.source.n != split.target.n:
            raise UserError(f"{self.folder}: {name} is paired, yet n is {split.source.n} and {split.target.n}")
        return SplitArrays(
            self._map(split.source, manifest.source),
            self._map(split.target, manifest.target),
            tuple(example.name for example in split.source.examples),
            tuple(example.name for example in split.target.examples),
        )

    def _map(self, half: Half, side: Side) -> np.memmap:
        path = self.folder / half.file
        mend = "run `dvc repro` (or `dvc pull`) to restore it"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, and the manifest names it; {mend}") from None
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{path}: cannot be read as .npy ({error}); {mend}") from None
        expected = (half.n, *half.size, side.channels)
        if array.shape != expected or array.dtype != np.dtype(side.dtype):
            found = f"{array.dtype} {array.shape}"
            raise UserError(f"{path}: holds {found}, the manifest says {side.dtype} {expected}; {mend}")
        if len(half.examples) != half.n:
            raise UserError(f"{path}: {half.n} rows and {len(half.examples)} examples in the manifest; {mend}")
        return array
