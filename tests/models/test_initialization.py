"""First weights: the sources' distributions, and a function of seed and name."""

import numpy as np

from repix.models.initialization import initial_value

KERNEL = ("generator/down1/kernel", (4, 4, 32, 64))


def test_kernels_of_the_paper_are_normal():
    for kind in ("normal", "normal_kernels"):
        value = initial_value(*KERNEL, kind, 0)
        assert abs(value.mean()) < 5e-4
        assert abs(value.std() - 0.02) < 5e-4


def test_scales_of_the_paper_are_normal_and_those_of_keras_one():
    name = "generator/down2_norm/gamma"
    assert 0.015 < initial_value(name, (512,), "normal", 0).std() < 0.025
    assert abs(initial_value(name, (512,), "normal", 0).mean() - 1) < 0.005
    for kind in ("normal_kernels", "glorot"):
        np.testing.assert_array_equal(initial_value(name, (512,), kind, 0), 1)


def test_glorot_is_uniform_within_its_limit():
    value = initial_value(*KERNEL, "glorot", 0)
    limit = np.sqrt(6 / (16 * (32 + 64)))
    assert 0.999 * limit < np.abs(value).max() <= limit
    assert abs(value.std() - limit / np.sqrt(3)) < 1e-3


def test_biases_and_shifts_are_zero():
    assert not initial_value("generator/up0/bias", (3,), "normal", 0).any()
    assert not initial_value("generator/up1_norm/beta", (8,), "glorot", 0).any()


def test_weights_follow_from_seed_and_name():
    name, shape = KERNEL
    first = initial_value(name, shape, "normal", 0)
    np.testing.assert_array_equal(first, initial_value(name, shape, "normal", 0))
    assert (first != initial_value(name, shape, "normal", 1)).any()
    assert (first != initial_value("generator/down2/kernel", shape, "normal", 0)).any()
