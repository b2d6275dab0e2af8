"""What a discriminator sees of an image, against values worked out by hand."""

import numpy as np
import pytest
from keras import ops

from repix.models.augmentation import UNIFORMS, augment

SIZE = 16
MIDDLE = np.full((1, UNIFORMS), 0.5, np.float32)


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    return [generator.uniform(-1, 1, (2, SIZE, SIZE, channels)).astype(np.float32) for channels in (3, 1)]


def seen(pair, kinds, **columns):
    uniforms = np.tile(MIDDLE, (2, 1))
    for name, value in columns.items():
        uniforms[:, int(name[1:])] = value
    return [
        np.asarray(one) for one in augment(*map(ops.convert_to_tensor, pair), ops.convert_to_tensor(uniforms), kinds)
    ]


def test_nothing_asked_nothing_changed(pair):
    for before, after in zip(pair, seen(pair, ()), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_middle_of_each_range_is_the_image_as_it_is(pair):
    image, source = seen(pair, ("colour", "translation"))
    np.testing.assert_allclose(image, pair[0], atol=1e-6)
    np.testing.assert_array_equal(source, pair[1])


@pytest.mark.parametrize(("uniform", "shift"), [(0.0, -2), (0.2, -1), (0.79, 1), (0.999, 2)])
def test_both_move_together_by_whole_pixels(pair, uniform, shift):
    for before, after in zip(pair, seen(pair, ("translation",), u3=uniform, u4=0.5), strict=True):
        moved = np.zeros_like(before)
        if shift > 0:
            moved[:, shift:] = before[:, :-shift]
        else:
            moved[:, :shift] = before[:, -shift:]
        np.testing.assert_array_equal(after, moved)
    image, _ = seen(pair, ("translation",), u4=uniform)
    kept = slice(shift, None) if shift > 0 else slice(None, shift)
    np.testing.assert_array_equal(np.abs(image[:, :, kept]) > 0, True)
    assert (image == 0).sum() == 2 * SIZE * abs(shift) * 3


def test_each_example_moves_by_its_own_numbers(pair):
    image, _ = seen(pair, ("translation",), u3=[0.0, 0.999])
    np.testing.assert_array_equal(image[0, :-2], pair[0][0, 2:])
    np.testing.assert_array_equal(image[1, 2:], pair[0][1, :-2])


def test_a_quarter_is_cut_out_of_both_around_a_centre(pair):
    image, source = seen(pair, ("cutout",))
    hole = np.zeros((SIZE, SIZE), bool)
    hole[4:12, 4:12] = True  # 0.5 of 17 places is 8
    for before, after in ((pair[0], image), (pair[1], source)):
        np.testing.assert_array_equal(after[:, hole], 0)
        np.testing.assert_array_equal(after[:, ~hole], before[:, ~hole])
    corner, _ = seen(pair, ("cutout",), u5=0.0, u6=0.999)
    assert (corner[0] == 0).all(-1).sum() == 4 * 4


def test_colour_of_the_image_alone(pair):
    brighter, source = seen(pair, ("colour",), u0=1.0)
    np.testing.assert_allclose(brighter, pair[0] + 0.5, atol=1e-6)
    np.testing.assert_array_equal(source, pair[1])
    grey, _ = seen(pair, ("colour",), u1=0.0)
    np.testing.assert_allclose(grey, np.repeat(pair[0].mean(-1, keepdims=True), 3, -1), atol=1e-6)
    flat, _ = seen(pair, ("colour",), u2=0.0)
    mean = pair[0].mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(flat, (pair[0] - mean) / 2 + mean, atol=1e-6)


def test_gradients_flow_back_to_where_the_pixels_came_from(backend, pair):
    chance = np.tile(MIDDLE, (2, 1))
    chance[:, 3] = 0.999  # two rows down

    def total(image):
        return ops.sum(augment(image, None, ops.convert_to_tensor(chance), ("translation",))[0])

    gradient = np.asarray(backend._gradient(total, ops.convert_to_tensor(pair[0])))
    np.testing.assert_array_equal(gradient[:, -2:], 0)
    np.testing.assert_array_equal(gradient[:, :-2], 1)
