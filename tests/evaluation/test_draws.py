"""The draws: pinned bits, right moments, no repeats."""

from __future__ import annotations

import numpy as np

from repix.evaluation import draws


def test_bits_are_pinned():
    assert draws.uniform(2018, 3, 2).tolist() == [0.8483207161732046, 0.5437035276301143]
    assert draws.normal(2018, 3, 2).tolist() == [-1.8711274862289429, -0.7244968414306641]


def test_streams_and_seeds_differ_and_prefixes_agree():
    long = draws.uniform(1, 2, 50)
    assert draws.uniform(1, 2, 20).tolist() == long[:20].tolist()
    assert not np.intersect1d(long, draws.uniform(2, 1, 50)).size
    assert long.min() >= 0 and long.max() < 1


def test_normal_has_the_moments_of_a_normal():
    x = draws.normal(0, 0, 40_000)
    np.testing.assert_allclose([x.mean(), x.std(), (x**3).mean(), (x**4).mean()], [0, 1, 0, 3], atol=0.06)


def test_integers_reach_every_value():
    assert set(draws.integers(0, 0, 200, 5).tolist()) == {0, 1, 2, 3, 4}


def test_subset_is_sorted_and_without_repeats():
    kept = draws.subset(0, 0, 20, 8).tolist()
    assert kept == sorted(set(kept)) and len(kept) == 8 and max(kept) < 20
    assert draws.subset(0, 0, 5, 5).tolist() == [0, 1, 2, 3, 4]
