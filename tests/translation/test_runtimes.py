"""ONNX in place of Keras: the same translation within the export's tolerance, and Keras where ONNX has no answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from checks.support.cells import images
from repix.errors import UserError
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing


def export_of(cell, out, *formats):
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    export(TrainedModel(cell.trained), Prepared.open(cell.prepared), Export(formats=formats), out)
    return out


@pytest.fixture(scope="module", params=["pix2pix", "cyclegan"])
def folders(request, tmp_path_factory, tiny_cell):
    """A U-Net and a ResNet: the folder of runs/, of exports/ with both files, and with ONNX alone."""
    cell = tiny_cell(tmp_path_factory.mktemp("cell"), request.param)
    return (
        cell.trained,
        export_of(cell, cell.root / "exports" / "both", "keras", "onnx"),
        export_of(cell, cell.root / "exports" / "onnx", "onnx"),
    )


def load(folder, backend="auto", **options):
    from repix.translation import model

    record = model.read_record(model.find_model(folder, [folder]))
    return model.load(folder, record, "source_to_target", backend=backend, **options)


def far(a, b) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_onnx_is_within_the_exports_tolerance_of_keras(folders):
    from repix.inference.any_size import AnySize
    from repix.inference.onnx_runtime import OnnxSizes
    from repix.models.scaling import to_network_range
    from repix.schemas import Exported

    _, both, _ = folders
    onnx, keras = load(both), load(both, "keras")
    assert isinstance(onnx, OnnxSizes) and isinstance(keras, AnySize)
    bound = Exported.read(both / "export.json").tolerance["onnx"]
    for image in images(1, 8):
        unit = to_network_range(image[None], keras.source.low, keras.source.high)
        error = np.abs(onnx.unit(image) - np.asarray(keras.network(unit, training=False))[0])
        assert error.max() <= bound["max"] and error.mean() <= bound["mean"]
        assert far(onnx(image), keras(image)) <= 1  # of 255: what lies half-way may be rounded either way


def test_a_waiting_thread_of_onnxruntime_leaves_its_core_to_what_decodes_and_encodes(folders):
    options = load(folders[2], "onnx")._network.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_tiles_and_resized_images_go_through_onnx(folders, backend, monkeypatch):
    from repix.translation.pixels import translate_image

    trained, both, only = folders
    wide, keras = images(2, 1, (20, 37))[0], load(trained)
    for folder in (both, only):
        onnx = load(folder, backend)
        monkeypatch.setattr(onnx, "_ask", lambda: pytest.fail("another runtime was asked for"))
        for how in ("tile", "resize"):
            assert far(translate_image(wide, onnx, how, 0), translate_image(wide, keras, how, 0)) <= 2
        assert onnx.choose((16, 1 << 17)) == "tile"


def test_other_sizes_go_through_keras_where_it_may_and_is_there(folders):
    from repix.inference.sizes import SizeError

    trained, both, only = folders
    wide = images(3, 1, (20, 37))[0]
    assert np.array_equal(load(both)(wide), load(trained)(wide))
    for folder, backend, instead in (
        (both, "onnx", "the backend keras"),
        (only, "auto", "runs/"),
        (only, "onnx", "runs"),
    ):
        with pytest.raises(
            SizeError, match=f"not of 16 x 16 px, all that model.onnx takes: tile, resize, or use {instead}"
        ):
            load(folder, backend)(wide)


def test_what_onnx_does_not_compute(folders):
    from repix.errors import UserError
    from repix.inference.any_size import AnySize

    trained, both, only = folders
    assert isinstance(load(both, paper=True), AnySize) and isinstance(load(trained), AnySize)
    wrong = [
        ({"folder": both, "backend": "onnx", "paper": True}, "dropout is off in ONNX; use the backend keras"),
        ({"folder": trained, "backend": "onnx"}, "no ONNX; use exports/ of the cell, or the backend keras"),
        ({"folder": only, "backend": "keras"}, r"no such file; export with export.formats: \[keras\]"),
        ({"folder": both, "backend": "torch"}, "not one of auto, onnx, keras"),
    ]
    for options, reason in wrong:
        with pytest.raises(UserError, match=reason):
            load(**options)


def test_a_file_that_is_not_the_exports_is_refused(folders, tmp_path):
    from repix.errors import UserError
    from repix.files import digest_file, read_json, write_json

    folder = shutil.copytree(folders[1], tmp_path / "model")
    path = folder / "source_to_target" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.onnx: not the file of export.json"):
        load(folder)
    record = read_json(folder / "export.json")
    record["digests"]["source_to_target"]["onnx"] = digest_file(path)
    write_json(folder / "export.json", record)
    with pytest.raises(UserError, match=r"model.onnx: cannot be read"):
        load(folder)
    path.unlink()
    assert load(folder).trained == (16, 16)  # Keras is there


def translate(*arguments) -> subprocess.CompletedProcess:
    """Run ``repix translate`` in a process of its own; its last line names the heavy packages that it imported."""
    code = (
        "import sys; from repix import cli\n"
        "try: cli.main(['translate', *sys.argv[1:]])\n"
        "finally: print(sorted({'tensorflow', 'keras', 'pandas', 'onnxruntime'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )


def test_the_command_imports_no_tensorflow_for_an_export(folders, tmp_path):
    from repix.data.images import write

    for name, size in (("in/a", (16, 16)), ("in/b", (20, 37))):
        (tmp_path / "in").mkdir(exist_ok=True)
        write(tmp_path / f"{name}.png", images(4, 1, size)[0])
    done = translate(folders[1], tmp_path / "in" / "a.png", "-o", tmp_path / "out")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "['onnxruntime']", done.stderr
    done = translate(folders[1], tmp_path / "in", "-o", tmp_path / "two", "--backend", "onnx", "--json")
    answer = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert done.returncode == 1 and [one["how"] for one in answer["written"]] == ["trained"]
    assert "all that model.onnx takes" in answer["failed"][0]["reason"]
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "two" / "a.png").read_bytes()


def edited(folder, to, change):
    """Copy an export whose model.onnx and record a stranger has changed, so that the digests fit."""
    import onnx

    from repix.files import digest_file, read_json, write_json

    shutil.copytree(folder, to)
    file = to / "source_to_target" / "model.onnx"
    record, model = read_json(to / "export.json"), onnx.load(file)
    change(record, model, file)
    record["digests"]["source_to_target"]["onnx"] = digest_file(file)
    write_json(to / "export.json", record)
    return to


def test_what_stands_in_the_place_of_a_file_is_named_and_no_other_runtime_takes_over(folders, tmp_path):
    folder = shutil.copytree(folders[1], tmp_path / "model")
    for kind in ("onnx", "keras"):
        path = folder / "source_to_target" / f"model.{kind}"
        path.unlink()
        path.symlink_to("nothing")
        with pytest.raises(UserError, match=rf"model\.{kind}: (cannot be read \(No such file|not the file)"):
            load(folder, "auto" if kind == "onnx" else "keras")


def test_what_the_machine_lacks_says_nothing_of_the_file(folders, monkeypatch):
    from repix.errors import limit_of_the_machine
    from repix.inference import onnx_file

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(onnx_file, "_read", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        load(folders[2])
    assert "model.onnx: No space left on device; make room" in limit_of_the_machine(caught.value)


def test_weights_beside_the_onnx_file_are_not_read(folders, tmp_path):
    import onnx

    def change(record, model, file):
        onnx.save_model(model, file, save_as_external_data=True, location="w.bin", size_threshold=0)

    moved = edited(folders[2], tmp_path / "moved", change)
    assert (moved / "source_to_target" / "w.bin").stat().st_size > 1000
    with pytest.raises(
        UserError, match=r"model.onnx: has weights in another file; an export has none; run `dvc checkout`"
    ):
        load(moved)


def test_a_record_that_names_another_size_than_the_file_is_refused(folders, tmp_path):
    def change(record, model, file):
        record["crop_size"] = [side * 2 for side in record["crop_size"]]

    with pytest.raises(UserError, match=r"model.onnx: takes and gives .*, its record says"):
        load(edited(folders[2], tmp_path / "other", change))


def test_a_network_that_others_feed_is_refused(folders, tmp_path):
    from onnx import TensorProto

    def rename(record, model, file):
        model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
        save(model, file)

    def halve(record, model, file):
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        model.graph.node[-1].output[0] = "full"
        model.graph.node.append(node("Cast", ["full"], ["translation"], to=TensorProto.FLOAT16))
        save(model, file)

    def divide(record, model, file):
        model.graph.node[-1].output[0] = "whole"
        model.graph.node.append(node("Sub", ["whole", "whole"], ["zero"]))
        model.graph.node.append(node("Div", ["zero", "zero"], ["translation"]))
        save(model, file)

    from onnx import save
    from onnx.helper import make_node as node

    for change in (rename, halve):
        with pytest.raises(UserError, match=r"model.onnx: takes and gives .*, its record says"):
            load(edited(folders[2], tmp_path / change.__name__, change))
    network = load(edited(folders[2], tmp_path / "divide", divide))
    with pytest.raises(UserError, match=r"model.onnx: gives NaN or infinite numbers"):
        network(images(4, 1, (16, 16))[0])


@pytest.mark.parametrize("harm", ["NaN", "smaller", "no zip"])
def test_a_keras_file_of_another_network_is_refused(folders, tmp_path, harm):
    import keras

    from repix.files import digest_file, read_json, write_json

    folder = shutil.copytree(folders[1], tmp_path / "model")
    path = folder / "source_to_target" / "model.keras"
    network = keras.saving.load_model(path, compile=False)
    if harm == "NaN":
        network.weights[0].assign(network.weights[0] * float("nan"))
    if harm == "smaller":
        network = keras.Model(network.inputs, keras.layers.AveragePooling2D(2)(network.outputs[0]))
    network.save(path)
    if harm == "no zip":
        path.write_bytes(path.read_bytes()[:-100])
    record = read_json(folder / "export.json")
    record["digests"]["source_to_target"]["keras"] = digest_file(path)
    write_json(folder / "export.json", record)
    said = {"NaN": "holds NaN or", "smaller": "takes and gives .*, its record says", "no zip": "it is no .keras file"}
    with pytest.raises(UserError, match=f"model.keras: .*{said[harm]}"):
        load(folder, backend="keras")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("missing", "'generator/.*' does not fit the recipe"),
        ("shape", "'generator/.*' does not fit the recipe"),
        ("double", "holds float64 numbers, not float32"),
        ("NaN", "holds NaN or infinite numbers"),
    ],
)
def test_weights_of_another_network_are_refused_though_their_digest_fits(folders, tmp_path, harm, said):
    from repix.arrays import load_arrays, save_arrays
    from repix.files import digest_arrays, read_json, write_json

    folder = shutil.copytree(folders[0], tmp_path / "model")
    arrays, record = load_arrays(folder / "last" / "generator.npz"), read_json(folder / "trained.json")
    first = min(arrays)
    if harm == "missing":
        del arrays[first]
    else:
        changed = {
            "shape": arrays[first][:1],
            "double": arrays[first].astype(float),
            "NaN": arrays[first] * np.float32("nan"),
        }
        arrays[first] = changed[harm]
    save_arrays(folder / "last" / "generator.npz", arrays)
    record["networks"]["generator"] = digest_arrays(arrays)
    write_json(folder / "trained.json", record)
    with pytest.raises(UserError, match=f"generator.npz: .*{said}"):
        load(folder, variant="last")


def test_a_cell_that_another_grid_took_away_is_told_how_it_comes_back(tmp_path):
    from repix.translation.model import find_model

    (tmp_path / "exports" / "b-small-0").mkdir(parents=True)
    (tmp_path / "exports" / "b-small-0" / "export.json").write_text("{}")
    for given, back in (("exports/a-small-3", True), ("a-small-3", True), ("a-small-003", False), ("elsewhere", False)):
        with pytest.raises(UserError) as found:
            find_model(given, [tmp_path / given], tmp_path)
        said = "dvc exp run -S 'run.datasets=[a]' -S 'run.models=[small]' -S 'run.seeds=[3]'"
        assert (said in str(found.value)) == back and "exports/b-small-0" in str(found.value)
