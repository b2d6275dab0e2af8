"""All cells on one screen: what each is at, how far it is, and when the last will be done."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from repix.errors import printable
from repix.tables import aligned, duration

TAIL_BYTES = 4096
DRAW_SECONDS = 1.0
_STAGE = re.compile(rb"Running stage '([^'@]+)@")
_STEP = re.compile(rb"step (\d+)/(\d+)")


class Place(NamedTuple):
    """Where a running cell is: its stage, and the steps of its training that are done, if it told."""

    stage: str
    step: int = 0
    steps: int = 0

    @property
    def fraction(self) -> float:
        """The part of the cell that is done, from 0 to 1: training is taken for all of it."""
        return self.step / self.steps if self.steps else 0.0


def place_of(log: Path) -> Place:
    """Return where a cell is, from the end of its log; from a log that is not there, nowhere."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            said = stream.read()
    except OSError:
        return Place("")
    stages, steps = _STAGE.findall(said), _STEP.findall(said)
    return Place(stages[-1].decode() if stages else "", *(map(int, steps[-1]) if steps else ()))


class Screen:
    """Draws the state of a farm on a terminal; elsewhere it says a line for each thing that happens.

    Args:
        cells: names of all cells that have to be made.
        stream: a text stream in place of standard error.
    """

    def __init__(self, cells: list[str], stream=None):
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._cells, self._begun, self._drawn, self._lines = cells, time.monotonic(), 0.0, 0
        self._worked = 0.0  # cells' worth of work since the beginning, those under way aside
        self.running: dict[str, tuple[float, Path, float]] = {}  # when it began, its log, the fraction it began at
        self.finished: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def say(self, line: str) -> None:
        """Say a line, above the table where one is drawn."""
        self._wipe()
        print(printable(line), file=self._stream, flush=True)

    def started(self, cell: str, log: Path) -> None:
        """Note that a cell runs."""
        self.running[cell] = time.monotonic(), log, place_of(log).fraction
        if not self._terminal:
            self.say(f"{cell}: started")

    def again(self, cell: str, why: str) -> None:
        """Note that a cell's worker went away and that another takes over."""
        self.running.pop(cell)
        self.say(f"{cell}: {why}; another try goes on from its last checkpoint")

    def ended(self, cell: str, error: str | None) -> None:
        """Note that a cell is finished, or what went wrong."""
        begun, _, before = self.running.pop(cell)
        seconds = time.monotonic() - begun
        if error is None:
            self.finished[cell] = seconds
            self._worked += 1 - before
        else:
            self.failed[cell] = error
        done = len(self.finished) + len(self.failed)
        told = f"done in {duration(seconds)}" if error is None else error
        self.say(f"{cell}: {told} ({done} of {len(self._cells)}{self._left()})")

    def _left(self) -> str:
        """Return the time left, by the speed until now; nothing where none is known."""
        at = [(place_of(log).fraction, before) for _, log, before in self.running.values()]
        worked = self._worked + sum(max(0.0, now - before) for now, before in at)
        ahead = len(self._cells) - len(self.finished) - len(self.failed) - sum(now for now, _ in at)
        if worked <= 0 or ahead <= 0:
            return ""
        return f", about {duration((time.monotonic() - self._begun) * ahead / worked)} left"

    def draw(self) -> None:
        """Draw the table, on a terminal, at most once a second."""
        if not self._terminal or time.monotonic() - self._drawn < DRAW_SECONDS:
            return
        width, height = shutil.get_terminal_size()
        rows = []
        for cell, (begun, log, _) in list(self.running.items())[: max(1, height - 3)]:
            at = place_of(log)
            step = f"step {at.step}/{at.steps}" if at.steps else ""
            rows.append((cell, at.stage or "starts", step, duration(time.monotonic() - begun)))
        waiting = len(self._cells) - len(self.running) - len(self.finished) - len(self.failed)
        counted = {"running": len(self.running), "waiting": waiting, "done": len(self.finished)}
        counted |= {"failed": len(self.failed)} if self.failed else {}
        line = ", ".join(f"{count} {name}" for name, count in counted.items()) + self._left()
        lines = [text[: width - 1] for text in [*(aligned(rows, right=(3,)) if rows else ()), line]]
        self._wipe()
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()
        self._drawn, self._lines = time.monotonic(), len(lines)

    def _wipe(self) -> None:
        if self._lines:
            self._stream.write(f"\x1b[{self._lines}F\x1b[J")
            self._lines = 0
