"""``repix translate``: options from the model, names that last, nothing half-written, failures by name."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from checks.support.cells import TinyCell, images

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing


@pytest.fixture(scope="module")
def cell(tmp_path_factory, tiny_cell) -> TinyCell:
    return tiny_cell(tmp_path_factory.mktemp("cell"))


@pytest.fixture(scope="module")
def exported(cell):
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    out = cell.root / "exports" / "tiny"
    export(TrainedModel(cell.trained), Prepared.open(cell.prepared), Export(formats=("keras",)), out)
    return out


def run(*arguments) -> int:
    """Run ``repix translate`` in this process; return its exit code."""
    from repix.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["translate", *map(str, arguments)])
    return stopped.value.code


def save(path, array):
    from repix.data.images import write

    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, array)
    return path


def read(path):
    from repix.data.images import decode

    return decode(path).pixels


def scored(cell, pixels, name="source_to_target", variant="last"):
    """Return what the evaluation would have scored."""
    from repix.inference.trained import TrainedModel

    model = TrainedModel(cell.trained)
    model.load(variant)
    return model.translator(name).translate(pixels[None])[0]


def test_the_trained_size_gives_what_was_scored_and_the_export_the_same(cell, exported, tmp_path):
    image = images(1, 1)[0]
    file = save(tmp_path / "a.b.png", image)
    assert run(cell.trained, file, "-o", tmp_path / "run") == 0
    assert run(exported, file, "-o", tmp_path / "export") == 0
    output = read(tmp_path / "run" / "a.b.png")
    assert np.array_equal(output, scored(cell, image))
    assert (tmp_path / "run" / "a.b.png").read_bytes() == (tmp_path / "export" / "a.b.png").read_bytes()
    assert run(cell.trained, file, "-o", tmp_path / "best", "--variant", "best") == 0
    assert np.array_equal(read(tmp_path / "best" / "a.b.png"), scored(cell, image, variant="best"))


@pytest.mark.parametrize(
    ("options", "ways"), [((), "whole"), (("--whole",), "whole"), (("--tile",), "tile"), (("--resize",), "resize")]
)
def test_other_sizes_come_back_at_their_own(cell, tmp_path, capsys, options, ways):
    file = save(tmp_path / "wide.png", images(2, 1, (21, 50))[0])
    assert run(cell.trained, file, "-o", tmp_path / "out", "--json", *options) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    written = {"input": str(file), "output": str(tmp_path / "out" / "wide.png"), "size": [21, 50], "how": ways}
    assert answer["written"] == [written] and answer["failed"] == []
    assert read(tmp_path / "out" / "wide.png").shape == (21, 50, 3)
    assert ("not of the trained 16 x 16 px" in said.err) == (not options)


def test_three_ways_of_another_size_differ(cell, tmp_path):
    file = save(tmp_path / "wide.png", images(2, 1, (32, 48))[0])
    outputs = []
    for way in ("whole", "tile", "resize"):
        assert run(cell.trained, file, "-o", tmp_path / way, f"--{way}") == 0
        outputs.append((tmp_path / way / "wide.png").read_bytes())
    assert len(set(outputs)) == 3


def test_folders_keep_their_folders_and_names_do_not_collide(cell, tmp_path, capsys):
    image = images(3, 1)[0]
    for name in ("in/a.png", "in/a.bmp.png", "in/A.tif", "in/sub/a.png", "in/.hidden.png", "in/notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            save(tmp_path / name, image)
    save(tmp_path / "other" / "a.png", image)
    given = (tmp_path / "in", tmp_path / "other" / "a.png", tmp_path / "in" / "a.png")
    assert run(cell.trained, *given, "-o", tmp_path / "in" / "out", "--json") == 0
    names = {entry["input"]: entry["output"] for entry in json.loads(capsys.readouterr().out)["written"]}
    relative = {k.removeprefix(f"{tmp_path}/"): v.removeprefix(f"{tmp_path}/in/out/") for k, v in names.items()}
    assert relative == {
        "in/A.tif": "A.png",
        "in/a.bmp.png": "a.bmp.png",
        "in/a.png": "a-2.png",
        "in/sub/a.png": "sub/a.png",
        "other/a.png": "a-3.png",
    }
    # What lies in the out folder is no input, though it lies in the input's folder.
    assert run(cell.trained, tmp_path / "in", "-o", tmp_path / "in" / "out", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) == 4


def test_broken_inputs_are_named_and_the_rest_is_translated(cell, tmp_path, capsys):
    good = save(tmp_path / "in" / "good.png", images(4, 1)[0])
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:200])
    (tmp_path / "in" / "text.jpg").write_text("no image")
    save(tmp_path / "in" / "deep.png", np.zeros((16, 16, 1), np.uint16))
    missing = tmp_path / "nowhere.png"
    assert run(cell.trained, tmp_path / "in", missing, "-o", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "1 of 5 images written" in said.out
    reasons = {"cut.png": "decoded", "text.jpg": "not an image", "deep.png": "16 bits", "nowhere": "no such"}
    for name, reason in reasons.items():
        assert any(name in line and reason in line for line in said.err.splitlines()), said.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_an_existing_output_is_replaced_whole_or_not_at_all(cell, tmp_path, monkeypatch):
    from repix.data import images as files

    file = save(tmp_path / "a.png", images(5, 1)[0])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"before")

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        assert run(cell.trained, file, "-o", tmp_path / "out") == 1
    assert (tmp_path / "out" / "a.png").read_bytes() == b"before"
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert run(cell.trained, file, "-o", tmp_path / "out") == 0
    assert read(tmp_path / "out" / "a.png").shape == (16, 16, 3)


def test_formats(cell, tmp_path):
    file = save(tmp_path / "a.png", images(6, 1)[0])
    expected = scored(cell, read(file))
    for kind, suffix in (("jpeg", ".jpg"), ("tiff", ".tif"), ("npy", ".npy")):
        assert run(cell.trained, file, "-o", tmp_path / "out", "--format", kind) == 0
        found = read(tmp_path / "out" / f"a{suffix}")
        assert np.array_equal(found, expected) if kind != "jpeg" else found.shape == expected.shape


def test_paper_mode_is_random_by_seed_and_repeatable(cell, tmp_path):
    file = save(tmp_path / "a.png", images(7, 1)[0])
    seen = []
    for number, options in enumerate(([], ["--paper"], ["--paper"], ["--paper", "--seed", "1"])):
        assert run(cell.trained, file, "-o", tmp_path / str(number), *options) == 0
        seen.append((tmp_path / str(number) / "a.png").read_bytes())
    assert seen[1] == seen[2]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_side_by_side_takes_the_source(cell, tmp_path, direction):
    from repix.files import read_json, write_json

    folder = tmp_path / "model"
    shutil.copytree(cell.trained, folder)
    record = read_json(folder / "trained.json")
    assert record["direction"] == "AtoB"
    write_json(folder / "trained.json", record | {"direction": direction})
    a, b = images(8, 2)
    pair = save(tmp_path / "pair.png", np.concatenate([a, b], axis=1))
    assert run(folder, pair, "-o", tmp_path / "out", "--side-by-side") == 0
    assert np.array_equal(read(tmp_path / "out" / "pair.png"), scored(cell, a if direction == "AtoB" else b))
    odd = save(tmp_path / "odd.png", images(9, 1, (16, 33))[0])
    assert run(folder, odd, "-o", tmp_path / "out", "--side-by-side") == 1


def test_mistakes_are_one_line(cell, exported, tmp_path, capsys):
    file, out = save(tmp_path / "a.png", images(10, 1)[0]), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    mistakes = [
        ((tmp_path, file, "-o", out), "no trained.json"),
        ((cell.trained, file, "-o", file), "is not a folder"),
        ((cell.trained, file, "-o", tmp_path), "would be replaced"),
        ((cell.trained, tmp_path / "empty", "-o", out), "no images in it"),
        ((cell.trained, file, "-o", out, "--translator", "target_to_source"), "has no translator"),
        ((exported, file, "-o", out, "--variant", "best"), "exported from the last"),
    ]
    for arguments, reason in mistakes:
        assert run(*arguments) == 1
        said = capsys.readouterr().err
        assert reason in said and said.count("\n") == 1, said
    assert not out.exists()


def test_a_changed_export_is_refused(exported, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    with open(folder / "source_to_target" / "model.keras", "ab") as stream:
        stream.write(b"more")
    file = save(tmp_path / "a.png", images(11, 1)[0])
    assert run(folder, file, "-o", tmp_path / "out") == 1
    assert "not the file of export.json" in capsys.readouterr().err


def test_the_way_back_of_cyclegan(tmp_path, tiny_cell):
    cell = tiny_cell(tmp_path, "cyclegan")
    image = images(12, 1)[0]
    file = save(tmp_path / "a.png", image)
    assert run(cell.trained, file, "-o", tmp_path / "out", "--translator", "target_to_source") == 0
    assert np.array_equal(read(tmp_path / "out" / "a.png"), scored(cell, image, "target_to_source"))


def test_formats_that_cannot_hold_the_values_are_refused_at_once():
    from repix.data.colour import LAB_AB
    from repix.errors import UserError
    from repix.schemas import Side
    from repix.translation.model import choose_suffix

    def side(channels, bits):
        high = (2**bits - 1,) * channels
        return Side(
            channels=channels,
            dtype=f"uint{bits}",
            low=(0,) * channels,
            high=high,
            meaning=("c",) * channels,
            colour="raw",
        )

    assert choose_suffix(None, side(3, 16)) == ".png"
    assert choose_suffix(None, side(4, 8)) == ".tif"
    assert choose_suffix("jpeg", LAB_AB) == ".jpg"
    for kind, wrong in (("jpeg", side(1, 16)), ("jpg", side(4, 8)), ("png", side(5, 8))):
        with pytest.raises(UserError, match=f"format {kind}: holds"):
            choose_suffix(kind, wrong)


def test_a_file_may_have_any_name_that_a_disk_takes(cell, tmp_path, capfd):
    names = ["a\nrepix: all is well.png", "b\u202egnp.png", "c" * 251 + ".png", "d\udcff.png", "\x1b[31m.png", "-o.png"]
    for name in names:
        save(tmp_path / "in" / name, images(14, 1)[0])
    (tmp_path / "in" / "e\nbad.png").write_bytes(b"bad")
    assert run(cell.trained, tmp_path / "in", "-o", tmp_path / "out") == 1
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    said = capfd.readouterr().err
    assert f"repix translate: {tmp_path}/in/e\\nbad.png: cannot be decoded" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_links_to_one_file_are_as_many_inputs(cell, tmp_path, capsys):
    """DVC links equal files of a folder to one file of its cache."""
    store = save(tmp_path / "cache" / "one.png", images(13, 1)[0])
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("0.png", "1.png", "sub/0.png"):
        (tmp_path / "in" / name).symlink_to(store)
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "sub")
    (tmp_path / "in" / "sub" / "back").symlink_to(tmp_path / "in")  # a circle
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert run(cell.trained, tmp_path / "in", tmp_path / "in" / "0.png", "-o", tmp_path / "out", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    written = {one["output"].removeprefix(f"{tmp_path}/out/") for one in answer["written"]}
    assert written == {"0.png", "1.png", "sub/0.png", "again/0.png"}
    assert [(one["input"], one["reason"]) for one in answer["failed"]] == [
        (str(tmp_path / "in" / "gone.png"), "no such file")
    ]


def test_files_that_are_not_read_are_named(cell, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", images(14, 1)[0])
    (tmp_path / "in" / "b.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (tmp_path / "in" / "notes.txt").write_text("hello")
    assert run(cell.trained, tmp_path / "in", "-o", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "1 of 2 images written" in said.out
    assert "b.jxl: a file of the format JPEG XL, which is not read; convert it" in said.err
    assert f"1 files that are no images left out: {tmp_path}/in/notes.txt" in said.err


def test_pixels_are_limited_by_an_option_that_the_refusal_names(cell, tmp_path, capsys):
    file = save(tmp_path / "wide.png", images(2, 1, (20, 50))[0])
    assert run(cell.trained, file, "-o", tmp_path / "out", "--pixels", "999") == 1
    assert "50 x 20 = 1000 pixels; at most 999 are taken; --pixels raises it" in capsys.readouterr().err
    assert run(cell.trained, file, "-o", tmp_path / "out", "--pixels", "1000") == 0


def test_a_map_of_more_pixels_than_pillow_takes_is_read(tmp_path):
    from PIL import Image

    from repix.schemas import Side
    from repix.translation.pixels import read_source

    Image.new("1", (14000, 14000)).save(tmp_path / "map.png")
    gray = Side(channels=1, dtype="uint8", low=(0,), high=(255,), meaning=("gray",), colour="gray")
    assert read_source(tmp_path / "map.png", gray, None).shape == (14000, 14000, 1)
