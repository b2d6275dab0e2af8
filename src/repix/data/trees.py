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
from repix.files import atomic_folder, scratch_folder
from repix.schemas import Kept

RECORD = "kept.json"


def keep_archive(archive: Path, out: Path, limits: Mapping[str, float]) -> None:
    """Put an archive, and a record of it, in the place of its tree; the archive is linked if it can be.

    Args:
        archive: what would have been unpacked.
        out: the folder, which takes the place of what was there.
        limits: the arguments of :func:`repix.data.archives.unpack`, which go along.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; run the stage that downloads it")
    with atomic_folder(out) as folder:
        try:
            os.link(archive, folder / archive.name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(archive, folder / archive.name)
        Kept(file=archive.name, **limits).write(folder / RECORD)


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
    if not (kept / RECORD).is_file():
        raise UserError(f"{kept}: holds a tree of images, and limits.image_tree is false; run `dvc repro`")
    record = Kept.read(kept / RECORD)
    with scratch_folder(work) as scratch:
        archives.unpack(kept / record.file, scratch / work.name, **record.model_dump(exclude={"file"}))
        yield scratch / work.name
