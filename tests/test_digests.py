"""A large file is hashed once for as long as it stays what it is, and never again taken for what it was."""

from __future__ import annotations

import os
import time

import pytest

from repix import digests
from repix.digests import Digests
from repix.files import digest_file, digest_tree

LONG_AGO = time.time() - 60


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read, in order; large is what has four bytes, and nothing need settle."""
    read = []
    monkeypatch.setattr(digests, "LARGE", 4)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    monkeypatch.setattr(digests, "digest_file", lambda path: read.append(path.name) or digest_file(path))
    return read


def test_a_large_file_is_hashed_once_and_small_ones_each_time(tmp_path, hashed):
    data = tmp_path / "data"
    data.mkdir()
    (data / "large").write_bytes(b"12345678")
    (data / "small").write_bytes(b"123")
    expected = digest_tree(data)
    for _ in range(3):
        assert digest_tree(data, Digests(tmp_path / "known")) == expected
    assert sorted(hashed) == ["large", "small", "small", "small"]
    assert len(list((tmp_path / "known").iterdir())) == 1


@pytest.mark.parametrize("change", ["content", "content with its old time", "another file", "moved in"])
def test_what_has_changed_is_hashed_again(tmp_path, hashed, change):
    path, known = tmp_path / "large", Digests(tmp_path / "known")
    path.write_bytes(b"12345678")
    os.utime(path, (LONG_AGO, LONG_AGO))
    known(path)
    if change == "another file":
        path.rename(tmp_path / "old")
    if change == "moved in":
        (tmp_path / "new").write_bytes(b"87654321")
        os.replace(tmp_path / "new", path)
    else:
        path.write_bytes(b"87654321")
    if change != "content":
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert known(path) == digest_file(path)
    assert hashed == ["large", "large"]


def test_what_was_changed_a_moment_ago_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 2.0)
    path, known = tmp_path / "large", Digests(tmp_path / "known")
    path.write_bytes(b"12345678")
    os.utime(path, (LONG_AGO, LONG_AGO))  # the time of the change itself is now
    known(path)
    assert known(path) == digest_file(path) and hashed == ["large", "large"]


def test_what_changes_while_it_is_hashed_is_not_remembered(tmp_path, hashed, monkeypatch):
    path, known = tmp_path / "large", Digests(tmp_path / "known")
    path.write_bytes(b"12345678")

    def meanwhile(path):
        found = digest_file(path)
        path.write_bytes(b"123456789")
        return found

    monkeypatch.setattr(digests, "digest_file", meanwhile)
    known(path)
    assert not (tmp_path / "known").exists()


@pytest.mark.parametrize("damage", [b"", b"\xff", b"8 1 1 abc", b"no"], ids=["empty", "no text", "cut", "other"])
def test_a_damaged_memory_is_no_answer(tmp_path, hashed, damage):
    path, known = tmp_path / "large", Digests(tmp_path / "known")
    path.write_bytes(b"12345678")
    known(path)
    (file,) = (tmp_path / "known").iterdir()
    stamp = file.read_bytes().rpartition(b" ")[0]
    file.write_bytes(damage if damage != b"8 1 1 abc" else stamp + b" abc")
    assert known(path) == digest_file(path)


def test_a_folder_that_takes_nothing_costs_time_only(tmp_path, hashed):
    path = tmp_path / "large"
    path.write_bytes(b"12345678")
    (tmp_path / "known").write_text("a file in its place")
    assert Digests(tmp_path / "known")(path) == digest_file(path)
