"""Pack a folder of one's own as a tar that follows from its files alone: equal names and bytes, equal archive."""

from __future__ import annotations

import hashlib
import os
import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from repix.errors import UserError
from repix.files import CHUNK_BYTES, Visits


def entries(folder: Path, folders: list[Path] | None = None) -> Iterator[tuple[str, Path]]:
    """Yield the name in the archive and the path of each file below a folder, in no order.

    Links are followed, since the files are one's own. Hidden files and the leavings of macOS are no part of a set.

    Args:
        folder: where to look.
        folders: each folder that was looked into is added to this list, an empty one too.

    Raises:
        UserError: a link that leads to nothing, or back to a folder that holds it, or links that multiply it.
    """
    waiting, visits = [(folder, "", (folder.resolve(),))], Visits()
    while waiting:
        place, prefix, above = waiting.pop()
        if folders is not None:
            folders.append(place)
        with os.scandir(place) as found:
            for entry in found:
                if entry.name[0] == "." or entry.name == "__MACOSX":
                    continue
                name, path = unicodedata.normalize("NFC", prefix + entry.name), Path(entry.path)
                if entry.is_dir():
                    real = path.resolve()
                    if real in above:
                        raise UserError(f"{path}: a link to a folder that holds it; remove it")
                    visits.count(path, real)
                    waiting.append((path, f"{name}/", (*above, real)))
                elif entry.is_file():
                    yield name, path
                elif entry.is_symlink():
                    raise UserError(f"{path}: a link to nothing; remove it, or bring back what it leads to")
                else:
                    raise UserError(f"{path}: is no plain file; remove it")


def write_tar(folder: Path, stream: BinaryIO) -> None:
    """Write a folder's files as a plain tar, in the order of their names; owner, group and time are 0, modes 0644.

    Raises:
        UserError: a file changed while it was read: half of it would be old, or missing.
    """
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK_BYTES) as tar:
        for name, path in sorted(entries(folder)):
            with open(path, "rb") as file:
                header = tarfile.TarInfo(name)
                before = os.fstat(file.fileno())
                header.size = before.st_size
                try:
                    tar.addfile(header, file)
                    after = os.fstat(file.fileno())
                    whole = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    whole = False  # it became shorter, as tarfile says without a number
                if not whole:
                    raise UserError(f"{path}: changed while it was read; run the same command when nobody writes it")
            tar.members.clear()


class _Digest:
    """A stream that keeps the sha256 of what is written to it."""

    def __init__(self) -> None:
        self.sha256, self._position = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position


def digest(folder: Path) -> str:
    """Return the sha256 of the archive that :func:`write_tar` writes of a folder, without writing it."""
    stream = _Digest()
    write_tar(folder, stream)
    return stream.sha256.hexdigest()


def below(folder: Path) -> list[Path]:
    """Return the files of a folder that are packed, and the folders: what comes, goes or is renamed changes these."""
    folders: list[Path] = []
    paths = [path for _, path in entries(folder, folders)]
    return [*folders, *paths]
