"""The halves of the real images, and the trivial predictors."""

from __future__ import annotations

import numpy as np
import pytest

from repix.evaluation import baselines
from repix.evaluation.baselines import (
    constant_colour_per_label,
    identity,
    median_image,
    nearest_neighbour,
)
from repix.evaluation.floor import halves, self_distance
from repix.schemas import Side

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 170), (0, 255, 85)


def side(channels, dtype="uint8", low=0, high=255):
    return Side(
        channels=channels,
        dtype=dtype,
        low=(low,) * channels,
        high=(high,) * channels,
        meaning=("x",) * channels,
        colour="raw",
    )


def test_halves_follow_the_names_and_not_their_order():
    names = [f"image_{i}.png" for i in range(11)]
    first, second = halves(names)
    assert len(first) == len(second) == 5 and not set(first.tolist()) & set(second.tolist())
    turned = halves(names[::-1])
    assert {names[i] for i in first} == {names[::-1][i] for i in turned[0]}


def test_self_distance_compares_the_halves():
    names = ["a", "b", "c", "d"]
    first, second = halves(names)
    rows = np.arange(4.0)[:, None]
    expected = abs(rows[first].mean() - rows[second].mean())
    assert self_distance(lambda a, b: abs(a.mean() - b.mean()), rows, names) == expected
    with pytest.raises(ValueError, match="names"):
        self_distance(lambda a, b: 0.0, rows, names[:3])


def test_constant_colour_per_label_is_the_mean_of_the_label():
    source = np.array([[[RED, BLUE], [RED, BLUE]], [[BLUE, BLUE], [RED, BLUE]]], np.uint8)
    target = np.array([[[[10], [100]], [[20], [110]]], [[[120], [130]], [[30], [140]]]], np.uint8)
    noisy = np.array([[[(250, 9, 3), (6, 2, 160)], [BLUE, GREEN]]], np.uint8)
    found = constant_colour_per_label(source, target, noisy)
    assert found.dtype == np.uint8
    assert found[0, :, :, 0].tolist() == [[20, 120], [120, 82]]  # green was never seen: the mean of all, 82.5


def test_median_image_is_the_median_in_strips_of_any_size(monkeypatch):
    train = np.random.default_rng(0).integers(0, 256, (7, 9, 5, 2)).astype(np.uint8)
    expected = np.median(train, axis=0).astype(np.uint8)
    monkeypatch.setattr(baselines, "_ROWS_OF_VALUES_AT_ONCE", 150)
    found = median_image(train, 3)
    assert found.shape == (3, 9, 5, 2) and found.dtype == np.uint8
    assert (found == expected).all()


def test_nearest_neighbour_takes_the_target_of_the_closest_labels(monkeypatch):
    rng = np.random.default_rng(1)
    palette = np.array([RED, BLUE, GREEN], np.uint8)
    source = palette[rng.integers(0, 3, (6, 8, 8))]
    target = rng.integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    test = source[[4, 2]].copy()
    test[:, 0, 0] = RED  # a few labels may differ
    expected = target[[4, 2]]
    assert (nearest_neighbour(source, target, test) == expected).all()
    monkeypatch.setattr(baselines, "_COMPARISONS_AT_ONCE", 130)
    assert (nearest_neighbour(source, target, test) == expected).all()


@pytest.mark.parametrize("at_once", [1 << 24, 16])
def test_nearest_neighbour_of_equals_is_the_first(monkeypatch, at_once):
    monkeypatch.setattr(baselines, "_COMPARISONS_AT_ONCE", at_once)
    source = np.zeros((3, 4, 4, 1), np.uint8)
    target = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    assert (nearest_neighbour(source, target, source[:1]) == 0).all()


def test_identity_maps_the_value_range_and_repeats_grey():
    images = np.array([[[[0]], [[255]], [[51]]]], np.uint8)
    found = identity(images, side(1), side(2, "int16", -100, 100))
    assert found.dtype == np.int16 and found[0, :, 0].tolist() == [[-100, -100], [100, 100], [-60, -60]]
    assert identity(np.zeros((1, 2, 2, 3), np.uint8), side(3), side(2)) is None
