"""Matrix products in place of the smallest convolutions: the same function, the same gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from repix.training import small_images
from tests import cells


def values(network, x):
    """Return output, gradient to the input and gradients to the weights of sum(output * fixed numbers)."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = network(x, training=True)
        fixed = np.random.default_rng(7).standard_normal(y.shape).astype(np.float32)
        loss = tf.reduce_sum(y * fixed)
    gradients = tape.gradient(loss, [x, *(v.value for v in network.trainable_variables)])
    return [y.numpy(), *(g.numpy() for g in gradients)]


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (4, 2), (4, 4)])
def test_a_product_is_the_convolution(kind, size, monkeypatch):
    image = keras.Input((*size, 3))
    network = keras.Model(
        image, kind(5, 4, 2, "same", use_bias=True, activation="tanh", bias_initializer="ones")(image)
    )
    batch = 1 if size == (4, 4) else 2
    x = np.random.default_rng(0).standard_normal((batch, *size, 3)).astype(np.float32)
    expected = values(network, x)
    used = []
    for name in ("convolution", "transposed_convolution"):
        function = getattr(small_images, name)
        monkeypatch.setattr(small_images, name, lambda *given, f=function: used.append(1) or f(*given))
    with small_images.as_products([network]):
        got = values(network, x)
    # Keras pads an image of one row unevenly: left to the library.
    assert len(used) == (0 if kind is layers.Conv2D and size == (1, 2) else 1)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert "call" not in vars(network.layers[-1])
    values(network, x)
    assert len(used) <= 1


def test_others_are_left_to_the_library(monkeypatch):
    def never(*given):
        raise AssertionError("a product")

    monkeypatch.setattr(small_images, "convolution", never)
    monkeypatch.setattr(small_images, "transposed_convolution", never)
    image = keras.Input((4, 4, 3))
    for options in ((2, 3, 2, "same"), (2, 4, 1, "same"), (2, 4, 2, "valid")):
        for kind in (layers.Conv2D, layers.Conv2DTranspose):
            network = keras.Model(image, kind(*options)(image))
            with small_images.as_products([network]):
                network(np.zeros((1, 4, 4, 3), np.float32))
    wide = keras.Model(image, layers.Conv2DTranspose(2, 4, 2, "same")(image))
    with small_images.as_products([wide]):
        wide(np.zeros((2, 4, 4, 3), np.float32))  # 32 places


def test_the_step_uses_it_where_no_bits_are_promised(tmp_path, monkeypatch):
    from repix import profile
    from tests.training.step_jax_worker import game_of, play

    data = cells.prepare_set(tmp_path)
    portable = play(game_of("pix2pix", data), 0, 5)
    monkeypatch.setattr(profile, "current", lambda: profile.find("fast"))
    fast = play(game_of("pix2pix", data), 0, 5)
    assert (portable != fast).any()
    np.testing.assert_allclose(portable, fast, rtol=0, atol=1e-5)
