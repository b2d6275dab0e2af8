"""Convolutions whose sums have one order on every CPU: products of pieces too short to be cut again.

A matrix product adds up so many numbers for each of its results, and floats add up to other bits in
another order. Libraries cut long sums into blocks by the sizes of the CPU's caches, which they read
from it: a training under a profile that is otherwise the same on all CPUs then gave other weights
where the first cache has 48 KB than where it has 32. Rows are cut too, and what is left over after the
blocks is added in another way. Here no product sums more than :data:`LONGEST` numbers or has more than
:data:`MOST_ROWS` rows, which fits the smallest caches of any x86-64 CPU with AVX2 uncut, and the pieces are
added pair by pair in an order of our own. Convolutions are such products of rearranged images; their
gradients are too, and the gradients of these.

:func:`fixed_sums` puts these functions in the place of the layers' own; the function stays the same but for rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import keras
from keras import layers, ops

from repix.models.discriminators import MinibatchDiscrimination
from repix.models.layers import calls_replaced, is_plain_convolution

Turned = Literal["a", "b"] | None

LONGEST = 256
"""Numbers that one product sums. Eigen's blocks are 288 numbers long where the first cache has 32 KB."""
MOST_ROWS = 256
"""Rows of one product. With AVX2 the last of 2,048 rows differed between CPUs; of 512, where 225 numbers are summed."""


def _pieces(length: int, longest: int) -> int:
    """Return into how many pieces of at most ``longest`` a length is cut: a power of two, so they add up in pairs."""
    pieces = 1
    while pieces * longest < length:
        pieces *= 2
    return pieces


def product(a, b, turned: Turned = None):
    """Return the matrix product of two float32 matrices; its sums have one order on every CPU.

    Args:
        a, b: (m, k) and (k, n).
        turned: which of them is given as its transpose. Nothing is copied for that: turning what a convolution
            sees took a third of a step.
    """

    @ops.custom_gradient
    def of(a, b):
        def gradient(*given, upstream=None):
            upstream = given[0] if upstream is None else upstream
            if turned == "a":
                return product(b, upstream, "b"), product(a, upstream)
            if turned == "b":
                return product(upstream, b), product(upstream, a, "a")
            return product(upstream, b, "b"), product(a, upstream, "a")

        return _product(a, b, turned), gradient

    # What a variable holds, and not the variable: TensorFlow would ask for its gradient by name.
    return of(ops.reshape(a, a.shape), ops.reshape(b, b.shape))


def _product(a, b, turned: Turned):
    k, m = a.shape if turned == "a" else a.shape[::-1]
    n = b.shape[0 if turned == "b" else 1]
    pieces, blocks = _pieces(k, LONGEST), _pieces(m, MOST_ROWS)
    if pieces == blocks == 1:
        return matmul(a, b, turned)
    # Zeros change no sum: every piece is as long as the others.
    length, rows = -(-k // pieces), -(-m // blocks)
    longer, more = (0, pieces * length - k), (0, blocks * rows - m)
    if longer[1] or more[1]:
        a = ops.pad(a, (longer, more) if turned == "a" else (more, longer))
    if longer[1]:
        b = ops.pad(b, ((0, 0), longer) if turned == "b" else (longer, (0, 0)))
    if turned == "a":
        a = _swapped(ops.reshape(a, (pieces, length, blocks, rows)), (0, 2, 1, 3), blocks > 1)
    else:
        a = _swapped(ops.reshape(a, (blocks, rows, pieces, length)), (2, 0, 1, 3), pieces > 1)
    if turned == "b":
        b = _swapped(ops.reshape(b, (1, n, pieces, length)), (2, 0, 1, 3), pieces > 1)
    a_size, b_size = (
        ((length, rows) if turned == "a" else (rows, length)),
        ((n, length) if turned == "b" else (length, n)),
    )
    terms = matmul(ops.reshape(a, (pieces, blocks, *a_size)), ops.reshape(b, (pieces, 1, *b_size)), turned)
    terms = ops.reshape(terms, (pieces, blocks * rows, n))
    while pieces > 1:
        pieces //= 2
        size = (pieces, blocks * rows, n)
        terms = ops.slice(terms, (0, 0, 0), size) + ops.slice(terms, (pieces, 0, 0), size)
    return ops.slice(ops.reshape(terms, (blocks * rows, n)), (0, 0), (m, n))


def _swapped(x, order: tuple[int, ...], needed: bool):
    """Return a tensor with its axes in another order, unless that moves nothing; its last axis stays."""
    return ops.transpose(x, order) if needed else x


def matmul(a, b, turned: Turned):
    """Return the products of the last two axes as the library has them, without a copy of what is turned."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.linalg.matmul(a, b, transpose_a=turned == "a", transpose_b=turned == "b")
    a, b = ops.swapaxes(a, -1, -2) if turned == "a" else a, ops.swapaxes(b, -1, -2) if turned == "b" else b
    return ops.matmul(a, b)


def _window(kernel: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return how many strides a kernel reaches over, down and across: a kernel of 4 and a stride of 2 give 2."""
    return -(-kernel[0] // stride), -(-kernel[1] // stride)


def unfold(x, kernel: tuple[int, int], stride: int, before: tuple[int, int], size: tuple[int, int]):
    """Return what a convolution sees at each place: (batch, *size, taps, channels).

    Args:
        x: (batch, height, width, channels).
        kernel: its height and width.
        stride: both ways.
        before: zeros above and to the left.
        size: height and width of the result; zeros below and to the right follow from it.
    """
    batch, height, width, channels = x.shape
    down, across = _window(kernel, stride)
    (rows, columns), s = size, stride
    full = ((rows + down - 1) * s, (columns + across - 1) * s)
    pads = [(before[i], full[i] - before[i] - (height, width)[i]) for i in (0, 1)]
    # A stride may leave the last rows and columns unseen.
    seen = [(height, width)[i] + min(0, pads[i][1]) for i in (0, 1)]
    x = ops.slice(x, (0, 0, 0, 0), (batch, *seen, channels))
    x = ops.pad(x, ((0, 0), *((first, max(0, last)) for first, last in pads), (0, 0)))
    x = ops.reshape(x, (batch, rows + down - 1, s, columns + across - 1, s, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    parts = [
        ops.slice(x, (0, i, j, 0, 0, 0), (batch, rows, columns, s, s, channels))
        for i in range(down)
        for j in range(across)
    ]
    x = ops.reshape(ops.stack(parts, axis=3), (batch, rows, columns, down, across, s, s, channels))
    x = ops.reshape(ops.transpose(x, (0, 1, 2, 3, 5, 4, 6, 7)), (batch, rows, columns, down * s, across * s, channels))
    x = ops.slice(x, (0, 0, 0, 0, 0, 0), (batch, rows, columns, *kernel, channels))
    return ops.reshape(x, (batch, rows, columns, kernel[0] * kernel[1], channels))


def fold(x, kernel: tuple[int, int], stride: int, before: tuple[int, int], size: tuple[int, int]):
    """Return the transpose of :func:`unfold`: each place of an image is the sum of what was seen of it.

    Args:
        x: (batch, rows, columns, taps, channels).
        kernel, stride, before: as in :func:`unfold`.
        size: height and width of the image.

    Returns:
        (batch, *size, channels), its at most ``taps`` terms added in the order of the taps.
    """
    batch, rows, columns, _, channels = x.shape
    down, across = _window(kernel, stride)
    s = stride
    x = ops.reshape(x, (batch, rows, columns, *kernel, channels))
    missing = (down * s - kernel[0], across * s - kernel[1])
    x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    x = ops.transpose(ops.reshape(x, (batch, rows, columns, down, s, across, s, channels)), (3, 5, 0, 1, 4, 2, 6, 7))
    total = None
    for number, part in enumerate(ops.unstack(ops.reshape(x, (down * across, batch, rows * s, columns * s, channels)))):
        i, j = divmod(number, across)
        margins = ((i * s, (down - 1 - i) * s), (j * s, (across - 1 - j) * s))
        part = ops.pad(part, ((0, 0), *margins, (0, 0)))
        total = part if total is None else total + part
    full = total.shape[1:3]
    missing = [max(0, before[i] + size[i] - full[i]) for i in (0, 1)]
    total = ops.pad(total, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    return ops.slice(total, (0, *before, 0), (batch, *size, channels))


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
        turned = ops.reshape(ops.transpose(ops.flip(kernel, (0, 1)), (2, 0, 1, 3)), (channels, -1))
        rows = product(ops.reshape(x, (-1, channels)), turned)
        rows = ops.reshape(rows, (batch, *sides, taps[0] * taps[1], filters))
        return fold(rows, taps, 1, tuple(taps[i] - 1 - before[i] for i in (0, 1)), size)
    rows = ops.reshape(unfold(x, taps, stride, before, size), (-1, taps[0] * taps[1] * channels))
    return ops.reshape(product(rows, ops.reshape(kernel, (-1, filters))), (batch, *size, filters))


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
    before = [_geometry(size[i], taps[i], stride, padding)[0] for i in (0, 1)]
    rows = product(ops.reshape(x, (-1, channels)), ops.reshape(kernel, (-1, channels)), "b")
    return fold(ops.reshape(rows, (batch, *sides, taps[0] * taps[1], filters)), taps, stride, before, size)


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
        if self._counts[shape] < self.MANY or keras.backend.backend() != "tensorflow":
            return plain  # JAX traces an operation in a moment
        if shape not in self._traced:
            import tensorflow as tf

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
