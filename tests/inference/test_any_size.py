"""Other sizes than the trained one: the same weights, padded whole or in blended tiles."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from checks.support.cells import images

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing


class Values:
    """A side of three 8-bit channels."""

    low, high, dtype = (0, 0, 0), (255, 255, 255), "uint8"


def generator(kind: str, size=(16, 16), **settings):
    from repix.config.models import Generator
    from repix.inference.backend import backend_module
    from repix.models.generators import build_generator
    from repix.models.initialization import initialize

    backend_module()
    network = build_generator(
        Generator(kind=kind, filters=4, **({"blocks": 1} if kind == "resnet" else {}), **settings), size, 3, 3
    )
    initialize({"generator": network}, "glorot", 0)
    return network


def any_size(network, **options):
    from repix.inference.any_size import AnySize
    from repix.inference.backend import backend_module

    return AnySize(network, Values, Values, backend_module().compile_function, **options)


@pytest.mark.parametrize(("kind", "unit"), [("unet", 16), ("resnet", 4)])
def test_an_allowed_size_is_the_network_built_at_that_size(kind, unit, portable_sums):
    from repix.inference.any_size import at_size, size_unit
    from repix.inference.backend import backend_module
    from repix.inference.translator import Translator

    network = generator(kind)
    assert size_unit(network) == unit
    same = at_size(network, (32, 48))
    assert same.weights[0] is network.weights[0]
    image = images(1, 1, (32, 48))[0]
    built = generator(kind, (32, 48), **({"depth": 4} if kind == "unet" else {}))
    expected = Translator(built, Values, Values, backend_module().compile_function).translate(image[None])[0]
    assert np.array_equal(any_size(network)(image), expected)


@pytest.mark.parametrize(
    ("kind", "size"), [("unet", (20, 37)), ("resnet", (5, 7)), ("resnet", (1, 1)), ("unet", (3, 40))]
)
def test_any_size_comes_back_at_its_own(kind, size):
    from repix.data.resizing import pad_to

    anything, image = any_size(generator(kind)), images(2, 1, size)[0]
    output = anything(image)
    assert output.shape == image.shape and output.dtype == np.uint8
    # What fits into the trained size is mirrored to it, as `resize: pad` does.
    fits = max(size) <= 16
    padded, (top, left) = pad_to(image, (16, 16) if fits else anything.padded(size))
    assert all(side % anything.unit == 0 for side in padded.shape[:2])
    cropped = anything(padded, "trained" if fits else "whole")[top : top + size[0], left : left + size[1]]
    assert np.array_equal(output, cropped)


def test_the_trained_size_is_the_function_that_was_scored():
    from repix.inference.backend import backend_module
    from repix.inference.translator import Translator

    network, image = generator("unet"), images(3, 1)[0]
    expected = Translator(network, Values, Values, backend_module().compile_function).translate(image[None])[0]
    anything = any_size(network)
    for how in (None, "whole", "tile"):
        assert np.array_equal(anything(image, how), expected)
    assert anything.choose((16, 16)) == "trained"


def test_large_images_are_tiled_unless_asked_otherwise():
    from repix.inference.sizes import WHOLE_PIXELS

    anything = any_size(generator("unet"))
    assert anything.choose((16, WHOLE_PIXELS // 16)) == "whole"
    assert anything.choose((32, WHOLE_PIXELS // 16)) == "tile"


@pytest.mark.parametrize("length", [16, 17, 23, 28, 29, 100])
def test_tiles_cover_everything_and_overlap(length):
    from repix.inference.sizes import tile_starts

    starts = tile_starts(length, 16, 4)
    assert starts[0] == 0 and starts[-1] + 16 == length
    assert all(0 < b - a <= 12 for a, b in pairwise(starts))


class Doubler:
    """In place of a network: what blending does with a function that knows of each pixel alone."""

    input_shape, layers = (None, 16, 16, 3), ()


def test_blending_equal_tiles_changes_nothing(monkeypatch):
    anything = any_size(Doubler)
    seen = []

    def translate(tile, index):
        seen.append((tile.shape, index))
        return (tile // 2).astype(np.uint8)

    monkeypatch.setattr(anything, "_translate", translate)
    image = images(4, 1, (40, 10))[0]
    assert np.array_equal(anything(image, "tile", 7), image // 2)
    assert {shape for shape, _ in seen} == {(16, 16, 3)}
    assert [index for _, index in seen] == list(range(7, 7 + len(seen)))


@pytest.mark.parametrize("size", [(61, 45), (17, 16), (12, 40), (100, 29)])
def test_the_blend_is_that_of_sums_over_the_whole_image(monkeypatch, size):
    """To the bit, though sums are kept for one row of tiles."""
    from repix.data.resizing import pad_to
    from repix.inference.sizes import tile_starts, tile_weight

    anything, image = any_size(Doubler), images(6, 1, size)[0]
    drawn = images(7, 200, (16, 16))
    monkeypatch.setattr(anything, "_translate", lambda tile, index: drawn[index])
    padded, (top, left) = pad_to(image, (16, 16))
    total, weights = np.zeros(padded.shape), np.zeros((*padded.shape[:2], 1))
    places = [(y, x) for y in tile_starts(padded.shape[0], 16, 4) for x in tile_starts(padded.shape[1], 16, 4)]
    for (y, x), tile in zip(places, drawn, strict=False):
        total[y : y + 16, x : x + 16] += tile_weight((16, 16), 4) * tile
        weights[y : y + 16, x : x + 16] += tile_weight((16, 16), 4)
    expected = np.rint(total / weights).astype(np.uint8)[top : top + size[0], left : left + size[1]]
    assert np.array_equal(anything(image, "tile"), expected)


def test_a_large_image_takes_little_more_memory_than_its_pixels(monkeypatch):
    anything, tile = any_size(Doubler), np.zeros((16, 16, 3), np.uint8)
    monkeypatch.setattr(anything, "_translate", lambda given, index: tile)
    image = np.zeros((6000, 40, 3), np.uint8)
    tracemalloc.start()
    anything(image, "tile")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * image.nbytes  # sums of all pixels were 11 times that


def test_blending_ramps_between_tiles_that_differ(monkeypatch):
    anything = any_size(Doubler)
    monkeypatch.setattr(anything, "_translate", lambda tile, index: np.full((16, 16, 3), 100 * index, np.uint8))
    row = anything(np.zeros((16, 28, 3), np.uint8), "tile")[8, :, 0].astype(int)
    assert set(row[:12]) == {0} and set(row[16:]) == {100}
    assert (np.diff(row[11:17]) > 0).all() and np.diff(row).max() <= 30


def test_dropout_masks_follow_the_index():
    anything, image = any_size(generator("unet", dropout=0.5), paper=True), images(5, 1, (32, 32))[0]
    first = anything(image, index=1)
    assert not np.array_equal(first, anything(image, index=2))
    assert np.array_equal(first, anything(image, index=1))


def test_few_compiled_sizes_are_kept():
    from repix.inference.any_size import KEPT

    anything = any_size(generator("resnet"))
    for width in range(KEPT + 2):
        anything(images(6, 1, (8, 8 + 4 * width))[0])
    assert len(anything._translators) == KEPT
