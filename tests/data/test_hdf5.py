"""The book's HDF5 tree: written, it is read as the same arrays; the same arrays are the same bytes."""

import os
import struct
import time
import zlib

import h5py
import numpy as np
import pytest

from checks.support.book import ROWS_AT_ONCE, write_book_tree
from repix.config.images import Images
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
    arrays = sets(n=ROWS_AT_ONCE + 3)
    write_book_tree(tmp_path, arrays)
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
        write_book_tree(tmp_path / name, sets())
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
    ask = {"direction": direction, "colour": "gray", "channels": (1, 1)}
    ask |= {"load_size": 16, "crop_size": 16}
    prepare(tmp_path / "tree", Images(layout="aligned", **ask), tmp_path / "first", name="facades")
    first = Prepared.open(tmp_path / "first")
    splits = {name: first.split(name) for name in first.manifest.splits}
    forwards = direction == "AtoB"
    pairs = {name: (s.source, s.target) if forwards else (s.target, s.source) for name, s in splits.items()}
    write_book_tree(tmp_path / "book", pairs)
    photo = images.read(tmp_path / "tree" / "train" / "2.png", channels=1)[:, :16]
    np.testing.assert_array_equal(hdf5.read_row(tmp_path / "book/training/images/data.h5", 2), photo)

    prepare(tmp_path / "book", Images(layout="hdf5", **ask), tmp_path / "second", name="facades_bw")
    second = Prepared.open(tmp_path / "second")
    for split in ("train", "test"):
        for side in ("source", "target"):
            before, after = (getattr(p.manifest.splits[split], side) for p in (first, second))
            assert before.shards == after.shards


def test_unpaired_and_lab_sets_are_refused(tmp_path):
    with pytest.raises(UserError, match="train: photos are int16"):
        write_book_tree(tmp_path, {"train": (noise(1, 4, 4, 1).astype(np.int16), noise(1, 4, 4, 2))})
    with pytest.raises(UserError, match="2 photos and 1 labels"):
        write_book_tree(tmp_path, {"train": (noise(2, 4, 4, 1), noise(1, 4, 4, 1))})
    with pytest.raises(UserError, match=r"photos are uint8 \(4, 4, 1\); expected"):
        write_book_tree(tmp_path, {"train": (noise(4, 4, 1), noise(4, 4, 1))})
    with pytest.raises(UserError, match="'training' is no split"):
        write_book_tree(tmp_path, {"training": (noise(1, 4, 4, 1), noise(1, 4, 4, 1))})
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


# --- what is hostile


def made(path, **options):
    """Write a dataset ``data`` of four 8x8 images by h5py's options; return the file's path."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=noise(4, 8, 8, 1), **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 8, 8, 1)},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"maxshape": (None, 8, 8, 1)},
    ],
)
def test_ways_to_store_that_are_read(tmp_path, options):
    path = made(tmp_path / "x.h5", **options)
    assert hdf5.shape(path) == (4, 8, 8, 1)
    for row in range(4):
        np.testing.assert_array_equal(hdf5.read_row(path, row), noise(4, 8, 8, 1)[row])


def test_more_files_than_stay_open(tmp_path):
    for turn in range(2):
        for n in range(12):
            path = tmp_path / f"{n}.h5"
            if not turn:
                with h5py.File(path, "w") as file:
                    file["data"] = noise(2, 8, 8, 1, seed=n)
            np.testing.assert_array_equal(hdf5.read_row(path, 1), noise(2, 8, 8, 1, seed=n)[1])
    made(tmp_path / "0.h5")
    assert hdf5.shape(tmp_path / "0.h5")[0] == 4  # the file that is there now


def external_storage(file, secret):
    shape = (4, 8, 8, 1)
    file.create_dataset("data", shape, np.uint8, external=[(str(secret), 0, 256)])


def external_link(file, secret):
    made(secret)
    file["data"] = h5py.ExternalLink(str(secret), "data")


def soft_link(file, secret):
    file["other"] = noise(4, 8, 8, 1)
    file["data"] = h5py.SoftLink("/other")


def dangling_link(file, secret):
    file["data"] = h5py.SoftLink("/nowhere")


def virtual(file, secret):
    made(secret)
    layout = h5py.VirtualLayout((4, 8, 8, 1), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "data", (4, 8, 8, 1))
    file.create_virtual_dataset("data", layout)


def group(file, secret):
    file.create_group("data")


def other_filter(file, secret):
    file.create_dataset("data", data=noise(4, 8, 8, 1), scaleoffset=0)


def many_rows(file, secret):
    file.create_dataset("data", (10**9, 8, 8, 1), np.uint8, chunks=(1, 8, 8, 1))


def many_pixels(file, secret):
    file.create_dataset("data", (2, 10**6, 10**6, 1), np.uint8, chunks=(1, 64, 64, 1), compression="gzip")


def many_small_rows(file, secret):
    file.create_dataset("data", data=np.zeros((1_000_001, 1, 1, 1), np.uint8))


def one_large_chunk(file, secret):
    file.create_dataset("data", (300, 1024, 1024, 1), np.uint8, chunks=(300, 1024, 1024, 1), compression="gzip")


def never_written(file, secret):
    file.create_dataset("data", (1000, 64, 64, 1), np.uint8)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (external_storage, "external storage"),
        (external_link, "link to elsewhere"),
        (soft_link, "link to elsewhere"),
        (dangling_link, "link to elsewhere"),
        (virtual, "is virtual"),
        (group, "is no dataset"),
        (other_filter, "filter 6; use gzip"),
        (many_rows, "1000000000 images; at most 1000000"),
        (many_pixels, "claims 2000000000000 bytes"),
        (many_small_rows, "1000001 images"),
        (never_written, "holds 0"),
        (one_large_chunk, "chunks of 314572800 bytes"),
    ],
)
def test_files_that_reach_outside_or_claim_too_much(tmp_path, write, message):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file, secret)
    with pytest.raises(UserError, match=message) as caught:
        hdf5.shape(tmp_path / "x.h5")
    assert "\n" not in str(caught.value) and "x.h5" in str(caught.value)


@pytest.mark.parametrize("harm", ["os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(3)", "time.sleep(60)"])
def test_a_crash_of_the_library_is_one_line_and_the_next_file_is_read(tmp_path, monkeypatch, harm):
    good = made(tmp_path / "good.h5")
    reader = tmp_path / "reader.py"
    reader.write_text(f"import os, signal, sys, time\nsys.stdin.readline()\n{harm}\n")
    monkeypatch.setattr(hdf5, "_reader", hdf5._Reader())
    with monkeypatch.context() as patch:
        patch.setattr(hdf5.hdf5_reader, "__file__", str(reader))
        patch.setattr(hdf5, "PATIENCE_SECONDS", 2.0)
        with pytest.raises(
            UserError, match=r"good\.h5: cannot be read as HDF5 \(it (makes the|takes longer)"
        ) as caught:
            hdf5.shape(good)
        assert ("SIGSEGV" in str(caught.value)) == ("SIGSEGV" in harm)
    assert hdf5.shape(good) == (4, 8, 8, 1)


def test_the_rows_of_one_large_chunk_are_unpacked_once(tmp_path):
    photos = np.random.default_rng(0).integers(0, 9, (600, 128, 128, 3), np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=photos, chunks=photos.shape, compression="gzip", compression_opts=1)
    assert hdf5.shape(tmp_path / "x.h5") == photos.shape
    began = time.monotonic()
    for row in range(100):
        assert (hdf5.read_row(tmp_path / "x.h5", row) == photos[row]).all()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_a_filter_with_a_chunk_of_no_size(tmp_path, compression, place):
    data = bytearray(made(tmp_path / "x.h5", chunks=(2, 8, 8, 1), compression=compression).read_bytes())
    start = data.index(struct.pack("<5I", 2, 8, 8, 1, 1))
    struct.pack_into("<I", data, start + 4 * place, 0)
    (tmp_path / "x.h5").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be read as HDF5|chunks of 0 bytes"):
        hdf5.shape(tmp_path / "x.h5")


def test_a_bomb_within_a_chunk_is_refused_before_it_is_unpacked(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("data", (1, 512, 512, 4), np.uint8, chunks=(1, 512, 512, 4), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(1 << 30), 1))
    assert hdf5.shape(tmp_path / "x.h5") == (1, 512, 512, 4)
    with pytest.raises(OSError, match=r"\d+ bytes of a chunk that holds 1048576"):
        hdf5.read_row(tmp_path / "x.h5", 0)
    assert hdf5.shape(made(tmp_path / "good.h5")) == (4, 8, 8, 1)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"chunks": (1, 8, 8, 1)}])
def test_damaged_files_give_one_line(tmp_path, options):
    """Whatever becomes of the bytes: one line, or images of the shape that the file claims."""
    original = made(tmp_path / "x.h5", **options).read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for number in range(150):
        damaged = bytearray(original)
        for place in generator.integers(0, min(len(damaged), 4096), 1 + number % 4):
            damaged[place] = generator.integers(256)
        (tmp_path / "x.h5").write_bytes(damaged)
        try:
            n, *size = hdf5.shape(tmp_path / "x.h5")
            for row in range(min(n, 4)):
                assert list(hdf5.read_row(tmp_path / "x.h5", row).shape) == size
        except (UserError, OSError) as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 5


def chunked(path, raw, skipped=0, **options):
    """Write four images of a chunk each, the third of which is stored as these bytes; None: it is not written."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (4, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3), **options)
        for row in (0, 1, 3):
            data[row] = noise(8, 8, 3, seed=row)
        if raw is not None:
            data.id.write_direct_chunk((2, 0, 0, 0), raw, skipped)
    return path


@pytest.mark.parametrize(
    ("raw", "skipped", "options", "why"),
    [
        (None, 0, {}, "it was never written"),
        (None, 0, {"compression": "gzip"}, "it was never written"),
        (zlib.compress(b"\1" * 100), 0, {"compression": "gzip"}, "a chunk of 192 bytes unpacks to 100"),
        (zlib.compress(b"\1" * 5000), 0, {"compression": "gzip"}, "a chunk of 192 bytes unpacks to 197 or more"),
        (b"\1" * 100, 1, {"compression": "gzip"}, "a chunk of 192 bytes unpacks to 100"),
        (b"\1" * 100, 0, {"fletcher32": True}, "a chunk of 192 bytes unpacks to 96"),
        (b"\5abcdef", 0, {"compression": "lzf"}, "a chunk of 192 bytes unpacks to 6"),
    ],
)
def test_an_image_without_all_its_bytes_is_damaged_and_never_what_lay_in_memory(tmp_path, raw, skipped, options, why):
    path = chunked(tmp_path / "a.h5", raw, skipped, **options)
    assert hdf5.shape(path) == (4, 8, 8, 3)
    for row in (0, 1, 3):
        np.testing.assert_array_equal(hdf5.read_row(path, row), noise(8, 8, 3, seed=row))
    with pytest.raises(OSError) as caught:
        hdf5.read_row(path, 2)
    assert str(caught.value) == why


def test_a_data_set_that_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (4, 8, 8, 3), np.uint8, fillvalue=7)
    with pytest.raises(UserError, match="'data' was made, and no image written into it; write the file anew"):
        hdf5.shape(tmp_path / "a.h5")


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"a\.h5: is no plain file"):
        hdf5.shape(tmp_path / "a.h5")


def test_chunks_are_looked_up_once_for_a_file(tmp_path, monkeypatch):
    """libhdf5 goes through those before one to tell of it, so that a file of many cost the square of their number."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=np.zeros((4000, 2, 2, 1), np.uint8), chunks=(1, 2, 2, 1), compression="gzip")
    with h5py.File(tmp_path / "x.h5", "r") as file:
        data = file["data"]
        stored = hdf5.hdf5_reader.stored_chunks(data)
        size = data.id.get_chunk_info_by_coord((0, 0, 0, 0)).size
        assert len(stored) == 4000 and set(stored) == {size}
        for row in (0, 3999):
            hdf5.hdf5_reader.check_chunks(data, row, stored)
        assert set(stored) == {size, hdf5.hdf5_reader.SOUND}
        stored[5] = hdf5.hdf5_reader.ABSENT
        with pytest.raises(OSError, match="never written"):
            hdf5.hdf5_reader.check_chunks(data, 5, stored)
    asked, looked_up, opened = [], hdf5.hdf5_reader.stored_chunks, {}
    monkeypatch.setattr(hdf5.hdf5_reader, "stored_chunks", lambda data: asked.append(data) or looked_up(data))
    for row in (None, 0, 1, 3999):
        about, content = hdf5.hdf5_reader.answer(opened, str(tmp_path / "x.h5"), row)
        assert "damaged" not in about and len(content) == (0 if row is None else 4)
    assert len(asked) == 1


def test_more_chunks_than_a_table_of_them_should_hold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5.hdf5_reader, "MOST_CHUNKS", 39)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=np.zeros((10, 2, 2, 1), np.uint8), chunks=(1, 1, 1, 1), compression="gzip")
    about, _ = hdf5.hdf5_reader.answer({}, str(tmp_path / "x.h5"), None)
    assert about == {"refused": "'data' has 40 chunks, at most 39; make one image a chunk"}


def test_the_numbers_of_chunks_are_those_of_their_places(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("data", (5, 7, 3, 2), np.uint8, chunks=(2, 3, 2, 2), compression="gzip")
        data[2:4, 3:6, 2:3] = 1  # one chunk
        file.flush()
        stored = hdf5.hdf5_reader.stored_chunks(data)
        [number] = [at for at, size in enumerate(stored) if size != hdf5.hdf5_reader.ABSENT]
        assert number == ((1 * 3 + 1) * 2 + 1) * 1 + 0
