"""``repix baselines``: the margins by hand, and the whole command on a tiny trained cell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from checks.support.cells import recipe
from repix import cli
from repix.commands.baselines import trained_cells
from repix.config.gate import Gate
from repix.errors import UserError
from repix.evaluation import baselines as predictors
from repix.regression import tolerance
from repix.schemas import Metrics
from repix.studies import margins
from tests.conftest import ROOT
from tests.regression.test_gate import changed, entry

PREDICTORS = ("constant colour per label", "median image", "nearest neighbour")
BASELINES = {
    "untrained generator": {"ssim": 0.10, "swd": 200.0, "l1": 0.30},
    "nearest neighbour": {"ssim": 0.505, "swd": 10.0, "l1": 0.05},
}


def cells(seeds=3):
    return {f"toy-net-{s}": entry(s) for s in range(seeds)}


def test_margins_are_in_standard_deviations_and_positive_where_better():
    found = margins.margins("toy", "net", cells(), BASELINES)
    assert found.trained["ssim"] == (pytest.approx(0.51), pytest.approx(0.01))
    by = {(m.predictor, m.metric): m for m in found.margins}
    assert by["untrained generator", "ssim"].sds == pytest.approx(41.0)
    assert by["untrained generator", "swd"].sds == pytest.approx(129.0)
    assert by["untrained generator", "l1"].sds == pytest.approx(199.0)
    assert by["nearest neighbour", "swd"].sds == pytest.approx(-61.0)
    assert [(m.predictor, m.metric) for m in found.margins if m.short] == [("nearest neighbour", "ssim")]


def test_what_falls_short_is_said_plainly():
    said = margins.margins("toy", "net", cells(), BASELINES).text()
    assert "BELOW 3: ssim is +0.5 standard deviations from nearest neighbour" in said
    assert "BELOW 3: swd" not in said and "BELOW 3: l1" not in said
    good = {name: scores | {"ssim": 0.1} for name, scores in BASELINES.items()}
    assert "every required margin is 3" in margins.margins("toy", "net", cells(), good).text()


def test_seeds_that_score_the_same_are_told_so():
    equal = {f"toy-net-{seed}": entry(0) for seed in range(3)}
    said = margins.margins("toy", "net", equal, BASELINES).text()
    assert "sd 0.0000" in said and "ssim is any number of standard deviations from" in said
    assert "since all seeds score the same" in said


def test_of_a_source_with_many_channels_the_median_is_left():
    rng = np.random.default_rng(0)
    many, few = (rng.integers(0, 9, (3, 8, 8, channels), np.uint8) for channels in (17, 1))
    with pytest.raises(ValueError, match="17 channels are too many"):
        predictors.constant_colour_per_label(many, few, many)
    for source, names in ((many, ["median image"]), (few, list(PREDICTORS))):
        split = SimpleNamespace(source=source, target=few)
        assert list(margins.predictions(SimpleNamespace(split=lambda name, split=split: split))) == names


def test_one_seed_has_no_margin():
    said = margins.margins("toy", "net", cells(1), BASELINES).text()
    assert "sd ?" in said and "repix seeds toy net --write" in said and "every required" not in said


def test_cells_come_from_metrics_and_from_the_seed_study(tmp_path):
    family = tolerance.estimate(cells(3), Gate(), params={}, run_key="")
    tolerance.Tolerances(families={"toy-net": family}).write(tmp_path / "tolerances.json")
    Metrics(cell="toy-net-0", **entry(0, ssim=0.9).model_dump()).write(tmp_path / "toy-net-0.json")
    found = trained_cells("toy", None, tmp_path)["net"]
    assert list(found) == ["toy-net-0", "toy-net-1", "toy-net-2"]
    assert found["toy-net-0"].scores["source_to_target"]["last"]["ssim"] == 0.9
    assert list(trained_cells("toy", ["toy-net-2"], tmp_path)["net"]) == ["toy-net-2"]
    with pytest.raises(UserError, match="no metrics of toy-net-9"):
        trained_cells("toy", ["toy-net-9"], tmp_path)
    with pytest.raises(UserError, match=r"no metrics of other in .*; there are those of toy"):
        trained_cells("other", None, tmp_path)


def test_cells_that_were_scored_on_other_images_are_refused():
    ours = dict(entry().protocol) | {
        part: entry().protocol[part]["source_to_target"] for part in ("images", "reference")
    }
    margins.check("toy-net-0", entry(), ours)
    other = changed(entry(), "protocol", "reference", "source_to_target", "digest", to="b" * 64)
    with pytest.raises(UserError, match=r"reference\.digest: bbbbbbbb -> aaaaaaaa"):
        margins.check("toy-net-0", other, ours)


def test_training_images_are_brought_to_test_size():
    ramp = np.broadcast_to(np.linspace(0, 65535, 18)[None, :, None, None], (2, 18, 18, 1)).astype(np.uint16)
    small = margins.resized(ramp, (16, 16))
    assert small.shape == (2, 16, 16, 1) and small.dtype == np.uint16
    assert (np.diff(small[0, :, 0, 0].astype(int)) > 0).all()
    assert margins.resized(small, (16, 16)) is not None and (margins.resized(small, (16, 16)) == small).all()


def test_the_command_on_a_trained_cell(tmp_path, tiny_cell, monkeypatch, capsys):
    from repix.config.evaluation import Evaluate
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.inference.trained import TrainedModel

    made = tiny_cell(tmp_path)
    metrics = evaluate(TrainedModel(made.trained), Prepared.open(made.prepared), Evaluate(), tmp_path / "out")
    assert metrics.protocol["profile"] == "portable"
    metrics.write(tmp_path / "metrics" / "tiny-pix2pix-0.json")
    (tmp_path / "data/prepared").mkdir(parents=True)
    made.prepared.rename(tmp_path / "data/prepared/tiny")
    params = {
        "run": {"datasets": ["tiny"], "models": ["pix2pix"], "seeds": [0], "profile": "portable"},
        "models": {"pix2pix": recipe().model_dump(mode="json")},
        "datasets": {"tiny": {"archive": {"urls": ["file:unused"]}, "augment": {"flip": True}}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("repix.profile.enter", lambda name: None)  # the tests are under it already
    with pytest.raises(SystemExit) as ended:
        cli.main(["baselines", "tiny", "--json"])
    assert ended.value.code == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cells"] == ["tiny-pix2pix-0"] and found["trained"]["ssim"]["sd"] is None
    assert found["trained"]["l1"]["mean"] == metrics.scores["source_to_target"]["last"]["l1"]
    names = {margin["predictor"] for margin in found["margins"]}
    assert names == {"untrained generator", "constant colour per label", "median image", "nearest neighbour"}


def test_the_command_enters_its_profile_before_records_are_read(tmp_path):
    """In a process of its own, with the repository's records, whose checks import NumPy: it comes to the data."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    command = [sys.executable, "-m", "repix.cli", "baselines", "sample"]
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "HOME")}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and "data/prepared/sample" in ended.stderr and "Traceback" not in ended.stderr
