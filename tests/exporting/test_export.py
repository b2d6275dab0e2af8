"""A cell in all formats: recorded, checked against the network, refused where it differs."""

from __future__ import annotations

import numpy as np
import pytest

from repix.config import reader
from repix.config.export import Export, Tolerance
from repix.errors import UserError
from repix.files import digest_tree
from repix.schemas import Exported
from tests.cells import train_cell


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return train_cell(tmp_path_factory.mktemp("cell"))


def run(cell, out, **settings):
    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    return export(TrainedModel(cell.trained), Prepared.open(cell.prepared), Export(**settings), out)


def test_all_formats_are_recorded_and_the_same_again(cell, tmp_path):
    measured = run(cell, tmp_path / "a")
    kinds = ("keras", "litert", "onnx", "saved_model")
    assert sorted(measured) == [f"source_to_target/{kind}" for kind in kinds]
    assert all(seen.max_error < 5e-6 and seen.images == 2 and seen.ms_per_image > 0 for seen in measured.values())
    record = Exported.read(tmp_path / "a" / "export.json")
    for kind, file in zip(kinds, ("model.keras", "model.tflite", "model.onnx", "saved_model"), strict=True):
        path = tmp_path / "a" / "source_to_target" / file
        assert record.digests["source_to_target"][kind] == digest_tree(path)
        assert record.bytes["source_to_target"][kind] > 4000
    assert record.tolerance["onnx"] == {"max": 5e-5, "mean": 5e-6}
    run(cell, tmp_path / "b")
    for file in sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()):
        # TensorFlow numbers its functions through a process: the graph of a second export has other numbers.
        if file.name not in ("saved_model.pb", "export.json"):
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("field", ["max", "mean"])
def test_a_file_that_differs_fails_the_stage_and_nothing_is_kept(cell, tmp_path, field):
    tight = Tolerance(**({"max": 1.0, "mean": 1.0} | {field: 1e-12}))
    with pytest.raises(UserError, match=r"export onnx of source_to_target: differs .* export\.tolerance\.onnx"):
        run(cell, tmp_path / "out", formats=["onnx"], tolerance={"onnx": tight})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_gives_nan_fails_the_stage(cell, tmp_path, monkeypatch):
    from repix.exporting import onnx_format

    monkeypatch.setattr(onnx_format, "load", lambda path: lambda unit: np.full(unit.shape, np.nan, np.float32))
    with pytest.raises(UserError, match=r"differs .* by nan"):
        run(cell, tmp_path / "out", formats=["onnx"])


def test_settings_are_complete():
    with pytest.raises(UserError, match=r"tolerance lacks onnx"):
        reader.parse({"formats": ["onnx"], "tolerance": {"keras": {"max": 1, "mean": 1}}}, Export, "export")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        reader.parse({"formats": ["onx"]}, Export, "export")
    assert reader.read("export", Export) == Export()
