"""The table of engines: a new one is a file ``engine_<name>.py`` and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from repix.errors import UserError
from repix.farm.engine import Engine
from repix.libraries import install

# name -> the extra of repix that installs what it needs, and the name of that package.
ENGINES: dict[str, tuple[str | None, str | None]] = {
    "local": (None, None),
    "ray": ("ray", "ray"),
    "slurm": ("slurm", "submitit"),
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
    extra, package = ENGINES[name]
    try:
        return importlib.import_module(f"repix.farm.engine_{name}").open_engine(cpus, gpus, folder, options)
    except ModuleNotFoundError as error:
        if package is None or (error.name or "").split(".")[0] != package:
            raise
        raise UserError(f"--engine {name} needs {package}, which is not installed: {install(extra)}") from None
