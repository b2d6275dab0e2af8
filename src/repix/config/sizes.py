"""Which sizes of images a recipe's networks allow: arithmetic alone, so that it is known before anything works."""

from __future__ import annotations

from repix.config.models import TERMS, Discriminator, Generator, Recipe
from repix.errors import UserError


def check(recipe: Recipe, size: tuple[int, int]) -> None:
    """Check that all networks of a recipe can be built for images of ``size`` (height, width).

    A system of somebody's own is let through: it need not have both networks.

    Raises:
        UserError: the first network that cannot, and the nearest size or depth that can.
    """
    if recipe.system not in TERMS:
        return
    if recipe.generator.kind == "unet":
        unet_depth(recipe.generator, size)
    else:
        check_resnet(recipe.generator, size)
    check_discriminator(recipe.discriminator, size)


def unet_depth(settings: Generator, size: tuple[int, int]) -> int:
    """Return how often a U-Net halves images of ``size`` (height, width).

    Raises:
        UserError: the size cannot be halved as often as asked for; the nearest sizes that
            can are named.
    """
    possible, most = 0, settings.depth or 8
    while possible < most and size[0] % 2 ** (possible + 1) == 0 and size[1] % 2 ** (possible + 1) == 0:
        possible += 1
    depth = possible if settings.depth is None else settings.depth
    least = max(2, depth if settings.depth else 2)
    if possible < least:
        unit = 2**least
        near = [f"{max(unit, round(side / unit) * unit)}" for side in size]
        raise UserError(
            f"a U-Net of depth {least} cannot halve {size[0]} x {size[1]} px: "
            f"use sides divisible by {unit}, the nearest is crop_size: [{', '.join(near)}]"
        )
    return depth


def check_resnet(settings: Generator, size: tuple[int, int]) -> None:
    """Check that a ResNet generator gives images of ``size`` (height, width) back at their size.

    Raises:
        UserError: height or width is not divisible by 4, or too small to be mirrored.
    """
    mirrored = settings.padding == "reflect"
    if size[0] % 4 or size[1] % 4 or (mirrored and min(size) < 8):
        # Blocks see a quarter of the size, and mirroring one pixel takes two.
        near = [str(max(8 if mirrored else 4, round(side / 4) * 4)) for side in size]
        raise UserError(
            f"a ResNet generator halves twice, so {size[0]} x {size[1]} px does not come back to its size: "
            f"use sides divisible by 4, the nearest is crop_size: [{', '.join(near)}]"
        )


def convolutions(settings: Discriminator) -> list[tuple[int, int]]:
    """Return (kernel, stride) of a discriminator's convolutions, first to last."""
    if settings.kind == "pixel":
        return [(1, 1)] * 3
    if settings.kind == "minibatch":
        return [(4, 2)] * 8
    return [(4, 2)] * settings.layers + [(4, 1)] * (2 if settings.stride_one else 1)


def check_discriminator(settings: Discriminator, size: tuple[int, int]) -> None:
    """Check that something is left of images of ``size`` (height, width) at each convolution.

    Raises:
        UserError: the image is too small for so many layers.
    """
    if settings.kind != "patch" or settings.padding == "same":
        return  # these never shrink an image to less than a kernel
    side = min(size)
    for kernel, stride in convolutions(settings):
        if side + 2 < kernel:
            raise UserError(
                f"a discriminator of {settings.layers} layers is too deep for {size[0]} x {size[1]} px: "
                f"lower discriminator.layers or raise crop_size"
            )
        side = (side + 2 - kernel) // stride + 1
