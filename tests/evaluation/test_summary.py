"""The small table of scores: the same names whatever was trained, and never the scores of other weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from repix.cells import Cell
from repix.errors import UserError
from repix.evaluation.summary import checked, summary, whereabouts
from repix.schemas import Metrics

ROOT = Path(__file__).resolve().parents[2]


def record(name: str, scores, digests=None) -> tuple[Cell, Metrics]:
    dataset, model, seed = name.split("-")
    metrics = Metrics(cell=name, weights_digest=digests or {"generator": "aa"}, n=4, scores=scores, protocol={})
    return Cell(dataset, model, int(seed)), metrics


def forth(**variants):
    return {"source_to_target": variants}


def test_two_seeds_have_the_columns_of_one_and_the_mean_of_both():
    one = record("a-m-0", forth(last={"l1": 0.25, "psnr": 10.0, "fid": None}, best={"l1": 9.0}))
    two = record("a-m-7", forth(last={"l1": 0.75, "psnr": 20.0, "fid": None}, best=None))
    assert summary([one]) == {"l1": 0.25, "psnr": 10.0}
    assert summary([one, two]) == {"l1": 0.5, "psnr": 15.0}


def test_the_average_of_the_weights_is_shown_where_there_is_one():
    assert summary([record("a-m-0", forth(ema={"l1": 1.0}, last={"l1": 2.0}))]) == {"l1": 1.0}


def test_the_way_back_and_several_models_have_groups_of_their_own():
    both = forth(last={"swd": 1.0}) | {"target_to_source": {"last": {"swd": 2.0}}}
    assert summary([record("a-c-0", both)]) == {"swd": 1.0, "target_to_source": {"swd": 2.0}}
    tables = summary([record("a-c-0", both), record("a-m-0", forth(last={"l1": 3.0}))])
    assert tables == {"a-c": {"swd": 1.0, "target_to_source": {"swd": 2.0}}, "a-m": {"l1": 3.0}}


def test_a_metric_that_one_seed_lacks_is_left_out():
    cells = [record("a-m-0", forth(last={"l1": 1.0, "fid": 2.0})), record("a-m-1", forth(last={"l1": 1.0}))]
    assert summary(cells) == {"l1": 1.0}


def test_scores_of_other_weights_are_refused():
    _, metrics = record("a-m-0", forth(last={"l1": 1.0}), {"generator": "aa", "ema/generator": "bb"})
    assert checked(metrics, {"generator": "aa", "discriminator": "cc"}, "x") is metrics
    with pytest.raises(UserError, match="x: holds the scores of other weights"):
        checked(metrics, {"generator": "dd"}, "x")


def test_the_end_of_a_run_says_where_its_results_are():
    said = "\n".join(whereabouts(["a-m-0"]))
    for part in ("repix results a-m-0", "translations/a-m-0/index.html", "exports/a-m-0/", "repix translate a-m-0 "):
        assert part in said


def test_the_stage_writes_the_grid_s_cells_and_no_others(tmp_path):
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["run"] |= {"datasets": ["a"], "models": ["m"], "seeds": [0, 1]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def play():
        return subprocess.run(
            [sys.executable, "stages/scores.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for name, value in (("a-m-0", 1.0), ("a-m-1", 2.0), ("a-m-2", 100.0)):
        record(name, forth(last={"l1": value}))[1].write(tmp_path / f"metrics/{name}.json")
    ended = play()
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "metrics/scores.json").read_text()) == {"l1": 1.5}
    assert ended.stdout == "2 cells  repix results; translations/<cell>/index.html; exports/<cell>/\n"
    (tmp_path / "metrics/a-m-1.json").unlink()
    ended = play()
    assert ended.returncode and ended.stderr.strip().splitlines()[-1].startswith("repix: ")
    assert "metrics/a-m-1.json: no such file" in ended.stderr and "Traceback" not in ended.stderr
