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
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


class _Local:
    def start(self, command: list[str], text: str) -> Job:
        return _LocalJob(command, text)

    def close(self) -> None:
        pass


def open_engine(cpus: int, gpus: int, folder: str, options: Mapping[str, str]) -> Engine:
    """Return the engine of this machine's processes; it has no options."""
    if options:
        raise UserError(f"--option {next(iter(options))}: --engine local has no options")
    return _Local()
