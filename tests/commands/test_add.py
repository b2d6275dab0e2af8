"""`repix add`: from a folder or an archive to an entry of params.yaml that the stages can use, with no YAML typed."""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import tarfile
import threading
import time
import unicodedata
import zipfile
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from repix import cli, digests, paths, yaml12
from repix.commands import add
from repix.config import check, editing, halving, reader
from repix.config.datasets import Dataset
from repix.config.images import load_size
from repix.config.models import Recipe
from repix.data import archives, layouts, packing, preprocess, sources
from repix.data.prepared import Prepared
from repix.description import proposal
from repix.digests import Digests
from repix.files import locked
from repix.schemas import Archive
from tests.conftest import ROOT

MODES = {"gray": (), "rgb": (3,), "rgba": (4,), "five": (5,)}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with the committed params.yaml, in which the test stands; nothing heavy runs."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.chdir(root)
    # As where the package is used: relative to the root.
    monkeypatch.setattr(add, "cost", lambda *_: add.Cost({"generator": (1, "9 px")}, 1.0))
    return root


def draw(path, size=(20, 30), mode="rgb", bits=8, seed=0):
    """Write noise as an image of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.name.encode()])
    pixels = rng.integers(0, 2**bits, (*size, *MODES[mode]), np.uint8 if bits == 8 else np.uint16)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def draw_pairs(root, n=30, size=(200, 300), sides=("label", "photo")):
    for i in range(n):
        draw(root / sides[0] / f"{i}_{sides[0]}.{('png', 'bmp')[i % 2]}", size, "gray")
        draw(root / sides[1] / f"{i}_{sides[1]}.{('png', 'jpg', 'JPEG')[i % 3]}", size, seed=1)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(arguments))
    return exit_.value.code, *capsys.readouterr()


def as_dvc_writes(text):
    """Return a text after DVC has read and written it, as `-S` does."""
    yaml = YAML()
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(yaml.load(text), stream)
    return stream.getvalue()


def prepared(name, tmp_path):
    """Run what the first three stages run for an entry; return the manifest."""
    entry = reader.read(f"datasets.{name}", Dataset)
    raw, tree = tmp_path / "raw", tmp_path / "tree"
    record = sources.fetch(
        entry.archive.urls, entry.archive.sha256, raw, dataset=name, max_bytes=1 << 30, work=tmp_path / "work"
    )
    archives.unpack(raw / record.file, tree, max_bytes=1 << 30, max_files=10_000, max_ratio=1000)
    return preprocess.prepare(tree, entry.images, tmp_path / "out", name=name, workers=1)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_link_the_mode_and_the_ends_of_lines_of_params_yaml_are_kept(repository, capsys, ends):
    draw_pairs(repository / "pairs", n=8, size=(32, 32))
    path, place = repository / "params.yaml", repository / "mine.yaml"
    path.rename(place)
    place.write_bytes(place.read_bytes().replace(b"\n", ends))
    place.chmod(0o600)
    path.symlink_to(place.name)
    code, _, _ = run(capsys, "add", "pairs", "--name", "mine", "--no-measure")
    assert code == 0 and path.is_symlink() and place.stat().st_mode & 0o777 == 0o600
    assert "  mine:\n" in place.read_text() and place.read_bytes().count(b"\n") == place.read_bytes().count(ends)


def test_pad_keeps_the_pixels_and_is_offered(repository, tmp_path, capsys):
    draw_pairs(repository / "pairs", n=8)
    _, said, _ = run(capsys, "add", "pairs", "--name", "mine", "--no-measure", "--dry-run")
    assert "  or        --pad: pixels as they are, mirrored at the borders to 256 x 320 px" in said.splitlines()
    code, said, _ = run(capsys, "add", "pairs", "--name", "mine", "--no-measure", "--pad")
    assert code == 0 and "mirrored to 286 x 358 px, cut to 256 x 320 px" in said and "--pad:" not in said
    assert reader.read("datasets.mine", Dataset).images.resize == "pad"
    manifest = prepared("mine", tmp_path)
    assert manifest.resize == "pad" and manifest.splits["test"].target.size == (256, 320)
    draw_pairs(repository / "fitting", n=8, size=(64, 64))
    _, said, _ = run(capsys, "add", "fitting", "--name", "fitting", "--no-measure", "--dry-run")
    assert "--pad" not in said  # nothing would be mirrored
    draw(repository / "fitting" / "label" / "9_label.png", (300, 300), "gray")
    draw(repository / "fitting" / "photo" / "9_photo.png", (300, 300), seed=1)
    _, said, _ = run(capsys, "add", "fitting", "--name", "fitting", "--no-measure", "--dry-run")
    assert "--pad" not in said  # nearly all of most images would be borders
    code, _, error = run(capsys, "add", "fitting", "--name", "fitting", "--no-measure", "--pad")
    assert code == 1 and "mirrored to 320 x 320 px" in error and "16 of 18 are half of that or less" in error
    assert "fitting" not in (repository / "params.yaml").read_text()


def test_pad_is_neither_offered_nor_taken_where_the_images_of_a_pair_differ_in_size(repository, tmp_path, capsys):
    for number in range(20):
        draw(repository / f"pairs/A/{number}.png", (64, 64))
        draw(repository / f"pairs/B/{number}.png", (80, 80))
    before = (repository / "params.yaml").read_bytes()
    code, said, _ = run(capsys, "add", "pairs", "--dry-run")
    assert code == 0 and "--pad" not in said
    for more in ([], ["--skip"]):
        code, said, error = run(capsys, "add", "pairs", "--pad", *more)
        assert code == 1 and error == (
            "repix add: 20 images cannot be used, and nothing is left of train and val and test: "
            "leave out --pad, or bring both images of each pair to one size\n"
        )
        assert "unusable  B/1.png: 80x80, and its source is 64x64: under resize: pad both need one size" in said
    assert (repository / "params.yaml").read_bytes() == before
    for number in range(19):
        draw(repository / f"pairs/B/{number}.png", (64, 64))
    code, said, _ = run(capsys, "add", "pairs", "--dry-run")
    assert code == 0 and "--pad" not in said
    code, said, error = run(capsys, "add", "pairs", "--pad")
    assert code == 1 and error == (
        "repix add: 1 images cannot be used: mend or remove them, leave out --pad, or leave them out by --skip\n"
    )
    code, said, _ = run(capsys, "add", "pairs", "--pad", "--skip")
    counts = {name: one.source.n for name, one in prepared("pairs", tmp_path).splits.items()}
    assert code == 0 and sum(counts.values()) == 19
    assert f"train {counts['train']}, val {counts['val']}, test {counts['test']} (" in said
    draw(repository / "pairs/B/3.png", (80, 80))  # and as an entry says how its images are read
    code, said, _ = run(capsys, "add", "pairs")
    assert code == 0 and "unusable  B/3.png: 80x80" in said
    text = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(text.replace("on_error: skip\n", "on_error: strict\n", 1))
    code, _, error = run(capsys, "add", "pairs")
    images = "datasets.pairs.images in params.yaml"
    assert code == 1 and error == (
        f"repix add: 2 images cannot be used: mend or remove them, set resize: resize_and_crop in {images}, "
        f"or leave them out by on_error: skip in {images}\n"
    )


def test_two_folders_with_suffixes_and_mixed_extensions_become_an_entry(repository, tmp_path, capsys):
    draw_pairs(repository / "my pairs")
    before = (repository / "params.yaml").read_text(encoding="utf-8")
    code, said, _ = run(capsys, "add", "my pairs", "--name", "mine")
    assert code == 0
    assert "layout folders" in said and "label: 200 x 300 px, 1 channel, 8 bits" in said
    assert "photo: 200 x 300 px, 3 channels, 8 bits" in said
    assert said.splitlines()[-1] == "next: dvc exp run -S 'run.datasets=[mine]' -S 'run.models=[pix2pix]'"
    after = (repository / "params.yaml").read_text(encoding="utf-8")
    # Only lines that came, in the form that DVC leaves as it is.
    assert as_dvc_writes(before) == before and as_dvc_writes(after) == after
    start = after.index("  mine:\n")
    end = after.index("\nmodels:")
    assert after[:start] + after[end:] == before
    old, new = yaml12.load(before, "old"), yaml12.load(after, "new")
    entry = new["datasets"].pop("mine")
    assert new == old
    assert entry["archive"].keys() == {"urls", "sha256"} and entry["archive"]["urls"] == ["file:my%20pairs/"]
    assert entry["augment"] == {"flip": True}
    split = {key: entry["images"].pop(key) for key in ("val_fraction", "test_fraction")}
    assert entry["images"] == {
        "layout": "folders",
        "channels": [1, 3],
        "load_size": [214, 358],
        "crop_size": [192, 320],
    }
    manifest = prepared("mine", tmp_path)
    counts = {name: one.source.n for name, one in manifest.splits.items()}
    assert sum(counts.values()) == 30 and min(counts.values()) >= 2 and all(split.values())
    assert f"train {counts['train']}, val {counts['val']}, test {counts['test']}" in said
    for name in manifest.splits:
        one = Prepared.open(tmp_path / "out").split(name)
        pairs = zip(one.names, one.target_names, strict=True)
        assert all(a.removesuffix("_label") == b.removesuffix("_photo") for a, b in pairs)
    # And the grid that the printed command asks for can run.
    (repository / "params.yaml").write_text(after.replace("  - sample\n", "  - mine\n", 1), encoding="utf-8")
    check.grid()
    assert check.warnings() == []


def test_added_again_after_a_change_only_the_pin_is_another(repository, tmp_path, capsys):
    draw_pairs(repository / "pairs", 12, (32, 32))
    assert run(capsys, "add", "pairs")[0] == 0
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("load_size: 36", "load_size: 40"))  # theirs
    first = params.read_text()
    prepared("pairs", tmp_path)
    archive = tmp_path / "raw" / "archive.json"
    entry = reader.read("datasets.pairs", Dataset).archive

    def other(entry):
        return sources.changed(entry.urls, entry.sha256, archive, Digests(tmp_path / "known"))

    assert other(entry) is None
    # Written anew with the same bytes it is the same; one image less is not.
    again = repository / "pairs" / "label" / "2_label.png"
    again.write_bytes(again.read_bytes())
    later = archive.stat().st_mtime + 10
    os.utime(again, (later, later))
    assert other(entry) is None
    for gone in (repository / "pairs").rglob("4_*"):
        gone.unlink()
    assert other(entry).name == "pairs"
    (repository / "pairs" / "gone").symlink_to("nowhere")
    assert other(entry).name == "pairs"
    (repository / "pairs" / "gone").unlink()
    with pytest.raises(Exception, match=r"its files are others than when it was added; `repix add pairs --name pairs`"):
        prepared("pairs", tmp_path)
    code, said, _ = run(capsys, "add", "pairs")
    second = params.read_text()
    assert code == 0 and "run.datasets=[pairs]" in said
    changed = [(a, b) for a, b in zip(first.splitlines(), second.splitlines(), strict=True) if a != b]
    assert len(changed) == 1 and all(re.fullmatch(r" +sha256: [0-9a-f]{64}", line) for line in changed[0])
    assert sum(one.source.n for one in prepared("pairs", tmp_path).splits.values()) == 11
    assert other(reader.read("datasets.pairs.archive", type(entry))) is None


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_corrected_copy_that_keeps_its_old_times_is_seen(repository, tmp_path, capsys, kind):
    """As `tar -x`, `cp -p`, `rsync -a` and `unzip` leave them; nor does it count when the record was written."""
    draw_pairs(repository / "pairs", 12, (32, 32))
    given, one = repository / "pairs", repository / "pairs" / "label" / "2_label.png"
    if kind == "archive":
        given = one = Path(shutil.make_archive(os.fspath(repository / "set"), "zip", given))
    assert run(capsys, "add", os.fspath(given), "--name", "mine", "--no-measure")[0] == 0
    prepared("mine", tmp_path)
    archive, digests = tmp_path / "raw" / "archive.json", Digests(tmp_path / "known")
    entry = reader.read("datasets.mine", Dataset).archive
    assert sources.changed(entry.urls, entry.sha256, archive, digests) is None
    before, content = one.stat(), bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(archive, (time.time() + 100,) * 2)
    assert sources.changed(entry.urls, entry.sha256, archive, digests).name == given.name


def test_a_folder_that_was_just_taken_is_not_read_again(repository, tmp_path, capsys, monkeypatch):
    draw_pairs(repository / "pairs", 12, (32, 32))
    assert run(capsys, "add", "pairs", "--no-measure")[0] == 0
    prepared("pairs", tmp_path)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    archive, known = tmp_path / "raw" / "archive.json", Digests(tmp_path / "known")
    entry = reader.read("datasets.pairs", Dataset).archive
    sources.remember(entry.urls, archive, known)
    monkeypatch.setattr(packing, "digest", lambda folder: pytest.fail("it was read"))
    assert sources.changed(entry.urls, entry.sha256, archive, known) is None


def test_a_name_that_is_taken_is_left_alone(repository, capsys):
    draw_pairs(repository / "pairs", 4, (32, 32))
    before = (repository / "params.yaml").read_bytes()
    code, _, error = run(capsys, "add", "pairs", "--name", "maps")
    assert code == 1 and error == (
        "repix add: params.yaml has an entry datasets.maps of another place; choose another --name\n"
    )
    for arguments, said in (
        (("add", "none"), "none: no such file or folder"),
        (("add", "pairs", "--name", "a-b"), "--name a-b: names are letters, digits and underscores"),
        (("add", "."), "is the repository itself"),
        (("add", "s3://bucket/pairs.zip"), "s3://bucket/pairs.zip: only https, http and file addresses are read"),
    ):
        code, _, error = run(capsys, *arguments)
        assert code == 1 and said in error and error.count("\n") == 1
    assert (repository / "params.yaml").read_bytes() == before


def aligned(root):
    for split in ("train", "val", "test"):
        for i in range(3):
            draw(root / split / f"{i}.png", (32, 64))


def photos(root):
    for i in range(12):
        draw(root / f"{i}.png", (40, 60))


def unpaired(root):
    for side in "AB":
        for i in range(11):
            draw(root / f"train{side}" / f"{side}{i * 7 + ord(side)}.png", (64, 64))
        draw(root / f"test{side}" / "x.png", (64, 64))


def named_sides(root):
    for split in ("train", "test"):
        for side in ("edges", "shoes"):
            for i in range(12):
                draw(root / "set" / split / side / f"{i}.png", (64, 64), bits=16, mode="gray")


def many_channels(root):
    for side, mode in (("A", "five"), ("B", "gray")):
        for i in range(12):
            draw(root / side / f"{i}.npy", (48, 48), mode)


def book(root):
    for folder, n in (("training", 12), ("testing", 3)):
        for side in ("images", "facades"):
            (root / folder / side).mkdir(parents=True)
            with h5py.File(root / folder / side / "data.h5", "w") as file:
                file["data"] = np.full((n, 64, 64, 1), 7, np.uint8)


@pytest.mark.parametrize(
    ("make", "images", "model"),
    [
        (book, {"layout": "hdf5", "colour": "gray", "load_size": 72, "crop_size": 64}, "pix2pix_small"),
        (aligned, {"load_size": 36, "crop_size": 32}, "pix2pix_small"),
        (photos, {"layout": "single", "colour": "lab", "load_size": [54, 72], "crop_size": [48, 64]}, "pix2pix_small"),
        (unpaired, {"layout": "unaligned", "load_size": 72, "crop_size": 64}, "cyclegan"),
        (
            named_sides,
            {"layout": "folders", "colour": "gray", "bit_depth": 16, "load_size": 72, "crop_size": 64},
            "pix2pix_small",
        ),
        (
            many_channels,
            {"layout": "folders", "colour": "raw", "channels": [5, 1], "load_size": 54, "crop_size": 48},
            "pix2pix_small",
        ),
    ],
)
def test_what_images_are_is_found_out(repository, tmp_path, capsys, make, images, model):
    make(repository / "mine")
    code, said, error = run(capsys, "add", "mine")
    assert code == 0, error
    assert f"'run.models=[{model}]'" in said
    found = reader.section("datasets.mine.images")
    assert {key: value for key, value in found.items() if not key.endswith("_fraction")} == images
    manifest = prepared("mine", tmp_path)
    assert {"train", "test"} <= manifest.splits.keys() and not manifest.skipped
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    assert as_dvc_writes(text) == text


def test_images_that_cannot_be_used_are_listed_and_refused_or_left_out(repository, tmp_path, capsys):
    draw_pairs(repository / "pairs", 20, (32, 32))
    (repository / "pairs/label/4_label.png").write_bytes(b"<!doctype html>")
    draw(repository / "pairs/label/6_label.png", (32, 32), "rgba")
    (repository / "pairs/photo/notes.txt").write_text("hello")
    before = (repository / "params.yaml").read_bytes()
    code, said, error = run(capsys, "add", "pairs")
    assert code == 1 and (repository / "params.yaml").read_bytes() == before
    assert error.endswith("2 images cannot be used: mend or remove them, or leave them out by --skip\n")
    assert "unusable  label/4_label.png: cannot be decoded" in said
    assert "unusable  label/6_label.png: has transparency" in said
    assert "not read  1 in photo: notes.txt" in said
    assert run(capsys, "add", "pairs", "--skip")[0] == 0
    assert reader.section("datasets.pairs.images")["on_error"] == "skip"
    manifest = prepared("pairs", tmp_path)
    assert len(manifest.skipped) == 2 and sum(one.source.n for one in manifest.splits.values()) == 18


def test_what_is_broken_is_not_counted_and_a_split_of_which_nothing_is_left_is_refused(repository, tmp_path, capsys):
    for split, n in (("train", 5), ("val", 2), ("test", 2)):
        for side in "AB":
            for number in range(n):
                draw(repository / "pairs" / split / side / f"{number}.png", (32, 32))
    (repository / "pairs/train/A/0.png").write_bytes(b"x")
    (repository / "pairs/test/A/0.png").write_bytes(b"x")
    code, said, _ = run(capsys, "add", "pairs", "--skip")
    assert code == 0 and "  splits    train 4, val 2, test 1\n" in said
    assert {name: one.source.n for name, one in prepared("pairs", tmp_path).splits.items()} == {
        "train": 4,
        "val": 2,
        "test": 1,
    }
    before = (repository / "params.yaml").read_bytes()
    (repository / "pairs/test/B/1.png").write_bytes(b"x")
    for more in ([], ["--skip", "--name", "mine"], ["--name", "mine"]):
        code, said, error = run(capsys, "add", "pairs", *more)
        assert code == 1 and "train 4, val 2, test 0\n" in said and "over 0 test images" not in said
        assert error == (
            "repix add: 3 images cannot be used, and nothing is left of test: mend them, or add others\n"
        ), error
    assert (repository / "params.yaml").read_bytes() == before


def test_a_row_of_hdf5_that_cannot_be_used_leaves_the_others_in_the_count(repository, capsys, monkeypatch):
    from repix.data import survey

    book(repository / "mine")
    read = survey.hdf5.read_row

    def damaged(path, row):
        if row == 1:
            raise OSError("a damaged chunk")
        return read(path, row)

    monkeypatch.setattr(survey.hdf5, "read_row", damaged)
    code, said, _ = run(capsys, "add", "mine", "--skip")
    assert code == 0 and "unusable  testing/images/data.h5[1]: cannot be decoded: a damaged chunk" in said
    assert re.search(r"splits    train \d+, (val \d+, )?test 2\b", said), said


@pytest.mark.parametrize(
    ("folders", "size", "said"),
    [
        (("{}/A", "{}/B"), (32, 32), "your val/A/ and val/B/"),
        (("A/{}", "B/{}"), (32, 32), "your A/val/ and B/val/"),
        (("set/{}",), (32, 64), "your set/val/"),
    ],
)
def test_a_val_that_becomes_the_test_is_told(repository, capsys, folders, size, said):
    for folder in folders:
        for number in range(12):
            draw(repository / "mine" / folder.format("train") / f"{number}.png", size)
        for number in range(4):
            draw(repository / "mine" / folder.format("val") / f"{number}.png", size)
    _, out, _ = run(capsys, "add", "mine", "--dry-run")
    splits = r"  splits    train \d+, val \d+, test 4 \(by the hashes of names: val_fraction [\d.]+; "
    assert re.fullmatch(rf"{splits}test: {said}, since there is no test/\)", out.splitlines()[1]), out
    for folder in folders:
        draw(repository / "mine" / folder.format("test") / "0.png", size)
    _, out, _ = run(capsys, "add", "mine", "--dry-run")
    assert out.splitlines()[1] == "  splits    train 12, val 4, test 1"


@pytest.mark.parametrize(
    ("splits", "renames"),
    [
        (("Train", "Val", "Test"), "Test to test, Train to train, Val to val"),
        (("training", "validation", "testing"), "testing to test, training to train, validation to val"),
        (("train", "valid", "test"), "valid to val"),
        (("train", "val", "eval"), "eval to test"),
    ],
)
def test_folders_that_nearly_have_the_names_of_splits_are_to_be_renamed(repository, capsys, splits, renames):
    for split in splits:
        for side in "AB":
            for number in range(3):
                draw(repository / "mine" / split / side / f"{number}.png", (32, 32))
    for more in ([], ["--layout", "folders"]):
        assert run(capsys, "add", "mine", *more) == (
            1,
            "",
            f"repix add: mine: splits are train, val and test: rename {renames}; or move away what is of no split\n",
        )
    for rename in renames.split(", "):
        old, new = rename.split(" to ")
        (repository / "mine" / old).rename(repository / "mine" / new)
    code, said, _ = run(capsys, "add", "mine")
    assert code == 0 and "  splits    train 3, val 3, test 3\n" in said


@pytest.mark.parametrize(
    "others",
    [
        ("results/train", "results/eval"),
        ("samples/training", "samples/testing"),
        ("evaluation/plots",),
        ("docs/dev", "docs/tests"),
    ],
    ids=lambda others: others[0],
)
def test_folders_that_are_no_splits_of_a_set_keep_their_names(repository, capsys, others):
    for split in ("train", "val", "test"):
        for side in "AB":
            for number in range(3):
                draw(repository / "mine" / split / side / f"{number}.png", (32, 32))
    for folder in others:
        draw(repository / "mine" / folder / "plot.png", (32, 32))
    code, said, _ = run(capsys, "add", "mine", "--no-measure")
    assert code == 0 and "  splits    train 3, val 3, test 3\n" in said


def test_several_sets_in_one_folder_are_told_what_to_do(repository, capsys):
    for folder in ("one/A", "one/B", "two/A", "two/B"):
        draw(repository / "mine" / folder / "1.png", (32, 32))
    code, out, error = run(capsys, "add", "mine")
    assert code == 1 and out == "" and "fits at several places: one/A, one/B, two/A, two/B; " in error
    assert error.endswith("; keep the images of one of them, and move the others away\n")


def test_the_sides_of_a_set_are_told_apart_by_their_folders(repository, capsys):
    for split in ("train", "test"):
        for side in "AB":
            for number in range(3):
                draw(repository / "mine/set" / side / split / f"{number}.png", (32, 32))
    code, said, _ = run(capsys, "add", "mine", "--direction", "BtoA")
    assert code == 0 and "  source    set/B/train: 32 x 32 px" in said and "  target    set/A/train: 32 x 32" in said


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("more", [[], ["--layout", "single"]])
def test_grey_images_alone_are_no_photos_to_colour(repository, capsys, mode, more):
    for number in range(12):
        path = repository / "mine" / f"{number}.png"
        draw(path, (32, 32), "gray")
        Image.open(path).convert(mode).save(path)
    before = (repository / "params.yaml").read_bytes()
    code, out, error = run(capsys, "add", "mine", *more)
    assert code == 1 and out == "" and error.count("\n") == 1 and (repository / "params.yaml").read_bytes() == before
    assert error.startswith("repix add: mine: all images are grey, and colourisation has no colour to learn: likely ")
    assert "one half of pairs; move each half into a folder of its own" in error and "--layout aligned" in error
    draw(repository / "mine" / "12.png", (32, 32))  # one that has colour is enough
    assert run(capsys, "add", "mine", *more)[0] == 0


def test_images_that_cannot_be_converted_to_what_most_are_cannot_be_used(repository, tmp_path, capsys):
    many_channels(repository / "mine")
    draw(repository / "mine/A/3.npy", (48, 48))
    code, said, error = run(capsys, "add", "mine")
    assert code == 1 and "unusable  A/3.npy: has 3 channels (RGB), expected 5" in said and "by --skip" in error
    assert run(capsys, "add", "mine", "--skip")[0] == 0 and "A/3.npy" in prepared("mine", tmp_path).skipped[0].file
    for number in range(12):
        draw(repository / "photos" / f"{number}.npy", (48, 48), "five")
    code, said, error = run(capsys, "add", "photos")
    assert code == 1 and "unusable  1.npy: has 5 channels; only colour: raw takes other than gray and RGB" in said
    assert "12 images cannot be used, and nothing is left of train" in error
    # As an entry says it, which is read by its own settings.
    draw_pairs(repository / "pairs", 12, (32, 32))
    assert run(capsys, "add", "pairs")[0] == 0
    draw(repository / "pairs/label/3_label.png", (32, 32), "gray", bits=16)
    (repository / "pairs/label/3_label.bmp").unlink()
    code, said, error = run(capsys, "add", "pairs")
    assert code == 1 and "unusable  label/3_label.png: has 16 bits per channel, expected 8" in said
    params = repository / "params.yaml"
    params.write_text(
        params.read_text().replace("crop_size: 32\n      val", "crop_size: 32\n      resize: crop\n      val")
    )
    draw(repository / "pairs/photo/4_photo.jpg", (30, 32))
    code, said, error = run(capsys, "add", "pairs")
    assert code == 1 and "unusable  photo/4_photo.jpg: 30x32 under resize: crop, smaller than crop_size 32x32" in said


def test_images_without_partner_are_named_as_the_user_knows_them(repository, capsys):
    draw_pairs(repository / "pairs", 12, (32, 32))
    draw(repository / "pairs/label/99_label.png", (32, 32))
    code, _, error = run(capsys, "add", "pairs")
    assert code == 1 and "A = pairs/label, B = pairs/photo: 1 images without a partner" in error
    assert "A has 99_label.png" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("_A", "_B"), "names end in _B and in _A: these are pairs in one folder"),
        (("", "_mask"), "names end in _mask and without it: these are pairs in one folder"),
    ],
)
def test_pairs_in_one_folder_are_not_taken_for_photos(repository, capsys, ends, said):
    for i in range(12):
        for end in ends:
            draw(repository / "mine" / f"{i}{end}.png", (32, 32))
    code, _, error = run(capsys, "add", "mine")
    assert code == 1 and said in error and error.count("\n") == 1
    for i in range(12):
        (repository / "mine" / f"{i}{ends[1]}.png").unlink()
    assert run(capsys, "add", "mine")[0] == 0 and reader.section("datasets.mine.images")["layout"] == "single"


def test_what_is_no_set_is_told_by_the_name_that_was_given(repository, capsys):
    (repository / "page.zip").write_text("<!doctype html>" + " " * 600)
    (repository / "empty").mkdir()
    (repository / "texts").mkdir()
    (repository / "texts" / "a.txt").write_text("hello")
    before = (repository / "params.yaml").read_bytes()
    for path, said in (
        ("page.zip", "file:page.zip: is a web page, not an archive"),
        ("empty", "repix add: empty: holds no files"),
        ("texts", r"texts: holds no images that repix reads; they end in \.avif \.bmp .* \.webp\n$"),
    ):
        code, out, error = run(capsys, "add", path)
        assert code == 1 and out == "" and error.count("\n") == 1
        assert re.search(said, error), error
    assert ".repix" not in error and (repository / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("more", [0, 2])
def test_sets_named_as_those_of_cyclegan_are_no_pairs_whatever_their_files_are_called(repository, capsys, more):
    for folder in ("trainA", "trainB", "testA", "testB"):
        for number in range(4 + more * folder.endswith("B")):
            draw(repository / "mine" / folder / f"{number}.png", (64, 64), seed=number)
    code, said, _ = run(capsys, "add", "mine", "--dry-run")
    first = said.splitlines()[0]
    assert code == 0 and first.startswith("mine: layout unaligned") and "if they are pairs: --layout folders" in first
    assert "[cyclegan]" in said and f"few tests a score is a mean over {4} test images" in said
    code, said, _ = run(capsys, "add", "mine", "--layout", "folders")
    assert (code, "layout folders" in said) == ((0, True) if not more else (1, False))


def test_images_in_no_folder_of_their_own_go_by_the_name_of_the_set(repository, capsys):
    photos(repository / "mine")
    code, said, _ = run(capsys, "add", "mine", "--name", "shots")
    assert code == 0 and re.search(r"^  source    shots: ", said, re.MULTILINE), said


@pytest.mark.parametrize("path", ["stack/scan.tif", "stack"])
def test_a_stack_of_pages_is_told_what_to_do(repository, capsys, path):
    draw(repository / "stack" / "scan.tif", (64, 64))
    before = (repository / "params.yaml").read_bytes()
    code, out, error = run(capsys, "add", path)
    assert code == 1 and out == "" and error.count("\n") == 1
    assert "one image" in error and "write the pages of a stack as single files" in error, error
    assert (repository / "params.yaml").read_bytes() == before


def test_a_training_that_hardly_begins_is_told_how_many_epochs_do(repository, monkeypatch, capsys):
    draw_pairs(repository / "pairs")
    code, said, _ = run(capsys, "add", "pairs", "--name", "few")
    train = int(re.search(r"train (\d+)", said)[1])
    recipe = reader.read("models.pix2pix", Recipe)
    assert code == 0 and train * recipe.epochs > add.SHORT and "few steps" not in said
    sizes = {"pix2pix": 2, "pix2pix_small": 1}
    monkeypatch.setattr(add, "cost", lambda model, *_: add.Cost({"generator": (sizes[model], "9 px")}, None))
    code, said, _ = run(capsys, "add", "pairs", "--name", "unmeasured", "--no-measure")
    assert said.splitlines()[-1].endswith("'run.models=[pix2pix_small]' -S models.pix2pix_small.epochs=48"), said
    price = add.Cost({"generator": (1, "9 px")}, 100.0)
    small = reader.read("models.pix2pix_small", Recipe)
    (last,) = add._few_steps_lines(small, price, 21)
    assert last == "  few steps 48 epochs, as the command below has it, are 1,008 steps, in 2 min"
    assert add.long_enough(small, 21).epochs == 48 and add.long_enough(small, 84) == small
    assert add._few_steps_lines(small, price, 84) == []
    # Of an entry that leaves epochs at their default DVC would refuse to set them.
    params = yaml12.load(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml")
    del params["models"]["pix2pix_small"]["epochs"]
    monkeypatch.setattr(add, "SHORT", 10_000)
    Path("params.yaml").write_text(yaml12.dump(params), encoding="utf-8")
    code, said, error = run(capsys, "add", "pairs", "--name", "default", "--no-measure", "--dry-run")
    assert said.splitlines()[-1].endswith(" -S ++models.pix2pix_small.epochs=477"), said + error


@pytest.mark.parametrize("size", [(64, 64), (130, 130)])
@pytest.mark.parametrize("ms", [None, 10_000_000.0])
def test_unmeasured_or_too_long_anyway_the_smallest_is_proposed_at_any_size(size, ms, repository, capsys, monkeypatch):
    draw_pairs(repository / "pairs", 12, size)

    def cost(model, *_):
        small = model == "pix2pix_small"
        return add.Cost({"generator": (10 if small else 99, "9 px")}, ms and (ms / 16 if small else ms / 2))

    monkeypatch.setattr(add, "cost", cost)
    _, said, _ = run(capsys, "add", "pairs")
    assert "pix2pix: gen" in said and "run.models=[pix2pix_small]" in said, said


def test_a_recipe_is_as_long_as_the_command_makes_it():
    small = reader.read("models.pix2pix_small", Recipe)
    price = add.Cost({"generator": (1, "9 px")}, 4000.0)
    assert add.seconds(small, price, 2) < add.LONG < add.seconds(add.long_enough(small, 2), price, 2)
    assert not add.is_short(small, price, 2)


@pytest.mark.parametrize(("word", "meant"), [("tranlsate", "translate"), ("resluts", "results"), ("trian", "train")])
def test_a_word_that_is_typed_wrong_is_answered_by_the_nearest(word, meant, capsys):
    code, out, error = run(capsys, word, "x")
    assert code == 2 and out == ""
    assert error == f"repix: there is no `repix {word}`: did you mean `repix {meant}`?\n"
    code, _, error = run(capsys, "zzzz")
    assert code == 2 and error == "repix: there is no `repix zzzz`: `repix --help` lists what there is\n"


def test_an_archive_by_path_and_over_the_network(repository, tmp_path, capsys):
    draw_pairs(tmp_path / "site" / "pairs", 12, (32, 32))
    with zipfile.ZipFile(tmp_path / "site" / "set.v1.zip", "w") as archive:
        for file in sorted((tmp_path / "site" / "pairs").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "site"))
    assert run(capsys, "add", str(tmp_path / "site" / "set.v1.zip"), "--name", "local")[0] == 0
    local = reader.section("datasets.local")
    assert local["archive"]["urls"] == [f"file://{tmp_path}/site/set.v1.zip"]

    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/set.v1.zip"
        code, said, _ = run(capsys, "add", url)
        server.shutdown()
    assert code == 0 and "run.datasets=[set]" in said
    over = reader.section("datasets.set")
    assert (
        over["archive"] == {"urls": [url], "sha256": local["archive"]["sha256"]} and over["images"] == local["images"]
    )
    # The download stage needs the server no more.
    record = sources.fetch(
        (url,), over["archive"]["sha256"], tmp_path / "raw", dataset="set", max_bytes=1 << 30, work=".repix/downloads"
    )
    assert record.pinned and not list((repository / ".repix").glob("*add*"))


def test_nothing_is_written_in_a_dry_run_nor_into_a_file_that_is_written_otherwise(repository, capsys):
    draw_pairs(repository / "pairs", 12, (32, 32))
    params = repository / "params.yaml"
    before = params.read_bytes()
    assert run(capsys, "add", "pairs", "--dry-run")[0] == 0 and params.read_bytes() == before
    tree = yaml12.load(params.read_text(encoding="utf-8"), "params.yaml")
    text = yaml12.dump({key: value for key, value in tree.items() if key != "datasets"})
    params.write_text(f"{text}datasets: {{sample: {{archive: {{urls: [x]}}}}}}\n")
    before = params.read_bytes()
    code, _, error = run(capsys, "add", "pairs")
    assert code == 1 and "add this to it by hand:\npairs:\n  archive:\n" in error and params.read_bytes() == before


def test_a_long_training_is_followed_by_a_shorter_recipe(repository, capsys, monkeypatch):
    draw_pairs(repository / "pairs", 12, (130, 130))
    asked = []

    def cost(model, *_):
        asked.append(model)
        return add.Cost({"generator": (10, "9 px")}, 3000.0 if model == "pix2pix" else 10.0)

    monkeypatch.setattr(add, "cost", cost)
    _, said, _ = run(capsys, "add", "pairs")
    assert asked == ["pix2pix", "pix2pix_small"] and "run.models=[pix2pix_small]" in said
    assert re.search(r"200 epochs are 1,\d00 steps of 3000 ms on this machine: (?:1?\d\d min|1\.\d h)", said)


def test_what_a_recipe_costs_is_computed_by_its_networks():
    recipe = reader.read("models.pix2pix_small", Recipe)
    images = Dataset.model_validate({"archive": {"urls": ["file:x"]}, "images": {"crop_size": 32, "load_size": 32}})
    found = add.cost("pix2pix_small", recipe, images.images, (32, 32), measure=True)
    # 4 x 4 convolutions: 6 -> 16, 16 -> 32 (norm), 32 -> 64 (norm), 64 -> 1; biases of the first and the last.
    assert found.networks["discriminator"] == (16 * (6 * 16 + 16 * 32 + 32 * 64 + 64) + 16 + 1 + 2 * (32 + 64), "34 px")
    assert found.networks["generator"][1] == "whole image" and 0 < found.ms < 10_000
    said = add.cost("pix2pix_small", recipe, images.images, (33, 33), measure=False)
    assert "a U-Net of depth 2 cannot halve 33 x 33 px" in said


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        ({(200, 300): 30}, (192, 320)),
        ({(256, 256): 5}, (256, 256)),
        ({(1024, 1024): 5, (1000, 1040): 3}, (256, 256)),
        ({(600, 800): 9}, (256, 320)),
        ({(28, 28): 9}, (32, 32)),
        ({(3, 3): 9}, (4, 4)),
        ({(300, 200): 5, (200, 300): 5}, (192, 192)),
    ],
)
def test_sizes_that_leave_a_network_its_depth(sizes, crop):
    assert proposal.crop_size(Counter(sizes)) == crop
    assert all(a >= b for a, b in zip(load_size(crop), crop, strict=True))
    unet = reader.read("models.pix2pix", Recipe)
    assert halving.warning(unet, crop) is None


def test_a_size_that_makes_a_toy_of_the_network_is_a_warning(repository, capsys):
    unet, resnet = (reader.read(f"models.{name}", Recipe) for name in ("pix2pix", "cyclegan"))
    said = halving.warning(unet, (200, 300))
    assert "crop_size 200 x 300 can be halved only 2 times" in said
    assert "crop_size: [192, 320] can be halved 6 times" in said
    assert halving.warning(resnet, (200, 300)) is None
    shallow = unet.model_copy(update={"generator": unet.generator.model_copy(update={"depth": 2})})
    assert halving.warning(shallow, (200, 300)) is None  # as it was asked for
    for size in (32, 64, 72, 96, 100, 256, (192, 320)):
        assert (halving.warning(unet, size) is None) == (size != 100), size
    params = repository / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("load_size: 64, crop_size: 64", "load_size: [200, 300], crop_size: [200, 300]"))
    code, out, error = run(capsys, "check")
    assert code == 0 and out == "sample-pix2pix_small-0 can run\n"
    assert error.startswith("repix check: warning: params.yaml: models.pix2pix_small on datasets.sample: crop_size 200")


@pytest.mark.parametrize("word", sorted(cli.INSTEAD))
def test_words_that_people_type_are_answered_by_the_command_that_does_it(word, capsys):
    assert word not in cli.COMMANDS
    code, out, error = run(capsys, word, "--epochs", "3")
    assert code == 2 and out == "" and error.count("\n") == 1
    assert error.startswith(f"repix: there is no `repix {word}`: `")
    named = re.search(r"`(?:repix|dvc|make) ([a-z]+)", error.partition(": `")[2].join(("`", "")))[1]
    assert named in {*cli.COMMANDS, "exp", "repro", "metrics", "checkout", "ui"}


def test_equal_files_are_packed_to_equal_bytes_whatever_lies_around_them(tmp_path):
    draw_pairs(tmp_path / "one", 40, (8, 8))
    draw(tmp_path / "one" / unicodedata.normalize("NFD", "é.png"), (8, 8))  # as macOS spells it
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    (tmp_path / "two" / ".DS_Store").write_text("x")
    (tmp_path / "two" / ".git").mkdir()
    (tmp_path / "two" / "label" / "0_label.png").chmod(0o600)
    linked = tmp_path / "two" / "photo"
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    streams = io.BytesIO(), io.BytesIO()
    for name, stream in zip(("one", "two"), streams, strict=True):
        packing.write_tar(tmp_path / name, stream)
    assert streams[0].getvalue() == streams[1].getvalue()
    with tarfile.open(fileobj=io.BytesIO(streams[0].getvalue())) as tar:
        names = tar.getnames()
        assert names == sorted(names) and len(names) == 81 and unicodedata.normalize("NFC", "é.png") in names
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in tar} == {(0, 0, 0, "", 0o644)}
    assert packing.digest(tmp_path / "two") == packing.digest(tmp_path / "one")
    (tmp_path / "two" / "loop").symlink_to(tmp_path / "two")
    with pytest.raises(Exception, match=r"loop: a link to a folder that holds it"):
        packing.digest(tmp_path / "two")
    (tmp_path / "one" / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(Exception, match=r"gone: a link to nothing"):
        packing.digest(tmp_path / "one")


def test_a_relative_folder_holds_in_a_temporary_copy_of_the_repository(repository, tmp_path, monkeypatch):
    """`dvc exp run --temp` and `--queue` run in a copy that has only what git holds."""
    draw_pairs(repository / "pairs", 3, (8, 8))
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("repix.paths.ORIGIN", repository)
    record = sources.fetch(["file:pairs/"], None, "raw", dataset="pairs", max_bytes=1 << 20, work="work")
    assert record == Archive.read(tmp_path / "copy/raw/archive.json") and record.file == "pairs.tar"
    assert record.sha256 == packing.digest(repository / "pairs")
    with pytest.raises(Exception, match=r"more than the 100 of limits.download_bytes"):
        sources.fetch(["file:pairs/"], None, "raw", dataset="pairs", max_bytes=100, work="work")


@pytest.mark.parametrize("folder", ["2024-01-05", "true", "1e5"])
def test_a_name_is_text_to_yaml(repository, capsys, folder):
    draw_pairs(repository / folder, 12)
    assert run(capsys, "add", folder, "--no-measure")[0] == 0
    added = (
        reader.section("datasets").keys()
        - yaml12.load((ROOT / "params.yaml").read_text("utf-8"), "x")["datasets"].keys()
    )
    assert added == {"set_" + folder.replace("-", "_")}
    code, _, error = run(capsys, "add", folder, "--name", "2024", "--no-measure")
    assert code == 1 and error.splitlines()[-1] == (
        "repix add: --name 2024: is no text to YAML; begin it with a letter, such as set_2024"
    )


def test_the_first_set_of_a_file_without_any(repository, capsys):
    draw_pairs(repository / "pairs", 12)
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    start, end = text.index("\ndatasets:"), text.index("\nmodels:")
    (repository / "params.yaml").write_text(f"{text[:start]}\ndatasets:\n{text[end:]}", encoding="utf-8")
    assert run(capsys, "add", "pairs", "--no-measure")[0] == 0
    assert list(reader.section("datasets")) == ["pairs"]


def test_a_folder_of_which_no_fraction_leaves_enough_is_one_line(repository, capsys):
    """Of a dozen images their names decide, and of those of one folder in a thousand they hold out too few."""
    places = {f"{i}.png": layouts._place(layouts.Item(Path(), f"{i}.png")) / 2**64 for i in range(300)}
    few = [name for name, place in places.items() if place < 0.5][:11]
    few += [name for name, place in places.items() if place > 0.95][:1]
    for name in few:
        draw(repository / "set" / name, (64, 128))
    code, _, error = run(capsys, "add", "set", "--no-measure", "--layout", "aligned")
    assert code == 1 and error.count("\n") == 1
    assert error.startswith("repix add: set: of 12 images no fraction leaves enough for test; add some"), error


def test_images_that_all_fail_beyond_those_that_are_decoded(repository, capsys, monkeypatch):
    from repix.data import survey

    monkeypatch.setattr(survey, "DECODED", 4)
    for side in "AB":
        for i in range(8):
            draw(repository / "pairs" / side / f"{i}.png", (8, 8))
            Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(repository / "pairs" / side / f"{i}.png")
    code, _, error = run(capsys, "add", "pairs", "--no-measure")
    assert code == 1 and error.startswith("repix add: no image of it can be used: ") and "\n" not in error.strip()


def test_a_file_of_both_sides_is_decoded_once(repository, capsys, monkeypatch):
    from repix.data import survey

    for i in range(12):
        draw(repository / "set" / f"{i}.png", (64, 128), seed=i)
    asked = []
    plain = survey.images.decode
    monkeypatch.setattr(survey.images, "decode", lambda path, limit: asked.append(path) or plain(path, limit))
    assert run(capsys, "add", "set", "--no-measure", "--layout", "aligned")[0] == 0
    assert len(asked) == len(set(asked)) == 12


def test_options_that_an_entry_already_answers_are_refused(repository, capsys):
    draw_pairs(repository / "pairs", 12)
    assert run(capsys, "add", "pairs", "--no-measure")[0] == 0
    for option in (["--skip"], ["--layout", "folders"], ["--direction", "BtoA"]):
        code, _, error = run(capsys, "add", "pairs", "--no-measure", *option)
        assert code == 1 and "datasets.pairs is there already" in error


def test_a_folder_whose_name_is_no_utf_8_is_added_and_packed(repository, capsys):
    folder = repository / "pairs\udcff"
    for number in range(12):
        draw(folder / f"{number}.png", (20, 40))
    code, _, err = run(capsys, "add", os.fspath(folder), "--name", "odd", "--no-measure")
    assert (code, err) == (0, "")
    assert yaml12.read(Path("params.yaml"))["datasets"]["odd"]["archive"]["urls"] == ["file:pairs%FF/"]
    assert sources.changed(["file:pairs%FF/"], "0" * 64, repository / "none.json", Digests(repository)) is None


def test_two_at_once_take_turns(repository, capsys, monkeypatch):
    """Each reads params.yaml and writes it anew: one would take the other's entry away."""
    for number in range(12):
        draw(repository / "pairs" / f"{number}.png", (20, 40))
    read, write, turns = editing.with_entry, add.replace_text, []

    def in_turn(function):
        def called(*given):
            with pytest.raises(TimeoutError), locked(paths.WORK / "add.lock", "another", seconds=0):
                pass
            turns.append(function)
            return function(*given)

        return called

    monkeypatch.setattr(editing, "with_entry", in_turn(read))
    monkeypatch.setattr(add, "replace_text", in_turn(write))
    assert run(capsys, "add", "pairs", "--no-measure")[0] == 0
    assert turns == [read, write]


def test_of_two_at_once_with_one_name_the_second_is_told(repository, capsys, monkeypatch):
    for number in range(12):
        draw(repository / "pairs" / f"{number}.png", (20, 40))
    text = (repository / "params.yaml").read_text()
    other = editing.with_entry(text, "pairs", add.entry_text("pairs", "file:other/", None, {}))
    cost = add.cost

    def meanwhile(*given):
        (repository / "params.yaml").write_text(other)
        return cost(*given)

    monkeypatch.setattr(add, "cost", meanwhile)
    code, _, error = run(capsys, "add", "pairs")
    assert code == 1 and error == (
        "repix add: params.yaml got an entry datasets.pairs meanwhile; choose another --name\n"
    )
    assert (repository / "params.yaml").read_text() == other


def test_too_few_and_too_many_folders_are_told_what_to_do(repository, capsys):
    draw_pairs(repository / "one", 1, (32, 32))
    draw_pairs(repository / "pairs", 8, (32, 32))
    for number in range(3):
        draw(repository / "pairs/depth" / f"{number}.png", (32, 32))
    for path, said in (
        ("one", "one: holds one image of each side; train and test take two at least"),
        ("pairs", "pairs: 3 folders of images (depth, label, photo); pairs lie in two: move the others away"),
    ):
        assert run(capsys, "add", path) == (1, "", f"repix add: {said}\n")


def test_a_name_that_ends_otherwise_does_not_make_two_sets_of_pairs_unseen(repository, capsys):
    draw_pairs(repository / "pairs", 8, (32, 32))
    draw(repository / "pairs/label/odd.png", (32, 32))
    code, _, error = run(capsys, "add", "pairs", "--dry-run")
    assert code == 1 and "1 images without a partner of the same name" in error and "A has odd.png; rename" in error
    for number in range(8):  # as many of another kind: then they may be two sets
        draw(repository / f"pairs/label/{'abcdefgh'[number]}.png", (32, 32))
    code, said, _ = run(capsys, "add", "pairs", "--dry-run")
    assert code == 0 and "(if they are pairs: --layout folders names the images without a partner)" in said
    code, _, error = run(capsys, "add", "pairs", "--layout", "folders")
    assert code == 1 and "images without a partner of the same name" in error
