"""Convolutions whose sums have one order on every CPU: products of pieces too short to be cut again.

A matrix product adds up so many numbers for each of its results, and floats add up to other bits in
another order. Libraries cut long sums into blocks by the sizes of the CPU's caches, which they read
from it: a training under a profile that is otherwise the same on all CPUs then gave other weights
where the first cache has 48 KB than where it has 32. Rows are cut too, and what is left over after the
blocks is added in another way, by AVX-512 in yet another. Here no product sums more than :data:`LONGEST` numbers, which
fits the smallest caches of any x86-64 CPU with AVX2 uncut, none has more than :data:`MOST_ROWS` rows, or other numbers
of rows and columns than :func:`filled_rows` and :func:`filled_columns` say, which come out the same wherever they are
cut and however wide the CPU's vectors are, and the pieces are added pair by pair in an order of our own.

So short a product gains nothing by being shared out among threads. The pieces are operations of their own
instead, each on one thread, and as many run at once as there are cores
(:attr:`repix.profile.Profile.operation_threads`): twice as fast as threads inside of them, and no bit follows the
number of cores.

Three functions are all that is needed, since the gradients of each are the two others: :func:`seen_product` (what a
convolution sees at each place, times the kernel), :func:`folded` (its transpose: every place gives to what it sees) and
:func:`weighted` (the kernel's gradient). What a place sees is read from the image by index, already in pieces.

:func:`fixed_sums` puts these functions in the place of the layers' own; the function stays the same but for rounding.
They run on TensorFlow, the backend of the profile that promises bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from repix.models.discriminators import MinibatchDiscrimination
from repix.models.layers import calls_replaced, is_plain_convolution

Turned = Literal["a", "b"] | None

LONGEST = 256
"""Numbers that one product sums. Eigen's blocks are 288 numbers long where the first cache has 32 KB."""
MOST_ROWS = 256
"""Rows of one product. With AVX2 the last of 2,048 rows differed between CPUs; of 512, where 225 numbers are summed."""
VECTOR = 16
"""Floats of the widest vectors, those of AVX-512."""
OPERATIONS = 16
"""Into how many operations a large convolution is cut at least, where it has as many pieces: work for as many cores."""
SMALL = 8_000_000
"""Floating-point operations of a convolution below which it stays one operation: starting one takes some time too."""


@dataclass(frozen=True)
class Seen:
    """Which numbers of an image a convolution sees: a matrix of a row for each place and a column for each number.

    Attributes:
        batch, height, width, channels: the image's shape.
        kernel: rows and columns of the window.
        stride: both ways.
        before: zeros above and to the left of the image; those below and to the right follow from ``size``.
        size: places, down and across.
    """

    batch: int
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: int
    before: tuple[int, int]
    size: tuple[int, int]

    @property
    def places(self) -> int:
        """Rows of the matrix."""
        return self.batch * self.size[0] * self.size[1]

    @property
    def numbers(self) -> int:
        """Columns of the matrix, in the order of a kernel's rows, columns and channels."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def operations(self, filters: int) -> tuple[int, int]:
        """Return into how many operations the places, and the numbers, are cut for so many filters."""
        blocks, pieces = _pieces(self.places, MOST_ROWS), _pieces(self.numbers, LONGEST)
        if 2 * self.places * self.numbers * filters < SMALL:
            return 1, 1
        return min(blocks, max(1, OPERATIONS // pieces)), pieces


def _pieces(length: int, longest: int) -> int:
    """Return into how many pieces of at most ``longest`` a length is cut: a power of two, so they add up in pairs."""
    pieces = 1
    while pieces * longest < length:
        pieces *= 2
    return pieces


def filled_rows(rows: int) -> int:
    """Return how many rows, at most :data:`MOST_ROWS`, a product of ``rows`` is made to have.

    A library cuts rows at multiples of 24, where the CPU's caches say so. Not all numbers of rows come out the same
    wherever that is: 135 do not, nor do 128. Multiples of 24 do, and 64 and 256. Of those below, AVX2 adds up a rest of
    one to three of six rows in a way that AVX-512 does not; one row alone takes another way, the same for both
    (tests/models/test_fixed_sums.py).
    """
    if rows <= 24:
        return rows if rows == 1 or rows % 6 in (0, 4, 5) else rows + 4 - rows % 6
    return rows if rows in (64, MOST_ROWS) else min(MOST_ROWS, rows + -rows % 24)


def filled_columns(columns: int) -> int:
    """Return how many columns a product of ``columns`` is made to have: 1, or a multiple of :data:`VECTOR`.

    Where the last vector is not full, AVX-512 may add up in another order than AVX2; a column alone takes another way,
    the same for both.
    """
    return columns if columns == 1 else columns + -columns % VECTOR


def _longer(x, length: int):
    """Return a matrix with rows of zeros up to ``length``: they change no sum."""
    return ops.pad(x, ((0, length - x.shape[0]), (0, 0))) if length > x.shape[0] else x


def _added(terms: list):
    """Return the sum of a power of two of tensors, added pair by pair."""
    while len(terms) > 1:
        half = len(terms) // 2
        terms = [one + other for one, other in zip(terms[:half], terms[half:], strict=True)]
    return terms[0]


def _added_along(terms, axis: int):
    """Return the sum of (a, b, rows, columns) along axis 0 or 1, of a power of two, added pair by pair."""
    shape = list(terms.shape)
    while shape[axis] > 1:
        shape[axis] //= 2
        start = [0] * len(shape)
        start[axis] = shape[axis]
        terms = ops.slice(terms, [0] * len(shape), shape) + ops.slice(terms, start, shape)
    return terms


def _together(parts: list):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def matmul(a, b, turned: Turned = None):
    """Return the products of the last two axes as the library has them, without a copy of what is turned.

    Args:
        a, b: (..., m, k) and (..., k, n). Columns of zeros are added to ``b`` where :func:`filled_columns` wants more;
            rows are the caller's, see :func:`filled_rows`.
        turned: which of them is given as its transpose.
    """
    axis = -2 if turned == "b" else -1
    columns = b.shape[axis]
    more = filled_columns(columns) - columns
    if more:
        around = [[0, 0] for _ in b.shape]
        around[axis][1] = more
        b = ops.pad(b, around)
    y = tf.linalg.matmul(a, b, transpose_a=turned == "a", transpose_b=turned == "b")
    return y[..., :columns] if more else y


def _rows(x, *indices: np.ndarray):
    """Return the rows of a matrix at the sum of some indices, which are broadcast together."""
    places = ops.convert_to_tensor(indices[0], "int32")
    for index in indices[1:]:
        places = places + ops.convert_to_tensor(index, "int32")
    return tf.gather(x, places)  # Keras would look for negative ones


def _tiles(x, seen: Seen, operations: tuple[int, int]) -> list[list]:
    """Return the matrix of what is seen, cut into tiles.

    Args:
        x: the image.
        seen: what is seen of it.
        operations: into how many groups the blocks of places, and the pieces of numbers, go.

    Returns:
        For each group of blocks and each group of pieces (blocks, pieces, rows, length). Rows and columns beyond the
        matrix repeat its last ones: what is made of them is cut off, or meets zeros.
    """
    channels, (down, across), s = seen.channels, seen.kernel, seen.stride
    ends = [(seen.size[i] - 1) * s + seen.kernel[i] - seen.before[i] - (seen.height, seen.width)[i] for i in (0, 1)]
    zeros = [(seen.before[i], max(0, ends[i])) for i in (0, 1)]
    if any(map(any, zeros)):
        x = ops.pad(x, ((0, 0), *zeros, (0, 0)))
    _, height, width, _ = x.shape
    blocks, pieces = _pieces(seen.places, MOST_ROWS), _pieces(seen.numbers, LONGEST)
    rows, length = filled_rows(-(-seen.places // blocks)), filled_rows(-(-seen.numbers // pieces))
    # The longest run of numbers that lie together in the image and belong to one piece.
    run = gcd(channels, length)
    first = (np.arange(seen.batch)[:, None, None] * height + np.arange(seen.size[0])[:, None] * s) * width
    first = (first + np.arange(seen.size[1]) * s).reshape(-1) * (channels // run)
    further = (np.arange(down)[:, None, None] * width + np.arange(across)[:, None]) * (channels // run)
    further = (further + np.arange(channels // run)).reshape(-1)
    first = np.pad(first, (0, blocks * rows - len(first)), "edge").reshape(operations[0], -1, 1, rows, 1)
    further = np.pad(further, (0, pieces * length // run - len(further)), "edge")
    further = further.reshape(operations[1], 1, -1, 1, length // run)
    x = ops.reshape(x, (-1, run))
    return [
        [ops.reshape(_rows(x, one, other), (one.shape[0], other.shape[1], rows, length)) for other in further]
        for one in first
    ]


def seen_product(x, kernel, seen: Seen, tiles: list[list] | None = None):
    """Return the product of what is seen of an image with a kernel: (places, filters).

    Args:
        x: the image, (batch, height, width, channels) float32.
        kernel: (numbers, filters).
        seen: what is seen.
        tiles: of the image, where they are there.
    """

    @ops.custom_gradient
    def of(x, kernel):
        filters = kernel.shape[1]
        cut = tiles or _tiles(x, seen, seen.operations(filters))

        def gradient(*given, upstream=None):
            upstream = given[0] if upstream is None else upstream
            return folded(upstream, kernel, seen), weighted(x, upstream, seen, cut)

        _, pieces, _, length = cut[0][0].shape
        parts = ops.reshape(_longer(kernel, len(cut[0]) * pieces * length), (len(cut[0]), 1, pieces, length, filters))
        parts = [parts[j] for j in range(len(cut[0]))]
        results = []
        for group in cut:
            terms = [_added_along(matmul(tile, part), 1) for tile, part in zip(group, parts, strict=True)]
            results.append(ops.reshape(_added(terms), (-1, filters)))
        return ops.slice(_together(results), (0, 0), (seen.places, filters)), gradient

    # What a variable holds, and not the variable: TensorFlow would ask for its gradient by name.
    return of(ops.reshape(x, x.shape), ops.reshape(kernel, kernel.shape))


def weighted(x, y, seen: Seen, tiles: list[list] | None = None):
    """Return what is seen of an image, turned, times numbers at each place: (numbers, filters).

    Args:
        x: the image.
        y: (places, filters).
        seen: what is seen.
        tiles: of the image, where they are there.
    """

    @ops.custom_gradient
    def of(x, y):
        filters = y.shape[1]

        def gradient(*given, upstream=None):
            upstream = given[0] if upstream is None else upstream
            return folded(y, upstream, seen), seen_product(x, upstream, seen)

        cut = tiles or _tiles(x, seen, seen.operations(filters))
        if seen.places < filters:  # what is seen is smaller than the result: better put together before
            cut = [[ops.concatenate(group, axis=1)] if len(group) > 1 else group for group in cut]
        blocks, _, rows, _ = cut[0][0].shape
        parts = ops.reshape(_longer(y, len(cut) * blocks * rows), (len(cut), blocks, 1, rows, filters))
        parts = [parts[i] for i in range(len(cut))]
        results = []
        for j in range(len(cut[0])):
            terms = [_added_along(matmul(group[j], part, "a"), 0) for group, part in zip(cut, parts, strict=True)]
            results.append(ops.reshape(_added(terms), (-1, filters)))
        return ops.slice(_together(results), (0, 0), (seen.numbers, filters)), gradient

    return of(ops.reshape(x, x.shape), ops.reshape(y, y.shape))


def folded(y, kernel, seen: Seen):
    """Return the image that the places give to what they see: the transpose of :func:`seen_product`.

    Args:
        y: (places, filters).
        kernel: (numbers, filters).
        seen: what is seen.

    Returns:
        (batch, height, width, channels), the terms of a number added in the order of the kernel's rows and columns.
    """

    @ops.custom_gradient
    def of(y, kernel):
        def gradient(*given, upstream=None):
            upstream = given[0] if upstream is None else upstream
            tiles = _tiles(upstream, seen, seen.operations(kernel.shape[1]))
            return seen_product(upstream, kernel, seen, tiles), weighted(upstream, y, seen, tiles)

        return _folded(y, kernel, seen), gradient

    return of(ops.reshape(y, y.shape), ops.reshape(kernel, kernel.shape))


def _folded(y, kernel, seen: Seen):
    s, filters, channels = seen.stride, y.shape[1], seen.channels
    down, across = (-(-seen.kernel[i] // s) for i in (0, 1))
    # Of a kernel of 3 and a stride of 2 a fourth row and column of zeros: then each place gives to all of `down` by
    # `across` squares as large as the stride, and each number of the image is in one square of each of these.
    missing = [(0, down * s - seen.kernel[0]), (0, across * s - seen.kernel[1])]
    kernel = ops.reshape(kernel, (*seen.kernel, channels, filters))
    if missing != [(0, 0), (0, 0)]:
        kernel = ops.pad(kernel, (*missing, (0, 0), (0, 0)))
    kernel = ops.reshape(kernel, (down, s * across * s * channels, filters))
    total = None
    for i, given in enumerate(_given(y, [kernel[i] for i in range(down)])):
        given = ops.reshape(given, (-1, channels))
        for j in range(across):
            part = _placed(given, seen, across, i, j)
            total = part if total is None else total + part
    return total


def _given(y, kernels: list) -> list:
    """Return the product of (places, filters) with each of some kernels (numbers, filters), turned."""
    places, filters = y.shape
    blocks, pieces = _pieces(places, MOST_ROWS), _pieces(filters, LONGEST)
    rows, length = filled_rows(-(-places // blocks)), -(-filters // pieces)
    more = ((0, 0), (0, pieces * length - filters))
    if more[1][1]:
        y, kernels = ops.pad(y, more), [ops.pad(kernel, more) for kernel in kernels]
    y = _longer(y, blocks * rows)

    def piece(x, number: int):
        return x if pieces == 1 else ops.slice(x, (0, number * length), (x.shape[0], length))

    cut = [ops.reshape(piece(y, number), (blocks, rows, length)) for number in range(pieces)]
    results = []
    for kernel in kernels:
        terms = [matmul(cut[number], ops.expand_dims(piece(kernel, number), 0), "b") for number in range(pieces)]
        results.append(ops.reshape(_added(terms), (blocks * rows, -1)))
    return results


def _placed(given, seen: Seen, across: int, i: int, j: int):
    """Return the image of what each place gives to its square in row i and column j; zeros where there is no place.

    Args:
        given: rows of channels: of each place and of each row and column of its squares in row i.
        seen: what is seen.
        across: squares in a row.
        i, j: which square.
    """
    s, own = seen.stride, seen.stride * across * seen.stride  # rows of one place

    def reached(axis: int, square: int, length: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Places and numbers within the square for what is reached along an axis, and how much is not, around it."""
        lines = np.arange(length) + seen.before[axis]
        there = (lines >= square * s) & (lines < (square + seen.size[axis]) * s)
        first = int(there.argmax()) if there.any() else length
        lines = lines[there]
        return lines // s - square, lines % s, (first, length - first - len(lines))

    row, down, above = reached(0, i, seen.height)
    column, right, beside = reached(1, j, seen.width)
    whole = np.arange(seen.batch)[:, None, None] * (seen.size[0] * seen.size[1] * own)
    down = (row * seen.size[1] * own + down * across * s)[:, None]
    part = _rows(given, whole, down, column * own + right + j * s)
    return ops.pad(part, ((0, 0), above, beside, (0, 0))) if any((*above, *beside)) else part


def product(a, b):
    """Return the matrix product of two float32 matrices; its sums have one order on every CPU.

    Args:
        a, b: (m, k) and (k, n).
    """
    m, k = a.shape
    return seen_product(ops.reshape(a, (m, 1, 1, k)), b, Seen(m, 1, 1, k, (1, 1), 1, (0, 0), (1, 1)))


def _geometry(length: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Return (zeros before, length of the result) of a convolution along one side."""
    if padding == "valid":
        return 0, (length - kernel) // stride + 1
    out = -(-length // stride)
    return max(0, (out - 1) * stride + kernel - length) // 2, out


def convolution(x, kernel, stride: int, padding: str):
    """Return the convolution of (batch, height, width, channels) float32 images.

    Args:
        kernel: (rows, columns, channels, filters).
        stride: both ways.
        padding: ``same`` or ``valid``, as Keras has them.
    """
    batch, *sides, channels = x.shape
    taps, filters = tuple(kernel.shape[:2]), kernel.shape[3]
    before, size = zip(*(_geometry(sides[i], taps[i], stride, padding) for i in (0, 1)), strict=True)
    if stride == 1 and filters < channels:
        # Products first: then each place takes as many numbers as filters, not channels, times taps. The last layer of
        # a ResNet would take 12 GB for a million pixels.
        turned = ops.reshape(ops.transpose(ops.flip(kernel, (0, 1)), (0, 1, 3, 2)), (-1, channels))
        around = tuple(taps[i] - 1 - before[i] for i in (0, 1))
        seen = Seen(batch, *size, filters, taps, 1, around, tuple(sides))
        return folded(ops.reshape(x, (-1, channels)), turned, seen)
    seen = Seen(batch, *sides, channels, taps, stride, before, size)
    return ops.reshape(seen_product(x, ops.reshape(kernel, (-1, filters)), seen), (batch, *size, filters))


def transposed_convolution(x, kernel, stride: int, padding: str):
    """Return the transposed convolution of (batch, height, width, channels) float32 images.

    Args:
        kernel: (rows, columns, filters, channels).
        stride: both ways.
        padding: ``same`` or ``valid``, as Keras has them.
    """
    batch, *sides, channels = x.shape
    taps, filters = tuple(kernel.shape[:2]), kernel.shape[2]
    if padding == "same":
        size = [side * stride for side in sides]
    else:
        size = [side * stride + max(taps[i] - stride, 0) for i, side in enumerate(sides)]
    before = tuple(_geometry(size[i], taps[i], stride, padding)[0] for i in (0, 1))
    seen = Seen(batch, *size, filters, taps, stride, before, tuple(sides))
    return folded(ops.reshape(x, (-1, channels)), ops.reshape(kernel, (-1, channels)), seen)


def _call(layer, function: Callable, x, training=None):
    """Return a layer's output by ``function(x, kernel)``, with its bias and activation."""
    kind = layer.compute_dtype
    x, kernel = ops.cast(x, "float32"), ops.cast(ops.convert_to_tensor(layer.kernel), "float32")
    y = ops.cast(function(x, kernel), kind)
    if layer.use_bias:
        y = y + ops.cast(ops.convert_to_tensor(layer.bias), kind)
    return y if layer.activation is None else layer.activation(y)


class _Shapes:
    """Functions of a network's layers, those of many layers of one shape traced once and not at each layer.

    A ResNet has eighteen such layers: tracing a step of CycleGAN took a minute, most of it for their gradients. A U-Net
    has none, and a function of its own costs each step a little.
    """

    MANY = 3

    def __init__(self, networks: Iterable[keras.Model]):
        self._counts = Counter(self._shape(layer) for network in networks for layer in network.layers)
        self._traced: dict[Hashable, Callable] = {}

    @staticmethod
    def _shape(layer) -> Hashable:
        kernel = getattr(layer, "kernel", None)
        if kernel is None or not isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
            return None
        return type(layer), tuple(kernel.shape), tuple(layer.output.shape), layer.strides, layer.padding

    def function(self, layer, plain: Callable) -> Callable:
        """Return ``plain``, or what is traced of it for all layers of this one's shape."""
        shape = self._shape(layer)
        if self._counts[shape] < self.MANY:
            return plain
        if shape not in self._traced:
            self._traced[shape] = tf.function(plain, autograph=False)
        return self._traced[shape]


def _replacement(layer, shapes: _Shapes) -> Callable | None:
    """Return the function to take the place of a layer's ``call``, or None for one that sums nothing long.

    Raises:
        ValueError: a convolution that is not covered here.
    """
    if type(layer) is MinibatchDiscrimination:
        return partial(layer.call, product=product)
    if type(layer) is layers.Dense:
        return partial(_call, layer, product)
    if not isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose, layers.DepthwiseConv2D)):
        return None
    if not is_plain_convolution(layer) or layer.strides[0] != layer.strides[1]:
        raise ValueError(f"layer {layer.name}: repix.models.fixed_sums has no {type(layer).__name__} of this kind")
    function = convolution if type(layer) is layers.Conv2D else transposed_convolution
    plain = partial(function, stride=layer.strides[0], padding=layer.padding)
    return partial(_call, layer, shapes.function(layer, plain))


def fixed_sums(networks: Iterable[keras.Model]) -> AbstractContextManager[None]:
    """Make networks that are called or traced within this context sum in one order on every CPU.

    Weights, layers and what is exported stay as they are.
    """
    networks = list(networks)
    return calls_replaced(networks, partial(_replacement, shapes=_Shapes(networks)))
