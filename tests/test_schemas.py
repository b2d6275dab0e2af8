"""Records that a stranger has edited are refused by name: what is read from one can be used."""

from __future__ import annotations

import math

import pytest

from repix.errors import UserError
from repix.files import write_json
from repix.provenance.code import CodeRecord
from repix.regression.baseline import Baseline
from repix.regression.tolerance import Tolerances
from repix.schemas import Exported, Metrics, Trained, flat

SIDE = {"channels": 3, "dtype": "uint8", "low": [0, 0, 0], "high": [255, 255, 255]}
SIDE |= {"meaning": ["R", "G", "B"], "colour": "rgb"}
WEIGHTS = {"generator": "0" * 64}
EXPORTED = {"cell": "a-b-0", "variant": "last", "crop_size": [8, 8], "source": SIDE, "target": SIDE, "weights": WEIGHTS}
EXPORTED |= {
    "direction": "AtoB",
    "bytes": {},
    "digests": {"source_to_target": {"onnx": "0" * 64}},
    "tolerance": {},
    "parity": "pass",
}
TRAINED = {
    "cell": "a-b-0",
    "dataset": "a",
    "model": "b",
    "seed": 0,
    "steps": 1,
    "epochs": 1,
    "recipe": {},
    "best": None,
    "direction": "AtoB",
}
TRAINED |= {"profile": {"name": "fast"}, "crop_size": [8, 8], "source": SIDE, "target": SIDE, "data_digest": "0" * 64}
TRAINED |= {"translators": {"source_to_target": "generator"}, "networks": WEIGHTS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": []}, "3 channels with other numbers"),
        ({"high": [255, 255]}, "3 channels with other numbers"),
        ({"channels": 7}, "7 channels with other numbers"),
        ({"high": [0, 0, 0]}, "no range of uint8"),
        ({"high": [511, 511, 511]}, "no range of uint8"),
        ({"low": [-1, 0, 0]}, "no range of uint8"),
        ({"dtype": "object"}, "dtype 'object' is not one of uint8, uint16, int16"),
        ({"dtype": "S5"}, "dtype 'S5' is not one of"),
        ({"colour": "lab"}, "colour 'lab' is not one of"),
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_side_whose_numbers_mean_nothing(tmp_path, side, change, message):
    write_json(tmp_path / "export.json", {"schema": Exported.SCHEMA} | EXPORTED | {side: SIDE | change})
    with pytest.raises(UserError, match=rf"export.json: {side}: .*{message}"):
        Exported.read(tmp_path / "export.json")


def test_a_side_of_no_number():
    import json

    text = json.dumps({"schema": Exported.SCHEMA} | EXPORTED | {"source": SIDE | {"high": [math.nan] * 3}})
    with pytest.raises(UserError, match=r"x: cannot be read as JSON|x: source: .*no range"):
        Exported.parse(text, "x")


@pytest.mark.parametrize(
    ("kind", "base", "change", "message"),
    [
        (Exported, EXPORTED, {"digests": {"../source_to_target": {}}}, "no direction of translation"),
        (Exported, EXPORTED, {"digests": {"source_to_target": {}, "x": {}}}, "'x' is no direction"),
        (Exported, EXPORTED, {"crop_size": [-1, 0]}, "no size of an image"),
        (Exported, EXPORTED, {"direction": None}, "direction: .*AtoB"),
        (Trained, TRAINED, {"direction": "left"}, "direction: .*AtoB"),
        (Exported, EXPORTED, {"cell": "../../x-y-0"}, "'../../x-y-0' is no cell"),
        (Exported, EXPORTED, {"weights": {"../x": ""}}, "'../x' is no name of a network"),
        (Trained, TRAINED, {"cell": "a-b-0\nrepix: all is well"}, "is no cell; a cell is named"),
        (Trained, TRAINED, {"networks": {"generator": "", "../../x": ""}}, "'../../x' is no name of a network"),
        (Trained, TRAINED, {"best": {"networks": {"generator": "", "/tmp/x": ""}}}, "'/tmp/x' is no name"),
        (Trained, TRAINED, {"translators": {"x": "generator"}}, "'x' is no direction"),
        (Trained, TRAINED, {"translators": {"source_to_target": "nope"}}, "last has no digest of 'nope'"),
        (Trained, TRAINED, {"networks": {}}, "last has no digest of 'generator'"),
        (Trained, TRAINED, {"best": {"networks": {}}}, "best has no digest of 'generator'"),
        (Trained, TRAINED, {"ema": {"decay": 0.9}}, "ema names no networks"),
        (Trained, TRAINED, {"profile": {}}, "profile has no name"),
        (Trained, TRAINED, {"crop_size": [0, 8]}, "no size of an image"),
    ],
)
def test_a_record_that_could_not_be_loaded(tmp_path, kind, base, change, message):
    write_json(tmp_path / "record.json", {"schema": kind.SCHEMA} | base)
    assert kind.read(tmp_path / "record.json")
    write_json(tmp_path / "record.json", {"schema": kind.SCHEMA} | base | change)
    with pytest.raises(UserError, match=message) as caught:
        kind.read(tmp_path / "record.json")
    assert (
        "\n" not in str(caught.value)
        and "`dvc repro` makes it anew" in str(caught.value)
        and ": :" not in str(caught.value)
    )


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n{}", "{}", '{"schema": "SCHEMA", "odd": 1}'])
@pytest.mark.parametrize(
    ("kind", "maker", "in_git"),
    [
        (Exported, "dvc repro", False),
        (Metrics, "dvc repro", True),
        (CodeRecord, "dvc repro", True),
        (Baseline, "repix gate --accept", True),
        (Tolerances, "repix seeds DATASET MODEL --write", True),
    ],
)
def test_of_a_damaged_record_the_command_is_named_that_makes_it(tmp_path, kind, maker, in_git, text):
    """Merge markers, another schema, another key: what no stage makes is not mended by one."""
    (tmp_path / "record.json").write_text(text.replace("SCHEMA", kind.SCHEMA))
    with pytest.raises(UserError, match=r"record\.json: ") as caught:
        kind.read(tmp_path / "record.json")
    said = str(caught.value)
    assert f"`{maker}`" in said and ("`git checkout HEAD -- FILE`" in said) == in_git
    assert ("dvc repro" in said) == (maker == "dvc repro") and "re-run" not in said


def test_scores_one_by_one_in_order():
    scores = {"b": {"last": {"ssim": 0.5, "l1": None}, "best": None}, "a": {"last": {"l1": 0.1}}}
    assert list(flat(scores).items()) == [
        (("a", "last", "l1"), 0.1),
        (("b", "last", "l1"), None),
        (("b", "last", "ssim"), 0.5),
    ]
