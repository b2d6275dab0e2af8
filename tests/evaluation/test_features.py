"""Inception features: agreement with pytorch-fid on the same files, names, weights, cache."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checks.support.inception import random_network
from repix.errors import UserError
from repix.evaluation import features as module
from repix.evaluation.features import (
    PUBLISHED_SHA256,
    FeatureNetwork,
    as_rgb8,
    extract,
    load_network,
    metric_name,
)
from repix.evaluation.frechet import Statistics, frechet_distance
from repix.files import digest_file
from repix.schemas import Side
from tests.conftest import real_data

MIXED_6E = "inception/pt_inception-2015-12-05-to-mixed6e.pth"
MIXED_6E_SHA256 = "bc029001713850b227a1d6c354c0d79e6a97997821b05dffd014d4f28b13c738"


def side(colour, channels, dtype="uint8", high=255):
    return Side(
        channels=channels,
        dtype=dtype,
        low=(0,) * channels,
        high=(high,) * channels,
        meaning=("x",) * channels,
        colour=colour,
    )


def images(seed, n, brightness=0):
    """Return (n, 24, 20, 3) uint8 blocks of colour, so that all layers have something to see."""
    blocks = np.random.default_rng(seed).integers(0, 200, (n, 6, 5, 3)) + brightness
    return blocks.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def save(folder: Path, pictures: np.ndarray) -> str:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return str(folder)


def as_theirs(build: Callable[[], FeatureNetwork]) -> FeatureNetwork:
    """Return the network as pytorch-fid has it: its norms are layers of their own."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_folded", lambda network: network)
        network = build()
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in network.module.modules())
    return network


def theirs(monkeypatch, network: FeatureNetwork, folders: list[str]) -> float:
    """Return pytorch-fid's own result on two folders, with its builder handing out a network."""
    from pytorch_fid import fid_score

    def build(blocks):
        assert blocks == [fid_score.InceptionV3.BLOCK_INDEX_BY_DIM[dims] for dims in network.dims]
        return network.module

    build.BLOCK_INDEX_BY_DIM = fid_score.InceptionV3.BLOCK_INDEX_BY_DIM
    monkeypatch.setattr(fid_score, "InceptionV3", build)
    return fid_score.calculate_fid_given_paths(folders, 2, "cpu", network.dims[0], num_workers=0)


def ours(network: FeatureNetwork, a: np.ndarray, b: np.ndarray) -> float:
    sets = (Statistics.from_features(extract(x, network)[network.dims[0]]) for x in (a, b))
    return frechet_distance(*sets)


@pytest.fixture(scope="module")
def random_2048():
    return random_network((2048,), seed=3)


class Average:
    """A network in milliseconds: it returns the colour planes as feature maps."""

    def __call__(self, batch):
        return [batch, batch[:, :2] * 2.0]


@pytest.fixture
def mocked():
    return FeatureNetwork((3, 4), "random-mock", Average())


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_fid_768_equals_pytorch_fid_on_the_same_files(monkeypatch, tmp_path):
    def build():
        return load_network((768,), real_data(MIXED_6E), MIXED_6E_SHA256)

    network, plain = build(), as_theirs(build)
    a, b = images(0, 2), images(1, 3, brightness=55)
    expected = theirs(monkeypatch, plain, [save(tmp_path / "a", a), save(tmp_path / "b", b)])
    assert ours(network, a, b) == pytest.approx(expected, rel=1e-4)


def test_activations_2048_equal_pytorch_fid(random_2048, tmp_path):
    from pytorch_fid.fid_score import get_activations

    a = images(2, 2)
    files = sorted(Path(save(tmp_path / "a", a)).iterdir())
    plain = as_theirs(lambda: random_network((2048,), seed=3))
    expected = get_activations(files, plain.module, batch_size=1, dims=2048, num_workers=0)
    found = extract(a, random_2048)[2048]
    assert expected.std() > 1e-3  # random weights must not have silenced the layers
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)  # of numbers up to 1


@pytest.mark.skipif("REPIX_SLOW" not in os.environ, reason="REPIX_SLOW is not set: sqrtm at 2048 dims takes 20 s")
@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_fid_2048_equals_pytorch_fid_on_the_same_files(monkeypatch, random_2048, tmp_path):
    a, b = images(0, 2), images(1, 3, brightness=55)
    plain = as_theirs(lambda: random_network((2048,), seed=3))
    expected = theirs(monkeypatch, plain, [save(tmp_path / "a", a), save(tmp_path / "b", b)])
    assert ours(random_2048, a, b) == pytest.approx(expected, rel=1e-4)


def test_batch_size_does_not_change_the_features():
    network = random_network((64, 192))
    pictures = images(4, 5)
    alone = extract(pictures, network, batch_size=1)
    together = extract(pictures, network, batch_size=4)
    assert [alone[d].tobytes() for d in (64, 192)] == [together[d].tobytes() for d in (64, 192)]
    assert alone[64].shape == (5, 64) and alone[192].shape == (5, 192)


def test_random_weights_are_seeded():
    pictures = images(5, 1)
    first, again, other = (extract(pictures, random_network((64,), seed=s))[64] for s in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_only_the_published_2048_is_called_fid():
    assert metric_name("fid", 2048, PUBLISHED_SHA256) == "fid"
    assert metric_name("kid", 768, PUBLISHED_SHA256) == "kid_768"
    assert metric_name("fid", 768, MIXED_6E_SHA256) == "fid_768_bc029001"
    assert metric_name("kid", 64, "ab" * 32) == "kid_64_abababab"
    assert metric_name("fid", 2048, "ab" * 32) == "fid_2048_abababab"
    assert metric_name("fid", 2048, "random-0") == "fid_2048_random_0"
    assert metric_name("fid", 64, "random-0") == "fid_64_random_0"


def test_weights_that_end_early_serve_small_dims_only():
    with pytest.raises(UserError, match="ends after Mixed_6e"):
        load_network((768, 2048), real_data(MIXED_6E), MIXED_6E_SHA256)


def test_wrong_weights_are_refused_in_one_line(tmp_path):
    import torch

    with pytest.raises(UserError, match="no such file"):
        load_network((64,), tmp_path / "absent.pth", "00")
    cases = {"text": None, "other": {"layer.weight": torch.zeros(1)}, "shape": {"fc.bias": torch.zeros(1)}}
    for name, state in cases.items():
        path = tmp_path / f"{name}.pth"
        path.write_text("not weights") if state is None else torch.save(state, path)
        with pytest.raises(UserError, match="sha256 is"):
            load_network((64,), path, "00")
        with pytest.raises(UserError, match="not weights") as caught:
            load_network((64,), path, digest_file(path))
        assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused_before_they_score(tmp_path):
    import torch

    path, name = tmp_path / "weights.pth", "Mixed_6e.branch_pool.conv.weight"
    whole = torch.load(real_data(MIXED_6E), weights_only=True)
    for odd in (torch.full_like(whole[name], torch.nan), whole[name].to(torch.int64)):
        torch.save(whole | {name: odd}, path)
        with pytest.raises(UserError, match=f"{name} holds other than finite floats"):
            load_network((768,), path, digest_file(path))


def test_pixels_are_scaled_and_grey_is_repeated(mocked):
    grey = np.full((2, 4, 4, 1), 51, np.uint8)
    found = extract(grey, FeatureNetwork((3,), "random-mock", lambda batch: [batch]))
    np.testing.assert_allclose(found[3], 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        extract(grey.astype(np.float32), mocked)


def test_images_that_may_not_be_written_are_taken_without_a_word():
    """Prepared arrays are mapped so. torch warns of them once for a process."""
    import torch

    mapped = np.zeros((2, 8, 8, 3), np.uint8)
    mapped.setflags(write=False)
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extract(mapped, FeatureNetwork((3,), "random-mock", lambda batch: [batch]))
    finally:
        torch.set_warn_always(before)


def test_cache_answers_once_per_cause_and_survives_damage(tmp_path):
    calls = []

    def network(weights, scale=1.0):
        def module(batch):
            calls.append(len(batch))
            return [batch * scale]

        return FeatureNetwork((3,), weights, module)

    pictures = images(6, 3)
    first = extract(pictures, network("random-1"), cache=tmp_path)[3]
    again = extract(pictures, network("random-1", scale=5.0), cache=tmp_path)[3]
    assert again.tobytes() == first.tobytes() and calls == [3]
    other = extract(pictures, network("random-2", scale=5.0), cache=tmp_path)[3]
    np.testing.assert_allclose(other, 5 * first, rtol=1e-6)
    extract(255 - pictures, network("random-1"), cache=tmp_path)
    assert calls == [3, 3, 3] and len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    mended = extract(pictures, network("random-1"), cache=tmp_path)[3]
    assert mended.tobytes() == first.tobytes() and len(calls) == 4


def test_pictures_of_a_side():
    rgb = images(7, 2)
    assert as_rgb8(rgb, side("rgb", 3)) is rgb
    deep = np.array([[[[0], [65535], [32896]]]], np.uint16)
    found = as_rgb8(deep, side("gray", 1, "uint16", 65535))
    assert found.dtype == np.uint8 and found.tolist() == [[[[0] * 3, [255] * 3, [128] * 3]]]
    assert as_rgb8(rgb, side("raw", 3)) is None


def test_torchvision_loads_beside_any_torch():
    module.import_pytorch_fid()
    import torch
    import torchvision

    assert hasattr(torch.ops.torchvision, "nms") and torchvision.models.Inception3
