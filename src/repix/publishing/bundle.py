"""Write one cell as one archive that needs nothing of repix: for a paper's appendix, a reviewer, an archive.

The archive restores with tar, sha256sum and git alone, on a machine that has never heard of
the one that made it. Equal inputs give equal bytes (for one version of git, whose packing
it carries).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import resource
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from repix import pages
from repix.cells import Cell
from repix.config.limits import Limits
from repix.errors import UserError
from repix.exporting.cards import MODEL_CARD
from repix.files import atomic_path, digest_file
from repix.provenance import lock
from repix.provenance.git import git
from repix.publishing.registry import check_clean, check_export

CODE = "code.bundle"
SUMS = "SHA256SUMS"
BRANCH = "refs/heads/main"

# Of an archive from outside. No part of a name begins with a dot, so that none is git's own in any spelling.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_HEAD = re.compile(rb"# v2 git bundle\n([0-9a-f]{40}) refs/heads/main\n\1 HEAD\n\n")
_LIMITS = Limits()
_HEADER_BYTES = 4096  # of an extended header of tar, or the head of a git bundle
_TEXT_BYTES = 1 << 24  # of a list that is read whole
_LOCK_BYTES = 1 << 20  # of dvc.lock: reading YAML takes some seconds a megabyte
_GIT_SECONDS = 60  # of processor time


def git_bundle(root: Path, commit: str) -> bytes:
    """Return the history of a commit as a git bundle (format 2), the same for the same commit.

    ``git bundle create`` reuses whatever packs the clone happens to hold, so that two clones
    give two files; here every object is packed anew, in one thread.

    Raises:
        UserError: the clone is shallow.
    """
    if git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise UserError("this clone is shallow and a bundle needs the history: run `git fetch --unshallow`")
    objects = git(root, "rev-list", "--objects", "--topo-order", commit)
    how = ("--stdout", "--threads=1", "--no-reuse-delta", "--no-reuse-object", "--delta-base-offset", "-q")
    pack = git(root, "-c", "core.compression=6", "pack-objects", *how, given=objects)
    return f"# v2 git bundle\n{commit} {BRANCH}\n{commit} HEAD\n\n".encode() + pack


def _readme(cell: str, commit: str, digest: str) -> str:
    given = {"cell": cell, "commit": commit, "digest": digest, "sums": SUMS, "history": CODE, "card": MODEL_CARD}
    return pages.render(__file__, "md", **given)


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
    dataset = Cell.named(cell).dataset
    files: dict[str, Path | bytes] = {}
    for place in (f"runs/{cell}", f"exports/{cell}"):
        files |= {f"files/{p.relative_to(root).as_posix()}": p for p in (root / place).rglob("*") if p.is_file()}
    if not any(name.startswith(f"files/runs/{cell}/") for name in files):
        raise UserError(f"runs/{cell}: no such folder; run `dvc pull` or `dvc repro`")
    # Small records: those that are there.
    tracked = set(os.fsdecode(git(root, "ls-files", "-z")).split("\0"))
    outs = lock.all_outs(lock.read(root))
    for path in [
        *(root / "lineage").glob(f"*/{cell}.json"),
        *(root / "lineage").glob(f"*/{dataset}.json"),
        *(root / "plots" / cell).glob("*"),
        root / "data" / "prepared" / dataset / "manifest.json",
    ]:
        name = path.relative_to(root).as_posix()
        # What an earlier version left beside them is nothing that the commit knows.
        if path.is_file() and (name in tracked or any(name == out or name.startswith(f"{out}/") for out in outs)):
            files[f"files/{name}"] = path
    # In git as well; here for a reader without git.
    for name in ("params.yaml", "dvc.lock", f"metrics/{cell}.json"):
        if not (root / name).is_file():
            raise UserError(f"{name}: no such file; run `dvc repro` and commit")
        files[f"files/{name}"] = root / name
    files[CODE] = git_bundle(root, commit)
    files["README.md"] = _readme(cell, commit, digest).encode()
    for name in sorted(files):
        if not _belongs(Cell.named(cell), name):
            raise UserError(f"{name.removeprefix('files/')!r} has no place in a bundle: delete or rename it")
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
    """Check an archive against its own checksums, the commit in it and that commit's dvc.lock.

    The archive may come from anybody. What is in it is read, never run or followed: names are
    those of :func:`_belongs` or refused, links too; the code's history stays in git's objects
    without a work tree, and git runs with nobody's configuration and with limits.

    Args:
        archive: what :func:`bundle` wrote, from any machine.

    Returns:
        ``cell``, ``commit``, ``files`` (how many, as SHA256SUMS has them) and ``outs``: the
        outs in the archive, each bit for bit what ``dvc.lock`` of the commit names (L0).

    Raises:
        UserError: it is no such archive, or something in it was changed; which is named.
    """
    if archive.exists() and not archive.is_file():
        raise UserError(f"{archive}: is no plain file, and so no bundle")
    with tempfile.TemporaryDirectory(prefix="repix-bundle-") as temporary:
        folder, repository = Path(temporary) / "bundle", Path(temporary) / "objects"
        try:
            cell, digests = _unpack(archive, folder)
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UserError(f"{archive}: cannot be read as a bundle: {error}") from None
        if not {SUMS, CODE} <= digests.keys():
            raise UserError(f"{archive}: is not what `repix bundle` writes: one folder with {SUMS} and {CODE}")
        _check_sums(archive, _text(archive, folder / SUMS), digests)
        files = sorted(name.removeprefix("files/") for name in digests if name.startswith("files/"))
        commit = _read_history(archive, folder / CODE, repository)
        in_git = _check_blobs(archive, folder / "files", files, commit, repository)
        if "dvc.lock" not in in_git:
            raise UserError(f"{archive}: has no dvc.lock that is in the commit")
        try:
            known = lock.all_outs(lock.parse(_text(archive, folder / "files" / lock.FILE, _LOCK_BYTES)))
        except (AttributeError, TypeError, KeyError, RecursionError):
            raise UserError(f"{archive}: its dvc.lock is none") from None
        held = set().union(*map(_above, files))
        outs = {out: md5 for out, md5 in known.items() if out in held}
        for out in outs:  # DVC has none within another; each would be hashed with all that is below it
            if within := _above(out) & outs.keys() - {out}:
                raise UserError(f"{archive}: its dvc.lock names {out}, and {min(within)} that holds it")
        # Of the prepared data the manifest alone is in the archive.
        partly = [out for out in outs if out.startswith("data/")]
        for out in sorted(outs.keys() - set(partly)):
            if lock.md5(folder / "files" / out) != outs[out]:
                raise UserError(
                    f"{archive}: {out} is not what dvc.lock names: other bytes, or a bundle of another state"
                )
        for out in (f"runs/{cell.name}", f"exports/{cell.name}"):
            if out not in outs:
                raise UserError(f"{archive}: {out} is missing, or dvc.lock does not know it")
        for name in files:
            if name not in in_git and not _above(name) & outs.keys():
                raise UserError(f"{archive}: {name} is neither in the commit nor in its dvc.lock")
    return {"cell": cell.name, "commit": commit, "files": len(digests) - 1, "outs": sorted(outs.keys() - set(partly))}


def _unpack(archive: Path, folder: Path) -> tuple[Cell, dict[str, str]]:
    """Write the files of an archive below ``folder``; return its cell, and file -> sha256.

    It is a plain tar: what comes out is no more than what is there, without compression or
    holes. Every name has to be one of the layout, so that no list of bad ones is needed.
    """
    _scan(archive)
    cell, digests = None, {}
    with tarfile.open(archive, "r:") as stream:
        for entry in stream:
            top, _, name = entry.name.rstrip("/").partition("/")
            cell = cell or _cell(archive, top)
            if entry.isdir() and top == cell.name and all(map(_PART.match, filter(None, name.split("/")))):
                continue  # folders are made for their files
            plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.sparse
            if not plain or top != cell.name or not _belongs(cell, name):
                raise UserError(f"{archive}: {entry.name!r} has no place in a bundle; nothing of it was used")
            if name in digests:
                raise UserError(f"{archive}: {entry.name!r} is in it twice")
            path, content, found = folder / name, stream.extractfile(entry), hashlib.sha256()
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as out:
                while block := content.read(1 << 20):
                    found.update(block)
                    out.write(block)
            digests[name] = found.hexdigest()
    if cell is None:
        raise UserError(f"{archive}: is not what `repix bundle` writes: it is empty, or no plain tar")
    return cell, digests


def _scan(archive: Path) -> None:
    """Refuse headers that no bundle has, before anything interprets them.

    Long headers take time that grows with their square, and a header that gives another size
    than the next one makes two readers see two archives.
    """
    with open(archive, "rb") as stream:
        for _ in range(2 * _LIMITS.unpack_files):
            block = stream.read(tarfile.BLOCKSIZE)
            if len(block) < tarfile.BLOCKSIZE or not any(block):
                while block.count(0) == len(block):
                    if not (block := stream.read(1 << 20)):
                        return
                raise UserError(f"{archive}: has more data after the end of the archive; nothing of it was used")
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            extended, size, read = entry.type == tarfile.XHDTYPE, entry.size, 0
            known = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or extended
            if not known or size < 0 or (entry.type == tarfile.DIRTYPE and size):
                raise UserError(f"{archive}: {entry.name!r} is neither a file nor a folder; nothing of it was used")
            if extended:
                text = stream.read(min(size, _HEADER_BYTES))
                read = len(text)
                if read < size or b" size=" in text or b" GNU.sparse" in text:
                    raise UserError(f"{archive}: has a header that no bundle has; nothing of it was used")
            stream.seek(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE - read, os.SEEK_CUR)
    raise UserError(f"{archive}: holds more than {_LIMITS.unpack_files} files")


def _cell(archive: Path, name: str) -> Cell:
    try:
        return Cell.named(name)
    except UserError:
        raise UserError(
            f"{archive}: is not what `repix bundle` writes: its folder {name!r} is not named by a cell"
        ) from None


def _belongs(cell: Cell, name: str) -> bool:
    """Return whether the layout of a bundle has a file of this name, relative to its folder."""
    parts = name.split("/")
    if not all(map(_PART.match, parts)):
        return False
    match parts:
        case ["README.md" | "SHA256SUMS" | "code.bundle"] | ["files", "params.yaml" | "dvc.lock"]:
            return True
        case ["files", "metrics", file]:
            return file == f"{cell.name}.json"
        case ["files", "lineage", _, file]:
            return file in (f"{cell.name}.json", f"{cell.dataset}.json")
        case ["files", "plots" | "runs" | "exports", place, _, *_]:
            return place == cell.name
        case ["files", "data", "prepared", place, "manifest.json"]:
            return place == cell.dataset
    return False


def _above(name: str) -> set[str]:
    """Return a path, and those of the folders that hold it."""
    parts = name.split("/")
    return {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}


def _text(archive: Path, path: Path, most: int = _TEXT_BYTES) -> str:
    if not path.is_file() or path.stat().st_size > most:
        raise UserError(f"{archive}: {path.name} is missing, or has more than {most} bytes")
    return path.read_text(encoding="utf-8", errors="replace")


def _check_sums(archive: Path, sums: str, digests: dict[str, str]) -> None:
    """Refuse an archive whose files are not those of its list of checksums."""
    told = {}
    for line in sums.splitlines():
        found, _, name = line.partition("  ")
        told[name] = found
    held = digests.keys() - {SUMS}
    for name in sorted(told.keys() | held):
        if name not in held or name not in told:
            shown = name if name.isprintable() else repr(name)
            raise UserError(f"{archive}: {shown} is {'missing' if name in told else f'not in {SUMS}'}")
        if digests[name] != told[name]:
            raise UserError(f"{archive}: {name} was changed: its checksum is not that of {SUMS}")


def _outside(repository: Path, *command: str, given: BinaryIO | bytes = b"", most: int = 0) -> bytes:
    """Run git on objects that are not to be trusted: without configuration and hooks, and within limits.

    Args:
        repository: a bare one, made by us.
        command: a plumbing command; none that has a work tree.
        given: what it reads.
        most: bytes of the pack that it works on, for which it may take memory.
    """

    def limit() -> None:
        for what, value in ((resource.RLIMIT_AS, (2 << 30) + 2 * most), (resource.RLIMIT_CPU, _GIT_SECONDS)):
            _, hard = resource.getrlimit(what)
            soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
            with suppress(ValueError, OSError):  # macOS does not know every one of them
                resource.setrlimit(what, (soft, hard))

    nothing = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
    nothing |= {"GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = ["core.hooksPath=/dev/null", "core.fsmonitor=false", "core.bigFileThreshold=16m", "pack.threads=1"]
    full = ["git", *(word for option in options for word in ("-c", option)), "--git-dir", str(repository), *command]
    how = {"input": given} if isinstance(given, bytes) else {"stdin": given}
    try:
        done = subprocess.run(
            full, env=own | nothing, cwd=repository.parent, capture_output=True, timeout=10 * _GIT_SECONDS,
            preexec_fn=limit, **how
        )  # fmt: skip
    except FileNotFoundError:
        raise UserError("git is not installed; --check reads the bundle's history with it") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"git {command[0]}: took more than {10 * _GIT_SECONDS} seconds of this bundle") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = repr(said[-1])[1:-1] if said else "it took more time or memory than a bundle may"
        raise UserError(f"git {command[0]} cannot read the history of this bundle: {why}")
    return done.stdout


def _read_history(archive: Path, code: Path, repository: Path) -> str:
    """Index the pack of a git bundle in a new bare repository; return its commit.

    Only what :func:`git_bundle` writes is taken: one commit, a whole history, format 2.
    """
    repository.mkdir()
    _outside(repository, "init", "--bare", "--quiet", "--template=", str(repository))
    packed = code.stat().st_size
    with open(code, "rb", buffering=0) as stream:  # git goes on where we end
        head = _HEAD.match(stream.read(_HEADER_BYTES))
        if head is None:
            raise UserError(f"{archive}: {CODE} is not a git bundle as `repix bundle` writes it")
        stream.seek(head.end())
        _outside(repository, "index-pack", "--stdin", given=stream, most=packed)
    listed = _outside(repository, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectsize)")
    whole = sum(map(int, listed.split()))
    if whole > min(_LIMITS.unpack_bytes, max(1 << 20, packed * _LIMITS.unpack_ratio)):
        raise UserError(f"{archive}: {CODE} of {packed} bytes unpacks to {whole}: more than a history does")
    commit = head[1].decode()
    _outside(repository, "rev-list", "--objects", "--quiet", commit, "--", most=packed)
    return commit


def _check_blobs(archive: Path, folder: Path, files: list[str], commit: str, repository: Path) -> set[str]:
    """Return which of the files are in the commit, and check that they have its bytes.

    Raises:
        UserError: one has other bytes, or the commit has a link where a file or its folder is.
    """
    asked = sorted(set().union(*map(_above, files)))
    found = {}
    for begin in range(0, len(asked), 500):  # a command line has an end
        listed = _outside(repository, "ls-tree", "-t", "-z", commit, "--", *asked[begin : begin + 500])
        for line in filter(None, listed.split(b"\0")):
            facts, _, path = line.partition(b"\t")
            mode, _, name = facts.decode().split()
            found[os.fsdecode(path)] = mode, name
    for path in asked:
        mode, name = found.get(path, ("", ""))
        if path in files and mode in ("100644", "100755"):
            data = (folder / path).read_bytes()
            if hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() != name:
                raise UserError(f"{archive}: {path} is not that of the commit in {CODE}")
        elif mode not in ("", "040000") or (mode and path in files):
            raise UserError(f"{archive}: {path} is no plain {'file' if path in files else 'folder'} in its commit")
    return {path for path in files if path in found}
