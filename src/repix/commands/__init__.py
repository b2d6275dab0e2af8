"""The subcommands of ``repix``, one module each.

A module has a docstring (its help), ``add_arguments(parser)`` and ``main(arguments) -> int``
(the exit code), and imports what is heavy inside ``main``. It runs in the root of the repository, from
whichever folder below it was called; ``type=here`` is for paths that the user gives.
"""

from pathlib import Path

START = Path()
"""Where the command was called, seen from the root of the repository; set by :mod:`repix.cli`."""


def here(text: str) -> Path:
    """Return a path that was given on the command line, as it is seen from where the command runs."""
    return START / text
