"""Let many clients translate at once, with an attack among them, at the demo and at the served model.

    python -m checks.serving                          # 15 seconds each
    python -m checks.serving --minutes 4 --write      # the figures of docs/trust.md

Fifty clients send a sound picture again and again. In the second half of the time an attack
goes on beside them: connections that say nothing or drip, large uploads, small files of many
pixels, damaged ones, foreign origins. Required: no 5xx for a client, memory of all processes
of the server together below 1.5 GB, and at the end as many answers right as at the beginning.
Prints answers, 5xx, latency and memory; exit code 1 where something is not kept.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import random
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from checks.harness import table, write
from checks.support import attacks, servers

CLIENTS = 50
MEMORY_MB = 1500
LATE_SECONDS = 10.0


class Clients:
    """Threads that ask, and what they were answered."""

    def __init__(self, server: servers.Running):
        self.server, self.body, self.over = server, server.picture(), threading.Event()
        self.right = server.ask(self.body, "image/png" if server.kind == "demo" else "application/json")[1]
        self.answers: Counter[str] = Counter()
        self.times: list[float] = []
        self._lock = threading.Lock()

    def ask(self) -> None:
        """Ask until it is over."""
        kind = "image/png" if self.server.kind == "demo" else "application/json"
        while not self.over.is_set():
            begun = time.perf_counter()
            try:
                status, body = self.server.ask(self.body, kind)
                told = str(status) if status != 200 else "right" if body == self.right else "wrong"
            except OSError as error:
                told = type(error).__name__
            with self._lock:
                self.answers[told] += 1
                self.times.append(time.perf_counter() - begun)


@functools.cache
def many_pixels() -> bytes:
    """Return a sound PNG of 0.6 MB and 49 million pixels."""
    return attacks.png(7000, 7000, body=zlib.compress(bytes((7000 * 3 + 1) * 7000), 1))


def attack(server: servers.Running, over: threading.Event, seed: int) -> None:
    """Do harm until it is over: one of a few kinds at a time."""
    chance = random.Random(seed)
    idle: list[socket.socket] = []
    fit = server.address.replace("/translate", "/fit")
    while not over.is_set():
        kind = chance.choice(("idle", "drip", "large", "pixels", "damaged", "origin"))
        with contextlib.suppress(OSError):
            if kind in ("idle", "drip"):
                one = socket.create_connection(("127.0.0.1", server.port), timeout=5)
                idle.append(one)
                if kind == "drip":
                    one.sendall(f"POST {fit} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\nx".encode())
                if len(idle) > 40:
                    idle.pop(0).close()
            elif kind == "origin":
                with socket.create_connection(("127.0.0.1", server.port), timeout=5) as one:
                    one.sendall(b"GET / HTTP/1.1\r\nHost: elsewhere\r\nOrigin: http://elsewhere\r\n\r\n")
                    one.recv(1000)
            else:
                body = {
                    "large": lambda: bytes(20_000_000),
                    "pixels": many_pixels,
                    "damaged": lambda: attacks.damage(servers.picture(server.export.crop_size), chance)[1],
                }[kind]()
                if server.kind == "served":
                    body = servers.rows(base64.b64encode(body).decode())
                    server.ask(body, "application/json")
                else:
                    server.ask(body, "image/png", fit)
    for one in idle:
        one.close()


def tried(kind: str, root: Path, seconds: float, attackers: int) -> dict[str, Any]:
    """Return what a server did for ``seconds``, the second half of them under attack."""
    many_pixels()
    with servers.running(kind, root) as server:
        clients = Clients(server)
        calm = server.peak_mb()
        threads = [threading.Thread(target=clients.ask, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        before = dict(clients.answers), len(clients.times)
        harm = [threading.Thread(target=attack, args=(server, clients.over, i), daemon=True) for i in range(attackers)]
        for thread in harm:
            thread.start()
        time.sleep(seconds / 2)
        clients.over.set()
        for thread in [*threads, *harm]:
            thread.join(LATE_SECONDS * 6)
        peak = server.peak_mb()
        after = server.ask(clients.body, "image/png" if kind == "demo" else "application/json")
        log = server.log.read_text(errors="replace")
    quiet, loud = (
        np.array(times or [np.nan]) * 1000 for times in (clients.times[: before[1]], clients.times[before[1] :])
    )
    return {
        "server": kind,
        "answers": len(clients.times),
        "right": clients.answers["right"],
        "5xx": sum(count for told, count in clients.answers.items() if told.startswith("5")),
        "other": {
            told: count for told, count in clients.answers.items() if told != "right" and not told.startswith("5")
        },
        "p50": float(np.percentile(quiet, 50)),
        "p99": float(np.percentile(quiet, 99)),
        "p50 attacked": float(np.percentile(loud, 50)),
        "p99 attacked": float(np.percentile(loud, 99)),
        "calm MB": calm,
        "peak MB": peak,
        "sound": after == (200, clients.right) and (kind != "demo" or "Traceback" not in log),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1 / 4, help="for each server (default: 15 seconds)")
    parser.add_argument("--attackers", type=int, default=8)
    parser.add_argument("--only", choices=("demo", "served"), action="append")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = servers.repository(Path(folder))
        found = [tried(kind, root, given.minutes * 60, given.attackers) for kind in given.only or ("demo", "served")]
    bad = []
    for one in found:
        if one["5xx"] or one["other"]:
            bad.append(f"{one['server']}: {one['5xx']} answers were 5xx, and others were not right: {one['other']}")
        if one["peak MB"] > MEMORY_MB:
            bad.append(f"{one['server']}: {one['peak MB']:.0f} MB")
        if not one["sound"]:
            bad.append(f"{one['server']}: afterwards it does not answer as before, or it logged a traceback")
    head = [
        "server",
        "answers",
        "right",
        "5xx",
        "p50, ms",
        "p99, ms",
        "p50 under attack",
        "p99 under attack",
        "MB at first",
        "MB at most",
    ]
    rows = [
        [one["server"], one["answers"], one["right"], one["5xx"], *(round(one[key]) for key in (
            "p50", "p99", "p50 attacked", "p99 attacked", "calm MB", "peak MB"))]
        for one in found
    ]  # fmt: skip
    text = table(head, rows)
    print(text)
    print("\n".join(bad), file=sys.stderr)
    if given.write:
        write("trust", "serving", f"\n{text}\n\n{CLIENTS} clients, {given.minutes:g} minutes each.\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
