"""Prepared arrays, as ``preprocess`` left them: opened as memory maps, checked against the manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from repix.data.rows import Rows
from repix.errors import UserError
from repix.schemas import Example, Half, Manifest, Shard, Side

MANIFEST = "manifest.json"
MEND = "run `dvc repro` (or `dvc pull`) to restore it"


@dataclass(frozen=True)
class SplitArrays:
    """The arrays of one split, mapped and not loaded; the names of their rows are read when somebody asks.

    Attributes:
        source, target: (n, height, width, channels), read-only.
        prepared: where they lie.
        split: which split.
    """

    source: np.ndarray | Rows
    target: np.ndarray | Rows
    prepared: Prepared
    split: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the rows of ``source``; in a paired set also those of ``target``."""
        return tuple(example.name for example in self.prepared.examples(self.split, "source"))

    @cached_property
    def target_names(self) -> tuple[str, ...]:
        """The names of the rows of ``target``."""
        return tuple(example.name for example in self.prepared.examples(self.split, "target"))


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
        source, target = self._map(split.source, manifest.source), self._map(split.target, manifest.target)
        return SplitArrays(source, target, self, name)

    def centre(self, images: np.ndarray | Rows) -> np.ndarray | Rows:
        """Return the middle of stored images (N, H, W, C), of the size that networks see: train images are larger."""
        height, width = self.manifest.crop_size
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]

    def examples(self, split: str, side: Literal["source", "target"]) -> list[Example]:
        """Return where each row of a side of a split came from.

        Raises:
            UserError: the list is missing or damaged, is not that of the manifest, has not as many lines as there are
                rows, or has a name twice or one that names no file in a folder: files are called after them.
        """
        half: Half = getattr(self.manifest.splits[split], side)
        path = self.folder / half.examples
        try:
            listed = path.read_bytes()
            found = [Example.model_validate_json(line) for line in listed.splitlines()]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, and the manifest names it; {MEND}") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as a list of images ({_reason(error)}); {MEND}") from None
        if len(found) != half.n:
            raise UserError(f"{path}: {len(found)} lines, and the manifest has {half.n} images; {MEND}")
        if twice := [name for name, count in Counter(example.name for example in found).items() if count > 1]:
            raise UserError(f"{path}: name {twice[0]!a} is there twice; {MEND}")
        if hashlib.sha256(listed).hexdigest() != half.examples_sha256:
            raise UserError(f"{path}: is not the list that the manifest names; {MEND}")
        return found

    def _map(self, half: Half, side: Side) -> np.ndarray | Rows:
        parts = [self._map_shard(shard, half.size, side) for shard in half.shards]
        return parts[0] if len(parts) == 1 else Rows(parts)

    def _map_shard(self, shard: Shard, size: tuple[int, int], side: Side) -> np.memmap:
        path = self.folder / shard.file
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, and the manifest names it; {MEND}") from None
        except Exception as error:  # a damaged header can make its reader raise anything
            raise UserError(f"{path}: cannot be read as .npy ({error}); {MEND}") from None
        expected = (shard.n, *size, side.channels)
        if array.shape != expected or array.dtype != np.dtype(side.dtype):
            found = f"{array.dtype} {array.shape}"
            raise UserError(f"{path}: holds {found}, the manifest says {side.dtype} {expected}; {MEND}")
        return array


def _reason(error: Exception) -> str:
    return error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
