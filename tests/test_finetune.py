"""The verdict of ``checks.finetune``: better on each metric by more than another seed makes it, or not."""

from __future__ import annotations

import numpy as np

from checks import finetune

SCRATCH = [{"l1": 0.30 + 0.01 * seed, "ssim": 0.40 + 0.01 * seed} for seed in range(3)]


def moved(l1: float, ssim: float) -> list[dict[str, float]]:
    return [{"l1": seed["l1"] + l1, "ssim": seed["ssim"] + ssim} for seed in SCRATCH]


def test_better_by_more_than_the_noise_on_every_metric_or_named():
    text, short = finetune.compared(SCRATCH, moved(-0.1, 0.1))
    assert short == [] and "| l1 " in text and "**no**" not in text
    assert finetune.compared(SCRATCH, moved(-0.1, -0.1))[1] == ["ssim"]  # higher is better there
    assert finetune.compared(SCRATCH, moved(-0.025, 0.1))[1] == ["l1"]  # every seed, but by 2.5 deviations
    assert finetune.compared(SCRATCH, SCRATCH)[1] == ["l1", "ssim"]


def test_the_second_set_is_darker_and_bluer(tmp_path):
    photo = np.full((2, 2, 3), 200, np.uint8)
    red, _, blue = finetune.evening(photo)[0, 0]
    assert blue > red and finetune.evening(photo).max() < 200
    finetune.draw(tmp_path, {"train": 1})
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["1.png"]
