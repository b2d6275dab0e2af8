"""From files to an exported model and back to files, for every kind of data, by the code of the stages."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.support.cells import recipe
from tests.conftest import library_convolutions, real_data

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing

COUNTS = {"train": 3, "val": 2, "test": 2}


class Route:
    """One data set's way through the stages.

    Attributes:
        prepared, model: what ``preprocess`` and ``train`` left.
        metrics: the record of ``evaluate``; its files lie in ``translations``.
        exports: what ``export`` left; each format was held against the network there.
    """

    def __init__(self, root: Path, tree: Path, entry: dict[str, Any], system: str = "pix2pix", **changes: Any):
        from repix.cells import Cell
        from repix.config.evaluation import Evaluate
        from repix.config.export import Export
        from repix.config.images import Images
        from repix.data import preprocess
        from repix.data.prepared import Prepared
        from repix.evaluation.evaluate import evaluate
        from repix.evaluation.validation import Validation
        from repix.exporting.export import export
        from repix.inference import trained
        from repix.inference.backend import backend_module
        from repix.tracking.animation import Frames
        from repix.training.checkpoint import Checkpoints
        from repix.training.loop import train
        from repix.training.result import record_of, write
        from repix.training.setup import set_up

        backend_module()
        self.root, self.translations = root, root / "translations"
        wanted = Images.model_validate({"resize": "none", "load_size": 16} | entry)
        preprocess.prepare(tree, wanted, root / "prepared", name="tiny")
        self.prepared = Prepared.open(root / "prepared")
        cell, asked = Cell("tiny", system, 0), recipe(system, epochs=1, picture_every=1, **changes)
        setup = set_up(cell, asked, self.prepared, flip=True)
        self.frames = Frames(root / "frames", "key", root / "animation")
        validation = Validation(self.prepared, setup.translators, self.frames.pictures)
        with library_convolutions():
            history, best = train(
                setup.step,
                asked,
                checkpoints=Checkpoints(root / "checkpoints", "key"),
                observer=self.frames,
                validate=validation.score if validation.possible else None,
                picture=validation.picture,
                best_of=setup.translator_weights,
                plan={
                    "cell": cell.name,
                    "paired": self.prepared.manifest.paired,
                    "recipe": asked.model_dump(mode="json"),
                },
            )
        profile = {"name": "portable"}
        state = setup.step.state()
        record = record_of(cell, asked, setup, state, self.prepared.manifest, history, best, "data", profile)
        self.run, self.exports = root / "runs" / cell.name, root / "exports" / cell.name
        write(self.run, record, state, best)
        self.model = trained.TrainedModel(self.run)
        self.metrics = evaluate(self.model, self.prepared, Evaluate(), self.translations)
        # Raises where a format does not follow the network within the tolerance.
        self.errors = export(self.model, self.prepared, Export(), self.exports)

    def outputs(self, translator: str = "source_to_target") -> list[np.ndarray]:
        """Return the written translations in the order of the split."""
        from repix.data.images import decode

        files = {path.stem: path for path in (self.translations / translator).iterdir()}
        split = self.prepared.split("test")
        names = split.names if translator == "source_to_target" else split.target_names
        assert sorted(files) == sorted(names)
        return [decode(files[name]).pixels for name in names]

    def served(self, translator: str = "source_to_target") -> np.ndarray:
        """Return what the SavedModel makes of the test split: stored integers both ways."""
        import tensorflow as tf

        split = self.prepared.split("test")
        given = np.asarray(split.source if translator == "source_to_target" else split.target)
        serve = tf.saved_model.load(str(self.exports / translator / "saved_model")).signatures["serving_default"]
        return np.concatenate([serve(image=tf.constant(image[None]))["translation"].numpy() for image in given])

    def translate(self, capsys, *inputs: Path, model: Path | None = None, options=()) -> list[np.ndarray]:
        """Return what ``repix translate`` makes of files, by their order."""
        from repix.cli import main
        from repix.data.images import decode

        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    "translate",
                    str(model or self.run),
                    *map(str, inputs),
                    "-o",
                    str(self.root / "out"),
                    "--json",
                    *options,
                ]
            )
        assert stopped.value.code == 0
        return [decode(one["output"]).pixels for one in json.loads(capsys.readouterr().out)["written"]]


def write_folders(tree: Path, a: dict[str, np.ndarray], b: dict[str, np.ndarray], suffixes=(".png", ".png")) -> Path:
    """Write split -> (n, h, w, c) of both sides as ``<split>/A`` and ``<split>/B``."""
    from repix.data.images import write

    for side, arrays, suffix in zip("AB", (a, b), suffixes, strict=True):
        for split, array in arrays.items():
            (tree / split / side).mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(array):
                write(tree / split / side / f"{number}{suffix}", image)
    return tree


def noise(seed: int, size=(16, 16), channels: int = 3, dtype=np.uint8) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    return {
        split: generator.integers(0, top, (n, *size, channels), dtype, endpoint=True) for split, n in COUNTS.items()
    }


def test_16_bit_grey_keeps_its_bits_from_file_to_exported_output(tmp_path, capsys):
    from repix.registry import FORMATS

    a, b = (noise(seed, channels=1, dtype=np.uint16) for seed in (0, 1))
    tree = write_folders(tmp_path / "images", a, b)
    entry = {"layout": "folders", "colour": "gray", "channels": [1, 1], "bit_depth": 16, "crop_size": 16}
    route = Route(tmp_path, tree, entry)
    assert np.array_equal(route.prepared.split("test").source, a["test"])
    assert route.prepared.split("test").target.dtype == np.uint16
    outputs = np.stack(route.outputs())
    assert outputs.dtype == np.uint16
    assert (outputs % 257 != 0).mean() > 0.9  # 8 bits widened would be multiples of 257
    assert np.abs(route.served().astype(int) - outputs).max() <= 1  # of 65,535: its sums have another order
    files = [tree / "test" / "A" / f"{i}.png" for i in range(2)]
    for model, options in ((route.run, ()), (route.exports, ("--backend", "keras"))):
        assert np.array_equal(route.translate(capsys, *files, model=model, options=options), outputs)
    # ONNX rounds within its tolerance, which at 16 bits is more than a level.
    found = np.stack(route.translate(capsys, *files, model=route.exports))
    assert np.abs(found.astype(int) - outputs).max() <= 0.5 + 32767.5 * FORMATS["onnx"].max_error
    scores = route.metrics.scores["source_to_target"]["last"]
    assert scores["l1"] > 0 and scores["ssim"] is not None


@pytest.mark.parametrize("suffixes", [(".npy", ".tif")])
def test_four_channels_go_in_and_come_out(tmp_path, capsys, suffixes):
    a, b = noise(2, channels=4), noise(3, channels=5)
    tree = write_folders(tmp_path / "images", a, b, suffixes)
    route = Route(tmp_path, tree, {"layout": "folders", "colour": "raw", "channels": [4, 5], "crop_size": 16})
    assert np.array_equal(route.prepared.split("test").source, a["test"])
    outputs = route.outputs()
    assert outputs[0].shape == (16, 16, 5)
    assert np.array_equal(route.served(), outputs)
    assert np.array_equal(route.translate(capsys, tree / "test" / "A"), outputs)
    assert (route.translations / "gallery" / "source_to_target" / "0.png").is_file()  # no browser shows the TIFF
    assert route.metrics.scores["source_to_target"]["last"]["fid"] is None


def test_sides_that_differ(tmp_path, capsys):
    """48 x 80 px, whose U-Net goes down to 3 x 5, and a grey source with a colour target."""
    a, b = noise(4, (48, 80)), noise(5, (48, 80))
    tree = write_folders(tmp_path / "images", a, b)
    entry = {"layout": "folders", "channels": [1, 3], "crop_size": [48, 80]}
    route = Route(tmp_path, tree, entry)
    assert route.prepared.split("test").source.shape == (2, 48, 80, 1)
    outputs = route.outputs()
    assert outputs[0].shape == (48, 80, 3)
    assert np.array_equal(route.served(), outputs)
    assert np.array_equal(route.translate(capsys, tree / "test" / "A"), outputs)
    assert route.metrics.protocol["images"]["source_to_target"]["size"] == [48, 80]


def test_hdf5_there_and_back_is_the_same_bytes(tmp_path):
    from checks.support.book import write_book_tree
    from repix.files import digest_tree

    a, b = noise(6, channels=1), noise(7, channels=1)
    write_book_tree(tmp_path / "book", {split: (a[split], b[split]) for split in COUNTS})
    entry = {"layout": "hdf5", "colour": "gray", "channels": [1, 1], "crop_size": 16, "direction": "BtoA"}
    route = Route(tmp_path, tmp_path / "book", entry)
    assert np.array_equal(route.prepared.split("test").source, b["test"])
    assert np.array_equal(route.served(), route.outputs())
    splits = {split: route.prepared.split(split) for split in COUNTS}
    write_book_tree(tmp_path / "again", {split: (found.target, found.source) for split, found in splits.items()})
    assert digest_tree(tmp_path / "again") == digest_tree(tmp_path / "book")


@pytest.mark.parametrize("system", ["pix2pix", "cyclegan"])
def test_lab_takes_photos_and_gives_photos(tmp_path, capsys, system):
    from repix.data.colour import rgb_to_lab
    from repix.data.images import write

    tree = tmp_path / "images"
    for split, array in noise(8).items():
        (tree / split).mkdir(parents=True)
        for number, image in enumerate(array):
            write(tree / split / f"{number}.png", image)
    entry = {"layout": "single", "colour": "lab", "channels": [1, 2], "crop_size": 16}
    route = Route(tmp_path, tree, entry, system)
    for translator in route.model.record.translators:
        outputs = route.outputs(translator)
        assert outputs[0].shape == (16, 16, 3) and outputs[0].dtype == np.uint8
        options = ("--translator", translator)
        assert np.array_equal(route.translate(capsys, tree / "test", options=options), outputs)
        assert route.metrics.scores[translator]["last"]["ssim"] is not None
    # At another size as well: the photo's own lightness stays, as far as the gamut allows.
    wide = np.repeat(np.linspace(60, 200, 40).astype(np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    write(tmp_path / "wide.png", wide)
    for way in ("--whole", "--tile", "--resize"):
        (painted,) = route.translate(capsys, tmp_path / "wide.png", options=(way,))
        light = rgb_to_lab(painted)[..., 0].astype(float) - rgb_to_lab(wide)[..., 0]
        assert painted.shape == wide.shape and np.abs(light).mean() < 600  # of 30000


def test_unpaired_both_ways(tmp_path, capsys):
    from repix.data.images import write

    tree = tmp_path / "images"
    for side, arrays in (("A", noise(9)), ("B", noise(10, channels=1))):
        for split, array in arrays.items():
            (tree / f"{split}{side}").mkdir(parents=True)
            # Unpaired sides need no equal counts.
            for number, image in enumerate(array if side == "A" else array[:-1]):
                write(tree / f"{split}{side}" / f"{number}.png", image)
    entry = {"layout": "unaligned", "channels": [3, 1], "crop_size": 16}
    route = Route(tmp_path, tree, entry, "cyclegan")
    assert {name: part["n"] for name, part in route.metrics.protocol["images"].items()} == {
        "source_to_target": 2,
        "target_to_source": 1,
    }
    for translator, folder in (("source_to_target", "testA"), ("target_to_source", "testB")):
        outputs = route.outputs(translator)
        assert np.array_equal(route.served(translator), outputs)
        for model in (route.run, route.exports):
            found = route.translate(capsys, tree / folder, model=model, options=("--translator", translator))
            assert np.array_equal(found, outputs)
        assert "unpaired" in route.metrics.protocol["l1"]["reason"]
    assert [path.name for path in route.frames.written] == [
        "key-source_to_target.gif",
        "key-target_to_source.gif",
    ]


def unpack_some(archive: Path, tree: Path, most: dict[str, int]) -> Path:
    """Unpack the first images of folders of an archive: folder's name -> how many."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        for folder, n in most.items():
            for name in [name for name in names if Path(name).parent.name == folder][:n]:
                file.extract(name, tree)
    return tree


def test_real_facades_without_pairs(tmp_path):
    archive = real_data("data/facades.zip")
    tree = unpack_some(archive, tmp_path / "images", {"trainA": 4, "trainB": 4, "testA": 3, "testB": 2})
    entry = {"layout": "unaligned", "direction": "BtoA", "resize": "resize_and_crop", "load_size": 36, "crop_size": 32}
    route = Route(tmp_path, tree, entry, "cyclegan")
    assert [len(route.outputs(name)) for name in ("source_to_target", "target_to_source")] == [2, 3]
    assert route.metrics.scores["target_to_source"]["last"]["swd"] > 0
    assert max(measured.max_error for measured in route.errors.values()) <= 1e-5


def test_real_photos_are_coloured(tmp_path, capsys):
    archive = real_data("data/bsds500.zip")
    tree = unpack_some(archive, tmp_path / "images", {"train": 6, "val": 2, "test": 2})
    entry = {"layout": "single", "colour": "lab", "channels": [1, 2], "resize": "resize_and_crop"}
    route = Route(tmp_path, tree, entry | {"load_size": 36, "crop_size": 32})
    scores = route.metrics.scores["source_to_target"]["last"]
    assert scores["ssim"] is not None and scores["swd"] > 0
    photo = sorted(tree.rglob("test/*.jpg"))[0]
    (painted,) = route.translate(capsys, photo)
    assert painted.shape in ((321, 481, 3), (481, 321, 3))
