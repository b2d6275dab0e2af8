"""The subcommands of ``repix``, one module each.

A module has a docstring (its help), ``add_arguments(parser)`` and ``main(arguments) -> int``
(the exit code), and imports what is heavy inside ``main``. It runs in the root of the repository, from
whichever folder below it was called; ``type=here`` is for paths that the user gives. Outside of a project it is
not begun, unless its ``needs_project(arguments)`` says that it does without.
"""

import os
from pathlib import Path

from repix import profile
from repix.errors import UserError
from repix.files import atomic_path
from repix.paths import NO_PROJECT, WIRING


def check_project() -> None:
    """Refuse a folder that is no project: what is missing there no other command can make.

    Raises:
        UserError: there is no dvc.yaml in it.
    """
    if not WIRING.is_file():
        raise UserError(f"{WIRING}: {NO_PROJECT}")


def here(text: str) -> Path:
    """Return a path that was given on the command line, as it is seen from the root, where the command runs.

    Raises:
        UserError: it is empty, as an unset variable of a shell is.
    """
    if not text:
        error = UserError("a path on the command line is empty; name a file or a folder, `.` for this one")
        error.exit_code = 2  # as argparse refuses arguments
        raise error
    return Path(os.path.relpath(profile.START or ".")) / text


def there(path: Path) -> Path:
    """Return a path of the root, where the command runs, as it is seen from where it was called."""
    return path if path.is_absolute() else Path(os.path.relpath(path, profile.START or "."))


def replace_text(path: Path, text: str) -> None:
    """Replace a file of the user's, in one step: that which a link leads to, with its mode and its ends of lines."""
    place = Path(os.path.realpath(path))
    mode, was = place.stat().st_mode & 0o7777, place.read_bytes()
    ends = "\r\n" if 2 * was.count(b"\r\n") > was.count(b"\n") else "\n"  # of most lines
    with atomic_path(place) as temporary:
        temporary.write_text(text, encoding="utf-8", newline=ends)
    place.chmod(mode)


def new_file(path: Path) -> Path:
    """Return where an output goes, a file that is replaced or made with its folders.

    Raises:
        UserError: a folder is there, or on the way to it something that is none.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    above = next(one for one in path.parents if os.path.lexists(one))
    if not above.is_dir():
        raise UserError(f"{path}: {above} is no folder; name another file")
    return path
