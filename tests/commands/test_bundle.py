"""A bundle restores in an empty folder, with nothing of the machine that made it."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import tarfile

import pytest
import yaml

from checks.support.repository import CELL, git
from repix import cli
from repix.errors import UserError
from repix.files import digest_file, digest_tree
from repix.provenance import lock


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_repository):
    root = tiny_repository(tmp_path_factory.mktemp("bundle") / "repository")
    outs = [
        f"runs/{CELL}",
        f"exports/{CELL}",
        f"metrics/{CELL}.json",
        f"lineage/train/{CELL}.json",
        f"lineage/export/{CELL}.json",
    ]
    entries = [{"path": out, "md5": lock.md5(root / out)} for out in outs]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"all": {"outs": entries}}}))
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "add", "dvc.yaml")
    git(root, "commit", "--quiet", "-am", "lock")
    return root


def sh(folder, *command):
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def restore_commands(folder) -> list[str]:
    """Return the commands that a bundle's README teaches to restore it."""
    part = (folder / "README.md").read_text().split("## Restore")[1]
    return [line.strip() for line in part.splitlines() if line.startswith("    ")]


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

    for command in restore_commands(folder):
        assert sh(folder, "sh", "-c", command).returncode == 0, command
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
        stream.extractall(out.parent / out.stem)
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
    from repix.publishing.bundle import bundle

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
    assert (code, said.endswith(f"5 outs equal dvc.lock of {commit}, bit for bit (L0)")) == (0, True), said
    assert list(elsewhere.iterdir()) == []

    weights, metrics = f"files/runs/{CELL}/last/generator.npz", f"files/metrics/{CELL}.json"
    new = f"files/runs/{CELL}/new.txt"
    for number, (change, named) in enumerate(
        [
            # A bit that fell over: the checksums tell.
            (lambda folder: flip(folder / weights), f"{weights} was changed"),
            (lambda folder: (folder / new).write_text("x") and False, f"{new} is not in SHA256SUMS"),
            (lambda folder: (folder / metrics).unlink(), f"{metrics} is missing"),
            # Somebody who mended the checksums too: dvc.lock of the commit tells.
            (lambda folder: (folder / new).write_text("x"), f"runs/{CELL} is not what dvc.lock names"),
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


class Hostile:
    """Archives that look right to their own checksums, and are not: each writes ``out``."""

    def __init__(self, archive, folder):
        self.archive, self.folder = archive, folder
        self.outside = folder / "outside.txt"
        self.outside.write_text("mine")
        self.marker = folder / "ran"
        self.config = f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = touch {self.marker}; false\n"

    def packed(self, name, change):
        return repacked(self.archive, self.folder / f"{name}.tar", lambda tree: change(tree) or True)

    def code_with(self, name, change):
        """Put another commit on top of the history: ``change`` works on its tree."""

        def replace(tree):
            from repix.publishing.bundle import git_bundle

            clone = self.folder / f"{name}-clone"
            subprocess.run(["git", "clone", "--quiet", str(tree / "code.bundle"), str(clone)], check=True)
            change(clone)
            git(clone, "add", "-A", "-f")
            git(clone, "commit", "--quiet", "-m", "hostile")
            (tree / "code.bundle").write_bytes(git_bundle(clone, git(clone, "rev-parse", "HEAD").strip()))

        return self.packed(name, replace)

    def configured(self, tree, place=".git"):
        """Put a folder into ``files`` that git takes for its own."""
        (tree / "files" / place).mkdir(parents=True)
        (tree / "files" / place / "config").write_text(self.config)

    def linked(self, clone):
        """A link where the archive has a file: writing the file writes what the link points to."""
        place = clone / "lineage" / "export"
        place.mkdir(parents=True)
        (place / f"{CELL}.json").symlink_to(self.outside)

    def linked_folder(self, clone):
        (clone / "runs").symlink_to(self.folder)

    def huge(self, clone):
        (clone / "zeros.bin").write_bytes(bytes(64 << 20))


@pytest.fixture
def hostile(root, tmp_path):
    from repix.publishing.bundle import bundle

    bundle(root, CELL, tmp_path / "good.tar")
    return Hostile(tmp_path / "good.tar", tmp_path)


def with_entry(archive, out, kind, link=""):
    """Append one entry to an archive, of a kind that no bundle has."""
    out.write_bytes(archive.read_bytes())
    with tarfile.open(out, "a") as stream:
        entry = tarfile.TarInfo(f"{CELL}/files/runs/{CELL}/more")
        entry.type, entry.linkname = kind, link
        stream.addfile(entry)
    return out


def with_long_header(archive, out):
    """Append an entry whose extended header is long: reading those takes the square of their length."""
    out.write_bytes(archive.read_bytes())
    with tarfile.open(out, "a", format=tarfile.PAX_FORMAT) as stream:
        entry = tarfile.TarInfo(f"{CELL}/files/runs/{CELL}/more")
        entry.pax_headers = {f"key{number}": "x" for number in range(2000)}
        stream.addfile(entry)
    return out


def compressed(archive, out):
    """Add a file of zeros that its checksums know, and compress the whole."""
    plain = repacked(archive, out.with_suffix(".plain"), lambda tree: _zeros(tree) or True)
    out.write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    return out


def _zeros(tree):
    (tree / "files" / "runs" / CELL / "zeros.bin").write_bytes(bytes(64 << 20))


HOSTILE = {
    "git's configuration": (lambda h: h.packed("config", h.configured), "has no place in a bundle"),
    "in capitals": (lambda h: h.packed("capitals", lambda t: h.configured(t, ".GIT")), "has no place in a bundle"),
    "below an out": (
        lambda h: h.packed("below", lambda t: h.configured(t, f"runs/{CELL}/.git")),
        "has no place in a bundle",
    ),
    "link to a file in the commit": (lambda h: h.code_with("linked", h.linked), "is no plain file in its commit"),
    "link to a folder in the commit": (
        lambda h: h.code_with("folder", h.linked_folder),
        "runs is no plain folder in its commit",
    ),
    "history that unpacks to much": (lambda h: h.code_with("huge", h.huge), "more than a history does"),
    "compressed": (lambda h: compressed(h.archive, h.folder / "compressed.tar"), "cannot be read as a bundle"),
    "symbolic link": (
        lambda h: with_entry(h.archive, h.folder / "symbolic.tar", tarfile.SYMTYPE, "/etc/passwd"),
        "is neither a file nor a folder",
    ),
    "hard link": (
        lambda h: with_entry(h.archive, h.folder / "hard.tar", tarfile.LNKTYPE, f"{CELL}/SHA256SUMS"),
        "is neither a file nor a folder",
    ),
    "device": (lambda h: with_entry(h.archive, h.folder / "device.tar", tarfile.FIFOTYPE), "is neither a file nor"),
    "long header": (
        lambda h: with_long_header(h.archive, h.folder / "header.tar"),
        "has a header that no bundle has",
    ),
    "bytes behind the end": (
        lambda h: followed(h.archive, h.folder / "after.tar", bytes(2000) + b"x"),
        "has more data after the end of the archive",
    ),
    "an archive behind the end": (
        lambda h: followed(h.archive, h.folder / "two.tar", h.archive.read_bytes()),
        "has more data after the end of the archive",
    ),
    "an out within another": (
        lambda h: locked(h, f"runs/{CELL}/last"),
        f"names runs/{CELL}/last, and runs/{CELL} that holds it",
    ),
    "a file of nobody's": (
        lambda h: h.packed("other", lambda t: (t / "files" / "Makefile").write_text("all:\n\ttouch ran\n") and None),
        "has no place in a bundle",
    ),
}


def locked(h, *lines: str, files: int = 0):
    """Return an archive whose commit has a dvc.lock with these further outs, and so many more files in a folder."""
    more = h.folder / "more.lock"

    def change(clone):
        text = "".join(f"    - {{path: {line}}}\n" for line in lines)
        more.write_text((clone / "dvc.lock").read_text().replace("    outs:\n", f"    outs:\n{text}"))
        assert "outs:" in more.read_text() and lines[0] in more.read_text()
        shutil.copy(more, clone / "dvc.lock")

    def add(tree):
        shutil.copy(more, tree / "files" / "dvc.lock")
        for number in range(files):
            (tree / "files" / "runs" / CELL / f"{number}").touch()
        return True

    return repacked(h.code_with("locked", change), h.folder / "outs.tar", add)


def test_many_outs_and_many_files_take_no_product_of_their_numbers(hostile):
    from repix.publishing.bundle import check

    archive = locked(hostile, *(f"z{number}" for number in range(10_000)), files=10_000)
    began = sum(os.times()[:4])  # with children; a busy machine takes longer, not more of the processor
    with pytest.raises(UserError, match=f"runs/{CELL} is not what dvc.lock names"):
        check(archive)
    assert sum(os.times()[:4]) - began < 20


def test_a_pipe_is_no_bundle_and_nobody_waits_for_it(tmp_path):
    from repix.publishing.bundle import check

    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(UserError, match=r"x\.tar: is no plain file"):
        check(tmp_path / "x.tar")


def followed(archive, out, data):
    out.write_bytes(archive.read_bytes() + data)
    return out


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_runs_nothing(hostile, kind):
    from repix.publishing.bundle import check

    make_archive, said = HOSTILE[kind]
    archive = make_archive(hostile)
    before = {path: path.read_bytes() for path in hostile.folder.glob("*") if path.is_file()}
    with pytest.raises(UserError) as refused:
        check(archive)
    assert not hostile.marker.exists()
    assert {path: path.read_bytes() for path in hostile.folder.glob("*") if path.is_file()} == before
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_restoring_as_the_readme_teaches_runs_and_overwrites_nothing(hostile):
    """The commands are those of an honest README; what they are given is hostile in every way at once."""

    def change(clone):
        hostile.linked(clone)
        (clone / "linked.txt").symlink_to(hostile.outside)

    archive = hostile.code_with("everything", change)

    def add(tree):
        hostile.configured(tree)
        hostile.configured(tree, f"runs/{CELL}/.git")
        (tree / "files" / "linked.txt").write_text("theirs")

    archive = repacked(archive, hostile.folder / "worst.tar", lambda tree: add(tree) or True)
    with tarfile.open(archive) as stream:
        stream.extractall(hostile.folder / "restored")
    folder = hostile.folder / "restored" / CELL
    for command in restore_commands(folder):
        sh(folder, "sh", "-c", command)
    sh(folder / "repository", "git", "status")
    assert (folder / "repository" / "linked.txt").read_text() == "theirs"
    assert hostile.outside.read_text() == "mine"
    assert not hostile.marker.exists()


def test_git_from_outside_knows_no_configuration_of_ours(hostile, monkeypatch):
    """A user's own configuration is out of force too: what is checked does not depend on it."""
    from repix.publishing.bundle import check

    home = hostile.folder / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core")  # whatever reads it ends
    places = {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_OBJECT_DIRECTORY": "/nowhere"}
    for name, value in (places | {"GIT_DIR": "/nowhere"}).items():
        monkeypatch.setenv(name, value)
    assert subprocess.run(["git", "init", "-q", str(home / "x")], capture_output=True).returncode
    assert check(hostile.archive)["cell"] == CELL


def test_the_same_bytes_from_another_clone(root, tmp_path):
    from repix.publishing.bundle import bundle

    bundle(root, CELL, tmp_path / "a.tar")
    git(root, "gc", "--quiet", "--aggressive", "--prune=now")  # other packs, other deltas
    bundle(root, CELL, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {(e.mtime, e.uid, e.gid, e.uname, e.mode) for e in archive} == {(0, 0, 0, "", 0o644)}


def test_an_archive_takes_no_folders_place(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    (tmp_path / "there.tar").mkdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(["bundle", CELL, "-o", str(tmp_path / "there.tar")])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"repix bundle: {tmp_path}/there.tar: is a folder; name a file in it\n"


def test_refusals(root, tmp_path):
    from repix.publishing.bundle import bundle

    with pytest.raises(UserError, match=r"name it result\.tar"):
        bundle(root, CELL, tmp_path / "result.zip")
    (root / "new.txt").write_text("x")
    try:
        with pytest.raises(UserError, match="not clean"):
            bundle(root, CELL, tmp_path / "result.tar")
    finally:
        (root / "new.txt").unlink()
    with pytest.raises(UserError, match="exports/ does not have it"):
        bundle(root, "tiny-none-0", tmp_path / "result.tar")
    shallow = tmp_path / "shallow"
    git(root, "commit", "--quiet", "--allow-empty", "-m", "two")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{root}", str(shallow)], check=True)
    from repix.publishing.bundle import git_bundle

    with pytest.raises(UserError, match="shallow"):
        git_bundle(shallow, git(shallow, "rev-parse", "HEAD").strip())
    assert not list(tmp_path.glob("*.tar"))
