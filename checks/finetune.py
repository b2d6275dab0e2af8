"""Fine-tuned on a second set, against first weights at equal steps: is it better by more than another seed makes it?

    python -m checks.finetune              # five seeds of each, some ten minutes on two cores
    python -m checks.finetune --quick      # two seeds and an epoch of each: only see that it runs
    python -m checks.finetune --write      # also put the table into docs/continue.md

The parent is trained once, on the embedded sample. The second set is drawn by this script: few façades that the
sample does not have, photographed in the evening, side by side in one PNG each. Both children have the same recipe,
data, steps and seeds; one starts from first weights, the other from the parent's. All goes through the stages' own
scripts in a folder below --out; killed, it goes on where it was.

Exit code 1 unless on each metric every fine-tuned seed is better than every seed from first weights, and their means
are more than three standard deviations apart (the larger of the two).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from checks import systems
from checks.harness import ROOT, run_stage, table, write
from repix import paths, stage, yaml12
from repix.config import reader
from repix.data.synthetic import draw_facade
from repix.files import atomic_folder
from repix.metrics import direction
from repix.regression.tolerance import mean_and_sd
from repix.schemas import Metrics

IMAGES = {"train": 30, "val": 5, "test": 60}
SIZE, DRAWN = 64, 1  # pixels, and the seed of the drawing: the sample's is 0
EVENING = np.array([[0.40, 0.05, 0.00], [0.05, 0.35, 0.10], [0.10, 0.10, 0.45]])  # red, green, blue of the photo
PARENT, SCRATCH, TUNED = "first", "scratch", "tuned"
PARENT_EPOCHS, EPOCHS, SEEDS = 3, 6, 5
MOST = 3.0  # standard deviations


def evening(photo: np.ndarray) -> np.ndarray:
    """Return a photo, uint8 (height, width, 3), as it looks at dusk: darker, and bluer."""
    return np.clip(np.rint(photo @ EVENING.T + (8, 10, 24)), 0, 255).astype(np.uint8)


def draw(folder: Path, counts: dict[str, int]) -> None:
    """Draw the second set, photo left and label map right, below ``folder/<split>/``."""
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            label, photo = draw_facade(DRAWN, split, index, SIZE)
            pair = np.concatenate([evening(photo), label], axis=1)
            Image.fromarray(pair).save(folder / split / f"{index + 1}.png")


def lay_out(folder: Path, quick: bool) -> None:
    """Write params.yaml and draw the second set, as far as they are not there."""
    tree = reader.load(ROOT / reader.FILE)
    small, sample = tree["models"]["pix2pix_small"], tree["datasets"]["sample"]
    child = small | {"profile": "fast", "epochs": 1 if quick else EPOCHS, "decay_epochs": 0}
    tree["models"] = {
        PARENT: child | {"epochs": 1 if quick else PARENT_EPOCHS},
        SCRATCH: child,
        TUNED: child | {"start_from": {"cell": f"sample-{PARENT}-0"}},
    }
    images = {"layout": "aligned", **sample["images"]}
    second = {"archive": {"urls": [f"file:{folder / 'evening'}/"]}, "images": images, "augment": sample["augment"]}
    tree["datasets"] = {"sample": sample, "evening": second}
    tree["run"] |= {"datasets": ["evening"], "models": [SCRATCH, TUNED]}
    systems.lay_out(folder, yaml12.dump(tree))
    if not (folder / "evening").exists():
        with atomic_folder(folder / "evening") as drawn:
            draw(drawn, IMAGES)


def run(folder: Path, kind: str, out: Path, *names: str) -> None:
    """Run a stage where what it makes is not there yet."""
    if not (folder / out).exists():
        print(" ".join([kind, *names]), "...", file=sys.stderr, flush=True)
        run_stage(folder, kind, *names)


def scores(folder: Path, model: str, seed: int) -> dict[str, float]:
    """Train and score a child; return metric -> score of its last weights on the test split."""
    names = "evening", model, str(seed)
    name, metrics_path = "-".join(names), paths.METRICS / f"{'-'.join(names)}.json"
    if model == TUNED:
        run(folder, "start", paths.STARTS / name, *names)
    run(folder, "train", paths.RUNS / name, *names)
    run(folder, "evaluate", metrics_path, *names)
    found = Metrics.read(folder / metrics_path).scores["source_to_target"]["last"]
    return {metric: score for metric, score in found.items() if score is not None}


def compared(scratch: list[dict[str, float]], tuned: list[dict[str, float]]) -> tuple[str, list[str]]:
    """Return the table of both, and the metrics on which fine-tuning is not better by more than the noise."""
    rows, short = [], []
    for name in scratch[0]:
        sign = direction(name)
        sides = [[seed[name] for seed in side] for side in (scratch, tuned)]
        means, sds = zip(*map(mean_and_sd, sides), strict=True)
        apart = sign * (means[1] - means[0]) / max(sds)
        clear = min(sign * score for score in sides[1]) > max(sign * score for score in sides[0])
        rows.append((name, means[0], sds[0], means[1], sds[1], apart, clear))
        if not clear or apart <= MOST:
            short.append(name)
    head = ("metric", "first weights", "sd", "fine-tuned", "sd", "better by, in sds", "every seed better")
    return table(head, rows), short


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, one epoch, nothing required of the scores")
    parser.add_argument("--out", type=Path, default=paths.WORK / "finetune", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help="also put the table into docs/continue.md")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick trains too little to be written; leave out one of them")
    folder = asked.out.resolve() / ("quick" if asked.quick else "full")
    lay_out(folder, asked.quick)
    systems.data(folder, "sample")
    systems.data(folder, "evening")
    run(folder, "features", paths.FEATURES)
    run(folder, "train", paths.RUNS / f"sample-{PARENT}-0", "sample", PARENT, "0")
    seeds = range(2 if asked.quick else SEEDS)
    found = {model: [scores(folder, model, seed) for seed in seeds] for model in (SCRATCH, TUNED)}
    text, short = compared(found[SCRATCH], found[TUNED])
    parent, child = (1, 1) if asked.quick else (PARENT_EPOCHS, EPOCHS)
    text += (
        f"\n\n{len(seeds)} seeds of each, {child * IMAGES['train']} steps on {IMAGES['train']} pairs, "
        f"{IMAGES['test']} test images; the parent had {parent} epochs of the sample."
    )
    print(text)
    if asked.quick:
        return 0
    if asked.write and not short:
        write("continue", "finetune", text)
    for name in short:
        print(f"checks.finetune: {name} is not better by more than the noise", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    os.environ["REPIX_TRACKING"] = "off"
    stage.guard(lambda: sys.exit(main()))
