"""A bundle restores in an empty folder, with nothing of the machine that made it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile

import pytest
import yaml

from repix import cli
from repix.errors import UserError
from repix.files import digest_file, digest_tree
from repix.provenance import lock
from tests.exporting.repository import CELL, git, make


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make(tmp_path_factory.mktemp("bundle") / "repository")
    outs = [f"runs/{CELL}", f"exports/{CELL}", f"metrics/{CELL}.json", f"lineage/export/{CELL}.json"]
    entries = [{"path": out, "md5": lock.md5(root / out)} for out in outs]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"all": {"outs": entries}}}))
    git(root, "commit", "--quiet", "-am", "lock")
    return root


def sh(folder, *command):
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def test_restored_in_an_empty_folder(root, tmp_path, monkeypatch, capsys):
    from repix.inference.trained import TrainedModel

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


def repacked(archive, out, change):
    """Unpack an archive, change its folder, and pack it again; with the checksums made to fit."""
    with tarfile.open(archive) as stream:
        stream.extractall(out.parent / out.stem, filter="data")
    folder = out.parent / out.stem / CELL
    if change(folder):
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        lines = [f"{digest_file(folder / name)}  {name}\n" for name in names if name != "SHA256SUMS"]
        (folder / "SHA256SUMS").write_text("".join(lines))
    with tarfile.open(out, "w") as stream:
        stream.add(folder, CELL)
    return out


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_checked_elsewhere_by_one_command(root, tmp_path, monkeypatch, capsys):
    from repix.exporting.bundle import bundle

    archive = tmp_path / "result.tar"
    bundle(root, CELL, archive)
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def check(path):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["bundle", "--check", str(path)])
        said = capsys.readouterr()
        return stopped.value.code or 0, (said.out + said.err).strip()

    code, said = check(archive)
    commit = git(root, "rev-parse", "HEAD")[:12]
    assert (code, said.endswith(f"4 outs equal dvc.lock of {commit}, bit for bit (L0)")) == (0, True), said
    assert list(elsewhere.iterdir()) == []

    weights, metrics = f"files/runs/{CELL}/last/generator.npz", f"files/metrics/{CELL}.json"
    for number, (change, named) in enumerate(
        [
            # A bit that fell over: the checksums tell.
            (lambda folder: flip(folder / weights), f"{weights} was changed"),
            (lambda folder: (folder / "files/new.txt").write_text("x") and False, "files/new.txt is not in SHA256SUMS"),
            (lambda folder: (folder / metrics).unlink(), f"{metrics} is missing"),
            # Somebody who mended the checksums too: dvc.lock of the commit tells.
            (lambda folder: flip(folder / weights) or True, f"runs/{CELL} is not what dvc.lock names"),
            (lambda folder: flip(folder / "files/dvc.lock") or True, "dvc.lock is not that of the commit"),
            (lambda folder: flip(folder / metrics) or True, f"metrics/{CELL}.json is not that of the commit"),
        ]
    ):
        code, said = check(repacked(archive, tmp_path / f"{number}.tar", change))
        assert (code, named in said) == (1, True), said
        assert len(said.splitlines()) == 1
    (tmp_path / "no.tar").write_text("x")
    assert check(tmp_path / "no.tar")[0] == 1


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
