"""KID: a case worked by hand, a slow version, and unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest

from checks.support.references import plain_kid
from repix.evaluation.metrics import kid as module
from repix.evaluation.metrics.kid import kid, kid_subsets


def test_worked_by_hand():
    """a = {0, 1}, b = {1, 2}, one dim: k(0,1) = 1, k(1,2) = 27; cross k = 1, 1, 8, 27."""
    assert kid(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4


def test_equals_the_slow_version_in_any_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (7, 5)), rng.normal(0.5, 1, (9, 5))
    assert kid(a, b) == pytest.approx(plain_kid(a, b), rel=1e-12)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    assert kid(a, b) == pytest.approx(plain_kid(a, b), rel=1e-12)


def test_is_unbiased_where_the_frechet_distance_is_not():
    rng = np.random.default_rng(1)
    estimates = [kid(*rng.normal(0, 1, (2, 10, 8))) for _ in range(400)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 4 * error and min(estimates) < 0


def test_subsets_describe_the_full_estimate():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, (60, 4)), rng.normal(1, 1, (40, 4))
    found = kid_subsets(a, b)
    assert found["size"] == 20 and found["count"] == 100
    assert abs(found["mean"] - kid(a, b)) < found["sd"] and found == kid_subsets(a, b)
    assert kid_subsets(a[:3], b) is None


def test_what_has_no_estimate_is_refused():
    with pytest.raises(ValueError, match="two or more"):
        kid(np.zeros((1, 3)), np.zeros((4, 3)))
