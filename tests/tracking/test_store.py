"""Which store the runs go to, wherever the work is done; and stores that are not as they should be."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from repix import cli
from repix.tracking import store
from repix.tracking.mlflow_run import open_run
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "DVC_ROOT", "REPIX_TRACKING"):
        monkeypatch.delenv(name, raising=False)


def test_the_root_is_the_repository_and_not_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert store.repository_root(deep) == tmp_path
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert str(store.repository_root(deep)) == "/elsewhere"
    assert store.tracking_uri(tmp_path) == "http://server"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///./runs/a.db?timeout=9", "sqlite:///{root}/runs/a.db?timeout=9"),
        ("sqlite+pysqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:////elsewhere/a.db", "sqlite:////elsewhere/a.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("mlruns", "{root}/mlruns"),
        ("./my runs", "{root}/my runs"),
        ("/elsewhere/mlruns", "/elsewhere/mlruns"),
        ("file:my%20runs", "file://{root}/my%20runs"),
        ("file:///elsewhere", "file:///elsewhere"),
        ("http://server:5000", "http://server:5000"),
        ("postgresql://a@b/c", "postgresql://a@b/c"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("uc", "uc"),
    ],
)
def test_what_is_relative_counts_from_the_root(tmp_path, monkeypatch, given, meant):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    monkeypatch.chdir(tempfile.gettempdir())
    assert store.tracking_uri(tmp_path) == meant.format(root=tmp_path)


@pytest.mark.parametrize("given", [None, "sqlite:///mlflow.db", "sqlite:///runs/mlflow.db"])
def test_a_run_in_a_temporary_copy_lands_in_the_repositorys_database(tmp_path, monkeypatch, given):
    """As under `dvc exp run --temp`: DVC works in a copy below the repository and deletes it afterwards."""
    root, copy = tmp_path / "clone", tmp_path / "clone" / ".dvc" / "tmp" / "exps" / "tmp0"
    (copy / ".dvc").mkdir(parents=True)
    (root / "runs").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    if given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert open_run("sample-tiny-0", run_key="k", training=True)
    database = root / "runs" / "mlflow.db" if given and "runs" in given else root / "mlflow.db"
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
    assert [path.name for path in copy.iterdir()] == [".dvc"]


def test_any_character_may_be_in_the_repositorys_path(tmp_path, lay_tables):
    """In a process of their own: MLflow holds on to what it opened."""
    names = ["what?", "what?a=1", "a#b", "50%", "50%41", "a b%3Fc", "ü & é"]
    for name in names:
        (tmp_path / name).mkdir()
    for name in names[1:]:  # making them all takes long, and a database elsewhere is seen all the same
        lay_tables(tmp_path / name / "mlflow.db")
    code = (
        "import sys; import numpy as np; from pathlib import Path\n"
        "from repix.tracking.mlflow_run import open_run\n"
        "for name in sys.argv[1:]:\n"
        "    run = open_run('sample-tiny-0', run_key='k', training=True, root=Path(name))\n"
        "    run.picture(1, 'samples', np.zeros((4, 4, 3), np.uint8))\n"
        "    assert run, name\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for root in tmp_path.iterdir():
        assert sorted(path.name for path in root.iterdir()) == [".repix", "mlartifacts", "mlflow.db"]
        assert len(list((root / "mlartifacts").rglob("*.png"))) == 1


def test_an_experiment_that_was_deleted_is_one_line_that_brings_it_back(tmp_path, monkeypatch, capsys):
    assert open_run("sample-tiny-0", run_key="k", root=tmp_path)
    client, uri = store.connect(tmp_path)
    place = store.experiment_id(client, uri, tmp_path)
    client.delete_experiment(place)

    assert not open_run("sample-tiny-0", run_key="k", root=tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "MLflow's experiment repix was deleted" in said
    command = said.split("`")[3]
    assert command == f"MLFLOW_TRACKING_URI='{uri}' mlflow experiments restore --experiment-id {place}"

    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sync"])
    said = capsys.readouterr().err
    assert exit_.value.code == 1 and said.count("\n") == 1 and "was deleted: bring it back with" in said

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert open_run("sample-tiny-0", run_key="k", root=tmp_path)


def test_the_experiment_that_the_environment_names_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "my study")
    run = open_run("sample-tiny-0", run_key="k", root=tmp_path)
    found = run.client.get_experiment_by_name("my study")
    assert run.client.get_run(run.run_id).info.experiment_id == found.experiment_id
    assert found.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert run.client.get_experiment_by_name("repix") is None
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert open_run("sample-tiny-0", run_key="k", root=tmp_path).run_id != run.run_id


def test_a_database_that_may_only_be_read_is_seen_at_once():
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "mlflow.db")
        sqlite3.connect(database).execute("CREATE TABLE t (x)")
        store.check_sqlite(database)
        before = database.read_bytes()
        os.chmod(folder, 0o755)
        database.chmod(0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anything
        try:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                store.check_sqlite(database)
        finally:
            os.seteuid(user)
        assert database.read_bytes() == before
