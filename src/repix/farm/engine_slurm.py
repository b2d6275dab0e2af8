"""The engine of a SLURM cluster, through submitit: a job for each command.

The options are submitit's parameters, such as ``slurm_partition=gpu`` and ``timeout_min=600``; ``cluster=local`` runs
the same on this machine without SLURM.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repix import yaml12
from repix.errors import UserError
from repix.farm.engine import LOST, Engine, Job

ONE = {"tasks_per_node", "slurm_ntasks_per_node", "nodes"}  # a cell is one task on one node
MINUTES = 24 * 60  # of one job, unless the option timeout_min says otherwise


class _SlurmJob:
    def __init__(self, job):
        self._job = job

    def result(self) -> subprocess.CompletedProcess | None:
        if not self._job.done():
            return None
        try:
            return self._job.result()
        except Exception as error:  # whatever the job raised, and submitit's words for one that went away
            return subprocess.CompletedProcess([], LOST, f"{type(error).__name__}")

    def cancel(self) -> None:
        self._job.cancel()


class _Slurm:
    def __init__(self, executor, folder: Path):
        self._executor, self._folder = executor, folder

    def start(self, command: list[str], text: str) -> Job:
        run = self._executor.submit(subprocess.run, command, input=text, stdout=subprocess.PIPE, text=True)
        return _SlurmJob(run)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def parameters(cpus: int, gpus: int, options: Mapping[str, str]) -> dict[str, Any]:
    """Return submitit's parameters: numbers and truths of the options as YAML has them.

    Raises:
        UserError: an option asks for more than one task on one node, or is no YAML.
    """
    if odd := sorted(options.keys() & ONE):
        raise UserError(f"--option {odd[0]}: a cell is one task on one node; leave it out")
    given = {"timeout_min": MINUTES, "cpus_per_task": cpus, "name": "repix"} | ({"gpus_per_node": gpus} if gpus else {})
    return given | {key: yaml12.load(value, f"--option {key}") for key, value in options.items()}


def open_engine(cpus: int, gpus: int, folder: str, options: Mapping[str, str]) -> Engine:
    """Return the engine; jobs are submitted by ``sbatch``, from a folder that the nodes see.

    Raises:
        UserError: there is no SLURM here, or submitit does not know an option.
    """
    import submitit

    given = dict(options)
    cluster = given.pop("cluster", "slurm")
    wanted = parameters(cpus, gpus, given)
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("no SLURM here (sbatch): run it on a login node, or try it with --option cluster=local")
    place = Path(folder).resolve() / "submitit"
    try:
        executor = submitit.AutoExecutor(folder=place, cluster=cluster)
        executor.update_parameters(**wanted)
    except (NameError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:300] or f"submitit refuses one of {', '.join(given)}"
        raise UserError(f"--engine slurm: {said}") from None
    return _Slurm(executor, place)
