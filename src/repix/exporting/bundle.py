"""One cell as one archive: for a paper's appendix, a reviewer, or ten years from now.

The archive restores with tar, sha256sum and git alone, on a machine that has never heard of
the one that made it. Equal inputs give equal bytes (for one version of git, whose packing
it carries).
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from repix.errors import UserError
from repix.exporting.registry import check_clean, check_export
from repix.files import atomic_path, digest_file
from repix.provenance import lock

CODE = "code.bundle"
SUMS = "SHA256SUMS"
BRANCH = "refs/heads/main"


def _git(root: Path, *command: str, given: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(root), *command], input=given, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise UserError(f"git {command[0]}: {said.decode(errors='replace').strip() or error}") from None
    return done.stdout


def git_bundle(root: Path, commit: str) -> bytes:
    """Return the history of a commit as a git bundle (format 2), the same for the same commit.

    ``git bundle create`` reuses whatever packs the clone happens to hold, so that two clones
    give two files; here every object is packed anew, in one thread.

    Raises:
        UserError: the clone is shallow.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise UserError("this clone is shallow and a bundle needs the history: run `git fetch --unshallow`")
    objects = _git(root, "rev-list", "--objects", "--topo-order", commit)
    how = ("--stdout", "--threads=1", "--no-reuse-delta", "--no-reuse-object", "--delta-base-offset", "-q")
    pack = _git(root, "-c", "core.compression=6", "pack-objects", *how, given=objects)
    return f"# v2 git bundle\n{commit} {BRANCH}\n{commit} HEAD\n\n".encode() + pack


def _readme(cell: str, commit: str, digest: str) -> str:
    return f"""# {cell}

One result of repix: code with its history, parameters, data hashes, metrics, weights,
exported models and their cards. Nothing else is needed to check or use it; to train it
again, the data has to be fetched from where `files/params.yaml` says.

- commit: {commit}
- digest of exports/{cell}: {digest}

## Check

    sha256sum -c {SUMS}

With repix at hand, `repix bundle --check {cell}.tar` does both of these in an empty folder,
and holds every result against `dvc.lock` of the commit.

## Restore

    git clone {CODE} repository
    cp -R files/. repository/
    cd repository
    make repro              # only to train again; the files lie where it would leave them

`repository/exports/{cell}/MODEL_CARD.md` says what the model is and how it was scored.
"""


def bundle(root: Path, cell: str, out: Path) -> dict[str, str]:
    """Write the archive of an exported cell; return file -> sha256 of what it holds.

    Args:
        root: the repository; its tree is clean.
        cell: an exported and scored cell.
        out: the archive, ``.tar``. In it one folder, named by the cell, with ``README.md``,
            ``SHA256SUMS``, ``code.bundle`` and ``files/``, a tree that belongs over a clone.

    Raises:
        UserError: the tree is not clean, the export is not what was scored, or a file of the
            cell is missing.
    """
    if out.suffix != ".tar":
        raise UserError(f"{out}: the archive is a tar (weights do not shrink): name it {out.stem or cell}.tar")
    commit = check_clean(root)
    _, _, digest = check_export(root, cell)
    dataset = cell.split("-")[0]
    files: dict[str, Path | bytes] = {}
    for place in (f"runs/{cell}", f"exports/{cell}"):
        files |= {f"files/{p.relative_to(root).as_posix()}": p for p in (root / place).rglob("*") if p.is_file()}
    if not any(name.startswith(f"files/runs/{cell}/") for name in files):
        raise UserError(f"runs/{cell}: no such folder; run `dvc pull` or `dvc repro`")
    # Small records: those that are there.
    for path in [
        *(root / "lineage").glob(f"*/{cell}.json"),
        *(root / "lineage").glob(f"*/{dataset}.json"),
        *(root / "plots" / cell).glob("*"),
        root / "data" / "prepared" / dataset / "manifest.json",
    ]:
        if path.is_file():
            files[f"files/{path.relative_to(root).as_posix()}"] = path
    # In git as well; here for a reader without git.
    for name in ("params.yaml", "dvc.lock", f"metrics/{cell}.json"):
        if not (root / name).is_file():
            raise UserError(f"{name}: no such file; run `dvc repro` and commit")
        files[f"files/{name}"] = root / name
    files[CODE] = git_bundle(root, commit)
    files["README.md"] = _readme(cell, commit, digest).encode()
    digests = {name: _digest(content) for name, content in sorted(files.items())}
    files[SUMS] = "".join(f"{found}  {name}\n" for name, found in digests.items()).encode()
    with atomic_path(out) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{cell}/{name}")
            entry.mode = 0o644
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.size = content.stat().st_size
                with open(content, "rb") as stream:
                    archive.addfile(entry, stream)
    return digests


def _digest(content: Path | bytes) -> str:
    return digest_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def check(archive: Path) -> dict[str, Any]:
    """Restore an archive in an empty folder, as its README says, and hold it against its own dvc.lock.

    Args:
        archive: what :func:`bundle` wrote, from any machine.

    Returns:
        ``cell``, ``commit``, ``files`` (how many, as SHA256SUMS has them) and ``outs``: the
        outs in the archive, each bit for bit what ``dvc.lock`` of the commit names (L0).

    Raises:
        UserError: it is no such archive, or something in it was changed; which is named.
    """
    with tempfile.TemporaryDirectory(prefix="repix-bundle-") as temporary:
        try:
            with tarfile.open(archive) as stream:
                # Nothing outside the folder, no links out of it, no devices.
                stream.extractall(temporary, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{archive}: cannot be read as a bundle: {error}") from None
        folders = list(Path(temporary).iterdir())
        if len(folders) != 1 or not (folders[0] / SUMS).is_file() or not (folders[0] / CODE).is_file():
            raise UserError(f"{archive}: is not what `repix bundle` writes: one folder with {SUMS} and {CODE}")
        (folder,) = folders
        count = _check_sums(archive, folder)
        restored = folder / "repository"
        _git(folder, "clone", "--quiet", str(folder / CODE), str(restored))
        for path in sorted((folder / "files").rglob("*")):
            if path.is_file():
                place = restored / path.relative_to(folder / "files")
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        changed = _git(restored, "status", "--porcelain").decode().splitlines()
        if changed:
            raise UserError(f"{archive}: {changed[0][3:]} is not that of the commit in {CODE}")
        outs = {out: md5 for out, md5 in lock.all_outs(lock.read(restored)).items() if (restored / out).exists()}
        # Of the prepared data the manifest alone is in the archive.
        whole = {out: md5 for out, md5 in outs.items() if not out.startswith("data/")}
        for out, md5 in sorted(whole.items()):
            if lock.md5(restored / out) != md5:
                raise UserError(
                    f"{archive}: {out} is not what dvc.lock names: other bytes, or a bundle of another state"
                )
        for out in (f"runs/{folder.name}", f"exports/{folder.name}"):
            if out not in whole:
                raise UserError(f"{archive}: {out} is missing, or dvc.lock does not know it")
        commit = _git(restored, "rev-parse", "HEAD").decode().strip()
    return {"cell": folder.name, "commit": commit, "files": count, "outs": sorted(whole)}


def _check_sums(archive: Path, folder: Path) -> int:
    """Return how many files a folder has, all of them as in its list of checksums."""
    told = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        found, _, name = line.partition("  ")
        told[name] = found
    held = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p.name != SUMS}
    for name in sorted(told.keys() | held.keys()):
        if name not in held or name not in told:
            raise UserError(f"{archive}: {name} is {'missing' if name in told else f'not in {SUMS}'}")
        if digest_file(held[name]) != told[name]:
            raise UserError(f"{archive}: {name} was changed: its checksum is not that of {SUMS}")
    return len(told)
