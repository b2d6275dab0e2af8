"""What curves are called, and the points within an epoch: bounded, and means of what lies between them."""

from __future__ import annotations

import numpy as np
import pytest

from repix.tracking import curves


def within(steps: int, per_epoch: int, block: int = 25, first: int = 0):
    """Play a training whose loss is the number of its iteration; return all points."""
    found, watch = [], curves.Within({"steps": steps, "steps_per_epoch": per_epoch})
    done = first
    while done < steps:
        count = min(block, per_epoch - done % per_epoch)
        found += watch.add(done + count, ["G"], np.arange(done + 1, done + count + 1, dtype=np.float32)[:, None])
        done += count
    return found


def test_losses_scores_and_the_rate_are_groups_of_their_own():
    row = {"g_l1": 1.0, "learning_rate": 2.0, "val_l1": 3.0, "val_score": 4.0}
    assert curves.grouped(row) == {
        "loss/g_l1": 1.0,
        "schedule/learning_rate": 2.0,
        "score/val/l1": 3.0,
        "score/val/score": 4.0,
    }
    assert curves.validation({"l1": 3.0}) == {"score/val/l1": 3.0}


@pytest.mark.parametrize(("steps", "per_epoch"), [(1000, 1000), (1001, 1001), (100_000, 50_000), (12_345, 5_000)])
def test_few_long_epochs_have_points_within_and_never_more_than_so_many(steps, per_epoch):
    points = within(steps, per_epoch)
    assert curves.MOST_POINTS // 2 <= len(points) <= curves.MOST_POINTS
    every = points[0].step
    assert [point.step for point in points] == list(range(every, steps + 1, every))
    for point in points:
        assert point.epoch == -(-point.step // per_epoch)
        assert point.values == {"loss_within_epoch/G": point.step - (every - 1) / 2}  # the mean of its iterations


def test_many_short_epochs_have_none():
    assert within(100_000, 400) == []


def test_points_follow_from_the_step_and_not_from_the_blocks():
    assert within(1000, 500, block=25) == within(1000, 500, block=1) == within(1000, 500, block=7)
    resumed = within(1000, 500, first=500)
    assert resumed == within(1000, 500)[-len(resumed) :]


def test_losses_that_not_every_block_has_are_means_of_those_that_do():
    watch = curves.Within({"steps": 800, "steps_per_epoch": 400})  # a point each 4 iterations
    assert watch.add(3, ["D"], np.full((3, 1), 2.0, np.float32)) == []
    [point] = watch.add(4, ["D", "G"], np.array([[6.0, 5.0]], np.float32))
    assert point.values == {"loss_within_epoch/D": 3.0, "loss_within_epoch/G": 5.0}
