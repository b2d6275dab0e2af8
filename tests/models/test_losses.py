"""Losses against values worked out by hand."""

import math

import keras
import numpy as np
import pytest

from repix.models.losses import ADVERSARIAL, gradient_penalty, l1, zero_centred_penalty

LN2, LN3 = math.log(2), math.log(3)

# name, scores, real, fake, fool
BY_HAND = [
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4
    ("vanilla", [0.0, LN3], (LN2 + math.log(4 / 3)) / 2, (LN2 + math.log(4)) / 2, (LN2 + math.log(4 / 3)) / 2),
    ("lsgan", [0.0, 3.0], (1 + 4) / 2, (0 + 9) / 2, (1 + 4) / 2),
    ("lsgan_sigmoid", [0.0, LN3], (1 / 4 + 1 / 16) / 2, (1 / 4 + 9 / 16) / 2, (1 / 4 + 1 / 16) / 2),
    ("wgangp", [1.0, 3.0], -2.0, 2.0, -2.0),
    # the second class, real, has 3/4 of the probability
    ("softmax", [[0.0, LN3]], math.log(4 / 3), math.log(4), math.log(4 / 3)),
]


@pytest.mark.parametrize(("name", "scores", "real", "fake", "fool"), BY_HAND)
def test_adversarial_losses(name, scores, real, fake, fool):
    loss, scores = ADVERSARIAL[name], keras.ops.convert_to_tensor(np.asarray(scores, np.float32))
    assert [float(f(scores)) for f in (loss.real, loss.fake, loss.fool)] == pytest.approx([real, fake, fool], abs=1e-6)


def test_every_adversarial_loss_is_tested():
    assert {row[0] for row in BY_HAND} == set(ADVERSARIAL)


def test_vanilla_does_not_overflow():
    scores = keras.ops.convert_to_tensor(np.float32([1000.0]))
    assert float(ADVERSARIAL["vanilla"].fake(scores)) == 1000.0
    assert float(ADVERSARIAL["vanilla"].real(scores)) == 0.0


def test_l1_is_the_mean_absolute_difference():
    assert float(l1(np.float32([[1, -1], [0, 2]]), np.float32([[0, 1], [0, 0]]))) == pytest.approx(5 / 4)


def test_gradient_penalty_of_a_plane(backend):
    # The slope of 3a + 4b is (3, 4) everywhere: its norm is 5, so the penalty is (5 - 1)^2.
    weights = np.float32([3, 4]).reshape(1, 1, 2, 1)
    zeros = keras.ops.zeros((2, 1, 2, 1))
    penalty = gradient_penalty(backend._gradient, lambda x: weights * x, zeros, zeros, zeros[:, :1, :1])
    assert float(penalty) == pytest.approx(16)


def test_gradient_penalty_looks_between_real_and_fake(backend):
    # The slope of x^2 / 2 is x: between 0 and 8, a quarter of the way, that is 2.
    real, fake = keras.ops.zeros((1, 1, 1, 1)), keras.ops.full((1, 1, 1, 1), 8.0)
    mix = keras.ops.full((1, 1, 1, 1), 0.25)
    assert float(gradient_penalty(backend._gradient, lambda x: x * x / 2, real, fake, mix)) == pytest.approx(1)


def test_zero_centred_penalty_is_of_the_mean_over_patches(backend):
    # Two patches, 3a and 4b: their mean has the slope (3/2, 2), whose square is 25/4; half of that, in each image.
    weights = np.float32([3, 4]).reshape(1, 1, 2, 1)
    penalty = zero_centred_penalty(backend._gradient, lambda x: weights * x, keras.ops.ones((5, 1, 2, 1)))
    assert float(penalty) == pytest.approx(25 / 8)


def test_zero_centred_penalty_looks_at_the_real_image(backend):
    # The slope of x^2 / 2 at 3 is 3, at 5 it is 5.
    real = keras.ops.convert_to_tensor(np.float32([3, 5]).reshape(2, 1, 1, 1))
    assert float(zero_centred_penalty(backend._gradient, lambda x: x * x / 2, real)) == pytest.approx((9 + 25) / 4)
