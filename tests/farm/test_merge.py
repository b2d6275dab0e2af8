"""dvc.lock merged as text."""

from __future__ import annotations

import io
import sys

import pytest

from repix.errors import UserError
from repix.farm import engines, merge
from repix.farm.screen import Place, Screen, place_of
from repix.provenance import lock
from repix.provenance.pipeline import stages
from repix.tables import duration
from tests.conftest import ROOT

HEAD = "schema: '2.0'\nstages:\n"
A, B, C = (f"  {name}:\n    cmd: x {name}\n    params:\n      params.yaml:\n        rate: 1e-06\n" for name in "abc")


def test_the_committed_lock_is_its_parts():
    text = (ROOT / "dvc.lock").read_text()
    found = merge.parts(text)
    assert found.head + "".join(found.entries.values()) + found.tail == text
    assert list(found.entries) == list(lock.parse(text))


def test_in_whatever_order_cells_come_back_the_lock_is_the_same():
    order = [stage.name for stage in stages(ROOT)]
    found = merge.parts((ROOT / "dvc.lock").read_text())
    kept = {name: found.entries[name] for name in reversed(found.entries)}
    assert merge.parts(merge.merged("", kept, order)).entries == found.entries
    assert list(merge.parts(merge.merged("", kept, order)).entries) == [name for name in order if name in kept]


def test_known_entries_keep_their_place_and_new_ones_come_last():
    changed = A.replace("x a", "y a")
    assert merge.merged(HEAD + C + A, {"b": B, "a": changed}, ["a", "b", "c"]) == HEAD + C + changed + B


@pytest.mark.parametrize("text", ["", "stages: {a: {cmd: x}}\n", "schema: 1\n"])
def test_another_layout_than_that_of_dvc_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="git checkout"):
        merge.parts(text)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_is_one_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"--engine {name} needs {package}.*pip install .*\[{name}\]"):
        engines.open_engine(name, cpus=1, gpus=0, folder=".", options={})


def test_engines_refuse_options_that_they_do_not_have():
    with pytest.raises(UserError, match="option x: --engine local has no options"):
        engines.open_engine("local", cpus=1, gpus=0, folder=".", options={"x": "1"})


def test_where_a_cell_is_stands_in_its_log(tmp_path):
    log = tmp_path / "log"
    assert place_of(log) == Place("")
    log.write_text("x\n" * 5000 + "Running stage 'train@a-m-0':\na-m-0: epoch 1/4, step 30/120: loss 1\n")
    assert place_of(log) == Place("train", 30, 120)
    assert place_of(log).fraction == 0.25


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_screen_shows_all_cells_and_the_time_left(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("repix.farm.screen.time.monotonic", lambda: now[0])
    terminal = Terminal()
    screen = Screen(["a-m-0", "a-m-1", "a-m-2"], terminal)
    screen.started("a-m-0", tmp_path / "none")
    (tmp_path / "log").write_text("a-m-1: epoch 1/4, step 30/120: loss 1\n")  # of an earlier try
    screen.started("a-m-1", tmp_path / "log")
    (tmp_path / "log").write_text("Running stage 'train@a-m-1':\na-m-1: epoch 1/4, step 60/120: loss 1\n")
    now[0] += 60
    screen.ended("a-m-0", None)
    screen.draw()
    assert "a-m-0: done in 60 s (1 of 3, about 72 s left)" in terminal.getvalue()
    assert "a-m-1  train  step 60/120  60 s\n1 running, 1 waiting, 1 done, about 72 s left\n" in terminal.getvalue()
    written = len(terminal.getvalue())
    screen.draw()
    assert len(terminal.getvalue()) == written  # at most once a second
    now[0] += 2
    screen.draw()
    assert terminal.getvalue()[written:].startswith("\x1b[2F\x1b[J")


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (3.2, 250, 7500)] == ["3 s", "4 min", "2.1 h"]
