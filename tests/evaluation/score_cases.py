"""Small cases of scoring whose results are committed in ``scores.json``: run this file to write them anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from repix.config.evaluation import Evaluate
from repix.evaluation.features import PUBLISHED_SHA256, FeatureNetwork
from repix.evaluation.score import score_paired_and_distribution
from repix.files import write_json
from repix.schemas import Side

FILE = Path(__file__).with_name("scores.json")
RGB = Side(channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb")
LAB = Side(channels=2, dtype="int16", low=(-110,) * 2, high=(110,) * 2, meaning=("a", "b"), colour="lab_ab")
PLAIN = Evaluate()


def noise(seed: int, n: int = 6, size: int = 16, channels: int = 3) -> np.ndarray:
    """Return (n, size, size, channels) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels)).astype(np.uint8)


def on_features(*dims: int) -> dict[str, Any]:
    """Return the settings for FID and KID on some dims, and a network whose features are an image's mean."""

    def module(batch):
        return [batch.mean(dim=1, keepdim=True).repeat(1, d, 1, 1) for d in dims]

    settings = Evaluate(fid=True, kid=True, features="inception", dims=dims)
    return {"evaluate": settings, "features": FeatureNetwork(dims, PUBLISHED_SHA256, module)}


def results() -> dict[str, Any]:
    """Return case -> scores, protocol, and the scores of each image."""
    lab = [(noise(seed, channels=2).astype(np.int16) - 110).clip(-110, 110) for seed in (0, 1)]
    cases = {
        "pairs": ((noise(0), noise(1), RGB), on_features(2048)),
        "equal pairs": ((noise(0), noise(0), RGB), {"evaluate": PLAIN}),
        "unpaired": ((noise(0, 5), None, RGB), {"reference": noise(1, 7), "evaluate": PLAIN}),
        "too small": ((noise(0, size=8), noise(1, size=8), RGB), {"evaluate": PLAIN}),
        "not asked for": ((noise(0), noise(1), RGB), {"evaluate": Evaluate(swd=False)}),
        "no pictures": ((*lab, LAB), on_features(64, 768)),
        "one image": ((noise(0, 1), noise(1, 1), RGB), on_features(2048)),
        "three images": ((noise(0, 3), noise(1, 3), RGB), on_features(64, 768)),
    }
    found = {}
    for name, (given, asked) in cases.items():
        scores, protocol, per_image = score_paired_and_distribution(*given, **asked)
        each = {metric: values.tolist() for metric, values in per_image.items()}
        found[name] = {"scores": scores, "protocol": protocol, "per_image": each}
    return found


if __name__ == "__main__":
    write_json(FILE if len(sys.argv) < 2 else Path(sys.argv[1]), results())
