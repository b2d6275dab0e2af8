"""What a training is scored by and shows: the split, the direction of each translator, the crop."""

from __future__ import annotations

import numpy as np
import pytest

from checks.support import cells
from repix.data.prepared import Prepared
from repix.evaluation import pictures
from repix.evaluation.metrics.ssim import ssim
from repix.evaluation.metrics.swd import swd
from repix.evaluation.validation import Validation

BOTH = ("source_to_target", "target_to_source")


class Unchanged:
    """A translator that gives back what it is given, and keeps it."""

    def __init__(self):
        self.given = []

    def translate(self, images):
        self.given.append(np.array(images))
        return np.array(images)


def validation(tmp_path, *, names=BOTH[:1], **layout):
    prepared = Prepared.open(cells.prepare_set(tmp_path, **layout))
    translators, shown = {name: Unchanged() for name in names}, []
    return prepared, translators, shown, Validation(prepared, translators, lambda *what: shown.append(what))


def test_pairs_are_scored_on_val_by_ssim(tmp_path):
    prepared, translators, shown, one = validation(tmp_path)
    val, side = prepared.split("val"), prepared.manifest.target
    expected = ssim(np.array(val.source), np.array(val.target), side.low, side.high).mean()
    found = one.score()
    assert one.possible and found["score"] == found["ssim"] == pytest.approx(expected)
    assert np.array_equal(translators["source_to_target"].given[0], val.source) and not shown


def test_unpaired_sets_are_scored_both_ways_by_the_distance(tmp_path):
    prepared, translators, _, one = validation(tmp_path, names=BOTH, paired=False)
    val = prepared.split("val")
    there, back = swd(np.array(val.source), np.array(val.target)), swd(np.array(val.target), np.array(val.source))
    assert one.score()["score"] == pytest.approx(-(there["mean"] + back["mean"]) / 2)
    assert np.array_equal(translators["target_to_source"].given[0], val.target)


def test_equal_sets_score_zero_and_not_minus_zero(tmp_path):
    prepared, translators, _, one = validation(tmp_path, paired=False)
    translators["source_to_target"].translate = lambda images: np.array(prepared.split("val").target)
    score = one.score()["score"]
    assert score == 0.0 and not np.signbit(score)


def test_without_a_val_split_train_is_shown(tmp_path):
    prepared, translators, shown, one = validation(tmp_path, names=BOTH, counts=(("train", 3), ("test", 2)))
    one.picture(7)
    train, edge = prepared.split("train"), slice(1, 1 + cells.SIZE)  # train is two pixels larger, each way
    sources, targets = (np.array(images)[:, edge, edge] for images in (train.source, train.target))
    assert not one.possible and [(step, name) for step, name, _ in shown] == [(7, f"samples/{name}") for name in BOTH]
    assert np.array_equal(translators["source_to_target"].given[0], sources)
    assert np.array_equal(translators["target_to_source"].given[0], targets)
    sides = prepared.manifest.source, prepared.manifest.target
    expected = pictures.grid(pictures.triples(targets, targets, sources, *sides[::-1]))
    assert np.array_equal(shown[1][2], expected)
