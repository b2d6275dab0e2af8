"""Digests of large files that are known already: a data set of gigabytes is hashed once, and not by each stage."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from repix.files import digest_file, write_text

LARGE = 1 << 26  # bytes: less is hashed in less time than it takes to look it up
SETTLED = 2.0  # seconds: what changes twice within the clock's grain may keep its time


class Digests:
    """The sha256 of files, those of large ones remembered for as long as the file stays what it is.

    What a file is, is told by where it lies on the disk, its size and its two times, as git and DVC do it: of these
    the time of its last change (``ctime``) cannot be set by a program. A file that was changed a moment ago is not
    remembered. The folder may be removed at any time.

    Args:
        folder: where they are kept: a small file for each large one.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, path: str | Path) -> str:
        """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
        before = os.stat(path)
        if before.st_size < LARGE or not before.st_ino:
            return digest_file(path)
        known = self.folder / f"{before.st_dev:x}-{before.st_ino:x}"
        stamp = f"{before.st_size} {before.st_mtime_ns} {before.st_ctime_ns}"
        if (digest := _read(known, stamp)) is not None:
            return digest
        settled = time.time() - max(before.st_mtime, before.st_ctime) > SETTLED
        digest, after = digest_file(path), os.stat(path)
        if settled and (after.st_size, after.st_mtime_ns, after.st_ctime_ns, after.st_ino) == (
            before.st_size,
            before.st_mtime_ns,
            before.st_ctime_ns,
            before.st_ino,
        ):
            with suppress(OSError):  # on a disk that takes nothing it is hashed again
                write_text(known, f"{stamp} {digest}\n")
        return digest


def _read(known: Path, stamp: str) -> str | None:
    """Return the digest that a file has under this stamp; None where there is none."""
    try:
        written, _, digest = known.read_text(encoding="ascii").strip().rpartition(" ")
    except (OSError, ValueError):
        return None
    whole = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return digest if written == stamp and whole else None
