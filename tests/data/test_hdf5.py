"""The book's HDF5 tree: written, it is read as the same arrays; the same arrays are the same bytes."""

import h5py
import numpy as np
import pytest

from repix.config.datasets import Dataset
from repix.data import hdf5, images
from repix.data.prepared import Prepared
from repix.data.preprocess import prepare
from repix.errors import UserError


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def sets(n=3):
    return {
        "train": (noise(n, 8, 6, 1), noise(n, 8, 6, 1, seed=1)),
        "val": (noise(1, 8, 6, 1, seed=2), noise(1, 8, 6, 1, seed=3)),
        "test": (noise(2, 8, 6, 1, seed=4), noise(2, 8, 6, 1, seed=5)),
    }


def test_tree_names_and_values(tmp_path):
    arrays = sets(n=hdf5.ROWS_AT_ONCE + 3)
    hdf5.write_book_tree(tmp_path, arrays)
    for split, folder in (("train", "training"), ("val", "validation"), ("test", "testing")):
        for i, side in enumerate(("images", "facades")):
            (path,) = (tmp_path / folder / side).glob("*.h5")
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["data"][()], arrays[split][i])
                assert file["data"].dtype == np.uint8
            assert hdf5.shape(path) == arrays[split][i].shape
            np.testing.assert_array_equal(hdf5.read_row(path, 0), arrays[split][i][0])


def test_equal_arrays_are_equal_bytes(tmp_path):
    for name in "ab":
        hdf5.write_book_tree(tmp_path / name, sets())
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.h5"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_prepared_set_becomes_the_tree_and_is_prepared_again(tmp_path, direction):
    """The way from the façades archive to the book's facades_bw and back into the pipeline."""
    for split, n in (("train", 3), ("test", 1)):
        (tmp_path / "tree" / split).mkdir(parents=True)
        for i in range(n):
            images.write(tmp_path / "tree" / split / f"{i}.png", noise(16, 32, 3, seed=i))
    ask = {"urls": ["file:x"], "direction": direction, "colour": "gray", "channels": (1, 1)}
    ask |= {"load_size": 16, "crop_size": 16}
    prepare(tmp_path / "tree", Dataset(layout="aligned", **ask), tmp_path / "first", name="facades")
    first = Prepared.open(tmp_path / "first")
    hdf5.write_prepared(tmp_path / "book", first)
    photo = images.read(tmp_path / "tree" / "train" / "2.png", channels=1)[:, :16]
    np.testing.assert_array_equal(hdf5.read_row(tmp_path / "book/training/images/data.h5", 2), photo)

    prepare(tmp_path / "book", Dataset(layout="hdf5", **ask), tmp_path / "second", name="facades_bw")
    second = Prepared.open(tmp_path / "second")
    for split in ("train", "test"):
        for side in ("source", "target"):
            before, after = (getattr(p.manifest.splits[split], side) for p in (first, second))
            assert before.sha256 == after.sha256


def test_unpaired_and_lab_sets_are_refused(tmp_path):
    with pytest.raises(UserError, match="train: photos are int16"):
        hdf5.write_book_tree(tmp_path, {"train": (noise(1, 4, 4, 1).astype(np.int16), noise(1, 4, 4, 2))})
    with pytest.raises(UserError, match="2 photos and 1 labels"):
        hdf5.write_book_tree(tmp_path, {"train": (noise(2, 4, 4, 1), noise(1, 4, 4, 1))})
    with pytest.raises(UserError, match=r"photos are uint8 \(4, 4, 1\); expected"):
        hdf5.write_book_tree(tmp_path, {"train": (noise(4, 4, 1), noise(4, 4, 1))})
    with pytest.raises(UserError, match="'training' is no split"):
        hdf5.write_book_tree(tmp_path, {"training": (noise(1, 4, 4, 1), noise(1, 4, 4, 1))})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "key, array, message",
    [
        ("images", noise(1, 4, 4, 1), "no dataset 'data'; it has images"),
        ("data", noise(4, 4, 1), r"shape \(4, 4, 1\); expected \(n, height, width, channels\)"),
        ("data", np.zeros((1, 4, 4, 1), np.float32), "float32 numbers"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, key, array, message):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file[key] = array
    with pytest.raises(UserError, match=message) as caught:
        hdf5.shape(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_hdf5(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.h5: cannot be read as HDF5"):
        hdf5.shape(tmp_path / "x.h5")
