"""Layers that Keras does not have, or not with the behaviour that the papers rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import keras
from keras import ops

# Dropout streams advance by one for each draw; no iteration, and no translation, makes this many.
DRAWS_PER_STEP = 64


def _normalize(x, axes, epsilon):
    """Return (x - mean) and the standard deviation over ``axes``, which callers divide by.

    Written with sqrt and division, which IEEE 754 fixes to the bit, and never with rsqrt,
    which is a hardware approximation and differs between CPUs.
    """
    mean = ops.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
    return centred, ops.sqrt(variance + epsilon)


@keras.saving.register_keras_serializable("repix")
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation that uses the statistics of what it is given, always.

    In training the mean and (biased) variance are those of the batch; at inference those of
    each image alone, which for a batch of one is the same function. This is the test-time
    behaviour of the paper (Isola et al. 2016, section 3.3); no moving averages exist.

    Args:
        epsilon: added to the variance under the root.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape):
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")

    def call(self, x, training=False):
        kind = x.dtype
        # Statistics in float32: bfloat16 has too few digits for a sum over an image.
        x = ops.cast(x, "float32")
        centred, deviation = _normalize(x, (0, 1, 2) if training else (1, 2), self.epsilon)
        return ops.cast(centred * (ops.cast(self.gamma, "float32") / deviation) + ops.cast(self.beta, "float32"), kind)

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable("repix")
class InstanceNormalization(keras.layers.Layer):
    """Instance normalisation (Ulyanov et al. 2016).

    Each channel of each image is brought to mean 0 and variance 1.

    Args:
        epsilon: added to the variance under the root.
        affine: whether a learned scale and shift for each channel follow.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, epsilon: float = 1e-5, affine: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.epsilon, self.affine = epsilon, affine

    def build(self, shape):
        if self.affine:
            self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
            self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        kind = x.dtype
        centred, deviation = _normalize(ops.cast(x, "float32"), (1, 2), self.epsilon)
        if not self.affine:
            # One division per channel; one per number has a gradient of five passes over the image.
            return ops.cast(centred * (1 / deviation), kind)
        return ops.cast(centred * (ops.cast(self.gamma, "float32") / deviation) + ops.cast(self.beta, "float32"), kind)

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon, "affine": self.affine}


@keras.saving.register_keras_serializable("repix")
class ReflectionPadding2D(keras.layers.Layer):
    """Pad height and width by mirroring, the border itself not repeated.

    Args:
        padding: pixels on each of the four sides; less than height and width.

    Input (batch, height, width, channels); output (batch, height + 2p, width + 2p, channels).
    """

    def __init__(self, padding: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def build(self, shape):
        if min(shape[1], shape[2]) <= self.padding:
            raise ValueError(f"cannot mirror {self.padding} px of an image of {shape[1]} x {shape[2]}")

    def call(self, x):
        p = self.padding
        return ops.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")

    def compute_output_shape(self, shape):
        p = self.padding
        return (shape[0], shape[1] + 2 * p, shape[2] + 2 * p, shape[3])

    def get_config(self):
        return super().get_config() | {"padding": self.padding}


@keras.saving.register_keras_serializable("repix")
class Dropout(keras.layers.Layer):
    """Dropout whose masks can be made a pure function of (seed, step).

    ``keras.layers.Dropout`` does the work; the difference is :meth:`reseed`, by which a
    training step or an evaluation says where the stream of masks stands. So no random state
    exists that a checkpoint would have to carry. Each backend draws masks of its own.

    Args:
        rate: share of the values set to 0; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(0)

    def build(self, shape):
        pass

    def reseed(self, key: int, counter) -> None:
        """Place the stream at ``counter`` (a number or a scalar tensor) of the stream ``key``."""
        state = ops.stack([ops.cast(key, "uint32"), ops.cast(counter, "uint32")])
        self.seed_generator.state.assign(state)

    def call(self, x, training=False):
        if not training or self.rate == 0:
            return x
        return keras.random.dropout(x, self.rate, seed=self.seed_generator)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


def dropouts(network: keras.Model) -> list[Dropout]:
    """Return the dropout layers of a network, in the order in which they were built."""
    return [layer for layer in network.layers if isinstance(layer, Dropout)]


def normalization(kind: str, epsilon: float, name: str) -> keras.layers.Layer | None:
    """Return the layer for ``batch``, ``instance`` or ``instance_affine``, and None for ``none``."""
    if kind == "batch":
        return BatchNormalization(epsilon, name=name)
    if kind in ("instance", "instance_affine"):
        return InstanceNormalization(epsilon, affine=kind == "instance_affine", name=name)
    return None


def inner_bias(bias: str, norm: str) -> bool:
    """Whether a convolution before a ``norm`` has a bias, by the setting ``bias``.

    A norm that subtracts the mean cancels it. ``auto`` follows the reference code, which
    drops it before a batch norm and keeps it before an instance norm.
    """
    return bias == "all" or (bias == "auto" and norm != "batch")


def is_plain_convolution(layer: keras.Layer) -> bool:
    """Whether a layer is a convolution, or a transposed one, of all channels, without gaps and extra rows."""
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "output_padding", None) is None
    )


@contextmanager
def calls_replaced(
    networks: Iterable[keras.Model], replacement: Callable[[keras.Layer], Callable | None]
) -> Iterator[None]:
    """Put other functions in the place of layers' ``call`` while the context lasts.

    Weights, layers and what is exported stay as they are; networks inside networks are left alone.

    Args:
        networks: whose layers.
        replacement: returns the function for a layer, or None for one that keeps its own.
    """
    replaced = []
    try:
        for layer in {id(layer): layer for network in networks for layer in network.layers}.values():
            if (call := replacement(layer)) is not None:
                # The instance's attribute hides the class's method, and goes again.
                object.__setattr__(layer, "call", call)
                replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            object.__delattr__(layer, "call")
