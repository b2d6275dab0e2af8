"""Streams are functions of their keys, and their numbers stay what they are."""

from __future__ import annotations

import numpy as np

from repix import rng


def test_named_streams_are_pinned():
    assert rng.key("weights", 0, "generator") == 273059919070937993270746287896200433841
    words = [13949603958934377373, 2608214223641888751, 15813235340545014398]
    assert rng.named("batch", 0, 1, "pair").words(3).tolist() == words
    uniforms = [[0.08706891536712646, 0.6597278714179993], [0.5931088328361511, 0.44852662086486816]]
    assert rng.named("draws", 3, 7).float32(2, 2).tolist() == uniforms


def test_numbered_streams_are_pinned():
    assert rng.numbered(2018, 3).float64(2).tolist() == [0.8483207161732046, 0.5437035276301143]
    assert rng.numbered(2018, 3).integers(6, 1000).tolist() == [848, 543, 456, 348, 900, 275]
    assert rng.numbered(2018, 3).normal(2).tolist() == [-1.8711274862289429, -0.7244968414306641]
    assert rng.numbered(2018, 3).subset(20, 6).tolist() == [9, 11, 12, 15, 16, 18]


def test_one_number_after_another_is_pinned():
    drawn = rng.numbered(7, 1 << 48 | 1 << 40 | 3)
    found = [drawn.integer(10, 19), drawn.chance(0.5), drawn.uniform(), drawn.choice("abcdef")]
    assert found == [11, False, 0.6621787426169148, "d"]
    noise = [[-1.7230383817600576, -0.20424641246497727], [0.2606996134257938, 0.1809356806075615]]
    assert drawn.noise(2, 2).tolist() == noise
    assert drawn.integer(0, 10**6) == 246812


def test_every_part_of_a_name_counts():
    names = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a1",), (1, "a")]
    assert len({rng.key(*name) for name in names}) == len(names)
    assert len({rng.named(*name).words(1)[0] for name in names}) == len(names)


def test_streams_and_seeds_differ_and_a_longer_draw_begins_like_a_shorter_one():
    long = rng.numbered(1, 2).float64(50)
    assert rng.numbered(1, 2).float64(20).tolist() == long[:20].tolist()
    assert not np.intersect1d(long, rng.numbered(2, 1).float64(50)).size


def test_uniforms_fill_the_unit_interval_exactly():
    drawn = rng.named("u").float32(20000, 2)
    assert drawn.dtype == np.float32 and drawn.shape == (20000, 2)
    assert 0 <= drawn.min() < 1e-3 and 1 - 1e-3 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(drawn.var() - 1 / 12) < 0.005
    assert (drawn * 2**24 % 1 == 0).all()


def test_an_empty_shape_is_allowed():
    assert rng.named("u").float32(2, 0).shape == (2, 0)


def test_normal_has_the_moments_of_a_normal():
    x = rng.numbered(0, 0).normal(40_000)
    np.testing.assert_allclose([x.mean(), x.std(), (x**3).mean(), (x**4).mean()], [0, 1, 0, 3], atol=0.06)


def test_integers_reach_every_value():
    assert set(rng.numbered(0, 0).integers(200, 5).tolist()) == {0, 1, 2, 3, 4}


def test_a_subset_is_sorted_and_without_repeats():
    kept = rng.numbered(0, 0).subset(20, 8).tolist()
    assert kept == sorted(set(kept)) and len(kept) == 8 and max(kept) < 20
    assert rng.numbered(0, 0).subset(5, 5).tolist() == [0, 1, 2, 3, 4]
