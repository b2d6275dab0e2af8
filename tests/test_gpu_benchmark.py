"""What a machine with a GPU will run: all of it at toy sizes on a CPU, and that it ends in time and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from checks.harness import ROOT, run_stage


def gpu(*words, code=0):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    return ended


def test_a_part_without_time_is_left_for_the_next_run_and_what_is_done_stays(tmp_path):
    asked = ("--tiny", "--only", "peak", "--out", tmp_path)
    assert "peak: not done" in gpu(*asked, "--seconds", 0, code=3).stdout
    assert "peak: done" in gpu(*asked).stdout
    before = (tmp_path / "peak.json").read_bytes()
    found = json.loads(before)["items"]
    assert found.keys() == {"jax", "torch"}
    assert all(value > 0 for product in found.values() for value in product.values())
    assert "peak: done" in gpu(*asked).stdout
    assert (tmp_path / "peak.json").read_bytes() == before


def test_a_worker_that_outlasts_its_part_is_ended(tmp_path):
    said = gpu("--tiny", "--only", "bits", "--out", tmp_path, "--budget", 1, code=3)
    assert "bits: fp32: time was over" in said.stderr


def test_another_part_is_refused_by_name():
    assert gpu("--only", "peek", code=1).stderr.startswith("repix: peek: is no part; there are peak, steps-1-fp32")


def test_wheels_are_the_pinned_ones():
    said = gpu("--wheels").stdout
    assert "pip download -c constraints.txt -d wheels '.[jax-cuda]'" in said
    pinned = (ROOT / "constraints.txt").read_text().split()
    named = [word for word in said.split() if "==" in word]
    assert named and set(named) <= set(pinned)


def test_a_stage_that_takes_too_long_is_asked_to_stop(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    with pytest.raises(TimeoutError, match=r"download was asked to stop after 0 s"):
        run_stage(tmp_path, "download", "sample", seconds=0.01)


def test_who_is_stopped_leaves_nothing_running(tmp_path):
    program = (
        "from pathlib import Path; from checks.harness import run_module; from repix import stage; "
        "stage.guard(lambda: run_module(Path('.'), 'http.server', '0', '--bind', '127.0.0.1'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "PYTHONUNBUFFERED": "1"}
    one = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("logs/*.log")):  # it serves
        assert time.monotonic() < deadline
        time.sleep(0.05)
    one.terminate()
    assert one.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(one.pid, 0)


@pytest.mark.slow
def test_every_part_ends_at_toy_size(tmp_path):
    asked = ("--tiny", "--out", tmp_path, "--budget", 3600)
    listed = [line.partition(":")[0] for line in gpu(*asked, "--list", code=3).stdout.splitlines()]
    said = gpu(*asked)
    assert said.stdout.splitlines() == [f"{name}: done" for name in listed]
    for name in listed:
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert record["done"] and record["items"] and not record["failed"]
    bits = json.loads((tmp_path / "bits.json").read_text())["items"]
    assert all(row["runs_equal"] and row["restored_equal"] for row in bits.values())
    facades = json.loads((tmp_path / "facades.json").read_text())["items"]
    assert facades["training"]["steps"] == 8
    assert facades["scores"]["source_to_target"]["last"]["psnr"] > 0
