"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, arXiv 2006.10738).

A discriminator of a small set soon knows its images by heart. Here real and generated images are
changed alike before it sees them, by operations that gradients flow through, so that the generator
still learns the images as they are. An image and the source beside it move together.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

UNIFORMS = 7
"""Uniform random numbers that one look at one example needs, whatever is asked for."""

SHIFT = 1 / 8  # of a side: the farthest that an image moves
CUT = 1 / 2  # of a side: the square that is cut out, a quarter of the area


def of_look(uniforms, first: int, look: int):
    """Return the numbers of one look: columns of a batch's uniforms, whose looks begin at column ``first``."""
    begin = first + look * UNIFORMS
    return uniforms[:, begin : begin + UNIFORMS]


def augment(image, source, uniforms, kinds: Sequence[str]):
    """Return an image and the source beside it as a discriminator sees them.

    Args:
        image: real or generated, (batch, height, width, channels) in [-1, 1].
        source: what stands beside it, of the same height and width; None where nothing does.
        uniforms: (batch, :data:`UNIFORMS`) in [0, 1): new ones for each look.
        kinds: of ``colour`` (brightness, saturation and contrast of the image alone; its values may
            leave [-1, 1]), ``translation`` (both move by up to an eighth of a side, 0 comes in) and
            ``cutout`` (a square of half the side, wherever its centre lies, becomes 0 in both).

    Returns:
        (image, source), of the shapes and dtypes that were given.
    """
    look = [ops.reshape(uniforms[:, number], (-1, 1, 1, 1)) for number in range(UNIFORMS)]
    if "colour" in kinds:
        image = _colour(image, *look[:3])
    for kind, change, chance in (("translation", _translate, look[3:5]), ("cutout", _cut, look[5:7])):
        if kind in kinds:
            image = change(image, *chance)
            source = None if source is None else change(source, *chance)
    return image, source


def _colour(image, brightness, saturation, contrast):
    """Change brightness by up to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    kind, channels = image.dtype, image.shape[3]
    image = ops.cast(image, "float32") + (brightness - 0.5)
    grey = sum(image[..., channel : channel + 1] for channel in range(channels)) / channels
    image = (image - grey) * (2 * saturation) + grey
    mean = ops.mean(image, axis=(1, 2), keepdims=True)
    mean = sum(mean[..., channel : channel + 1] for channel in range(channels)) / channels
    return ops.cast((image - mean) * (contrast + 0.5) + mean, kind)


def _whole(uniform, count: int):
    """Return whole numbers 0 to ``count - 1`` as floats, of numbers in [0, 1)."""
    return ops.minimum(ops.floor(uniform * count), count - 1)


def _translate(image, down, right):
    """Move images by whole pixels; what comes in at the border is 0."""
    # A product with a matrix of zeros and ones: exact (but for the rounding of tf32, where a GPU is told to), and with
    # a gradient that is one as well, where the gradient of a gather adds up in whatever order.
    for axis, uniform, rule in ((1, down, "byi,biwc->bywc"), (2, right, "bxi,bhic->bhxc")):
        length = image.shape[axis]
        farthest = int(length * SHIFT + 0.5)
        shift = ops.reshape(_whole(uniform, 2 * farthest + 1) - farthest, (-1, 1, 1))
        place = ops.arange(length, dtype="float32")
        comes_from = ops.equal(place[None, :, None] - shift, place[None, None, :])
        image = ops.einsum(rule, ops.cast(comes_from, image.dtype), image)
    return image


def _cut(image, down, right):
    """Set a rectangle of half the height and half the width to 0; its centre lies anywhere in the image."""
    inside = []
    for axis, uniform in ((1, down), (2, right)):
        length = image.shape[axis]
        size = int(length * CUT + 0.5)
        first = _whole(uniform, length + 1 - size % 2) - size // 2
        shape = [1, 1, 1, 1]
        shape[axis] = length
        place = ops.reshape(ops.arange(length, dtype="float32"), shape)
        inside.append(ops.logical_and(place >= first, place < first + size))
    return ops.where(ops.logical_and(*inside), ops.zeros_like(image), image)
