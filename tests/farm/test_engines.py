"""What every engine keeps to; those whose package is not installed are skipped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time

import pytest

from checks.support import grid
from repix import cli
from repix.errors import UserError
from repix.farm import driver, engine_ray, engine_slurm, engines
from repix.farm.worker import Task
from repix.provenance.pipeline import stages

ECHO = "import sys; print(sys.stdin.read().upper())"
OPTIONS = {"local": {}, "ray": {}, "slurm": {"cluster": "local"}}


def ended(job, seconds: float = 60):
    """Return the result of a job, when it has one."""
    until = time.monotonic() + seconds
    while (done := job.result()) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return done


@pytest.mark.usefixtures("as_in_a_terminal")
@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_runs_commands_and_says_how_they_ended(name, tmp_path):
    package = engines.ENGINES[name][1]
    if package:
        pytest.importorskip(package)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    engine = engines.open_engine(name, cpus=1, gpus=0, folder=str(tmp_path), options=OPTIONS[name])
    try:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        long = "x" * 200_000  # more than a pipe holds
        fine, wrong, killed = (
            engine.start([sys.executable, "-c", code], text)
            for code, text in (
                (ECHO, long),
                ("raise SystemExit(3)", ""),
                ("import os; os.kill(os.getpid(), 9)", ""),
            )
        )
        done = ended(fine)
        assert (done.returncode, done.stdout.strip()) == (0, long.upper())
        assert ended(wrong).returncode == 3 and ended(killed).returncode != 0
        sleeper = engine.start([sys.executable, "-c", "import time; time.sleep(600)"], "")
        assert sleeper.result() is None
        sleeper.cancel()
        assert ended(sleeper).returncode != 0
    finally:
        engine.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository of tiny cells with a remote whose configuration holds a password."""
    root = grid.make(tmp_path_factory.mktemp("engines") / "repository")
    remote = "['remote \"store\"']\n    url = ../../store\n    user = me\n    password = 100%secret\n"
    (root / ".dvc" / "config.local").write_text(f"{remote}[cache]\n    type = hardlink\n")
    return root


def test_keys_stay_on_this_machine(root):
    here, there = (driver.config_for(root, "store", secrets=secrets) for secrets in (True, False))
    assert f"url = {root.parent / 'store'}\n" in there and "user = me" in there
    assert "100%secret" in here and "secret" not in there


def test_without_a_remote_workers_share_the_cache(root):
    text = driver.config_for(root, None, secrets=True)
    assert f"dir = {root / '.dvc' / 'cache'}\n" in text and "type = hardlink" in text and "secret" not in text


@pytest.mark.parametrize("level", ["SYSTEM", "GLOBAL"])
def test_what_dvc_is_told_of_this_machine_or_user_counts_as_well(root, tmp_path, monkeypatch, level):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / "settings"))
    (tmp_path / "settings").mkdir()
    settings = "[cache]\ndir = ~/shared\n['remote \"ours\"']\nurl = ../ours\nkeyfile = id\n"
    settings += "['remote \"within\"']\nurl = remote://store/sub\n['remote \"store\"']\nport = 22\n"
    (tmp_path / "settings" / "config").write_text(settings)
    assert f"dir = {tmp_path / 'shared'}\n" in driver.config_for(root, None, secrets=True)
    ours = driver.config_for(root, "ours", secrets=True)
    assert f"url = {tmp_path / 'ours'}\n" in ours and f"keyfile = {tmp_path / 'settings' / 'id'}\n" in ours
    store = driver.config_for(root, "store", secrets=True)
    assert f"url = {root.parent / 'store'}\n" in store and "port = 22\n" in store and "user = me\n" in store
    within = driver.config_for(root, "within", secrets=False)
    assert "url = remote://store/sub\n" in within and f"url = {root.parent / 'store'}\n" in within
    assert "secret" not in within


def test_a_file_that_stages_write_may_be_newer_than_the_commit_and_no_other(root):
    order = stages(root)
    (root / "code").mkdir()
    (root / "code" / "train.json").write_text("newer\n")
    (root / "notes.txt").write_text("mine\n")
    assert driver.uncommitted(root, order) == {"code/train.json": "newer\n"}
    for name in ("dvc.yaml", "stages/new.py"):
        file = root / name
        before = file.read_text() if file.exists() else None
        file.write_text(f"{before or ''}\n# edited\n")
        with pytest.raises(UserError, match=rf"{name} differs from HEAD.*commit it first"):
            driver.uncommitted(root, order)
        file.unlink() if before is None else file.write_text(before)


def test_a_commit_that_is_not_there_is_named(root, tmp_path, capfd):
    """The starter answers with the reason, and leaves no folder."""
    from repix.farm import start

    task = Task("a-m-1", str(root), "0" * 40, "", "", {}, "")
    given = json.loads(task.text())
    with pytest.raises(start.Refused, match="push the commit first"):
        start.clone(given, str(tmp_path))


def test_what_a_start_left_is_removed_by_the_next_and_what_one_uses_is_not(tmp_path):
    from repix.farm import start

    left, half, young, used = (tmp_path / f"{start.PREFIX}{name}" for name in ("left", "half", "young", "used"))
    for folder in (left, half, young, used):
        folder.mkdir()
        (folder / "file").touch()
    (left / "lock").touch()
    os.utime(half, (1, 1))
    with open(used / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start.clear(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([young, used])
        assert (used / "file").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "ray"], "--engine ray needs --remote NAME"),
        (["--workers", "0"], "--workers and --cpus are 1 or more"),
        (["--option", "x"], "expected KEY=VALUE"),
        (["--remote", "gone"], "no DVC remote 'gone'; `dvc remote add gone URL` makes it"),
        (["--shared", "/dev/null"], "--shared /dev/null: File exists; a folder that this machine and all workers"),
        (["--shared", "/proc/x"], "--shared /proc/x: "),
    ],
)
def test_mistakes_are_one_line(root, monkeypatch, capsys, words, said):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended_with:
        cli.main(["farm", *words])
    error = capsys.readouterr().err
    assert ended_with.value.code == 1 and error.count("\n") == 1 and said in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"garbage", "DVC's configuration cannot be read (config file error: Invalid line"),
        (b"\xff\xfe", "DVC's configuration cannot be read (config file error: 'utf-8' codec"),
        (b"[core]\n[core]\n", "DVC's configuration cannot be read (config file error: Duplicate section name"),
        (b"['remote \"store\"']\nuser = me\n", "DVC remote 'store' has no url; `dvc remote modify store url URL`"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(tmp_path, text, said):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_bytes(text)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        driver.config_for(tmp_path, "store", secrets=True)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout_min": "abc"}, "timeout_min"),
        ({"timeout_min": "-5", "stderr_to_stdout": "5"}, "stderr_to_stdout"),
        ({"nothing": "1"}, "nothing"),
    ],
)
def test_options_that_submitit_refuses_are_one_line(tmp_path, options, said):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match=f"^--engine slurm: .*{said}") as error:
        engines.open_engine("slurm", cpus=1, gpus=0, folder=str(tmp_path), options={"cluster": "local"} | options)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("name", ["tasks_per_node", "nodes", "slurm_ntasks_per_node"])
def test_a_cell_is_one_task_on_one_node(name):
    with pytest.raises(UserError, match=f"--option {name}: a cell is one task on one node"):
        engine_slurm.parameters(2, 0, {name: "2"})


def test_options_of_submitit_are_numbers_and_truths_as_yaml_has_them():
    options = {"mem_gb": "1.5", "stderr_to_stdout": "true", "timeout_min": "5", "slurm_partition": "gpu"}
    found = engine_slurm.parameters(2, 1, options)
    assert found == {"name": "repix", "cpus_per_task": 2, "gpus_per_node": 1} | {
        "mem_gb": 1.5,
        "stderr_to_stdout": True,
        "timeout_min": 5,
        "slurm_partition": "gpu",
    }
    assert engine_slurm.parameters(2, 0, {}) == {"name": "repix", "cpus_per_task": 2, "timeout_min": 24 * 60}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_an_address_at_which_no_cluster_is_is_said_at_once(address):
    with pytest.raises(UserError, match=re.escape(f"no Ray cluster at {address}: ")):
        engine_ray.require_answer(address)
    for name in ("", "auto", "local"):  # Ray's own to explain
        engine_ray.require_answer(name)


def test_a_cell_that_no_node_can_hold_is_said(tmp_path, capsys):
    pytest.importorskip("ray")
    engines.open_engine("ray", cpus=1, gpus=1000, folder=str(tmp_path), options={"address": "local"}).close()
    said = capsys.readouterr().err
    assert "no node has 1000 GPUs" in said and "CPUs" not in said


def test_a_folder_that_another_start_takes_for_one_that_was_left_is_made_anew(tmp_path, monkeypatch):
    from repix.farm import start

    monkeypatch.setattr(start.tempfile, "tempdir", str(tmp_path))
    flock, taken = fcntl.flock, []

    def late(held, how):
        if not taken:  # between the opening of its lock and the lock itself
            taken.append(True)
            start.clear(tmp_path)
        flock(held, how)

    monkeypatch.setattr(start.fcntl, "flock", late)
    folder, held = start.make()
    os.close(held)
    assert [str(path) for path in tmp_path.iterdir()] == [folder]
