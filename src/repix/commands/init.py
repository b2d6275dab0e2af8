"""Make a project of your own: params.yaml with every recipe, dvc.yaml, stages, tests and CI, under git and DVC.

The package stays where it is installed; the folder holds what is yours: which cells to train, the stages, scores.
What is there already is not touched: a file of the same name is refused.

Example:
  repix init my-project
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from repix import machine
from repix.commands import here
from repix.errors import UserError
from repix.files import atomic_path, write_text
from repix.version import VERSION

INSIDE = "project"  # folder of the files: in an installed package, and for those that a project alone has, in a clone
PACKAGE = Path(__file__).resolve().parents[1]
# What a project has of the clone as it is.
SHARED = ("params.yaml", "dvc.yaml", "constraints.txt", ".gitignore", ".dvcignore", ".gitattributes", "stages/*.py")
CONFIG = ".dvc/config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=here, help="made where it is missing")


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    folder = arguments.folder
    count = write(folder)
    committed = put_under_git(folder)
    print(f"{folder}: {count} files, under git and DVC{'' if committed else '; not committed yet'}")
    if not committed:
        print(f"first: cd {folder} && git commit -m 'repix init'   (git says why it could not, `dvc exp run` needs it)")
    print(f"next:  cd {folder} && dvc repro && repix results")
    return 0


def sources(clone: Path) -> dict[str, Path]:
    """Return name in a project -> file, as they lie in a clone of repix."""
    found = {path.relative_to(clone).as_posix(): path for pattern in SHARED for path in clone.glob(pattern)}
    return dict(sorted({**found, **_below(clone / INSIDE), CONFIG: clone / CONFIG}.items()))


def project_files() -> dict[str, Path]:
    """Return name in a project -> file, in the installed package or in the clone that this one runs from."""
    inside = PACKAGE / INSIDE
    return _below(inside) if inside.is_dir() else sources(PACKAGE.parents[1])


def _below(folder: Path) -> dict[str, Path]:
    """Return relative name -> file, for all files of a folder but byte code, which an installation leaves there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path for path in files}


def write(folder: Path) -> int:
    """Write the files of a project, but DVC's own settings; return how many.

    Raises:
        UserError: there is something in the way, or git is not installed.
    """
    files = {name: path for name, path in project_files().items() if name != CONFIG}
    if shutil.which("git") is None:
        raise UserError(machine.NO_GIT)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name another folder")
    if (folder / ".dvc").exists():
        raise UserError(f"{folder} is a DVC project already: name another folder")
    if taken := [name for name in [*files, "requirements.txt"] if (folder / name).exists()]:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UserError(f"{folder / taken[0]} is there already{more}: name another folder, or move it away")
    for name, path in files.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)
    write_text(folder / "requirements.txt", f"repix=={VERSION}  # pip install -c constraints.txt -r requirements.txt\n")
    return len(files) + 1


def put_under_git(folder: Path) -> bool:
    """Make a folder a repository of git, unless it lies in one, and a project of DVC; return whether it was committed.

    Raises:
        UserError: git or DVC refuses.
    """
    below = machine.output_of("git", "-C", str(folder), "rev-parse", "--show-toplevel")
    if below is None:
        _run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    nested = below is not None and Path(below.strip()).resolve() != folder.resolve()
    _run(folder, sys.executable, "-P", "-m", "dvc", "init", "--quiet", *(["--subdir"] if nested else []))
    shutil.copyfile(project_files()[CONFIG], folder / CONFIG)
    _run(folder, "git", "add", "--", ".")
    made = subprocess.run(
        ["git", "-C", str(folder), "commit", "--quiet", "--message", f"repix init, {VERSION}", "--", "."],
        stdout=subprocess.DEVNULL,
    )
    return made.returncode == 0


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command[-3:])}: {said[-1] if said else 'failed'}")
