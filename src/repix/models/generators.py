"""Generators: pure functions from (settings, sizes, channels) to a Keras model."""

from __future__ import annotations

import keras
from keras import layers

from repix.config.models import Generator
from repix.config.sizes import check_resnet, unet_depth
from repix.models.layers import Dropout, ReflectionPadding2D, inner_bias, normalization


def _norm(x, settings: Generator, name: str, kind: str | None = None):
    layer = normalization(kind or settings.norm, settings.norm_epsilon, f"{name}_norm")
    return x if layer is None else layer(x)


def unet(settings: Generator, size: tuple[int, int], source: int, target: int, name: str = "generator") -> keras.Model:
    """Build the U-Net of pix2pix (Isola et al. 2016, section 6.1.1; phillipi/pix2pix models.lua).

    Encoder blocks halve the image with 4x4 convolutions of stride 2, decoder blocks double
    it; each decoder block is joined with the encoder's output of its size. The first and
    the innermost convolution have no norm (the latter unless ``bottleneck_norm``).

    Args:
        settings: widths, norm, dropout and the other options.
        size: (height, width) of the images.
        source: channels in.
        target: channels out.
        name: name of the model.

    Returns:
        A model from (batch, height, width, source) to (batch, height, width, target), both
        in [-1, 1].

    Raises:
        UserError: the size does not allow the depth.
    """
    depth = unet_depth(settings, size)
    bias = inner_bias(settings.bias, settings.norm)
    filters = [settings.filters * min(2**level, 8) for level in range(depth)]
    widths = list(settings.decoder_filters or filters[:-1])[: depth - 1]
    widths += [widths[-1]] * (depth - 1 - len(widths))

    x = image = keras.Input((*size, source), name="source")
    skips = []
    for level in range(depth):
        innermost = level == depth - 1
        if level:
            x = layers.LeakyReLU(settings.leaky_slope, name=f"down{level + 1}_leaky")(x)
        x = layers.Conv2D(
            filters[level], 4, 2, "same", use_bias=bias, kernel_initializer="zeros", name=f"down{level + 1}"
        )(x)
        if level and (not innermost or settings.bottleneck_norm):
            x = _norm(x, settings, f"down{level + 1}")
        skips.append(x)

    skips.pop()
    if settings.bottleneck_leaky:
        x = layers.LeakyReLU(settings.leaky_slope, name="bottleneck_leaky")(x)
    else:
        x = layers.ReLU(name="bottleneck_relu")(x)
    for level in reversed(range(depth - 1)):
        block = f"up{level + 1}"
        x = _upsample(x, settings, widths[level], bias, block)
        x = _norm(x, settings, block)
        number = depth - 2 - level  # from the innermost
        if settings.dropout and 0 <= number - settings.dropout_first < settings.dropout_blocks:
            x = Dropout(settings.dropout, name=f"{block}_dropout")(x)
        if settings.relu == "before_concat":
            x = layers.ReLU(name=f"{block}_relu")(x)
            skip = layers.LeakyReLU(settings.leaky_slope, name=f"{block}_skip")(skips[level])
            x = layers.Concatenate(name=f"{block}_concat")([x, skip])
        else:
            x = layers.Concatenate(name=f"{block}_concat")([x, skips[level]])
            x = layers.ReLU(name=f"{block}_relu")(x)
    x = _upsample(x, settings, target, True, "up0")
    x = layers.Activation("tanh", dtype="float32", name="target")(x)
    return keras.Model(image, x, name=name)


def _upsample(x, settings: Generator, filters: int, bias: bool, name: str):
    """Double height and width, by a transposed convolution or by resizing first."""
    options = {"use_bias": bias, "kernel_initializer": "zeros", "name": name}
    if settings.upsampling == "transposed":
        return layers.Conv2DTranspose(filters, 4, 2, "same", **options)(x)
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_resize")(x)
    return layers.Conv2D(filters, 4, 1, "same", **options)(x)


def resnet(
    settings: Generator, size: tuple[int, int], source: int, target: int, name: str = "generator"
) -> keras.Model:
    """Build the ResNet generator of CycleGAN (Zhu et al. 2017, appendix 7.2).

    c7s1-f, d2f, d4f, residual blocks, u2f, uf, c7s1-target, tanh. With ``padding: reflect``
    aligned as the reference code (junyanz/pytorch-CycleGAN-and-pix2pix, networks.py): strided
    convolutions pad (1, 1) with zeros, where Keras' own ``same`` pads (0, 1), and transposed
    ones drop the first row and column, where Keras drops the last.

    Args and returns: as :func:`unet`; ``settings.blocks`` null is 9 from 256 px on, else 6.

    Raises:
        UserError: height or width is not divisible by 4, or too small to be mirrored.
    """
    check_resnet(settings, size)
    mirrored = settings.padding == "reflect"
    blocks = settings.blocks or (9 if min(size) >= 256 else 6)
    bias = inner_bias(settings.bias, settings.norm)
    block_norm = settings.block_norm or settings.norm
    block_bias = inner_bias(settings.bias, block_norm)
    padding = "valid" if mirrored else "same"

    def mirror(x, pixels, name):
        return ReflectionPadding2D(pixels, name=f"{name}_pad")(x) if mirrored else x

    def conv(x, filters, kernel, stride, name, bias=bias):
        return layers.Conv2D(filters, kernel, stride, padding, use_bias=bias, kernel_initializer="zeros", name=name)(x)

    def norm_relu(x, name, kind=None):
        return layers.ReLU(name=f"{name}_relu")(_norm(x, settings, name, kind))

    image = keras.Input((*size, source), name="source")
    x = norm_relu(conv(mirror(image, 3, "first"), settings.filters, 7, 1, "first"), "first")
    for level in (1, 2):
        block = f"down{level}"
        if mirrored:  # zeros here all the same: the reference code mirrors at stride 1 only
            x = layers.ZeroPadding2D(1, name=f"{block}_pad")(x)
        x = norm_relu(conv(x, settings.filters * 2**level, 3, 2, block), block)
    for number in range(1, blocks + 1):
        block, width = f"block{number}", settings.filters * 4
        y = norm_relu(conv(mirror(x, 1, f"{block}a"), width, 3, 1, f"{block}a", block_bias), f"{block}a", block_norm)
        if settings.dropout:
            y = Dropout(settings.dropout, name=f"{block}_dropout")(y)
        y = conv(mirror(y, 1, f"{block}b"), width, 3, 1, f"{block}b", block_bias)
        x = layers.Add(name=f"{block}_add")([x, _norm(y, settings, f"{block}b", block_norm)])
    for level in (2, 1):
        block, width = f"up{level}", settings.filters * 2 ** (level - 1)
        x = layers.Conv2DTranspose(width, 3, 2, padding, use_bias=bias, kernel_initializer="zeros", name=block)(x)
        if mirrored:  # PyTorch's padding 1 with output_padding 1
            x = layers.Cropping2D(((1, 0), (1, 0)), name=f"{block}_crop")(x)
        x = norm_relu(x, block)
    x = conv(mirror(x, 3, "last"), target, 7, 1, "last", bias=True)
    x = layers.Activation("tanh", dtype="float32", name="target")(x)
    return keras.Model(image, x, name=name)


def build_generator(
    settings: Generator, size: tuple[int, int], source: int, target: int, name: str = "generator"
) -> keras.Model:
    """Build the generator that ``settings.kind`` names; see :func:`unet` and :func:`resnet`."""
    return {"unet": unet, "resnet": resnet}[settings.kind](settings, size, source, target, name)
