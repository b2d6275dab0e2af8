"""How a training's scores grow with its steps: states that are kept on the way, scored as the last one is."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import yaml

from benchmarks.support.quality import scores_of
from checks.harness import run_stage, table
from repix import paths
from repix.cells import Cell
from repix.config import reader
from repix.files import write_text
from repix.metrics import NAMES, find
from repix.schemas import Metrics, Trained

QUARTERS = (1, 2, 3)
"""Of the steps: the first checkpoint from the end of each of these quarters on is kept."""
LOOK_SECONDS = 5.0
CHECKPOINTS = paths.WORK / "checkpoints"


def step_of(checkpoint: Path) -> int:
    """Return the steps that a checkpoint's training had done, by its name."""
    return int(checkpoint.stem.removeprefix("step-"))


def kept(folder: Path, cell: Cell) -> list[Path]:
    """Return the checkpoints of a cell that were kept, by their steps; each in a folder of its run key's name."""
    return sorted((folder / "kept" / cell.name).glob(f"*/step-{'[0-9]' * 9}.npz"), key=step_of)


def run_key_since(folder: Path, begun: float) -> str | None:
    """Return the run key of the training that began last in a folder, by its lock; None where none has since then."""
    locks = {path: path.stat().st_mtime for path in (folder / CHECKPOINTS).glob(".*.lock")}
    fresh = {path: changed for path, changed in locks.items() if changed >= begun}
    return max(fresh, key=fresh.__getitem__).name[1 : -len(".lock")] if fresh else None


def keep(folder: Path, cell: Cell, steps: int, run_key: str) -> None:
    """Give the first checkpoint of each quarter a second name, which outlives the first.

    What was kept of a training of another run key, as of other code, is removed: it is none of this curve.

    Args:
        folder: where the cell is trained, one at a time.
        cell: which.
        steps: of the whole training.
        run_key: of the training in progress.
    """
    places = folder / "kept" / cell.name
    for other in places.glob("*"):
        if other.name != run_key:
            shutil.rmtree(other)
    taken = {4 * step_of(path) // steps for path in kept(folder, cell)}
    for path in sorted((folder / CHECKPOINTS / run_key).glob("step-*.npz")):
        quarter = 4 * step_of(path) // steps
        if quarter not in QUARTERS or quarter in taken:
            continue
        place = places / run_key / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the training has just dropped it: the next one does as well
            os.link(path, place)
            taken.add(quarter)


@contextmanager
def keeping(folder: Path, cell: Cell, steps: int) -> Iterator[None]:
    """Keep checkpoints for the curve of a cell while the body trains it."""
    ended, begun = threading.Event(), time.time() - 1  # a file system's clock may be behind

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            if run_key := run_key_since(folder, begun):
                keep(folder, cell, steps, run_key)

    watching = threading.Thread(target=watch, name="keeps checkpoints")
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def points(folder: Path, cell: Cell) -> list[dict[str, Any]]:
    """Score a trained cell as it was at each checkpoint that was kept; return steps and scores, in their order.

    Args:
        folder: of the trained cell, with its prepared data and features.
        cell: which.
    """
    found = []
    for checkpoint in kept(folder, cell):
        work = folder / "curve" / cell.name / checkpoint.parent.name / checkpoint.stem
        metrics = work / paths.METRICS / f"{cell.name}.json"
        if not metrics.exists():
            try:
                _lay_out(folder, cell, checkpoint, work)
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                print(f"{checkpoint}: left out of the curve ({error})", file=sys.stderr)
                continue
            run_stage(work, "evaluate", *cell.name.split("-"))
        found.append({"steps": step_of(checkpoint), "scores": scores_of(Metrics.read(metrics))})
    return found


def _lay_out(folder: Path, cell: Cell, checkpoint: Path, work: Path) -> None:
    """Make the folder in which a state is scored: as if the training had ended there."""
    from repix.libraries import import_keras

    import_keras()
    from repix.inference.trained import digests
    from repix.training.checkpoint import read_checkpoint
    from repix.training.result import averages, write

    state = read_checkpoint(checkpoint, checkpoint.parent.name).arrays
    record = Trained.read(folder / paths.RUNS / cell.name / "trained.json")
    changed: dict[str, Any] = {"steps": step_of(checkpoint), "networks": digests(state, record.networks), "best": None}
    if record.ema is not None:
        changed["ema"] = record.ema | {"networks": digests(averages(state), record.networks)}
    params = yaml.safe_load((folder / reader.FILE).read_text(encoding="utf-8"))
    params["evaluate"]["paper_mode"] = False
    write_text(work / reader.FILE, yaml.safe_dump(params, sort_keys=False))
    with suppress(FileExistsError):
        (work / paths.PREPARED.parts[0]).symlink_to((folder / paths.PREPARED.parts[0]).resolve())
    write(work / paths.RUNS / cell.name, record.model_copy(update=changed), state, {})


def section(steps: int, scores: Mapping[str, Any], shown: str, found: list[dict[str, Any]], ms: float | None) -> str:
    """Return the table of a curve: a row for each state, the finished one last.

    Args:
        steps, scores: of the finished training.
        shown: which weights: ``last`` or ``ema``.
        found: what :func:`points` returned.
        ms: of a step, for the hours; None where it is not known.
    """
    whole = [*found, {"steps": steps, "scores": scores}]
    rows = []
    for translator in scores:
        names = sorted(scores[translator][shown], key=lambda name: NAMES.index(find(name).name))
        for point in whole:
            hours = "" if ms is None else f"{point['steps'] * ms / 3_600_000:.1f}"
            values = point["scores"][translator].get(shown, {})
            rows.append(
                [
                    translator.replace("_", " "),
                    f"{point['steps']:,}",
                    hours,
                    *(f"{values[name]:.4g}" if name in values else "" for name in names),
                ]
            )
    return table(["direction", "steps", "hours", *names], rows, left=1)
