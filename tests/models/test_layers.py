"""Norms, padding and dropout against NumPy and against Keras' own."""

import keras
import numpy as np
import pytest

from repix.models.layers import (
    BatchNormalization,
    Dropout,
    InstanceNormalization,
    ReflectionPadding2D,
    inner_bias,
    normalization,
)


def images(n=2, height=5, width=6, channels=3, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, (n, height, width, channels)).astype(np.float32)


def run(layer, x, **options):
    return keras.ops.convert_to_numpy(layer(x, **options))


def normalized(x, axes, epsilon):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def affine(layer, channels=3):
    gamma, beta = np.linspace(0.5, 2.0, channels, dtype=np.float32), np.linspace(-1, 1, channels, dtype=np.float32)
    layer.build((None, 5, 6, channels))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return gamma, beta


def test_batch_norm_in_training_is_that_of_keras():
    x, ours, theirs = images(), BatchNormalization(1e-3), keras.layers.BatchNormalization(epsilon=1e-3)
    gamma, beta = affine(ours)
    theirs.build(x.shape)
    theirs.gamma.assign(gamma)
    theirs.beta.assign(beta)
    got = run(ours, x, training=True)
    np.testing.assert_allclose(got, run(theirs, x, training=True), atol=2e-6)
    np.testing.assert_allclose(got, normalized(x, (0, 1, 2), 1e-3) * gamma + beta, atol=2e-6)


def test_batch_norm_at_inference_takes_each_image_alone_and_keeps_nothing():
    x, layer = images(), BatchNormalization()
    affine(layer)
    together = run(layer, x, training=False)
    for row in range(2):
        np.testing.assert_array_equal(together[row : row + 1], run(layer, x[row : row + 1], training=True))
    assert not np.allclose(together, run(layer, x, training=True), atol=1e-3)
    assert [variable.name for variable in layer.weights] == ["gamma", "beta"]


def test_batch_norm_of_one_value_is_beta():
    layer = BatchNormalization()
    _, beta = affine(layer)
    np.testing.assert_array_equal(run(layer, images(1, 1, 1), training=True)[0, 0, 0], beta)


def test_instance_norm_is_each_channel_of_each_image():
    x, plain = images(), InstanceNormalization(1e-5)
    np.testing.assert_allclose(run(plain, x), normalized(x, (1, 2), 1e-5), atol=2e-6)
    assert not plain.weights
    with_parameters = InstanceNormalization(1e-5, affine=True)
    gamma, beta = affine(with_parameters)
    np.testing.assert_allclose(run(with_parameters, x), normalized(x, (1, 2), 1e-5) * gamma + beta, atol=4e-6)


def test_instance_norm_is_a_group_norm_of_one_channel_per_group():
    x = images()
    groups = keras.layers.GroupNormalization(groups=-1, axis=-1, epsilon=1e-5, center=False, scale=False)
    np.testing.assert_allclose(run(InstanceNormalization(1e-5), x), run(groups, x), atol=5e-6)


@pytest.mark.parametrize("pixels", [1, 3])
def test_reflection_padding_is_numpys(pixels):
    x = images()
    expected = np.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
    layer = ReflectionPadding2D(pixels)
    np.testing.assert_array_equal(run(layer, x), expected)
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_reflection_padding_refuses_an_image_that_it_cannot_mirror():
    with pytest.raises(ValueError, match="cannot mirror 5 px"):
        ReflectionPadding2D(5)(images())


def test_dropout_is_a_function_of_key_and_counter():
    x, layer = np.ones((1, 16, 16, 8), np.float32), Dropout(0.5)

    def mask(key, counter):
        layer.reseed(key, counter)
        return run(layer, x, training=True)

    first = mask(7, 64)
    mask(8, 0)
    np.testing.assert_array_equal(first, mask(7, 64))
    assert (first != mask(7, 128)).any()
    assert (first != mask(9, 64)).any()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert 0.42 < (first == 0).mean() < 0.58
    np.testing.assert_array_equal(run(layer, x, training=False), x)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BatchNormalization, {"epsilon": 1e-3}),
        (InstanceNormalization, {"epsilon": 1e-3, "affine": True}),
        (ReflectionPadding2D, {"padding": 2}),
        (Dropout, {"rate": 0.3}),
    ],
)
def test_layers_come_back_from_their_config(kind, options):
    again = kind.from_config(kind(**options).get_config())
    assert {name: getattr(again, name) for name in options} == options


def test_normalization_by_name():
    assert normalization("none", 1e-5, "n") is None
    assert normalization("instance_affine", 1e-5, "n").affine
    assert not normalization("instance", 1e-5, "n").affine
    assert isinstance(normalization("batch", 1e-5, "n"), BatchNormalization)


def test_inner_bias_follows_the_reference_code_or_the_setting():
    assert [inner_bias("auto", norm) for norm in ("batch", "instance", "none")] == [False, True, True]
    assert inner_bias("all", "batch") and not inner_bias("none", "instance")
