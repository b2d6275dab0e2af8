"""Two processes with the same training take turns; one that is killed, while it trains or waits, is in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from repix.files import read_json
from tests.conftest import ROOT
from tests.training.test_loop import EPOCHS, PER_EPOCH

TOTAL = EPOCHS * PER_EPOCH


class Worker:
    """One training in a process of its own, see :mod:`tests.training.alone_worker`."""

    def __init__(self, folder, name):
        self.out, self.folder = folder / f"{name}.json", folder / "checkpoints"
        command = [sys.executable, "-m", "tests.training.alone_worker", self.folder, self.out]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, line):
        """Let it go on until it says ``line``, and no further."""
        while (said := self.process.stdout.readline().strip()) != line:
            assert said, f"it ended before it said {line}: {self.process.stderr.read()}"
            if said.isdigit():
                self.process.stdin.write("\n")
                self.process.stdin.flush()

    def go(self):
        """Let it go on by itself."""
        self.process.stdin.close()
        self.process.stdin = None

    def waits(self):
        """Return the line in which it says that it waits."""
        self.go()  # one that did not wait would run to its end
        self.until("asks")
        return self.process.stderr.readline().strip()

    def result(self):
        """Let it go on to its end; return what it left and what it said on standard error."""
        _, said = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, said
        return read_json(self.out), said


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a worker; none outlives the test."""
    with ExitStack() as stack:

        def started(name):
            worker = Worker(tmp_path, name)
            stack.callback(worker.process.__exit__, None, None, None)
            stack.callback(worker.process.kill)
            return worker

        yield started


@pytest.fixture
def whole(start):
    """What a training leaves that has the folder to itself."""
    return start("whole").result()[0]


def test_those_who_wait_take_the_finished_state_and_nothing_is_left(start, whole, tmp_path):
    first = start("first")
    first.until("3")
    others = [start(f"other{number}") for number in range(2)]
    pid = first.process.pid
    for other in others:
        said = other.waits()
        assert said.startswith(f"repix: waiting for process {pid} on ") and "the same training (run key key)" in said
    assert first.result()[0] == whole
    for other in others:
        left, said = other.result()
        assert left == whole | {"first": TOTAL}
        assert said.splitlines() == [f"repix: going on after step {TOTAL}, from step-{TOTAL:09d}.npz"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_where_one_is_killed_the_next_goes_on_from_its_checkpoint(start, whole, tmp_path):
    killed = start("killed")
    killed.until(f"{PER_EPOCH + 2}")
    other = start("other")
    other.waits()
    killed.process.kill()
    left, said = other.result()
    assert left == whole | {"first": PER_EPOCH}
    assert said.splitlines() == [f"repix: going on after step {PER_EPOCH}, from step-{PER_EPOCH:09d}.npz"]
    assert not killed.out.exists()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_one_that_is_killed_while_it_waits_leaves_nothing_behind(start, whole, tmp_path):
    first = start("first")
    first.until("1")
    waiting = start("waiting")
    waiting.waits()
    waiting.process.kill()
    waiting.process.wait()
    assert first.result()[0] == whole
    assert list((tmp_path / "checkpoints").iterdir()) == []
    again = start("again").result()  # as `dvc repro --force` does
    assert again[0] == whole and again[1] == ""


def test_one_that_failed_keeps_its_checkpoints_and_lets_the_next_in(start, tmp_path):
    first = start("first")
    first.until(f"{PER_EPOCH + 1}")
    first.process.terminate()
    first.go()
    assert first.process.wait(30) == 143
    left, said = start("next").result()
    assert left["first"] == PER_EPOCH + 1
    assert "going on after step" in said
