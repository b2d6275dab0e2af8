"""Recipes: the schedule, what is refused, and the entries of params.yaml."""

import re
from pathlib import Path

import pytest
import yaml

from repix.config import models as config
from repix.config import reader
from repix.config.datasets import Dataset
from repix.config.models import Recipe
from repix.errors import UserError

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
TREE = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
SEVEN = ("pix2pix", "cyclegan", "pix2pix_scratch", "pix2pix_book", "cyclegan_book", "pix2pix_tf2", "pix2pix_affine")


def entry(name):
    return reader.read(f"models.{name}", Recipe, PARAMS)


@pytest.mark.parametrize("name", sorted(TREE["models"]))
def test_every_model_is_a_recipe(name):
    assert entry(name).epochs >= 1


@pytest.mark.parametrize("name", sorted(TREE["datasets"]))
def test_every_data_set_is_one(name):
    assert reader.read(f"datasets.{name}", Dataset, PARAMS).archive.urls


def test_schedules_of_the_sources():
    found = {
        name: (one.epochs, one.decay_epochs, one.optimizer.learning_rate, one.optimizer.beta_1, one.batch_size)
        for name in SEVEN
        for one in [entry(name)]
    }
    assert found == {
        "pix2pix": (200, 100, 2e-4, 0.5, 1),
        "cyclegan": (200, 100, 2e-4, 0.5, 1),
        "pix2pix_scratch": (100, 0, 2e-4, 0.5, 1),
        "pix2pix_book": (500, 0, 1e-4, 0.9, 1),
        "cyclegan_book": (500, 0, 2e-4, 0.5, 1),
        "pix2pix_tf2": (200, 0, 2e-4, 0.5, 1),
        "pix2pix_affine": (200, 0, 2e-4, 0.5, 1),
    }


def test_update_orders_of_the_sources():
    found = {
        name: (one.loss.gan, one.updates, one.sampling, one.loss.discriminator, one.pool, one.initializer)
        for name in SEVEN
        for one in [entry(name)]
    }
    assert found == {
        "pix2pix": ("vanilla", "together", "permutation", 0.5, 0, "normal"),
        "cyclegan": ("lsgan", "together", "permutation", 0.5, 50, "normal"),
        "pix2pix_scratch": ("vanilla", "separate", "replacement", 0.5, 0, "normal_kernels"),
        "pix2pix_book": ("softmax", "alternate", "permutation", 1.0, 0, "glorot"),
        "cyclegan_book": ("lsgan_sigmoid", "separate", "permutation", 1.0, 0, "glorot"),
        "pix2pix_tf2": ("vanilla", "simultaneous", "permutation", 0.5, 0, "normal_kernels"),
        "pix2pix_affine": ("vanilla", "together", "permutation", 1.0, 0, "normal"),
    }
    assert all(entry(name).loss.l1 == 100 for name in SEVEN if entry(name).system == "pix2pix")
    assert [(entry(n).loss.cycle, entry(n).loss.identity) for n in ("cyclegan", "cyclegan_book")] == [(10, 5), (10, 1)]


def test_learning_rate_is_constant_then_falls_in_a_line():
    recipe = Recipe(system="pix2pix", epochs=6, decay_epochs=3, optimizer={"learning_rate": 1.0})
    assert [recipe.learning_rate(epoch) for epoch in range(6)] == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("decay", [3, 4, 100])
def test_with_no_constant_epochs_all_of_them_decay(decay):
    """The reference code at 0 constant and 3 decaying epochs; more cannot decay than there are."""
    recipe = Recipe(system="pix2pix", epochs=3, decay_epochs=decay, optimizer={"learning_rate": 1.0})
    assert [recipe.learning_rate(epoch) for epoch in range(3)] == [0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": {"gan": "softmax"}}, "softmax needs discriminator.kind: minibatch"),
        ({"discriminator": {"kind": "minibatch"}}, "set loss.gan: softmax"),
        ({"loss": {"gan": "wgangp"}, "updates": "separate"}, "set updates: together"),
        ({"generator": {"kind": "resnet", "padding": "reflekt"}}, "did you mean 'reflect'"),
        ({"generator": {"filter": 3}}, "unknown key; did you mean 'filters'"),
        ({"generator": {"decoder_filters": [0]}}, "models.mine.generator.decoder_filters.0: 0: "),
        (
            {"generator": {"depth": 3, "kind": "resnet"}},
            "models.mine.generator.depth: a resnet has no depth; it has kind, ",
        ),
        (
            {"generator": {"blocks": 3}},
            "models.mine.generator.blocks: a unet has no blocks; it has kind, filters, depth",
        ),
        (
            {"discriminator": {"kind": "pixel", "kernels": 3}},
            "mine.discriminator.kernels: a pixel has no kernels; it has",
        ),
        ({"loss": {"cycle": 3}}, "models.mine.loss: a pix2pix has no cycle; it has gan, gan_weight, l1, discriminator"),
        (
            {"loss": {"gradient_penalty": 3}},
            "mine.loss.gradient_penalty: a vanilla has no gradient_penalty; it has gan",
        ),
        ({"loss": {"gan": "wgangp", "r1": 3}}, "mine.loss.r1: a wgangp has no r1; it has gan"),
        (
            {"system": "cycelgan"},
            "mine.system: 'cycelgan': is no system; did you mean 'cyclegan'?; there are pix2pix, cyc",
        ),
        (
            {"system": "cyclegan", "discriminator": {"conditional": True}},
            "a cyclegan's discriminator sees one image: set discriminator.conditional: false",
        ),
        ({"system": "cyclegan", "generator": 3}, "models.mine.generator: 3: input should be a mapping of its keys"),
        ({"l1": 3}, "models.mine.l1: belongs to another group: write models.mine.loss.l1"),
        ({"filters": 3}, "write models.mine.generator.filters or models.mine.discriminator.filters"),
        ({"loss": {"epochs": 3}}, "models.mine.loss.epochs: belongs to another group: write models.mine.epochs"),
    ],
)
def test_what_cannot_be_is_one_line(change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        reader.parse({"system": "pix2pix"} | change, Recipe, "models.mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(TREE["models"]))
def test_what_is_recorded_is_what_the_kind_has_and_reads_back(name):
    recorded = entry(name).model_dump(mode="json")
    assert ("depth" in recorded["generator"]) == (recorded["generator"]["kind"] == "unet")
    assert ("layers" in recorded["discriminator"]) == (recorded["discriminator"]["kind"] == "patch")
    assert ("l1" in recorded["loss"]) == (recorded["system"] == "pix2pix") != ("cycle" in recorded["loss"])
    assert reader.parse(recorded, Recipe, "recipe") == entry(name)


def test_a_penalty_that_is_off_is_no_part_of_the_record():
    assert "r1" not in Recipe(system="pix2pix").model_dump(mode="json")["loss"]
    assert Recipe(system="pix2pix", loss={"r1": 1}).model_dump(mode="json")["loss"]["r1"] == 1


def test_own_photos_are_asked_for_in_one_line():
    lab = reader.read("datasets.lab_colorization", Dataset, PARAMS)
    assert lab.archive.withdrawn and "\n" not in lab.archive.withdrawn
    images = lab.images
    assert (images.colour, images.layout, images.channels, images.crop_size) == ("lab", "single", (1, 2), 256)


def test_grey_facades_are_the_books():
    entry = reader.read("datasets.facades_bw", Dataset, PARAMS)
    grey = entry.images
    assert (grey.colour, grey.channels, grey.direction, entry.augment.flip) == ("gray", (1, 1), "BtoA", False)
    assert grey.load_size == grey.crop_size == 256


# What an entry spells although it is at its default: what dvc.yaml names, and what people change most.
SPELLED = {"system", "profile", "epochs", "loss.l1", "loss.cycle", "loss.identity"}


def flat(tree, place=""):
    return {
        key: value
        for name, below in tree.items()
        for key, value in (flat(below, f"{place}{name}.") if isinstance(below, dict) else {place + name: below}).items()
    }


@pytest.mark.parametrize("name", sorted(TREE["models"]))
def test_an_entry_holds_what_differs_from_the_defaults_of_its_system(name):
    given, read = flat(TREE["models"][name]), flat(entry(name).model_dump(mode="json"))
    default = flat(Recipe(system=TREE["models"][name]["system"]).model_dump(mode="json"))
    assert {key for key in given if read[key] == default.get(key)} <= SPELLED


def test_a_system_has_its_own_defaults_and_an_entry_changes_them_key_by_key():
    plain = Recipe(system="cyclegan")
    assert (plain.generator.kind, plain.generator.norm, plain.generator.dropout, plain.pool) == (
        "resnet",
        "instance",
        0,
        50,
    )
    assert (plain.discriminator.norm, plain.discriminator.conditional, plain.loss.gan) == ("instance", False, "lsgan")
    changed = Recipe(system="cyclegan", generator={"filters": 8}, pool=0, loss={"cycle": 3})
    assert changed.generator == plain.generator.model_copy(update={"filters": 8}) and changed.pool == 0
    assert (changed.loss.gan, changed.loss.cycle) == ("lsgan", 3)
    assert Recipe(system="pix2pix").generator.kind == "unet"


def test_a_recipe_is_recorded_with_its_defaults_so_that_a_changed_default_is_another_run(monkeypatch):
    before = Recipe(system="cyclegan").model_dump(mode="json")
    monkeypatch.setitem(config.DEFAULTS["cyclegan"], "pool", 51)
    assert Recipe(system="cyclegan").model_dump(mode="json") == before | {"pool": 51}
