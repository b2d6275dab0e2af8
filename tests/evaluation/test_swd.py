"""Sliced Wasserstein: against a slow plain version, and what it must and must not notice."""

from __future__ import annotations

import numpy as np
import pytest

from checks.support.references import plain_swd
from repix import arrays, rng
from repix.evaluation.metrics import swd as module
from repix.evaluation.metrics.swd import laplacian_bands, level_count, sliced_wasserstein, swd, unit_directions

RNG = np.random.default_rng


def noise(seed, n, height, width, channels=3):
    return RNG(seed).integers(0, 256, (n, height, width, channels)).astype(np.uint8)


def test_equals_the_plain_version_on_an_odd_size_of_two_channels():
    a, b = noise(0, 2, 33, 35, 2), noise(1, 2, 33, 35, 2) // 2 + np.arange(35, dtype=np.uint8)[:, None]
    mean, scores = plain_swd(a, b)
    found = swd(a, b)
    assert list(found) == ["mean", "33", "17"]
    np.testing.assert_allclose([found["mean"], found["33"], found["17"]], [mean, *scores], rtol=1e-9)


def test_levels_go_down_to_16():
    assert list(swd(noise(0, 2, 64, 64), noise(1, 2, 64, 64))) == ["mean", "64", "32", "16"]
    assert [level_count(64, 256), level_count(16, 16), level_count(15, 64)] == [3, 1, 0]
    assert swd(noise(0, 2, 15, 64), noise(1, 2, 15, 64)) is None


@pytest.mark.parametrize("size", [(16, 17), (33, 40), (35, 32)])
def test_pyramid_has_the_bits_of_a_filter_over_all_places_and_adds_up(size):
    from scipy.ndimage import correlate1d

    def blur(images):
        weights = np.array([1, 4, 6, 4, 1]) / 16
        return correlate1d(correlate1d(images, weights, axis=1, mode="mirror"), weights, axis=2, mode="mirror")

    image = noise(3, 2, *size).astype(float)
    fine, coarse = laplacian_bands(image, 2, range(2))
    assert np.array_equal(coarse, blur(image)[:, ::2, ::2])
    up = np.zeros_like(image)
    up[:, ::2, ::2] = coarse
    assert np.array_equal(fine, image - 4.0 * blur(up))
    np.testing.assert_allclose(fine + 4 * blur(up), image)
    flat, rest = laplacian_bands(np.full((1, 33, 40, 1), 7.0), 2, range(2))
    np.testing.assert_allclose(flat[:, 2:-2, 2:-2], 0.0, atol=1e-12)
    np.testing.assert_allclose(rest, 7.0)


def test_one_dimensional_distance_is_exact():
    a, b = np.array([[0.0], [1.0], [5.0]]), np.array([[6.0], [2.0], [1.0]])
    assert sliced_wasserstein(a, b, np.array([[1.0]])) == 1.0  # 0-1, 1-2, 5-6
    assert sliced_wasserstein(a, b, np.array([[-1.0]])) == 1.0


def test_equal_sets_score_zero_and_blur_scores_more_the_stronger_it_is():
    from scipy.ndimage import gaussian_filter

    a = noise(4, 6, 32, 32)
    blurred = [swd(np.rint(gaussian_filter(a.astype(float), (0, s, s, 0))), a)["mean"] for s in (0.4, 0.8, 1.6)]
    assert swd(a, a)["mean"] == 0.0
    assert 0 < blurred[0] < blurred[1] < blurred[2]


def test_a_constant_set_has_a_finite_distance():
    assert 0 < swd(np.zeros((2, 16, 16, 1), np.uint8), noise(5, 2, 16, 16, 1))["mean"] < np.inf


def test_same_numbers_again_and_in_blocks_of_any_size(monkeypatch):
    a, b = noise(6, 5, 16, 16), noise(7, 5, 16, 16)
    first = swd(a, b)
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 2)
    assert swd(a, b) == first


def test_the_larger_set_is_thinned_to_the_smaller():
    a, b = noise(8, 3, 16, 16), noise(9, 7, 16, 16)
    kept = rng.numbered(2018, 0).subset(7, 3)
    assert swd(a, b) == swd(a, b[kept]) and len(set(kept.tolist())) == 3
    with pytest.raises(ValueError, match="one shape"):
        swd(a, noise(9, 3, 16, 17))


def test_directions_are_unit_and_spread_over_the_sphere():
    directions = unit_directions(1, 12)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    np.testing.assert_allclose(directions.T @ directions / len(directions), np.eye(12) / 12, atol=0.02)
    assert not np.array_equal(directions, unit_directions(2, 12))


def test_swd_in_a_file_and_in_parts_has_the_same_bits(monkeypatch):
    a, b = noise(0, 9, 40, 35), noise(1, 7, 40, 35)
    whole = swd(a, b)
    made = []
    monkeypatch.setattr(np, "memmap", lambda *given, kept=np.memmap, **more: made.append(1) or kept(*given, **more))
    monkeypatch.setattr(module, "_BYTES", 8 * 7 * 128 * 8)  # eight directions at once
    monkeypatch.setattr(arrays, "SCRATCH_BYTES", 8 * 7 * 128 * 8)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 100)
    module._channel_numbers.cache_clear()
    assert swd(a, b) == whole and len(made) == 4
    module._channel_numbers.cache_clear()


@pytest.mark.parametrize("channels", [1, 2, 3, 9])
def test_swd_normalises_to_the_bits_of_numpys_mean_and_deviation(channels, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 64)
    module._channel_numbers.cache_clear()
    patches = np.random.default_rng(channels).normal(3, 2, (1000, 49, channels))
    expected = patches - patches.mean(axis=(0, 1))
    expected /= expected.std(axis=(0, 1))
    module._normalise(patches)
    module._channel_numbers.cache_clear()
    assert np.array_equal(patches, expected)
