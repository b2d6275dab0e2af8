"""``repix seeds`` with stages that cost nothing: arguments, table, files."""

from __future__ import annotations

import json
import os

import pytest

from repix import cli
from repix.commands.seeds import parse_seeds
from repix.errors import UserError
from repix.regression import tolerance
from repix.studies import seed_study
from tests.studies.test_seed_study import Runner, root  # noqa: F401


@pytest.fixture
def run(root, monkeypatch):  # noqa: F811
    """Run the command in a repository; the stages are stood for."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("REPIX_TRACKING", "off")
    monkeypatch.setattr(seed_study.run, "__kwdefaults__", {"workers": 1, "runner": Runner()})

    def call(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["seeds", "toy", "net", *words])
        return ended.value.code

    return call


def test_seeds():
    assert parse_seeds("0-3") == (0, 1, 2, 3) and parse_seeds("7, 1-2,1") == (1, 2, 7)
    for wrong in ("", "a", "3-1", "-1", "1-", "1-99999999999", "0-2147483648", "0-1000", "0-600,700-1500", "9" * 5000):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(wrong)


def test_write(run, root, capsys):  # noqa: F811
    assert run("--seeds", "0-4", "--write", "--workers", "0") == 1
    assert "--workers is 1 or more" in capsys.readouterr().err
    assert run("--seeds", "0-4", "--write", "--workers", "2") == 0
    said = capsys.readouterr().out
    assert "toy-net: 5 seeds, n = 4, profile portable" in said and "4 of 4 green" in said
    family = tolerance.read_tolerances(root / "metrics/tolerances.json").families["toy-net"]
    assert family.k == 5 and family.scores["source_to_target"]["last"]["ssim"].mean == pytest.approx(0.52)
    assert len((root / "metrics/spread-toy-net.csv").read_text().splitlines()) == 16


def test_the_spread_can_be_drawn_again_without_training(run, root, capsys, monkeypatch):  # noqa: F811
    assert run("--draw") == 1 and "nothing of toy-net" in capsys.readouterr().err
    run("--seeds", "0-4", "--write")
    files = [root / f"metrics/spread-toy-net.{suffix}" for suffix in ("csv", "png")]
    first = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    monkeypatch.setattr(seed_study, "run", None)
    assert run("--draw") == 0 and run("--draw", "--write") == 1
    assert [file.read_bytes() for file in files] == first and first[1].startswith(b"\x89PNG")


def test_writing_keeps_the_other_families(run, root):  # noqa: F811
    run("--seeds", "0-1", "--write")
    file = root / "metrics/tolerances.json"
    found = tolerance.read_tolerances(file).families["toy-net"]
    tolerance.Tolerances(families={"a-b": found}).write(file)
    run("--seeds", "0-2", "--write")
    assert {name: f.k for name, f in tolerance.read_tolerances(file).families.items()} == {"a-b": 2, "toy-net": 3}


def test_tolerances_that_cannot_be_added_to_are_told_before_anything_is_trained(run, root, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(seed_study, "run", None)
    (root / "metrics").mkdir(exist_ok=True)
    (root / "metrics/tolerances.json").write_text("<<<<<<< HEAD\n")
    assert run("--seeds", "0-1", "--write") == 1
    said = capsys.readouterr().err
    assert "`repix seeds DATASET MODEL --write`, once it is removed, makes it anew" in said and said.count("\n") == 1


def test_without_write_metrics_are_left_alone(run, root, capsys):  # noqa: F811
    assert run("--seeds", "0-1", "--quick", "--json") == 0
    assert json.loads(capsys.readouterr().out)["toy-net"]["params"]["models.net"]["epochs"] == 1
    assert not (root / "metrics").exists()


def test_the_seeds_of_params_yaml_are_the_default(run, capsys):
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out)["toy-net"]["k"] == 10


def test_in_mlflow_the_seeds_are_nested_under_the_study(root, monkeypatch):  # noqa: F811
    from repix.tracking import mlflow_run, store

    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "REPIX_TRACKING", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    pipelines = mlflow_run.open_run("toy-net-0", run_key="key of seed 0", training=True, root=root)

    class Tracked(Runner):
        """Opens a run as the stages do, in the study's folder and with the key that the pipeline's cell has too."""

        def __call__(self, folder, stage, cell):
            with monkeypatch.context() as patched:
                patched.setenv("DVC_ROOT", str(folder.resolve()))
                key = f"key of seed {cell.seed}"
                assert mlflow_run.open_run(cell.name, run_key=key, training=stage == "train")
            super().__call__(folder, stage, cell)

    monkeypatch.setattr(seed_study.run, "__kwdefaults__", {"runner": Tracked()})
    for _ in range(2):  # the second goes on where there is nothing to do
        with pytest.raises(SystemExit) as ended:
            cli.main(["seeds", "toy", "net", "--seeds", "0-2"])
        assert ended.value.code == 0
    assert mlflow_run.PARENT_RUN not in os.environ and "MLFLOW_TRACKING_URI" not in os.environ
    client, uri = store.connect(root)
    runs = client.search_runs([store.experiment_id(client, uri, root)])
    [parent] = [run for run in runs if run.data.tags["repix.cell"] == "toy-net"]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["repix.seed"] for run in nested) == ["0", "1", "2"]
    assert {run.info.status for run in [parent, *nested]} == {"FINISHED"}
    assert parent.data.metrics["score/test/source_to_target/last/ssim mean"] == pytest.approx(0.51)
    assert parent.data.tags["repix.profile"] == "portable"  # the cells', not that of `repix seeds`
    assert "nested under this one" in parent.data.tags["mlflow.note.content"]
    assert [run.info.run_id for run in runs if run not in [parent, *nested]] == [pipelines.run_id]

    monkeypatch.setattr(seed_study.run, "__kwdefaults__", {"runner": Tracked(fail_at=3)})
    with pytest.raises(SystemExit):
        cli.main(["seeds", "toy", "net", "--seeds", "0-3"])
    assert client.get_run(parent.info.run_id).info.status == "FAILED"


def test_mistakes(run, capsys):
    assert run("--quick", "--write") == 1 and "--quick" in capsys.readouterr().err
    assert run("--seeds", "3") == 1 and "two seeds or more" in capsys.readouterr().err
