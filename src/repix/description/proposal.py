"""Which sizes and which recipes fit images, by arithmetic alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from repix.config import halving, sizes
from repix.config.models import Recipe
from repix.errors import UserError
from repix.registry import SYSTEMS

Size = tuple[int, int]

USUAL = 256  # pixels of the papers' images
WIDEST = 1.3  # the most elongated image by the least, from which a square is taken for all
# For pairs and for others: the papers' recipe, and the one for small images or a first look.
RECIPES = {True: ("pix2pix", "pix2pix_small"), False: ("cyclegan", "cyclegan_book")}
FROM = 128  # pixels of the shorter side from which the papers' recipe is proposed first


def _middle(values: Counter[float]) -> float:
    ordered = sorted(values.elements())
    return ordered[len(ordered) // 2]


def crop_size(found: Counter[Size]) -> Size:
    """Return the size (height, width) at which networks should see images of these sizes.

    Both sides are halved as often as they can, so that a U-Net reaches the whole image; the shorter side is at most
    256 px, and the shape is about that of the images, or a square where they have many.
    """
    heights, widths, shorter, shapes = Counter(), Counter(), Counter(), Counter()
    for (height, width), n in found.items():
        heights[height] += n
        widths[width] += n
        shorter[min(height, width)] += n
        shapes[height / width] += n
    size = (_middle(heights), _middle(widths))
    ordered = sorted(shapes.elements())
    if ordered[len(ordered) * 9 // 10] > WIDEST * ordered[len(ordered) // 10]:
        size = (_middle(shorter),) * 2
    scale = min(1.0, USUAL / min(size))
    size = (size[0] * scale, size[1] * scale)
    return halving.nearest(size)


def padded_size(found: Counter[Size]) -> Size:
    """Return the size (height, width) that images of these sizes fit into when their borders are mirrored."""
    return halving.enclosing((max(size[0] for size in found), max(size[1] for size in found)))


def written(size: Size) -> int | list[int]:
    """Return a size as params.yaml has it: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def candidates(recipes: Mapping[str, Recipe], crop: Size, paired: bool) -> list[str]:
    """Return the names of recipes that can learn from such images, the one to take first at the front.

    Raises:
        UserError: none can; why the last could not.
    """
    usual = RECIPES[paired] if min(crop) >= FROM or not paired else tuple(reversed(RECIPES[paired]))
    others = [name for name, recipe in recipes.items() if paired or not SYSTEMS[recipe.system].needs_pairs]
    able, problem = [], "params.yaml has no recipe for unpaired images"
    for name in dict.fromkeys([*(name for name in usual if name in recipes), *others]):
        try:
            sizes.check(recipes[name], crop)
            able.append(name)
        except UserError as error:
            problem = str(error)
    if not able:
        raise UserError(f"no recipe of params.yaml fits: {problem}")
    return able[:2]
