"""What must hold of this project before anything trains; add tests of your own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess:
    """Run a module of this Python in the project."""
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


def test_every_cell_of_params_yaml_can_run():
    checked = run("repix.cli", "check")
    assert checked.returncode == 0, checked.stderr


def test_dvc_reads_the_pipeline():
    listed = run("dvc", "stage", "list", "--name-only")
    assert listed.returncode == 0, listed.stderr
    assert {"code", "features"} <= set(listed.stdout.split())


def test_no_score_is_worse_than_the_accepted_one():
    if not (ROOT / "metrics" / "baseline.json").exists():
        pytest.skip("no score is accepted yet: `repix gate --accept`, then `repix seeds DATASET MODEL --write`")
    judged = run("repix.cli", "gate")
    assert judged.returncode == 0, judged.stdout + judged.stderr
