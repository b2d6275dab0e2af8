"""What git says of a repository; where it says no, one line with the mend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from repix import machine
from repix.errors import UserError


def _run(root: Path, *command: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(root), *command], input=given, capture_output=True)
    except FileNotFoundError:
        raise UserError(machine.NO_GIT) from None


def git(root: Path, *command: str, given: bytes | None = None) -> bytes:
    """Return what git says in a repository, to what it is given on standard input.

    Raises:
        UserError: git is missing, there is no repository, or the command fails.
    """
    done = _run(root, *command, given=given)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(machine.git_problem(root) or f"git {command[0]}: {said[0] if said else 'failed'}")
    return done.stdout


def line_of(root: Path, *command: str) -> str:
    """Return the one line that git says in a repository: a path may end with a blank, or have bytes that are no text.

    Raises:
        UserError: as :func:`git`.
    """
    return os.fsdecode(git(root, *command)).removesuffix("\n")


def commit_of(root: Path, revision: str) -> str | None:
    """Return the commit that a revision names; None where git knows none of that name.

    Raises:
        UserError: git is missing.
    """
    done = _run(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return None if done.returncode else done.stdout.decode().strip()


def changes(root: Path, *, whole: bool = False) -> list[str]:
    """Return the files of the working tree that differ from HEAD, untracked ones included.

    Args:
        root: the project.
        whole: those of the repository around it as well; else those below it.
    """
    below = () if whole else ("--", ".")
    listed = git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", *below)
    return sorted(entry[3:] for entry in os.fsdecode(listed).split("\0") if entry)
