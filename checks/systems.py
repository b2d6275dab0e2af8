"""Every system trained a little on real images, each against trivial predictors; or each built at full size.

    python -m checks.systems                      # train every row that has not been, print the table
    python -m checks.systems --only pix2pix lab   # some rows
    python -m checks.systems --build              # 256 px: three steps, a checkpoint, and back from it
    python -m checks.systems --hdf5               # facades_bw as the book's HDF5 tree, and back
    python -m checks.systems --write                  # put the table into docs/systems.md (also with --build)

A row is one recipe of params.yaml as it stands, but for its epochs, on a real data set of params.yaml, but
for its size, with 100 training images. It goes through the stages' own scripts (download, unpack, preprocess, train,
evaluate) in a folder of its own below --out; killed, it goes on where it was. The baselines are trivial
predictors: the source itself, the best constant colour for each label, or grey for Lab; of several the best one
counts, metric by metric. Losses are means over the first and the last epoch.
Ends with 1 where a row is missing, or no better than its baseline on SSIM and on SWD alike.

The archives lie in ../shared/data, or below REPIX_REAL_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from checks.harness import ROOT, own_peak, run_stage, table, write
from repix import paths, profile, stage
from repix.cells import Cell
from repix.config import reader
from repix.config.images import Images
from repix.errors import UserError
from repix.files import digest_arrays, digest_file, digest_tree, locked, read_json, remove, write_json, write_text

REAL_DATA = Path(os.environ.get("REPIX_REAL_DATA", ROOT.parent / "shared")) / "data"
FACADES = ("facades.tar.gz", "1501faf52c72125641c39384f90cdda5df82458381c802c68893dd86e6ae1878")
# Copies whose images were encoded again; the official archives have other bytes, and scores that come close.
ARCHIVES = {
    "facades": FACADES,
    "facades_bw": FACADES,
    "facades_unaligned": ("facades.zip", "8d471ad6096f6158d12671571f22409acf8c04d4bcfb97d3f4dc1b64260fb113"),
    "lab_colorization": ("bsds500.zip", "b84ca1d1a4a12b060eb96192a963c496b0ef9efc875af768441873146c737e76"),
}
MADE_HERE = ".made-by-lay-out"
"""File in a folder that :func:`lay_out` made, and may empty."""
TRAIN_IMAGES = 100
METRICS = ("ssim", "swd", "l1")
DECIDING = ("ssim", "swd")  # L1 rewards blur
BUILD_SIZE, BUILD_STEPS = 256, 3


@dataclass(frozen=True)
class Row:
    """A recipe on a data set.

    Attributes:
        name: of the row.
        model, dataset: entries of params.yaml.
        size: side of the images in pixels; load_size follows in proportion.
        epochs: instead of the recipe's.
        changes: keys of the data set's ``images`` that the source of the recipe asks for.
        recipe: keys of the recipe that differ from params.yaml, other than its epochs.
    """

    name: str
    model: str
    dataset: str
    size: int
    epochs: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


ROWS = {
    row.name: row
    for row in (
        Row("pix2pix", "pix2pix", "facades", 64, 3),
        Row("cyclegan", "cyclegan", "facades_unaligned", 64, 3),
        Row("pix2pix_scratch", "pix2pix_scratch", "facades", 64, 3),
        Row("pix2pix_book", "pix2pix_book", "facades_bw", 64, 2),
        Row("cyclegan_book", "cyclegan_book", "facades_unaligned", 64, 2),
        Row("pix2pix_tf2", "pix2pix_tf2", "facades", 64, 4, {"resample": "nearest"}),
        Row("pix2pix_affine", "pix2pix_affine", "facades", 64, 3, {"resample": "box"}),
        Row("lab", "pix2pix_affine", "lab_colorization", 64, 5),
    )
}


# --- folders in which the stages run


def archive_of(dataset: str) -> dict[str, Any]:
    """Return the keys of a data set's ``archive`` that name it on this machine; say so where it is another copy.

    Raises:
        UserError: it is not there.
    """
    name, sha256 = ARCHIVES[dataset]
    path = REAL_DATA / name
    if not path.is_file():
        raise UserError(f"{path}: no such file; set REPIX_REAL_DATA to the folder above data/{name}")
    if (found := digest_file(path)) != sha256:
        print(f"{path}: not the copy that the committed figures are of (sha256 {sha256[:8]}...)", file=sys.stderr)
    return {"urls": [path.resolve().as_uri()], "sha256": found, "withdrawn": None}


def params_of(models: Mapping[str, Mapping], sets: Mapping[str, tuple[Mapping, Mapping]], profile: str = "fast") -> str:
    """Return the text of a params.yaml with these entries changed, and no others of their kind in it.

    Args:
        models: model -> keys that are changed.
        sets: data set -> keys that are changed of its ``archive`` and of its ``images``.
        profile: under which all of them train.
    """
    import yaml

    tree = reader.load(ROOT / reader.FILE)
    tree["models"] = {name: tree["models"][name] | dict(changes) for name, changes in models.items()}
    tree["datasets"] = {name: tree["datasets"][name] for name in sets}
    for name, changes in sets.items():
        for group, values in zip(("archive", "images"), changes, strict=True):
            tree["datasets"][name][group] |= values
    tree["run"] = {"datasets": list(sets), "models": list(models), "seeds": [0], "profile": profile}
    return yaml.safe_dump(tree, sort_keys=False)


def sized(dataset: str, size: int) -> dict[str, Any]:
    """Return load and crop size of a data set's images, brought to a crop of ``size``."""
    images = reader.read(f"datasets.{dataset}.images", Images, ROOT / reader.FILE)
    return {"load_size": -(-images.load_size * size // images.crop_size), "crop_size": size}


def lay_out(folder: Path, params: str, *, hours: bool = False) -> None:
    """Make the folder; what lies in one that was made here for other parameters is removed first.

    Args:
        folder: where.
        params: the text of its params.yaml.
        hours: whether trainings in it take so long that they are not removed.

    Raises:
        UserError: it was not made here; or it holds such trainings.
    """
    path, mark = folder / reader.FILE, folder / MADE_HERE
    make_folder(folder)
    others = [other for other in folder.iterdir() if other != mark]
    if others and not mark.exists():
        raise UserError(f"{folder}: holds files of others, and might be emptied: name a new folder, or remove this one")
    mark.touch()
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before == params:
        return
    if hours and [*(folder / paths.WORK / "checkpoints").glob("*/*"), *(folder / paths.RUNS).glob("*")]:
        lines = (before or "").splitlines()
        changed = [line.strip() for line in params.splitlines() if line not in lines] if lines else [f"no {path.name}"]
        raise UserError(
            f"{folder}: holds trainings with other parameters ({(changed or ['fewer'])[0]}): give the options that "
            f"they were begun with, name another folder, or remove this one"
        )
    path.unlink(missing_ok=True)  # first: what a kill leaves of the rest is then known to be of no parameters
    for other in others:
        remove(other)
    write_text(path, params)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none.

    Raises:
        UserError: there can be none, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be made, or written in ({error.strerror})") from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder of :func:`lay_out` while the body makes and uses it; a second command waits, and says so.

    Raises:
        UserError: there can be no such folder.
    """
    folder = folder.resolve()
    make_folder(folder.parent)
    with locked(folder.parent / f".{folder.name}.lock", str(folder)):
        yield


def thin(tree: Path, keep: Mapping[str, int]) -> None:
    """Leave so many images of each split, spread evenly over its names; both sides of a pair share a name."""
    for split, most in keep.items():
        for folder in sorted(path for path in tree.rglob(f"{split}*") if path.is_dir()):
            files = sorted(path for path in folder.iterdir() if path.is_file())
            kept = {files[i * len(files) // most] for i in range(most)} if len(files) > most else set(files)
            for path in files:
                if path not in kept:
                    path.unlink()


def data(folder: Path, dataset: str, keep: Mapping[str, int] | None = None) -> None:
    """Download, unpack and preprocess a data set in a folder, with so many images of each split."""
    if (folder / paths.PREPARED / dataset / "manifest.json").exists():
        return
    run_stage(folder, "download", dataset)
    run_stage(folder, "unpack", dataset)
    thin(folder / paths.IMAGES / dataset, keep or {})
    run_stage(folder, "preprocess", dataset)


# --- a row of the table


def train_row(row: Row, folder: Path) -> dict[str, Any]:
    """Bring one row through the stages, score the baselines beside it, and return all that is known of it."""
    folder = folder.resolve()
    cell = Cell(row.dataset, row.model, 0)
    data(folder, row.dataset, {"train": TRAIN_IMAGES})
    if not (folder / paths.FEATURES).exists():
        run_stage(folder, "features")
    for name, out in (("train", paths.RUNS / cell.name), ("evaluate", paths.METRICS / f"{cell.name}.json")):
        if not (folder / out).exists():
            run_stage(folder, name, *cell.name.split("-"))

    os.chdir(folder)  # `describe` reads params.yaml like any command
    from repix.libraries import import_keras

    import_keras()
    from repix.commands.describe import describe
    from repix.data.prepared import Prepared
    from repix.inference.backend import backend_module
    from repix.schemas import Metrics
    from repix.training.history import read_table

    backend_module()
    facts = describe(row.model, row.dataset)[0].facts.networks
    prepared = Prepared.open(paths.PREPARED / row.dataset)
    metrics = Metrics.read(paths.METRICS / f"{cell.name}.json")
    losses = read_table(paths.PLOTS / cell.name / "losses.csv")
    return {
        "row": row.name,
        "model": row.model,
        "dataset": row.dataset,
        "size": row.size,
        "images": {name: split.source.n for name, split in prepared.manifest.splits.items()},
        "networks": {
            name: {"parameters": one.parameters, "receptive_field": one.receptive_field} for name, one in facts.items()
        },
        "steps": losses[-1].step,
        "losses": {"first": losses[0].values, "last": losses[-1].values},
        "ms_per_step": ms_per_step(cell.name),
        "weights": metrics.weights_digest,
        "translators": {
            name: compared(variants["last"], baselines(prepared, name)) for name, variants in metrics.scores.items()
        },
        "pictures": {
            name: (folder / paths.TRANSLATIONS / cell.name / f"{name}.png").as_posix() for name in metrics.scores
        },
    }


def ms_per_step(cell: str, folder: Path | None = None) -> float | None:
    """Return the time of a step in the fastest epoch but the first, which compiles; None of a single epoch.

    The fastest, since other work on the machine only ever adds. A stage's outs hold no times; those of
    TensorBoard's events are the only ones that a training leaves.
    """
    from repix.libraries import native_chatter

    work = paths.WORK if folder is None else folder / ".repix"
    boards = list((work / "tensorboard" / cell).glob("*"))
    if not boards:
        return None
    board = max(boards, key=lambda folder: folder.stat().st_mtime)
    with native_chatter():  # TensorBoard imports TensorFlow, here and there
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(board))
        events.Reload()
    ends = events.Scalars("schedule/learning_rate")
    times = (1000 * (b.wall_time - a.wall_time) / (b.step - a.step) for a, b in pairwise(ends))
    return min(times, default=None)


def baselines(prepared, translator: str) -> dict[str, dict[str, float | None]]:
    """Return predictor -> metric -> score on the test split, for the trivial predictors of this task."""
    import numpy as np

    from repix.config.evaluation import Evaluate
    from repix.evaluation import baselines as predictors
    from repix.evaluation.evaluate import View
    from repix.evaluation.score import score_paired_and_distribution
    from repix.studies.margins import resized

    view = View.of(prepared, translator)
    sources, targets = np.asarray(view.sources), np.asarray(view.targets)
    if view.target.colour == "lab_ab":
        outputs = {"grey": np.zeros_like(targets)}  # a and b of grey are 0
    else:
        outputs = {"identity": predictors.identity(sources, view.source, view.target)}
        if view.paired:
            train = prepared.split("train")
            pairs = (resized(side, sources.shape[1:3]) for side in (train.source, train.target))
            outputs["constant colour per label"] = predictors.constant_colour_per_label(*pairs, sources)
    found = {}
    for name, images in outputs.items():
        # Without pairs identity hands in other images than the reference has, perhaps in other number.
        scores, _, _ = score_paired_and_distribution(
            images,
            targets if view.paired else None,
            view.target,
            reference=targets,
            evaluate=Evaluate(swd=True),
            describe=False,
        )
        found[name] = {metric: scores[metric] for metric in METRICS}
    return found


def compared(scores: Mapping[str, float | None], below: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """Return scores, baselines, the best baseline of each metric, and whether the scores are better than that."""
    from repix.metrics import direction

    best: dict[str, float | None] = {}
    for metric in METRICS:
        values = [baseline[metric] for baseline in below.values() if baseline[metric] is not None]
        best[metric] = max(values, key=lambda value: value * direction(metric)) if values else None
    better = {
        metric: None
        if best[metric] is None or scores[metric] is None
        else (scores[metric] - best[metric]) * direction(metric) > 0
        for metric in METRICS
    }
    return {
        "scores": {metric: scores[metric] for metric in METRICS},
        "baselines": dict(below),
        "best_baseline": best,
        "better": better,
    }


def sound(record: Mapping[str, Any]) -> bool:
    """Whether every translator of a row is better than its baseline on SSIM or on SWD."""
    return all(any(one["better"][metric] for metric in DECIDING) for one in record["translators"].values())


# --- full size


def build_data(out: Path) -> Path:
    """Prepare a few images of each data set at 256 px; return the folder."""
    folder = out / "build"
    models = {row.model: {} for row in ROWS.values()}
    sets = {name: (archive_of(name), sized(name, BUILD_SIZE)) for name in ARCHIVES}
    lay_out(folder, params_of(models, sets))
    for name in sets:
        data(folder, name, {"train": 4, "test": 2, "val": 2})
    return folder


def set_up_row(row: Row):
    """Return the row's setup at full size, at its first weights; the working folder is that of the data."""
    from repix.libraries import import_keras

    import_keras()
    from repix.config import models
    from repix.config.augment import Augment
    from repix.data.prepared import Prepared
    from repix.training.setup import set_up

    recipe = reader.read(f"models.{row.model}", models.Recipe)
    augment = reader.read(f"datasets.{row.dataset}.augment", Augment)
    prepared = Prepared.open(paths.PREPARED / row.dataset)
    return set_up(Cell(row.dataset, row.model, 0), recipe, prepared, flip=augment.flip), recipe


def build_row(row: Row, folder: Path) -> dict[str, Any]:
    """Build the row's networks, run three iterations and save a checkpoint, in this process."""
    os.chdir(folder)
    setup, recipe = set_up_row(row)
    from repix.training.checkpoint import Checkpoint, Checkpoints

    for number in range(BUILD_STEPS):
        before = time.perf_counter()
        names, losses = setup.step.run(number, 1, recipe.learning_rate(0))
        last = 1000 * (time.perf_counter() - before)
    state = setup.step.state()
    path = Checkpoints(Path("checkpoints"), row.name).save(Checkpoint(BUILD_STEPS, state, {}))
    return {
        "row": row.name,
        "model": row.model,
        "dataset": row.dataset,
        "size": BUILD_SIZE,
        "parameters": setup.parameters(),
        "losses": dict(zip(names, losses[0].tolist(), strict=True)),
        "ms_of_last_step": last,
        "checkpoint_bytes": path.stat().st_size,
        "peak_bytes": round(own_peak() * 1e9),
        "state": digest_arrays(state),
    }


def restore_row(row: Row, folder: Path) -> dict[str, Any]:
    """Build the row's networks anew, take the checkpoint up, and return what is in force then."""
    os.chdir(folder)
    setup, _ = set_up_row(row)
    from repix.training.checkpoint import Checkpoints

    first = digest_arrays(setup.step.state())
    found = Checkpoints(Path("checkpoints"), row.name).resume(lambda checkpoint: setup.step.restore(checkpoint.arrays))
    return {
        "restored_step": found.step if found else None,
        "restored_state": digest_arrays(setup.step.state()),
        "first_state": first,
    }


def restored(record: Mapping[str, Any]) -> bool:
    """Whether what was restored is what was saved, and not what a new training begins with."""
    return (
        record["restored_step"] == BUILD_STEPS
        and record["restored_state"] == record["state"]
        and record["first_state"] != record["state"]
    )


# --- HDF5


def photos_and_labels(prepared: Any) -> dict[str, tuple[Any, Any]]:
    """Return split -> (side A, side B) of a paired, prepared set."""
    splits = {name: prepared.split(name) for name in prepared.manifest.splits}
    forwards = prepared.manifest.direction == "AtoB"
    return {name: (s.source, s.target) if forwards else (s.target, s.source) for name, s in splits.items()}


def hdf5_and_back(out: Path) -> dict[str, Any]:
    """Rebuild the book's HDF5 tree from the façades, send it through the stages, and write it again."""
    from checks.support.book import write_book_tree
    from repix.data.prepared import Prepared

    folder = out / "hdf5"
    shutil.rmtree(folder, ignore_errors=True)
    first, second = folder / "first", folder / "second"
    lay_out(first, params_of({"pix2pix_book": {}}, {"facades_bw": (archive_of("facades_bw"), {})}))
    data(first, "facades_bw")
    made = Prepared.open(first / paths.PREPARED / "facades_bw")
    write_book_tree(folder / "book", photos_and_labels(made))

    files = sorted(path for path in (folder / "book").rglob("*.h5"))
    packed = Path(shutil.make_archive(str(folder / "facades_bw"), "tar", folder, "book"))
    entry = {"urls": [packed.resolve().as_uri()]}, {"layout": "hdf5", "resize": "none"}
    lay_out(second, params_of({"pix2pix_book": {}}, {"facades_bw": entry}))
    data(second, "facades_bw")
    back = Prepared.open(second / paths.PREPARED / "facades_bw")
    write_book_tree(folder / "again", photos_and_labels(back))
    splits = {name: made.split(name) for name in made.manifest.splits}
    return {
        "files": {path.relative_to(folder / "book").as_posix(): path.stat().st_size for path in files},
        "pairs": {name: len(split.source) for name, split in splits.items()},
        "arrays_equal": all(
            (getattr(split, side) == getattr(back.split(name), side)).all()
            for name, split in splits.items()
            for side in ("source", "target")
        ),
        "book": digest_tree(folder / "book"),
        "again": digest_tree(folder / "again"),
    }


# --- tables


def joined(names: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    """Return losses by name; those of CycleGAN's two domains are averaged."""
    groups: dict[str, list[float]] = {}
    for name in names:
        groups.setdefault(name.removesuffix("_x").removesuffix("_y"), []).append(values[name])
    return {name: statistics.mean(found) for name, found in groups.items()}


def networks_cell(networks: Mapping[str, Mapping[str, Any]], size: int) -> tuple[str, str]:
    """Return parameters and receptive fields of a row's networks; CycleGAN's twins are counted together."""
    from repix.commands.describe import field_text

    twins: dict[tuple[str, int, int | None], int] = {}
    for name, one in networks.items():
        kind = "D" if name.endswith("discriminator") else "G"
        key = kind, one["parameters"], one["receptive_field"]
        twins[key] = twins.get(key, 0) + 1
    parameters = [f"{'2 x ' if n > 1 else ''}{kind} {count:,}" for (kind, count, _), n in twins.items()]
    fields = [f"{kind} {field_text(seen, (size, size))}" for kind, _, seen in twins]
    return "<br>".join(parameters), "<br>".join(fields)


def trained_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of trained rows, a line for each translator."""
    head = ["row", "data", "parameters", "receptive field", "losses, first and last epoch", "steps", "ms per step"]
    head += ["SSIM", "baseline", "SWD", "baseline", "better than the baseline on"]
    lines = []
    for record in records:
        parameters, fields = networks_cell(record["networks"], record["size"])
        names = sorted(name for name in record["losses"]["first"] if name.startswith(("d_", "g_")))
        first, last = (joined(names, record["losses"][when]) for when in ("first", "last"))
        shown = "<br>".join(f"{name} {first[name]:.3g}, {last[name]:.3g}" for name in first)
        images, size = record["images"], record["size"]
        data = f"{record['dataset']} {size} px, {images['train']} + {images['test']} images"
        start = [f"`{record['row']}`", data, parameters, fields, shown]
        start += [f"{record['steps']:,}", f"{record['ms_per_step']:.0f}"]
        for number, (translator, one) in enumerate(sorted(record["translators"].items())):
            cells = start if number == 0 else [""] * len(start)
            if len(record["translators"]) > 1:
                cells = [f"{cells[0]} {translator.replace('_', ' ')}".strip(), *cells[1:]]
            scores = []
            for metric, digits in (("ssim", 3), ("swd", 1)):
                for value in (one["scores"][metric], one["best_baseline"][metric]):
                    scores.append("no pairs" if value is None else f"{value:.{digits}f}")
            better = [metric.upper() for metric in DECIDING if one["better"][metric]]
            lines.append([*cells, *scores, " and ".join(better) or "NEITHER"])
    return table(head, lines, left=5)


def built_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of rows built at full size."""
    head = ["row", "data", "parameters", "peak memory", "checkpoint", "third step", "restored"]
    lines = [
        [
            f"`{record['row']}`",
            f"{record['dataset']} {record['size']} px",
            f"{sum(record['parameters'].values()):,}",
            f"{record['peak_bytes'] / 1e9:.2f} GB",
            f"{record['checkpoint_bytes'] / 1e6:,.0f} MB",
            f"{record['ms_of_last_step']:,.0f} ms",
            "the same bits" if restored(record) else "NOT THE SAME",
        ]
        for record in records
    ]
    return table(head, lines, left=2)


# --- the command


def worker(kind: str, name: str, out: Path, *, epochs: int | None) -> dict[str, Any]:
    """Run one worker process; return its record.

    Raises:
        UserError: it failed.
    """
    result = out / kind / f"{name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "checks.systems", "--worker", kind, name, "--out", str(out)]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    code = subprocess.run(command, check=False).returncode
    if code or not result.exists():
        raise UserError(f"{kind} {name} ended with {code}")
    return read_json(result)


def folder_of(row: Row, out: Path, epochs: int | None) -> tuple[Path, str]:
    """Return where a row is trained, and its params.yaml."""
    sets = {row.dataset: (archive_of(row.dataset), sized(row.dataset, row.size) | dict(row.changes))}
    return out / "cells" / row.name, params_of({row.model: {"epochs": epochs or row.epochs, "decay_epochs": 0}}, sets)


def trained(rows: Iterable[Row], asked: argparse.Namespace) -> tuple[list[dict], list[str]]:
    """Return the records of rows, made where they are missing; and what is wrong."""
    records, wrong = [], []
    for row in rows:
        result = asked.out / f"{row.name}.json"
        folder, params = folder_of(row, asked.out, asked.epochs)
        known = read_json(result) if result.exists() else {}
        if asked.force or known.get("params") != params:
            if asked.force:
                shutil.rmtree(folder, ignore_errors=True)
            before = time.perf_counter()
            try:
                known = worker("train", row.name, asked.out, epochs=asked.epochs) | {"params": params}
            except UserError as error:
                wrong.append(str(error))
                continue
            write_json(result, known | {"seconds": round(time.perf_counter() - before, 1)})
            print(f"{row.name}: {time.perf_counter() - before:.0f} s", file=sys.stderr, flush=True)
        records.append(known)
        if not sound(known):
            wrong.append(f"{row.name}: no better than its baseline on {' and '.join(DECIDING)}")
    return records, wrong


def built(rows: Iterable[Row], asked: argparse.Namespace) -> tuple[list[dict], list[str]]:
    """Return the records of rows at full size, and what is wrong."""
    folder, records, wrong = build_data(asked.out), [], []
    for row in rows:
        result = asked.out / f"{row.name}-build.json"
        if asked.force or not result.exists():
            record = worker("build", row.name, asked.out, epochs=None)
            record |= worker("restore", row.name, asked.out, epochs=None)
            shutil.rmtree(folder / "checkpoints")
            write_json(result, record)
            print(f"{row.name}: built", file=sys.stderr, flush=True)
        records.append(read_json(result))
        if not restored(records[-1]):
            wrong.append(f"{row.name}: what was restored is not what was saved")
    return records, wrong


def work(kind: str, row: Row, asked: argparse.Namespace) -> None:
    """Run one row in this process; its record goes to ``<out>/<kind>/<row>.json``."""
    profile.enter("fast")
    result = asked.out.resolve() / kind / f"{row.name}.json"
    if kind == "train":
        folder, params = folder_of(row, asked.out, asked.epochs)
        lay_out(folder, params)
        record = train_row(row, folder)
    else:
        record = {"build": build_row, "restore": restore_row}[kind](row, asked.out / "build")
    write_json(result, record)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, default=paths.WORK / "systems", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="make rows anew that are there")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the row's, for a trial")
    parser.add_argument("--build", action="store_true", help="three steps at 256 px, a checkpoint, and back from it")
    parser.add_argument("--hdf5", action="store_true", help="facades_bw to HDF5 and back")
    parser.add_argument("--write", action="store_true", help="also put the table into docs/systems.md")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker[0], ROWS[asked.worker[1]], asked)
        return 0
    if asked.hdf5:
        record = hdf5_and_back(asked.out)
        print(json.dumps(record, indent=2))
        return 0 if record["arrays_equal"] and record["book"] == record["again"] else 1
    if asked.epochs is not None and asked.epochs < 2:
        parser.error("--epochs: 2 or more, times are taken between their ends")
    rows = [ROWS[name] for name in asked.only or ROWS]
    name, make, tabled = ("build", built, built_table) if asked.build else ("systems", trained, trained_table)
    records, wrong = make(rows, asked)
    text = tabled(records)
    print(text)
    write_text(asked.out / f"{name}.md", text + "\n")
    if asked.write and not wrong:
        write("systems", name, text)
    for line in wrong:
        print(f"checks.systems: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    stage.guard(lambda: sys.exit(main()))
