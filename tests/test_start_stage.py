"""Parents in the pipeline: in the order that DVC runs, by a dependency that it sees, and checked beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from checks.remotes import ran
from checks.support import route
from repix import cli
from repix.cells import Cell
from repix.config import check
from repix.config.models import StartFrom
from repix.errors import UserError
from repix.farm import driver
from repix.files import digest_file, digest_tree
from repix.provenance import lock, pipeline, verify
from repix.provenance.lineage import Lineage
from repix.schemas import Start, Trained
from repix.training import parent

SHORT, LONGER = "sample-short-0", "sample-longer-0"


def lay_out(root: Path, models=("pix2pix_small", "short", "longer"), **start) -> Path:
    """Return a copy of the repository with a grid of a cell, one that is continued, and the one that continues it."""
    route.copy(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    # In what order DVC runs what does not depend on the profile, and under this one a network is traced in a quarter
    # of the time.
    tiny = params["models"]["pix2pix_small"] | {"decay_epochs": 0, "profile": "fast"}
    params["models"]["pix2pix_small"] = tiny
    go_on = {"start_from": {"model": "short", "schedule": "continue"} | start}
    params["models"]["short"] = tiny | {"epochs": 1, "keep_state": True}
    params["models"]["longer"] = tiny | {"epochs": 2} | go_on
    params["run"]["models"] = list(models)
    params["evaluate"]["swd"] = False
    params["export"]["formats"] = ["keras"]
    route.write_params(root, params)
    return root


def change(root: Path, group: str, **values) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    route.put(params, group, **values)
    route.write_params(root, params)


@pytest.fixture(scope="module")
def dvc(tmp_path_factory):
    """Return a repository of such a grid, and a function that runs DVC's `repro` there: the stages that ran."""
    root = lay_out(tmp_path_factory.mktemp("parents") / "clone")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "REPIX_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept |= {"PATH": path, "PYTHONPATH": str(root / "src"), "REPIX_TRACKING": "off", "DVC_NO_ANALYTICS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=root, env=kept, capture_output=True, text=True)

    def repro() -> tuple[list[str], str]:
        done = run("repro", "train")
        assert done.returncode == 0, done.stdout + done.stderr
        return ran(done.stdout), done.stderr

    assert run("init", "-q", "--no-scm").returncode == 0
    return root, repro


def test_a_changed_parent_retrains_its_child_in_one_repro_and_nothing_else(dvc):
    """DVC itself, four times, with five trainings, each in a process of its own: it takes as long as their start."""
    root, repro = dvc
    stages, said = repro()
    assert [name for name in stages if name.startswith("train")] == [
        "train@sample-pix2pix_small-0",
        f"train@{SHORT}",
        f"train@{LONGER}",
    ]
    assert f"{LONGER} continues {SHORT} after 1 epochs: the bits of 2 epochs in one go" in said
    assert repro()[0] == []

    change(root, "models.short", optimizer={"learning_rate": 0.0001})
    assert repro()[0] == [f"train@{SHORT}", f"train@{LONGER}"]

    record = Trained.read(root / f"runs/{LONGER}/trained.json")
    assert record.start["parent"] == SHORT
    made = Lineage.read(root / f"lineage/train/{LONGER}.json")
    assert f"starts/{LONGER}" in made.inputs and "start_from" in made.params["models.longer"]
    plain = Lineage.read(root / "lineage/train/sample-pix2pix_small-0.json")
    assert not any(name.startswith("starts/") for name in plain.inputs)
    assert "src/repix/training/start.py" in made.code and "src/repix/training/start.py" not in plain.code

    # DVC's lock is the one that our reading of dvc.yaml expects, and a parent that left the grid is not missed.
    assert [one for one in lock.stale(root) if one.stage.startswith(("start", "train"))] == []
    change(root, "run", models=["longer"])
    assert repro()[0] == []


def test_verify_makes_the_parent_before_its_child(tmp_path):
    found = pipeline.stages(lay_out(tmp_path / "clone", models=("short", "longer")))
    names = [stage.name for stage in verify.chosen(found, LONGER, "train")]
    assert names.index(f"train@{SHORT}") < names.index(f"start@{LONGER}") < names.index(f"train@{LONGER}")
    assert f"evaluate@{SHORT}" not in names


@pytest.mark.parametrize(
    ("models", "changes", "said"),
    [
        (("longer", "short"), {}, "would start from sample-short-0, which comes later in the grid"),
        (("longer",), {}, "there is no runs/sample-short-0, and the grid does not make it"),
        (
            ("longer",),
            {"start_from": {"model": "longer"}},
            "would start from itself: one has to begin elsewhere",
        ),
        (("short", "longer"), {"short": {"keep_state": False}}, "set models.short.keep_state: true"),
        (("short", "longer"), {"short": {"epochs": 2}}, "longer.epochs: 2: sample-short-0 does 2 already"),
        (
            ("short", "longer"),
            {"start_from": {"model": "short"}, "short": {"start_from": {"model": "longer"}}},
            "would start from sample-longer-0, which starts from it: one has to begin elsewhere",
        ),
        (("longer",), {"start_from": {"file": "x.npz", "networks": "generator"}}, "x.npz: no such file"),
        (("longer",), {"start_from": {"file": "pipe.npz", "networks": "generator"}}, "pipe.npz: no such file"),
        (("longer",), {"start_from": {"file": "", "networks": "generator"}}, "is empty; name a .keras or .npz file"),
        (
            ("short", "longer"),
            {"start_from": {"file": "exports/sample-short-0", "networks": "generator"}},
            "is made by this grid: name the cell: sample-short-0",
        ),
    ],
    ids=[
        "order",
        "absent",
        "itself",
        "no state",
        "epochs",
        "each other",
        "no file",
        "a pipe",
        "an empty name",
        "an export of the grid",
    ],
)
def test_what_cannot_be_a_parent_is_said_before_anything_works(tmp_path, monkeypatch, models, changes, said):
    root = lay_out(tmp_path / "clone", models=models)
    monkeypatch.chdir(root)
    os.mkfifo(root / "pipe.npz")
    if start := changes.get("start_from"):
        change(root, "models.longer", start_from=start)
    change(root, "models.short", **changes.get("short", {}))
    with pytest.raises(UserError, match=said) as caught:
        check.grid()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [None, "sample-other-0", SHORT])
def test_what_another_parent_left_is_not_taken_for_a_parent(tmp_path, monkeypatch, kept):
    """A folder in starts/ is of the parent that its record names, and of no other."""
    monkeypatch.chdir(lay_out(tmp_path / "clone", models=("longer",)))
    Start(cell=LONGER, parent=kept).write(Path("starts", LONGER, "start.json"))
    if kept == SHORT:
        return check.grid()
    with pytest.raises(UserError, match=r"there is no runs/sample-short-0"):
        check.grid()


def test_a_parent_beside_the_grid_that_kept_no_state_is_told_before_anything_works(tmp_path, monkeypatch):
    monkeypatch.chdir(lay_out(tmp_path / "clone", models=("longer",)))
    Path("runs", SHORT).mkdir(parents=True)
    Path("runs", SHORT, "trained.json").write_text("{}")
    with pytest.raises(UserError, match=r"needs the finished state of sample-short-0, which kept none"):
        check.grid()
    Path("runs", SHORT, "state.npz").touch()
    check.grid()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"weights": "best", "networks": "generator"}, "its best weights alone"),
        ({"schedule": "continue"}, "its finished state"),
        ({"moments": True}, "its finished state"),
    ],
)
def test_of_a_parent_that_is_gone_nothing_else_is_taken_than_what_is_asked_for(tmp_path, monkeypatch, asked, said):
    """Its last weights are neither its best ones nor its state."""
    monkeypatch.chdir(tmp_path)
    cell, out = Cell("sample", "longer", 0), Path("starts", LONGER)
    out.mkdir(parents=True)
    (out / "generator.npz").write_bytes(b"last")
    files = {"generator.npz": digest_file(out / "generator.npz")}
    Start(cell=LONGER, parent=SHORT, weights="last", files=files).write(out / "start.json")
    before = digest_tree(out)
    parent.fetch(cell, StartFrom(model="short", networks="generator"), out)
    with pytest.raises(UserError, match=said):
        parent.fetch(cell, StartFrom(model="short", **asked), out)
    assert digest_tree(out) == before
    (out / "generator.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not there"):
        parent.fetch(cell, StartFrom(model="short", networks="generator"), out)


def test_a_grid_with_its_parent_first_is_sound(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(lay_out(tmp_path / "clone", models=("short", "longer")))
    with pytest.raises(SystemExit) as ended:
        cli.main(["check"])
    assert (ended.value.code, capsys.readouterr().out) == (0, "all 2 cells can run\n")


def test_a_farm_makes_no_grid_whose_cells_wait_for_each_other(tmp_path):
    places = {"local": True, "repository": None, "remote": None, "shared": None}
    root = lay_out(tmp_path / "clone", models=("short", "longer"))
    with pytest.raises(UserError, match=r"start@sample-longer-0 starts from runs/sample-short-0, which this grid"):
        driver.plan_of(root, **places)
    change(root, "run", models=["longer"])
    assert driver.plan_of(root, **places).cells == [LONGER]
