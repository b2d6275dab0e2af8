"""Several processes of one training: where each stands, what they agree on, and who writes."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from repix.errors import UserError
from repix.training import loop
from repix.training.checkpoint import Checkpoint
from repix.training.gang import Alone, Place, only_one
from tests.training.test_loop import OneNumber, kept, run

SELDOM = {"checkpoint_every": 100}
NAMES = ("REPIX_PROCESSES", "REPIX_PROCESS", "REPIX_COORDINATOR", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")


@pytest.fixture
def environment(monkeypatch):
    """Return a function that sets what the environment says of processes, and nothing else of it."""

    def put(**given):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    put()
    return put


def test_where_a_process_stands(environment):
    assert Place.read() == Place(0, 1, None) and Place.read().leads
    environment(REPIX_PROCESSES="2", REPIX_PROCESS="1", REPIX_COORDINATOR="10.0.0.1:8476")
    assert Place.read() == Place(1, 2, "10.0.0.1:8476") and not Place.read().leads
    environment(SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3", REPIX_COORDINATOR="[::1]:8476")
    assert Place.read() == Place(3, 4, "[::1]:8476")
    # SLURM sets it in a job's script as well, which is no process of a step.
    environment(SLURM_PROCID="3")
    assert Place.read() == Place(0, 1, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"REPIX_PROCESSES": "two"}, "REPIX_PROCESS='0' of REPIX_PROCESSES='two'"),
        ({"REPIX_PROCESSES": "2", "REPIX_PROCESS": "2"}, "the first below the other"),
        ({"REPIX_PROCESS": "1"}, "the first below the other"),
        ({"REPIX_PROCESSES": "2"}, "REPIX_COORDINATOR: not set"),
        ({"REPIX_COORDINATOR": "host"}, "REPIX_COORDINATOR='host': HOST:PORT"),
        ({"REPIX_COORDINATOR": "10.0.0.1:8476"}, "set, and REPIX_PROCESSES is not; set both, or none to train alone"),
        ({"REPIX_PROCESSES": "9" * 5000, "REPIX_PROCESS": "1"}, "whole numbers, the first below the other"),
        ({"REPIX_COORDINATOR": "host:70000"}, "HOST:PORT"),
        ({"REPIX_COORDINATOR": ":80\x1b[2J"}, "HOST:PORT"),
        ({"REPIX_COORDINATOR": "10.0.0..1:80"}, "REPIX_COORDINATOR='10.0.0..1:80': HOST:PORT"),
        ({"REPIX_COORDINATOR": f"{'a' * 64}:80"}, "HOST:PORT"),
    ],
)
def test_a_place_that_is_none_is_one_line(environment, given, said):
    environment(**given)
    with pytest.raises(UserError) as caught:
        Place.read()
    assert said in str(caught.value) and str(caught.value).isprintable()


def test_a_backend_of_one_process_refuses_several(environment):
    assert only_one().agree(15, 0) == (15, 0)
    environment(REPIX_PROCESSES="2", REPIX_COORDINATOR="localhost:1")
    with pytest.raises(UserError, match=r"REPIX_PROCESSES: only a profile such as jax-4"):
        only_one()


class Other(Alone):
    """One of two processes, where the other asks for things at some steps and leads or not."""

    def __init__(self, leads, *, asks=(), checkpoint=None):
        self.leads, self.asks, self.checkpoint, self.asked = leads, list(asks), checkpoint, []

    def agree(self, *asked):
        self.asked.append(asked)
        theirs = self.asks.pop(0) if self.asks else (0, 0)
        return tuple(map(max, asked, theirs))

    def share(self, checkpoint):
        assert self.leads or checkpoint is None
        return checkpoint if self.leads else self.checkpoint


@pytest.mark.parametrize("leads", [True, False])
def test_a_signal_that_another_process_got_stops_all_and_the_leader_saves(tmp_path, leads):
    with pytest.raises(loop.StoppedError, match=r"stopped by SIGTERM after step 8 of 12") as caught:
        run(tmp_path, gang=Other(leads, asks=[(0, 0), (int(signal.SIGTERM), 0)]), changes=SELDOM)
    assert caught.value.exit_code == 143
    assert kept(tmp_path) == ([8] if leads else [])


def test_the_timer_of_another_process_saves(tmp_path):
    run(tmp_path, gang=Other(True, asks=[(0, 1)]), changes=SELDOM)
    assert kept(tmp_path) == [4, 12]


def test_who_does_not_lead_goes_on_from_the_leaders_state_and_leaves_nothing(tmp_path):
    (_, _), whole, _ = run(tmp_path / "whole")
    history = vars(loop.History(epochs=[{"epoch": 1, "step": 4, "learning_rate": 0.1}]))
    state = Checkpoint(4, {"g/w": np.full(1, 4, np.float32), "best/g/w": np.zeros(1, np.float32)}, history)
    (found, best), step, witness = run(tmp_path / "other", gang=Other(False, checkpoint=state))
    assert step.blocks[0][0] == 4 and step.weight == whole.weight == 12
    assert witness.heard == [("started", 4), ("finished", 12)] and list(best) == ["g/w"]
    assert len(found.epochs) == 3 and kept(tmp_path / "other") == []


def test_all_are_asked_equally_often(tmp_path):
    one, other = Other(True), Other(False)
    run(tmp_path / "a", gang=one, validate=lambda: {"score": 1.0})
    run(tmp_path / "b", gang=other)
    assert len(one.asked) == len(other.asked) == 3


def test_a_step_that_ends_early_is_asked_after(tmp_path):
    step = OneNumber()
    step.largest = 1
    gang = Other(True)
    run(tmp_path, step=step, gang=gang)
    assert len(gang.asked) == 12


def test_leaving_at_once_runs_nothing_of_the_libraries_and_keeps_the_code():
    code = """
import atexit, sys
from repix import processes, stage
from repix.errors import UserError
atexit.register(print, "waits for the others")
processes.leave_at_once(sys.argv[1] == "at once")
def fail():
    print("before")
    if sys.argv[2:]:
        raise ZeroDivisionError("ours")
    raise UserError("gone")
stage.guard(fail)
"""

    def ended(*words):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        return done.returncode, done.stdout.split("\n"), done.stderr

    assert ended("no") == (1, ["before", "waits for the others", ""], "repix: gone\n")
    assert ended("at once") == (1, ["before", ""], "repix: gone\n")
    code_, said, error = ended("at once", "a mistake of ours")
    assert (code_, said) == (1, ["before", ""]) and error.endswith("ZeroDivisionError: ours\n")


def test_a_batch_that_cannot_be_cut_is_one_line_in_the_stage_too(monkeypatch):
    """The other hosts run the stage's script alone, without the pipeline's check of params.yaml."""
    from checks.support.cells import recipe
    from repix import profile
    from repix.cells import Cell
    from repix.training.setup import set_up

    monkeypatch.setattr(profile, "current", lambda: profile.find("jax-4"))
    with pytest.raises(UserError, match="models.tiny.batch_size: 6 on 4 devices: make it a multiple of 4"):  # noqa: RUF043
        set_up(Cell("tiny", "tiny", 0), recipe(batch_size=6), None, flip=False)
