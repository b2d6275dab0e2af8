"""The engine of this machine: a process for each command."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from repix.errors import UserError
from repix.farm.engine import Engine, Job


class _LocalJob:
    def __init__(self, command: list[str], text: str):
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        # In a session of its own: Ctrl-C comes to the driver alone, who ends its jobs in an orderly way.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._said, text=True, start_new_session=True
        )
        with suppress(BrokenPipeError):  # it died at once: its exit code tells
            self._process.stdin.write(text)
            self._process.stdin.close()

    def result(self) -> subprocess.CompletedProcess | None:
        code = self._process.poll()
        if code is None:
            return None
        self._said.seek(0)
        return subprocess.CompletedProcess([], code, self._said.read())

    def cancel(self) -> None:
        self._process.terminate()

    def wait(self) -> None:
        """Wait for its end: a training saves its state first."""
        self._process.wait()
        self._said.close()


class _Local:
    def __init__(self) -> None:
        self._jobs: list[_LocalJob] = []

    def start(self, command: list[str], text: str) -> Job:
        self._jobs.append(_LocalJob(command, text))
        return self._jobs[-1]

    def close(self) -> None:
        for job in self._jobs:
            job.wait()


def open_engine(cpus: int, gpus: int, folder: str, options: Mapping[str, str]) -> Engine:
    """Return the engine of this machine's processes; it has no options."""
    if options:
        raise UserError(f"--option {next(iter(options))}: --engine local has no options")
    return _Local()
