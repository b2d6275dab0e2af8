"""Files that are never half-written, and digests that mean the same everywhere."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from repix.errors import UserError

CHUNK_BYTES = 1 << 20
SAY_SECONDS = 1.0  # how long a wait for a lock goes without a word
LOOK_SECONDS = 0.25  # how long who lists a replaced folder has left to finish before it is deleted


def _sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (POSIX; a no-op elsewhere)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_PROC = (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError)


def process_name(pid: int) -> str | None:
    """Return a name that no other process of this machine has had or will have, None if it does not run.

    A number alone is used again: boot and start time tell two processes of one number apart.
    Where there is no /proc, the number has to do.

    Raises:
        OSError: it cannot be told now, as where this process has no descriptor left.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # another user's, but it runs
    except OSError:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if stat[0] == "Z" else f"{pid}-{_boot()}-{stat[19]}"
    except _NO_PROC:
        return str(pid)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except _NO_PROC:
        return ""


def _host() -> str:
    """Return what tells apart machines, and containers of one machine, that see each other's files."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return digest_text(f"{platform.node()} {space}")[:8]


_COUNT = itertools.count()
_NAME_BYTES = 160  # of a name that a temporary one begins with
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-((\d+)(?:-([0-9a-f]{8})-\d+)?)-\d+\.tmp(?:\.[^.]+)?")


def _temporary(path: Path, name: str, suffix: str = "") -> Path:
    """Return a name beside ``path`` that tells who writes there, see :func:`clear_leftovers`."""
    who = f"{_host()}-{process_name(os.getpid())}-{next(_COUNT)}.tmp{suffix}"
    return path.with_name(f".{_shortened(name)}.{who}")


def _shortened(name: str) -> str:
    """Return a name, or its beginning where it would leave no room for who writes there: a disk takes 255 bytes."""
    raw = os.fsencode(name)
    return name if len(raw) <= _NAME_BYTES else raw[:_NAME_BYTES].decode(errors="ignore")


def clear_leftovers(folder: str | Path, name: str | None = None, *, alone: bool = False) -> None:
    """Remove the temporary files and folders that killed processes left in ``folder``.

    Those of running processes are not touched, and none of another machine or container: on
    a shared file system nothing here tells whether their writers live.

    Args:
        folder: where :func:`atomic_path` or :func:`atomic_folder` writes.
        name: only those of this file (without its suffix) or folder.
        alone: whether the caller holds the lock of ``name``, so that no other process of this
            machine can be writing it, in whichever container.
    """
    for path in Path(folder).glob(".*.tmp*"):
        match = _TEMPORARY.fullmatch(path.name)
        if not match or (name is not None and _shortened(name) != match[1]):
            continue
        _, host, writer, pid, boot = match.groups()
        gone = host == _host() and process_name(int(pid)) != writer
        if gone or (alone and boot is not None and boot == _boot()):
            remove(path)


class Visits:
    """Counts how often links lead to each folder: folders of two links to the next are 2**n ways through n of them."""

    MOST = 100

    def __init__(self) -> None:
        self._times: Counter[Path] = Counter()

    def count(self, path: Path, real: Path) -> None:
        """Count a visit of the folder ``real`` by the name ``path``.

        Raises:
            UserError: it was visited too often.
        """
        self._times[real] += 1
        if self._times[real] > self.MOST:
            raise UserError(f"{path}: links lead to this folder in more than {self.MOST} ways; remove some of them")


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; what is not there, or cannot be removed, is left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(
    path: str | Path, what: str, *, seconds: float = math.inf, asked: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold ``path`` as a lock against other processes; one that waits says so in one line.

    The lock ends with the process, however that ends, and the file goes with it. Where system
    or file system knows no locks there is none, and the body runs all the same.

    Args:
        path: the lock's file; its folder is made where missing.
        what: what the lock is for, as the line on standard error names it.
        seconds: how long to wait for another process.
        asked: called while it waits; what it raises ends the wait.

    Raises:
        TimeoutError: another process holds it for longer than that.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    began, said = time.monotonic(), False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder removed the file when it was done: then this is the lock of nothing.
            if _is_same(descriptor, path):
                break
        except BlockingIOError:
            try:
                asked()
                waited = time.monotonic() - began
                if waited > seconds:
                    raise TimeoutError(f"another process holds {path}") from None
                if waited > SAY_SECONDS and not said:
                    holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
                    print(f"repix: waiting for {holder or 'another process'}, which is at {what}", file=sys.stderr)
                    said = True
                time.sleep(0.05)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError:  # this file system has no locks
            break
        os.close(descriptor)
    try:
        with suppress(OSError):  # a full disk: who waits is told less
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed onto it.

    If the body raises, the temporary file is removed and ``path`` is what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept at the end, since writers (Pillow, numpy) choose a format by it.
    temporary = _temporary(path, path.stem, path.suffix)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, which is removed at the end; a killed process's by the next."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent, path.name)
    temporary = _temporary(path, path.name)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        remove(temporary)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of ``path``.

    Use it for a stage's out: a stage that fails or is killed leaves no folder that looks
    finished, and what a killed one left is removed by the next. A previous folder at
    ``path`` is replaced in one step: who looks there sees the whole old one or the whole new
    one. Where the system cannot exchange two names, ``path`` is absent for a moment, and a
    kill in that moment leaves the old one to be put back by the next. Two processes that
    write one folder take turns.
    """
    path = Path(path)
    with locked(path.with_name(f".{path.name}.lock"), path.as_posix()):
        aside = path.with_name(f".{path.name}.old")
        if os.path.lexists(aside):
            if os.path.lexists(path):
                remove(aside)
            else:
                os.replace(aside, path)
        clear_leftovers(path.parent, path.name, alone=True)
        with scratch_folder(path) as temporary:
            yield temporary
            if os.name == "posix":
                os.sync()  # one call for all files: a call for each takes minutes on a slow disk
            if not os.path.lexists(path):
                os.replace(temporary, path)
            elif _exchange(temporary, path):
                _sync_directory(path.parent)
                time.sleep(LOOK_SECONDS)
            else:
                os.replace(path, aside)
                os.replace(temporary, path)
                _sync_directory(path.parent)
                time.sleep(LOOK_SECONDS)
                remove(aside)
            _sync_directory(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2  # Linux; Python has no function for it
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


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


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nests deeper than Python follows.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file written by :func:`write_json`; raises as :func:`parse_json` does."""
    return parse_json(Path(path).read_text(encoding="utf-8"))


def digest_text(text: str) -> str:
    """Return the sha256 of ``text`` (UTF-8) as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_tree(folder: str | Path, of: Callable[[Path], str] = digest_file) -> str:
    """Return one sha256 for a file or for all files below a folder.

    For a folder it covers relative paths (with ``/``) and bytes, nothing else: not times,
    owners or modes, which differ between machines that hold the same data.

    Args:
        folder: a file, or a folder.
        of: returns the sha256 of a file.
    """
    folder = Path(folder)
    if folder.is_file():
        return of(folder)
    entries = {
        path.relative_to(folder).as_posix(): of(path)
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
