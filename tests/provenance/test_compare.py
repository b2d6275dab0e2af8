"""Levels, file by file."""

import json

import numpy as np
import pytest

from repix.data.images import write
from repix.provenance.compare import BOUND, Level, file_verdict, noise_verdict, out_verdict
from repix.schemas import Metrics

WEIGHTS = {"g/kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "g/count": np.array(3)}
PICTURE = np.full((8, 8, 3), 100, np.uint8)


def npz(path, **changes):
    np.savez(path, **(WEIGHTS | changes))


def level(tmp_path, name, write_one, write_other):
    paths = [tmp_path / side / name for side in ("one", "other")]
    for path, writer in zip(paths, (write_one, write_other), strict=True):
        path.parent.mkdir(exist_ok=True)
        writer(path)
    return file_verdict(name, *paths)


def nudged(by):
    kernel = WEIGHTS["g/kernel"].copy()
    kernel[1, 1] += by
    return lambda path: npz(path, **{"g/kernel": kernel})


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (npz, Level.L0),
        (lambda path: np.savez_compressed(path, **WEIGHTS), Level.L1),
        (nudged(BOUND / 2), Level.L2),
        (nudged(BOUND * 2), Level.DIFFERENT),
        (nudged(np.nan), Level.DIFFERENT),
        (lambda path: npz(path, **{"g/kernel": WEIGHTS["g/kernel"][:2]}), Level.DIFFERENT),
        (lambda path: npz(path, more=np.zeros(1)), Level.DIFFERENT),
        (lambda path: path.write_bytes(b"PK damaged"), Level.DIFFERENT),
    ],
)
def test_weights(tmp_path, other, expected):
    assert level(tmp_path, "w.npz", npz, other).level == expected


def test_the_array_that_differs_most_is_named(tmp_path):
    assert "g/kernel differs by up to 0.002 (bound 0.001)" in level(tmp_path, "w.npz", npz, nudged(BOUND * 2)).why


@pytest.mark.parametrize(("by", "expected"), [(0, Level.L0), (1, Level.L2), (2, Level.DIFFERENT)])
def test_pixels(tmp_path, by, expected):
    found = level(tmp_path, "p.png", lambda p: write(p, PICTURE), lambda p: write(p, PICTURE + np.uint8(by)))
    assert found.level == expected


RECORD = {"digest": "b" * 64, "score": 0.5, "epochs": 2000, "name": "x"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Level.L0),
        ({"digest": "c" * 64}, Level.L2),
        ({"score": 0.5 + BOUND / 2}, Level.L2),
        ({"score": 0.5 + BOUND * 2}, Level.DIFFERENT),
        ({"epochs": 2001}, Level.DIFFERENT),
        ({"epochs": True}, Level.DIFFERENT),
        ({"name": "y"}, Level.DIFFERENT),
        ({"more": 1}, Level.DIFFERENT),
    ],
)
def test_records(tmp_path, change, expected):
    found = level(
        tmp_path,
        "r.json",
        lambda path: path.write_text(json.dumps(RECORD)),
        lambda path: path.write_text(json.dumps(RECORD | change)),
    )
    assert found.level == expected


def test_tables(tmp_path):
    def table(number):
        return lambda path: path.write_text(f"epoch,g\n1,{number}\n")

    assert level(tmp_path, "t.csv", table("0.5"), table("0.50")).level == Level.L1
    assert level(tmp_path, "t.csv", table("0.5"), table("0.5001")).level == Level.L2
    assert level(tmp_path, "t.csv", table("0.5"), table("0.6")).level == Level.DIFFERENT


def test_other_files_are_compared_by_bytes_unless_parity_speaks_for_them(tmp_path):
    for side, content in (("one", b"1"), ("other", b"2")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "m.pb").write_bytes(content)
        (tmp_path / side / "export.json").write_text("{}")
    one, other = ({n: tmp_path / s / n for n in ("m.pb", "export.json")} for s in ("one", "other"))
    assert out_verdict("exports/x", one, other).level == Level.L1
    assert out_verdict("x", {"m.pb": one["m.pb"]}, {"m.pb": other["m.pb"]}).level == Level.DIFFERENT
    found = out_verdict("x", one, {"m.pb": one["m.pb"]})
    assert found == (Level.DIFFERENT, "x/export.json: only rebuilt")


@pytest.mark.parametrize(
    ("value", "noise", "expected"),
    [
        (0.30, {}, Level.L3),
        (0.31, {}, Level.DIFFERENT),
        (0.31, {"source_to_target/last/l1": 0.02}, Level.L3),
        (0.33, {"source_to_target/last/l1": 0.02}, Level.DIFFERENT),
        (None, {"source_to_target/last/l1": 0.02}, Level.DIFFERENT),
    ],
)
def test_scores_under_the_noise_between_seeds(value, noise, expected):
    def record(l1):
        scores = {"source_to_target": {"last": {"l1": l1}, "best": None}}
        return Metrics(cell="a-b-0", weights_digest={}, n=2, scores=scores, protocol={})

    assert noise_verdict(record(value), record(0.30), noise).level == expected
