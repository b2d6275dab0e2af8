"""Image trees that are never kept: the archive goes in their place, and is unpacked for as long as it is read.

A tree of a million files costs DVC minutes and the disk a second copy; of a large set nobody looks at it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from repix.data import archives
from repix.errors import UserError
from repix.files import atomic_folder, read_json, scratch_folder, write_json

LIMITS = "limits.json"
KEYS = {"max_bytes", "max_files", "max_ratio"}  # of it


def keep_archive(archive: Path, out: Path, limits: Mapping[str, float]) -> None:
    """Put an archive, and the limits that it has to keep, in the place of its tree; the archive is linked if it can be.

    Args:
        archive: what would have been unpacked.
        out: the folder, which takes the place of what was there.
        limits: the arguments of :func:`repix.data.archives.unpack`.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; run the stage that downloads it")
    with atomic_folder(out) as folder:
        try:
            os.link(archive, folder / archive.name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(archive, folder / archive.name)
        write_json(folder / LIMITS, dict(limits))


@contextmanager
def unpacked(kept: Path, work: Path) -> Iterator[Path]:
    """Yield the tree of an archive that :func:`keep_archive` kept; it is removed at the end.

    Each process has a tree of its own: experiments in temporary folders share their repository's work folder.

    Args:
        kept: the folder with the archive.
        work: beside which the tree goes; what a killed process left there is removed.

    Raises:
        UserError: there is no such archive, or :func:`repix.data.archives.unpack` refuses it.
    """
    names = [path for path in kept.iterdir() if path.name != LIMITS]
    if len(names) != 1 or not (kept / LIMITS).is_file():
        raise UserError(f"{kept}: holds a tree of images, and limits.image_tree is false; run `dvc repro`")
    limits = _limits(kept / LIMITS)
    with scratch_folder(work) as scratch:
        archives.unpack(names[0], scratch / work.name, **limits)
        yield scratch / work.name


def _limits(path: Path) -> dict[str, float]:
    try:
        found = read_json(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); run `dvc repro`") from None
    if not isinstance(found, dict) or found.keys() != KEYS or {type(most) for most in found.values()} - {int, float}:
        raise UserError(f"{path}: not the limits that unpack writes; run `dvc repro`")
    return found
