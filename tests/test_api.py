"""``repix.load`` and what it gives: images of the kind that one gave, scores as tables, nothing imported early."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import typing

import numpy as np
import pytest
from PIL import Image

import repix
from checks.support.cells import SIZE, images
from checks.support.repository import CELL
from repix import cli
from repix.config import reader
from repix.schemas import Metrics
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_repository):
    """A repository with a trained, scored and exported cell; the export holds ONNX alone."""
    return tiny_repository(tmp_path_factory.mktemp("api") / "repository")


@pytest.fixture(scope="module")
def model(root) -> repix.Model:
    return repix.load(root / "exports" / CELL)


def far(a, b) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def file(path, array):
    from repix.data.images import write

    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, array)
    return path


def test_the_three_lines_import_no_keras_and_the_first_of_them_nothing(root, tmp_path):
    file(tmp_path / "label.png", images(1, 1)[0])
    code = (
        "import sys; import repix\n"
        "known = {'numpy', 'PIL', 'pydantic', 'onnxruntime', 'keras', 'tensorflow', 'pandas'}\n"
        "heavy = lambda: known & sys.modules.keys()\n"
        "assert not heavy(), heavy()\n"
        f"model = repix.load({str(root / 'exports' / CELL)!r})\n"
        "image = model.translate('label.png')\n"
        "print(sorted(heavy()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "['PIL', 'numpy', 'onnxruntime', 'pydantic']", done.stderr


def test_the_names_of_the_package():
    assert {"load", "results", "Model", "UserError"} <= set(dir(repix))
    assert all(getattr(repix, name) is not None for name in repix.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'laod'; it has Model"):
        _ = repix.laod


def test_it_is_typed():
    assert (ROOT / "src" / "repix" / "py.typed").is_file()
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["repix"]
    assert "py.typed" in packed
    for function in (repix.load, repix.results, repix.Model.translate_files, repix.Model.scores, repix.Model.read):
        code = function.__code__
        names = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]} - {"self"}
        assert names | {"return"} <= function.__annotations__.keys()
    arrays, pictures = (over.__annotations__["return"] for over in typing.get_overloads(repix.Model.translate))
    assert (arrays, pictures) == ("np.ndarray", "Image.Image")


def test_each_kind_comes_back_as_its_kind(model, root, tmp_path):
    array = images(2, 1)[0]
    path = file(tmp_path / "a.png", array)
    made = model.translate(array)
    assert made.dtype == np.uint8 and made.shape == (SIZE, SIZE, 3)
    for given in (path, str(path), Image.fromarray(array)):
        picture = model.translate(given)
        assert isinstance(picture, Image.Image) and np.array_equal(np.asarray(picture), made)
    assert np.array_equal(model.read(path), array)
    keras = repix.load(root / "runs" / CELL)
    assert far(keras.translate(array), made) <= 1


def test_a_pil_image_is_read_as_a_file_is(model, tmp_path):
    upright = images(3, 1, (SIZE, SIZE // 2))[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    turned.save(tmp_path / "turned.png", exif=exif)
    palette = Image.fromarray(upright).quantize(16)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(upright).save(tmp_path / "plain.png")
    assert np.array_equal(model.read(tmp_path / "turned.png"), upright)
    for name in ("turned.png", "palette.png"):
        stored = io.BytesIO((tmp_path / name).read_bytes())
        assert far(model.translate(Image.open(stored), how="tile"), model.translate(tmp_path / name, how="tile")) == 0
    assert far(model.translate(tmp_path / "turned.png", how="tile"), model.translate(upright, how="tile")) == 0
    assert far(model.translate(tmp_path / "palette.png", how="tile"), model.translate(upright, how="tile")) > 0


def test_other_sizes(model, root):
    wide = images(4, 1, (20, 37))[0]
    keras = repix.load(root / "runs" / CELL, backend="keras")
    for how in ("tile", "resize"):
        assert model.translate(wide, how=how).shape == wide.shape
        assert far(model.translate(wide, how=how), keras.translate(wide, how=how)) <= 2
    assert keras.translate(wide).shape == wide.shape
    with pytest.raises(repix.UserError, match=r"all that model.onnx takes"):
        model.translate(wide)


def test_what_is_no_image_of_the_model_is_one_line(model, tmp_path):
    array = images(5, 1)[0]
    closed = Image.open(file(tmp_path / "closed.png", array))
    closed.close()
    wrong = [
        (array / 255, r"shape \(16, 16, 3\) of float64; tiny-pix2pix-0 takes \(height, width, 3\) of uint8"),
        (array[..., :2], r"shape \(16, 16, 2\)"),
        (array[None], r"shape \(1, 16, 16, 3\)"),
        (array.astype(np.uint16), "of uint16"),
        (tmp_path / "none.png", "none.png: no such file"),
        (Image.new("F", (SIZE, SIZE)), "PIL image: Pillow mode F"),
        (Image.new("RGBA", (SIZE, SIZE)), "PIL image: has transparency"),
        (7, "int: is no image"),
        (Image.new("RGB", (0, SIZE)), f"PIL image: 0 x {SIZE} px"),
        (closed, "PIL image: Operation on closed image; open it again"),
    ]
    for given, reason in wrong:
        with pytest.raises(repix.UserError, match=reason):
            model.translate(given)
    with pytest.raises(repix.UserError, match="'tiles' is not one of"):
        model.translate(images(5, 1, (20, 20))[0], how="tiles")


def test_what_no_pil_image_holds_is_given_as_an_array(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_translate", lambda pixels, how: pixels.astype(np.uint16))
    path = file(tmp_path / "a.png", images(6, 1)[0])
    with pytest.raises(repix.UserError, match=r"no image of 3 channels of uint16; translate\(model.read\(path\)\)"):
        model.translate(path)
    assert model.translate(model.read(path)).dtype == np.uint16


def test_files(model, tmp_path):
    array = images(7, 1)[0]
    for name in ("in/a.png", "in/sub/b.png", "c.png"):
        file(tmp_path / name, array)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    done = model.translate_files([tmp_path / "in", tmp_path / "c.png"], tmp_path / "out")
    written = {key.relative_to(tmp_path).as_posix(): value for key, value in done.written.items()}
    assert {key: value.relative_to(tmp_path).as_posix() for key, value in written.items()} == {
        "in/a.png": "out/a.png",
        "in/sub/b.png": "out/sub/b.png",
        "c.png": "out/c.png",
    }
    assert all(np.array_equal(np.asarray(Image.open(path)), model.translate(array)) for path in written.values())
    assert list(done.failed) == [tmp_path / "in" / "broken.png"] and "not an image" in next(iter(done.failed.values()))
    assert model.translate_files(str(tmp_path / "c.png"), tmp_path / "npy", format="npy").written
    assert np.array_equal(np.load(tmp_path / "npy" / "c.npy"), model.translate(array))
    wrong = [
        ({"inputs": tmp_path / "c.png", "out": tmp_path}, "would be replaced"),
        ({"inputs": tmp_path / "c.png", "out": tmp_path / "c.png"}, "is not a folder"),
        ({"inputs": [], "out": tmp_path / "o"}, "no files and no folders"),
        ({"inputs": tmp_path / "c.png", "out": tmp_path / "o", "format": "gif"}, "format gif: is not one of"),
    ]
    for given, reason in wrong:
        with pytest.raises(repix.UserError, match=reason):
            model.translate_files(**given)


def test_scores_are_those_of_the_record(model, root, monkeypatch):
    metrics = Metrics.read(root / "metrics" / f"{CELL}.json")
    table = model.scores()
    assert list(table.columns) == ["cell", "translator", "weights", "metric", "value", "n"]
    scores = metrics.scores["source_to_target"]
    expected = {(variant, name): value for variant, named in scores.items() for name, value in (named or {}).items()}
    found = {(row.weights, row.metric): row.value for row in table.itertuples()}
    assert found == {key: value for key, value in expected.items() if value is not None} and len(found) > 2
    assert set(table["n"]) == {metrics.n}
    assert repix.results(root).equals(table)
    assert repix.load(root / "runs" / CELL).scores().equals(table)
    monkeypatch.chdir(root / "runs")
    with pytest.raises(repix.UserError, match="no metrics in"):  # the folder is no repository: it has no dvc.yaml
        repix.results()
    try:
        shutil.copy(ROOT / "dvc.yaml", root)
        assert repix.results().equals(table)
    finally:
        (root / "dvc.yaml").unlink()
    assert repix.load(CELL).cell == CELL
    monkeypatch.chdir(root)
    relative = repix.load(f"exports/{CELL}")
    monkeypatch.chdir("..")
    assert relative.scores().equals(table)


@pytest.mark.parametrize("cell", ["", "tiny-pix2pix-9"])
def test_a_cell_without_scores_is_told_which_have_some(root, monkeypatch, capsys, cell):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        cli.main(["results", cell])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"repix results: {cell}: no such cell in metrics/; there is {CELL}\n"


def test_scores_of_other_weights_are_refused(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    path = copy / "metrics" / f"{CELL}.json"
    metrics = Metrics.read(path)
    other = metrics.model_copy(update={"weights_digest": dict.fromkeys(metrics.weights_digest, "0" * 64)})
    other.write(path)
    for folder in ("exports", "runs"):
        with pytest.raises(repix.UserError, match="scored other weights"):
            repix.load(copy / folder / CELL).scores()
    path.unlink()
    with pytest.raises(repix.UserError, match="no such file; scores are where the model was trained"):
        repix.load(copy / "exports" / CELL).scores()


def test_the_folder_of_a_bundle_is_a_model(root, tmp_path, model):
    for place in (f"exports/{CELL}", f"runs/{CELL}", "metrics"):
        shutil.copytree(root / place, tmp_path / CELL / "files" / place)
    bundled = repix.load(tmp_path / CELL)
    array = images(8, 1)[0]
    assert np.array_equal(bundled.translate(array), model.translate(array))
    assert bundled.scores().equals(model.scores())


def test_training_is_dvc_repro_of_the_cell(root, tmp_path, capfd):
    """By a real DVC, whose stages only copy: what is called, in which Python, and what a failure says."""
    shutil.copytree(root / "metrics", tmp_path / "metrics")
    (tmp_path / "params.yaml").write_text("run: {datasets: [tiny], models: [pix2pix], seeds: [0, 1]}\n")
    (tmp_path / "copy.py").write_text(
        "import pathlib, shutil, sys\nprint('PYTHON', sys.executable)\n"
        f"shutil.copytree({str(root / 'exports' / CELL)!r}, sys.argv[1])\n"
    )
    name = "${item.dataset}-${item.model}-${item.seed}"
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  evaluate:\n    matrix: {dataset: '${run.datasets}', model: '${run.models}', seed: '${run.seeds}'}\n"
        "    cmd: echo evaluated ${item.seed}\n"
        "  export:\n    matrix: {dataset: '${run.datasets}', model: '${run.models}', seed: '${run.seeds}'}\n"
        f"    cmd: test ${{item.seed}} = 0 && python copy.py exports/{name}\n    outs: ['exports/{name}']\n"
    )
    subprocess.run([sys.executable, "-P", "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    model = repix.train(CELL, tmp_path)
    said = capfd.readouterr().out
    assert "evaluated 0" in said and f"PYTHON {sys.executable}" in said and "evaluated 1" not in said
    assert model.folder == tmp_path / "exports" / CELL and len(model.scores())
    with pytest.raises(repix.UserError, match="tiny-pix2pix-1: `dvc repro` ended with exit code"):
        repix.train("tiny-pix2pix-1", tmp_path)
    with pytest.raises(repix.UserError, match=f"tiny-pix2pix-7: is not among the cells of run in .*: {CELL}, tiny-"):
        repix.train("tiny-pix2pix-7", tmp_path)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(repix.UserError, match=r"no trained.json \(runs/<cell>\) and no export.json") as found:
        repix.load(tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("given", [None, 42, b"runs", ["a", "b"]])
def test_what_cannot_name_a_model_is_one_line(given):
    with pytest.raises(repix.UserError, match=rf"{type(given).__name__}: is no model; give the name of a cell"):
        repix.load(given)


@pytest.mark.parametrize("variant", ["first", [], 3], ids=str)
def test_what_is_no_variant_is_one_line(model, variant):
    with pytest.raises(repix.UserError, match="is none of last, best, ema"):
        repix.load(model.folder, variant=variant)


def test_what_is_no_folder_to_train_in_is_one_line():
    with pytest.raises(repix.UserError, match="root: int is no folder; give the path of a repository"):
        repix.train("sample-pix2pix_small-0", root=42)


def test_a_folder_of_the_repository_is_found_from_below_it_and_a_packed_bundle_is_told_from_a_folder(root, monkeypatch):
    (root / "notes").mkdir()
    try:
        shutil.copy(ROOT / "dvc.yaml", root)
        monkeypatch.chdir(root / "notes")
        assert repix.load(f"exports/{CELL}").folder == root / "exports" / CELL
        (root / "notes" / "bundle.tar").write_bytes(b"")
        with pytest.raises(repix.UserError, match=r"bundle.tar: is a file; give a folder, of a bundle the one"):
            repix.load("bundle.tar")
    finally:
        shutil.rmtree(root / "notes")
        (root / "dvc.yaml").unlink()


def test_results_are_printed_as_json_or_written_not_both(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["results", "--json", "--write", "README.md"])
    assert ended.value.code == 2 and "not allowed with argument --json" in capsys.readouterr().err


def snippets() -> list[str]:
    """Return the blocks of Python of docs/export.md."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_three_lines_of_the_pages_are_the_same():
    three = [line for line in snippets()[0].splitlines() if line]
    assert len(three) == 3
    for page in ("README.md", "src/repix/__init__.py"):
        text = (ROOT / page).read_text()
        assert all(line in text for line in three), page


def test_there_is_a_snippet_for_each_runtime():
    from repix.registry import FORMATS

    held = snippets()
    assert {kind: sum(FORMATS[kind].file in text for text in held) for kind in FORMATS} == dict.fromkeys(FORMATS, 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, root):
    """A folder as docs/export.md speaks of: a label and exports/ of the sample's name with every format."""
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    folder = tmp_path_factory.mktemp("snippets")
    out = folder / "exports" / "sample-pix2pix_small-0"
    export(TrainedModel(root / "runs" / CELL), Prepared.open(root / "data" / "prepared" / "tiny"), Export(), out)
    file(folder / "label.png", images(9, 1)[0])
    return folder


@pytest.mark.parametrize("number", range(6))
def test_each_snippet_runs_and_gives_the_translation(exported, number):
    """In a process of its own; every one ends with ``image``, what PIL can save."""
    text = snippets()[number]
    code = f"{text}\nimport numpy\nnumpy.save('found.npy', numpy.asarray(image))\n"
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"PYTHONPATH": str(ROOT / "src")}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=exported, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    model = repix.load(exported / "exports" / "sample-pix2pix_small-0")
    assert far(np.load(exported / "found.npy"), model.translate(exported / "label.png")) <= 1


def test_all_snippets_are_run():
    assert len(snippets()) == 6


def test_the_notebook_runs_from_its_first_cell_to_its_last(exported, root, tmp_path):
    """From a folder below the root, in a process of its own: no more than a notebook's server would run."""
    shutil.copytree(exported / "exports", tmp_path / "exports")
    shutil.copytree(root / "metrics", tmp_path / "metrics")
    for folder in ("docs", "data/images/sample/facades/test"):
        (tmp_path / folder).mkdir(parents=True)
    file(tmp_path / "data/images/sample/facades/test/0.png", np.hstack(images(9, 2)))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and all(cell.get("outputs", []) == [] for cell in notebook["cells"])
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5
    holds = "assert 0 <= l1 <= 1 and len(scores) and len(table) and shown.width == 3 * made.width"
    # The sample's pairs are read from right to left: the label map is the right half.
    assert reader.section("datasets.sample.images.direction", ROOT / "params.yaml") == "BtoA"
    holds += "; assert np.array_equal(np.asarray(label), np.asarray(pair)[:, half:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = [sys.executable, "-c", "\n".join([*code, holds])]
    done = subprocess.run(run, cwd=tmp_path / "docs", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def records_of(root):
    from repix.config.archive import Archive
    from repix.schemas import Manifest, Trained

    return (
        Trained.read(root / "runs" / CELL / "trained.json"),
        Metrics.read(root / "metrics" / f"{CELL}.json"),
        Manifest.read(root / "data" / "prepared" / "tiny" / "manifest.json"),
        Archive(urls=["file:tiny.zip"], licence="CC0"),
    )


def test_keras_alone_does_not_know_the_layers_and_the_card_says_what_does(exported, root):
    """Should Keras ever find them without the import, this is red, and the line in the card can go."""
    from repix.exporting import cards
    from repix.schemas import Exported

    folder = exported / "exports" / "sample-pix2pix_small-0"
    code = "import keras; keras.saving.load_model('source_to_target/model.keras')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode and "Could not locate class 'BatchNormalization'" in done.stderr
    trained, metrics, manifest, archive = records_of(root)
    for formats, told in ((["keras", "onnx"], 1), (["onnx"], 0)):
        tolerance = {kind: {"max": 1.0, "mean": 1.0} for kind in formats}
        digests = {"source_to_target": dict.fromkeys(formats, "0")}
        sizes = {"source_to_target": dict.fromkeys(formats, 1)}
        record = Exported.read(folder / "export.json")
        record = record.model_copy(update={"tolerance": tolerance, "digests": digests, "bytes": sizes})
        card = cards.model_card(trained, metrics, record, manifest, archive)
        lines = [line for line in card.splitlines() if "Could not locate class" in line]
        assert len(lines) == told and "scale.\n\n" in card and "\n\n## Limits\n" in card
        assert all("import repix.models.layers" in line for line in lines)
