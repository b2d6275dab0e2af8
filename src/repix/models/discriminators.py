"""Discriminators: PatchGAN of any depth, PixelGAN, and the book's whole-image one."""

from __future__ import annotations

import keras
from keras import layers, ops

from repix.config.models import Discriminator
from repix.config.sizes import check_discriminator, convolutions
from repix.errors import UserError
from repix.models.layers import inner_bias, normalization


@keras.saving.register_keras_serializable("repix")
class MinibatchDiscrimination(keras.layers.Layer):
    """How near each example is to the others of its batch (Salimans et al. 2016, section 3.2).

    Features (batch, n) are multiplied into ``kernels`` rows of ``dims`` numbers; for each
    kernel the output is the sum over the batch of exp(-L1 distance of the rows), itself
    included, as in the paper's equation.

    Output: (batch, kernels).
    """

    def __init__(self, kernels: int = 100, dims: int = 5, **kwargs):
        super().__init__(**kwargs)
        self.kernels = kernels
        self.dims = dims

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.kernels * self.dims), initializer="zeros")

    def call(self, x, product=ops.matmul):
        rows = ops.reshape(product(x, ops.convert_to_tensor(self.kernel)), (-1, self.kernels, self.dims))
        distances = ops.sum(ops.abs(rows[:, None] - rows[None]), axis=-1)
        return ops.sum(ops.exp(-distances), axis=1)

    def get_config(self):
        return super().get_config() | {"kernels": self.kernels, "dims": self.dims}


def build_discriminator(
    settings: Discriminator, size: tuple[int, int], source: int, target: int, name: str = "discriminator"
) -> keras.Model:
    """Build a discriminator (Isola et al. 2016, section 6.1.2).

    Args:
        settings: kind, widths, norm and the other options.
        size: (height, width) of the images.
        source: channels of the condition; not seen unless ``settings.conditional``.
        target: channels of the image that is scored.
        name: name of the model.

    Returns:
        A model that takes the image to score, or [condition, image] where conditional, each
        (batch, height, width, channels) in [-1, 1], and returns logits: (batch, rows,
        columns, 1), one per patch; for ``minibatch`` (batch, 2): fake, real.

    Raises:
        UserError: the image is too small for so many layers, or has no colours that could be changed.
    """
    check_discriminator(settings, size)
    if "colour" in settings.augment and target == 2:
        raise UserError(
            "discriminator.augment: colour changes grey and RGB images, and these are two planes of Lab: leave it out"
        )
    image = keras.Input((*size, target), name="image")
    inputs = x = image
    if settings.conditional:
        condition = keras.Input((*size, source), name="condition")
        inputs = [condition, image]
        x = layers.Concatenate(name="concat")(inputs)

    bias = inner_bias(settings.bias, settings.norm)

    def block(x, filters, kernel, stride, label, *, norm=True, bias=bias, activation=True):
        if kernel > 1 and settings.padding == "one":
            x = layers.ZeroPadding2D(1, name=f"{label}_pad")(x)
        padding = "same" if settings.padding == "same" else "valid"
        if norm and layers.Conv2D(1, kernel, stride, padding).compute_output_shape(x.shape)[1:3] == (1, 1):
            # Of one image a norm over a single place leaves its shift alone: whatever came before would not be seen.
            norm, bias = False, settings.bias != "none"
        x = layers.Conv2D(filters, kernel, stride, padding, use_bias=bias, kernel_initializer="zeros", name=label)(x)
        layer = normalization(settings.norm, settings.norm_epsilon, f"{label}_norm") if norm else None
        if layer is not None:
            x = layer(x)
        return layers.LeakyReLU(settings.leaky_slope, name=f"{label}_leaky")(x) if activation else x

    if settings.kind == "minibatch":
        steps = 0
        while min(size) // 2 ** (steps + 1) >= 1 and steps < 8:
            steps += 1
        for number in range(steps):
            x = block(x, settings.filters * min(2**number, 8), 4, 2, f"conv{number + 1}", norm=number > 0)
        x = layers.Flatten(name="flatten")(x)
        score = layers.Dense(2, kernel_initializer="zeros", name="score")(x)
        # No softmax of the score, as the book has one: it saturates, and passes no gradient any more.
        near = MinibatchDiscrimination(settings.kernels, settings.kernel_dims, name="minibatch")(x)
        x = layers.Concatenate(name="joined")([score, near])
        x = layers.Dense(2, kernel_initializer="zeros", dtype="float32", name="logits")(x)
        return keras.Model(inputs, x, name=name)

    chain = convolutions(settings)
    first_bias = settings.bias != "none"
    for number, (kernel, stride) in enumerate(chain[:-1]):
        filters = settings.filters * min(2**number, 8)
        x = block(
            x, filters, kernel, stride, f"conv{number + 1}", norm=number > 0, bias=first_bias if number == 0 else bias
        )
    x = block(x, 1, *chain[-1], f"conv{len(chain)}", norm=False, bias=True, activation=False)
    x = layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name=name)
