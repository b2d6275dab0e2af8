"""Several arrays read as one: every index that images are asked for by gives what one array gives."""

from __future__ import annotations

import numpy as np
import pytest

from repix.data.rows import Rows
from repix.data.sampler import Sampler

WHOLE = np.random.default_rng(0).integers(0, 256, (11, 6, 8, 3), dtype=np.uint8)
PARTS = [WHOLE[:4], WHOLE[4:5], WHOLE[5:9], WHOLE[9:]]


@pytest.fixture
def rows():
    return Rows(PARTS)


@pytest.mark.parametrize(
    "index",
    [
        0,
        10,
        -1,
        -11,
        np.int64(4),
        slice(None),
        slice(3, 6),
        slice(None, -9),
        slice(20, 30),
        slice(None, None, 3),
        slice(8, 2, -2),
        [9, 0, 4],
        np.array([5, 5, -2]),
        np.array([], np.int64),
        (4, slice(1, 3), slice(2, 6)),
        (slice(None), slice(1, 3), slice(2, 6)),
        (slice(2, 7), slice(1, 3)),
        (slice(None), slice(None), slice(None, None, -1), 1),
        ([1, 10], slice(1, 3)),
        (7, ..., 0),
    ],
    ids=str,
)
def test_an_index_gives_what_one_array_gives(rows, index):
    found = rows[index]
    assert (found.shape, found.dtype) == (WHOLE[index].shape, WHOLE.dtype)
    np.testing.assert_array_equal(np.asarray(found), WHOLE[index])


def test_it_looks_like_an_array(rows):
    assert (len(rows), rows.shape, rows.dtype, rows.ndim, rows.nbytes) == (11, WHOLE.shape, np.uint8, 4, WHOLE.nbytes)
    np.testing.assert_array_equal(np.stack(list(rows)), WHOLE)
    np.testing.assert_array_equal(np.asarray(rows, np.int16), WHOLE.astype(np.int16))


@pytest.mark.parametrize("row", [11, -12])
def test_a_row_that_is_not_there_is_an_index_error(rows, row):
    with pytest.raises(IndexError, match=f"row {row} of 11"):
        rows[row]


def test_only_the_rows_that_are_asked_for_are_read():
    class Counted(np.ndarray):
        read = 0

        def __getitem__(self, index):
            Counted.read += 1
            return super().__getitem__(index)

    rows = Rows([part.view(Counted) for part in PARTS])
    rows[6, 1:3]
    assert Counted.read == 2  # the row, and what was asked for of it
    cut = rows[:, 1:3]
    assert isinstance(cut, Rows) and all(np.shares_memory(a, b) for a, b in zip(cut.parts, PARTS, strict=True))


def test_batches_are_those_of_one_array(rows):
    settings = {"seed": 3, "batch_size": 2, "crop_size": (4, 4), "flip": True, "uniforms": 2}
    one, other = Sampler(WHOLE, WHOLE, **settings), Sampler(rows, rows, **settings)
    for step in range(12):
        for expected, found in zip(one.batch(step), other.batch(step), strict=True):
            np.testing.assert_array_equal(found, expected)
