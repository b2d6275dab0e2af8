"""What runs a command line somewhere: the interface of engines.

An engine gets a command and a text for its standard input, and gives back what a finished process is: exit code and
standard output. It knows nothing of cells.
"""

from __future__ import annotations

import subprocess
from typing import Protocol

LOST = -9  # exit code of a command whose machine or process went away without one


class Job(Protocol):
    """One command under way."""

    def result(self) -> subprocess.CompletedProcess | None:
        """Return exit code and standard output (text), None while it runs."""

    def cancel(self) -> None:
        """Ask the command to end, if it still runs; that may take a while."""


class Engine(Protocol):
    """Where commands run."""

    def start(self, command: list[str], text: str) -> Job:
        """Start a command with a text on its standard input."""

    def close(self) -> None:
        """Give back what the engine holds: on this machine once what was cancelled has ended.

        A training that still saves its state elsewhere hinders nobody: the next one of the same cell waits for it.
        """
