"""What comes back from a worker, or lies where others can write, is a record of its stage or counts as absent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict

import pytest

from checks import remotes
from checks.support import grid
from repix import cli
from repix.errors import UserError
from repix.farm import driver, engines, merge
from repix.farm.record import Record, read_records
from repix.farm.worker import Task
from repix.files import write_json
from repix.provenance import lock
from repix.provenance.pipeline import stages

CELL = "a-m-1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository after `dvc repro`, and the records that honest workers give of it: cell -> stage -> plain data."""
    root = grid.make(tmp_path_factory.mktemp("record") / "made")
    grid.serial(root)
    entries = merge.parts((root / lock.FILE).read_text()).entries
    records = {}
    for stage in stages(root):
        if "model" in stage.item:
            files = {path: (root / path).read_text() for path in stage.in_git}
            cell = "-".join(map(str, stage.item.values()))
            records.setdefault(cell, {})[stage.name] = asdict(Record(entries[stage.name], files))
    return root, records


def own(root, cell=CELL):
    return driver.Plan(root, stages(root)).own(cell)


def test_honest_records_are_taken(made):
    root, records = made
    assert {name: asdict(record) for name, record in read_records(records[CELL], own(root)).items()} == records[CELL]


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"/tmp/elsewhere": "x"}},
        {"files": {"../elsewhere": "x"}},
        {"files": {".git/hooks/post-checkout": "x"}},
        {"files": {"metrics/a-m-1.json": 5}},
        {"files": {}},
        {"files": 5},
        {"files": None},
        {"files": [["metrics/a-m-1.json", "x"]]},
        {"remote": 5},
        {"remote": "--jobs"},
        {"entry": 5},
        {"entry": ""},
        {"more": "x"},
    ],
)
def test_a_record_that_is_none_counts_as_absent(made, changes):
    root, records = made
    name = f"evaluate@{CELL}"
    assert name in read_records({name: records[CELL][name]}, own(root))
    assert not read_records({name: records[CELL][name] | changes}, own(root))


@pytest.mark.parametrize("given", [None, 5, "x", [], [1], {"evaluate@a-m-1": None}, {"evaluate@a-m-1": []}])
def test_records_that_are_none_are_none(made, given):
    assert read_records(given, own(made[0])) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.rstrip("\n"),
        lambda text: f"{text}  train@b-m-1:\n    cmd: pwned\n",
        lambda text: text.replace("cmd: python", "cmd: &x python"),
        lambda text: text.replace("cmd: python", "cmd: !!str python"),
        lambda text: text.replace("a-m-1:", "b-m-1:", 1),
        lambda text: f"{text}other: {{}}\n",
        lambda text: f"  - {text}",
        lambda text: "[" * 100_000,
    ],
)
def test_an_entry_is_that_of_its_stage_alone(made, change):
    text = made[1][CELL][f"train@{CELL}"]["entry"]
    merge.check(text, f"train@{CELL}")
    with pytest.raises(ValueError):
        merge.check(change(text), f"train@{CELL}")


def test_no_broken_lock_comes_out_of_a_merge(made):
    text = (made[0] / lock.FILE).read_text()
    with pytest.raises(UserError, match=r"not a dvc\.lock|not laid out"):
        merge.merged(text, {f"train@{CELL}": "  train@a-m-1: [\n"}, [f"train@{CELL}"])


class Engine:
    """An engine whose workers answer what they are told to, one answer after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def start(self, command, text):
        answer = self.answers.pop(0)
        told = answer(json.loads(text)["cell"]) if callable(answer) else answer
        self.done = subprocess.CompletedProcess([], 0, told if isinstance(told, str) else json.dumps(told))
        return self

    def result(self):
        return self.done

    def cancel(self):
        pass

    def close(self):
        pass


class Quiet:
    def __init__(self, cells):
        self.said = []

    def draw(self):
        pass

    started = ended = lambda self, *given: None

    def again(self, cell, why):
        self.said.append(why)


@pytest.fixture
def unmade(made, tmp_path):
    """The repository before its cells were made, but for what they read."""
    shutil.copytree(made[0], root := tmp_path / "unmade", symlinks=True)
    head, entries, tail = merge.parts((root / lock.FILE).read_text())
    kept = {name: text for name, text in entries.items() if "-m-1" not in name}
    (root / lock.FILE).write_text(head + "".join(kept.values()) + tail)
    return root


def asked(root, *answers):
    """Return the cells after a farm of one, whose workers answer so."""
    plan = driver.Plan(root, stages(root))
    cells = driver._Cells(plan, Engine(*answers), {CELL: Task(CELL, "", "", "", "", {}, "")}, Quiet([CELL]))
    cells.run(1)
    return cells


def farm(root, *answers):
    plan = driver.plan_of(root, local=True, repository=None, remote=None, shared=None)
    return driver.run(plan, lambda: Engine(*answers), workers=1, secrets=True, screen=Quiet)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[" * 100_000,
        [],
        5,
        "x",
        {},
        {"error": 5},
        {"records": {}, "cores": 2},
        {"records": None, "cores": 2},
        {"records": {}, "cores": {}},
    ],
)
def test_an_answer_that_is_none_is_asked_for_again(made, unmade, answer):
    records = made[1]
    cells = asked(unmade, answer, {"records": records[CELL], "cores": 2})
    assert list(cells.records) == [CELL] and not cells.failed
    assert len(cells.screen.said) == 1 and "its worker's answer is none" in cells.screen.said[0]


@pytest.mark.parametrize("lacks", ["train", "evaluate", "export"])
def test_records_are_those_of_all_stages_that_dvc_lock_has_not(made, unmade, lacks):
    entry = made[1][CELL][f"{lacks}@{CELL}"]["entry"]
    fewer = {name: record for name, record in made[1][CELL].items() if not name.startswith(lacks)}
    cells = asked(unmade, {"records": fewer, "cores": 2})
    assert not cells.records and "or not all" in cells.failed[CELL]
    file = unmade / lock.FILE
    file.write_text(merge.merged(file.read_text(), {f"{lacks}@{CELL}": entry}, [f"{lacks}@{CELL}"]))
    cells = asked(unmade, {"records": fewer, "cores": 2})
    assert set(cells.records[CELL]) == set(fewer) and not cells.failed


def test_records_that_do_not_fit_fail_their_cell_at_once(made, unmade):
    """Another try would train for hours to make the same."""
    grid.put(unmade, grid.PARAMS | {"models": {"m": {"rate": 5.0}, "broken": {"rate": 1.0}}})
    cells = asked(unmade, {"records": made[1][CELL], "cores": 2})
    assert not cells.records and cells.failed[CELL].startswith("its worker made something else than params.yaml")


def test_records_of_another_cell_or_place_are_not_taken(made, unmade):
    root, records = unmade, made[1]
    stray = records[CELL] | {"../../../../stray": records[CELL][f"train@{CELL}"]}
    cells = asked(root, *({"records": given, "cores": 2} for given in (records["b-m-1"], stray) * 2))
    assert not cells.records and cells.failed[CELL].endswith("4 times") and not list(root.parent.rglob("stray*"))


def test_outs_that_have_left_the_cache_are_named_and_made_again(made, tmp_path):
    _, records = made
    root = grid.make(tmp_path / "lost")
    for name, record in records[CELL].items():
        write_json(root / ".repix" / "farm" / "cells" / CELL / f"{name}.json", record)

    def honest(cell):
        remotes.dvc(root, "repro", *(stage.name for stage in own(root, cell)))
        entries = merge.parts((root / lock.FILE).read_text()).entries
        return {"records": {name: one | {"entry": entries[name]} for name, one in records[cell].items()}, "cores": 2}

    with pytest.raises(UserError, match=rf"outs of {CELL} have left DVC's cache; the same command makes them again"):
        farm(root, honest)
    assert f"train@{CELL}" not in lock.read(root)
    assert farm(root, honest)[1] == {}
    assert lock.read(root) == lock.read(made[0])


def test_a_change_on_the_way_is_said(made, tmp_path, monkeypatch, capsys):
    """What was sent out is taken as what it is, and is not what is asked for now."""
    _, records = made
    root = grid.make(tmp_path / "changed")
    (root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {made[0] / '.dvc' / 'cache'}\n")

    def changing(cell):
        grid.put(root, grid.PARAMS | {"models": {"m": {"rate": 5.0}, "broken": {"rate": 1.0}}})
        return {"records": records[cell], "cores": 2}

    monkeypatch.chdir(root)
    monkeypatch.setattr(engines, "open_engine", lambda *given, **more: Engine(changing, changing))
    with pytest.raises(SystemExit) as ended:
        cli.main(["farm", "--workers", "1"])
    said = capsys.readouterr().out.splitlines()[-1]
    assert ended.value.code == 0 and "2 of 2 cells made; what a-m-1, b-m-1 is made of was changed on the way" in said
    assert lock.read(root) == lock.read(made[0])


def test_a_cell_whose_outs_are_nowhere_keeps_no_other_one_out_of_the_lock(made, tmp_path):
    """In a clone without its cache, whose dvc.lock holds one cell: the farm makes the other one."""
    root = grid.make(tmp_path / "clone")
    (root / lock.FILE).write_text((made[0] / lock.FILE).read_text())
    other = next(cell for cell in made[1] if cell != CELL)
    text = merge.parts((root / lock.FILE).read_text()).entries
    plan = driver.plan_of(root, local=True, repository=None, remote=None, shared=None)
    kept = {name: entry for name, entry in text.items() if not name.endswith(f"@{CELL}")}
    (root / lock.FILE).write_text(merge.merged("", kept, [stage.name for stage in plan.order]))
    records = {CELL: read_records(made[1][CELL], own(root))}

    def bring(place, remote, names):
        if any(name.endswith(f"@{other}") for name in names):
            raise UserError("not in the cache")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_bring", bring)
        # A farm of before was killed on the way; since then the cell was made by `dvc repro`, and its outs were lost.
        for journal in (False, True):
            if journal:
                write_json(plan.journal(other) / "train.json", {})
            driver.write_back(plan, records)
            assert f"train@{CELL}" in lock.read(root) and plan.journal(other).exists() == journal
        gone = driver.gone(plan)
        assert f"train@{other}" in gone
        (root / f"runs/{other}").mkdir(parents=True)  # an out that could be had
        assert driver.gone(plan) == gone  # it may be half of it, as long as there is the journal
        patch.setattr(driver, "_bring", lambda place, remote, names: None)
        driver.write_back(plan, records)
        assert driver.gone(plan) == [name for name in gone if name != f"train@{other}"]


def test_the_command_says_what_it_could_not_bring(made, tmp_path, monkeypatch, capsys):
    root = grid.make(tmp_path / "clone")
    (root / lock.FILE).write_text((made[0] / lock.FILE).read_text())
    monkeypatch.chdir(root)
    monkeypatch.setattr(driver, "run", lambda *given, **more: ([], {}))
    monkeypatch.setattr(driver, "unmade", lambda plan: iter(()))
    with pytest.raises(SystemExit) as ended:
        cli.main(["farm"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and re.search(r"outs of \w+@\S+ and \d more are not here", said), said
    assert "nothing to do" not in said
