"""Make a project of your own: params.yaml with every recipe, dvc.yaml, stages, tests and CI, under git and DVC.

The package stays where it is installed; the folder holds what is yours: which cells to train, the stages, scores.
What is there already is not touched: a file of the same name is refused.

Example:
  repix init my-project
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from repix import machine
from repix.commands import here, there
from repix.errors import UserError
from repix.files import atomic_path, remove, write_text
from repix.version import VERSION

INSIDE = "project"  # folder of the files: in an installed package, and for those that a project alone has, in a clone
PACKAGE = Path(__file__).resolve().parents[1]
# What a project has of the clone as it is.
SHARED = ("params.yaml", "dvc.yaml", "constraints.txt", ".gitignore", ".dvcignore", ".gitattributes", "stages/*.py")
OF_DVC = (".dvc/config", ".dvc/plots.html")  # its settings, and the page of `dvc plots` that they name
PARAMS = "params.yaml"
FEW = 3  # lines of what git or DVC refuse with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=here, help="made where it is missing")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: it makes one."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    folder, made = arguments.folder, Made()
    try:
        made.folder(folder)
        written = write(folder, made)
        committed = put_under_git(folder, written, made)
    except (OSError, UserError, KeyboardInterrupt):
        made.take_away()
        raise
    print(f"{folder}: {len(written)} files, under git and DVC{'' if committed else '; not committed yet'}")
    place = there(folder)
    way = shlex.quote(f"./{place}" if str(place).startswith("-") else str(place))
    if not committed:
        print(f"first: cd {way} && git commit -m 'repix init'   (git says why it could not, `dvc exp run` needs it)")
    print(f"next:  cd {way} && dvc repro && repix results")
    return 0


class Made:
    """What a try has made: half of a project would be in the way of the next one, and all else is somebody else's."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._whole: list[Path] = []

    def folder(self, path: Path) -> None:
        """Make a folder, and those on the way to it, unless it is there.

        Raises:
            UserError: there is a file in its place, or on the way to it.
        """
        for place in (*reversed(path.parents), path):
            if place.is_dir():
                continue
            if os.path.lexists(place):
                raise UserError(f"{place} is a file: name another folder")
            self._paths.append(place)
            place.mkdir(exist_ok=True)

    def file(self, path: Path) -> Path:
        """Return the path of a file that is about to be made, whose folder is there."""
        self.folder(path.parent)
        if not os.path.lexists(path):
            self._paths.append(path)
        return path

    def whole(self, path: Path) -> None:
        """Say that a program is about to make a folder and what is in it."""
        if not os.path.lexists(path):
            self._whole.append(path)

    def take_away(self) -> None:
        """Remove it; folders in which something of somebody else lies by now stay."""
        for path in self._whole:
            remove(path)
        for path in reversed(self._paths):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()


def sources(clone: Path) -> dict[str, Path]:
    """Return name in a project -> file, as they lie in a clone of repix."""
    found = {path.relative_to(clone).as_posix(): path for pattern in SHARED for path in clone.glob(pattern)}
    return dict(sorted({**found, **_below(clone / INSIDE), **{name: clone / name for name in OF_DVC}}.items()))


def project_files() -> dict[str, Path]:
    """Return name in a project -> file, in the installed package or in the clone that this one runs from."""
    inside = PACKAGE / INSIDE
    return _below(inside) if inside.is_dir() else sources(PACKAGE.parents[1])


def _below(folder: Path) -> dict[str, Path]:
    """Return relative name -> file, for all files of a folder but byte code, which an installation leaves there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path for path in files}


def write(folder: Path, made: Made) -> list[str]:
    """Write the files of a project, but DVC's own settings; return their names.

    Raises:
        UserError: there is something in the way, or git is not installed.
    """
    files = {name: path for name, path in project_files().items() if name not in OF_DVC}
    if shutil.which("git") is None:
        raise UserError(machine.NO_GIT)
    if (folder / ".dvc").exists():
        raise UserError(f"{folder} is a DVC project already: name another folder")
    if taken := [name for name in [*files, "requirements.txt"] if (folder / name).exists()]:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UserError(f"{folder / taken[0]} is there already{more}: name another folder, or move it away")
    for name, path in files.items():
        with atomic_path(made.file(folder / name)) as temporary:
            shutil.copyfile(path, temporary)
    from repix.config import editing  # setup.py imports this module where no YAML is installed

    params = folder / PARAMS
    write_text(params, editing.pristine(params.read_text(encoding="utf-8")))
    wheel = f"# or ./repix-{VERSION}-py3-none-any.whl, a wheel in git, where no index has it"
    write_text(made.file(folder / "requirements.txt"), f"repix=={VERSION}  {wheel}\n")
    return [*files, "requirements.txt"]


def put_under_git(folder: Path, written: list[str], made: Made) -> bool:
    """Make a folder a repository of git, unless it lies in one, and a project of DVC; return whether it was committed.

    What was there before is the user's, to be committed or not: only ``written`` and DVC's settings are.

    Raises:
        UserError: git or DVC refuses.
    """
    below = machine.output_of("git", "-C", str(folder), "rev-parse", "--show-toplevel")
    if below is None:
        made.whole(folder / ".git")
        _run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    nested = below is not None and Path(below.strip()).resolve() != folder.resolve()
    ours = [*written, *OF_DVC, ".dvc/.gitignore"]
    made.whole(folder / ".dvc")
    try:
        _run(folder, sys.executable, "-P", "-m", "dvc", "init", *(["--subdir"] if nested else []))
        for name in OF_DVC:
            shutil.copyfile(project_files()[name], folder / name)
        _run(folder, "git", "add", "--", *ours)
        done = subprocess.run(
            ["git", "-C", str(folder), "commit", "--quiet", "--message", f"repix init, {VERSION}", "--", *ours],
            stdout=subprocess.DEVNULL,
        )
    except (OSError, UserError, KeyboardInterrupt):
        if below is not None:  # what DVC and this have added to the index of what is there
            machine.output_of("git", "-C", str(folder), "reset", "--quiet", "--", *ours)
        raise
    return done.returncode == 0


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines()[-FEW:])
        who = "DVC" if command[0] == sys.executable else command[0]
        raise UserError(f"{folder}: {who} says: {said or 'nothing, and failed'}")
