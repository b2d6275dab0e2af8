"""Streams are functions of their names, and their numbers stay what they are."""

from __future__ import annotations

import numpy as np

from repix import seeds


def test_the_numbers_are_pinned():
    assert seeds.key("weights", 0, "generator") == KEY
    assert seeds.integers((3,), "batch", 0, 1, "pair").tolist() == INTEGERS


def test_every_part_of_a_name_counts():
    names = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a1",), (1, "a")]
    assert len({seeds.key(*name) for name in names}) == len(names)
    assert len({seeds.integers((1,), *name)[0] for name in names}) == len(names)


def test_a_longer_draw_begins_like_a_shorter_one():
    np.testing.assert_array_equal(seeds.integers((10,), "x")[:4], seeds.integers((4,), "x"))


def test_uniforms_fill_the_unit_interval_exactly():
    drawn = seeds.uniforms((20000, 2), "u")
    assert drawn.dtype == np.float32 and drawn.shape == (20000, 2)
    assert 0 <= drawn.min() < 1e-3 and 1 - 1e-3 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(drawn.var() - 1 / 12) < 0.005
    assert (drawn * 2**24 % 1 == 0).all()


def test_an_empty_shape_is_allowed():
    assert seeds.uniforms((2, 0), "u").shape == (2, 0)


KEY = 273059919070937993270746287896200433841
INTEGERS = [13949603958934377373, 2608214223641888751, 15813235340545014398]
