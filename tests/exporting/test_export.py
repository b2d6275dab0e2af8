"""A cell in all formats: recorded, checked against the network, refused where it differs."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import repix
from repix import stage
from repix.config import reader
from repix.config.export import Export, Tolerance
from repix.errors import UserError
from repix.files import digest_tree
from repix.registry import FORMATS
from repix.schemas import Exported


@pytest.fixture(scope="module")
def cell(tmp_path_factory, tiny_cell):
    return tiny_cell(tmp_path_factory.mktemp("cell"))


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


def test_a_saved_model_is_the_same_on_any_number_of_cores(cell, tmp_path):
    """TensorFlow writes into each call how many threads the process had that saved it."""
    from tensorflow.core.protobuf import config_pb2, saved_model_pb2

    run(cell, tmp_path / "out", formats=["saved_model"])
    (path,) = tmp_path.rglob("saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graphs = [one.graph_def for one in saved.meta_graphs]
    nodes = [node for graph in graphs for part in (graph, *graph.library.function) for node in _nodes(part)]
    configs = [
        config_pb2.ConfigProto.FromString(node.attr["config_proto"].s) for node in nodes if "config_proto" in node.attr
    ]
    assert configs, "TensorFlow writes no settings any more"
    assert {(one.inter_op_parallelism_threads, one.intra_op_parallelism_threads) for one in configs} == {(0, 0)}


def _nodes(part):
    return part.node_def if hasattr(part, "node_def") else part.node


@pytest.mark.parametrize(
    ("size", "low", "high", "kind", "most"),
    [
        ((64, 64), 0.0, 255.0, "litert", 5e-5),  # as the sample's record has it
        ((32, 48), 0.0, 255.0, "onnx", 5e-5),
        ((192, 320), 0.0, 255.0, "litert", 7.5e-4),
        ((512, 512), 0.0, 255.0, "litert", 0.2 / 255),  # a tenth of a step of 8 bits at most
        ((192, 320), 0.0, 65535.0, "litert", 5e-5),
    ],
)
def test_large_images_get_room_that_nobody_sees(cell, size, low, high, kind, most):
    from repix.exporting.export import allowed
    from repix.schemas import Trained

    record = Trained.read(cell.trained / "trained.json")
    sides = {
        side: getattr(record, side).model_copy(update={"low": (low,), "high": (high,)}) for side in ("source", "target")
    }
    found = allowed(Export(), record.model_copy(update={"crop_size": size} | sides), kind)
    assert found.max == pytest.approx(most, rel=1e-12) and found.mean == pytest.approx(most / 10, rel=1e-12)
    if size == (64, 64):
        assert found == Tolerance(max=5e-5, mean=5e-6)  # to the last bit
    assert record.recipe["generator"]["kind"] == "unet"
    deep = record.model_copy(update=sides | {"recipe": {"generator": {"kind": "resnet"}}})
    assert allowed(Export(), deep, kind).max == pytest.approx(
        max(5e-5, (2.0 if kind == "litert" else 0.5) / (high - low)), rel=1e-12
    )
    usual = Tolerance(max=FORMATS[kind].max_error, mean=FORMATS[kind].mean_error)
    for asked in (Tolerance(max=1e-9, mean=1e-9), usual):  # what is asked for holds, the usual too
        assert allowed(Export(tolerance={kind: asked}), record.model_copy(update={"crop_size": size}), kind) == asked


@pytest.mark.parametrize("field", ["max", "mean"])
def test_a_file_that_differs_fails_the_stage_and_nothing_is_kept(cell, tmp_path, field):
    tight = Tolerance(**({"max": 1.0, "mean": 1.0} | {field: 1e-12}))
    with pytest.raises(
        UserError, match=r"(?s)export onnx of source_to_target: differs .* export\.tolerance\.onnx .*\{max: "
    ):
        run(cell, tmp_path / "out", formats=["onnx"], tolerance={"onnx": tight})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["keras", "saved_model", "onnx", "litert"])
def test_a_disk_that_fills_is_one_line_and_leaves_nothing(cell, tmp_path, kind, capsys):
    """As a full disk, which needs no disk: no file of this process may grow beyond 3000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        try:
            run(cell, tmp_path / "out", formats=[kind])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.raises(SystemExit) as caught:
        stage.guard(write)
    said = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 1 and "File too large; make room" in said
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_keras_file_that_is_none_is_one_line(tmp_path):
    from repix.exporting import keras_format

    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    for content in (b"", b"no zip", whole.getvalue()):
        (tmp_path / "model.keras").write_bytes(content)
        with pytest.raises(UserError, match=r"model.keras: cannot be read \(") as caught:
            keras_format.load(tmp_path / "model.keras")
        assert "\n" not in str(caught.value)


def off_by(error):
    """Return a format's ``load`` whose file gives what the network does not: another last number."""
    from repix.exporting import keras_format

    def load(path):
        network = keras_format.load(path.with_name("model.keras"))
        return lambda unit: network(unit) + np.float32(error)

    return load


def test_a_file_that_gives_nan_fails_the_stage(cell, tmp_path, monkeypatch):
    from repix.exporting import onnx_format

    monkeypatch.setattr(onnx_format, "load", lambda path: lambda unit: np.full(unit.shape, np.nan, np.float32))
    with pytest.raises(UserError, match=r"differs .* by nan[^$]*no tolerance helps"):
        run(cell, tmp_path / "out", formats=["onnx"])


def test_all_files_that_differ_are_told_at_once_with_one_command(cell, tmp_path, monkeypatch):
    from repix.exporting import litert_format, onnx_format

    monkeypatch.setattr(onnx_format, "load", off_by(0.001))
    monkeypatch.setattr(litert_format, "load", off_by(0.002))
    with pytest.raises(UserError) as caught:
        run(cell, tmp_path / "out", formats=["keras", "onnx", "litert"])
    first, second, mend = caught.value.lines
    assert (
        "export onnx of source_to_target: differs" in first and "export litert of source_to_target: differs" in second
    )
    assert (
        "'++export.tolerance.onnx={max: 0.002, mean: 0.002}' -S '++export.tolerance.litert={max: 0.004, mean:" in mend
    )
    monkeypatch.setattr(litert_format, "load", off_by(1.9))
    with pytest.raises(UserError) as caught:
        run(cell, tmp_path / "out", formats=["keras", "onnx", "litert"])
    assert "no tolerance helps" in caught.value.lines[-1] and "-S '++" not in str(caught.value)


def test_images_of_one_colour_are_not_compared_where_there_are_others():
    from repix.exporting.export import _comparable

    unit = np.zeros((3, 4, 4, 2), np.float32)
    unit[..., 1] = 0.5
    assert _comparable(unit).all()  # there are no others
    unit[1, 0, 0, 1] = 0.6
    assert _comparable(unit).tolist() == [False, True, False]


def test_settings_are_complete():
    # What is not given is decided where the network is known; a format that is not written has none.
    given = {
        "formats": ["onnx", "keras"],
        "tolerance": {"keras": {"max": 1, "mean": 1}, "litert": {"max": 1, "mean": 1}},
    }
    found = reader.parse(given, Export, "export")
    assert found.tolerance == {"keras": Tolerance(max=1, mean=1)}
    with pytest.raises(UserError, match="names a format twice"):
        reader.parse({"formats": ["onnx", "onnx"]}, Export, "export")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        reader.parse({"formats": ["onx"]}, Export, "export")
    assert reader.read("export", Export) == Export()


TOY = '''"""Only for a test: the network's weights as text, and a function that knows them."""

import keras
import numpy as np

import repix.models.layers


def write(network, path, spec):
    path.write_text(f"{spec.size[0]} x {spec.size[1]}, {spec.source.channels} channels, {network.to_json()}")
    network.save_weights(path.with_name("toy.weights.h5"))


def load(path):
    network = keras.models.model_from_json(path.read_text().split(", ", 2)[2])
    network.load_weights(path.with_name("toy.weights.h5"))
    return lambda unit: np.asarray(keras.ops.convert_to_numpy(network(unit, training=False)))
'''

USE = """
import sys
from pathlib import Path

from repix import profile

profile.apply("portable")
from repix import stage
from repix.config import reader
from repix.config.export import Export
from repix.data.prepared import Prepared
from repix.exporting.export import export
from repix.inference.trained import TrainedModel

trained, prepared, out = map(Path, sys.argv[1:])
settings = reader.parse({"formats": ["toy", "onnx"]}, Export, "export")
seen = export(TrainedModel(trained), Prepared.open(prepared), settings, out)
assert sorted(seen) == ["source_to_target/onnx", "source_to_target/toy"], seen
"""


def test_a_format_is_one_file_and_one_line(cell, tmp_path):
    """As docs/your-own.md says, on a copy of the package: that file, that line, and nothing else."""
    package = tmp_path / "src" / "repix"
    shutil.copytree(Path(repix.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "exporting" / "toy_format.py").write_text(TOY)
    table = package / "registry.py"
    line = '    "toy": Format("repix.exporting.toy_format", "model.toy", 1e-5, 1e-6),\n'
    table.write_text(table.read_text().replace("FORMATS = {\n", f"FORMATS = {{\n{line}"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    out = tmp_path / "exports"
    command = [sys.executable, "-c", USE, str(cell.trained), str(cell.prepared), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (out / "source_to_target" / "model.toy").read_text().startswith("16 x 16, 3 channels")
    record = Exported.read(out / "export.json")
    assert record.tolerance["toy"] == {"max": 1e-5, "mean": 1e-6} and record.bytes["source_to_target"]["toy"] > 1000
    # Without the line the name is refused, and by name.
    with pytest.raises(UserError, match=r"export\.formats.*'toy' is not one of"):
        reader.parse({"formats": ["toy"]}, Export, "export")
