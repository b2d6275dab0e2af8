"""The metrics that are off unless asked for, each against an independent plain implementation or a case by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from repix.config.evaluation import Evaluate
from repix.data.resizing import resize
from repix.errors import UserError
from repix.evaluation import neighbours
from repix.evaluation.features import FeatureNetwork
from repix.evaluation.metrics import classcolour, lpips, memorisation, swd
from repix.evaluation.score import score_paired_and_distribution, scorer
from repix.files import digest_file
from repix.metrics import METRICS
from tests.evaluation.score_cases import LAB, RGB, noise

UNLISTED = {metric.name for metric in METRICS if not metric.listed}


def by_name(name):
    return scorer(next(metric for metric in METRICS if metric.name == name))


# --- precision, recall, density, coverage


def plain_balls(outputs, real):
    """Return the four by loops over points, after the papers' formulas."""

    def far(x, y):
        return sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True)) ** 0.5

    def radius(points, i, k):
        return sorted(far(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    def share(queries, centres, k):
        reach = [radius(centres, i, k) for i in range(len(centres))]
        hits = [any(far(q, c) <= r for c, r in zip(centres, reach, strict=True)) for q in queries]
        return sum(hits) / len(hits)

    reach = [radius(real, i, 5) for i in range(len(real))]
    inside = [[far(o, c) < r for o in outputs] for c, r in zip(real, reach, strict=True)]
    return {
        "precision": share(outputs, real, 3),
        "recall": share(real, outputs, 3),
        "density": sum(map(sum, inside)) / (5 * len(outputs)),
        "coverage": sum(map(any, inside)) / len(real),
    }


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_the_balls_agree_with_loops_over_points(at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "_DISTANCES_AT_ONCE", at_once)
    draw = np.random.default_rng(0).normal
    outputs, real = draw(0.7, 1.2, (23, 4)).astype(np.float32), draw(0, 1, (31, 4)).astype(np.float32)
    expected = plain_balls(outputs.astype(float), real.astype(float))
    assert {name: by_name(name).function(outputs, real).value for name in expected} == expected
    assert all(0 < value < 1.5 for value in expected.values()) and len(set(expected.values())) == 4


def test_the_balls_of_a_line_by_hand():
    real = np.arange(6.0)[:, None]  # the fifth neighbour of 0 is 5 away, of 1: 4, of 2: 3, and mirrored
    assert neighbours.radii(real, 5).tolist() == [25, 16, 9, 9, 16, 25]
    assert by_name("density").function(real, real).value == 6 * 5 / (5 * 6)  # strictly nearer: five in each ball
    far = real + 100
    assert [by_name(name).function(far, real).value for name in ("precision", "recall", "density", "coverage")] == [
        0
    ] * 4
    one = np.full((6, 1), 2.5)  # a generator that makes one good picture
    assert by_name("precision").function(one, real).value == 1 and by_name("recall").function(one, real).value == 0


def test_equal_sets_are_precise_and_covered():
    same = np.random.default_rng(1).normal(size=(20, 8))
    for name in ("precision", "recall", "density", "coverage"):
        assert by_name(name).function(same, same).value == 1.0


def test_too_few_images_are_a_reason():
    few = np.zeros((5, 2))
    assert "more than 5" in by_name("coverage").function(few, few).reason


# --- memorisation


def test_memorisation_by_hand():
    train, reference = np.array([[0.0, 0], [10, 0]]), np.array([[0.0, 4], [10, 2], [0, -6]])

    def score(outputs):
        blocks = [train[:1], train[1:]]
        return memorisation.memorisation(*(memorisation.nearest(rows, blocks) for rows in (outputs, reference)))

    found = score(np.array([[0.0, 1], [10, 2], [10, 3]]))
    assert found.value == 2 / 4
    assert found.details["share_nearer_than_5_percent_of_test_photos"] == 2 / 3  # 1 and 2 are below 2.2
    assert score(train).value == 0.0
    assert "test photos" in memorisation.memorisation(np.zeros(2), np.zeros(3)).reason


def test_cells_are_means_of_pixels():
    images = noise(0, 2, 96)
    expected = images.reshape(2, 32, 3, 32, 3, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(memorisation.cells(images, RGB), expected.reshape(2, -1), rtol=1e-6)
    odd = noise(1, 1, 50)[:, :33]
    assert memorisation.cells(odd, RGB).shape == (1, 32 * 32 * 3)
    np.testing.assert_allclose(
        memorisation.cells(odd, RGB).reshape(32, 32, 3)[-1, 0], odd[0, 31:, :1].mean((0, 1)) / 255, rtol=1e-6
    )


def test_windows_have_the_cells_of_the_images_that_they_are():
    (photo,) = noise(0, 1, 80)
    windows = [photo[top : top + 64, left : left + 60] for top in (0, 8, 16) for left in (0, 10, 20)]
    found = memorisation.window_cells(photo / 255, (64, 60), 3)
    np.testing.assert_allclose(
        found, np.concatenate([memorisation.cells(one[None], RGB) for one in windows]), atol=1e-6
    )
    assert len(memorisation.window_cells(photo / 255, (64, 60), None)) == 17 * 17  # a pixel apart, at most 17 a side
    middle = memorisation.window_cells(photo / 255, (64, 60), 1)
    np.testing.assert_allclose(middle, memorisation.cells(photo[None, 8:72, 10:70], RGB), atol=1e-6)
    assert len(memorisation.window_cells(photo / 255, (80, 80), None)) == 1  # nothing was enlarged


@pytest.mark.parametrize("seen", ["windows", "whole"])
@pytest.mark.parametrize("side", [RGB, LAB], ids=["rgb", "lab"])
def test_copies_of_what_the_generator_saw_are_copies(seen, side):
    """Whatever window of an enlarged photo it was, mirrored or not; a window moved by a cell is far from itself."""
    low, high = int(side.low[0]), int(side.high[0])
    drawn = np.random.default_rng(0).integers(low, high, (24, 18, 18, side.channels), dtype=side.dtype, endpoint=True)
    train, test = np.split(np.kron(drawn, np.ones((1, 8, 8, 1), drawn.dtype)), 2)
    top, left = np.random.default_rng(2).integers(0, 17, (2, 12))
    copies = [photo[y : y + 128, x : x + 128] for photo, y, x in zip(train, top, left, strict=True)]
    if seen == "whole":
        copies = [shrunk(photo) for photo in train]
    copies = np.stack([copy[:, ::-1] if i % 2 else copy for i, copy in enumerate(copies)])
    asked, test = Evaluate(memorisation=True, swd=False), np.stack([shrunk(photo) for photo in test])
    scores, protocol, _ = score_paired_and_distribution(copies, test, side, evaluate=asked, train=train)
    assert scores["memorisation"] < 0.25 and protocol["memorisation"]["train_n"] == 12
    others = np.stack([shrunk(photo) for photo in np.roll(test, 1, axis=2)])
    scores, _, _ = score_paired_and_distribution(others, test, side, evaluate=asked, train=train)
    assert scores["memorisation"] == pytest.approx(1, abs=0.1)


def shrunk(photo):
    """Return an image at 128 px."""
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(photo, 2, 0)]
    size = [np.asarray(plane.resize((128, 128), Image.Resampling.BICUBIC)) for plane in planes]
    limits = np.iinfo(photo.dtype)
    return np.clip(np.rint(np.stack(size, axis=2)), limits.min, limits.max).astype(photo.dtype)


def test_features_are_of_four_views_of_a_photo():
    photos = noise(0, 3, 12)
    found = list(memorisation.views(photos, (8, 8)))
    whole = np.stack([resize(photo, (8, 8)) for photo in photos])
    for view, expected in zip(
        found, (photos[:, 2:10, 2:10], photos[:, 2:10, 9:1:-1], whole, whole[:, :, ::-1]), strict=True
    ):
        np.testing.assert_array_equal(view, expected)
    assert len(list(memorisation.views(photos, (12, 12)))) == 2  # nothing was enlarged


def test_memorisation_sees_copies_on_pixels_and_on_features():
    train, test = noise(0, 9, 32), noise(1, 6, 32)

    def score(outputs, **given):
        asked = Evaluate(memorisation=True, swd=False, features="inception", dims=(64,), **given.pop("asked", {}))
        return score_paired_and_distribution(outputs, test, RGB, evaluate=asked, train=train, **given)

    assert score(train[:6])[0]["memorisation"] == pytest.approx(0, abs=1e-5)
    assert score(noise(2, 6, 32))[0]["memorisation"] == pytest.approx(1, abs=0.05)
    network = FeatureNetwork((64,), "ab" * 32, lambda batch: [batch.mean(1, keepdim=True).repeat(1, 64, 1, 1)])
    scores, protocol, _ = score(train[:6], features=network, asked={"fid": True})
    assert scores["memorisation_64_abababab"] == 0.0 and "memorisation" not in scores
    assert protocol["memorisation_64_abababab"]["features"]["dims"] == 64


# --- LPIPS


def random_weights(path):
    """Write random weights of the right shapes."""
    import torch

    draw = torch.Generator().manual_seed(3)
    state = {}
    for number, (_, before, after, size, *_) in enumerate(lpips.LAYERS):
        kernel, bias, weights = lpips.tensor_names(number)
        state[kernel] = torch.randn(after, before, size, size, generator=draw) * (2 / (before * size * size)) ** 0.5
        state[bias] = torch.randn(after, generator=draw) * 0.1
        state[weights] = torch.rand(1, after, 1, 1, generator=draw)
    torch.save(state, path)
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def plain_lpips(a, b, state):
    """Return the distance of two (h, w, 3) uint8 in NumPy, float64, the network written out."""

    def windows(x, size, stride):
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))[::stride, ::stride]

    def layers(image):
        x = (image / 255 * 2 - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
        for slice_, place, stride, padding in ((1, 0, 4, 2), (2, 3, 1, 2), (3, 6, 1, 1), (4, 8, 1, 1), (5, 10, 1, 1)):
            if slice_ in (2, 3):
                x = windows(x, 3, 2).max(axis=(-1, -2))
            kernel, bias = (state[f"net.slice{slice_}.{place}.{part}"] for part in ("weight", "bias"))
            x = np.pad(x, [(padding, padding), (padding, padding), (0, 0)])
            x = np.maximum(np.tensordot(windows(x, kernel.shape[-1], stride), kernel, ([2, 3, 4], [1, 2, 3])) + bias, 0)
            yield x / (np.sqrt((x**2).sum(axis=-1, keepdims=True)) + 1e-10)

    pairs = zip(layers(a), layers(b), strict=True)
    return sum((((x - y) ** 2) @ state[f"lin{i}.model.1.weight"].ravel()).mean() for i, (x, y) in enumerate(pairs))


def test_lpips_agrees_with_the_network_written_out(tmp_path):
    state = random_weights(tmp_path / "w.pth")
    network = lpips.load_network(tmp_path / "w.pth", digest_file(tmp_path / "w.pth"))
    a, b = noise(0, 2, 67)[:, :, :40], noise(1, 2, 67)[:, :, :40]
    found = lpips.lpips(a, b, network)
    np.testing.assert_allclose(found, [plain_lpips(x, y, state) for x, y in zip(a, b, strict=True)], rtol=1e-4)
    assert (lpips.lpips(a, a, network) == 0).all() and found[0] != found[1]
    scores, protocol, per_image = score_paired_and_distribution(
        a, b, RGB, evaluate=Evaluate(lpips=True), networks={"lpips": network}
    )
    assert scores["lpips"] == found.mean() and protocol["lpips"]["weights"] == network.weights
    assert per_image["lpips"].tolist() == found.tolist()


def test_lpips_says_what_is_wrong_with_a_file(tmp_path):
    import torch

    path = tmp_path / "w.pth"
    with pytest.raises(UserError, match="no such file"):
        lpips.load_network(path, "0" * 64)
    state = random_weights(path)
    with pytest.raises(UserError, match="sha256"):
        lpips.load_network(path, "0" * 64)
    torch.save({"net.slice1.0.weight": torch.tensor(state["net.slice1.0.weight"][:3])}, path)
    with pytest.raises(UserError, match=r"net\.slice1\.0\.weight is not a tensor of"):
        lpips.load_network(path, digest_file(path))
    torch.save([1], path)
    with pytest.raises(UserError, match="not the state dict"):
        lpips.load_network(path, digest_file(path))
    whole, name = {key: torch.tensor(value) for key, value in state.items()}, lpips.tensor_names(2)[0]
    for odd in (torch.nan * whole[name], whole[name].to_sparse(), whole[name].to(torch.int64), whole[name].to("meta")):
        torch.save(whole | {name: odd}, path)
        with pytest.raises(UserError, match="holds other than finite floats"):
            lpips.load_network(path, digest_file(path))


def test_lpips_takes_pictures_of_32_pixels_and_pairs():
    asked = {"evaluate": Evaluate(lpips=True, swd=False), "networks": {"lpips": None}}
    reasons = [
        score_paired_and_distribution(noise(0), noise(1), RGB, **asked)[1]["lpips"]["reason"],
        score_paired_and_distribution(noise(0), None, RGB, reference=noise(1), **asked)[1]["lpips"]["reason"],
        score_paired_and_distribution(*(noise(s, 2, 32, 2).astype(np.int16) - 110 for s in (0, 1)), LAB, **asked)[1][
            "lpips"
        ]["reason"],
    ]
    assert ["32 pixels" in reasons[0], "unpaired" in reasons[1], "lab_ab" in reasons[2]] == [True] * 3


# --- colour error of labels


def test_the_colour_error_of_labels_by_hand():
    red, blue = (255, 0, 0), (0, 0, 255)
    labels = np.array([[[red, red], [red, blue]]], np.uint8)
    target = np.full((1, 2, 2, 3), 100, np.uint8)
    output = target.copy()
    output[0, 0, 0], output[0, 0, 1] = 130, 70  # a texture: the mean of the red region is that of the target
    output[0, 1, 1, 0] = 151  # and the blue one is 51 too red: 0.2 of the range, in one channel of three
    asked = {"evaluate": Evaluate(classcolour=True, swd=False), "labels": (labels, RGB)}
    scores, protocol, per_image = score_paired_and_distribution(output, target, RGB, **asked)
    assert scores["classcolour"] == pytest.approx((0 + 0.2 / 3) / 2) and len(per_image["classcolour"]) == 1
    numbers = protocol["classcolour"]["description"]["labels"]
    assert list(numbers) == ["3", "48"] and numbers["48"] == {"error": 0.0, "images": 1}  # 3 * 16 and 3, base 4


def test_many_channels_take_no_more_memory_than_labels():
    many, photo = np.random.default_rng(0).integers(0, 256, (8, 8, 20), np.uint8), np.zeros((8, 8, 3))
    numbers = classcolour.label_numbers(many, None, (0,) * 20, (255,) * 20)
    assert numbers.max() > 4**19
    assert set(classcolour.class_colour_error(photo, photo, numbers).values()) == {0.0}


def test_a_table_of_colours_takes_the_nearest():
    image = np.array([[[10, 0, 0], [250, 255, 255], [128, 64, 128]]], np.uint8)
    table = np.array([[0, 0, 0], [128, 64, 128], [255, 255, 255], [255, 255, 255]])
    assert classcolour.label_numbers(image, table, RGB.low, RGB.high).tolist() == [[0, 2, 1]]


# --- all of them


def test_what_was_not_asked_for_leaves_no_trace():
    assert {"precision", "recall", "density", "coverage", "memorisation", "lpips", "classcolour"} == UNLISTED
    scores, protocol, _ = score_paired_and_distribution(noise(0), noise(1), RGB, evaluate=Evaluate())
    assert not UNLISTED & {name.split("_")[0] for name in [*scores, *protocol]}
    settings = Evaluate().model_dump()
    assert not any(settings[name] for name in UNLISTED)


def test_floors_are_computed_once_for_all_variants(monkeypatch):
    floors, calls, distance = {}, [], swd.SCORER.function
    monkeypatch.setattr(swd, "SCORER", swd.Scorer(swd.PROTOCOL, lambda *s: calls.append(1) or distance(*s)))
    found = [
        score_paired_and_distribution(noise(seed), noise(1), RGB, evaluate=Evaluate(), floors=floors)[1]["swd"]
        for seed in (0, 2)
    ]
    assert len(calls) == 3 and found[0]["description"]["floor"] == found[1]["description"]["floor"] > 0


def test_the_features_stage_brings_the_weights_that_are_asked_for_and_no_others(tmp_path):
    import os
    import subprocess
    import sys

    from repix import yaml12
    from repix.config import reader
    from tests.conftest import ROOT

    files = {name: tmp_path / f"{name}.pth" for name in ("inception", "lpips")}
    for name, file in files.items():
        file.write_bytes(name.encode() * 9)

    def features(**asked):
        tree = reader.load(ROOT / reader.FILE)
        tree["evaluate"] |= asked
        tree["features"] = {k: {"urls": [f.as_uri()], "sha256": digest_file(f)} for k, f in files.items()}
        (tmp_path / reader.FILE).write_text(yaml12.dump(tree))
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        command = [sys.executable, str(ROOT / "stages" / "features.py")]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "data" / "features"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    assert features() == ["absent.json"]
    assert features(lpips=True) == ["absent.json", "lpips/archive.json", "lpips/lpips.pth"]
    assert features(recall=True) == ["archive.json", "inception.pth"]
    both = ["archive.json", "inception.pth", "lpips/archive.json", "lpips/lpips.pth"]
    assert features(recall=True, lpips=True) == both
