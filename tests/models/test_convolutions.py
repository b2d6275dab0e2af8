"""Matrix products in place of convolutions: the same functions, the same gradients, a stated rounding error."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from checks.support import cells
from repix import profile
from repix.models import convolutions

REPLACEMENTS = ("downsampling_convolution", "upsampling_convolution", "winograd_convolution", "_crop")


def numbers(*shape: int) -> np.ndarray:
    """Return numbers that follow from the shape."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def values(network, x, *, penalty: bool = False):
    """Return output, gradient to the input and gradients to the weights of sum(output * fixed numbers).

    With ``penalty`` gradients are of the sum of the input gradient's squares: a second derivative.
    """
    x = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = network(x, training=True)
            fixed = np.random.default_rng(7).standard_normal(y.shape).astype(np.float32)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * fixed)
        slope = inner.gradient(loss, x)
        loss = tf.reduce_sum(tf.square(slope)) if penalty else loss
    gradients = outer.gradient(loss, [x, *(v.value for v in network.trainable_variables)])
    return [tf.cast(y, tf.float32).numpy(), slope.numpy(), *(g.numpy() for g in gradients if g is not None)]


def used(monkeypatch) -> list[str]:
    """Return a list that will hold the names of the replacements that are called."""
    names: list[str] = []
    for name in REPLACEMENTS:
        function = getattr(convolutions, name)
        monkeypatch.setattr(
            convolutions, name, lambda *given, n=name, f=function, **options: names.append(n) or f(*given, **options)
        )
    return names


def one_layer(layer, *shape: int) -> keras.Model:
    """Return a network of one layer whose weights are not zero."""
    image = keras.Input(shape)
    network = keras.Model(image, layer(image))
    for variable in network.trainable_variables:
        variable.assign(0.1 * numbers(*variable.shape))
    return network


def close(got, expected, tolerance: float = 1e-5) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
@pytest.mark.parametrize(("batch", "size"), [(2, (1, 2)), (2, (2, 2)), (1, (4, 2)), (1, (4, 4))])
def test_at_the_bottom_of_a_unet(kind, batch, size, monkeypatch):
    network = one_layer(kind(40, 4, 2, "same", activation="tanh"), *size, 40)
    x = numbers(batch, *size, 40)
    expected, twice = values(network, x), values(network, x, penalty=True)
    names = used(monkeypatch)
    with convolutions.faster_convolutions([network]):
        got = values(network, x)
    found = names.copy()
    with convolutions.faster_convolutions([network]):
        close(values(network, x, penalty=True), twice, 2e-5)
    # Keras pads an image of one row unevenly: left to the library.
    wanted = {
        layers.Conv2D: [] if size == (1, 2) else ["downsampling_convolution"],
        layers.Conv2DTranspose: ["upsampling_convolution"],
    }
    assert found == wanted[kind]
    close(got, expected)
    names.clear()
    values(network, x)
    assert names == []


@pytest.mark.parametrize("taps", [3, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("batch", "size"), [(1, (17, 20)), (3, (9, 14))])
def test_wide_convolutions(taps, padding, batch, size, monkeypatch):
    network = one_layer(layers.Conv2D(24, taps, padding=padding, activation="tanh"), *size, 20)
    x = numbers(batch, *size, 20)
    expected, twice = values(network, x), values(network, x, penalty=True)
    names = used(monkeypatch)
    with convolutions.faster_convolutions([network]):
        close(values(network, x), expected)
        close(values(network, x, penalty=True), twice, 2e-5)
    assert names == ["winograd_convolution"] * 2


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_minimal_filtering_is_a_filter(taps):
    out, of_kernel, of_image = convolutions._toom_cook(taps)
    d, g = numbers(6).astype(float), numbers(taps).astype(float)
    assert out.shape == (7 - taps, 6)
    np.testing.assert_allclose(out @ ((of_kernel @ g) * (of_image @ d)), np.correlate(d, g), rtol=0, atol=1e-13)


def rounding(taps: int, points: tuple = convolutions.POINTS) -> list[float]:
    """Return the errors of output and gradients, root mean square against float64, relative to the values.

    Of 256 channels, as the blocks of a ResNet and the fourth convolution of a discriminator have.
    """
    generator = np.random.default_rng(1)
    x, kernel = generator.standard_normal((1, 18, 18, 256)), 0.02 * generator.standard_normal((taps, taps, 256, 32))
    gradient = generator.standard_normal((1, 19 - taps, 19 - taps, 32)).astype(np.float32)

    def all_of(function, dtype):
        a, b = (tf.cast(tf.constant(array, tf.float32), dtype) for array in (x, kernel))
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            y = function(a, b)
        return [y, *tape.gradient(y, [a, b], tf.constant(gradient, dtype))]

    def library(a, b):
        return tf.nn.conv2d(a, b, 1, "VALID")

    caches = (convolutions._toom_cook, convolutions._tiles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "POINTS", points)
        for cached in caches:
            cached.cache_clear()
        found = all_of(convolutions.winograd_convolution, tf.float32)
    for cached in caches:
        cached.cache_clear()
    exact = [value.numpy() for value in all_of(library, tf.float64)]
    pairs = zip(found, exact, strict=True)
    return [float(np.sqrt(np.mean(np.square(got - true)) / np.mean(np.square(true)))) for got, true in pairs]


@pytest.mark.parametrize("taps", [3, 4])
def test_its_rounding_error(taps):
    errors = rounding(taps)
    assert all(1e-8 < error < 5e-6 for error in errors)
    for points in ((0.0, 1.0, -1.0, 2.0, -2.0), (0.0, 1.0, -1.0, 0.5, -0.5), (0.0, 1.0, -1.0, 2.0, 3.0)):
        assert all(other > 1.2 * error for other, error in zip(rounding(taps, points), errors, strict=True))


class Scaled(layers.Conv2D):
    def call(self, x):
        return 2 * super().call(x)


class ScaledTranspose(layers.Conv2DTranspose):
    def call(self, x):
        return 2 * super().call(x)


def test_others_are_left_to_the_library(monkeypatch):
    names = used(monkeypatch)

    def run(layer, *shape, batch=1):
        network = one_layer(layer, *shape)
        x = numbers(batch, *shape)
        usual = network(x)
        with convolutions.faster_convolutions([network]):
            close([network(x)], [usual], 0.02 if layer.compute_dtype == "bfloat16" else 1e-5)
        found = names.copy()
        names.clear()
        return found

    small = (4, 4, 40)
    for options in ((40, 3, 2, "same"), (40, 4, 1, "same"), (40, 4, 2, "valid"), (40, (4, 3), 2, "same")):
        for kind in (layers.Conv2D, layers.Conv2DTranspose):
            assert run(kind(*options), *small) == []
    assert run(layers.Conv2D(40, 4, 2, "same"), *small) == ["downsampling_convolution"]
    assert run(layers.Conv2D(40, 4, 2, "same"), *small, batch=5) == []  # 20 places of 40 channels
    assert run(layers.Conv2D(40, 4, 2, "same", groups=2), *small) == []
    assert run(Scaled(40, 4, 2, "same"), *small) == []
    assert run(layers.Conv2DTranspose(40, 4, 2, "same"), *small) == ["upsampling_convolution"]
    assert run(layers.Conv2DTranspose(40, 4, 2, "same"), *small, batch=2) == []  # 32 places
    assert run(layers.Conv2DTranspose(40, 4, 2, "same", output_padding=1), *small) == []
    assert run(ScaledTranspose(40, 4, 2, "same"), *small) == []
    wide = (18, 18, 24)
    assert run(layers.Conv2D(24, 3), *wide) == ["winograd_convolution"]
    assert run(layers.Conv2D(12, 3), *wide) == []  # 18 places a side, 12 filters
    assert run(layers.Conv2D(24, 3, dilation_rate=2), *wide) == []
    assert run(layers.Conv2D(24, 5), *wide) == []
    assert run(layers.Conv2D(24, 3), 12, 12, 24) == []  # 9 tiles
    assert run(layers.Conv2DTranspose(24, 3), *wide) == []
    assert run(layers.Conv2D(24, 3, dtype="float64"), *wide) == []
    half = layers.Conv2D(48, 3, dtype="mixed_bfloat16")
    monkeypatch.setattr(profile, "cpu_has", lambda flag: False)
    assert run(half, 42, 42, 48) == ["winograd_convolution"]
    assert run(half, 38, 38, 48) == []  # 81 tiles
    monkeypatch.setattr(profile, "cpu_has", lambda flag: flag == "amx_bf16")  # the library is faster there
    assert run(half, 42, 42, 48) == []
    assert run(layers.Conv2D(48, 3), 42, 42, 48) == ["winograd_convolution"]
    assert run(layers.Cropping2D(1), *small) == ["_crop"]
    assert run(layers.Cropping2D(1, data_format="channels_first"), *small) == []


def test_layers_are_as_before_whatever_happens():
    shared = layers.Conv2D(40, 4, 2, "same")
    first = one_layer(shared, 4, 4, 40)
    second = one_layer(shared, 4, 4, 40)
    with pytest.raises(ZeroDivisionError), convolutions.faster_convolutions([first, second]):
        assert "call" in vars(shared)
        raise ZeroDivisionError
    assert "call" not in vars(shared)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv2D(48, 3, dtype="mixed_bfloat16"), (42, 42, 48)),
        (layers.Conv2D(256, 4, 2, "same", dtype="mixed_bfloat16"), (8, 8, 256)),
        (layers.Conv2DTranspose(256, 4, 2, "same", dtype="mixed_bfloat16"), (4, 4, 256)),
    ],
)
def test_in_bfloat16(layer, shape, monkeypatch):
    """Output and gradients against float64: within the distance from 1 to the next number of bfloat16."""
    monkeypatch.setattr(profile, "cpu_has", lambda flag: False)
    names = used(monkeypatch)
    network, x = one_layer(layer, *shape), tf.cast(tf.cast(numbers(1, *shape), tf.bfloat16), tf.float32)
    kernel = tf.cast(layer.kernel.value, tf.bfloat16)
    wide = one_layer(type(layer).from_config(layer.get_config() | {"dtype": "float64", "name": "wide"}), *shape)
    wide.set_weights([kernel.numpy().astype(float), layer.bias.numpy().astype(float)])

    def all_of(network, dtype):
        @tf.function(autograph=False)
        def compiled(given):
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = network(given)
                loss = tf.reduce_sum(y * tf.cast(numbers(*y.shape), y.dtype))
            gradients = tape.gradient(loss, [given, network.trainable_variables[0].value])
            return [tf.cast(value, tf.float64) for value in (y, *gradients)]

        return [value.numpy() for value in compiled(tf.cast(x, dtype))]

    true = all_of(wide, tf.float64)
    assert names == []
    with convolutions.faster_convolutions([network]):
        got = all_of(network, tf.bfloat16)
        assert network(x).dtype == "bfloat16"
    assert len(set(names)) == 1
    for value, right in zip(got, true, strict=True):
        assert 2**-12 < np.std(value - right) / np.std(right) < 2**-7


def test_a_crop_is_the_same_to_the_bit(monkeypatch):
    network = one_layer(layers.Cropping2D(((1, 0), (2, 1))), 6, 7, 3)
    x = numbers(2, 6, 7, 3)
    expected = values(network, x)
    names = used(monkeypatch)
    with convolutions.faster_convolutions([network]):
        got = values(network, x)
    assert names == ["_crop"]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("pix2pix", {"downsampling_convolution", "upsampling_convolution"}),
        ("cyclegan", {"winograd_convolution", "_crop"}),
    ],
)
def test_the_step_uses_them_where_no_bits_are_promised(system, expected, tmp_path, monkeypatch, library_convolutions):
    """What the portable profile puts in their place has tests of its own, and takes long to trace."""
    from tests.training.step_jax_worker import compared, run

    data = cells.prepare_set(tmp_path)
    monkeypatch.setattr(convolutions, "FEWEST_TILES", {"float32": 1})
    names = used(monkeypatch)

    def losses(step):
        found = run(step, 0, 5)
        return np.concatenate([found[name] for name in sorted(found)])

    portable = losses(compared(system, data).step)
    assert names == []
    # Not `fast`: the threads of a process that computes are what they are.
    without = replace(profile.find("portable"), portable=False)
    monkeypatch.setattr(profile, "current", lambda: without)
    step = compared(system, data).step
    first = step.state()
    fast = losses(step)
    assert set(names) == expected
    step.restore(first)
    np.testing.assert_array_equal(losses(step), fast)
    assert (portable != fast).any()
    np.testing.assert_allclose(portable, fast, rtol=0, atol=1e-5)
