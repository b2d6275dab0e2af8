"""Entries of ``datasets``: what is allowed, and what does not go together."""

from __future__ import annotations

import pytest
import yaml

from repix.config.datasets import Dataset, Limits, height_width
from repix.config.reader import parse
from repix.errors import UserError
from tests.conftest import ROOT

ENTRY = {"urls": ["file:x"], "layout": "aligned", "load_size": 8, "crop_size": [4, 6]}


def mistake(change: dict) -> str:
    with pytest.raises(UserError) as caught:
        parse(ENTRY | change, Dataset, "datasets.x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_entry_and_its_defaults():
    entry = parse(ENTRY, Dataset, "datasets.x")
    assert (entry.direction, entry.colour, entry.channels, entry.bit_depth) == ("AtoB", "rgb", (3, 3), 8)
    assert height_width(entry.crop_size) == (4, 6) and height_width(entry.load_size) == (8, 8)
    assert entry.paired and not parse(ENTRY | {"layout": "unaligned"}, Dataset, "x").paired


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"urls": []}, "datasets.x.urls"),
        ({"sha256": "AB" * 32}, "a sha256 is 64 hexadecimal digits in lower case"),
        ({"layout": "alinged"}, "did you mean 'aligned'?"),
        ({"bit_depth": 12}, "datasets.x.bit_depth: 12 is not one of 8 or 16"),
        ({"channels": [3]}, "datasets.x.channels.1: missing"),
        ({"channels": [0, 3]}, "channels are [source, target], each at least 1"),
        ({"load_size": 0}, "a size is n or [height, width], each at least 1"),
        ({"load_size": True}, "datasets.x.load_size: True: true and false have no meaning here"),
        ({"crop_size": [9, 4]}, "datasets.x: crop_size (9, 4) is larger than load_size (8, 8); raise load_size"),
        ({"val_fraction": 1}, "datasets.x.val_fraction: 1: input should be less than 1"),
        ({"colour": "lab"}, "colour: lab and layout: single go together"),
        ({"layout": "single"}, "colour: lab and layout: single go together"),
        ({"layout": "single", "colour": "lab"}, "colour: lab has channels [1, 2]"),
        ({"colour": "gray"}, "colour: gray has channels [1, 1]"),
        ({"on_error": "ignore"}, "is not one of 'strict' or 'skip'"),
    ],
)
def test_a_wrong_entry_is_one_line(change, said):
    assert said in mistake(change)


def test_a_crop_may_exceed_the_load_size_where_nothing_is_resized():
    assert parse(ENTRY | {"resize": "none", "crop_size": 9}, Dataset, "x").crop_size == 9


def test_limits_are_positive():
    assert parse({}, Limits, "limits").unpack_ratio == 200
    for key in Limits.model_fields:
        with pytest.raises(UserError, match=f"limits.{key}: 0: input should be greater than"):
            parse({key: 0}, Limits, "limits")


def test_every_entry_of_the_catalogue_is_sound_and_complete():
    """Every key stands in every entry, so that ``-S`` can change it and dvc.yaml can name it."""
    entries = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["datasets"]
    assert {"sample", "facades", "maps", "horse2zebra"} <= entries.keys()
    for name, entry in entries.items():
        parse(entry, Dataset, f"datasets.{name}")
        assert entry.keys() == Dataset.model_fields.keys(), name
