"""Which file makes which row, in every layout; and what one is told when a tree is not as declared."""

import hashlib

import h5py
import numpy as np
import pytest

from repix.config.images import Images
from repix.data import layouts
from repix.errors import UserError


def dataset(layout, **more):
    if layout == "single":
        more = {"colour": "lab", "channels": (1, 2)} | more
    return Images(layout=layout, load_size=8, crop_size=8, **more)


def touch(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def book(root, folder, n, name="data"):
    for side in ("images", "facades"):
        path = root / folder / side / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["data"] = np.zeros((n, 4, 4, 1), np.uint8)


def names(items):
    return [item.name for item in items]


def places(tree, items):
    return [item.path.relative_to(tree).as_posix() for item in items]


def test_natural_order():
    numbered = [f"{i}.jpg" for i in range(1, 25)]
    assert sorted(sorted(numbered), key=layouts.natural_key) == numbered
    assert sorted(["a10", "a2", "²"], key=layouts.natural_key)[:2] == ["a2", "a10"]


@pytest.mark.parametrize("direction, halves", [("AtoB", ("left", "right")), ("BtoA", ("right", "left"))])
def test_aligned(tmp_path, direction, halves):
    touch(tmp_path, *(f"facades/train/{i}.jpg" for i in (1, 2, 10)), "facades/val/5.PNG", "facades/test/7.jpg")
    found = layouts.find(tmp_path, dataset("aligned", direction=direction))
    assert list(found) == ["train", "val", "test"]
    assert names(found["train"].source) == names(found["train"].target) == ["1", "2", "10"]
    assert {item.half for item in found["train"].source} == {halves[0]}
    assert {item.half for item in found["train"].target} == {halves[1]}
    assert places(tmp_path, found["val"].source) == ["facades/val/5.PNG"]


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_unaligned(tmp_path, direction):
    touch(tmp_path, "x/trainA/1.jpg", "x/trainA/2.jpg", "x/trainB/9.jpg", "x/testA/3.jpg", "x/testB/4.jpg")
    train = layouts.find(tmp_path, dataset("unaligned", direction=direction))["train"]
    sides = [places(tmp_path, train.source), places(tmp_path, train.target)]
    assert sides[:: 1 if direction == "AtoB" else -1] == [["x/trainA/1.jpg", "x/trainA/2.jpg"], ["x/trainB/9.jpg"]]
    assert all(item.half is None for item in train.source)


@pytest.mark.parametrize("pattern", ["{split}/{side}", "{side}/{split}"])
def test_folders_pair_by_stem(tmp_path, pattern):
    for split in ("train", "test"):
        touch(tmp_path, *(f"{pattern.format(split=split, side='A')}/{i}.jpg" for i in (1, 2)))
        touch(tmp_path, *(f"{pattern.format(split=split, side='B')}/{i}.png" for i in (2, 1)))
    train = layouts.find(tmp_path, dataset("folders"))["train"]
    assert places(tmp_path, train.source) == [f"{pattern.format(split='train', side='A')}/{i}.jpg" for i in (1, 2)]
    assert places(tmp_path, train.target) == [f"{pattern.format(split='train', side='B')}/{i}.png" for i in (1, 2)]


def test_folders_list_every_lonely_name(tmp_path):
    touch(tmp_path, "train/A/1.jpg", "train/A/2.jpg", "train/A/3.jpg", "train/B/1.jpg", "train/B/4.jpg")
    touch(tmp_path, "test/A/1.jpg", "test/B/1.jpg")
    with pytest.raises(UserError, match=r"3 images without a partner.*: A has 2.jpg, A has 3.jpg, B has 4.jpg"):
        layouts.find(tmp_path, dataset("folders"))


def test_hdf5(tmp_path):
    book(tmp_path / "facades_bw", "training", 3)
    book(tmp_path / "facades_bw", "validation", 1)
    book(tmp_path / "facades_bw", "testing", 2)
    found = layouts.find(tmp_path, dataset("hdf5", direction="BtoA"))
    assert {split: len(listing.source) for split, listing in found.items()} == {"train": 3, "val": 1, "test": 2}
    source, target = found["train"].source[2], found["train"].target[2]
    assert source.path.relative_to(tmp_path).as_posix() == "facades_bw/training/facades/data.h5"
    assert target.path.relative_to(tmp_path).as_posix() == "facades_bw/training/images/data.h5"
    assert (source.row, source.name) == (2, "data_00002")


def test_hdf5_files_that_do_not_pair(tmp_path):
    book(tmp_path, "training", 2, name="a")
    book(tmp_path, "testing", 1)
    (tmp_path / "training/facades/a.h5").rename(tmp_path / "training/facades/b.h5")
    assert len(layouts.find(tmp_path, dataset("hdf5"))["train"].source) == 2  # one on each side is a pair
    book(tmp_path, "training", 2, name="c")
    with pytest.raises(UserError, match=r"without a partner of the same name: a.h5, b.h5"):
        layouts.find(tmp_path, dataset("hdf5"))


def test_hdf5_with_more_photos_than_labels(tmp_path):
    book(tmp_path, "training", 2)
    book(tmp_path, "testing", 1)
    with h5py.File(tmp_path / "training/images/data.h5", "w") as file:
        file["data"] = np.zeros((3, 4, 4, 1), np.uint8)
    with pytest.raises(UserError, match=r"images/data.h5 has 3 images and .*facades/data.h5 has 2"):
        layouts.find(tmp_path, dataset("hdf5"))


def test_single(tmp_path):
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    train = layouts.find(tmp_path, dataset("single"))["train"]
    assert train.source == train.target
    with pytest.raises(UserError, match="leave direction at AtoB"):
        layouts.find(tmp_path, dataset("single", direction="BtoA"))


def test_hidden_files_and_notes_are_not_images(tmp_path):
    touch(tmp_path, "train/1.jpg", "train/._1.jpg", "train/.DS_Store", "train/Thumbs.db", "train/README.txt")
    touch(tmp_path, "test/1.jpg", "__MACOSX/train/1.jpg", "__MACOSX/test/1.jpg")
    assert names(layouts.find(tmp_path, dataset("aligned"))["train"].source) == ["1"]


def test_val_is_held_out_by_the_hash_of_the_file_name(tmp_path):
    files = [f"{i}.jpg" for i in range(1, 41)]
    touch(tmp_path, *(f"train/{file}" for file in files), "test/1.jpg")
    found = layouts.find(tmp_path, dataset("aligned", val_fraction=0.25))
    expected = [file for file in files if int(hashlib.sha256(file.encode()).hexdigest()[:16], 16) < 0.25 * 2**64]
    assert 3 <= len(expected) <= 20
    assert [item.file for item in found["val"].source] == expected
    assert [item.file for item in found["train"].source] == [file for file in files if file not in expected]
    assert names(found["val"].source) == names(found["val"].target)

    (tmp_path / "train" / expected[0]).unlink()  # one image less moves no other
    fewer = layouts.find(tmp_path, dataset("aligned", val_fraction=0.25))
    assert [item.file for item in fewer["val"].source] == expected[1:]
    touch(tmp_path, "val/1.jpg")  # and a val split of its own wins
    own = layouts.find(tmp_path, dataset("aligned", val_fraction=0.25))
    assert names(own["val"].source) == ["1"] and len(own["train"].source) == 39


def test_held_out_pairs_stay_pairs_in_both_directions(tmp_path):
    stems = [str(i) for i in range(40)]
    for split, of in (("train", stems), ("test", ["1"])):
        touch(tmp_path, *(f"{split}/A/{s}.jpg" for s in of), *(f"{split}/B/{s}.png" for s in of))
    forth = layouts.find(tmp_path, dataset("folders", val_fraction=0.3))
    back = layouts.find(tmp_path, dataset("folders", val_fraction=0.3, direction="BtoA"))
    for split in ("train", "val"):
        assert names(forth[split].source) == names(forth[split].target) == names(back[split].source)


def test_a_single_train_image_is_not_held_out(tmp_path):
    touch(tmp_path, "train/1.jpg", "test/1.jpg")
    found = layouts.find(tmp_path, dataset("aligned", val_fraction=0.99))
    assert list(found) == ["train", "test"] and len(found["train"].source) == 1


@pytest.mark.parametrize(
    ("folders", "renamed"),
    [
        ("Train Test Val", {"Test": "test", "Train": "train", "Val": "val"}),
        ("training testing validation", {"training": "train", "testing": "test", "validation": "val"}),
        ("train valid test", {"valid": "val"}),
        ("train val eval", {"eval": "test"}),
        ("train test eval", {"eval": "val"}),
        ("train eval", {"eval": "test"}),
        ("train dev eval", {"dev": "val", "eval": "test"}),
        ("set/TRAIN set/TEST", {"set/TRAIN": "train", "set/TEST": "test"}),
        ("A/Train B/Train A/Test B/Test", {f"{a}/{s}": s.lower() for a in "AB" for s in ("Train", "Test")}),
        ("trainA trainB testA testB validA valid_B", {"validA": "valA", "valid_B": "valB"}),
        ("train val test", {}),
        ("train val test valid", {}),
        ("A/train B/train", {}),
        ("training", {}),
        ("label photo", {}),
        ("Train/A other", {}),
    ],
)
@pytest.mark.parametrize("below", ["", "A/", "B/"])
def test_folders_that_are_splits_by_nearly_their_names(tmp_path, folders, renamed, below):
    touch(tmp_path, *(f"{folder}/{below}1.png" for folder in folders.split()))
    assert layouts.near_names(tmp_path) == renamed


def test_the_folders_of_hdf5_files_and_those_without_images_have_their_own_names(tmp_path):
    touch(tmp_path, *(f"{split}/{side}/x.h5" for split in ("training", "testing") for side in ("images", "facades")))
    touch(tmp_path, "set/train/1.png", "set/test/1.png", "set/valid/notes.txt")
    assert layouts.near_names(tmp_path) == {}


def test_val_without_test_is_the_test(tmp_path):
    """maps, edges2shoes and edges2handbags have train and val only."""
    touch(tmp_path, "maps/train/1.jpg", "maps/val/2.jpg")
    found = layouts.find(tmp_path, dataset("aligned"))
    assert list(found) == ["train", "test"] and names(found["test"].source) == ["2"]
    assert [one.origin for one in found.values()] == ["train", "val"]
    touch(tmp_path, *(f"maps/train/{i}.jpg" for i in range(20)))
    assert layouts.find(tmp_path, dataset("aligned", val_fraction=0.5))["val"].origin == "train"
    touch(tmp_path, "maps/test/3.jpg")
    found = layouts.find(tmp_path, dataset("aligned"))
    assert {split: one.origin for split, one in found.items()} == {split: split for split in layouts.SPLITS}


@pytest.mark.parametrize(
    "files, message",
    [
        (["train/1.jpg"], "the test split is missing"),
        (["train/1.jpg", "test/readme.txt"], "the test split has no images"),
        (["train/readme.txt", "test/1.jpg"], "the train split has no images"),
        (["train/1.jpg", "train/1.png", "test/1.jpg"], "several images of one name: 1.jpg, 1.png; rename"),
        (["train/1.jpg", "train/more/2.jpg", "test/1.jpg"], "more: images in a folder within a split are not read"),
        (
            ["a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg"],
            "several places: a, b; .*; else keep",
        ),
        (["pictures/1.jpg"], r"expects folders train and test.*there is pictures/ \(1 files\); no other layout fits"),
        (["x/trainA/1.jpg", "x/trainB/2.jpg", "x/testA/1.jpg", "x/testB/2.jpg"], "; layout: unaligned would fit"),
        (["x/trainA/1.jpg", "x/trainB/1.png", "x/testA/1.jpg", "x/testB/1.png"], "; layout: folders would fit"),
        (["A/train/1.jpg", "B/train/1.jpg", "A/test/1.jpg", "B/test/1.jpg"], "layout: folders would fit"),
    ],
)
def test_what_is_wrong_with_an_aligned_tree(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(UserError, match=message) as caught:
        layouts.find(tmp_path, dataset("aligned"))
    assert "\n" not in str(caught.value)


def test_every_layout_names_what_it_expects_and_who_would_fit(tmp_path):
    touch(tmp_path, "facades/train/1.jpg", "facades/test/1.jpg")
    for layout in ("unaligned", "folders", "hdf5"):
        with pytest.raises(UserError) as caught:
            layouts.find(tmp_path, dataset(layout))
        for part in (layouts.EXPECTED[layout], "facades/train/ (1 files)", "layout: aligned or single would fit"):
            assert part in str(caught.value)


def test_empty_and_missing_trees(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        layouts.find(tmp_path, dataset("aligned"))
    with pytest.raises(UserError, match="no such folder; unpack"):
        layouts.find(tmp_path / "none", dataset("aligned"))


def test_one_side_of_train_alone_is_an_error(tmp_path):
    touch(tmp_path, "trainA/1.jpg", "testA/1.jpg", "testB/1.jpg")
    (tmp_path / "trainB").mkdir()
    with pytest.raises(UserError, match="the train split has no images"):
        layouts.find(tmp_path, dataset("unaligned"))


def test_folders_pair_by_stem_even_where_the_suffix_changes_the_order(tmp_path):
    for split in ("train", "test"):
        touch(tmp_path, *(f"{split}/A/{stem}.jpg" for stem in ("a", "a.b")))
        touch(tmp_path, *(f"{split}/B/{stem}.JPG" for stem in ("a", "a.b")))
    train = layouts.find(tmp_path, dataset("folders"))["train"]
    assert names(train.source) == names(train.target) == ["a.b", "a"]


def test_images_of_formats_that_are_not_read_are_in_the_list_and_all_else_is_named(tmp_path):
    touch(tmp_path, *(f"set/{split}{side}/{i}.png" for split in ("train", "test") for side in "AB" for i in range(3)))
    touch(
        tmp_path, "set/trainA/3.HEIC", "set/trainA/4.heic", "set/trainA/5.avif", "set/trainA/6.jxl", "set/trainB/6.dng"
    )
    touch(tmp_path, "set/trainA/notes.txt", "set/trainA/.hidden", "set/trainA/7.mp4", "licence.txt")
    touch(tmp_path, *(f"set/validA/{i}.png" for i in range(1, 8)))
    found = layouts.find(tmp_path, dataset("unaligned"))
    assert len(found["train"].source) == 7 and len(found["train"].target) == 4
    assert layouts.left_out(tmp_path, found) == [
        "1 in the top folder: licence.txt",
        "2 in set/trainA: 7.mp4, notes.txt",
        "7 in set/validA: 1.png, 2.png, 3.png, 4.png, 5.png and 2 more",
    ]


def test_thousands_of_lonely_names_are_a_short_line_with_the_mend(tmp_path):
    for split in ("train", "test"):
        for side in "AB":
            touch(tmp_path, *(f"{split}/{side}/image_number_{i}_{side}_{i % 9}.png" for i in range(1, 300)))
    with pytest.raises(UserError) as caught:
        layouts.find(tmp_path, dataset("folders"))
    said = str(caught.value)
    assert len(said) < 600 and "\n" not in said
    assert "598 images without a partner of the same name: A has image_number_1_A_1.png" in said
    assert said.endswith("and 593 more; rename them, or take them out")


@pytest.mark.parametrize("stray", ["3", "notes_on_a", "zebra"])
def test_one_stray_name_is_named_and_unmakes_no_pairs(tmp_path, stray):
    for split in ("train", "test"):
        for side in "AB":
            touch(tmp_path, *(f"{split}/{side}/{i}_{side.lower()}.png" for i in range(8)))
    assert len(layouts.find(tmp_path, dataset("folders"))["train"].source) == 8
    touch(tmp_path, f"train/A/{stray}.png")
    assert layouts.fits(tmp_path, "folders", False)
    with pytest.raises(UserError, match=f": 1 images without a partner of the same name.*A has {stray}.png; rename"):
        layouts.find(tmp_path, dataset("folders"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (["1_label", "2_label"], ["1_photo", "2_photo"]),
        (["x1_A", "y1_A"], ["x1_B", "y1_B"]),
        (["label_1", "label_2"], ["photo_1", "photo_2"]),
        (["1_mask", "2_mask"], ["1", "2"]),
        (["1", "2"], ["x_1", "x_2"]),
        (["9_label", "10_label", "7"], ["9_photo", "10_photo", "7"]),
    ],
)
def test_names_that_differ_at_one_end_are_pairs_whatever_the_extensions(tmp_path, a, b):
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        # The single name of a split is read by what the others have in common.
        split = "test" if i == 0 else "train"
        touch(tmp_path, f"{split}/A/{one}.{('png', 'JPG', 'bmp')[i]}", f"{split}/B/{other}.{('jpg', 'tif', 'png')[i]}")
    found = layouts.find(tmp_path, dataset("folders"))
    pairs = [
        pair
        for split in ("test", "train")
        for pair in zip(names(found[split].source), names(found[split].target), strict=True)
    ]
    assert sorted(pairs) == sorted(zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (["cat"], ["dog"], "of the same name: A has cat.png, B has dog.png; rename them, or take them out"),
        (["1", "2"], ["3", "4"], "rename them, or take them out"),
        (["1", "2", "3"], ["1", "2"], "1 images without a partner of the same name: A has 3.png"),
        (
            ["1_label", "2_label", "3_label"],
            ["1", "2"],
            "1 images without a partner of the same name, also without the _label that those of A end in: A has 3_l",
        ),
    ],
)
def test_names_without_partner_are_told_from_pairs(tmp_path, a, b, said):
    touch(tmp_path, *(f"train/A/{name}.png" for name in a), *(f"train/B/{name}.png" for name in b))
    touch(tmp_path, "test/A/t.png", "test/B/t.png")
    with pytest.raises(UserError, match=said):
        layouts.find(tmp_path, dataset("folders"))


@pytest.mark.parametrize("pattern", ["{split}/{side}", "{side}/{split}"])
def test_sides_of_other_names_come_in_their_order(tmp_path, pattern):
    for split in ("train", "test"):
        for side in ("photo", "label"):
            touch(tmp_path, *(f"set/{pattern.format(split=split, side=side)}/{i}_{side}.png" for i in (1, 2)))
    train = layouts.find(tmp_path, dataset("folders"))["train"]
    assert names(train.source) == ["1_label", "2_label"] and names(train.target) == ["1_photo", "2_photo"]
    back = layouts.find(tmp_path, dataset("folders", direction="BtoA"))["train"]
    assert names(back.source) == ["1_photo", "2_photo"]


@pytest.mark.parametrize("layout", ["aligned", "folders", "unaligned", "single"])
def test_test_is_held_out_where_there_are_no_splits_at_all(tmp_path, layout):
    stems = [str(i) for i in range(60)]
    sides = ("mine/x", "mine/y") if layout in ("folders", "unaligned") else ("mine",)
    touch(tmp_path, *(f"{side}/{stem}.png" for side in sides for stem in stems))
    with pytest.raises(UserError, match="expects"):
        layouts.find(tmp_path, dataset(layout, val_fraction=0.2))
    found = layouts.find(tmp_path, dataset(layout, val_fraction=0.2, test_fraction=0.3))
    hashes = {stem: int(hashlib.sha256(f"{stem}.png".encode()).hexdigest()[:16], 16) / 2**64 for stem in stems}
    expected = {
        "train": [stem for stem in stems if 0.2 <= hashes[stem] < 0.7],
        "val": [stem for stem in stems if hashes[stem] < 0.2],
        "test": [stem for stem in stems if hashes[stem] >= 0.7],
    }
    assert {split: names(found[split].source) for split in found} == expected and all(expected.values())
    assert {split: names(found[split].target) for split in found} == expected
    # A larger share of test takes from train alone.
    more = layouts.find(tmp_path, dataset(layout, val_fraction=0.2, test_fraction=0.4))
    assert more["val"] == found["val"] and set(found["test"].source) < set(more["test"].source)


def test_a_share_for_test_is_for_sets_without_one(tmp_path):
    touch(tmp_path, *(f"train/{i}.png" for i in range(20)), "test/a.png")
    own = layouts.find(tmp_path, dataset("aligned", test_fraction=0.5))
    assert names(own["test"].source) == ["a"] and len(own["train"].source) == 20
    (tmp_path / "test" / "a.png").unlink()
    (tmp_path / "test").rmdir()
    with pytest.raises(UserError, match=r"the test split is missing;.*test_fraction: 0.1 makes it of train"):
        layouts.find(tmp_path, dataset("aligned"))
    with pytest.raises(UserError, match="test_fraction: 1e-09 of so few images holds none; raise it"):
        layouts.find(tmp_path, dataset("aligned", test_fraction=1e-9))
    made = layouts.find(tmp_path, dataset("aligned", test_fraction=0.5))
    assert made["test"].source and len(made["test"].source) + len(made["train"].source) == 20
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="has no images; remove its empty folder, and test_fraction takes some"):
        layouts.find(tmp_path, dataset("aligned", test_fraction=0.5))


def test_pairs_in_lettered_folders_are_pairs(tmp_path):
    """Folders trainA and trainB with equal names: nobody is told to take the pairs apart."""
    touch(tmp_path, *(f"{split}{side}/{i}.png" for split in ("train", "test") for side in "AB" for i in (1, 2)))
    train = layouts.find(tmp_path, dataset("folders"))["train"]
    assert names(train.source) == names(train.target) == ["1", "2"]
    assert places(tmp_path, train.target) == ["trainB/1.png", "trainB/2.png"]
    with pytest.raises(UserError) as caught:
        layouts.find(tmp_path, dataset("aligned"))
    assert "unaligned" not in str(caught.value) and "layout: folders would fit" in str(caught.value)
