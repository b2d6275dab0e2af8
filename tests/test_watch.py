"""The eyes of the checks on trust: a check that does not see what it is to see is worse than none."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from checks import hostile, kills, network
from checks.support import attacks, watch
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), (b"::1", True), ("0.0.0.0", True), (None, True),
        ("example.org", False), ("192.0.2.1", False), ("localhost.example.org", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(host, local):
    assert watch.is_local(host) == local


def test_processes_that_are_started_are_watched(tmp_path):
    script = """
import contextlib, socket
socket.getaddrinfo("localhost", 1)
with contextlib.suppress(OSError):
    socket.getaddrinfo("nowhere.invalid", 80)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.connect(("127.0.0.1", 9))
    with contextlib.suppress(OSError):
        one.connect(("192.0.2.1", 9))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | watch.environment(tmp_path / "log"), check=False
    )
    assert done.returncode == 0
    first, second = (tmp_path / "log").read_text().splitlines()
    assert "nowhere.invalid" in first and "192.0.2.1" in second


def test_writes_elsewhere_are_seen(tmp_path):
    """In a process of its own: a watch cannot be taken off."""
    script = """
import os, shutil
from pathlib import Path
from checks.support import watch
noted = []
watch.watch(lambda *what: noted.append(what), ("inside",))
Path("inside/a").write_text("x"); Path("inside/b").mkdir(); Path("/dev/null").write_text("x"); Path("given").read_text()
shutil.rmtree("inside/b"); os.rename("inside/a", "inside/c")
print(len(noted))
Path("outside").write_text("x"); Path("inside/../folder").mkdir(); os.rename("inside/c", "c"); os.symlink("x", "link")
Path("inside_not").write_text("x")
print(sorted({what.split()[0] for _, what in noted}), len(noted))
"""
    (tmp_path / "inside").mkdir()
    (tmp_path / "given").write_text("x")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n['open', 'os.mkdir', 'os.rename', 'os.symlink'] 5\n", done.stdout + done.stderr


def test_a_trace_tells_who_was_addressed():
    inside = """1 connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = -1
1 connect(3, {sa_family=AF_INET, sin_port=htons(5000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
1 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0
1 sendto(3, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1
"""
    assert network.outside(inside) == []
    out = [
        '1 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
        '1 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16 <unfinished ...>',
        "1 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "
        '"2001:db8::1", &sin6_addr)}, 28) = 0',
        '1 sendto(3, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("192.0.2.1")}, 16) = 1',
    ]
    assert network.outside(inside + "\n".join(out)) == out


def test_a_case_is_named_by_its_seed_and_number(tmp_path, monkeypatch):
    def made(kind):
        attacks._sound_archives.cache_clear()
        attacks._bombs.cache_clear()
        return [getattr(attacks, kind)(hostile.chance_of(3, kind, number))[:4] for number in range(20)]

    for kind in ("archive", "record", "image"):
        first, later = made(kind), time.time() + 86400
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda later=later: later)
            assert made(kind) == first


def test_what_must_not_be_is_counted(tmp_path, monkeypatch):
    """A product that unpacks whatever comes, and one that dies, are told from one that refuses."""
    from repix.data import archives

    def count(numbers=range(40)):
        found = []
        for number in numbers:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            found.append(hostile.try_archive(hostile.chance_of(0, "archives", number), folder)[1])
        return found

    assert "wrong" not in count()

    def credulous(archive, folder, **_):
        folder.mkdir()
        (folder / "a").write_text("x")

    monkeypatch.setattr(archives, "unpack", credulous)
    assert set(count()) == {"wrong"}
    row = {"number": 0, "label": "", "outcome": "refused", "said": "", "seconds": 0.1, "mb": 5.0, "noted": []}
    told = hostile.judged(
        [
            row,
            row | {"seconds": 11.0},
            row | {"mb": 1001.0},
            row | {"noted": [["write", "x"]]},
            row | {"outcome": "traceback"},
        ]
    )
    assert [told[key] for key in hostile.BAD] == [1, 0, 1, 1, 1, 0] and len(told["bad"]) == 4 and told["refused"] == 4


def test_a_process_that_dies_or_hangs_is_counted_and_replaced(monkeypatch, tmp_path):
    (tmp_path / "dies.py").write_text(
        "import json, os, sys, time\n"
        "begin, end = map(int, sys.argv[6:8])\n"
        "for number in range(begin, end):\n"
        "    print(json.dumps({'start': number}), flush=True)\n"
        "    if number == 1: os.kill(os.getpid(), 11)\n"
        "    if number == 3: time.sleep(60)\n"
        "    print(json.dumps({'number': number, 'outcome': 'refused'}), flush=True)\n"
    )
    plain = subprocess.Popen
    monkeypatch.setattr(
        hostile.subprocess,
        "Popen",
        lambda command, **more: plain([sys.executable, str(tmp_path / "dies.py"), *command[1:]], **more),
    )
    monkeypatch.setattr(hostile, "HANG_SECONDS", -4.0)
    rows = hostile.tried("archives", 0, 5)
    assert [(row["number"], row["outcome"]) for row in rows] == [
        (0, "refused"), (1, "traceback"), (2, "refused"), (3, "hang"), (4, "refused")
    ]  # fmt: skip


def test_a_folder_that_is_no_whole_version_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "FILES", 3)
    monkeypatch.setattr(kills, "BYTES", 400)
    monkeypatch.setattr(kills.os, "sync", os.sync)
    assert kills.look(tmp_path / "f") is None
    kills.replace(tmp_path / "f", 7)
    assert kills.look(tmp_path / "f") == 7
    (tmp_path / "f" / "0001").write_bytes((8).to_bytes(4, "big") * 100)
    assert kills.look(tmp_path / "f") == -1
    kills.replace(tmp_path / "f", 8)
    (tmp_path / "f" / "0002").unlink()
    assert kills.look(tmp_path / "f") == -1
