"""Lab as integers is scikit-image's Lab, and every side can be looked at."""

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from repix.data import colour
from repix.errors import UserError
from repix.schemas import Side


def cube():
    """Return RGB on a grid that has every corner of the gamut, (25, 25, 3)."""
    steps = np.append(np.arange(0, 255, 11), 255).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)


def test_lab_is_that_of_scikit_image_to_half_a_step():
    rgb = cube()
    lab = colour.rgb_to_lab(rgb)
    assert lab.dtype == np.int16
    difference = np.abs(lab / [300, 256, 256] - rgb2lab(rgb / 255, illuminant="D65"))
    assert (difference <= np.array([0.5 / 300, 0.5 / 256, 0.5 / 256]) + 1e-9).all()


def test_known_colours():
    lab = colour.rgb_to_lab(np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8))
    assert lab[0, 0].tolist() == [0, 0, 0]
    assert lab[0, 1, 0] == 30000 and np.abs(lab[0, 1, 1:]).max() <= 2
    np.testing.assert_allclose(lab[0, 2] / [300, 256, 256], [53.24, 80.09, 67.20], atol=0.02)


def test_round_trip_is_within_one_8_bit_step():
    rgb = cube()
    back = colour.lab_to_rgb(colour.rgb_to_lab(rgb))
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - rgb).max() <= 1
    theirs = lab2rgb(rgb2lab(rgb / 255))
    assert np.abs(back / 255 - theirs).max() <= 1 / 255


def test_16_bit_rgb_has_the_same_lab():
    rgb = cube()
    np.testing.assert_array_equal(colour.rgb_to_lab(rgb.astype(np.uint16) * 257), colour.rgb_to_lab(rgb))


def test_the_whole_gamut_lies_within_the_sides():
    lab = colour.rgb_to_lab(cube())
    low = np.array([*colour.LAB_L.low, *colour.LAB_AB.low])
    high = np.array([*colour.LAB_L.high, *colour.LAB_AB.high])
    assert (lab >= low).all() and (lab <= high).all()


def test_out_of_gamut_lab_is_clipped_without_a_warning(recwarn):
    rgb = colour.lab_to_rgb(np.array([[[1500, 0, 28160], [30000, -28160, -28160]]], np.int16))
    assert rgb.shape == (1, 2, 3) and not recwarn.list


def side(channels, dtype="uint8", kind="raw"):
    high = np.iinfo(dtype).max
    meaning = tuple(f"c{i}" for i in range(channels))
    return Side(
        channels=channels, dtype=dtype, low=(0,) * channels, high=(high,) * channels, meaning=meaning, colour=kind
    )


def test_pictures_of_8_bits():
    array = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
    np.testing.assert_array_equal(colour.to_picture(array[..., :3], side(3, kind="rgb")), array[..., :3])
    np.testing.assert_array_equal(colour.to_picture(array, side(5)), array[..., :3])
    gray = colour.to_picture(array[..., :1], side(1, kind="gray"))
    np.testing.assert_array_equal(gray, np.repeat(array[..., :1], 3, axis=2))
    two = colour.to_picture(np.array([[[10, 20]]], np.uint8), side(2))
    assert two.tolist() == [[[15, 15, 15]]] and two.dtype == np.uint8


def test_pictures_of_16_bits_are_scaled():
    array = np.array([[[0], [257], [65535], [257 * 100 + 100]]], np.uint16)
    assert colour.to_picture(array, side(1, "uint16"))[0, :, 0].tolist() == [0, 1, 255, 100]


def test_pictures_of_lab():
    rgb = cube()
    lab = colour.rgb_to_lab(rgb)
    together = colour.to_picture(lab[..., 1:], colour.LAB_AB, other=lab[..., :1])
    assert np.abs(together.astype(int) - rgb).max() <= 1
    gray = colour.to_picture(lab[..., :1], colour.LAB_L)
    assert gray.shape == rgb.shape and (gray.max(axis=2) - gray.min(axis=2)).max() <= 1
    neutral = (rgb[..., 0] == rgb[..., 1]) & (rgb[..., 1] == rgb[..., 2])
    assert np.abs(gray[neutral].astype(int) - rgb[neutral]).max() <= 1


def test_pictures_refuse_what_they_cannot_show():
    ab = np.zeros((2, 2, 2), np.int16)
    with pytest.raises(UserError, match="give the L of the other side"):
        colour.to_picture(ab, colour.LAB_AB)
    with pytest.raises(UserError, match="give the L"):
        colour.to_picture(ab, colour.LAB_AB, other=np.zeros((3, 2, 1), np.int16))
    with pytest.raises(UserError, match=r"not \(height, width, 3\)"):
        colour.to_picture(np.zeros((2, 2, 1), np.uint8), side(3))
