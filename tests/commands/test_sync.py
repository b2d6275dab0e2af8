"""The runs come back from git, dvc.lock and outs: the same, however often and wherever it is done."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import yaml

from checks.support import postgres
from checks.support.repository import git
from repix import cli
from repix.arrays import save_arrays
from repix.data.images import write
from repix.files import digest_arrays, digest_tree
from repix.provenance import lock
from repix.provenance.lineage import Lineage
from repix.schemas import Exported, Metrics, Side, Trained
from repix.tracking import mlflow_run, store
from repix.training.history import write_losses

CELL = "tiny-pix2pix-0"
WEIGHTS = {"generator/kernel": np.ones((3, 4), np.float32), "generator/bias": np.zeros(4, np.float32)}
SIDE = Side(channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb")
DIGESTS = {"generator": digest_arrays(WEIGHTS)}
KEY = "c" * 64


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT", "DVC_EXP_NAME", "REPIX_TRACKING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def outs(tmp_path_factory):
    """What a trained, evaluated and exported cell leaves, committed."""
    root = tmp_path_factory.mktemp("sync") / "clone"
    trained = Trained(
        cell=CELL,
        dataset="tiny",
        model="pix2pix",
        seed=0,
        steps=8,
        epochs=2,
        profile={"name": "portable"},
        recipe={"optimizer": {"learning_rate": 2e-4}, "epochs": 2},
        crop_size=(8, 8),
        source=SIDE,
        target=SIDE,
        translators={"source_to_target": "generator"},
        networks=DIGESTS,
        best=None,
        data_digest="d" * 64,
        direction="AtoB",
    )
    trained.write(root / "runs" / CELL / "trained.json")
    save_arrays(root / "runs" / CELL / "last" / "generator.npz", WEIGHTS)
    Lineage(
        stage="train",
        cell=CELL,
        params={"models.pix2pix": trained.recipe, "datasets.tiny": {"flip": True}},
        inputs={"data/prepared/tiny": "d" * 64},
        code={},
        environment={},
        profile={"name": "portable"},
        run_key=KEY,
        outputs={f"runs/{CELL}": digest_tree(root / "runs" / CELL)},
    ).write(root / "lineage" / "train" / f"{CELL}.json")
    rows = [{"epoch": e, "step": 4 * e, "learning_rate": 2e-4, "g_l1": 1 / e, "val_l1": 0.5 / e} for e in (1, 2)]
    write_losses(root / "plots" / CELL / "losses.csv", rows)
    scores = {"source_to_target": {"last": {"l1": 0.25, "fid": None}, "best": None}}
    Metrics(cell=CELL, weights_digest=DIGESTS, n=2, scores=scores, protocol={}).write(root / f"metrics/{CELL}.json")
    (root / "translations" / CELL).mkdir(parents=True)
    write(root / "translations" / CELL / "source_to_target.png", np.full((8, 24, 3), 100, np.uint8))
    exported = {"cell": CELL, "variant": "last", "crop_size": (8, 8), "source": SIDE, "target": SIDE}
    exported |= {"direction": "AtoB"}
    Exported(**exported, weights=DIGESTS, bytes={}, digests={}, tolerance={}, parity="pass").write(
        root / "exports" / CELL / "export.json"
    )
    paths = [f"runs/{CELL}", f"metrics/{CELL}.json", f"exports/{CELL}"]
    listed = [{"path": path, "md5": lock.md5(root / path)} for path in paths]
    stages = {"schema": "2.0", "stages": {f"train@{CELL}": {"cmd": "x", "outs": listed}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(stages))
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "init", "-q")
    git(root, "add", "dvc.lock")
    git(root, "commit", "-qm", "recorded")
    git(root, "commit", "-qm", "later", "--allow-empty")
    return root


@pytest.fixture
def clone(outs, tmp_path, monkeypatch):
    root = tmp_path / "a clone"
    shutil.copytree(outs, root)
    monkeypatch.chdir(root)
    return root


def sync(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sync", "--json", *arguments])
    assert exit_.value.code == 0
    return json.loads(capsys.readouterr().out)


def database(root):
    """Return everything in the store as text."""
    with sqlite3.connect(root / "mlflow.db") as connection:
        return list(connection.iterdump())


def content(root, run_id):
    """Return what a run says, without ids and times."""
    client, _ = store.connect(root)
    run = client.get_run(run_id)
    curves = {  # a score that is linked to a model entry is there twice: MLflow's way
        key: sorted({(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)})
        for key in run.data.metrics
        if not key.startswith(("system/", "loss_within_epoch/"))  # which only the training saw
    }
    [model] = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    pictures = {file.path.split("+timestamp")[0] for file in client.list_artifacts(run_id, "images")}
    entry = (model.name, model.tags["repix.digest"], sorted((m.key, m.value) for m in model.metrics))
    return (run.info.run_name, run.info.status, run.data.params, run.data.tags, curves, entry, pictures)


def test_a_run_is_rebuilt_whole_and_a_second_sync_changes_nothing(clone, capsys):
    first = sync(capsys)["runs"]
    run = content(clone, first[CELL])
    before = database(clone)
    assert sync(capsys)["runs"] == first
    assert database(clone) == before

    name, status, params, tags, curves, entry, pictures = run
    assert (name, status) == (f"{KEY[:7]} {CELL}", "FINISHED")
    assert params["models.pix2pix.optimizer.learning_rate"] == params["optimizer.learning_rate"] == "0.0002"
    assert (params["dataset"], params["model"], params["seed"]) == tuple(CELL.split("-"))
    assert params["crop_size"] == "[8,8]"
    assert (params["parameters.generator"], params["steps"], params["steps_per_epoch"]) == ("16", "8", "4")
    assert curves["loss/g_l1"] == [(4, 1.0), (8, 0.5)] and curves["score/val/l1"] == [(4, 0.5), (8, 0.25)]
    assert curves["score/test/source_to_target/last/l1"] == [(0, 0.25)]
    assert not any(key.startswith("loss/val") for key in curves)
    assert entry[2] == [("score/test/source_to_target/last/l1", 0.25)]
    assert pictures == {"images/test~source_to_target+step+8"}
    assert tags["mlflow.source.git.commit"] == git(clone, "rev-parse", "HEAD~1").strip()  # that recorded it
    assert tags[f"dvc.runs/{CELL}"] == lock.md5(clone / "runs" / CELL)
    assert "repix.host" not in tags  # the machine that syncs is not the one that trained

    # The database is deleted, and its artifacts: the same run comes back.
    (clone / "mlflow.db").unlink()
    shutil.rmtree(clone / "mlartifacts")
    assert content(clone, sync(capsys)["runs"][CELL]) == run


def test_on_postgresql_as_on_sqlite(clone, capsys, monkeypatch):
    if lacks := postgres.missing():
        pytest.skip(lacks)
    here = content(clone, sync(capsys)["runs"][CELL])
    with postgres.postgres("mlflow") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        first = sync(capsys)["runs"]
        assert content(clone, first[CELL]) == here
        assert sync(capsys)["runs"] == first


def test_a_training_that_tracked_and_one_that_did_not_leave_the_same_curves_and_params(clone, capsys):
    run = mlflow_run.open_run(CELL, run_key=KEY, training=True, params={"flip": True, "crop_size": (8, 8)})
    observer = mlflow_run.MLflowObserver(run)
    plan = {"parameters": {"generator": 16}, "steps": 8, "epochs": 2, "steps_per_epoch": 4}
    observer.started(plan | {"recipe": {"optimizer": {"learning_rate": 2e-4}, "epochs": 2}})
    observer.losses(4, ["g_l1"], np.ones((4, 1), np.float32))
    observer.epoch_ended(1, 4, {"learning_rate": 2e-4, "g_l1": 1.0})  # and then the server died
    [run_id] = sync(capsys)["runs"].values()
    assert run_id == run.run_id
    tracked = content(clone, run_id)
    (clone / "mlflow.db").unlink()
    rebuilt = content(clone, sync(capsys)["runs"][CELL])
    assert tracked[:3] == rebuilt[:3] and tracked[4:] == rebuilt[4:]


def test_runs_whose_process_is_gone_are_closed_and_others_left(clone, capsys):
    living = mlflow_run.open_run("living", run_key="1", training=True)
    gone, elsewhere = (mlflow_run.open_run(name, run_key=name, training=True) for name in ("gone", "elsewhere"))
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    name = mlflow_run.process_name(child.pid)
    child.wait()
    gone.tags({"repix.process": name})
    elsewhere.tags({"repix.host": "another", "repix.process": name})
    found = sync(capsys)
    assert (found["closed"], found["running_elsewhere"]) == (["gone gone"], ["elsewhe elsewhere"])
    status = {run.cell: run.client.get_run(run.run_id).info.status for run in (living, gone, elsewhere)}
    assert status == {"living": "RUNNING", "gone": "KILLED", "elsewhere": "RUNNING"}


def test_scores_and_exports_of_other_weights_are_left_out(clone, capsys):
    path = clone / f"metrics/{CELL}.json"
    Metrics.read(path).model_copy(update={"weights_digest": {"generator": "0" * 64}}).write(path)
    export = clone / "exports" / CELL / "export.json"
    Exported.read(export).model_copy(update={"weights": {"generator": "0" * 64}}).write(export)
    with pytest.raises(SystemExit):
        cli.main(["sync", "--json"])
    said = capsys.readouterr()
    assert "metrics are of other weights" in said.err
    client, _ = store.connect(clone)
    run = client.get_run(json.loads(said.out)["runs"][CELL])
    assert not any(key.startswith("score/test/") for key in run.data.metrics)
    assert not run.outputs.model_outputs


def test_what_only_an_experiment_recorded_has_its_name(clone):
    git(clone, "checkout", "-q", "--orphan", "other")
    git(clone, "commit", "-qm", "exp")
    git(clone, "update-ref", "refs/exps/ab/cdef/quick-fox", "HEAD")
    experiment = git(clone, "rev-parse", "HEAD").strip()
    git(clone, "rm", "-q", "--cached", "dvc.lock")
    git(clone, "checkout", "-q", "--orphan", "main2")
    git(clone, "commit", "-qm", "fresh", "--allow-empty")
    md5 = lock.md5(clone / "runs" / CELL)
    tags = mlflow_run.recorded_tags(clone, md5)
    assert (tags["mlflow.source.git.commit"], tags["repix.experiment"]) == (experiment, "quick-fox")
    working = mlflow_run.recorded_tags(clone, "0" * 32)
    assert working["mlflow.source.git.commit"] == git(clone, "rev-parse", "HEAD").strip()
    assert working["repix.git_dirty"] == "true"


def missing(clone):
    (clone / "lineage" / "train" / f"{CELL}.json").unlink()


def other_weights(clone):
    path = clone / "runs" / CELL / "last" / "generator.npz"
    save_arrays(path, WEIGHTS | {"generator/bias": np.ones(4, np.float32)})


@pytest.mark.parametrize(
    ("deed", "said"),
    [(missing, "not there, so the run"), (other_weights, f"tells of other weights than runs/{CELL}; `dvc checkout`")],
)
def test_a_run_without_its_lineage_is_left_out_with_one_line(clone, capsys, deed, said):
    """The others are synced, and the exit code tells; stages that attach go on without tracking."""
    for folder in ("runs", "lineage/train"):
        other = shutil.copytree(clone / folder, clone / "other" / folder)
        for path in other.rglob(f"*{CELL}*"):
            path.rename(path.with_name(path.name.replace(CELL, "other-pix2pix-0")))
    moved = clone / "other" / "runs" / "other-pix2pix-0"
    Trained.read(moved / "trained.json").model_copy(update={"cell": moved.name}).write(moved / "trained.json")
    record = clone / "other" / "lineage" / "train" / f"{moved.name}.json"
    Lineage.read(record).model_copy(
        update={"cell": moved.name, "run_key": "e" * 64, "outputs": {f"runs/{moved.name}": digest_tree(moved)}}
    ).write(record)
    shutil.copytree(clone / "other", clone, dirs_exist_ok=True)

    deed(clone)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sync", "--json"])
    heard = capsys.readouterr()
    found = json.loads(heard.out)
    assert (exit_.value.code, list(found["runs"]), found["left_out"]) == (1, [moved.name], [CELL])
    assert heard.err.count("\n") == 1
    assert heard.err.startswith(f"repix sync: {CELL} is left out: lineage/train/{CELL}.json")
    assert said in heard.err

    run = mlflow_run.run_of(CELL, digest_tree(clone / "runs" / CELL))
    heard = capsys.readouterr().err
    assert not run and heard.count("\n") == 1 and said in heard
    client, uri = store.connect(clone)
    place = store.experiment_id(client, uri, clone)
    assert [run.data.tags["repix.cell"] for run in client.search_runs([place])] == [moved.name]


def test_mistakes_are_one_line(clone, capsys, monkeypatch):
    for arguments, environment, said in (
        (["none-such-0"], {}, "runs/none-such-0: no trained cell; there are tiny-pix2pix-0"),
        ([], {"REPIX_TRACKING": "off"}, "REPIX_TRACKING is off"),
    ):
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["sync", *arguments])
        error = capsys.readouterr().err
        assert exit_.value.code == 1 and said in error and error.count("\n") == 1


def test_a_broken_store_is_said(clone, capsys):
    (clone / "mlflow.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sync"])
    assert exit_.value.code == 1
    assert "mend the store and sync again" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "epoch,step,g_l1\n"])
def test_a_table_without_rows_is_left_out_with_one_line(clone, capsys, text):
    (clone / "plots" / CELL / "losses.csv").write_text(text)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sync"])
    assert exit_.value.code == 1
    said = f"repix sync: {CELL} is left out: plots/{CELL}/losses.csv: has no rows; `dvc checkout` brings it back\n"
    assert said in capsys.readouterr().err
