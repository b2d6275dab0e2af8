"""The drawn façades: the same everywhere, varied, labelled in the CMP palette, and worth learning."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from repix.config import drawn
from repix.config.drawn import DEFAULTS
from repix.data import archives, synthetic
from repix.data.synthetic import PALETTE, draw_facade, stream, write_archive
from repix.errors import UserError
from repix.files import digest_arrays, digest_file, digest_tree
from tests.conftest import real_data

SMALL = {"size": "16", "train": "3", "val": "2", "test": "1"}


def colours(label: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, colour)) for colour in np.unique(label.reshape(-1, 3), axis=0)}


def write(folder, **options) -> dict[str, bytes]:
    """Return name -> bytes of a small drawn archive."""
    write_archive(folder / "a.tar", "facades", SMALL | options)
    with tarfile.open(folder / "a.tar", "r:") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_the_pixels_are_pinned():
    pairs = [draw_facade(0, split, index, 64) for split in ("train", "val", "test") for index in range(4)]
    arrays = {"label": np.stack([p[0] for p in pairs]), "photo": np.stack([p[1] for p in pairs])}
    assert arrays["photo"].shape == arrays["label"].shape == (12, 64, 64, 3)
    assert arrays["photo"].dtype == arrays["label"].dtype == np.uint8
    assert digest_arrays(arrays) == "adb22f0bccdd8c909dbba650a63ebb08130e66b83be73ea8b298ba97a99f68f3"


def test_a_stream_is_pinned_to_raw_philox():
    drawn = stream(7, "val", 3, purpose=1)
    raw = np.random.Philox(key=np.array([7, 1 << 48 | 1 << 40 | 3], dtype=np.uint64)).random_raw(2)
    assert drawn.integer(10, 19) == 10 + int(raw[0]) % 10
    assert drawn.uniform() == (int(raw[1]) >> 11) / 2**53


def test_noise_has_mean_0_and_variance_1():
    noise = stream(0, "train", 0, purpose=1).noise(200, 200)
    assert noise.shape == (200, 200)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.var() - 1) < 0.03


def test_seed_split_and_index_each_change_both_sides():
    pairs = [draw_facade(s, split, i, 32) for s in (0, 1) for split in ("train", "val", "test") for i in range(10)]
    assert len({label.tobytes() for label, _ in pairs}) == len(pairs)
    assert len({photo.tobytes() for _, photo in pairs}) == len(pairs)


def test_labels_use_the_palette_only_and_all_of_it():
    seen = set().union(*(colours(draw_facade(0, "train", index, 64)[0]) for index in range(60)))
    assert seen == set(PALETTE.values())


@pytest.mark.parametrize("size", [16, 17, 31, 96])
def test_odd_sizes_draw(size):
    for index in range(20):
        label, photo = draw_facade(1, "train", index, size)
        assert label.shape == photo.shape == (size, size, 3)
        assert colours(label) <= set(PALETTE.values())


def test_the_palette_is_that_of_the_cmp_facades():
    from PIL import Image

    labels = []
    with tarfile.open(real_data("data/facades.tar.gz")) as archive:
        for index in range(1, 25):
            with Image.open(archive.extractfile(f"facades/train/{index}.jpg")) as image:
                labels.append(np.asarray(image)[:, 256:].astype(int))
    labels = np.stack(labels)
    # JPEG blurs the edges, so a label's colour is the most frequent of those near to it.
    for name, colour in PALETTE.items():
        near = labels[np.abs(labels - colour).max(axis=-1) <= 24]
        assert len(near) > 500, name
        found, count = np.unique(near, axis=0, return_counts=True)
        assert np.abs(found[count.argmax()] - colour).max() <= 5, name


def test_a_constant_per_label_is_a_poor_photograph():
    """Within a label the photograph varies about as much as between labels."""
    inside, total = [], []
    for index in range(20):
        label, photo = draw_facade(0, "test", index, 64)
        flat = np.zeros(photo.shape)
        for colour in colours(label):
            mask = (label == colour).all(axis=2)
            flat[mask] = photo[mask].mean(axis=0)
        inside.append(((photo - flat) ** 2).mean())
        total.append(photo.reshape(-1, 3).var(axis=0).mean())
    assert np.mean(inside) > 0.4 * np.mean(total)


def test_most_of_the_photograph_follows_from_the_labels(monkeypatch):
    """Two renderings of one house differ by tint, dirt and noise only: far less than two houses do."""
    from repix.data import synthetic

    house = synthetic.compose(stream(0, "test", 0, purpose=0))
    one, two = (synthetic.Painter(house, stream(0, "test", k, purpose=1), 64).paint().astype(float) for k in (0, 1))
    other = draw_facade(0, "test", 1, 64)[1].astype(float)
    assert 1 < np.abs(one - two).mean() < 12
    assert np.abs(one - other).mean() > 2 * np.abs(one - two).mean()


def test_light_comes_from_above():
    """The wall below the top cornice is darker than the same wall a little further down."""
    darker = []
    for index in range(20):
        label, photo = draw_facade(0, "train", index, 64)
        cornice = (label == PALETTE["cornice"]).all(axis=2)
        row = int(np.flatnonzero(cornice.any(axis=1))[0]) + 3
        darker.append(photo[row].mean() < 0.85 * photo[row - 3].mean())
    assert np.mean(darker) > 0.9


def test_the_archive_has_the_layout_of_the_real_facades(tmp_path):
    packed = write(tmp_path)
    assert list(packed) == [f"facades/train/{k}.png" for k in (1, 2, 3)] + [
        "facades/val/1.png",
        "facades/val/2.png",
        "facades/test/1.png",
    ]
    label, photo = draw_facade(0, "val", 1, 16)
    both = pixels(packed["facades/val/2.png"])
    assert both.shape == (16, 32, 3)
    assert np.array_equal(both[:, :16], photo)
    assert np.array_equal(both[:, 16:], label)


def test_the_archive_and_its_tree_are_pinned(tmp_path):
    """The archive's bytes are part of the sample's identity; its tree is that of every version so far."""
    write(tmp_path)
    assert digest_file(tmp_path / "a.tar") == "60606ec81d7607a655ce697e95cec996bf2126192fc2776e45bda8695ebc951a"
    limits = {"max_bytes": 10**6, "max_files": 100, "max_ratio": 2.0}
    assert archives.unpack(tmp_path / "a.tar", tmp_path / "tree", **limits) == 6
    assert digest_tree(tmp_path / "tree") == "ddfc755c879a3127638880c5b9e71cd1107f0c0d50059604671b8b15389b9191"
    with tarfile.open(tmp_path / "a.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.mode, info.uname, info.gname) == (0, 0, 0, 0o644, "", "")


def test_counts_leave_the_images_alone_and_the_seed_does_not(tmp_path):
    first = write(tmp_path)
    fewer = write(tmp_path, train="1", val="0")
    assert fewer == {name: first[name] for name in ("facades/train/1.png", "facades/test/1.png")}
    other = write(tmp_path, seed="1")
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)


def test_the_default_is_540_pairs_of_64_pixels():
    assert DEFAULTS == {"size": 64, "train": 400, "val": 40, "test": 100, "seed": 0}


@pytest.mark.parametrize(
    ("generator", "options", "said"),
    [
        ("facade", {}, "did you mean 'facades'"),
        ("facades", {"sise": "64"}, "unknown option 'sise'; did you mean 'size'"),
        ("facades", {"size": "8"}, "size=8: expected 16 .. 1024; the nearest is 16"),
        ("facades", {"size": "4096"}, "the nearest is 1024"),
        ("facades", {"train": "0"}, "train=0: expected 1 .. 1000000; the nearest is 1"),
        ("facades", {"seed": "-1"}, "seed=-1: expected 0 .."),
        ("facades", {"size": "64.0"}, "size=64.0: expected an integer"),
        ("facades", {"size": ""}, "expected an integer"),
    ],
)
def test_what_is_not_allowed_is_named(tmp_path, generator, options, said):
    with pytest.raises(UserError, match=said.replace("..", r"\.\.")):
        write_archive(tmp_path / "a.tar", generator, options)
    assert not list(tmp_path.iterdir())


def test_every_generator_that_the_check_knows_is_one_that_draws():
    assert tuple(synthetic._DRAWERS) == drawn.GENERATORS
