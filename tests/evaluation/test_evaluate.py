"""Evaluating a cell: what is scored, what is written, and that it is the same every time."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from checks.support.cells import TinyCell, train_cell
from repix.metrics import METRICS

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing


@pytest.fixture(scope="module")
def cell(tmp_path_factory, tiny_cell) -> TinyCell:
    return tiny_cell(tmp_path_factory.mktemp("paired"))


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory, tiny_cell) -> TinyCell:
    return tiny_cell(tmp_path_factory.mktemp("unpaired"), "cyclegan")


def run(cell: TinyCell, out, **settings):
    from repix.config.evaluation import Evaluate
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.inference.trained import TrainedModel

    return evaluate(TrainedModel(cell.trained), Prepared.open(cell.prepared), Evaluate(**settings), out)


def test_outputs_are_the_model_s_and_scores_are_theirs(cell, tmp_path):
    from repix.data.images import decode
    from repix.data.prepared import Prepared
    from repix.evaluation.metrics import l1
    from repix.inference.trained import TrainedModel

    metrics = run(cell, tmp_path / "out")
    model, test = TrainedModel(cell.trained), Prepared.open(cell.prepared).split("test")
    model.load("last")
    expected = model.translator("source_to_target").translate(test.source)
    written = np.stack([decode(tmp_path / "out" / "source_to_target" / f"{name}.png").pixels for name in test.names])
    assert np.array_equal(written, expected)
    values = l1.l1(expected, test.target, (0, 0, 0), (255, 255, 255))
    assert metrics.scores["source_to_target"]["last"]["l1"] == pytest.approx(values.mean(), abs=1e-12)
    assert metrics.n == metrics.protocol["images"]["source_to_target"]["n"] == 2
    table = pd.read_csv(tmp_path / "out" / "source_to_target.csv", dtype={"image": str})
    assert table["image"].tolist() == list(test.names)
    paired = [metric.name for metric in METRICS if metric.kind == "paired"]
    assert paired[:3] == ["l1", "psnr", "ssim"]
    assert list(table.columns) == ["image", *paired, *(f"best_{name}" for name in paired)]
    assert table["l1"].to_numpy() == pytest.approx(values)


def test_the_same_bytes_every_time(cell, tmp_path):
    from repix.files import digest_tree

    records = [run(cell, tmp_path / name, paper_mode=True).model_dump() for name in ("a", "b")]
    assert records[0] == records[1]
    assert digest_tree(tmp_path / "a") == digest_tree(tmp_path / "b")
    assert set(records[0]["scores"]["source_to_target"]) == {"last", "best", "last_paper", "best_paper"}
    scores = records[0]["scores"]["source_to_target"]
    assert scores["last"]["l1"] != scores["last_paper"]["l1"]


@pytest.mark.parametrize("system", ["pix2pix", "cyclegan"])
def test_a_set_of_several_files_is_scored_as_one(request, system, tmp_path, monkeypatch):
    """Of a large set each side is several arrays; every metric, and the predictors beside them, take it as it is."""
    from checks.support.cells import prepare_set
    from repix import arrays
    from repix.data import preprocess
    from repix.data.prepared import Prepared
    from repix.data.rows import Rows
    from repix.evaluation.validation import Validation
    from repix.files import digest_tree
    from repix.inference.trained import TrainedModel
    from repix.studies import margins

    cell = request.getfixturevalue("cell" if system == "pix2pix" else "unpaired")
    whole = prepare_set(tmp_path / "whole", paired=system == "pix2pix")
    monkeypatch.setattr(preprocess, "SHARD_BYTES", 1)
    cut = prepare_set(tmp_path / "cut", paired=system == "pix2pix")
    assert isinstance(Prepared.open(cut).split("test").target, Rows)
    monkeypatch.setattr(arrays, "SCRATCH_BYTES", 0)
    every = {"classcolour": True, "memorisation": True, "paper_mode": True}
    found = [run(cell._replace(prepared=one), tmp_path / one.parent.name / "out", **every) for one in (whole, cut)]
    assert found[0] == found[1]
    assert digest_tree(tmp_path / "whole" / "out") == digest_tree(tmp_path / "cut" / "out")

    model = TrainedModel(cell.trained)
    translators = {name: model.translator(name) for name in model.record.translators}
    scores = [Validation(Prepared.open(one), translators, None).score() for one in (whole, cut)]
    assert scores[0] == scores[1]
    if system == "pix2pix":
        for one, other in zip(*(margins.predictions(Prepared.open(one)).values() for one in (whole, cut)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_test_image_is_scored_and_what_takes_two_is_left_out(cell, tmp_path):
    from checks.support.cells import prepare_set

    prepared = prepare_set(tmp_path, counts=(("train", 1), ("test", 1)))
    metrics = run(cell._replace(prepared=prepared), tmp_path / "out")
    scores = metrics.scores["source_to_target"]["last"]
    assert metrics.n == 1 and all(scores[metric] is not None for metric in ("l1", "psnr", "ssim", "swd"))
    described = metrics.protocol["description"]["source_to_target"]["last"]
    assert described["l1"]["ci95"] is None
    assert "floor" not in described["swd"]


@pytest.mark.parametrize("same", [True, False])
def test_equal_weights_are_translated_once(cell, tmp_path, monkeypatch, same):
    from repix.evaluation import evaluate as module
    from repix.inference.trained import TrainedModel

    translated = []
    original = module._translate
    monkeypatch.setattr(module, "_translate", lambda *given: translated.append(given[-1]) or original(*given))
    model = TrainedModel(cell.trained)
    assert model.record.best["networks"]["generator"] == model.record.networks["generator"]  # the last epoch was best
    if not same:
        original_init = TrainedModel.__init__

        def differ(self, folder):
            original_init(self, folder)
            self.record.best["networks"]["generator"] = "another"

        monkeypatch.setattr(TrainedModel, "__init__", differ)
        monkeypatch.setattr(TrainedModel, "load", lambda self, variant: None)
    metrics = run(cell, tmp_path / "out")
    assert translated == (["last"] if same else ["last", "best"])
    scores = metrics.scores["source_to_target"]
    assert scores["last"] == scores["best"] and scores["last"] is not scores["best"]


def test_both_directions_without_pairs(unpaired, tmp_path):
    from repix.data.prepared import Prepared

    metrics = run(unpaired, tmp_path / "out")
    test = Prepared.open(unpaired.prepared).split("test")
    for translator, names in (("source_to_target", test.names), ("target_to_source", test.target_names)):
        scores = metrics.scores[translator]["last"]
        assert scores["l1"] is scores["ssim"] is scores["psnr"] is None
        assert metrics.protocol["images"][translator]["n"] == len(names)
        files = sorted(path.stem for path in (tmp_path / "out" / translator).iterdir())
        assert files == sorted(names)
        assert pd.read_csv(tmp_path / "out" / f"{translator}.csv").shape == (len(names), 1)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('alt="source of') == page.count('alt="output of') == 4 and 'alt="target' not in page


def test_reasons_that_differ_name_their_translator():
    from repix.evaluation.evaluate import _protocol

    given = {
        "source_to_target": {"fid": {"reason": "raw"}, "l1": {"reason": "unpaired"}, "images": {}},
        "target_to_source": {"fid": {"dims": 2048}, "l1": {"reason": "unpaired"}, "images": {}},
    }
    assert _protocol(given) == {
        "fid": {"dims": 2048, "reason": "source_to_target: raw"},
        "l1": {"reason": "unpaired"},
    }


def test_names_with_dots_keep_apart(tmp_path, cell):
    """``a.1.png`` and ``a.2.png`` are two images."""
    from repix.files import digest_file, read_json, write_json

    folder = tmp_path / "prepared"
    folder.mkdir()
    manifest = read_json(cell.prepared / "manifest.json")
    for path in cell.prepared.iterdir():
        if not path.name.startswith("test-") or path.suffix != ".jsonl":
            (folder / path.name).symlink_to(path)
            continue
        examples = [json.loads(line) | {"name": f"a.{i}"} for i, line in enumerate(path.read_text().splitlines())]
        (folder / path.name).write_text("".join(json.dumps(example) + "\n" for example in examples))
        half = manifest["splits"]["test"][path.stem.removeprefix("test-")]
        half["examples_sha256"] = digest_file(folder / path.name)
    (folder / "manifest.json").unlink()
    write_json(folder / "manifest.json", manifest)
    run(cell._replace(prepared=folder), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "source_to_target").iterdir()) == ["a.0.png", "a.1.png"]


def test_a_data_set_of_other_values_is_refused(cell, tmp_path):
    from checks.support.cells import prepare_set
    from repix.errors import UserError

    other = prepare_set(tmp_path, channels=(1, 1), colour="gray")
    with pytest.raises(UserError, match="other sizes, channels or values"):
        run(cell._replace(prepared=other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_average_is_a_variant_that_is_shown_scored_and_exported(tmp_path):
    from repix.config.export import Export
    from repix.data.images import decode
    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel
    from repix.schemas import Exported

    cell = train_cell(tmp_path, ema=0.5)
    metrics = run(cell, tmp_path / "out")
    scores = metrics.scores["source_to_target"]
    assert set(scores) == {"last", "best", "ema"} and scores["ema"]["l1"] != scores["last"]["l1"]
    model, prepared = TrainedModel(cell.trained), Prepared.open(cell.prepared)
    kept = model.record.ema["networks"]["generator"]
    assert kept != model.record.networks["generator"]
    assert metrics.weights("ema") == {"generator": kept}
    assert (
        metrics.weights("last") == {"generator": model.record.networks["generator"]} and metrics.weights("best") == {}
    )
    model.load("ema")
    expected = model.translator("source_to_target").translate(prepared.split("test").source)
    names = prepared.split("test").names
    written = [decode(tmp_path / "out" / "source_to_target" / f"{name}.png").pixels for name in names]
    assert np.array_equal(written, expected)
    columns = list(pd.read_csv(tmp_path / "out" / "source_to_target.csv").columns)
    assert columns[1:4] == ["l1", "psnr", "ssim"] and "last_l1" in columns and "ema_l1" not in columns

    export(model, prepared, Export(formats=["onnx"]), tmp_path / "export")
    exported = Exported.read(tmp_path / "export" / "export.json")
    assert exported.variant == "ema" and exported.weights == {"generator": kept}
    export(model, prepared, Export(formats=["onnx"], variant="last"), tmp_path / "export")
    exported = Exported.read(tmp_path / "export" / "export.json")
    assert exported.weights["generator"] == model.record.networks["generator"]


def test_an_average_that_is_the_last_weights_is_shown_all_the_same(tmp_path):
    """As of a generator that no iteration updated."""
    from repix.inference.trained import TrainedModel

    cell = train_cell(tmp_path, ema=0.5)
    model = TrainedModel(cell.trained)
    assert model.record.shown == "ema"
    same = model.record.ema | {"networks": dict(model.record.networks)}
    model.record.model_copy(update={"ema": same}).write(cell.trained / "trained.json")
    scores = run(cell, tmp_path / "out").scores["source_to_target"]
    assert scores["ema"] == scores["last"]
    assert len(list((tmp_path / "out" / "source_to_target").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("settings", "most", "said"),
    [
        ({}, 2, r"evaluate\.classcolour: a label map of 3 channels .*: give evaluate\.label_colours, or switch it off"),
        ({"label_colours": [[0, 0], [1, 1]]}, 31, r"evaluate\.label_colours: the source images have 3 channels"),
    ],
)
def test_label_maps_that_cannot_be_told_apart_are_said_before_anything_is_translated(
    cell, tmp_path, monkeypatch, settings, most, said
):
    from repix.errors import UserError
    from repix.evaluation import evaluate as module

    monkeypatch.setattr(module.classcolour, "MOST_CHANNELS", most)
    monkeypatch.setattr(module, "_translate", None)
    with pytest.raises(UserError, match=said):
        run(cell, tmp_path / "out", classcolour=True, **settings)
    assert not (tmp_path / "out").exists()


def test_where_there_are_no_pairs_no_label_map_is_asked_for(unpaired, tmp_path, monkeypatch):
    """The metrics hold for the whole grid, in which another set may have labels."""
    from repix.evaluation import evaluate as module

    monkeypatch.setattr(module.classcolour, "MOST_CHANNELS", 2)
    assert run(unpaired, tmp_path / "out", classcolour=True).scores["source_to_target"]["last"]["classcolour"] is None
