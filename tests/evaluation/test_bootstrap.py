"""Bootstrap intervals: coverage, repeatability, edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from repix.evaluation import bootstrap
from repix.evaluation.bootstrap import interval


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = interval(rng.normal(5.0, 1.0, 40), resamples=200)
        hits += low <= 5.0 <= high
    assert 86 <= hits <= 100


def test_has_the_width_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(0.0, 2.0, 200)
    low, high = interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.08)
    assert low < values.mean() < high


def test_is_repeatable_in_blocks_of_any_size(monkeypatch):
    values = np.random.default_rng(2).random(11)
    first = interval(values)
    monkeypatch.setattr(bootstrap, "_INDICES_AT_ONCE", 40)
    assert interval(values) == first


def test_edge_cases():
    assert interval([0.5]) is None
    assert interval([0.25, 0.25, 0.25]) == (0.25, 0.25)
