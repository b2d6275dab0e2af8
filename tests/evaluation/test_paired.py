"""L1, PSNR and SSIM: against worked figures and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from repix.evaluation import unit_range
from repix.evaluation.metrics.l1 import l1
from repix.evaluation.metrics.psnr import CAP_DB, SCORER, psnr
from repix.evaluation.metrics.ssim import ssim, too_small

BYTE = ((0,) * 3, (255,) * 3)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 256, (3, 16, 21, 3)).astype(np.uint8)
    noise = rng.integers(-30, 31, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def test_unit_range_is_per_channel():
    images = np.array([[[[-100, 0], [100, 50]]]], np.int16)
    assert unit_range(images, (-100, 0), (100, 200)).tolist() == [[[[0.0, 0.0], [1.0, 0.25]]]]
    for low, high in [((0,), (1,)), ((0, 5), (1, 5))]:
        with pytest.raises(ValueError, match="value range"):
            unit_range(images, low, high)


def test_l1_is_half_of_the_training_scale(pairs):
    output, target = pairs
    training = np.abs(output / 127.5 - target / 127.5).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(l1(output, target, *BYTE), training / 2, rtol=1e-12)


def test_l1_does_not_wrap_around_in_unsigned_bytes():
    black, white = np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 255, np.uint8)
    assert l1(black, white, (0,), (255,)).tolist() == [1.0] == l1(white, black, (0,), (255,)).tolist()


def test_psnr_equals_scikit_image(pairs):
    output, target = pairs
    expected = [peak_signal_noise_ratio(t, o, data_range=255) for o, t in zip(output, target, strict=True)]
    np.testing.assert_allclose(psnr(output, target, *BYTE), expected, rtol=1e-12)


def test_psnr_of_equal_images_is_the_cap_and_of_opposite_ones_zero():
    black, white = np.zeros((2, 2, 2, 1), np.uint16), np.full((2, 2, 2, 1), 65535, np.uint16)
    assert psnr(black, black, (0,), (65535,)).tolist() == [CAP_DB, CAP_DB]
    opposite = psnr(black, white, (0,), (65535,))
    assert opposite.tolist() == [0.0, 0.0] and not np.signbit(opposite).any()  # JSON would say -0.0


def test_psnr_of_unequal_images_is_not_capped():
    """One step of 16 bits in one value of 64 x 64: 20 log10(65535) + 10 log10(64 * 64) dB."""
    target = np.zeros((2, 64, 64, 1), np.uint16)
    output = target.copy()
    output[0, 3, 5] = 1
    found = psnr(output, target, (0,), (65535,))
    np.testing.assert_allclose(found, [20 * np.log10(65535) + 10 * np.log10(64 * 64), CAP_DB], rtol=1e-12)
    assert found[0] > 130 and SCORER.function(output, target, (0,), (65535,)).details == {"capped": 1}


def test_ssim_equals_scikit_image_on_bytes(pairs):
    output, target = pairs
    expected = [
        structural_similarity(
            o, t, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for o, t in zip(output, target, strict=True)
    ]
    np.testing.assert_allclose(ssim(output, target, *BYTE), expected, rtol=1e-10)


def test_ssim_equals_the_formula_of_the_paper_in_one_window():
    """An 11 x 11 image has one window: equation 13 of Wang et al. 2004, written out."""
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (2, 11, 11))
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / g.sum() ** 2
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, cov = (w * x * x).sum() - mx * mx, (w * y * y).sum() - my * my, (w * x * y).sum() - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    found = ssim(*(a.astype(np.uint8)[None, :, :, None] for a in (x, y)), (0,), (255,))
    np.testing.assert_allclose(found, [expected], rtol=1e-10)


def test_ssim_of_equal_images_is_one_and_of_tiny_ones_none(pairs):
    output, _ = pairs
    np.testing.assert_allclose(ssim(output, output, *BYTE), 1.0)
    assert ssim(output[:, :10], output[:, :10], *BYTE) is None
    assert "10 x 21" in too_small(10, 21) and too_small(11, 11) is None


@pytest.mark.parametrize("metric", [l1, psnr, ssim])
def test_images_are_scored_one_by_one(metric, pairs):
    output, target = pairs
    alone = [metric(output[i : i + 1], target[i : i + 1], *BYTE)[0] for i in range(3)]
    together = metric(output, target, *BYTE)
    assert together.tolist() == alone and together.dtype == np.float64
    with pytest.raises(ValueError, match="expected two equal"):
        metric(output, target[:2], *BYTE)
