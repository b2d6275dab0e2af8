"""Give repix what a stranger might send, and count what must never happen.

    python -m checks.hostile                  # a few hundred of each kind: a minute
    python -m checks.hostile --full --write   # the figures of docs/trust.md
    python -m checks.hostile --only archives --n 2000 --seed 7

Archives, images, HDF5 files, records and checkpoints, answers of web servers, and requests to
the demo and to the served model: sound ones, damaged ones, and ones made to do harm. A seed and a number name
each of them (``--case archives 17`` runs one, in the open). They are tried in processes of their own,
with a limit on memory, and with a watch on each: every one must be accepted rightly, or
refused in one line, within 10 seconds and 1 GB, and leave nothing outside its folder.
Prints a table and, for whatever happened that must not, the cases; exit code 1 then.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from checks.harness import own_peak, table, write
from repix.errors import UserError

HANG_SECONDS = 10.0
MEMORY_MB = 1000.0
ADDRESS_BYTES = 12 << 30
KINDS = {
    "archives": (300, 10_000),
    "images": (150, 5_000),
    "hdf5": (300, 5_000),
    "records": (300, 1_000),
    "urls": (60, 200),
    "demo": (200, 2_000),
    "served": (100, 2_000),
}
"""Kind -> how many are tried by default, and by ``--full``."""

SERVERS = ("demo", "served")
BAD = ("traceback", "wrong", "hang", "memory", "write", "connection")
HEADINGS = {
    "traceback": "traceback or crash",
    "wrong": "wrongly accepted",
    "hang": f"over {HANG_SECONDS:.0f} s",
    "memory": "over 1 GB",
    "write": "write outside",
    "connection": "connection outside",
}


def chance_of(seed: int, kind: str, number: int) -> random.Random:
    """Return the generator that makes a case."""
    return random.Random(f"{seed}-{kind}-{number}")


# --- one case of each kind: what came of it, ("refused" | "accepted" | "wrong", what was said)


def tree_of(folder: Path) -> dict[str, bytes]:
    """Return path -> bytes of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def try_archive(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Unpack an archive; nothing but its own folder may change."""
    from checks.support import attacks
    from repix.data.archives import unpack

    case = attacks.archive(chance)
    path, out = folder / f"a{case.suffix}", folder / "out"
    path.write_bytes(case.data)
    try:
        unpack(path, out, **attacks.LIMITS)
    except UserError as error:
        if out.exists():
            return case.label, "wrong", "it was refused, and something was unpacked"
        return case.label, "wrong" if case.expected == "accept" else "refused", str(error)
    found = tree_of(out)
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in out.rglob("*")):
        return case.label, "wrong", "something that is neither file nor folder was written"
    if case.expected == "names":
        right = {name: len(data) for name, data in found.items()} == {k: len(v) for k, v in case.original.items()}
        # Without the whole block that is the header of an empty file, a tar is a tar without that file.
        right |= case.whole and {**found, "set/empty": b""}.keys() == case.original.keys()
    else:
        right = case.expected in ("same", "accept") and found == case.original
    return case.label, "accepted" if right else "wrong", ", ".join(sorted(found))


def try_image(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Decode an image, within the pixels that params.yaml allows by default, and read its size."""
    from checks.support import attacks
    from repix.config.limits import Limits
    from repix.data import images

    case = attacks.image(chance)
    path = folder / f"a{case.suffix}"
    path.write_bytes(case.data)
    try:
        pixels = images.decode(path, images.Limit(Limits().pixels, "make it smaller")).pixels
    except UserError as error:
        with contextlib.suppress(UserError):
            images.size(path)
        return case.label, "wrong" if case.expected == "accept" else "refused", str(error)
    orderly = pixels.ndim == 3 and pixels.dtype in (np.uint8, np.uint16) and images.size(path) == pixels.shape[:2]
    right = orderly and case.expected != "refuse"
    if case.expected == "accept":
        right = np.array_equal(pixels, case.original)
    return case.label, "accepted" if right else "wrong", f"{pixels.dtype} {pixels.shape}"


def try_hdf5(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Read the shape and all rows of an HDF5 file."""
    from checks.support import attacks
    from repix.data import hdf5

    case = attacks.hdf5(chance)
    path = folder / "a.h5"
    path.write_bytes(case.data)
    try:
        shape = hdf5.shape(path)
        rows = np.stack([hdf5.read_row(path, row) for row in range(min(shape[0], 5))]) if shape[0] else np.empty(shape)
    except (UserError, OSError) as error:  # OSError: a damaged row, as read_row says
        return case.label, "wrong" if case.expected == "accept" else "refused", str(error)
    right = rows.shape[1:] == shape[1:] and case.expected != "refuse"
    if case.expected == "accept":
        right = np.array_equal(rows, case.original)
    return case.label, "accepted" if right else "wrong", str(shape)


def try_record(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Read a JSON record, or go on from a checkpoint."""
    from checks.support import attacks
    from repix import schemas
    from repix.files import digest_arrays
    from repix.provenance import lock
    from repix.training.checkpoint import Checkpoints

    case = attacks.record(chance)
    if case.suffix == ".npz":
        path = folder / "run" / "step-000000007.npz"
        path.parent.mkdir()
        path.write_bytes(case.data)
        with contextlib.redirect_stderr(open(folder / "said", "w+")) as said:
            found = Checkpoints(folder, "run").resume()
            said.seek(0)
            line = said.read()
            said.close()
        if found is None:
            return case.label, "wrong" if case.expected == "accept" else "refused", line
        right = (
            case.original is not None
            and found.step == 7
            and digest_arrays(found.arrays) == digest_arrays(case.original)
        )
        return case.label, "accepted" if right else "wrong", str(sorted(found.arrays))
    path = folder / (lock.FILE if case.suffix == lock.FILE else "a.json")
    path.write_bytes(case.data)
    if case.suffix == lock.FILE:
        try:
            entries = lock.read(folder)
        except UserError as error:
            return case.label, "wrong" if case.expected == "accept" else "refused", str(error)
        lock.digest(entries)
        found = [one for entry in entries.values() for one in lock.causes("x", {}, entry)]
        return case.label, "accepted", ", ".join(map(str, found))
    kind = getattr(schemas, case.suffix)
    try:
        record = kind.read(path)
    except UserError as error:
        return case.label, "wrong" if case.expected == "accept" else "refused", str(error)
    # What was taken can be written, and read again as the same.
    record.write(folder / "b.json")
    right = kind.read(folder / "b.json") == record
    return case.label, "accepted" if right else "wrong", ""


class Mirror:
    """A web server on loopback that answers every connection with what it is told to."""

    def __init__(self) -> None:
        self.parts: tuple[bytes, ...] = ()
        self.again, self.pause = False, 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        parts, again, pause = self.parts, self.again, self.pause
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while again:
                connection.sendall(parts[-1])
                time.sleep(pause)


_mirror: list[Mirror] = []


def try_url(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Fetch from an odd address, or from a server that lies."""
    import hashlib

    from checks.support import attacks
    from repix.data import sources

    if not _mirror:
        _mirror.append(Mirror())
        sources.LOWEST_RATE = 10**6  # so that slow ones are told apart in a second
    mirror = _mirror[0]
    body = attacks._sound_archives()["tar.gz"]
    ok = b"HTTP/1.1 200 OK\r\n"
    port, digest = mirror.port, hashlib.sha256(body).hexdigest()
    here = f"http://127.0.0.1:{port}/a.tar.gz"
    secret = f"s3cr3t{chance.getrandbits(32)}"
    mirror.again, mirror.pause, mirror.parts = False, 0.0, (ok + b"Content-Length: %d\r\n\r\n" % len(body) + body,)
    kind = chance.choice(("sound", "damaged answer", "damaged file", "address", "redirect", "length", "drip",
    "continue",
                          "headers", "status", "chunks", "page", "large"))  # fmt: skip
    urls, pinned = [here], chance.random() < 0.5
    if kind == "damaged answer":
        mirror.parts = (attacks.damage(ok + b'Content-Length: %d\r\nETag: "x"\r\n\r\n' % len(body) + body, chance)[1],)
        pinned = True
    elif kind == "damaged file":
        wrong = attacks.damage(body, chance)[1]
        mirror.parts, pinned = (ok + b"Content-Length: %d\r\n\r\n" % len(wrong) + wrong,), True
    elif kind == "address":
        urls = [chance.choice((
            f"http://user:{secret}@127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/a?token={secret}", "http://a..b/x", "http://[::1/x",
            "http://127.0.0.1:99999/x", "http://127.0.0.1:x/x", "ftp://127.0.0.1/x", "javascript:alert(1)",
            "http:///x", "", ":", "a",
            "file://elsewhere/etc/passwd", "file:/etc", "file:/nowhere", "file:/dev/zero/x", "synthetic:",
            "synthetic:../x?a=b",
            "synthetic:facades?size=" + "9" * 50, "http://127.0.0.1:1/x", "http://" + "a" * 300 + "/x", "http://\x00/",
            "http://127.0.0.1\r\nX: y/",
            f"http://127.0.0.1:{port}/a?key=$NO_SUCH_{chance.getrandbits(20)}", "https://127.0.0.1:" + str(port) + "/x",
        ))]  # fmt: skip
    elif kind == "redirect":
        to = chance.choice((here.encode(), b"http://[bad/", b"file:///etc/passwd", b"http://a..b/", b"//", b"", b"http://127.0.0.1:99999/",
                            b"\xff\xfe", b"gopher://127.0.0.1/", b"http://" + b"a" * 300))  # fmt: skip
        mirror.parts = (b"HTTP/1.1 302 Found\r\nLocation: " + to + b"\r\nContent-Length: 0\r\n\r\n",)
    elif kind == "length":
        length = chance.choice(
            (b"banana", b"-5", b"9" * 4000, b"1", b"99999999999", b"5\r\nContent-Length: 6", b"0x10", b"")
        )
        mirror.parts, pinned = (ok + b"Content-Length: " + length + b"\r\n\r\n" + body,), True
    elif kind in ("drip", "continue"):
        mirror.again, mirror.pause = True, 0.05
        mirror.parts = (
            (ok + b"Content-Length: 1000000\r\n\r\n", b"\x1f")
            if kind == "drip"
            else (b"HTTP/1.1 100 Continue\r\n\r\n",)
        )
    elif kind == "headers":
        mirror.again, mirror.parts = True, (ok, b"X: " + b"y" * 60_000 + b"\r\n")
    elif kind == "status":
        mirror.parts = (
            b"HTTP/1.1 %d \x1b[31mNo\r\nRetry-After: 99999\r\nContent-Length: 0\r\n\r\n" % chance.randrange(100, 1000),
        )
        pinned = True
    elif kind == "chunks":
        size = chance.choice((b"banana", b"f" * 4000, b"-1", b"ffffffffffffffff", b""))
        mirror.parts, pinned = (ok + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + body,), True
    elif kind == "page":
        mirror.parts = (ok + b"Content-Length: 3000\r\n\r\n" + b"<!doctype html>".ljust(3000),)
    elif kind == "large":
        mirror.parts, mirror.again = (ok + b"\r\n" + body, chance.randbytes(60_000)), True
    kept = {"dataset": "toy", "max_bytes": 2_000_000, "work": folder / "work", "attempts": 2, "timeout": (1.0, 0.5)}
    try:
        found = sources.fetch(urls, digest if pinned else None, folder / "out", sleep=lambda _: None, **kept)
    except UserError as error:
        said = str(error)
        if (folder / "out").exists():
            return kind, "wrong", "it was refused, and something lies there"
        if secret in said or not said.isprintable():
            return kind, "wrong", f"it repeats a secret, or what is not printable: {said!a}"
        return kind, "wrong" if kind == "sound" else "refused", said
    right = found.sha256 == digest and (folder / "out" / found.file).read_bytes() == body
    return kind, "accepted" if right else "wrong", found.sha256


TRIED: dict[str, Callable[[random.Random, Path], tuple[str, str, str]]] = {
    "archives": try_archive,
    "images": try_image,
    "hdf5": try_hdf5,
    "records": try_record,
    "urls": try_url,
}


# --- the process that tries them


def _peak_mb(reset: int | None = None) -> float:
    """Return the peak of resident memory since it was last reset (Linux; elsewhere of the process).

    Args:
        reset: a descriptor of ``/proc/self/clear_refs``: begin anew.
    """
    with contextlib.suppress(OSError):
        if reset is not None:
            os.write(reset, b"5")
    return own_peak() * 1e9 / 2**20


def work(kind: str, seed: int, numbers: range, folder: Path) -> None:
    """Try cases, telling each before and after on standard output."""
    import traceback

    from checks.support import attacks, watch

    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.sync = lambda: None  # whether bytes outlive a power cut is not what is tried here
    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    noted: list[tuple[str, str]] = []
    try_one = TRIED[kind]
    for make in attacks.WARM[kind]:
        make()
    with contextlib.suppress(Exception):
        warm = folder / "warm"
        warm.mkdir()
        try_one(chance_of(seed, kind, -1), warm)
    reset = None
    with contextlib.suppress(OSError):
        reset = os.open("/proc/self/clear_refs", os.O_WRONLY)
    watch.watch(lambda *what: noted.append(what), (str(folder),))
    for number in numbers:
        print(json.dumps({"start": number}), file=told, flush=True)
        place = folder / f"{number}"
        place.mkdir()
        noted.clear()
        base = _peak_mb(reset)
        begun = time.monotonic()
        label = "?"
        try:
            label, outcome, said = try_one(chance_of(seed, kind, number), place)
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome, said = "traceback", f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
        row = {
            "number": number,
            "label": label,
            "outcome": outcome,
            "said": said[:400],
            "seconds": time.monotonic() - begun,
            "mb": _peak_mb() - base,
            "noted": list(noted),
        }
        print(json.dumps(row), file=told, flush=True)
        shutil.rmtree(place, ignore_errors=True)


def tried(kind: str, seed: int, count: int, batch: int = 500) -> list[dict[str, Any]]:
    """Try ``count`` cases in processes; one that dies or hangs is replaced, and goes on behind the case."""
    rows, next_one = [], 0
    # In memory where there is such a place: thousands of small files are made and removed.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    while next_one < count:
        until = min(count, next_one + batch)
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            command = [
                sys.executable,
                "-m",
                "checks.hostile",
                "--work",
                kind,
                str(seed),
                str(next_one),
                str(until),
                folder,
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                started, lines = None, b""
                while True:
                    # Before the first case, it imports.
                    ready, _, _ = select.select([process.stdout], [], [], 120 if started is None else HANG_SECONDS + 5)
                    data = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
                    if not data:
                        break
                    *whole, lines = (lines + data).split(b"\n")
                    for line in whole:
                        row = json.loads(line)
                        if "start" in row:
                            started = row["start"]
                        else:
                            rows.append(row)
                            next_one = row["number"] + 1
                hung = not ready
                process.kill()
                code = process.wait()
            if next_one < until:
                if started is None:
                    raise UserError(f"the process that tries {kind} does not start (exit code {code})")
                rows.append(
                    {
                        "number": started, "label": "?", "outcome": "hang" if hung else "traceback", "seconds": 0.0,
                        "mb": 0.0,
                        "said": "no end" if hung else f"the process died ({code})", "noted": [],
                    }
                )  # fmt: skip
                next_one = started + 1
    return rows


# --- requests to servers


def _http(chance: random.Random, address: str, body: bytes, kind: str) -> tuple[str, bytes]:
    """Return a label and the bytes of a request that breaks HTTP, or nearly."""
    from checks.support import attacks

    head = f"POST {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    sound = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    what = chance.choice(("damaged", "method", "address", "length", "chunks", "header", "version", "host"))
    if what == "damaged":
        return what, attacks.damage(sound, chance)[1]
    if what == "method":
        method = chance.choice((b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"HEAD", b"\x00", b"X" * 5000, b"get"))
        return what, method + sound[4:]
    if what == "address":
        place = chance.choice((b"/../../etc/passwd", b"//", b"/%00", b"/static/../app.py", b"/static/%2e%2e/app.py",
        b"*", b"http://elsewhere/",
                               b"/models/..%2f..%2f/source_to_target/card", b"/" + b"a" * 70_000, b"/\xff\xfe",
                               b"/models/a/b/examples/99999999999999999999/source"))  # fmt: skip
        return what, b"GET " + place + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    if what == "length":
        length = chance.choice((b"-1", b"x", b"9" * 30, b"0", b"5, 6", b"1000000000000", b""))
        return what, head.encode() + b"Content-Length: " + length + b"\r\n\r\n" + body
    if what == "chunks":
        size = chance.choice((b"x", b"-1", b"f" * 30, b"ffffff", b""))
        return what, head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    if what == "header":
        more = chance.choice((b"X: " + b"y" * 70_000, b"\x00: a", b"X", b"Expect: banana", b"Content-Encoding: gzip",
        b"Range: bytes=0-" + b"9" * 40,
                              b"Origin: http://elsewhere", b"Cookie: " + b"a=b; " * 5000,
                              b"X: y\r\n" * 300))  # fmt: skip
        return what, head.encode() + more + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    if what == "version":
        return what, sound.replace(
            b"HTTP/1.1", chance.choice((b"HTTP/9.9", b"HTTP/x", b"", b"HTTP/1.0", b"HTTP/0.9")), 1
        )
    return what, sound.replace(
        b"Host: 127.0.0.1", chance.choice((b"Host: elsewhere", b"Host: [", b"Host:", b"Host: a\r\nHost: b")), 1
    )


def _answer(port: int, sent: bytes) -> tuple[int, bytes]:
    """Send bytes and return (status, body); 0 where the connection was closed without an answer."""
    got = b""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection,
    ):
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            got += data
            if len(got) > 1 << 24:
                break
    head, _, body = got.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def request(chance: random.Random, server: Any) -> tuple[str, int, bytes, bool]:
    """Send one odd request; return its label, status, body, and whether a translation is the right answer."""
    from checks.support import attacks
    from checks.support.servers import picture, rows

    size, demo = server.export.crop_size, server.kind == "demo"
    good = picture(size, server.export.source.channels)
    kind = chance.choices(("sound", "http", "image", "attack", "body"), (3, 25, 40, 17, 15))[0]
    content = "image/png" if demo else "application/json"
    address = server.address
    if demo and chance.random() < 0.5:
        address = address.replace("/translate", "/fit")

    def wrapped(data: bytes) -> bytes:
        return data if demo else rows(base64.b64encode(data).decode())

    if kind == "sound":
        return kind, *server.ask(server.picture()), True
    if kind == "http":
        what, sent = _http(chance, address, wrapped(good), content)
        return f"http: {what}", *_answer(server.port, sent), True
    if kind == "image":
        how, data = attacks.damage(good, chance)
        return f"image: {how}", *server.ask(wrapped(data), content, address), True
    if kind == "attack":
        label, data, _ = chance.choice(attacks._image_attacks())
        return label, *server.ask(wrapped(data), content, address), False
    if demo:
        return "bytes", *server.ask(chance.randbytes(chance.randrange(3000)), "text/plain", address), False
    text = base64.b64encode(good).decode()
    odd = chance.choice((
        b"", b"{", b"[]", b"null", b"1" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b'{"dataframe_split": 5}',
        rows(), rows(None), rows({}), rows(text, 5),
        rows([[[1]]]), rows([[["a"]]]), rows([[[10**30]]]), rows([[[1.5]]]), rows("%%%"), rows(text[:-3]),
        rows(*["AA=="] * 65), rows(True), rows(""),
        b'{"inputs": {"image": ["AA=="]}}', b'{"instances": [{"image": "AA=="}]}', b'{"instances": [1, 2]}',
        b'{"dataframe_records": [{"image": 5}]}',
        json.dumps({"dataframe_split": {"columns": ["picture"], "data": [[text]]}}).encode(),
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[text]]},
        "params": {"output": chance.choice(("x", 5, None, [], {}))}}).encode(),
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[text]]}, "params": {"no such": 1}}).encode(),
        chance.randbytes(500), rows([[[256] * 3] * size[1]] * size[0]), rows([[[-1] * 3] * size[1]] * size[0]),
        rows([[[None] * 3] * size[1]] * size[0]),
    ))  # fmt: skip
    kinds = ("application/json",) * 8 + (
        "text/csv",
        "application/octet-stream",
        "text/plain; charset=utf-16",
        "application/json; x=y",
    )
    # No images, no translations; a parameter that nobody knows MLflow leaves out, and null is the default.
    may = odd == rows() or b'"no such"' in odd or b'"output": null' in odd
    return "body", *server.ask(odd, chance.choice(kinds)), may


def _since(log: Path, place: int) -> bytes:
    with open(log, "rb") as stream:
        stream.seek(place)
        return stream.read()


def asked(kind: str, seed: int, numbers: Iterable[int], root: Path) -> list[dict[str, Any]]:
    """Send requests of these numbers to a server, and look at it afterwards."""
    from checks.support import servers, watch

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "watch"
        with servers.running(kind, root, os.environ | watch.environment(log)) as server:
            base = server.peak_mb()
            for number in numbers:
                begun, outcome, label, told = time.monotonic(), "refused", "?", server.log.stat().st_size
                try:
                    label, status, body, may = request(chance_of(seed, kind, number), server)
                except (OSError, ValueError) as error:
                    label, status, body, may = "?", 0, repr(error).encode(), False
                    outcome = "hang" if isinstance(error, TimeoutError) else "refused"
                # A stack in an answer, or a 5xx: ours, unless it is of MLflow's reading, before the model is asked.
                if (status >= 500 and status != 501) or b"Traceback" in body:  # 501: a method that HTTP does not know
                    shown = body + _since(server.log, told)
                    outcome = "traceback" if kind == "demo" or b"/model/pyfunc.py" in shown else "mlflow"
                elif status == 200:
                    outcome = "accepted" if may else "wrong"
                elif label == "sound":
                    outcome = "wrong"
                rows.append(
                    {
                        "number": number, "label": label, "outcome": outcome, "seconds": time.monotonic() - begun,
                        "mb": 0.0,
                        "said": f"{status} {body[:300]!r}", "noted": [],
                    }
                )  # fmt: skip
            said = server.log.read_text(errors="replace")
            last = rows[-1]
            last["mb"] = server.peak_mb() - (base if kind == "served" else 0)
            if server.ask(server.picture())[0] != 200:
                last |= {"outcome": "traceback", "said": "afterwards it does not translate any more"}
            if kind == "demo" and "Traceback" in said:
                last |= {"outcome": "traceback", "said": said[said.index("Traceback") :][:400]}
        last["noted"] = [("connection", line) for line in log.read_text().splitlines()] if log.exists() else []
    return rows


# --- the verdict


def judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of one kind, and the rows that must not be."""
    counts: Counter[str] = Counter(row["outcome"] for row in rows)
    bad = [row for row in rows if row["outcome"] in BAD]
    for row in rows:
        found = {kind for kind, _ in map(tuple, row["noted"])}
        if row["seconds"] > HANG_SECONDS:
            found.add("hang")
        if row["mb"] > MEMORY_MB:
            found.add("memory")
        for kind in found:
            counts[kind] += 1
        if found and row not in bad:
            bad.append(row)
    slowest, largest = max(row["seconds"] for row in rows), max(row["mb"] for row in rows)
    told = {"tried": len(rows), "refused": counts["refused"] + counts["mlflow"], "accepted": counts["accepted"]}
    return (
        told
        | {key: counts[key] for key in BAD}
        | {"mlflow": counts["mlflow"], "seconds": slowest, "mb": largest, "bad": bad}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=KINDS, action="append", help="these kinds; again for more")
    parser.add_argument("--n", type=int, help="how many of each")
    parser.add_argument("--full", action="store_true", help="as many as docs/trust.md tells of")
    parser.add_argument("--seed", type=int, default=0, help="of all that is made")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"), help="try one, and say what came of it")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        kind, seed, begin, end, folder = given.work
        work(kind, int(seed), range(int(begin), int(end)), Path(folder))
        return
    from checks.support.servers import repository

    if given.case:
        kind, number = given.case
        if kind not in KINDS or not number.isdecimal():
            parser.error(f"--case: a kind ({', '.join(KINDS)}) and a number")
        with tempfile.TemporaryDirectory() as folder:
            if kind in SERVERS:
                print(*asked(kind, given.seed, [int(number)], repository(Path(folder)))[0].items(), sep="\n")
            else:
                print(*TRIED[kind](chance_of(given.seed, kind, int(number)), Path(folder)), sep="\n")
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.only or KINDS:
            count = given.n or KINDS[kind][given.full]
            begun = time.monotonic()
            if kind in SERVERS:
                place = Path(folder) / "repository"
                root = place if place.exists() else repository(Path(folder))
                rows = asked(kind, given.seed, range(count), root)
            else:
                rows = tried(kind, given.seed, count)
            found[kind] = judged(rows)
            print(f"{kind}: {count} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            for row in found[kind]["bad"][:20]:
                print(f"  {kind} {row['number']}: {row['label']}: {row['outcome']}: {row['said'][:300]} {row['noted']} "
                      f"{row['seconds']:.1f} s, {row['mb']:.0f} MB", file=sys.stderr)  # fmt: skip
    head = ["what", "tried", "refused", "rightly accepted", *HEADINGS.values(), "slowest, s", "most memory, MB"]
    lines = [
        [kind, one["tried"], one["refused"], one["accepted"], *(one[key] for key in BAD), round(one["seconds"], 2),
        round(one["mb"])]
        for kind, one in found.items()
    ]  # fmt: skip
    text = table(head, lines)
    if mlflow := found.get("served", {}).get("mlflow"):
        text += f"\n\nOf what the served model refused, {mlflow} were failures of MLflow to read a body, "
        text += "before the model is asked."
    print(text)
    if given.write:
        write("trust", "hostile", f"\n{text}\n\nSeed {given.seed}.\n")
    sys.exit(1 if any(one["bad"] for one in found.values()) else 0)


if __name__ == "__main__":
    main()
