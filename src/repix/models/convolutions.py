"""Faster ways to compute some convolutions on a CPU: as matrix products, and by Winograd's algorithm.

On a CPU two kinds of layers take most of the time of a step, and need not:

- At the bottom of a U-Net images have few pixels and kernels millions of numbers. A library's
  convolution brings such a kernel into an order of its own, and its gradient back, at every step,
  which takes longer than the arithmetic. :func:`downsampling_convolution` and
  :func:`upsampling_convolution` are one matrix product with the kernel as it lies in memory.
- Wide convolutions of stride 1 (a discriminator's fourth, the blocks of a ResNet) are all
  arithmetic. :func:`winograd_convolution` needs a fourth of the multiplications, at the price of
  memory (the transformed image is 2.25 or 4 times the image) and of some rounding.

Both rearrange images by products with constant matrices, one for the height and one for the
width: these are small and their gradients are of the same kind, where those of slices by index
take one core and its time. Croppings are written as slices by size for the same reason.
:func:`faster_convolutions` puts these functions in the place of the layers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache, partial
from math import prod

import keras
import numpy as np
from keras import layers, ops

from repix import profile
from repix.models.layers import calls_replaced, is_plain_convolution

# And the one at infinity. These round less than other usual sets, with 3 and with 4 taps
# (tests/models/test_convolutions.py); see Barabasz et al. 2018, arXiv 1803.10986.
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
# Measured with 64 to 512 channels, forward and both gradients, on two cores of an AMD EPYC (Zen 4): with fewer the
# library's convolution is faster.
FEWEST_TILES = {"float32": 16, "bfloat16": 100}
AMX = "amx_bf16"
"""Feature of CPUs that multiply matrices of bfloat16 in tiles: the library's convolution is the faster one there."""


def _times(matrix: np.ndarray, x):
    """Return matrix @ x, for a constant (rows, height) and a tensor (..., height, numbers)."""
    return ops.matmul(ops.convert_to_tensor(matrix, x.dtype), x)


def _sides(x, rows: np.ndarray, columns: np.ndarray):
    """Return (batch, height, width, channels) with ``rows`` applied to its height, ``columns`` to its width."""
    # Sums in float32: bfloat16 would be rounded once for each side.
    (batch, height, width, channels), kind, x = x.shape, x.dtype, ops.cast(x, "float32")
    x = _times(rows, ops.reshape(x, (batch, height, width * channels)))
    x = _times(columns, ops.reshape(x, (batch * len(rows), width, channels)))
    return ops.cast(ops.reshape(x, (batch, len(rows), len(columns), channels)), kind)


@cache
def _taps(length: int) -> np.ndarray:
    """Return (4 * length / 2, length): row (k, i) picks place 2i + k - 1, or nothing beyond the border."""
    picked = 2 * np.arange(length // 2) + np.arange(-1, 3)[:, None]
    return (picked.reshape(-1, 1) == np.arange(length)).astype(np.float32)


def downsampling_convolution(x, kernel):
    """Return the 4x4 convolution of stride 2, padding 1, of (batch, 2h, 2w, channels): (batch, h, w, filters).

    Args:
        kernel: (4, 4, channels, filters).
    """
    batch, height, width, channels = x.shape
    x = ops.reshape(_sides(x, _taps(height), _taps(width)), (batch, 4, height // 2, 4, width // 2, channels))
    rows = ops.reshape(ops.transpose(x, (0, 2, 4, 1, 3, 5)), (-1, 16 * channels))
    return ops.reshape(ops.matmul(rows, ops.reshape(kernel, (16 * channels, -1))), (batch, height // 2, width // 2, -1))


def upsampling_convolution(x, kernel):
    """Return the transposed 4x4 convolution, stride 2, padding 1, of (batch, h, w, channels): (batch, 2h, 2w, filters).

    Args:
        kernel: (4, 4, filters, channels).
    """
    batch, height, width, channels = x.shape
    filters = kernel.shape[2]
    # The kernel, which is the larger one, stands on the left and is read as it lies.
    taps = ops.matmul(ops.reshape(kernel, (16 * filters, channels)), ops.transpose(ops.reshape(x, (-1, channels))))
    taps = ops.transpose(ops.reshape(taps, (4, 4, filters, batch, height, width)), (3, 0, 4, 1, 5, 2))
    taps = ops.reshape(taps, (batch, 4 * height, 4 * width, filters))
    return _sides(taps, _taps(2 * height).T, _taps(2 * width).T)


@cache
def _toom_cook(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of Winograd's minimal filtering for a kernel of ``taps`` (Winograd 1980; Toom and Cook).

    Polynomials are multiplied by their values at n = 6 points, infinity among them; a filter is
    that product transposed. So m = n + 1 - taps outputs take n multiplications, not m * taps.

    Returns:
        (out, kernel, image) of shapes (m, n), (n, taps), (n, n) such that for n numbers d and taps g
        ``out @ ((kernel @ g) * (image @ d))`` is ``sum(d[i + k] * g[k])`` for each i < m.
    """
    n = len(POINTS) + 1

    def values(count: int) -> np.ndarray:
        """Values of a polynomial of ``count`` coefficients; at infinity it is its highest one."""
        return np.vstack([np.power.outer(np.array(POINTS), np.arange(count)), np.eye(count)[-1]])

    image = np.linalg.inv(values(n)).T
    # Each row of `image` is scaled to at most 1 and the kernel's by as much the other way.
    largest = np.abs(image).max(1, keepdims=True)
    return values(n + 1 - taps).T, values(taps) * largest, image / largest


@cache
def _tiles(length: int, before: int, taps: int, count: int) -> np.ndarray:
    """Return (6 * count, length): row (k, tile) gives a tile's k-th number of an axis padded by ``before``."""
    image = _toom_cook(taps)[2]
    rows = np.zeros((len(image), count, length), np.float32)
    for tile in range(count):
        for j, column in enumerate(image.T):
            place = tile * (len(image) + 1 - taps) + j - before
            if 0 <= place < length:
                rows[:, tile, place] = column
    return rows.reshape(-1, length)


def winograd_convolution(x, kernel, before: int = 0, after: int = 0):
    """Return the convolution of stride 1 of (batch, height, width, channels) by Winograd's algorithm.

    Minimal filtering in two dimensions (Lavin and Gray 2015, arXiv 1509.09308): tiles of the
    image and the kernel are brought to 6 x 6 points, where the convolution is one product for
    each point: 36 multiplications for the 9 or 16 outputs of a tile in place of 144. What rounding
    leaves, of outputs and gradients, is below 5e-6 of their root mean square at 256 channels. In
    float32 always: in bfloat16 differences between points would have no digits left.

    Args:
        kernel: (taps, taps, channels, filters) with 3 or 4 taps.
        before, after: zeros around height and width.

    Returns:
        (batch, height + before + after + 1 - taps, ..., filters).
    """
    kind, x, kernel = x.dtype, ops.cast(x, "float32"), ops.cast(kernel, "float32")
    batch, height, width, channels = x.shape
    taps, filters = kernel.shape[0], kernel.shape[3]
    out, of_kernel, _ = _toom_cook(taps)
    m, n = out.shape
    sides = [side + before + after + 1 - taps for side in (height, width)]
    down, across = (-(-side // m) for side in sides)
    x = _sides(x, _tiles(height, before, taps, down), _tiles(width, before, taps, across))
    x = ops.transpose(ops.reshape(x, (batch, n, down, n, across, channels)), (1, 3, 0, 2, 4, 5))
    kernel = _times(np.kron(of_kernel, of_kernel), ops.reshape(kernel, (taps * taps, channels * filters)))
    y = ops.matmul(
        ops.reshape(x, (n * n, batch * down * across, channels)), ops.reshape(kernel, (n * n, channels, filters))
    )
    y = ops.reshape(_times(np.kron(out, out), ops.reshape(y, (n * n, -1))), (m, m, batch, down, across, filters))
    y = ops.reshape(ops.transpose(y, (2, 3, 0, 4, 1, 5)), (batch, down * m, across * m, filters))
    return ops.cast(ops.slice(y, (0, 0, 0, 0), (batch, *sides, filters)), kind)


def _chosen(layer, x) -> Callable | None:
    """Return the function of (x, kernel) for a layer and its input, or None where the library's is faster."""
    batch, height, width, channels = x.shape
    transposed, taps, padded = type(layer) is layers.Conv2DTranspose, layer.kernel_size[0], layer.padding == "same"
    if layer.kernel_size == (4, 4) and layer.strides == (2, 2) and padded:
        # Measured as above: worth it where the smaller image has fewer places than half its channels.
        if transposed:
            return upsampling_convolution if 2 * batch * height * width < channels else None
        even = height % 2 == width % 2 == 0
        return downsampling_convolution if even and 2 * batch * (height // 2) * (width // 2) < layer.filters else None
    if transposed or layer.kernel_size not in ((3, 3), (4, 4)) or layer.strides != (1, 1):
        return None
    # The matrices for the sides grow with the sides, and what they save with the channels.
    if max(height, width) > min(channels, layer.filters):
        return None
    zeros = taps - 1 if padded else 0
    tiles = batch * prod(-(-(side + zeros + 1 - taps) // len(_toom_cook(taps)[0])) for side in (height, width))
    if tiles < FEWEST_TILES[layer.compute_dtype] or (layer.compute_dtype == "bfloat16" and profile.cpu_has(AMX)):
        return None
    return partial(winograd_convolution, before=zeros // 2, after=zeros - zeros // 2)


def _replacement(layer) -> Callable | None:
    """Return the function to take the place of a layer's ``call``, or None where the layer keeps its own."""
    if type(layer) is layers.Cropping2D and layer.data_format == "channels_last":
        return partial(_crop, layer)
    if not is_plain_convolution(layer) or layer.compute_dtype not in FEWEST_TILES:
        return None
    return partial(_call, layer, layer.call)


def faster_convolutions(networks: Iterable[keras.Model]) -> AbstractContextManager[None]:
    """Make networks that are called or traced within this context compute their convolutions in the faster ways above.

    The function is the same but for rounding; weights, layers and what is exported stay as they are.
    Networks inside networks are left to the library.
    """
    return calls_replaced(networks, _replacement)


def _call(layer, usual: Callable, x):
    """Return a convolution layer's output, computed the chosen way, with its bias and activation."""
    if (function := _chosen(layer, x)) is None:
        return usual(x)
    y = function(x, ops.convert_to_tensor(layer.kernel))
    if layer.use_bias:
        y = y + ops.convert_to_tensor(layer.bias)
    return y if layer.activation is None else layer.activation(y)


def _crop(layer, x):
    """Return a cropping layer's output, as one slice by size."""
    (top, bottom), (left, right) = layer.cropping
    batch, height, width, channels = x.shape
    return ops.slice(x, (0, top, left, 0), (batch, height - top - bottom, width - left - right, channels))
