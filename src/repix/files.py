"""Files that are never half-written, and digests that mean the same everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def _sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (POSIX; a no-op elsewhere)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody else's
        return False
    return process == os.getpid()  # a number given anew: the caller has nothing under way yet


def clear_leftovers(folder: str | Path, name: str | None = None) -> None:
    """Remove the temporary files and folders that killed processes left in ``folder``.

    To be called before anything is written there: a finished write leaves none, and those
    of other running processes are not touched.

    Args:
        folder: where :func:`atomic_path` or :func:`atomic_folder` writes.
        name: only those of this file (without its suffix) or folder.
    """
    for path in Path(folder).glob(".*.tmp*"):
        match = re.fullmatch(r"\.(.+)\.(\d+)\.tmp(\.[^.]+)?", path.name)
        if match and name in (None, match[1]) and _is_gone(int(match[2])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed onto it.

    If the body raises, the temporary file is removed and ``path`` is what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept at the end, since writers (Pillow, numpy) choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of ``path``.

    Use it for a stage's out: a stage that fails or is killed leaves no folder that looks
    finished, and what a killed one left is removed by the next. A previous folder at
    ``path`` is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    clear_leftovers(path.parent, path.name)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix newlines, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value`` that digests are taken of.

    Keys sorted, no white space, ASCII only, NaN and infinity refused.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` for people and diffs: sorted keys, two spaces, newline at the end."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        # Piece by piece: the pieces of a large manifest take many times the memory of its text.
        json.dump(value, stream, sort_keys=True, indent=2, allow_nan=False)
        stream.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest_text(text: str) -> str:
    """Return the sha256 of ``text`` (UTF-8) as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_tree(folder: str | Path) -> str:
    """Return one sha256 for a file or for all files below a folder.

    For a folder it covers relative paths (with ``/``) and bytes, nothing else: not times,
    owners or modes, which differ between machines that hold the same data.
    """
    folder = Path(folder)
    if folder.is_file():
        return digest_file(folder)
    entries = {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return digest_text(canonical_json(entries))


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """Return the canonical sha256 of named arrays.

    It covers, in the order of the names: name, dtype, shape and the little-endian bytes
    in C order. The container (npz, h5, .keras) and the machine's byte order play no part,
    so equal weights have equal digests wherever they are stored.

    Args:
        arrays: name -> array-like of numbers or booleans.
    """
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        head = [name, little.dtype.str.replace("|", "<"), list(little.shape)]
        digest.update(canonical_json(head).encode())
        digest.update(little.tobytes() if little.ndim == 0 else memoryview(little).cast("B") if little.size else b"")
    return digest.hexdigest()
