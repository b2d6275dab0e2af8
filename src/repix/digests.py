"""Digests of large files that are known already: a data set of gigabytes is hashed once, and not by each stage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from repix.files import digest_file, digest_text, write_text

LARGE = 1 << 26  # bytes: less is hashed in less time than it takes to look it up
SETTLED = 2.0  # seconds: what changes twice within the clock's grain may keep its time


class Digests:
    """The sha256 of files, those of large ones and of folders remembered for as long as they stay what they are.

    What a file is, is told by where it lies on the disk, its size and its two times, as git and DVC do it: of these
    the time of its last change (``ctime``) cannot be set by a program. A file that was changed a moment ago is not
    remembered. The folder may be removed at any time.

    Args:
        folder: where they are kept: a small file for each large one, and each folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, path: str | Path) -> str:
        """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
        found = os.stat(path)
        if found.st_size < LARGE or not found.st_ino:
            return digest_file(path)
        return self._remembered(found, lambda: stamp([path]), lambda: digest_file(path))

    def of_folder(self, folder: Path, below: Callable[[], Iterable[Path]], digest: Callable[[], str]) -> str:
        """Return a digest of a folder, made by ``digest`` once for as long as nothing of it changes.

        Args:
            folder: the folder.
            below: returns the files and folders that the digest is of.
        """
        return self._remembered(os.stat(folder), lambda: stamp(below()), digest)

    def _remembered(
        self, found: os.stat_result, look: Callable[[], tuple[str, float]], digest: Callable[[], str]
    ) -> str:
        known = self.folder / f"{found.st_dev:x}-{found.st_ino:x}"
        before, changed = look()
        if (told := _read(known, before)) is not None:
            return told
        settled = time.time() - changed > SETTLED
        made = digest()
        if settled and look()[0] == before:
            with suppress(OSError):  # on a disk that takes nothing it is hashed again
                write_text(known, f"{before} {made}\n")
        return made


def stamp(paths: Iterable[str | Path]) -> tuple[str, float]:
    """Return what tells that files are the same as before, and when the last of them changed (seconds since 1970)."""
    stats = [os.stat(path) for path in paths]
    lines = [f"{one.st_ino} {one.st_size} {one.st_mtime_ns} {one.st_ctime_ns}" for one in stats]
    newest = max((max(one.st_mtime, one.st_ctime) for one in stats), default=0.0)
    return digest_text("\n".join(lines)), newest


def _read(known: Path, stamp: str) -> str | None:
    """Return the digest that a file has under this stamp; None where there is none."""
    try:
        written, _, digest = known.read_text(encoding="ascii").strip().rpartition(" ")
    except (OSError, ValueError):
        return None
    whole = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return digest if written == stamp and whole else None
