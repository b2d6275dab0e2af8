"""Notes what a Python process does outside of what it may: connections that leave the machine, writes elsewhere.

It stands on Python's audit events, so it sees Python and not native code, which ``strace``
sees (checks/network.py). As :func:`environment` it also watches all that a process starts.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG = "REPIX_WATCH_LOG"
# Event -> where in its arguments a path stands, and the descriptor of the folder that it is relative to.
_CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
}
_LOCAL = ("localhost", "ip6-localhost", "")


def is_local(host: Any) -> bool:
    """Return whether a host's name or number is this machine's loopback (or any address, to listen at)."""
    if host is None:
        return True
    name = host.decode("latin-1") if isinstance(host, bytes) else str(host)
    if name.rstrip(".").lower() in _LOCAL:
        return True
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def watch(note: Callable[[str, str], None], folders: tuple[str, ...] | None = None) -> None:
    """Call ``note(kind, what)`` for whatever this process does outside, from now on.

    Args:
        note: ``kind`` is ``connection`` or ``write``.
        folders: below which it may write; None: anywhere.
    """
    roots = None if folders is None else tuple(os.path.realpath(folder) + os.sep for folder in folders)

    def inside(path: Any, folder: int = -1) -> bool:
        if isinstance(path, int):
            return True
        name = os.fsdecode(path)
        if folder >= 0 and not os.path.isabs(name):
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        full = os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))
        return full == os.devnull or (full + os.sep).startswith(roots)

    def hook(event: str, given: tuple) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = given[1]
            if isinstance(address, tuple) and not is_local(address[0]):
                note("connection", f"{event} {address}")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            if not is_local(given[0]):
                note("connection", f"{event} {given[0]!r}")
        elif roots is not None and event == "open":
            path, mode, flags = given
            writes = any(letter in mode for letter in "wax+") if mode else (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if writes and not inside(path):
                note("write", f"open {path!r}")
        elif roots is not None and event in _CHANGES:
            for index, folder in _CHANGES[event]:
                if not inside(given[index], -1 if folder is None else given[folder]):
                    note("write", f"{event} {given[index]!r}")

    sys.addaudithook(hook)


def environment(log: Path) -> dict[str, str]:
    """Return the variables under which every Python process writes its connections outside to ``log``."""
    here = str(Path(__file__).parent / "watched")
    before = os.environ.get("PYTHONPATH")
    return {LOG: str(log), "PYTHONPATH": os.pathsep.join([here, before] if before else [here])}


def follow() -> None:
    """Watch this process, as :func:`environment` asked."""
    log = os.environ.get(LOG)
    if not log:
        return

    def note(kind: str, what: str) -> None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, f"{kind}: {what} ({' '.join(sys.argv[:3])})\n".encode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    watch(note)
