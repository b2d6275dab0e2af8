"""Cells made on an engine: the same dvc.lock as `dvc repro`, whatever is killed on the way, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from checks import remotes
from checks.support import grid
from checks.support.repository import git
from repix.errors import UserError
from repix.farm.start import PREFIX
from repix.farm.worker import Task, _Worker
from tests.conftest import ROOT

SECONDS = 300  # a bound of what hangs, not of what is slow


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The dvc.lock and the files that `dvc repro` alone leaves, for two data sets."""
    root = grid.make(tmp_path_factory.mktemp("farm") / "serial")
    return grid.serial(root), grid.files(root)


class Farm:
    """A repository, and `repix farm` under way in it with everything temporary below one folder."""

    def __init__(self, base: Path):
        self.root = grid.make(base / "repository")
        self.temporary, self.hold, self.started = base / "tmp", base / "hold", base / "started"
        self.temporary.mkdir()
        self.hold.mkdir()
        self.started.touch()

    def start(self, *arguments: str) -> subprocess.Popen:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "REPIX_"))}
        kept |= {"TMPDIR": str(self.temporary), "FARM_HOLD": str(self.hold), "FARM_STARTED": str(self.started)}
        kept["PYTHONPATH"] = f"{ROOT / 'src'}"
        pipe = subprocess.PIPE
        return subprocess.Popen(grid.farm(*arguments), cwd=self.root, env=kept, stdout=pipe, stderr=pipe, text=True)

    def reached(self, cell: str, step: int, *running: subprocess.Popen) -> None:
        """Wait until a cell's training waits before a step."""
        until = time.monotonic() + SECONDS
        while not (self.hold / f"{cell}-{step}.reached").exists():
            assert all(process.poll() is None for process in running), running[0].communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def attempts(self, cell: str) -> list[int]:
        """Return the checkpoints that each training of a cell began from."""
        return [int(line.split()[1]) for line in self.started.read_text().splitlines() if line.split()[0] == cell]

    def training(self, cell: str) -> int:
        """Return the process of a cell's last training."""
        return [int(line.split()[2]) for line in self.started.read_text().splitlines() if line.split()[0] == cell][-1]

    def worker(self, cell: str) -> int:
        """Return the process of the worker that a cell's training runs under."""
        pid = self.training(cell)
        while b"repix.farm.worker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            pid = parent(pid)
        return pid

    def leftovers(self) -> list[str]:
        """Return what is left in the temporary folder, below .repix, and of processes."""
        found = [
            str(path) for place in (self.temporary, self.root / ".repix") for path in place.rglob("*") if path.is_file()
        ]
        found += [path.name for path in self.temporary.glob(f"{PREFIX}*")]
        return found + [line for line in self.started.read_text().split("\n") if line and alive(int(line.split()[2]))]


def parent(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> None:
    """Wait until a process is gone."""
    until = time.monotonic() + SECONDS
    while alive(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_killed_workers_go_on_from_their_checkpoints_and_dvc_lock_is_that_of_dvc_repro(serial, tmp_path):
    """Through a DVC remote: the worker, its starter and the training itself are killed."""
    farm = Farm(tmp_path)
    (farm.root / ".dvc" / "config.local").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    )
    kills = [(0, farm.worker), (2, lambda cell: parent(farm.worker(cell))), (3, farm.training)]
    for step, _ in kills:
        (farm.hold / f"a-m-1-{step}").touch()
    driver = farm.start("--workers", "2", "--remote", "store")
    for step, victim in kills:
        farm.reached("a-m-1", step, driver)
        last, pid = farm.training("a-m-1"), victim("a-m-1")
        os.kill(pid, signal.SIGKILL)
        gone(last)
        (farm.hold / f"a-m-1-{step}").unlink()
    out, err = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, err
    assert "2 of 2 cells made" in out
    starts = farm.attempts("a-m-1")
    assert starts == [0, 0, 2, 3]
    assert (farm.root / "dvc.lock").read_bytes() == serial[0]
    assert grid.files(farm.root) == serial[1]
    assert remotes.ran(remotes.dvc(farm.root, "repro")) == []
    assert (farm.root / "dvc.lock").read_bytes() == serial[0]
    assert farm.leftovers() == []


def test_a_killed_driver_leaves_nothing_running_and_the_next_goes_on(serial, tmp_path):
    """Where workers share the cache: one cell is finished, the other is at a checkpoint, when the driver is killed."""
    farm = Farm(tmp_path)
    (farm.hold / "b-m-1-2").touch()
    driver = farm.start("--workers", "1")
    farm.reached("b-m-1", 2, driver)
    second = farm.start()
    said = second.communicate(timeout=SECONDS)[1]
    assert second.returncode == 1 and said.count("\n") == 1 and "another `repix farm` runs" in said
    before = (farm.root / "dvc.lock").read_bytes()
    driver.kill()
    gone(farm.training("b-m-1"))
    (farm.hold / "b-m-1-2").unlink()
    assert b"train@" not in before and (farm.root / "dvc.lock").read_bytes() == before
    driver = farm.start("--workers", "2")
    err = driver.communicate(timeout=SECONDS)[1]
    assert driver.returncode == 0, err
    assert farm.attempts("a-m-1") == [0] and farm.attempts("b-m-1") == [0, 2]
    assert (farm.root / "dvc.lock").read_bytes() == serial[0]
    assert grid.files(farm.root) == serial[1]
    assert farm.leftovers() == []


@pytest.mark.parametrize("after", ["through a remote", "by dvc repro", "after dvc gc"])
def test_what_a_local_farm_left_is_no_hindrance_to_who_goes_on_otherwise(after, serial, tmp_path):
    """It was killed with a cell half done, whose outs are in this machine's cache alone."""
    farm = Farm(tmp_path)
    url = tmp_path / "store"
    (farm.root / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {url}\n")
    driver, kept = farm.start("--workers", "1"), farm.root / ".repix/farm/cells/a-m-1"
    until = time.monotonic() + SECONDS
    while not list(kept.glob("*.json")):
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    driver.kill()
    gone(farm.training("a-m-1"))
    assert len(list(kept.glob("*.json"))) < 3
    if after == "by dvc repro":
        remotes.dvc(farm.root, "repro")
        out, err = (driver := farm.start()).communicate(timeout=SECONDS)
        assert "no cell to make" in out, err
    elif after == "after dvc gc":  # which takes what no dvc.lock names
        while list(farm.temporary.glob(f"{PREFIX}*")):  # its worker lives a moment longer, and may finish the cell
            assert time.monotonic() < until
            time.sleep(0.05)
        (kept / "export@a-m-1.json").unlink(missing_ok=True)
        remotes.dvc(farm.root, "gc", "--workspace", "--force")
        out, err = (driver := farm.start()).communicate(timeout=SECONDS)
        assert "2 of 2 cells made" in out, err
        assert farm.attempts("a-m-1") == [0, 0]
    else:
        out, err = (driver := farm.start("--workers", "2", "--remote", "store")).communicate(timeout=SECONDS)
        assert "2 of 2 cells made" in out, err
    assert driver.returncode == 0
    assert (farm.root / "dvc.lock").read_bytes() == serial[0]
    assert grid.files(farm.root) == serial[1]
    assert farm.leftovers() == []


def test_a_cell_that_a_local_farm_finished_is_taken_by_who_goes_on_through_a_remote(serial, tmp_path):
    farm = Farm(tmp_path)
    (farm.root / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    (farm.hold / "b-m-1-2").touch()
    driver = farm.start("--workers", "1")
    farm.reached("b-m-1", 2, driver)
    driver.kill()
    gone(farm.training("b-m-1"))
    (farm.hold / "b-m-1-2").unlink()
    err = (driver := farm.start("--remote", "store")).communicate(timeout=SECONDS)[1]
    assert driver.returncode == 0, err
    assert farm.attempts("a-m-1") == [0] and farm.attempts("b-m-1") == [0, 2]
    assert (farm.root / "dvc.lock").read_bytes() == serial[0]
    assert grid.files(farm.root) == serial[1]
    assert farm.leftovers() == []


def test_what_dvc_says_is_told_with_its_reason(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("ERROR: failed to run: python stages/train.py, exited with 143\n")  # of a try before

    def failing(arguments):
        with log.open("a") as stream:
            stream.write("Fetching\nERROR: failed to pull data from the cloud - Checkout failed for:\nruns/a-m-1\nHm\n")
        return 1

    monkeypatch.setattr("dvc.cli.main", failing)
    worker = _Worker.__new__(_Worker)
    worker.task = Task("a-m-1", "", "", "", "", {}, "", log=str(log))
    with pytest.raises(UserError, match=r"^pull: ERROR: failed to pull .* Checkout failed for: runs/a-m-1$"):
        worker.dvc("pull", "pull")


def test_what_cannot_be_made_is_named_and_the_rest_is_made(tmp_path):
    farm = Farm(tmp_path)
    grid.put(farm.root, grid.PARAMS | {"run": {"datasets": ["a"], "models": ["broken", "m"], "seeds": [0]}})
    out, err = (driver := farm.start("--workers", "2")).communicate(timeout=SECONDS)
    assert (driver.returncode, out) == (1, "")
    assert err == "repix farm: params.yaml differs from HEAD, and workers clone what is committed: commit it first\n"
    grid.commit(farm.root)
    out, err = (driver := farm.start("--workers", "2")).communicate(timeout=SECONDS)
    assert (driver.returncode, out) == (1, "1 of 2 cells made, 1 failed\n")
    told = [line for line in err.splitlines() if line.startswith("repix farm: a-broken-0: ")]
    assert len(told) == 1 and "repix: this model cannot be trained; all of it: " in told[0]
    assert "step 4/4" in Path(told[0].rpartition(": ")[2]).read_text()
    assert set(grid.files(farm.root)) >= {"metrics/a-m-0.json", "exports/a-m-0"}
    assert git(farm.root, "status", "--porcelain") == "?? code/\n?? dvc.lock\n?? metrics/\n"
