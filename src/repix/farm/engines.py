"""What runs a command line somewhere: one small interface, and the table of those who have it.

An engine gets a command and a text for its standard input, and gives back what a finished process is: exit code and
standard output. It knows nothing of cells, so that a new one is a file and a line in :data:`ENGINES`.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Mapping
from typing import Protocol

from repix.errors import UserError

LOST = -9  # exit code of a command whose machine or process went away without one


class Job(Protocol):
    """One command under way."""

    def result(self) -> subprocess.CompletedProcess | None:
        """Return exit code and standard output (text), None while it runs."""

    def cancel(self) -> None:
        """End it, if it still runs."""


class Engine(Protocol):
    """Where commands run."""

    def start(self, command: list[str], text: str) -> Job:
        """Start a command with a text on its standard input."""

    def close(self) -> None:
        """Give back what the engine holds."""


# name -> module, the extra of repix that installs what it needs, and the name of that package.
ENGINES = {
    "local": ("repix.farm.processes", None, None),
    "ray": ("repix.farm.ray_tasks", "ray", "ray"),
    "slurm": ("repix.farm.slurm_jobs", "slurm", "submitit"),
}


def open_engine(name: str, *, cpus: int, gpus: int, folder: str, options: Mapping[str, str]) -> Engine:
    """Return an engine.

    Args:
        name: one of :data:`ENGINES`.
        cpus, gpus: what one cell gets of a node.
        folder: a folder of this repository, for files of the engine's own.
        options: the engine's own parameters, as text.

    Raises:
        UserError: what it needs is not installed, or an option is wrong.
    """
    module, extra, package = ENGINES[name]
    try:
        return importlib.import_module(module).open_engine(cpus, gpus, folder, options)
    except ModuleNotFoundError as error:
        if package is None or (error.name or "").split(".")[0] != package:
            raise
        raise UserError(
            f"--engine {name} needs {package}, which is not installed: "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        ) from None
