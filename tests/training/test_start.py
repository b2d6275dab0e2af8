"""A training that starts from another: continued, fine-tuned, or with layers that stay."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from checks.support import cells
from repix.arrays import load_arrays, save_arrays
from repix.cells import Cell
from repix.config import reader
from repix.config.models import Recipe, StartFrom
from repix.data.prepared import Prepared
from repix.errors import UserError
from repix.evaluation.validation import Validation
from repix.files import digest_arrays, digest_tree, read_json, write_json
from repix.provenance.code import Closure, bit_packages
from repix.schemas import Start, Trained
from repix.training import loop, parent
from repix.training.checkpoint import Checkpoints
from repix.training.observer import Observer
from repix.training.result import record_of, write
from repix.training.setup import set_up
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("library_convolutions")  # what a training starts from is another thing

COUNTS = (("train", 3), ("val", 2), ("test", 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the prepared folders: pairs, pairs of one channel, and unpaired images."""
    wanted = {"pairs": {}, "gray": {"channels": [1, 3]}, "unpaired": {"paired": False}}
    made = {name: tmp_path_factory.mktemp(name) for name in wanted}
    return {name: cells.prepare_set(made[name], counts=COUNTS, **options) for name, options in wanted.items()}


@pytest.fixture(scope="module")
def short(data, tmp_path_factory, library_convolutions):
    """Return a folder where ``tiny-short-0`` was trained for two epochs, and kept its state."""
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train("short", data["pairs"], epochs=2, keep_state=True)
    return folder


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """Work where the folders of a repository are to lie."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parent_there(short, repository):
    """Have ``runs/tiny-short-0`` and its lineage."""
    for folder in ("runs", "lineage"):
        shutil.copytree(short / folder, repository / folder)


BY = {
    "profile": {"name": "portable", "threads": 2},
    "environment": {"numpy": "2.1"},
    "code": {"src/repix/training/loop.py": "11"},
}


def begin(prepared, model="tuned", seed=0, flip=True, system="pix2pix", **changes):
    """Set a cell up that starts from a parent, and train nothing; return its state and what the loop goes on from."""
    cell, recipe = Cell("tiny", model, seed), cells.recipe(system, **({"decay_epochs": 0} | changes))
    folder = Path("starts") / cell.name
    parent.fetch(cell, recipe.start_from, folder)
    data = Prepared.open(prepared)
    setup = set_up(cell, recipe, data, flip=flip, start=folder)
    going_on = setup.beginning.goes_on(setup.step, data, flip=flip, data=digest_tree(prepared), by=BY)
    return setup.step.state(), going_on


def train(model: str, prepared, system="pix2pix", seed=0, flip=True, traced=None, **changes):
    """Do for a cell what its stages `start` and `train` do; return (weights, Adam and all; best; the loss table).

    ``traced`` keeps the first training's step, which the others then use from the state of their own.
    """
    cell = Cell("tiny", model, seed)
    recipe = cells.recipe(system, **({"decay_epochs": 0} | changes))
    folder = Path("starts") / cell.name
    parent.fetch(cell, recipe.start_from, folder)
    data, digest = Prepared.open(prepared), digest_tree(prepared)
    setup = set_up(cell, recipe, data, flip=flip, start=folder if recipe.start_from else None)
    given = {"flip": flip, "data": digest, "by": BY}
    going_on = setup.beginning.goes_on(setup.step, data, **given) if setup.beginning else None
    if traced:
        traced[0].step.restore(setup.step.state())
        setup = dataclasses.replace(traced[0], beginning=setup.beginning)
    elif traced is not None:
        traced.append(setup)
    history, best = loop.train(
        setup.step,
        recipe,
        checkpoints=Checkpoints(Path("checkpoints"), cell.name),
        observer=Observer(),
        validate=Validation(data, setup.translators, Observer().pictures).score,
        best_of=setup.translator_weights,
        start=going_on,
    )
    state = setup.step.state()
    record = record_of(cell, recipe, setup, state, data.manifest, history, best, digest, {"name": "portable"})
    kept = loop.checkpoint_of(record.steps, state, best, history) if recipe.keep_state else None
    write(parent.RUNS / cell.name, record, state, best, kept)
    params = {f"models.{model}": recipe.model_dump(mode="json"), "datasets.tiny.augment": {"flip": flip}}
    inputs = {"data/prepared/tiny": digest}
    write_json(parent.LINEAGE / "train" / f"{cell.name}.json", {"params": params, "inputs": inputs} | BY)
    return {
        "state": digest_arrays(state),
        "best": digest_arrays(best),
        "rows": history.epochs,
        "best row": {key: value for key, value in history.best.items() if key != "networks"},
    }


def last(cell: str, network: str = "generator") -> dict[str, np.ndarray]:
    return load_arrays(parent.RUNS / cell / "last" / f"{network}.npz")


GO_ON = {"model": "short", "schedule": "continue"}


@pytest.mark.parametrize(
    ("system", "share", "changes"),
    [
        ("pix2pix", False, {"pool": 2, "ema": 0.9}),
        ("cyclegan", True, {}),
        ("pix2pix", True, {"updates": "alternate", "discriminator_updates": 2}),
    ],
    ids=["pix2pix", "cyclegan", "schedule of two"],
)
def test_two_epochs_and_two_more_are_four_to_the_last_bit(data, capsys, system, share, changes):
    changes = changes | {"traced": [] if share else None}
    prepared = data["pairs" if system == "pix2pix" else "unpaired"]
    straight = train("long", prepared, system, epochs=4, **changes)
    short = train("short", prepared, system, epochs=2, keep_state=True, **changes)
    capsys.readouterr()
    longer = train("longer", prepared, system, epochs=4, start_from=GO_ON, **changes)
    assert longer == straight != short and len(longer["rows"]) == 4
    said = "repix: tiny-longer-0 continues tiny-short-0 after 2 epochs: the bits of 4 epochs in one go"
    assert said in capsys.readouterr().err.splitlines()
    files = sorted(parent.RUNS.glob("tiny-long-0/*/*.npz"))
    assert len(files) >= 3
    for file in files:
        assert file.read_bytes() == (parent.RUNS / "tiny-longer-0" / file.parent.name / file.name).read_bytes()


def test_the_pages_example_is_one_of_equal_bits():
    page = (ROOT / "docs/continue.md").read_text()
    models = yaml.safe_load(re.search(r"```yaml\n(models:.*?)```", page, re.DOTALL)[1])["models"]
    short, longer = (Recipe.model_validate(models[name]) for name in ("short", "longer"))
    assert f"after {short.epochs} epochs: the bits of {longer.epochs} epochs in one go" in page
    assert short.epochs % short.validate_every == 0 and longer.validate_every == short.validate_every


@pytest.mark.parametrize(
    ("part", "before", "said"),
    [
        ("profile", {"name": "fast", "threads": 2}, "profile differs in name"),
        ("environment", {"numpy": "2.0", "keras": "3.1"}, "environment differs in keras, numpy"),
        ("code", {"src/repix/training/loop.py": "00", "gone.py": "0"}, "code differs in src/repix/training/loop.py"),
    ],
    ids=["profile", "packages", "code"],
)
def test_a_parent_of_another_profile_packages_or_code_gives_other_bits(data, parent_there, capsys, part, before, said):
    path = Path("lineage/train/tiny-short-0.json")
    write_json(path, read_json(path) | {part: before})
    begin(data["pairs"], "longer", epochs=3, start_from=GO_ON)
    assert f"not the bits of 3 epochs in one go: {said}\n" in capsys.readouterr().err


def test_a_start_of_an_earlier_version_says_what_it_does_not_know(data, parent_there, capsys):
    path = Path("starts/tiny-longer-0/start.json")
    begin(data["pairs"], "longer", epochs=3, start_from=GO_ON)
    record = read_json(path)
    for part in ("profile", "environment", "code"):
        del record["trained_by"][part]
    write_json(path, record)
    shutil.rmtree("runs")  # so that what was taken over is kept as it is
    capsys.readouterr()
    begin(data["pairs"], "longer", epochs=3, start_from=GO_ON)
    assert "in one go: the profile of tiny-short-0 is not known; the environment of" in capsys.readouterr().err


def test_a_parent_and_its_child_run_the_same_code_and_packages():
    params = reader.load(ROOT / "params.yaml")
    params["models"]["child"] = params["models"]["pix2pix"] | {
        "start_from": {"model": "pix2pix", "schedule": "continue"}
    }
    one, other = (Closure.of_stage(ROOT, params, "train", model) for model in ("pix2pix", "child"))
    assert bit_packages(one.places.values()) == bit_packages(other.places.values())
    assert one.digests().items() <= other.digests().items()


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"decay_epochs": 1}, {}, "epoch 2 had the rate 0.0001 and would have 0.0002"),
        ({}, {"seed": 1, "start_from": {"cell": "tiny-short-0", "schedule": "continue"}}, "seed 0 there, 1 here"),
        ({}, {"flip": False}, "augment.flip differs"),
        ({}, {"loss": {"l1": 10}}, "loss differs"),
        ({"validate_every": 3}, {"validate_every": 3}, "best and the loss table alone: epoch 2 was validated"),
        ({}, {"prepared": "other"}, "the data is another"),
    ],
    ids=["rate", "seed", "flip", "loss", "validation", "data"],
)
def test_where_the_bits_are_not_those_of_a_straight_training_it_says_so(
    data, parent_there, tmp_path, capsys, before, now, said
):
    path = Path("lineage/train/tiny-short-0.json")
    record = read_json(path)
    record["params"]["models.short"] |= before
    write_json(path, record)
    prepared = data["pairs"]
    if now.pop("prepared", None):
        prepared = cells.prepare_set(tmp_path / "other", counts=(("train", 5), ("val", 1), ("test", 1)))
    _, going_on = begin(prepared, "longer", **({"epochs": 3, "start_from": GO_ON} | now))
    assert f"not the bits of 3 epochs in one go: {said}" in capsys.readouterr().err
    assert going_on.step == 2 * len(Prepared.open(prepared).split("train").source)
    assert [row["epoch"] for row in going_on.extra["epochs"]] == [1, 2]


def test_a_killed_continuation_goes_on_from_its_own_checkpoint(data, parent_there, capsys):
    whole = train("longer", data["pairs"], epochs=5, start_from=GO_ON)
    *_, newest = sorted(Path("checkpoints/tiny-longer-0").glob("*.npz"))
    newest.unlink()
    assert train("longer", data["pairs"], epochs=5, start_from=GO_ON) == whole
    assert "going on after step 12, from step-000000012.npz" in capsys.readouterr().err


def test_fine_tuning_starts_at_the_parents_weights_under_a_schedule_of_its_own(data, parent_there):
    cell, prepared = Cell("tiny", "tuned", 0), Prepared.open(data["pairs"])

    def tuned(**asked):
        state, going_on = begin(data["pairs"], start_from={"model": "short"} | asked)
        assert going_on is None
        return state

    first = set_up(cell, cells.recipe(), prepared, flip=True).step.state()
    kept = load_arrays(parent.RUNS / "tiny-short-0/state.npz")

    def same(state, other, prefix):
        names = [name for name in state if name.startswith(prefix)]
        return names and all(np.array_equal(state[name], other[name]) for name in names)

    whole = tuned()
    assert same(whole, kept, "generator/") and same(whole, kept, "discriminator/") and same(whole, first, "adam/")
    alone = tuned(networks="generator")
    assert same(alone, kept, "generator/") and same(alone, first, "discriminator/")
    moved = tuned(networks="generator", moments=True)
    assert same(moved, kept, "adam/generator/") and same(moved, first, "adam/discriminator/")
    assert same(tuned(moments=True), kept, "adam/")
    best = tuned(networks="generator", weights="best")
    assert same(best, load_arrays(parent.RUNS / "tiny-short-0/best/generator.npz"), "generator/")


def test_a_training_says_what_it_started_from_and_one_without_a_parent_says_nothing(data):
    train("short", data["pairs"], epochs=1)
    train("tuned", data["pairs"], epochs=1, start_from={"cell": "tiny-short-0"})
    record = Trained.read(parent.RUNS / "tiny-tuned-0/trained.json")
    assert record.start["parent"] == "tiny-short-0" and record.start["epochs"] == 1
    assert sorted(record.start["files"]) == ["discriminator.npz", "generator.npz"]
    written = read_json(parent.RUNS / "tiny-short-0/trained.json")
    assert "start" not in written and not {"start_from", "keep_state"} & written["recipe"].keys()
    assert sorted(p.name for p in (parent.RUNS / "tiny-short-0").iterdir()) == ["best", "last", "trained.json"]


@pytest.mark.parametrize("kind", [".keras", "folder", ".npz"])
def test_a_file_is_a_start(data, parent_there, tmp_path, kind):
    from repix.exporting import keras_format
    from repix.inference.trained import TrainedModel

    model = TrainedModel(parent.RUNS / "tiny-short-0")
    model.load("last")
    name = {".keras": "mine.keras", "folder": "exports/x-y-0/source_to_target/model.keras", ".npz": "mine.npz"}[kind]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".npz":
        save_arrays(path, last("tiny-short-0"))
    else:
        keras_format.write(model.system.networks["generator"], path, None)
    asked = {"file": "exports/x-y-0" if kind == "folder" else name, "networks": "generator"}
    state, _ = begin(data["pairs"], start_from=asked)
    assert all(np.array_equal(state[weight], array) for weight, array in last("tiny-short-0").items())


def test_frozen_layers_keep_their_weights_and_the_others_learn(data, parent_there):
    train("tuned", data["pairs"], epochs=1, ema=0.9, start_from={"model": "short", "freeze": ["down1", "down2"]})
    before, after = last("tiny-short-0"), last("tiny-tuned-0")
    kept = {name for name in after if np.array_equal(before[name], after[name])}
    frozen = {name for name in after if name.startswith(("generator/down1", "generator/down2"))}
    assert frozen and kept == frozen


@pytest.mark.parametrize(
    ("asked", "prepared", "changes", "said"),
    [
        ({}, "gray", {}, r"conv1/kernel is 4 x 4 x 6 x 4 there and 4 x 4 x 4 x 4 here.*px, 1 to 3 channels"),
        (
            {},
            "pairs",
            {"generator": {"filters": 4, "depth": 2}},
            r"is 8 there and absent here, and 12 more differ",
        ),
        ({"freeze": ["left"]}, "pairs", {}, "no layer of the generator begins with 'left'; it has down1, "),
        ({"freeze": ["down", "up"]}, "pairs", {}, "nothing is left to train"),
        ({"weights": "ema", "networks": "generator"}, "pairs", {}, "has no ema, only last, best"),
        ({"schedule": "continue"}, "pairs", {}, "kept no state: set models.short.keep_state: true"),
        ({"model": None, "cell": "tiny-gone-0"}, "pairs", {}, "runs/tiny-gone-0: not there"),
        ({"model": None, "file": "x.h5", "networks": "generator"}, "pairs", {}, "neither .keras, .npz nor a folder"),
    ],
    ids=["channels", "depth", "no layer", "all frozen", "ema", "no state", "no cell", "h5"],
)
def test_what_does_not_fit_is_one_line_that_says_what(data, parent_there, tmp_path, asked, prepared, changes, said):
    (tmp_path / "x.h5").touch()
    if asked.get("schedule"):
        Path("runs/tiny-short-0/state.npz").unlink()
    with pytest.raises(UserError, match=said) as caught:
        begin(data[prepared], start_from={"model": "short"} | asked, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "said"), [(np.float32("nan"), "holds NaN or infinite"), (1.5, "holds float64")])
def test_weights_that_are_none_are_refused(data, parent_there, tmp_path, value, said):
    given = last("tiny-short-0")
    first = min(name for name in given if name.startswith("generator/"))
    save_arrays(tmp_path / "x.npz", given | {first: given[first] * np.asarray(value)})
    with pytest.raises(UserError, match=f"start_from: x.npz cannot be taken: {first} {said}"):
        begin(data["pairs"], start_from={"file": "x.npz", "networks": "generator"})


def test_as_many_epochs_as_the_parent_has_done_are_refused(data, parent_there):
    with pytest.raises(UserError, match=r"longer\.epochs: 2: tiny-short-0 has done 2 already"):
        begin(data["pairs"], "longer", epochs=2, start_from=GO_ON)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "one of cell, model and file"),
        ({"cell": "a-b-0", "model": "b"}, "one of cell, model and file"),
        ({"cell": "b"}, "'b' is no cell; a cell is named"),
        ({"model": "b", "weights": "best"}, "best holds no discriminator: set networks: generator"),
        ({"file": "x.npz"}, "a file holds no discriminator"),
        ({"model": "b", "schedule": "continue", "freeze": ["down1"]}, "takes all as it is"),
        ({"file": "x.npz", "schedule": "continue"}, "needs a cell's state"),
        ({"model": "b", "weights": "best", "networks": "generator", "moments": True}, "last weights alone"),
    ],
)
def test_what_contradicts_itself_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        StartFrom.model_validate(asked)


def test_the_folder_is_replaced_only_when_the_parent_changes(parent_there):
    cell, asked, out = Cell("tiny", "tuned", 0), StartFrom(model="short"), Path("starts/tiny-tuned-0")

    def seen():
        parent.fetch(cell, asked, out)
        return (out / "start.json").stat().st_ino, digest_tree(out)

    first = seen()
    assert seen() == first
    weights = Path("runs/tiny-short-0/last/generator.npz")
    save_arrays(weights, {name: array + 1 for name, array in load_arrays(weights).items()})
    second = seen()
    assert second[1] != first[1]
    (out / "generator.npz").write_bytes(b"damaged")
    assert seen()[1] == second[1]
    parent.RUNS.rename("elsewhere")
    assert seen()[1] == second[1]  # a parent that is gone has left what was taken of it
    asked = StartFrom(model="another")
    with pytest.raises(UserError, match="not there"):
        seen()
    parent.fetch(cell, None, out)
    assert [path.name for path in out.iterdir()] == ["start.json"]
    assert Start.read(out / "start.json").parent is None


def test_a_parent_that_is_trained_anew_while_it_is_copied_is_not_taken(parent_there, monkeypatch):
    weights, copy = Path("runs/tiny-short-0/last/generator.npz"), parent.shutil.copyfile

    def copied(source, target):
        save_arrays(weights, {name: array + 1 for name, array in load_arrays(weights).items()})
        return copy(source, target)

    monkeypatch.setattr(parent.shutil, "copyfile", copied)
    with pytest.raises(UserError, match=r"runs/tiny-short-0: changed while models\.tuned\.start_from was copied"):
        parent.fetch(Cell("tiny", "tuned", 0), StartFrom(model="short"), Path("starts/tiny-tuned-0"))
    assert not Path("starts/tiny-tuned-0").exists()


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"params": {}, "inputs": {}}', '{"params": 5, "inputs": 6}'])
def test_a_damaged_lineage_of_a_parent_is_one_line(parent_there, text):
    Path("lineage/train/tiny-short-0.json").write_text(text)
    with pytest.raises(UserError, match=r"lineage/train/tiny-short-0\.json: is no record of this training"):
        parent.fetch(Cell("tiny", "longer", 0), StartFrom(**GO_ON), Path("starts/tiny-longer-0"))


def test_a_name_of_a_network_leads_nowhere(parent_there):
    """Networks are copied to files of their names: from a stranger's record one could be written anywhere."""
    record = read_json("runs/tiny-short-0/trained.json")
    networks = record["networks"] | {"../../escaped": "0" * 64}
    write_json("runs/tiny-short-0/trained.json", record | {"networks": networks})
    Path("runs/escaped.npz").touch()
    with pytest.raises(UserError, match=r"'\.\./\.\./escaped' is no name of a network"):
        parent.fetch(Cell("tiny", "tuned", 0), StartFrom(model="short"), Path("starts/tiny-tuned-0"))
    assert not Path("escaped.npz").exists()


def test_recipes_without_a_parent_record_nothing_of_it():
    plain = Recipe(system="pix2pix").model_dump(mode="json")
    assert not {"start_from", "keep_state"} & plain.keys()
    kept = Recipe(system="pix2pix", keep_state=True, start_from={"model": "a"})
    assert Recipe.model_validate(kept.model_dump(mode="json")) == kept


def test_of_a_parent_whose_lineage_is_gone_nobody_says_that_the_bits_are_those_of_one_go(parent_there, data, capsys):
    Path("lineage/train/tiny-short-0.json").unlink()
    train("longer", data["pairs"], epochs=4, start_from=GO_ON)
    said = capsys.readouterr().err
    assert "not the bits of 4 epochs in one go: lineage/train/tiny-short-0.json is not here, so nobody knows" in said
