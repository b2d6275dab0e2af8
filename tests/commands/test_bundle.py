"""A bundle restores in an empty folder, with nothing of the machine that made it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile

import pytest

from repix import cli
from repix.errors import UserError
from repix.files import digest_file, digest_tree
from tests.exporting.repository import CELL, git, make


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bundle") / "repository")


def sh(folder, *command):
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def test_restored_in_an_empty_folder(root, tmp_path, monkeypatch, capsys):
    from repix.training.trained import TrainedModel

    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bundle", CELL, "-o", str(tmp_path / "result.tar"), "--json"])
    assert not stopped.value.code
    assert json.loads(capsys.readouterr().out)["sha256"] == digest_file(tmp_path / "result.tar")

    empty = tmp_path / "empty"
    empty.mkdir()
    assert sh(empty, "tar", "-xf", str(tmp_path / "result.tar")).returncode == 0
    folder = empty / CELL
    checked = sh(folder, "sha256sum", "-c", "SHA256SUMS")
    assert checked.returncode == 0
    held = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {line.split(": ")[0] for line in checked.stdout.splitlines()} == held - {"SHA256SUMS"}

    assert sh(folder, "git", "clone", "--quiet", "code.bundle", "repository").returncode == 0
    assert sh(folder, "cp", "-R", "files/.", "repository/").returncode == 0
    restored = folder / "repository"
    assert git(restored, "rev-parse", "HEAD") == git(root, "rev-parse", "HEAD")
    assert git(restored, "status", "--porcelain") == ""
    for place in (f"runs/{CELL}", f"exports/{CELL}"):
        assert digest_tree(restored / place) == digest_tree(root / place)
    TrainedModel(restored / "runs" / CELL).load("last")

    # One flipped bit is found.
    weights = folder / "files" / "runs" / CELL / "last" / "generator.npz"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert "generator.npz: FAILED" in sh(folder, "sha256sum", "-c", "SHA256SUMS").stdout


def test_the_same_bytes_from_another_clone(root, tmp_path):
    from repix.exporting.bundle import bundle

    bundle(root, CELL, tmp_path / "a.tar")
    git(root, "gc", "--quiet", "--aggressive", "--prune=now")  # other packs, other deltas
    bundle(root, CELL, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {(e.mtime, e.uid, e.gid, e.uname, e.mode) for e in archive} == {(0, 0, 0, "", 0o644)}


def test_refusals(root, tmp_path):
    from repix.exporting.bundle import bundle

    with pytest.raises(UserError, match=r"name it result\.tar"):
        bundle(root, CELL, tmp_path / "result.zip")
    (root / "new.txt").write_text("x")
    try:
        with pytest.raises(UserError, match="not clean"):
            bundle(root, CELL, tmp_path / "result.tar")
    finally:
        (root / "new.txt").unlink()
    with pytest.raises(UserError, match="no such file"):
        bundle(root, "tiny-none-0", tmp_path / "result.tar")
    shallow = tmp_path / "shallow"
    git(root, "commit", "--quiet", "--allow-empty", "-m", "two")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{root}", str(shallow)], check=True)
    from repix.exporting.bundle import git_bundle

    with pytest.raises(UserError, match="shallow"):
        git_bundle(shallow, git(shallow, "rev-parse", "HEAD").strip())
    assert not list(tmp_path.glob("*.tar"))
