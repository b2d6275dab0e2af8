"""From image trees to arrays: the pixels, the sizes, the records, and every image that cannot be used."""

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from repix.config.images import Images
from repix.data import colour, images, preprocess
from repix.data.prepared import Prepared
from repix.data.preprocess import prepare
from repix.errors import UserError
from repix.files import digest_file, digest_tree, read_json, write_json
from repix.schemas import Manifest
from tests.conftest import real_data

KINDS = (".jsonl", ".npy")  # of a side of a split


def dataset(layout="aligned", size=8, **more):
    return Images(**({"layout": layout, "load_size": size, "crop_size": size} | more))


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def put(tree, files, *shape, suffix=".png", **more):
    """Write noise images and return name -> array."""
    arrays = {}
    for i, file in enumerate(files):
        path = tree / f"{file}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays[file] = noise(*shape, seed=i, **more)
        images.write(path, arrays[file])
    return arrays


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_aligned_pixels_names_and_records(tree, out, direction):
    arrays = put(tree, ["set/train/1", "set/train/2", "set/train/10", "set/test/3"], 8, 16, 3)
    manifest = prepare(tree, dataset(direction=direction), out, name="facades")
    assert manifest == Manifest.read(out / "manifest.json")
    assert (manifest.dataset, manifest.paired, manifest.direction) == ("facades", True, direction)
    assert (manifest.source.colour, manifest.source.meaning, manifest.source.high) == (
        "rgb",
        ("R", "G", "B"),
        (255,) * 3,
    )
    train = Prepared.open(out).split("train")
    assert train.names == train.target_names == ("1", "2", "10")
    assert train.source.dtype == np.uint8
    left, right = (train.source, train.target)[:: 1 if direction == "AtoB" else -1]
    for row, name in enumerate(train.names):
        np.testing.assert_array_equal(left[row], arrays[f"set/train/{name}"][:, :8])
        np.testing.assert_array_equal(right[row], arrays[f"set/train/{name}"][:, 8:])
    half = manifest.splits["train"].source
    (shard,) = half.shards
    assert (shard.file, shard.n, shard.sha256) == ("train-source.npy", 3, digest_file(out / shard.file))
    assert half.examples_sha256 == digest_file(out / half.examples)
    example = Prepared.open(out).examples("train", "source")[2]
    assert (example.file, example.size) == ("set/train/10.png", (8, 8))
    assert example.sha256 == digest_file(tree / "set/train/10.png")
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json",
        *(f"{split}-{side}{kind}" for split in ("test", "train") for side in ("source", "target") for kind in KINDS),
    ]


def test_train_has_load_size_and_the_rest_crop_size_non_square(tree, out):
    arrays = put(tree, ["train/1", "val/1", "test/1"], 20, 40, 3)
    ask = dataset(load_size=(12, 18), crop_size=(8, 16))
    manifest = prepare(tree, ask, out, name="x")
    assert (manifest.load_size, manifest.crop_size) == ((12, 18), (8, 16))
    prepared = Prepared.open(out)
    for split, size in (("train", (12, 18)), ("val", (8, 16)), ("test", (8, 16))):
        left = Image.fromarray(arrays[f"{split}/1"][:, :20])
        expected = np.asarray(left.resize((size[1], size[0]), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(prepared.split(split).source[0], expected)
        assert manifest.splits[split].target.size == size


def test_unaligned_sides_differ_in_number_and_name(tree, out):
    arrays = put(tree, ["trainA/1", "trainA/2", "trainA/3", "trainB/7", "testA/4", "testB/5", "testB/6"], 8, 8, 3)
    manifest = prepare(tree, dataset("unaligned"), out, name="x")
    assert not manifest.paired
    prepared = Prepared.open(out)
    train, test = prepared.split("train"), prepared.split("test")
    assert (train.names, train.target_names) == (("1", "2", "3"), ("7",))
    assert test.target.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(train.source[2], arrays["trainA/3"])
    np.testing.assert_array_equal(test.target[1], arrays["testB/6"])


def test_folders_with_own_channels_16_bits(tree, out):
    deep = put(tree, ["train/A/1", "test/A/1"], 8, 8, 4, dtype=np.uint16, suffix=".npy")
    flat = put(tree, ["train/B/1", "test/B/1"], 8, 8, dtype=np.uint16)
    manifest = prepare(tree, dataset("folders", colour="raw", channels=(4, 1), bit_depth=16), out, name="x")
    train = Prepared.open(out).split("train")
    np.testing.assert_array_equal(train.source[0], deep["train/A/1"])
    np.testing.assert_array_equal(train.target[0, ..., 0], flat["train/B/1"])
    assert (manifest.source.dtype, manifest.source.high) == ("uint16", (65535,) * 4)
    assert manifest.source.meaning == ("c0", "c1", "c2", "c3") and manifest.target.channels == 1


def test_gray_source_and_rgb_target_of_one_file(tree, out):
    arrays = put(tree, ["train/1", "test/1"], 8, 16, 3)
    manifest = prepare(tree, dataset(channels=(1, 3)), out, name="x")
    assert (manifest.source.colour, manifest.target.colour) == ("gray", "rgb")
    train = Prepared.open(out).split("train")
    np.testing.assert_array_equal(train.source[0], images.to_gray(arrays["train/1"][:, :8]))
    np.testing.assert_array_equal(train.target[0], arrays["train/1"][:, 8:])


def test_lab_of_single_photos(tree, out):
    arrays = put(tree, ["train/1", "train/2", "test/1"], 8, 8, 3)
    manifest = prepare(tree, dataset("single", colour="lab", channels=(1, 2)), out, name="x")
    assert (manifest.source, manifest.target) == (colour.LAB_L, colour.LAB_AB)
    train = Prepared.open(out).split("train")
    assert train.source.shape == (2, 8, 8, 1) and train.target.shape == (2, 8, 8, 2)
    for row, name in enumerate(train.names):
        picture = colour.to_picture(train.target[row], manifest.target, other=train.source[row])
        assert np.abs(picture.astype(int) - arrays[f"train/{name}"]).max() <= 1


def test_hdf5_tree(tree, out):
    for folder, n in (("training", 3), ("testing", 1)):
        for side in ("images", "facades"):
            (tree / folder / side).mkdir(parents=True)
            with h5py.File(tree / folder / side / "data.h5", "w") as file:
                file["data"] = noise(n, 8, 8, 1, seed=len(side))
    prepare(tree, dataset("hdf5", colour="gray", channels=(1, 1), direction="BtoA"), out, name="x")
    train = Prepared.open(out).split("train")
    np.testing.assert_array_equal(train.source, noise(3, 8, 8, 1, seed=len("facades")))
    np.testing.assert_array_equal(train.target, noise(3, 8, 8, 1, seed=len("images")))
    example = Prepared.open(out).examples("train", "source")[2]
    assert (example.name, example.file) == ("data_00002", "training/facades/data.h5")
    assert example.sha256 == digest_file(tree / "training/facades/data.h5")


@pytest.mark.parametrize("resize, train, test", [("crop", (10, 12), (8, 8)), ("scale_width", (8, 10), (8, 8))])
def test_sizes_that_the_images_decide(tree, out, resize, train, test):
    arrays = put(tree, ["train/1", "test/1"], 10, 24, 3)
    manifest = prepare(tree, dataset(resize=resize, load_size=10), out, name="x")
    assert manifest.splits["train"].source.size == manifest.load_size == train
    assert manifest.splits["test"].source.size == manifest.crop_size == test
    left = images.resize(arrays["test/1"][:, :12], train)
    np.testing.assert_array_equal(Prepared.open(out).split("test").source[0], images.crop_centre(left, (8, 8)))


@pytest.mark.parametrize("load", [12, 13])
def test_pad_keeps_the_pixels_and_mirrors_the_borders(tmp_path, out, load):
    rng = np.random.default_rng(0)
    files = {split: rng.integers(0, 256, (7, 2 * 9, 3), np.uint8) for split in ("train", "test")}
    for split, array in files.items():
        (tmp_path / "tree" / split).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "tree" / split / "1.png")
    manifest = prepare(tmp_path / "tree", dataset(resize="pad", load_size=load, crop_size=(8, 12)), out, name="x")
    assert manifest.load_size == (load, load) and manifest.splits["test"].source.size == (8, 12)
    for split, size in (("train", (load, load)), ("test", (8, 12))):
        for half, columns in (("source", slice(0, 9)), ("target", slice(9, 18))):
            stored = np.load(out / f"{split}-{half}.npy")[0]
            top, left = (size[0] - 7) // 2, (size[1] - 9) // 2
            image = files[split][:, columns]
            assert stored.shape == (*size, 3)
            assert np.array_equal(stored[top : top + 7, left : left + 9], image)
            # The rows and columns beside the borders are those one from them, further inside.
            if top:
                assert np.array_equal(stored[top - 1, left : left + 9], image[1])
            assert np.array_equal(stored[top : top + 7, left - 1], image[:, 1])
            assert np.array_equal(stored[top : top + 7, left + 9], image[:, -2])


def test_pad_refuses_what_does_not_fit(tree, out):
    put(tree, ["train/0", "test/0"], 10, 24, 3)
    with pytest.raises(UserError, match=r"train/0\.png: 10x12 under resize: pad, larger than crop_size 8x8"):
        prepare(tree, dataset(resize="pad", load_size=8), out, name="x")


@pytest.mark.parametrize(("resize", "split"), [("pad", "train"), ("pad", "test"), ("crop", "test")])
def test_sides_of_two_sizes_are_no_pair_where_pixels_stay_where_they_are(tmp_path, out, resize, split):
    tree = tmp_path / "tree"
    for where, sides in (("train", (8, 8)), ("test", (8, 8)), (split, (9, 8))):
        for half, side in zip("AB", sides, strict=True):
            (tree / f"{where}{half}").mkdir(parents=True, exist_ok=True)
            images.write(tree / f"{where}{half}" / f"{sides[0]}.png", noise(side, 8, 3))
    wanted = dataset(layout="folders", resize=resize, load_size=12, crop_size=12 if resize == "pad" else 8)
    with pytest.raises(
        UserError, match=rf"{split}B/9.png: 8x8, and its source is 9x8: under resize: {resize}"
    ) as found:
        prepare(tree, wanted, out, name="x")
    assert "8.png" not in str(found.value)
    prepare(tree, dataset(layout="folders", load_size=12, crop_size=8), tmp_path / "scaled", name="x")


def test_resize_none(tree, out):
    arrays = put(tree, ["test/1"], 8, 16, 3) | put(tree, ["train/1"], 9, 24, 3)
    manifest = prepare(tree, dataset(resize="none"), out, name="x")
    assert manifest.splits["train"].source.size == (9, 12)
    np.testing.assert_array_equal(Prepared.open(out).split("test").source[0], arrays["test/1"][:, :8])


def test_bytes_do_not_depend_on_workers_or_place(tree, tmp_path):
    put(tree, [f"train/{i}" for i in range(12)] + ["test/1"], 10, 20, 3)
    for workers in (1, 4):
        prepare(tree, dataset(), tmp_path / f"out{workers}", name="x", workers=workers)
    moved = tree.rename(tmp_path / "elsewhere")
    prepare(moved, dataset(), tmp_path / "out0", name="x")
    assert len({digest_tree(tmp_path / f"out{i}") for i in (0, 1, 4)}) == 1


def spoil(tree):
    """Add one of every kind of bad image to a good aligned tree of 2 + 1; return file -> reason."""
    put(tree, ["train/1", "train/9", "test/1"], 8, 16, 3)
    put(tree, ["train/odd"], 8, 17, 3)
    put(tree, ["train/deep"], 8, 16, dtype=np.uint16)
    Image.fromarray(noise(8, 16, 4)).save(tree / "train/clear.png")
    (tree / "train/5.jpg").write_bytes(b"<html>404</html>")
    images.write(tree / "train/cut.jpg", noise(64, 64, 3))
    (tree / "train/cut.jpg").write_bytes((tree / "train/cut.jpg").read_bytes()[:-900])
    (tree / "test/2.png").write_bytes(b"")
    return {
        "train/odd.png": "width 17 is odd",
        "train/deep.png": "16 bits per channel",
        "train/clear.png": "transparency",
        "train/5.jpg": "not an image",
        "train/cut.jpg": "truncated",
        "test/2.png": "not an image",
    }


def test_strict_lists_every_bad_image_and_leaves_nothing(tree, out):
    bad = spoil(tree)
    with pytest.raises(
        UserError, match=r"^x: 6 image\(s\) cannot be used; .* datasets\.x\.images\.on_error: skip:\n"
    ) as caught:
        prepare(tree, dataset(), out, name="x")
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(bad)
    for file, reason in bad.items():
        (line,) = [line for line in lines if line.startswith(f"  {file}: ")]
        assert reason in line
    assert [path.name for path in tree.parent.iterdir()] == ["tree"]  # neither out nor a temporary


def test_strict_keeps_the_previous_out(tree, out):
    put(tree, ["train/1", "test/1"], 8, 16, 3)
    prepare(tree, dataset(), out, name="x")
    before = digest_tree(out)
    (tree / "train/1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/1\.png"):
        prepare(tree, dataset(), out, name="x")
    assert digest_tree(out) == before


def test_skip_leaves_out_and_counts_and_equals_a_clean_set(tree, out, tmp_path):
    bad = spoil(tree)
    manifest = prepare(tree, dataset(on_error="skip"), out, name="x")
    assert [skipped.file for skipped in manifest.skipped] == sorted(bad)
    assert all(bad[skipped.file] in skipped.reason for skipped in manifest.skipped)
    assert Prepared.open(out).split("train").names == ("1", "9")
    for file in bad:
        (tree / file).unlink()
    clean = prepare(tree, dataset(), tmp_path / "clean", name="x")
    assert clean.splits == manifest.splits  # arrays' digests too
    assert clean.skipped == ()


def test_skip_takes_both_sides_of_a_pair_and_one_of_an_unpaired_set(tree, out):
    put(tree, [f"train/{side}/{i}" for side in "AB" for i in (1, 2)], 8, 8, 3)
    put(tree, ["test/A/1", "test/B/1"], 8, 8, 3)
    (tree / "train/B/1.png").write_bytes(b"")
    prepare(tree, dataset("folders", on_error="skip"), out, name="x")
    train = Prepared.open(out).split("train")
    assert (train.names, train.target_names) == (("2",), ("2",))

    for split in ("train", "test"):
        for side in "AB":
            (tree / split / side).rename(tree / f"{split}{side}")
    manifest = prepare(tree, dataset("unaligned", on_error="skip"), out, name="x")
    train = Prepared.open(out).split("train")
    assert (train.names, train.target_names) == (("1", "2"), ("2",))
    assert [skipped.file for skipped in manifest.skipped] == ["trainB/1.png"]


def test_skipping_all_of_a_split_is_an_error(tree, out):
    put(tree, ["train/1", "test/1"], 8, 16, 3)
    (tree / "test/1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"all images of test cannot be used; .*\n  test/1\.png: cannot be"):
        prepare(tree, dataset(on_error="skip"), out, name="x")
    assert not out.exists()


@pytest.mark.parametrize("on_error", ["strict", "skip"])
def test_pairs_that_another_resize_would_take_are_not_told_to_be_left_out(tree, out, on_error):
    for split in ("train", "test"):
        put(tree, [f"{split}/A/{i}" for i in (1, 2)], 8, 8, 3)
        put(tree, [f"{split}/B/{i}" for i in (1, 2)], 7, 8, 3)
    asked = dataset("folders", on_error=on_error, resize="pad")
    with pytest.raises(UserError) as caught:
        prepare(tree, asked, out, name="x")
    first, *rest = str(caught.value).splitlines()
    mend = "set datasets.x.images.resize: resize_and_crop, which brings all of them to load_size"
    assert first.endswith(f"cannot be used; {mend}:") and len(rest) == 4
    assert rest[0] == "  train/B/1.png: 7x8, and its source is 8x8: under resize: pad both need one size"
    (tree / "test/A/1.png").write_bytes(b"")
    with pytest.raises(UserError, match=f"cannot be used; mend them, and {mend}:"):
        prepare(tree, asked, out, name="x")
    for split in ("train", "test"):  # where a pair is left of each, the others can be left out
        put(tree, [f"{split}/{side}/2" for side in "AB"], 8, 8, 3)
    if on_error == "strict":
        with pytest.raises(UserError, match=r"mend or remove them, or leave out 2 of 4 by .*on_error: skip:\n"):
            prepare(tree, asked, out, name="x")
    else:
        assert len(prepare(tree, asked, out, name="x").skipped) == 2


@pytest.mark.parametrize("on_error", ["strict", "skip"])
def test_a_split_of_which_all_is_broken_is_not_told_to_be_left_out(tree, out, on_error):
    put(tree, ["train/1", "test/1"], 8, 16, 3)
    (tree / "test/1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be used; mend them:\n  test/1\.png: cannot be"):
        prepare(tree, dataset(on_error=on_error), out, name="x")


@pytest.mark.parametrize(
    "shape, more, reason",
    [
        ((9, 16, 3), {"resize": "crop"}, r"train/3\.png: 9x8 under resize: crop; most of train are 8x8"),
        ((9, 16, 3), {"resize": "none"}, r"train/3\.png: 9x8 under resize: none; most of train are 8x8"),
        (
            (16, 16, 3),
            {"resize": "scale_width"},
            r"train/3\.png: 16x8 under resize: scale_width; most of train are 8x8",
        ),
        ((7, 16, 3), {"resize": "crop"}, r"train/3\.png: 7x8 under resize: crop, smaller than crop_size 8x8"),
        ((8, 16), {"colour": "raw"}, r"train/3\.png: has 1 channels \(L\), expected 3"),
    ],
)
def test_images_that_differ_from_the_rest(tree, out, shape, more, reason):
    put(tree, ["train/1", "train/2", "test/1"], 8, 16, 3)
    put(tree, ["train/3"], *shape)
    with pytest.raises(UserError, match=reason) as caught:
        prepare(tree, dataset(**more), out, name="x")
    assert "x: 1 image(s)" in str(caught.value)


def test_resize_none_outside_train_needs_crop_size(tree, out):
    put(tree, ["train/1", "test/1"], 10, 20, 3)
    with pytest.raises(UserError, match=r"test/1\.png: 10x10, and resize: none needs crop_size 8x8 outside train"):
        prepare(tree, dataset(resize="none"), out, name="x")


def test_damage_within_an_hdf5_file_names_its_rows(tree, out):
    for folder in ("training", "testing"):
        for side in ("images", "facades"):
            (tree / folder / side).mkdir(parents=True)
            with h5py.File(tree / folder / side / "data.h5", "w") as file:
                data = file.create_dataset("data", (2, 8, 8, 1), np.uint8, chunks=(1, 8, 8, 1), fletcher32=True)
                data[:] = noise(2, 8, 8, 1)
                offset = data.id.get_chunk_info(1).byte_offset
    path = tree / "training/images/data.h5"
    content = bytearray(path.read_bytes())
    content[offset] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"1 image\(s\).*\n  training/images/data\.h5\[1\]: cannot be decoded"):
        prepare(tree, dataset("hdf5", colour="gray", channels=(1, 1)), out, name="x")


def test_four_channels_need_raw(tree, out):
    put(tree, ["train/1", "test/1"], 8, 16, 4)
    with pytest.raises(UserError, match="channels: 4 with colour: rgb; it has 1 or 3"):
        prepare(tree, dataset(channels=(4, 3)), out, name="x")


def test_a_full_disk_is_said_before_the_work(tree, out, monkeypatch):
    put(tree, ["train/1", "test/1"], 8, 16, 3)
    usage = type("Usage", (), {"free": 767})
    monkeypatch.setattr("repix.data.preprocess.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="need 768 bytes and 767 are free"):
        prepare(tree, dataset(), out, name="x")


@pytest.fixture
def prepared(tree, out):
    put(tree, ["train/1", "train/2", "test/1"], 8, 16, 3)
    prepare(tree, dataset(), out, name="x")
    return out


def test_arrays_are_mapped_read_only(prepared):
    train = Prepared.open(prepared).split("train")
    assert isinstance(train.source, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        train.source[0] = 0
    with pytest.raises(UserError, match="no split 'val'; there is test, train"):
        Prepared.open(prepared).split("val")


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 8, 8, 3), np.uint16), r"holds uint16 \(2, 8, 8, 3\), the manifest says uint8 \(2, 8, 8, 3\)"),
        (np.zeros((3, 8, 8, 3), np.uint8), r"holds uint8 \(3, 8, 8, 3\), the manifest says uint8 \(2, 8, 8, 3\)"),
        (None, "no such file, and the manifest names it"),
        (b"\x93NUMPY", "cannot be read as .npy"),
        (b"\x93NUMPY\x01\x00\x76\x00" + b"{" * 118, "cannot be read as .npy"),
        (b"PK\x05\x06" + bytes(18), "cannot be read as .npy"),  # an .npz of nothing
    ],
)
def test_open_says_which_array_does_not_fit(prepared, array, message):
    path = prepared / "train-target.npy"
    path.unlink()
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    with pytest.raises(UserError, match=message) as caught:
        Prepared.open(prepared)
    assert str(path) in str(caught.value) and "dvc" in str(caught.value)


def test_open_of_a_truncated_array_and_of_a_cut_manifest(prepared):
    path = prepared / "train-source.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="train-source"):
        Prepared.open(prepared)
    tree = read_json(prepared / "manifest.json")
    del tree["splits"]["train"]
    write_json(prepared / "manifest.json", tree)
    assert Prepared.open(prepared).split("test").names == ("1",)
    tree["splits"]["test"]["source"]["shards"] = []
    write_json(prepared / "manifest.json", tree)
    with pytest.raises(UserError, match="source: 1 images, and its shards have none"):
        Prepared.open(prepared)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (None, "no such file, and the manifest names it"),
        (b"", "0 lines, and the manifest has 1 images"),
        (b"\xff\n", "cannot be read as a list of images"),
        (b'{"name": 5}\n', "cannot be read as a list of images"),
        (b"[" * 100_000, "cannot be read as a list of images"),
    ],
    ids=["gone", "empty", "no text", "other fields", "nested"],
)
def test_a_list_of_images_that_does_not_fit_is_said_when_it_is_read(prepared, listed, said):
    path = prepared / "test-target.jsonl"
    path.unlink()
    if listed is not None:
        path.write_bytes(listed)
    split = Prepared.open(prepared).split("test")
    assert split.names == ("1",)
    with pytest.raises(UserError, match=said) as caught:
        split.target_names  # noqa: B018
    assert str(path) in str(caught.value) and "dvc" in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/b", "a\0b", "", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused(prepared, name):
    """The evaluation calls its files after the names; and a file elsewhere is covered by no digest."""
    split, path = Prepared.open(prepared).split("test"), prepared / "test-source.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name}) + "\n")
    with pytest.raises(UserError, match=r"is no name of a file\); run `dvc repro`"):
        split.names  # noqa: B018
    manifest = read_json(prepared / "manifest.json")
    manifest["splits"]["test"]["source"]["shards"][0]["file"] = name
    write_json(prepared / "manifest.json", manifest)
    with pytest.raises(UserError, match="is no name of a file; `dvc repro` makes it anew"):
        Prepared.open(prepared)


def test_a_name_that_two_images_have_is_refused(prepared):
    path = prepared / "train-source.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] * 2)
    with pytest.raises(UserError, match="name '1' is there twice; run `dvc repro`"):
        Prepared.open(prepared).split("train").names  # noqa: B018


def test_another_list_of_as_many_images_is_not_the_manifests(prepared):
    path = prepared / "test-source.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"name":"1"', b'"name":"2"'))
    with pytest.raises(UserError, match=r"test-source.jsonl: is not the list that the manifest names"):
        Prepared.open(prepared).split("test").names  # noqa: B018


@pytest.mark.parametrize("lost", [(), ("train/2", "train/3", "train/5")], ids=["all", "some skipped"])
def test_a_large_side_is_several_files_that_read_as_one(tree, out, tmp_path, monkeypatch, lost):
    names = [f"{split}/{i}" for split, n in (("train", 7), ("test", 2)) for i in range(1, n + 1)]
    put(tree, names, 8, 16, 3)
    for name in lost:
        (tree / f"{name}.png").write_bytes(b"no image")
    ask = dataset(on_error="skip")
    prepare(tree, ask, tmp_path / "whole", name="x")
    monkeypatch.setattr(preprocess, "SHARD_BYTES", 2 * 8 * 8 * 3)
    manifest = prepare(tree, ask, out, name="x")

    whole, cut = (Prepared.open(folder).split("train") for folder in (tmp_path / "whole", out))
    n = 7 - len(lost)
    assert [shard.n for shard in manifest.splits["train"].source.shards] == [2] * (n // 2) + [1] * (n % 2)
    assert [shard.file for shard in manifest.splits["test"].source.shards] == ["test-source.npy"]
    assert sorted(path.name for path in out.glob("train-source-*")) == [
        f"train-source-{i:05d}.npy" for i in range((n + 1) // 2)
    ]
    assert not any(path.is_dir() for path in out.iterdir())
    for shard in manifest.splits["train"].target.shards:
        assert shard.sha256 == digest_file(out / shard.file)
    assert cut.names == whole.names and len(cut.names) == n
    for one, other in ((cut.source, whole.source), (cut.target, whole.target)):
        assert (one.shape, one.dtype, one.ndim, one.nbytes) == (other.shape, other.dtype, 4, other.nbytes)
        np.testing.assert_array_equal(np.asarray(one), other)


def extract(archive: Path, folder: Path, keep) -> None:
    """Unpack the files of an archive that ``keep(name)`` wants."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder, [name for name in file.namelist() if keep(name)])
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, [member for member in file if keep(member.name)])


def test_real_facades(tree, out):
    """Photo left and label right: BtoA translates labels, which have few colours, to photos."""
    extract(real_data("data/facades.tar.gz"), tree, lambda name: name.endswith("7.jpg"))
    n = {split: len(list((tree / "facades" / split).iterdir())) for split in ("train", "test")}
    manifest = prepare(
        tree, dataset(direction="BtoA", load_size=72, crop_size=64, val_fraction=0.2), out, name="facades"
    )
    counts = {split: half.source.n for split, half in manifest.splits.items()}
    assert counts["test"] == n["test"] and counts["train"] + counts["val"] == n["train"] == 40
    assert 2 <= counts["val"] <= 16
    train = Prepared.open(out).split("train")
    assert train.source.shape == (counts["train"], 72, 72, 3)
    assert train.names[:3] == tuple(sorted(train.names, key=int)[:3])
    saturation = [np.ptp(side.astype(int), axis=3).mean() for side in (train.source, train.target)]
    assert saturation[0] > 2 * saturation[1]  # labels are painted in pure colours
    example = Prepared.open(out).examples("test", "source")[0]
    content = (tree / example.file).read_bytes()
    assert example.size == (256, 256) and example.sha256 == hashlib.sha256(content).hexdigest()


def test_real_photos_as_lab(tree, out):
    extract(real_data("data/bsds500.zip"), tree, lambda name: name.endswith("0.jpg"))
    ask = dataset("single", colour="lab", channels=(1, 2), load_size=(36, 54), crop_size=(32, 48), resample="lanczos")
    manifest = prepare(tree, ask, out, name="photos")
    prepared = Prepared.open(out)
    for split in manifest.splits:
        arrays = prepared.split(split)
        for row, example in enumerate(prepared.examples(split, "source")):
            photo = images.resize(images.read(tree / example.file), arrays.source.shape[1:3], "lanczos")
            picture = colour.to_picture(arrays.target[row], manifest.target, other=arrays.source[row])
            assert np.abs(picture.astype(int) - photo).max() <= 1
    assert set(manifest.splits) == {"train", "val", "test"}


def test_pixels_are_limited_by_name_before_they_are_decoded(tree, out):
    put(tree, ["train/1", "test/1"], 8, 16, 3)
    put(tree, ["train/2"], 8, 18, 3)
    said = r"train/2\.png: 18 x 8 = 144 pixels; at most 143 are taken; limits\.pixels in params\.yaml raises it"
    with pytest.raises(UserError, match=said):
        prepare(tree, dataset(), out, name="x", pixels=143)
    assert prepare(tree, dataset(), out, name="x", pixels=144).splits["train"].source.n == 2


def test_pixels_of_hdf5_are_limited_too(tree, out):
    for folder in ("training", "testing"):
        for side in ("images", "facades"):
            (tree / folder / side).mkdir(parents=True)
            with h5py.File(tree / folder / side / "data.h5", "w") as file:
                file["data"] = noise(2, 8, 8, 1)
    ask = dataset("hdf5", colour="gray", channels=(1, 1))
    with pytest.raises(UserError, match=r"data\.h5\[1\]: 8 x 8 = 64 pixels; at most 63 are taken; limits\.pixels"):
        prepare(tree, ask, out, name="x", pixels=63)
    prepare(tree, ask, out, name="x", pixels=64)


def test_what_is_not_read_is_named(tree, out, capsys):
    put(tree, [f"train/{i}" for i in (1, 2)] + ["test/1"], 8, 16, 3)
    prepare(tree, dataset(), out, name="x")
    assert "not read" not in capsys.readouterr().err
    (tree / "train" / "9.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (tree / "train" / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"leave out 1 of 4 by datasets\.x.*on_error: skip:\n  train/9\.jxl: .*JPEG XL"):
        prepare(tree, dataset(), out, name="x")
    assert "x: not read: 1 in train: notes.txt" in capsys.readouterr().err
    manifest = prepare(tree, dataset(on_error="skip"), out, name="x")
    assert [one.file for one in manifest.skipped] == ["train/9.jxl"]


def test_mixed_sizes_name_a_mend_that_loses_no_image(tree, out):
    for folder in ("trainA", "trainB", "testA", "testB"):
        for i, size in enumerate([(40, 60), (60, 40), (50, 50), (80, 120)]):
            put(tree, [f"{folder}/{i}"], *size, 3)
    ask = {"load_size": 36, "crop_size": 32}
    with pytest.raises(UserError) as caught:
        prepare(tree, dataset("unaligned", resize="crop", **ask), out, name="x")
    said = str(caught.value)
    assert "4 sizes: 40x60 (2 images)" in said and "resize: resize_and_crop" in said
    assert "skip" not in said and "\n" not in said
    manifest = prepare(tree, dataset("unaligned", resize="resize_and_crop", **ask), out, name="x")
    assert manifest.splits["train"].source.n == 4 and not manifest.skipped
