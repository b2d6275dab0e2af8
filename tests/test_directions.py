"""The directions of translation: their names stay what records and files say, and every record follows them."""

from __future__ import annotations

import json

import pytest

from repix.directions import Direction


def test_names_are_those_of_records_and_files():
    assert [str(direction) for direction in Direction] == ["source_to_target", "target_to_source"]
    assert json.dumps({Direction.SOURCE_TO_TARGET: Direction.TARGET_TO_SOURCE}) == (
        '{"source_to_target": "target_to_source"}'
    )
    assert f"{Direction.TARGET_TO_SOURCE}.png" == "target_to_source.png"


def test_sides_come_in_the_order_of_translation():
    assert Direction("source_to_target").sides("a", "b") == ("a", "b")
    assert Direction("target_to_source").sides("a", "b") == ("b", "a")
    with pytest.raises(ValueError, match="left_to_right"):
        Direction("left_to_right")


def test_a_record_holds_plain_names():
    from repix.schemas import Metrics

    scores = {Direction.SOURCE_TO_TARGET: {"last": {"l1": 0.5}}}
    record = Metrics(cell="a-b-0", weights_digest={}, n=1, scores=scores, protocol={})
    assert list(json.loads(record.model_dump_json())["scores"]) == ["source_to_target"]
    assert record == Metrics.model_validate_json(record.model_dump_json())


def test_a_system_translates_in_these_directions_alone():
    from repix.systems.system import System

    def system(**translators):
        return System({}, {}, translators, lambda batch: {}, ())

    assert system(source_to_target="generator").translators == {Direction.SOURCE_TO_TARGET: "generator"}
    with pytest.raises(ValueError, match=r"left_to_right.*source_to_target, target_to_source"):
        system(left_to_right="generator")
