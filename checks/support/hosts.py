"""Two hosts made of network namespaces, with a wire between them and addresses of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

ADDRESSES = ("10.77.31.1", "10.77.31.2")


@contextlib.contextmanager
def two_hosts() -> Iterator[list[str] | None]:
    """Yield the names of two network namespaces with a wire between them; None where they cannot be made."""
    names = [f"repix-{os.getpid()}-{number}" for number in range(2)]
    ends_of_wire = [f"rx{os.getpid() % 100000}{side}" for side in "ab"]
    if os.geteuid() or shutil.which("ip") is None:
        yield None
        return

    def ip(*words: str) -> int:
        return subprocess.run(["ip", *words], capture_output=True).returncode

    try:
        made = [ip("netns", "add", name) for name in names]
        made.append(ip("link", "add", ends_of_wire[0], "type", "veth", "peer", "name", ends_of_wire[1]))
        for name, end, address in zip(names, ends_of_wire, ADDRESSES, strict=True):
            made.append(ip("link", "set", end, "netns", name))
            made.append(ip("-n", name, "address", "add", f"{address}/24", "dev", end))
            made += [ip("-n", name, "link", "set", each, "up") for each in (end, "lo")]
        yield None if any(made) else names
    finally:
        for name in names:
            ip("netns", "delete", name)


def on_host(name: str, command: list[str]) -> list[str]:
    """Return a command that runs another one on a host of :func:`two_hosts`."""
    return ["ip", "netns", "exec", name, *command]


def processes_of(name: str) -> list[int]:
    """Return the processes of a host."""
    said = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    return [int(line) for line in said.stdout.split()]
