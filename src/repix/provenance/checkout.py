"""A revision in a folder of its own, and its stages run there from nothing.

The tree is what git holds of the revision: no workspace, no DVC cache, no run cache, no
checkpoints and no earlier downloads can take part, and the user's DVC lock is not needed.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from repix import processes
from repix.errors import UserError
from repix.provenance.git import commit_of, git
from repix.provenance.pipeline import Stage


@contextmanager
def checkout(root: Path, revision: str | None) -> Iterator[Path]:
    """Yield a temporary folder with a revision, or with the working tree, and nothing else.

    Args:
        root: the repository.
        revision: what git calls a commit; None copies the working tree: tracked files as
            they are now, and untracked ones that are not ignored.

    Raises:
        UserError: there is no such revision.
    """
    folder = Path(tempfile.mkdtemp(prefix="repix-verify-"))
    tree = folder / "tree"
    tree.mkdir()
    try:
        if revision is None:
            listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
            names = os.fsdecode(listed).split("\0")
            for name in sorted(set(filter(None, names))):
                if (root / name).is_file():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(root / name, tree / name)
        else:
            commit = commit_of(root, revision)
            if commit is None:
                raise UserError(f"{revision}: git knows no commit of this name; `git log --all` lists them")
            content = git(root, "archive", "--format=tar", commit)
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                _extract(archive, tree)
        yield tree
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extract(archive: tarfile.TarFile, tree: Path) -> None:
    """Write the files of a commit; Python before 3.11.4 has no filters, so that what they refuse is refused here.

    Raises:
        UserError: a file below a link, which no git writes by itself: it would come to lie elsewhere.
    """
    members = archive.getmembers()
    links = {member.name for member in members if member.issym()}
    for member in members:
        if links.intersection(map(str, PurePosixPath(member.name).parents)):
            raise UserError(f"the commit has {member.name!r} below a link; nothing of it was used")
    archive.extractall(tree, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))


def run(tree: Path, stage: Stage, origin: Path) -> None:
    """Run a stage's script in a tree, with tracking off and its output on standard error.

    Args:
        tree: the clean tree.
        stage: one of its stages.
        origin: the repository, where an archive lies whose address is relative (``file:photos.zip``).

    Raises:
        UserError: the script failed.
    """
    aside = ("DVC_", "MLFLOW_", "REPIX_PROFILE", "REPIX_ORIGIN", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(aside)}
    environment |= {"REPIX_TRACKING": "off", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["REPIX_ORIGIN"] = str(origin.resolve())
    command = [sys.executable, *shlex.split(stage.cmd)[1:]]
    # Standard output is for the verdict, so a stage speaks on standard error (2).
    code = processes.run(command, cwd=tree, env=environment, stdout=2)
    if code:
        raise UserError(f"{stage.name} failed with exit code {code} in the clean tree: see above")
