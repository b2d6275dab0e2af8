"""Files appear whole or not at all; digests mean the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from repix import files


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".json" and files.read_json(path) == {"old": 1}
        raise RuntimeError
    assert files.read_json(path) == {"old": 1} and os.listdir(path.parent) == ["a.json"]
    with files.atomic_path(path) as temporary:
        temporary.write_text("[2]")
    assert files.read_json(path) == [2] and os.listdir(path.parent) == ["a.json"]


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with files.atomic_folder(path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_folder(path) as folder:
        (folder / "a").write_text("2")
        raise RuntimeError
    assert (path / "a").read_text() == "1"
    with files.atomic_folder(path) as folder:
        (folder / "b").write_text("3")
    assert os.listdir(path) == ["b"] and os.listdir(tmp_path) == ["out"]


def test_the_next_folder_removes_what_a_killed_process_left(tmp_path):
    dead = dead_process()
    for name in (f".out.{dead}.tmp", f".out.more.{dead}.tmp", f".out.{os.getppid()}.tmp", ".out.mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    with files.atomic_folder(tmp_path / "out"):
        pass
    expected = {"out", f".out.more.{dead}.tmp", f".out.{os.getppid()}.tmp", ".out.mine.tmp"}
    assert set(os.listdir(tmp_path)) == expected
    files.clear_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == expected - {f".out.more.{dead}.tmp"}


def test_a_leftover_of_this_very_number_is_no_obstacle(tmp_path):
    (tmp_path / f".out.{os.getpid()}.tmp").mkdir()  # in a container every process is number 7
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path) == ["out"]


def test_json_is_for_diffs_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, "é"]})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": [\n    0.1,\n    "\\u00e9"\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "b.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]
    files.write_text(tmp_path / "c.txt", "é\n")
    assert (tmp_path / "c.txt").read_bytes() == b"\xc3\xa9\n"


def test_a_trees_digest_is_of_names_and_bytes(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    before = files.digest_tree(tmp_path)
    os.utime(tmp_path / "d" / "a", (0, 0))
    (tmp_path / "d" / "a").chmod(0o600)
    (tmp_path / "d" / "__pycache__").mkdir()
    (tmp_path / "d" / "__pycache__" / "x.pyc").write_text("x")
    assert files.digest_tree(tmp_path) == before
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    renamed = files.digest_tree(tmp_path)
    (tmp_path / "d" / "b").write_text("2")
    assert len({before, renamed, files.digest_tree(tmp_path)}) == 3
    assert files.digest_tree(tmp_path / "d" / "b") == files.digest_file(tmp_path / "d" / "b") == files.digest_text("2")


def test_an_arrays_digest_is_pinned_and_knows_nothing_of_the_container(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"b": np.int32(3), "a/k": kernel, "c": np.array([True]), "d": np.zeros((0, 2))}
    digest = files.digest_arrays(arrays)
    assert digest == "35c97aded929b3e62a0e66190b524163bb34fd6bd4d914312d589a1cd6709169"
    assert files.digest_arrays({**dict(reversed(arrays.items())), "a/k": np.asfortranarray(kernel)}) == digest
    assert files.digest_arrays(arrays | {"a/k": kernel.astype(">f4")}) == digest
    np.savez(tmp_path / "a.npz", **arrays)
    assert files.digest_arrays(dict(np.load(tmp_path / "a.npz"))) == digest
    changes = [{"a/k": kernel.T}, {"a/k": kernel.astype(float)}, {"a/k": kernel + 1e-7}, {"d": np.zeros((2, 0))}]
    changes += [{"a/k": -kernel}, {"e": kernel}]
    assert len({files.digest_arrays(arrays | change) for change in changes} | {digest}) == len(changes) + 1
