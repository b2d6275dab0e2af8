"""Entries of ``datasets``: their groups, what is allowed, and what does not go together."""

from __future__ import annotations

import pytest

from repix.config import reader
from repix.config.datasets import Dataset
from repix.config.images import Images, height_width
from repix.config.limits import Limits
from repix.config.reader import parse
from repix.errors import UserError
from tests.conftest import ROOT

ENTRY = {"archive": {"urls": ["file:x"]}, "images": {"load_size": 8, "crop_size": [4, 6]}}
PARAMS = ROOT / "params.yaml"
# Keys that entries spell although they are at their default: dvc.yaml names them, so DVC wants them written down.
SPELLED = {"archive.sha256", "augment.flip"}


def mistake(change: dict) -> str:
    entry = {key: ENTRY.get(key, {}) | value if isinstance(value, dict) else value for key, value in change.items()}
    with pytest.raises(UserError) as caught:
        parse(ENTRY | entry, Dataset, "datasets.x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_entry_and_its_defaults_which_are_those_of_pix2pix():
    entry = parse({"archive": {"urls": ["file:x"]}}, Dataset, "datasets.x")
    assert entry.archive.model_dump() == {"urls": ("file:x",), "sha256": None, "licence": "unknown", "withdrawn": None}
    assert entry.augment.flip and entry.images.paired
    assert entry.images.model_dump() == {
        "layout": "aligned",
        "direction": "AtoB",
        "colour": "rgb",
        "channels": (3, 3),
        "bit_depth": 8,
        "resize": "resize_and_crop",
        "resample": "bicubic",
        "load_size": 286,
        "crop_size": 256,
        "val_fraction": 0.0,
        "test_fraction": 0.0,
        "on_error": "strict",
    }
    images = parse(ENTRY, Dataset, "datasets.x").images
    assert height_width(images.crop_size) == (4, 6) and height_width(images.load_size) == (8, 8)
    assert not Images(layout="unaligned").paired


def test_fractions_leave_something_of_train():
    with pytest.raises(UserError, match="val_fraction and test_fraction leave nothing of train; lower one"):
        parse({"val_fraction": 0.5, "test_fraction": 0.5}, Images, "datasets.x.images")


def test_channels_follow_from_the_colour_where_they_are_not_given():
    assert Images(colour="gray").channels == (1, 1) and Images(channels=[1, 3]).channels == (1, 3)
    assert Images(colour="lab", layout="single").channels == (1, 2) and Images(colour="raw").channels == (3, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"archive": {"urls": []}}, "datasets.x.archive.urls"),
        ({"archive": {"sha256": "AB" * 32}}, "a sha256 is 64 hexadecimal digits in lower case"),
        ({"images": {"layout": "alinged"}}, "datasets.x.images.layout: 'alinged' is not one of"),
        ({"images": {"layout": "alinged"}}, "did you mean 'aligned'?"),
        ({"images": {"bit_depth": 12}}, "datasets.x.images.bit_depth: 12 is not one of 8 or 16"),
        ({"images": {"channels": [3]}}, "datasets.x.images.channels.1: missing"),
        ({"images": {"channels": [0, 3]}}, "channels are [source, target], each at least 1"),
        ({"images": {"load_size": 0}}, "a size is n or [height, width], each at least 1"),
        ({"images": {"load_size": True}}, "datasets.x.images.load_size: True: true and false have no meaning here"),
        (
            {"images": {"crop_size": [9, 4]}},
            "datasets.x.images: crop_size (9, 4) is larger than load_size (8, 8); raise",
        ),
        ({"images": {"val_fraction": 1}}, "datasets.x.images.val_fraction: 1: input should be less than 1"),
        ({"images": {"colour": "lab"}}, "colour: lab and layout: single go together"),
        ({"images": {"layout": "single"}}, "colour: lab and layout: single go together"),
        (
            {"images": {"layout": "single", "colour": "lab", "channels": [3, 3]}},
            "colour: lab has channels [1, 2]; leave channels out",
        ),
        ({"images": {"colour": "gray", "channels": [3, 3]}}, "colour: gray has channels [1, 1]; leave channels out"),
        ({"images": {"on_error": "ignore"}}, "is not one of 'strict' or 'skip'"),
        ({"images": None}, "datasets.x.images: None: input should be a mapping of its keys"),
        ({"augment": {"flip": "perhaps"}}, "datasets.x.augment.flip: 'perhaps': input should be a valid boolean"),
        ({"augment": {"filp": True}}, "datasets.x.augment.filp: unknown key; did you mean 'flip'?; known keys: flip"),
        (
            {"images": {"lod_size": 3}},
            "datasets.x.images.lod_size: unknown key; did you mean 'load_size'?; known keys: lay",
        ),
        (
            {"agument": {}},
            "datasets.x.agument: unknown key; did you mean 'augment'?; known keys: archive, images, augment",
        ),
    ],
)
def test_a_wrong_entry_is_one_line(change, said):
    assert said in mistake(change)


FLAT = {
    "urls": "archive.urls",
    "sha256": "archive.sha256",
    "licence": "archive.licence",
    "withdrawn": "archive.withdrawn",
    "flip": "augment.flip",
} | {key: f"images.{key}" for key in Images.model_fields}


@pytest.mark.parametrize("key", FLAT)
def test_a_key_that_stood_in_no_group_says_where_it_belongs(key):
    said = f"params.yaml: datasets.x.{key}: belongs to another group: write datasets.x.{FLAT[key]}"
    assert mistake({key: 1}) == said


def test_an_entry_without_groups_is_one_line_that_begins_with_its_first_key():
    with pytest.raises(UserError) as caught:
        parse({"urls": ["file:x"], "layout": "aligned", "flip": True}, Dataset, "datasets.x")
    assert str(caught.value) == (
        "params.yaml: datasets.x.urls: belongs to another group: write datasets.x.archive.urls (and 3 more)"
    )


def test_a_key_in_the_wrong_group_says_where_it_belongs():
    assert "images.flip: belongs to another group: write datasets.x.augment.flip" in mistake({"images": {"flip": 1}})


def test_a_crop_may_exceed_the_load_size_where_nothing_is_resized():
    assert Images(resize="none", load_size=8, crop_size=9).crop_size == 9


def test_limits_are_positive():
    assert parse({}, Limits, "limits").unpack_ratio == 200
    for key in Limits.model_fields.keys() - {"image_tree"}:  # yes or no
        with pytest.raises(UserError, match=f"limits.{key}: 0: input should be greater than"):
            parse({key: 0}, Limits, "limits")


def test_every_entry_of_the_catalogue_is_sound_and_holds_what_differs_from_the_defaults():
    entries = reader.load(PARAMS)["datasets"]
    assert {"sample", "facades", "maps", "horse2zebra"} <= entries.keys()
    default = parse({"archive": {"urls": ["file:x"]}}, Dataset, "x").model_dump(mode="json")
    for name, entry in entries.items():
        read = reader.read(f"datasets.{name}", Dataset, PARAMS).model_dump(mode="json")
        assert entry.keys() == read.keys(), name
        for group, keys in entry.items():
            # An empty group reads as a mistake, so it says its direction.
            allowed = {"direction"} if len(keys) == 1 else set()
            same = {key for key in keys if read[group][key] == default[group][key]} - allowed
            assert {f"{group}.{key}" for key in same} <= SPELLED, name
