"""A metric of one's own, as docs/your-own.md says: that file, that line, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import repix
from repix.config import reader
from repix.config.evaluation import Evaluate
from repix.errors import UserError
from repix.metrics import NAMES
from repix.provenance.code import Closure
from tests.conftest import ROOT

NAME = "ownrmse"  # the page says rmse

USE = """
import json, sys
from pathlib import Path

import numpy as np

from repix import profile

profile.apply("portable")
from checks import agreement
from repix.config import reader
from repix.config.evaluation import Evaluate
from repix.config.gate import Gate
from repix.data.prepared import Prepared
from repix.demo import catalogue
from repix.evaluation.evaluate import evaluate
from repix.exporting import cards
from repix.inference.trained import TrainedModel
from repix.regression import report, tolerance
from repix.regression.gate import Verdict

trained, prepared, out = map(Path, sys.argv[1:])


def scored(folder, **asked):
    settings = reader.parse(asked, Evaluate, "evaluate")
    return evaluate(TrainedModel(trained), Prepared.open(prepared), settings, out / folder)


on, off = scored("on"), scored("off", ownrmse=False)
assert off.scores["source_to_target"]["last"]["ownrmse"] is None
assert off.protocol["ownrmse"]["reason"] == "not asked for (evaluate.ownrmse)"
scores = on.scores["source_to_target"]["last"]
assert np.isclose(scores["psnr"], -20 * np.log10(scores["ownrmse"]), rtol=0.05)  # equal but for the mean over images
assert on.protocol["ownrmse"]["definition"].startswith("root of the mean")
low, high = on.protocol["description"]["source_to_target"]["last"]["ownrmse"]["ci95"]
assert low <= scores["ownrmse"] <= high
assert "ownrmse" in (out / "on" / "source_to_target.csv").read_text().splitlines()[0].split(",")
page = (out / "on" / "index.html").read_text()
assert '<option value="ownrmse -1">ownrmse, worst first</option>' in page and 'data-metric="ownrmse"' in page
rows = [row for row in cards._scores(on) if row[:4] == ("source_to_target", "last", "ownrmse", "lower")]
assert len(rows) == 1
assert "| `ownrmse` " in agreement.protocol_table()
gated = reader.parse({"metrics": ["ownrmse"]}, Gate, "gate")
assert tolerance.is_gated("last", "ownrmse", gated) and not tolerance.is_gated("last", "l1", gated)
assert tolerance.is_worse("ownrmse", 0.1, 0.2, 0.05) and not tolerance.is_worse("ownrmse", 0.2, 0.1, 0.05)
assert report._change(Verdict("c", "t", "last", "ownrmse", "fail", 0.1, 0.2)) == "+0.1000 worse"
assert catalogue.better("ownrmse") == "lower"
"""


def test_a_metric_is_one_file_and_one_line(tmp_path, tiny_cell):
    package = tmp_path / "src" / "repix"
    shutil.copytree(Path(repix.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    params = reader.load(ROOT / reader.FILE)

    def code(stage):
        return Closure.of_stage(tmp_path, params, stage, "pix2pix_small").digests()

    before = {stage: code(stage) for stage in ("preprocess", "train", "evaluate")}
    section = (ROOT / "docs" / "your-own.md").read_text().partition("## 5. Your own metric")[2]
    file = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1].replace("rmse", NAME)
    line = re.search(r'^    Metric\("rmse".*$', section, re.MULTILINE)[0].replace("rmse", NAME)
    (package / "evaluation" / "metrics" / f"{NAME}.py").write_text(file)
    table = package / "metrics.py"
    head, bracket, tail = table.read_text().partition("\n)\n\nNAMES")
    table.write_text(f"{head}\n{line}{bracket}{tail}")
    assert {stage: code(stage) == known for stage, known in before.items()} == {
        "preprocess": True,
        "train": True,
        "evaluate": False,
    }

    cell = tiny_cell(tmp_path / "cell")
    paths = os.pathsep.join([str(tmp_path / "src"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", USE, str(cell.trained), str(cell.prepared), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Without the line there is no such switch.
    with pytest.raises(UserError, match=rf"evaluate\.{NAME}: unknown key"):
        reader.parse({NAME: True}, Evaluate, "evaluate")


def test_names_are_letters_and_digits():
    """What follows the first underscore of a score's name is what its features are."""
    assert all(name.isalnum() for name in NAMES) and len(set(NAMES)) == len(NAMES)


def test_the_features_stage_depends_on_every_switch_that_asks_for_features():
    from repix import yaml12
    from repix.metrics import ASK_FOR_FEATURES, OWN_NETWORK

    stage = yaml12.load((ROOT / "dvc.yaml").read_text(), "dvc.yaml")["stages"]["features"]
    switches = {f"evaluate.{name}" for name in (*ASK_FOR_FEATURES, *OWN_NETWORK)}
    assert switches | {"evaluate.features", "features"} <= set(stage["params"])
