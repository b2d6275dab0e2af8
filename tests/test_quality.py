"""The benchmarks of quality and the page of results: their whole path at toy sizes, and figures that survive it."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from scipy.stats import ttest_rel

from benchmarks.support import curve, measured, quality, results
from checks.harness import ROOT
from checks.support import cells
from repix import paths
from repix.arrays import load_arrays
from repix.cells import Cell
from repix.data.prepared import Prepared
from repix.errors import UserError
from repix.files import read_json, write_json
from repix.regression.tolerance import welch
from repix.training.checkpoint import Checkpoint, Checkpoints

DRAWN = {"urls": ["synthetic:facades?size=64&train=4&val=2&test=5&seed=0"], "sha256": None, "withdrawn": None}
TASK = quality.Task("pix2pix_small", "sample", 2, {"plain": quality.Option("as it stands")})


# --- the reference


def test_the_reference_has_the_published_counts_of_parameters():
    from torch import nn

    from benchmarks.support.torch_reference import patch, resnet, unet

    found = [
        unet(256, 64),
        patch(6, 64, nn.BatchNorm2d),
        resnet(256, 64),
        resnet(64, 64),
        patch(3, 64, nn.InstanceNorm2d),
    ]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in found]
    assert counts == [54_413_955, 2_768_705, 11_378_179, 7_837_699, 2_764_737]


def test_the_references_first_weights_are_drawn_as_its_code_draws_them():
    import torch
    from torch import nn

    from benchmarks.support.torch_reference import first_weights, unet

    torch.manual_seed(0)
    network = first_weights(unet(64, 16))
    kernels = torch.cat(
        [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    )
    scales = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert (kernels.mean().item(), kernels.std().item()) == pytest.approx((0, 0.02), abs=1e-3)
    assert (scales.mean().item(), scales.std().item()) == pytest.approx((1, 0.02), abs=5e-3)
    assert all((m.bias == 0).all() for m in network.modules() if getattr(m, "bias", None) is not None)


def test_pairs_are_cut_and_mirrored_together_and_an_epoch_takes_each_once(tmp_path):
    from benchmarks.support.reference import batches

    split = Prepared.open(cells.prepare_set(tmp_path, counts=(("train", 6), ("test", 1)))).split("train")
    same = dataclasses.replace(split, target=split.source)
    rows = list(batches(same, (16, 16), True, True, 3, 0))
    assert all((source == target).all() for source, target in rows)
    heads = {source.tobytes() for source, _ in rows}
    mirrored = {source[:, ::-1].tobytes() for source, _ in rows}
    whole = [image[top : top + 16, left : left + 16] for image in split.source for top in range(3) for left in range(3)]
    cuts = {cut.tobytes() for cut in whole}
    assert (
        len(heads) == 6 and heads & cuts and mirrored & cuts and heads <= cuts | {c[:, ::-1].tobytes() for c in whole}
    )
    again = [source.tobytes() for source, _ in batches(same, (16, 16), True, True, 3, 0)]
    assert again == [source.tobytes() for source, _ in rows]
    assert again != [source.tobytes() for source, _ in batches(same, (16, 16), True, True, 3, 1)]


def test_unpaired_domains_are_drawn_independently(tmp_path):
    from benchmarks.support.reference import batches

    split = Prepared.open(cells.prepare_set(tmp_path, paired=False, counts=(("train", 6), ("test", 1)))).split("train")
    same = dataclasses.replace(split, target=split.source)
    rows = [pair for epoch in range(4) for pair in batches(same, (18, 18), False, False, 0, epoch)]
    assert any((source != target).any() for source, target in rows)


def test_the_pool_returns_earlier_fakes_once_it_is_full():
    import random

    from benchmarks.support.torch_reference import Pool

    random.seed(0)
    pool = Pool(3)
    shown = [pool(number) for number in range(200)]
    assert shown[:3] == [0, 1, 2]
    assert 60 < sum(fake < number for number, fake in enumerate(shown)) < 140
    assert [Pool(0)(number) for number in range(5)] == list(range(5))


def test_the_reference_learns_cyclegan_and_pix2pix(request):
    """Tiny trainings: weights move, and the same seed gives the same ones."""
    import torch

    from benchmarks.support.torch_reference import Way, training

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of two, each waits for the other on a busy machine
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    for system in ("pix2pix", "cyclegan"):
        states = []
        for _ in range(2):
            torch.manual_seed(1)
            made = training(system, 32, 4, Way(), pool=2)
            before = made.networks["generator"].state_dict()
            before = {name: value.clone() for name, value in before.items()}
            images = [torch.rand(1, 3, 32, 32) * 2 - 1 for _ in range(2)]
            losses = [made.step(*images) for _ in range(3)]
            assert torch.isfinite(torch.stack([one for pair in losses for one in pair])).all()
            states.append(made.networks["generator"].state_dict())
            assert any((before[name] != value).any() for name, value in states[-1].items())
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_stored_integers_come_back():
    from benchmarks.support.reference import to_stored, to_unit

    side = cells_side()
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    unit = to_unit(images, side)
    assert unit.shape == (1, 3, 16, 16) and (unit.min().item(), unit.max().item()) == (-1, 1)
    assert (to_stored(unit, side) == images).all()


def cells_side():
    from tests.evaluation.score_cases import RGB

    return RGB


# --- options


def make_small(patch):
    patch.setattr(quality, "archive_of", lambda dataset: DRAWN)
    patch.setattr(quality, "SIZE", 32)
    patch.setattr(quality, "TASKS", {"pix2pix": TASK})


@pytest.fixture
def small(monkeypatch):
    """The one task of these tests is a toy."""
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The path of benchmarks.quality, one seed of plain and of the reference; its folder and its JSON."""
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        quality.measure("pix2pix", folder / "out", folder / "q.json", seeds=[0])
    return folder


def test_every_option_and_the_reference_are_scored_by_the_same_protocol(toy):
    folder = toy
    options = read_json(folder / "q.json")["pix2pix"]["options"]
    assert options.keys() == {"plain", "reference"}
    ours, other = (options[name]["seeds"]["0"] for name in ("plain", "reference"))
    assert ours["steps"] == other["steps"] == 8 and ours["n"] == other["n"] == {"source_to_target": 5}
    scores = ours["scores"]["source_to_target"], other["scores"]["source_to_target"]
    assert scores[0].keys() >= {"last", "ema"} and scores[1].keys() == {"last"}
    assert scores[0]["last"].keys() == scores[1]["last"].keys() >= {"l1", "psnr", "ssim", "swd"}
    assert ours["floor"] == other["floor"] and ours["floor"]["source_to_target"]["swd"] > 0
    assert all(cost["ms_per_step"] > 0 and cost["peak_gb"] > 0 for cost in (ours["cost"], other["cost"]))
    records = [read_json(path)["protocol"] for path in sorted((folder / "out" / "metrics").glob("*.json"))]
    bare = [{key: value for key, value in record.items() if key not in ("description", "best")} for record in records]
    assert bare[0] == bare[1]


def test_what_the_json_has_is_not_trained_again(toy, small, monkeypatch):
    folder = toy
    monkeypatch.setattr(quality, "make_cell", lambda *_: pytest.fail("trained again"))
    before = (folder / "q.json").read_bytes()
    found = quality.measure("pix2pix", folder / "empty", folder / "q.json", seeds=[0])
    assert (folder / "q.json").read_bytes() == before and "| as it stands" in quality.report(found)


def test_cells_of_other_settings_are_not_mixed(toy, small):
    where = "pix2pix", toy / "out", toy / "q.json"
    with pytest.raises(
        UserError, match=r"plain was trained by another entry \(2 epochs\), defaults or images; name another"
    ):
        quality.measure(*where, epochs=3)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="plain was trained by another entry"):
        patch.setattr(quality, "settings_of", lambda *_: "other defaults")
        quality.measure(*where)
    with pytest.raises(UserError, match="--only plane: no option; there are plain, reference"):
        quality.measure(*where, options=["plane"])


def test_baseline_and_tolerances_of_the_seeds_let_the_gate_judge(toy, small, tmp_path, capsys):
    from repix import cli

    folder = toy
    out = tmp_path / "out"
    (out / "metrics").mkdir(parents=True)
    (out / "params.yaml").write_bytes((folder / "out" / "params.yaml").read_bytes())
    first = read_json(folder / "out" / "metrics" / "sample-plain-0.json")
    with pytest.raises(UserError, match="0 seeds of sample-plain are scored"):
        quality.write_gate(out, "pix2pix", tmp_path / "gate")
    for seed in range(5):
        cell = f"sample-plain-{seed}"
        record = json.loads(json.dumps(first)) | {"cell": cell}
        record["scores"]["source_to_target"]["last"]["ssim"] += 0.001 * seed
        record["weights_digest"] = {"generator": f"{seed}" * 64}
        write_json(out / "metrics" / f"{cell}.json", record)
    files = quality.write_gate(out, "pix2pix", tmp_path / "gate")
    for seed in range(1, 5):
        (out / "metrics" / f"sample-plain-{seed}.json").unlink()

    def gate():
        with pytest.raises(SystemExit) as ended:
            cli.main(["gate", "--metrics", str(out / "metrics"), *gate_options(files)])
        return ended.value.code, capsys.readouterr().out

    code, said = gate()
    assert code == 0 and "judged: sample-plain-0 (4 of" in said
    record = first | {"weights_digest": {"generator": "ab" * 32}}
    record["scores"]["source_to_target"]["last"]["ssim"] -= 0.1
    write_json(out / "metrics" / "sample-plain-0.json", record)
    code, said = gate()
    assert code == 1 and "ssim" in said


def gate_options(files):
    return ["--baseline", str(files[0]), "--tolerances", str(files[1])]


# --- tables


def kept(values, variants=("last",), option="plain", **cost):
    return {
        "entry": {"epochs": 2},
        "seeds": {
            str(seed): {
                "steps": 8,
                "profile": "fast",
                "n": {"source_to_target": 3},
                "scores": {"source_to_target": {variant: {"ssim": value} for variant in variants}},
                "floor": {"source_to_target": {"swd": 1.5}},
                "weights": {"generator": f"{seed}" * 64},
                "cost": {"ms_per_step": 50.0 + seed, "peak_gb": 1.0, "seconds": 3600.0, "commit": "abc"} | cost,
            }
            for seed, value in enumerate(values)
        },
    }


def row_of(option):
    """What a file of a row holds that has the seeds of an option."""
    facts = {"row": "facades_64", "model": "pix2pix", "dataset": "facades", "size": 64, "epochs": 20}
    return facts | {"seeds": option["seeds"], "reference": {}}


def test_a_difference_is_in_standard_deviations_with_its_interval_and_the_p_of_welch():
    better, worse = [0.30, 0.32, 0.34], [0.20, 0.22, 0.24]
    found = {"size": 64, "options": {"plain": kept(worse), "reference": kept(better)}}
    rows = {row[1]: row for row in quality.rows_of(TASK, found)}
    ssim = 4 + quality.SHOWN.index("ssim")
    assert rows["as it stands"][ssim] == "0.22 ± 0.02"
    assert rows["the reference code's rules, PyTorch"][ssim] == "0.32 ± 0.02"
    assert rows["as it stands"][-2:] == ["50", "1"]
    # Means 0.1 apart, both sd 0.02: t = 0.1 / (0.02 sqrt(2/3)) = 6.124 with 4 degrees of freedom, whose t is 2.776.
    (row,) = quality.differences_of(TASK, found)
    assert row[1:3] == ["the reference code's rules, PyTorch, `last`", "as it stands, `last`"]
    assert row[3 + quality.SHOWN.index("ssim")] == "+5.0 [+2.7, +7.3], p 0.0036"
    lower = quality.difference("swd", dict(enumerate(better)), dict(enumerate(worse)), paired=False)
    assert lower.gain == pytest.approx(-5) and lower.p == pytest.approx(welch(better, worse))


def test_weights_of_the_same_trainings_are_compared_seed_by_seed():
    last, ema = [0.20, 0.30, 0.40], [0.210, 0.312, 0.411]
    found = kept(last)
    for record, value in zip(found["seeds"].values(), ema, strict=True):
        record["scores"]["source_to_target"]["ema"] = {"ssim": value}
    (row,) = quality.differences_of(TASK, {"size": 64, "options": {"plain": found}})
    assert row[1:3] == ["as it stands, `ema`", "its own `last`"]
    sides = dict(enumerate(ema)), dict(enumerate(last))
    one = quality.difference("ssim", *sides, paired=True)
    assert one.p == pytest.approx(ttest_rel(ema, last).pvalue) and 0 < one.low < one.gain < one.high < 0.2
    shown = f"+{one.gain:.1f} [+{one.low:.1f}, +{one.high:.1f}], p {one.p:.2g}"
    assert row[3 + quality.SHOWN.index("ssim")] == shown
    assert quality.difference("ssim", *sides, paired=False).p > 0.8  # between trainings noise hides it


def test_an_option_stands_beside_the_one_that_it_goes_beyond():
    one, more = quality.Option("one change"), quality.Option("two changes", beyond="one")
    task = quality.Task("pix2pix", "facades", 1, {"plain": quality.Option("as it stands"), "one": one, "more": more})
    scores = {"plain": (0.2, 0.3), "one": (0.3, 0.4), "more": (0.5, 0.7)}
    options = {name: kept(values, ("last", "ema"), name) for name, values in scores.items()}
    rows = [row[1:3] for row in quality.differences_of(task, {"size": 64, "options": options})]
    found = [beside for name, beside in rows if name.startswith("two changes")]
    # Like with like: no option is credited with what the average does.
    last = ["as it stands, `last`", "one change, `last`"]
    average = ["its own `last`", "as it stands, `ema`", "one change, `ema`"]
    assert found == [*last, *average]
    # What is a recipe together with the average stands beside the plain recipe without one, too.
    task = dataclasses.replace(task, plus="more")
    rows = [row[1:3] for row in quality.differences_of(task, {"size": 64, "options": options})]
    found = [beside for name, beside in rows if name.startswith("two changes")]
    assert found == [*last, *average[:2], "as it stands, `last`", average[2]]


def test_the_reference_stands_beside_the_option_that_has_its_rules():
    task = dataclasses.replace(
        TASK, options=TASK.options | {"alike": quality.Option("as theirs")}, as_reference="alike"
    )
    options = {"plain": kept([0.2, 0.3]), "alike": kept([0.3, 0.4]), "reference": kept([0.31, 0.41])}
    rows = [row[1:3] for row in quality.differences_of(task, {"size": 64, "options": options})]
    theirs = "the reference code's rules, PyTorch, `last`"
    beside = ["as it stands, `last`", "as theirs, `last`"]
    assert rows == [["as theirs, `last`", beside[0]], *([theirs, other] for other in beside)]


def test_scores_by_two_networks_are_not_put_into_one_column():
    found = kept([0.2, 0.3])
    for head, record in zip("ab", found["seeds"].values(), strict=True):
        record["scores"]["source_to_target"]["last"][f"fid_768_{head * 8}"] = 1.0
    with pytest.raises(UserError, match="fid_768_aaaaaaaa and fid_768_bbbbbbbb were computed by other networks"):
        quality.rows_of(TASK, {"size": 64, "options": {"plain": found}})


def test_the_table_of_the_page_comes_from_the_json_alone():
    text = quality.report({"pix2pix": {"size": 64, "dataset": "facades", "options": {"plain": kept([0.2])}}})
    assert "8 steps, 3 test images" in text and "| the paper's recipe" in text and "- `cyclegan`: plain" in text
    # Of a task without pairs no column stands empty.
    head = next(line for line in text.splitlines() if "recipe" in line and line.startswith("|"))
    assert [name.strip() for name in head.strip("|").split("|")][3:5] == ["ssim", "swd"]


def test_the_page_has_what_its_command_writes():
    """The committed page is that of the committed JSON: figures are not edited by hand."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"-->\n{results.page_rows(quality.MEASURED, results.PICTURES)}\n<!-- rows:end" in page
    first = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"-->\n{results.summary(quality.MEASURED)}\n<!-- real:end" in first
    assert f"-->\n{quality.report(quality.read_results(quality.FILE))}\n<!-- options:end" in page


def test_the_first_pages_table_has_the_average_of_weights_where_one_is_kept(tmp_path):
    record = row_of(kept([0.2, 0.3])) | {"baselines": {"source_to_target": {"ssim": 0.4}}}
    for number, seed in enumerate(record["seeds"].values()):
        seed["scores"]["source_to_target"]["ema"] = {"ssim": 0.5 + number, "swd": 3.0}
    write_json(tmp_path / "facades_64.json", record)
    (line,) = results.summary(tmp_path).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["labels to façades", "`pix2pix`", "ema", "64", "8", "2", "1 ± 0.71 (0.4)", "3 ± 0 (1.5)", ""]


def test_every_row_is_a_recipe_on_a_data_set_that_its_check_takes():
    from repix.config import reader
    from repix.config.models import Recipe

    for name, row in results.ROWS.items():
        recipe = reader.read(f"models.{row.model}", Recipe, ROOT / "params.yaml")
        images = reader.section(f"datasets.{row.dataset}.images", ROOT / "params.yaml")
        assert row.epochs < recipe.epochs and name == name.lower()
        assert (images.get("layout") == "unaligned") == (recipe.system == "cyclegan")


def test_a_row_is_made_kept_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "archive_of", lambda dataset: DRAWN)
    row = results.Row("drawn", "pix2pix_small", "sample", 32, 2, {"resample": "box"}, recipe=results.HALF)
    folder = tmp_path / "work"
    results.lay_out_row(folder, row, None)
    made = tmp_path / "json", tmp_path / "pictures"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "drawn.png").write_bytes(b"of an earlier training")
    record = results.train(row, folder, *made, [0], False)
    assert read_json(tmp_path / "json" / "drawn.json") == record
    # Hours of a training under way are not removed for an option that was forgotten.
    checkpoint = folder / curve.CHECKPOINTS / "key" / "step-000000001.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(UserError, match=r"holds trainings with other parameters \(epochs: 3\): give the options"):
        results.lay_out_row(folder, dataclasses.replace(row, epochs=3), None)
    checkpoint.unlink()
    assert record["recipe"] == results.HALF
    text = results.section(row, record, tmp_path / "pictures")
    assert "precision `bfloat16`, resample `box`" in text
    assert f"commit `{record['seeds']['0']['cost']['commit']}`" in text
    assert "python -m benchmarks.results --train drawn --seeds 0" in text and "8 steps" in text
    lines = {line.split("|")[2].strip(): line for line in text.splitlines() if line.startswith("| source to target")}
    assert lines.keys() >= {"last", "last_paper", "best trivial predictor", "floor"}
    from PIL import Image

    with Image.open(tmp_path / "pictures" / "drawn.png") as picture:
        assert picture.size == (3 * 32 + 2 * 2, 3 * 32 + 2 * 2)
    # A state that was kept half-way is scored as the last one is, and stands beside it.
    cell = Cell("sample", "pix2pix_small", 0)
    weights = {"generator": "generator", "discriminator": "discriminator"}
    state = {}
    for network in weights:
        state |= load_arrays(folder / paths.RUNS / cell.name / "last" / f"{network}.npz")
    state = {name: 0.5 * array for name, array in state.items()}
    begun = time.time() - 1
    # One that was stopped before the code changed is none of the curve, whatever step it had reached.
    Checkpoints(folder / curve.CHECKPOINTS, "stale").save(Checkpoint(6, state, {}))
    curve.keep(folder, cell, 8, "stale")
    assert len(curve.kept(folder, cell)) == 1
    training = Checkpoints(folder / curve.CHECKPOINTS, "key")
    with training.alone():
        assert curve.run_key_since(folder, begun) == "key" and curve.run_key_since(folder, begun + 3600) is None
        for step in (1, 4, 5):
            training.save(Checkpoint(step, state, {}))
            curve.keep(folder, cell, 8, "key")
    [kept_] = curve.kept(folder, cell)
    assert kept_ == folder / "kept" / cell.name / "key" / "step-000000004.npz"
    (kept_.parent / "step-000000006.npz").write_bytes(b"cut short")
    (kept_.parent / "step-old.npz").write_bytes(b"of somebody else")
    record = results.train(row, folder, *made, [0], False)
    [point] = record["seeds"]["0"]["curve"]
    # Another seed is one of the same recipe.
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["models"]["pix2pix_small"]["loss"] = {"l1": 7.0}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"drawn\.json: its seeds were trained with other settings; remove it"):
        results.train(row, tmp_path / "other", *made, [1], False)
    assert point["steps"] == 4 and record == read_json(tmp_path / "json" / "drawn.json")
    half, whole = (one["scores"]["source_to_target"] for one in (point, record["seeds"]["0"]))
    assert half["last"].keys() == whole["last"].keys() and half["last"]["l1"] != whole["last"]["l1"]
    text = results.section(row, record, tmp_path / "pictures")
    shown = text.partition("Along the training, whose rate")[2].splitlines()
    assert [line.split("|")[2].strip() for line in shown if line.startswith("| source to target")] == ["4", "8"]
    # What the JSON has is not trained again, whatever became of the folder.
    monkeypatch.setattr(results, "make_cell", lambda *_: pytest.fail("trained again"))
    assert results.train(row, tmp_path / "gone", *made, [0], False) == record
    with pytest.raises(UserError, match="was made by another row"):
        results.train(results.Row("drawn", "pix2pix", "sample", 32, 2), folder, *made, [0], False)
    with pytest.raises(UserError, match="the reference code has pix2pix and cyclegan"):
        results.train(row, folder, *made, [0], True)


def test_what_a_row_is_scored_by_is_its_own(tmp_path, monkeypatch):
    tree = quality.reader.load(ROOT / "params.yaml")
    tree["evaluate"] |= {"classcolour": True, "memorisation": True, "fid": True, "dims": [64]}
    monkeypatch.setattr(quality.reader, "load", lambda path: copy.deepcopy(tree))
    monkeypatch.setattr(results, "archive_of", lambda dataset: DRAWN)
    results.lay_out_row(tmp_path / "row", results.ROWS["facades_64"], None)
    scored = yaml.safe_load((tmp_path / "row" / "params.yaml").read_text())["evaluate"]
    assert {name for name, value in scored.items() if value is True} == {"swd", "paper_mode"}
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    results.lay_out_row(tmp_path / "row", results.ROWS["facades_64"], weights)
    scored = yaml.safe_load((tmp_path / "row" / "params.yaml").read_text())["evaluate"]
    assert {name for name, value in scored.items() if value is True} == {"swd", "fid", "kid", "paper_mode"}
    assert scored["dims"] == [768]


def test_a_folder_of_others_is_never_emptied(tmp_path):
    from checks.systems import MADE_HERE, lay_out

    theirs = tmp_path / "theirs"
    (theirs / "thesis").mkdir(parents=True)
    (theirs / "params.yaml").write_text("theirs: 1\n")
    (theirs / "thesis" / "chapter.txt").write_text("years")
    with pytest.raises(UserError, match="holds files of others, and might be emptied: name a new folder"):
        lay_out(theirs, "a: 1\n")
    assert (theirs / "thesis" / "chapter.txt").read_text() == "years"
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be made"):
            lay_out(wrong, "a: 1\n")
    ours = tmp_path / "ours"
    lay_out(ours, "a: 1\n")
    (ours / "data").mkdir()
    lay_out(ours, "a: 1\n")
    assert (ours / "data").exists()
    # Killed while it was emptied: what is left is of no parameters that are known.
    (ours / "params.yaml").unlink()
    lay_out(ours, "a: 1\n")
    assert {path.name for path in ours.iterdir()} == {MADE_HERE, "params.yaml"}
    # What took hours is not removed for a forgotten option, and not if its params.yaml is gone.
    (ours / "runs" / "sample-plain-0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds trainings with other parameters \(a: 2\): give the options"):
        lay_out(ours, "a: 2\n", hours=True)
    (ours / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"holds trainings with other parameters \(no params\.yaml\)"):
        lay_out(ours, "a: 1\n", hours=True)
    assert (ours / "runs" / "sample-plain-0").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as JSON"),
        ('{"pix2pix": {"size": 64', "cannot be read as JSON"),
        ("[1]", "it: Input should be a valid dictionary"),
        ('{"pix2pix": {"dataset": "facades", "options": {}}}', "pix2pix.size: Field required"),
    ],
)
def test_a_damaged_file_of_results_is_one_line_in_every_mode(tmp_path, small, text, reason):
    file = tmp_path / "q.json"
    file.write_text(text)
    for use in (
        lambda: quality.read_results(file),
        lambda: quality.collect(tmp_path, file, "pix2pix", 2),
        lambda: quality.measure("pix2pix", tmp_path / "out", file),
    ):
        with pytest.raises(UserError, match="restore it from git, or name another") as caught:
            use()
        assert reason in str(caught.value) and file.read_text() == text
    with pytest.raises(UserError, match="is a folder; name a file"):
        quality.measure("pix2pix", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_score_that_is_no_number_is_in_no_table(tmp_path):
    file = tmp_path / "facades_64.json"
    for value in (float("nan"), True, "0.2"):
        file.write_text(json.dumps(row_of(kept([value]))))
        with pytest.raises(UserError, match=r"no file of results \(seeds\.0\.scores\.source_to_target\.last\.ssim"):
            results.summary(tmp_path)
    file.write_text(json.dumps(row_of({"seeds": {}})))
    with pytest.raises(UserError, match=r"\(seeds: Dictionary should have at least 1 item"):
        results.page_rows(tmp_path, tmp_path)


def test_two_that_add_to_one_file_both_do(tmp_path):
    file, link = tmp_path / "store" / "row.json", tmp_path / "row.json"
    file.parent.mkdir()
    link.symlink_to(file)
    record = row_of(kept([0.2, 0.3, 0.4]))
    empty = record | {"seeds": {}}
    for seed, scored in record["seeds"].items():  # each read the file before any had written it
        found = results.put(link, empty, "seeds", seed, scored)
    assert read_json(file) == found == record and link.is_symlink()
    with measured.updated(file, measured.ROW) as held:
        code = (
            "import sys; from pathlib import Path; from benchmarks.support import measured\n"
            f"with measured.updated(Path({str(file)!r}), measured.ROW) as found: found['size'] += 1\n"
        )
        other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
        held["size"] += 10
    assert other.wait(timeout=60) == 0 and read_json(file)["size"] == 64 + 11


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["quality", "--epochs", "0"], "'0' is no whole number from 1 on"),
        (["quality", "--write", "--only", "plain"], "--write takes no --only"),
        (["quality", "--gate", "--task", "cyclegan"], "--gate takes no --task"),
        (["quality", "--collect", "--features", "x"], "--collect takes no --features"),
        (["results", "--train", "facades_64", "--seeds", "-1"], "'-1' is no whole number from 0 on"),
        (["results", "--write", "--reference"], "--write takes no --reference"),
        (["quality", "--write", "--json", "typo.json"], "repix: typo.json: no results to write"),
    ],
)
def test_options_that_would_not_be_read_are_refused(words, line):
    command = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode and ended.stderr.splitlines()[-1].endswith(line)


def test_weights_are_looked_at_before_anything_is_trained(tmp_path, small):
    text = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"weights\.pth: no such file"):
        quality.measure("pix2pix", tmp_path / "out", tmp_path / "q.json", weights=text)
    text.write_text("no weights")
    with pytest.raises(UserError, match="not weights of pytorch-fid's Inception"):
        quality.measure("pix2pix", tmp_path / "out", tmp_path / "q.json", weights=text)
    assert not (tmp_path / "out").exists()


def test_what_holds_no_scores_adds_nothing_to_the_json(tmp_path):
    file = tmp_path / "quality.json"
    assert quality.collect(tmp_path, file, "cyclegan", 10) == {} and not file.exists()


def test_a_row_that_is_none_is_refused_by_name():
    command = [sys.executable, "-m", "benchmarks.results", "--train", "facade"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.startswith("repix: --train facade: no row; there are facades_256,")
    assert not (ROOT / paths.WORK / "results" / "facade").exists()
