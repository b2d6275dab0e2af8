"""Scores put together: names, reasons, protocol, and numbers equal to the single metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from repix.config.evaluation import Evaluate
from repix.evaluation.features import PUBLISHED_SHA256, FeatureNetwork
from repix.evaluation.metrics.kid import kid
from repix.evaluation.metrics.l1 import l1
from repix.evaluation.metrics.swd import swd
from repix.evaluation.score import score_paired_and_distribution
from repix.metrics import METRICS, NAMES
from repix.schemas import Side
from tests.evaluation import score_cases

RGB = Side(channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb")
LAB = Side(channels=2, dtype="int16", low=(-110,) * 2, high=(110,) * 2, meaning=("a", "b"), colour="lab_ab")
PLAIN = Evaluate()
ON_FEATURES = Evaluate(fid=True, kid=True, features="inception", dims=(2048,))


def noise(seed, n=6, size=16, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels)).astype(np.uint8)


def network(dims=(2048,), weights=PUBLISHED_SHA256):
    """Return a mocked network: every feature is a mean colour times its number."""

    def module(batch):
        return [batch.mean(dim=1, keepdim=True).repeat(1, d, 1, 1) for d in dims]

    return FeatureNetwork(dims, weights, module)


def test_pairs_without_weights():
    outputs, targets = noise(0), noise(1)
    scores, protocol, per_image = score_paired_and_distribution(outputs, targets, RGB, evaluate=PLAIN)
    assert (
        {"l1", "psnr", "ssim", "swd", "fid", "kid"}
        <= set(scores)
        == {metric.name for metric in METRICS if metric.listed}
    )
    assert scores["l1"] == l1(outputs, targets, RGB.low, RGB.high).mean()
    assert scores["swd"] == swd(outputs, targets)["mean"]
    assert scores["fid"] is None and "evaluate.fid" in protocol["fid"]["reason"]
    assert set(per_image) == {metric.name for metric in METRICS if metric.kind == "paired"} and all(
        len(v) == 6 for v in per_image.values()
    )
    low, high = protocol["ssim"]["description"]["ci95"]
    assert low <= scores["ssim"] <= high
    assert protocol["images"]["n"] == 6 and len(protocol["reference"]["digest"]) == 64
    assert protocol["swd"]["description"]["floor_n"] == 3 and protocol["swd"]["description"]["floor"] > 0


def test_unpaired_sets_have_distances_only():
    scores, protocol, per_image = score_paired_and_distribution(
        noise(0, 5), None, RGB, reference=noise(1, 7), evaluate=PLAIN
    )
    assert scores["swd"] > 0 and per_image == {}
    for name in ("l1", "psnr", "ssim"):
        assert scores[name] is None and "unpaired" in protocol[name]["reason"]
    assert protocol["swd"]["n"] == 5 and protocol["reference"]["n"] == 7


def test_every_null_has_its_reason_and_everything_is_json():
    for arguments in (
        {"evaluate": Evaluate(swd=False)},
        {"evaluate": ON_FEATURES, "features": network()},
        {"evaluate": PLAIN, "describe": False},
    ):
        for size in (8, 16):
            images = noise(0, size=size)
            scores, protocol, _ = score_paired_and_distribution(images, images, RGB, **arguments)
            for name, value in scores.items():
                assert (value is None) == ("reason" in protocol[name])
            json.dumps([scores, protocol], allow_nan=False)


def test_equal_images_are_capped_and_counted():
    images = noise(0)
    scores, protocol, _ = score_paired_and_distribution(images, images, RGB, evaluate=PLAIN)
    assert scores["psnr"] == 100.0 and protocol["psnr"]["description"]["capped"] == 6
    assert scores["l1"] == 0.0 and scores["swd"] == 0.0


def test_features_are_named_by_what_they_are():
    outputs, targets = noise(0), noise(1)
    scores, protocol, _ = score_paired_and_distribution(outputs, targets, RGB, evaluate=ON_FEATURES, features=network())
    means = [np.repeat(x.mean(axis=(1, 2, 3))[:, None] / 255, 2048, axis=1) for x in (outputs, targets)]
    assert scores["kid"] == pytest.approx(kid(*means), rel=1e-4)
    assert protocol["fid"]["features"]["weights"] == PUBLISHED_SHA256
    assert protocol["kid"]["description"]["subsets"]["size"] == 3

    small = Evaluate(fid=True, features="inception", dims=(64, 768))
    scores, protocol, _ = score_paired_and_distribution(
        outputs, targets, RGB, evaluate=small, features=network((64, 768), "ab" * 32)
    )
    assert scores["fid"] is None and "2048" in protocol["fid"]["reason"]
    assert scores["fid_64_abababab"] >= 0 and scores["fid_768_abababab"] >= 0
    assert {name for name in scores if name.startswith("kid")} == {"kid"} and "fid_768" not in scores
    assert protocol["fid_768_abababab"]["features"]["dims"] == 768


def test_lab_planes_take_pictures_for_features():
    outputs = (noise(0, channels=2).astype(np.int16) - 110).clip(-110, 110)
    targets = (noise(1, channels=2).astype(np.int16) - 110).clip(-110, 110)
    common = {"evaluate": ON_FEATURES, "features": network()}
    scores, protocol, _ = score_paired_and_distribution(outputs, targets, LAB, **common)
    assert scores["fid"] is None and "lab_ab" in protocol["fid"]["reason"] and scores["ssim"] is not None
    scores, _, _ = score_paired_and_distribution(outputs, targets, LAB, pictures=(noise(2), noise(3)), **common)
    assert scores["fid"] > 0


def test_one_image_has_no_distribution_on_features():
    one = noise(0, 1)
    scores, protocol, _ = score_paired_and_distribution(one, noise(1, 1), RGB, evaluate=ON_FEATURES, features=network())
    assert scores["fid"] is None and "two images" in protocol["fid"]["reason"]
    assert protocol["l1"]["description"]["ci95"] is None


def test_three_images_have_scores_but_no_halves_to_compare():
    scores, protocol, _ = score_paired_and_distribution(
        noise(0, 3), noise(1, 3), RGB, evaluate=ON_FEATURES, features=network()
    )
    assert scores["fid"] > 0 and "description" not in protocol["fid"]


def test_what_cannot_be_scored_is_refused():
    images = noise(0)
    with pytest.raises(ValueError, match="targets or a reference"):
        score_paired_and_distribution(images, None, RGB, evaluate=PLAIN)
    with pytest.raises(ValueError, match="feature network"):
        score_paired_and_distribution(images, images, RGB, evaluate=ON_FEATURES, features=network((768,)))
    with pytest.raises(ValueError, match="do not fit"):
        score_paired_and_distribution(images, images, RGB, reference_names=["a"], evaluate=PLAIN)


def test_the_committed_cases_come_out():
    """Names, definitions, reasons and numbers of all kinds of metrics; ``python -m tests.evaluation.score_cases``."""
    found = json.loads(json.dumps(score_cases.results()))
    expected = json.loads(score_cases.FILE.read_text())
    for case, parts in found.items():
        for part, names in parts.items():
            newer = set(names) - set(expected[case][part])  # metrics that were added since
            assert newer <= set(NAMES), case
            parts[part] = {name: value for name, value in names.items() if name not in newer}
    assert_like(found, expected, "")


def assert_like(found, expected, where):
    """Assert that two JSON trees are equal, numbers up to what libraries of other versions round otherwise."""
    if isinstance(expected, float) and isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9), where
    elif isinstance(expected, (dict, list)) and type(found) is type(expected):
        keys = [sorted(tree) if isinstance(tree, dict) else list(range(len(tree))) for tree in (found, expected)]
        assert keys[0] == keys[1], where
        for key in keys[0]:
            assert_like(found[key], expected[key], f"{where}/{key}")
    else:
        assert found == expected and type(found) is type(expected), where
