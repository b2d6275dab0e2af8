"""One run per trained cell, in a real store; and tracking that is absent, broken or locked."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from checks.support.repository import git
from repix.schemas import Half, Manifest, Metrics, Shard, Side, Split
from repix.tracking import mlflow_run, store
from repix.tracking.mlflow_run import MLflowObserver, log_metrics_record, log_model_entry, log_pictures, open_run
from repix.training.history import Row

PLAN = {
    "cell": "sample-tiny-0",
    "steps": 8,
    "epochs": 2,
    "steps_per_epoch": 4,
    "first_step": 0,
    "parameters": {"generator": 12},
    "recipe": {"lr": 2e-4, "generator": {"kind": "unet", "filters": [64, 128]}},
}
METRICS = Metrics(
    cell="sample-tiny-0",
    weights_digest={"generator": "aa"},
    n=4,
    scores={"source_to_target": {"last": {"l1": 0.25, "ssim": 0.5, "fid": None}, "best": None}},
    protocol={"fid": {"reason": "not asked for"}},
)
PICTURE = np.full((8, 24, 3), 128, np.uint8)
NOTHING_SET = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT", "DVC_EXP_NAME", "REPIX_TRACKING")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in NOTHING_SET:
        monkeypatch.delenv(name, raising=False)
    # Also restored afterwards: connect() gives those that are not set a default.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A repository with a space in its path and one store for all tests: making one takes seconds."""
    folder = tmp_path_factory.mktemp("a clone")
    (folder / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  preprocess@sample:\n    outs:\n    - {path: data/prepared/sample, md5: abc.dir}\n"
    )
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    return folder


@pytest.fixture
def here(root, monkeypatch):
    monkeypatch.chdir(root)
    return root


def train(run, first_step=0, last_step=8):
    observer = MLflowObserver(run)
    observer.started(PLAN | {"first_step": first_step})
    for step in range(first_step + 4, last_step + 1, 4):
        observer.step_done(step)
        observer.losses(step, ["G"], np.full((4, 1), 1 / step, np.float32))
        observer.epoch_ended(step // 4, step, {"G": 1 / step})
        observer.validated(step // 4, step, {"l1": 0.5 / step})
        observer.pictures(step, "samples/source to target", PICTURE)
    return observer


def runs(run):
    """Return every run that has this run's key, as the store tells it."""
    key = run.client.get_run(run.run_id).data.tags["repix.run_key"]
    experiment = run.client.get_experiment_by_name("repix").experiment_id
    return run.client.search_runs([experiment], filter_string=f"tags.`repix.run_key` = '{key}'")


def curve(run, key):
    return [(metric.step, metric.value) for metric in run.client.get_metric_history(run.run_id, key)]


def test_a_training_leaves_one_run_with_all_of_it(here, monkeypatch, capfd):
    monkeypatch.setenv("DVC_EXP_NAME", "quick-fox")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # of somebody's shell: must not be taken for ours
    shard = Shard(file="x.npy", n=4, sha256="aa")
    half = Half(n=4, size=(8, 8), shards=(shard,), examples="x.jsonl", examples_sha256="aa")
    side = Side(channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb")
    manifest = Manifest(
        dataset="sample",
        paired=True,
        direction="BtoA",
        resize="none",
        resample="bicubic",
        load_size=(8, 8),
        crop_size=(8, 8),
        source=side,
        target=side,
        splits={"train": Split(source=half, target=half)},
    )
    run = open_run(
        "sample-tiny-0",
        run_key="whole",
        tags={"repix.seed": "0"} | mlflow_run.dvc_tags(Path(), ["data/prepared/sample", "src"]),
        dataset=mlflow_run.dataset_entry(manifest, "d" * 64, "data/prepared/sample"),
        training=True,
    )
    assert run.client.get_run(run.run_id).info.status == "RUNNING"
    train(run).finished(8)

    stored = run.client.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "quick-fox sample-tiny-0")
    assert stored.info.artifact_uri.startswith((here / "mlartifacts").as_uri())
    assert (here / "mlflow.db").is_file()
    params = stored.data.params
    assert (params["lr"], params["generator.kind"], params["generator.filters"]) == ("0.0002", "unet", "[64,128]")
    assert (params["parameters.generator"], params["steps"]) == ("12", "8")
    assert curve(run, "loss/G") == [(4, 0.25), (8, 0.125)]
    assert curve(run, "score/val/l1") == [(4, 0.125), (8, 0.0625)]
    pictures = [file.path for file in run.client.list_artifacts(run.run_id, "images") if file.path.endswith("png")]
    assert [name.split("+")[1:3] for name in sorted(pictures)] == [["step", "4"], ["step", "8"]]
    tags = stored.data.tags
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert tags["mlflow.source.git.commit"] == commit
    assert (tags["repix.experiment"], tags["repix.seed"]) == ("quick-fox", "0")
    assert (tags["repix.profile"], tags["dvc.data/prepared/sample"]) == ("portable", "abc.dir")
    assert tags["repix.cpu"] and "dvc.src" not in tags
    assert (tags["repix.dataset"], tags["repix.model"]) == ("sample", "tiny")
    assert "run key `whole`" in tags["mlflow.note.content"]
    assert [step for step, _ in curve(run, "loss_within_epoch/G")] == list(range(1, 9))
    assert stored.data.metrics["system/process_memory_usage_megabytes"] > 10
    [data] = stored.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("sample", "d" * 36)
    assert data.dataset.profile == '{"train":{"source":4,"target":4}}'
    assert capfd.readouterr().err == ""  # no migration chatter in a stage's output


def test_a_killed_run_is_taken_up_and_nothing_is_there_twice(here):
    killed = open_run("sample-tiny-0", run_key="killed", training=True)
    train(killed)  # and no more: kill -9 leaves it RUNNING at step 8, with a checkpoint of step 4
    resumed = open_run("sample-tiny-0", run_key="killed", training=True)
    train(resumed, first_step=4).finished(8)
    assert resumed.run_id == killed.run_id
    assert [run.info.status for run in runs(resumed)] == ["FINISHED"]
    assert curve(resumed, "loss/G") == [(4, 0.25), (8, 0.125)]
    assert len(resumed.client.list_artifacts(resumed.run_id, "images")) == 4  # png and webp, two steps


def test_runs_of_one_cell_are_told_apart_and_a_users_own_note_is_kept(here, monkeypatch):
    first = open_run("sample-tiny-3", run_key="ab" * 32, training=True)
    monkeypatch.setenv("DVC_EXP_NAME", "quick-fox")
    second = open_run("sample-tiny-3", run_key="cd" * 32, training=True)
    monkeypatch.delenv("DVC_EXP_NAME")
    synced = open_run("sample-tiny-3", run_key="ef" * 32, tags={"repix.experiment": "slow-owl"})
    names = [run.client.get_run(run.run_id).info.run_name for run in (first, second, synced)]
    assert names == ["abababa sample-tiny-3", "quick-fox sample-tiny-3", "slow-owl sample-tiny-3"]
    first.client.set_tag(first.run_id, "mlflow.note.content", "mine")
    open_run("sample-tiny-3", run_key="ab" * 32, training=True)
    assert first._data().tags["mlflow.note.content"] == "mine"


def test_without_psutil_there_are_no_system_metrics_and_all_else(here, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "psutil", None)
    mlflow_run._process.cache_clear()
    run = open_run("sample-tiny-0", run_key="no psutil", training=True)
    train(run).finished(8)
    found = run._data().metrics
    assert "loss/G" in found and not any(key.startswith("system/") for key in found)
    assert capfd.readouterr().err == ""


def test_evaluate_and_export_attach_and_say_the_same_thing_once(here):
    run = open_run("sample-tiny-0", run_key="attached", training=True, tags={"who": "train"})
    train(run).finished(8)
    for _ in range(2):
        later = open_run("sample-tiny-0", run_key="attached", params={"lr": 1.0}, tags={"who": "other", "new": "1"})
        log_metrics_record(later, METRICS)
        log_pictures(later, {"test": PICTURE})
        later.file(Path(__file__), "animation")
        model_id = log_model_entry(later, "sample-tiny-0", "exports/sample-tiny-0", "ee", metrics=METRICS)
    assert later.run_id == run.run_id
    assert [file.path for file in run.client.list_artifacts(run.run_id, "animation")] == [
        f"animation/{Path(__file__).name}"
    ]
    stored = run.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["lr"] == "0.0002"
    assert (stored.data.tags["who"], stored.data.tags["new"]) == ("train", "1")
    tests = {key: value for key, value in stored.data.metrics.items() if key.startswith("score/test/")}
    assert tests == {"score/test/source_to_target/last/l1": 0.25, "score/test/source_to_target/last/ssim": 0.5}
    [model] = later._models()
    assert (model.model_id, model.tags["repix.digest"], model.tags["repix.run_key"]) == (model_id, "ee", "attached")
    assert {metric.key: metric.value for metric in model.metrics} == tests
    assert [output.model_id for output in stored.outputs.model_outputs] == [model_id]
    assert "MLFLOW_TRACKING_URI" not in os.environ
    # Another export is another entry, and a new evaluation replaces the scores of both.
    log_model_entry(later, "sample-tiny-0", "exports/sample-tiny-0", "ff")
    better = {"source_to_target": {"last": {"l1": 0.125}}}
    log_metrics_record(later, METRICS.model_copy(update={"scores": better}))
    assert run.client.get_run(run.run_id).data.metrics["score/test/source_to_target/last/l1"] == 0.125
    latest = [{m.key: m.value for m in sorted(model.metrics, key=lambda m: m.timestamp)} for model in later._models()]
    assert [found["score/test/source_to_target/last/l1"] for found in latest] == [0.125, 0.125]


def test_a_store_that_was_deleted_is_rebuilt_by_the_same_functions(here):
    """What `repix sync` does: no training here, all of it from the records."""
    for _ in range(2):
        run = open_run("sample-tiny-0", run_key="synced", params=PLAN["recipe"], tags={"mlflow.source.git.commit": "c"})
        run.curve([Row(1, 4, {"loss/G": 0.25}), Row(2, 8, {"loss/G": 0.125})])
        log_metrics_record(run, METRICS)
    [stored] = runs(run)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["generator.kind"] == "unet"
    assert curve(run, "loss/G") == [(4, 0.25), (8, 0.125)]
    assert "repix.host" not in stored.data.tags  # the machine that syncs is not the one that trained


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("nan"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")]
)
def test_a_failure_is_the_runs_status(here, error, status):
    run = open_run("sample-tiny-0", run_key=f"fails {type(error).__name__}", training=True)
    MLflowObserver(run).failed(error)
    assert run.client.get_run(run.run_id).info.status == status
    again = open_run("sample-tiny-0", run_key=f"fails {type(error).__name__}", training=True)
    assert again.client.get_run(run.run_id).info.status == "RUNNING"


def test_processes_that_start_at_once_share_one_run(here, monkeypatch):
    from mlflow import MlflowClient

    create = MlflowClient.create_run

    def slow(*args, **kwargs):
        time.sleep(0.2)  # between not finding the run and creating it
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", slow)

    def start(_):
        return open_run("sample-tiny-0", run_key="race").run_id

    with ThreadPoolExecutor(4) as pool:  # a lock of a file is between open files, so threads will do
        found = set(pool.map(start, range(4)))
    assert len(found) == 1 and None not in found


def every_call(run):
    """Make every call that stages make."""
    train(run).finished(8)
    MLflowObserver(run).failed(ValueError())
    log_metrics_record(run, METRICS)
    log_pictures(run, {"test": PICTURE})
    assert log_model_entry(run, "m", "exports/x", "ee", metrics=METRICS) is None


def broken_store(kind, tmp_path, monkeypatch):
    """Arrange one way in which tracking can be broken; return what to keep alive meanwhile."""
    database = tmp_path / "mlflow.db"
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.2)
    if kind == "nobody listens":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    elif kind == "never answers":
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        return listening
    elif kind == "locked":
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        return holder
    elif kind == "not a database":
        database.write_bytes(b"garbage" * 1000)
    elif kind == "a folder":
        database.mkdir()
    elif kind == "no such folder":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none/mlflow.db")
    elif kind == "not installed":
        monkeypatch.setitem(sys.modules, "mlflow", None)
    elif kind == "nonsense":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://coop")
    return None


@pytest.mark.parametrize(
    "kind",
    [
        "nobody listens",
        "never answers",
        "locked",
        "not a database",
        "a folder",
        "no such folder",
        "not installed",
        "nonsense",
    ],
)
def test_broken_tracking_costs_seconds_and_one_line(kind, tmp_path, monkeypatch, capfd):
    import mlflow  # noqa: F401  (which alone takes seconds)

    kept = broken_store(kind, tmp_path, monkeypatch)
    began = time.monotonic()
    run = open_run("sample-tiny-0", run_key="k", training=True, params={"lr": 1}, root=tmp_path)
    every_call(run)
    assert time.monotonic() - began < 8
    assert not run and run.run_id is None
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tracking is off for sample-tiny-0, results are not affected")
    if kept:
        kept.close()


def test_a_server_that_dies_midway_is_dropped_after_one_line(here, capfd):
    run = open_run("sample-tiny-0", run_key="dies", training=True)

    class Dying:
        def __getattr__(self, name):
            raise ConnectionError("connection reset\nby peer")

    run.client = Dying()
    run.status("RUNNING")
    every_call(run)
    assert not run
    assert capfd.readouterr().err.count("\n") == 1
    # Nothing is lost: the same calls, made later, complete the same run.
    later = open_run("sample-tiny-0", run_key="dies")
    later.curve([Row(1, 4, {"loss/G": 0.25})])
    assert (later.run_id, curve(later, "loss/G")) == (run.run_id, [(4, 0.25)])


def test_tracking_that_is_switched_off_is_silent_and_imports_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REPIX_TRACKING", "off")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = open_run("sample-tiny-0", run_key="k", training=True, root=tmp_path)
    every_call(run)
    assert not run
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_dirty_is_what_people_changed_and_not_what_the_pipeline_writes(tmp_path):
    assert mlflow_run.git_tags(tmp_path) == {}  # no repository

    git(tmp_path, "init", "-q")
    (tmp_path / "metrics").mkdir()
    for name in ("dvc.lock", "metrics/a.json", "code.py"):
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    for name in ("dvc.lock", "metrics/a.json"):
        (tmp_path / name).write_text("2\n")
    assert mlflow_run.git_tags(tmp_path)["repix.git_dirty"] == "false"
    digests = set()
    for text in ("2\n", "3\n"):
        (tmp_path / "code.py").write_text(text)
        tags = mlflow_run.git_tags(tmp_path)
        assert tags["repix.git_dirty"] == "true"
        digests.add(tags["repix.git_dirty_digest"])
    assert len(digests) == 2


@pytest.mark.parametrize("text", [None, "", "<<<<<<< HEAD\n: [", "[]", "stages: {a: {outs: [{path: x}]}}"])
def test_a_dvc_lock_that_says_nothing_costs_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "dvc.lock").write_text(text)
    assert mlflow_run.dvc_tags(tmp_path, ["x"]) == {}


def test_a_servers_words_do_not_command_the_terminal(tmp_path, monkeypatch, capfd):
    """An answer of a tracking server may hold escapes that colour, move or rename."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = open_run("sample-tiny-0", run_key="k", params={}, root=tmp_path)
    capfd.readouterr()
    run.off(RuntimeError("answer: \x1b[31mboom\x1b]0;t\x07\nnext"))
    said = capfd.readouterr().err
    assert said.endswith("RuntimeError: answer: \\x1b[31mboom\\x1b]0;t\\x07 next\n") and said[:-1].isprintable()
