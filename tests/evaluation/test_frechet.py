"""Frechet distance: closed forms, pytorch-fid's function, and independence of the batches."""

from __future__ import annotations

import numpy as np
import pytest

from repix.evaluation.features import import_pytorch_fid
from repix.evaluation.frechet import Statistics, frechet_distance


def features(seed, n, dims, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(mean, 1.0, (n, dims)) @ rng.normal(0, 1, (dims, dims)) / np.sqrt(dims)


def theirs(a, b):
    import_pytorch_fid()
    from pytorch_fid.fid_score import calculate_frechet_distance

    return calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


@pytest.mark.parametrize("n", [5, 40])
def test_statistics_are_the_sample_mean_and_covariance(n):
    x = features(0, n, 12, mean=3.0)
    found = Statistics.from_features(x)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance(), np.cov(x, rowvar=False), atol=1e-12)
    assert found.n == n and len(found.factor) == min(n, 12)


@pytest.mark.parametrize("n", [5, 100])
def test_identical_sets_have_no_distance(n):
    x = Statistics.from_features(features(1, n, 16))
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-12)


def test_known_gaussians_with_commuting_covariances():
    """With diagonal covariances: |m1 - m2|^2 + sum (sqrt(s1) - sqrt(s2))^2."""
    rng = np.random.default_rng(2)
    m1, m2, s1, s2 = rng.uniform(0, 4, (4, 10))
    s1[0] = s2[1] = 0.0  # singular ones too
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    a = Statistics.from_covariance(m1, turn @ np.diag(s1) @ turn.T)
    b = Statistics.from_covariance(m2, turn @ np.diag(s2) @ turn.T)
    expected = ((m1 - m2) ** 2).sum() + ((np.sqrt(s1) - np.sqrt(s2)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_one_dimension():
    a, b = Statistics.from_covariance(1.0, 4.0), Statistics.from_covariance(4.0, 25.0)
    assert frechet_distance(a, b) == pytest.approx(9 + 9)


def test_a_shift_costs_its_square():
    x = features(3, 8, 20)
    moved = x + np.linspace(0, 1, 20)
    expected = (np.linspace(0, 1, 20) ** 2).sum()
    assert frechet_distance(*map(Statistics.from_features, (x, moved))) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (12, 15), (10, 200)])
def test_agrees_with_pytorch_fid(n, m):
    a, b = features(4, n, 24), features(5, m, 24, mean=0.3)
    assert frechet_distance(*map(Statistics.from_features, (a, b))) == pytest.approx(theirs(a, b), rel=1e-6)


@pytest.mark.parametrize("n", [9, 16, 55])
def test_batches_do_not_change_a_bit(n):
    x = features(6, n, 8)
    whole = Statistics.from_features(x)
    for size in (1, 3, 7, 16):
        parts = Statistics.from_batches(x[i : i + size] for i in range(0, n, size))
        assert parts.n == n
        assert parts.mean.tobytes() == whole.mean.tobytes() and parts.factor.tobytes() == whole.factor.tobytes()


def test_what_has_no_distance_is_refused():
    x = Statistics.from_features(features(0, 5, 4))
    with pytest.raises(ValueError, match="dims"):
        frechet_distance(x, Statistics.from_features(features(0, 5, 3)))
    with pytest.raises(ValueError, match="two images"):
        Statistics.from_features(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        Statistics.from_features(np.array([[0.0], [np.nan]]))
