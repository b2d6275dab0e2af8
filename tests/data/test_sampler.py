"""A batch is a pure function of (seed, step): order, crop, flip and pairing hold for every step."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from repix.data.sampler import Sampler
from repix.errors import UserError
from tests.conftest import ROOT

LOAD, CROP = 6, 4


def numbered(n: int, dtype=np.uint8, channels: int = 3, side: int = 0) -> np.ndarray:
    """Return images of which every pixel tells its image, row, column, channel (and side)."""
    image, row, column, channel = np.indices((n, LOAD, LOAD, channels))
    return (((image * 8 + row) * 8 + column) * 4 + channel + side).astype(np.int64).astype(dtype)


def sampler(n: int = 7, m: int | None = None, **options) -> Sampler:
    asked = {"seed": 3, "batch_size": 2, "crop_size": (CROP, CROP), "flip": True, "uniforms": 3}
    source, target = numbered(n, np.uint16), numbered(m or n, np.uint16)
    return Sampler(source, target, **(asked | options))


def place(window: np.ndarray) -> tuple[int, int, int, bool]:
    """Return (image, top, left, flipped) that a window of :func:`numbered` was cut with."""
    value = window[..., 0].astype(int) // 4
    columns, flipped = value[0] % 8, bool(value[0, 0] % 8 > value[0, -1] % 8)
    return int(value[0, 0] // 64), int(value[0, 0] // 8 % 8), int(columns.min()), flipped


def test_any_order_and_any_process_give_the_same_batch():
    forward, backward = sampler(), sampler()
    ahead = [forward.batch(step) for step in range(12)]
    for step in reversed(range(12)):
        for one, other in zip(ahead[step], backward.batch(step), strict=True):
            np.testing.assert_array_equal(one, other)
    digest = hashlib.sha256(b"".join(part.tobytes() for part in ahead[11])).hexdigest()
    code = (
        "import hashlib; from tests.data.test_sampler import sampler; "
        "print(hashlib.sha256(b''.join(part.tobytes() for part in sampler().batch(11))).hexdigest())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": "src", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == digest


def test_the_numbers_are_pinned():
    source, _, uniforms = sampler().batch(5)
    assert [place(window) for window in source] == PINNED
    assert uniforms.dtype == np.float32 and uniforms.shape == (2, 3)
    np.testing.assert_array_equal(uniforms[0], np.float32(PINNED_UNIFORMS))


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_an_epoch_shows_each_example_once(batch_size):
    batches = sampler(7, batch_size=batch_size)
    assert batches.steps_per_epoch == 7 // batch_size
    orders = []
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = [place(window)[0] for step in steps for window in batches.batch(step)[0]]
        assert len(seen) == len(set(seen)) == 7 // batch_size * batch_size
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]


def test_both_of_a_pair_are_cut_and_flipped_alike():
    batches = sampler(batch_size=1)
    cuts = set()
    for step in range(200):
        source, target, _ = batches.batch(step)
        np.testing.assert_array_equal(source, target)
        cuts.add(place(source[0])[1:])
    assert cuts == {(top, left, flip) for top in range(3) for left in range(3) for flip in (False, True)}


def test_a_window_is_cut_and_mirrored_exactly():
    batches = sampler(batch_size=1)
    for step in range(30):
        window = batches.batch(step)[0][0]
        image, top, left, flipped = place(window)
        expected = batches.source[image, top : top + CROP, left : left + CROP]
        np.testing.assert_array_equal(window, expected[:, ::-1] if flipped else expected)


def test_without_flip_nothing_is_mirrored():
    batches = sampler(batch_size=1, flip=False)
    assert not any(place(batches.batch(step)[0][0])[3] for step in range(50))


def test_unpaired_sides_are_independent():
    batches = sampler(50, 50, paired=False, batch_size=1)
    places = [tuple(place(side[0]) for side in batches.batch(step)[:2]) for step in range(50)]
    same = [source[0] == target[0] for source, target in places]
    alike = [source[1:] == target[1:] for source, target in places]
    assert sum(same) < 10 and sum(alike) < 15
    for side in (0, 1):
        assert sorted(pair[side][0] for pair in places) == list(range(50))


def test_the_smaller_side_goes_round_with_new_order_and_crops():
    batches = sampler(20, 4, paired=False, batch_size=1)
    assert batches.steps_per_epoch == 20
    turns = [[place(batches.batch(4 * turn + i)[1][0]) for i in range(4)] for turn in range(5)]
    for turn in turns:
        assert sorted(one[0] for one in turn) == [0, 1, 2, 3]
    assert len({tuple(sorted(turn)) for turn in turns}) == 5
    assert len({tuple(one[0] for one in turn) for turn in turns}) > 1


def test_a_set_smaller_than_a_batch_goes_round():
    batches = sampler(3, batch_size=8)
    assert batches.steps_per_epoch == 1
    source, _, uniforms = batches.batch(4)
    assert source.shape == (8, CROP, CROP, 3) and uniforms.shape == (8, 3)
    assert [sorted(place(w)[0] for w in source[i : i + 3]) for i in (0, 3)] == [[0, 1, 2], [0, 1, 2]]


def test_replacement_draws_each_example_anew():
    batches = sampler(40, batch_size=1, replacement=True)
    seen = [place(batches.batch(step)[0][0])[0] for step in range(40)]
    assert len(set(seen)) < 36 and set(seen) <= set(range(40))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_stored_integers_pass_through(dtype):
    high = np.iinfo(dtype).max
    images = np.full((2, LOAD, LOAD, 2), high, dtype)
    source, target, _ = Sampler(images, images[..., :1], seed=0, batch_size=1, crop_size=(4, 5), flip=True).batch(0)
    assert source.dtype == target.dtype == dtype and (source == high).all()
    assert source.shape == (1, 4, 5, 2) and target.shape == (1, 4, 5, 1)


def test_other_seeds_and_steps_are_other_batches():
    one, other = sampler(seed=1), sampler(seed=2)
    assert any((one.batch(step)[0] != other.batch(step)[0]).any() for step in range(3))
    assert (one.batch(0)[2] != one.batch(1)[2]).any() and (one.batch(0)[2] != other.batch(0)[2]).any()
    assert one.batch(0)[2].min() >= 0 and one.batch(0)[2].max() < 1


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(UserError, match="cannot crop 8x4 from images of 6x6"):
        sampler(crop_size=(8, 4))


PINNED = [(1, 0, 2, False), (2, 0, 1, True)]
PINNED_UNIFORMS = [0.20930743217468262, 0.48822325468063354, 0.5423697829246521]


@pytest.mark.parametrize("paired", [True, False])
def test_windows_are_what_batches_are_cut_from(paired):
    asked = sampler(7, 7 if paired else 5, paired=paired)
    mirrored = 0
    for step in range(8):
        *sides, uniforms = asked.batch(step)
        *windows, same = asked.windows(step)
        np.testing.assert_array_equal(uniforms, same)
        for images, rows in zip(sides, windows, strict=True):
            assert rows.shape == (2, 4) and rows.dtype == np.int32
            assert [place(image) for image in images] == [(*map(int, row[:3]), bool(row[3])) for row in rows]
            mirrored += int(rows[:, 3].sum())
    assert 0 < mirrored < 32
