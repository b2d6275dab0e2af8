"""Rows of pictures, and translations as files hold them."""

from __future__ import annotations

import numpy as np
import pytest

from checks.support.cells import images
from repix.data.colour import LAB_AB, LAB_L, lab_to_rgb, rgb_to_lab
from repix.evaluation import pictures
from repix.schemas import Side


def side(channels: int, bits: int = 8, colour: str = "raw") -> Side:
    high = (2**bits - 1,) * channels
    meaning = tuple(f"c{i}" for i in range(channels))
    return Side(channels=channels, dtype=f"uint{bits}", low=(0,) * channels, high=high, meaning=meaning, colour=colour)


def test_grid_places_every_picture_with_white_between():
    red, blue = (np.full((4, 6, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    grid = pictures.grid([[red, blue], [blue, red], [red, red]], columns=2)
    gap = pictures.GAP
    row = 6 + gap + 6
    assert grid.shape == (4 + gap + 4, row + 4 * gap + row, 3)
    assert (grid[:4, :6] == red).all() and (grid[:4, 6 + gap : row] == blue).all()
    assert (grid[4 + gap :, :row][:, :6] == red).all()
    assert (grid[4 : 4 + gap] == 255).all() and (grid[:, row : row + 4 * gap] == 255).all()
    assert (grid[4 + gap :, row:] == 255).all()  # nothing beside the third


def test_lab_is_shown_in_its_own_light_both_ways():
    photo = images(0, 1)[0]
    lab = rgb_to_lab(photo)
    light, colours = lab[None, ..., :1], lab[None, ..., 1:]
    forward = pictures.triples(light, colours, colours, LAB_L, LAB_AB)[0]
    back = pictures.triples(colours, light, light, LAB_AB, LAB_L)[0]
    assert np.abs(forward[1].astype(int) - photo).max() <= 1
    assert (forward[0][..., 0] == forward[0][..., 1]).all()
    assert np.array_equal(back[0], forward[2]) and np.array_equal(back[1], forward[0])
    alone = pictures.shown(colours[0], LAB_AB)
    assert alone.shape == photo.shape and alone.std() > 0


def test_stored_keeps_channels_and_bits_and_completes_lab():
    deep = np.arange(16 * 16 * 4, dtype=np.uint16).reshape(16, 16, 4)
    assert pictures.stored(deep, side(4, 16), deep) is deep
    lab = rgb_to_lab(images(1, 1)[0])
    expected = lab_to_rgb(lab)
    assert np.array_equal(pictures.stored(lab[..., 1:], LAB_AB, lab[..., :1]), expected)
    assert np.array_equal(pictures.stored(lab[..., :1], LAB_L, lab[..., 1:]), expected)


@pytest.mark.parametrize(
    ("kind", "suffix"), [(side(1), ".png"), (side(3), ".png"), (side(2), ".tif"), (side(4), ".tif"), (LAB_AB, ".png")]
)
def test_suffix_is_one_that_shows_the_picture_and_loses_nothing(kind, suffix):
    assert pictures.suffix(kind) == suffix
