"""Convolutions of very small images as matrix products.

At the bottom of a U-Net images have 1 to 16 places and kernels millions of numbers. A library's
convolution brings such a kernel into an order of its own, and its gradient back, at every step,
which takes longer than the arithmetic. As a matrix product the kernel is read as it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod

import keras
from keras import layers, ops

MOST_PLACES = 16  # of the smaller image, over the batch; measured: from 64 on the product is slower


def convolution(x, kernel):
    """Return the 4x4 convolution of stride 2, padding 1, of (batch, 2h, 2w, channels): (batch, h, w, filters)."""
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i in range(4) for j in range(4)]
    rows = ops.reshape(ops.concatenate(parts, axis=-1), (batch * height * width, 16 * channels))
    return ops.reshape(ops.matmul(rows, ops.reshape(kernel, (16 * channels, -1))), (batch, height, width, -1))


def _spread(parts, axis: int):
    """Return the sum of what the four taps of a kernel put on an axis of twice the length.

    Tap k of place i falls on 2i + k - 1: taps 1 and 3 on even places, 2 and 0 on odd ones.
    """
    length = parts[0].shape[axis]

    def shifted(x, by: int):
        pad = [(0, 0)] * len(x.shape)
        pad[axis] = (1, 0) if by == 1 else (0, 1)
        kept = [slice(None)] * len(x.shape)
        kept[axis] = slice(0, length - 1) if by == 1 else slice(1, length)
        return ops.pad(x[tuple(kept)], pad)

    even, odd = parts[1] + shifted(parts[3], 1), parts[2] + shifted(parts[0], -1)
    shape = [*even.shape]
    shape[axis] *= 2
    return ops.reshape(ops.stack([even, odd], axis=axis + 1), shape)


def transposed_convolution(x, kernel):
    """Return the 4x4 transposed one of stride 2, padding 1, of (batch, h, w, channels): (batch, 2h, 2w, filters)."""
    batch, height, width, channels = x.shape
    filters = kernel.shape[2]
    matrix = ops.reshape(kernel, (16 * filters, channels))
    taps = ops.matmul(ops.reshape(x, (-1, channels)), ops.transpose(matrix))
    taps = ops.reshape(taps, (batch, height, width, 4, 4, filters))
    rows = _spread([taps[:, :, :, k] for k in range(4)], 1)
    return _spread([rows[:, :, :, k] for k in range(4)], 2)


def _fits(layer, places: int, size: tuple[int, int]) -> bool:
    same = layer.kernel_size == (4, 4) and layer.strides == (2, 2) and layer.padding == "same"
    plain = layer.dilation_rate == (1, 1) and getattr(layer, "groups", 1) == 1
    return same and plain and size[0] % 2 == size[1] % 2 == 0 and places <= MOST_PLACES


@contextmanager
def as_products(networks: Iterable[keras.Model]) -> Iterator[int]:
    """Within it, networks that are called (or traced) compute their smallest convolutions as products.

    The function is the same but for rounding; weights, layers and what is exported stay as they are.
    """
    replaced = []
    for network in networks:
        for layer in network.layers:
            transposed = isinstance(layer, layers.Conv2DTranspose)
            if transposed or type(layer) is layers.Conv2D:
                # The instance's attribute hides the class's method, and goes again.
                object.__setattr__(layer, "call", _product_call(layer, transposed))
                replaced.append(layer)
    try:
        yield len(replaced)
    finally:
        for layer in replaced:
            object.__delattr__(layer, "call")


def _product_call(layer, transposed: bool):
    usual = layer.call

    def call(x):
        whole = tuple(2 * side for side in x.shape[1:3]) if transposed else tuple(x.shape[1:3])
        if not _fits(layer, x.shape[0] * prod(whole) // 4, whole):
            return usual(x)
        y = (transposed_convolution if transposed else convolution)(x, layer.kernel)
        if layer.use_bias:
            y = y + ops.convert_to_tensor(layer.bias)
        return y if layer.activation is None else layer.activation(y)

    return call
