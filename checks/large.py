"""Large data sets: what each stage takes in time and memory as the images grow in number, and what a million would.

    python -m checks.large                            # 20,000 and 137,000 pairs at 64 px; an hour, 25 GB of disk
    python -m checks.large --pairs 2000 4000 --test 500
    python -m checks.large --write                    # the table of docs/scale.md

The pairs are the façades of ../shared/data (or below REPIX_REAL_DATA), brought to 64 px and repeated with noise of
their own, in one archive. They go through the stages' own scripts in a folder of their own below --out: unpack,
preprocess, a training of one epoch of large batches by small networks, and the evaluation of the test images. Beside
seconds stands the most memory that a stage held, and what it read of files (of neither what is mapped from files, which
the system takes back when it needs the room): a set that has been hashed by one stage is not hashed by the next. The
last column continues the line through both sizes to a million. Exit code 1 where a bound of the table is not kept.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks.harness import ROOT, run_stage, table, write
from checks.systems import archive_of, params_of
from repix import paths
from repix.cells import Cell
from repix.errors import UserError
from repix.files import write_text
from repix.stage import guard

LOAD, CROP = 72, 64
BATCH = 64
MILLION = 1_000_000
CELL = Cell("facades", "pix2pix", 0)
TINY = {
    "generator": {"filters": 4, "dropout": 0.0},
    "discriminator": {"filters": 4, "layers": 2},
    "epochs": 1,
    "decay_epochs": 0,
    "picture_every": 1,
    "checkpoint_every": 1,
    "batch_size": BATCH,
}
BOUNDS = {"preprocess, GB": 0.4, "train: to the first losses, s": 60.0, "evaluate, GB": 4.0}
"""Row -> the most that it may be."""


def draw(out: Path, pairs: int, test: int) -> None:
    """Write an archive of so many pairs, of which ``test`` are the test split."""
    import numpy as np
    from PIL import Image

    with tarfile.open(archive_of("facades")["urls"][0].removeprefix("file://")) as real:
        opened = (real.extractfile(member) for member in real if member.name.endswith(".jpg"))
        faces = [np.asarray(Image.open(file).convert("RGB").resize((2 * LOAD, LOAD)), np.int16) for file in opened]
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(pairs):
            noisy = faces[number % len(faces)] + rng.integers(-8, 9, faces[0].shape, np.int16)
            stream = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
            archive.writestr(f"large/{'test' if number < test else 'train'}/{number}.jpg", stream.getvalue())


@dataclass
class Size:
    """What was measured at one size: row of the table -> figure."""

    pairs: int
    rows: dict[str, float] = field(default_factory=dict)

    def stage(self, folder: Path, name: str, *names: str) -> None:
        """Run a stage, and keep its seconds, its memory, and what it read."""
        print(f"{self.pairs:,} pairs: {name}", file=sys.stderr, flush=True)
        ran = run_stage(folder, name, *names)
        self.rows |= {f"{name}, s": ran.seconds, f"{name}, GB": ran.held, f"{name}: GB read": ran.read}


def first_losses(folder: Path, begun: float) -> float:
    """Return the seconds from ``begun`` to the training's first losses in TensorBoard's events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (board,) = (folder / ".repix" / "tensorboard" / CELL.name).iterdir()
    events = EventAccumulator(str(board))
    events.Reload()
    return min(events.Scalars(tag)[0].wall_time for tag in events.Tags()["scalars"]) - begun


def bytes_of(folder: Path, *suffixes: str) -> float:
    """Return the sum of the sizes of the files of a folder with one of these suffixes, in GB."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in suffixes) / 1e9


OPENED = """
import sys, time
from checks.harness import own_peak
from repix.data.prepared import Prepared
before = own_peak()
start = time.perf_counter()
Prepared.open(sys.argv[1])
print(time.perf_counter() - start, own_peak() - before)
"""


def measure(folder: Path, pairs: int, test: int) -> Size:
    """Bring so many pairs through the stages in a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = folder / "large.zip"
    print(f"{pairs:,} pairs: drawing them", file=sys.stderr, flush=True)
    draw(archive, pairs, test)
    given = {"urls": [archive.as_uri()], "sha256": None, "withdrawn": None}
    images = {"load_size": LOAD, "crop_size": CROP}
    write_text(folder / "params.yaml", params_of({CELL.model: TINY}, {CELL.dataset: (given, images)}))

    size = Size(pairs)
    for name in ("download", "unpack", "preprocess"):
        size.stage(folder, name, CELL.dataset)
    prepared = folder / paths.PREPARED / CELL.dataset
    size.rows |= {"arrays, GB": bytes_of(prepared, ".npy"), "lists of images, GB": bytes_of(prepared, ".jsonl")}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", OPENED, str(prepared)]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    size.rows |= {"opening the set, s": float(said[0]), "opening the set, GB": float(said[1])}
    size.stage(folder, "features")
    names = (CELL.dataset, CELL.model, str(CELL.seed))
    begun = time.time()
    size.stage(folder, "train", *names)
    size.rows["train: to the first losses, s"] = first_losses(folder, begun)
    size.stage(folder, "evaluate", *names)
    return size


def rows(small: Size, large: Size, test: Mapping[int, int]) -> list[list[Any]]:
    """Return the table: of each figure both sizes, what a thousand more cost, and a million."""
    made = []
    for name in ROWS:
        one, other = small.rows[name], large.rows[name]
        # What the evaluation takes follows the test images, and they are not a share of the pairs.
        n, m = (test[small.pairs], test[large.pairs]) if name.startswith("evaluate") else (small.pairs, large.pairs)
        each = max(0.0, (other - one) / (m - n))  # what other work made slower at the smaller size does not shrink
        million = None if name.startswith("evaluate") else other + each * (MILLION - m)
        made.append([name, one, other, BOUNDS.get(name), 1000 * each, million])
    return made


ROWS = (
    "unpack, s",
    "preprocess, s",
    "preprocess, GB",
    "arrays, GB",
    "lists of images, GB",
    "opening the set, s",
    "opening the set, GB",
    "train: to the first losses, s",
    "train, GB",
    "train: GB read",
    "evaluate, s",
    "evaluate, GB",
    "evaluate: GB read",
)


def main() -> int:
    """Run the check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs=2, default=[20_000, 137_000], help="default: 20000 137000")
    parser.add_argument("--test", type=int, default=20_000, help="test images of the larger set; default: 20000")
    parser.add_argument("--out", type=Path, default=ROOT / ".repix" / "large", help="default: .repix/large")
    parser.add_argument("--keep", action="store_true", help="leave the data sets where they are")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    given = parser.parse_args()
    few, many = given.pairs
    test = {few: given.test * few // many, many: given.test}
    if not 0 < test[few] < few < many or not 0 < given.test < many:
        raise UserError("--pairs takes two sizes, the smaller one first, and --test fewer than the larger one")
    sizes = []
    for pairs in given.pairs:
        folder = given.out.resolve() / str(pairs)
        sizes.append(measure(folder, pairs, test[pairs]))
        if not given.keep:
            shutil.rmtree(folder)
    head = ("figure", *(f"{pairs:,} pairs" for pairs in given.pairs), "at most", "for 1,000 more", "for a million")
    text = table(head, rows(*sizes, test))
    text += f"\n\nTest images: {test[few]:,} and {test[many]:,}; figures of the evaluation are per 1,000 of these."
    print(text)
    if given.write:
        write("scale", "large", text)
    over = [name for name, most in BOUNDS.items() if sizes[1].rows[name] > most]
    for name in over:
        print(f"{name}: {sizes[1].rows[name]:.3g}, at most {BOUNDS[name]:g}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    guard(lambda: sys.exit(main()))
