"""Rebuild MLflow's runs from what git and DVC hold.

For every trained cell in runs/ the run is found by its run key, or created: params, curves,
test scores, pictures, the exported model's entry, commit and DVC hashes. Use it after the
database was deleted, after `dvc pull` in a fresh clone, after a cache hit (`dvc repro` ran
nothing), or after a training while tracking was down. A second sync changes nothing.

Runs that are RUNNING though their process is gone from this machine are closed as KILLED.
What only the training saw is not rebuilt: sample pictures on the way, machine, times.

Examples:
  repix sync
  MLFLOW_TRACKING_URI=http://server:5000 repix sync sample-pix2pix_small-0
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from tqdm import tqdm

from repix.errors import UserError, printable, told
from repix.files import digest_tree
from repix.schemas import Exported, Manifest, Metrics, Trained
from repix.tracking import curves, mlflow_run, store
from repix.training.history import read_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cells", nargs="*", metavar="CELL", help="cells to sync; default: all in runs/")
    parser.add_argument("--json", action="store_true", help="print JSON")


def trained_cells(root: Path, cells: list[str]) -> list[Path]:
    """Return the folders of trained cells, all of them by default.

    Raises:
        UserError: one that was asked for is not there.
    """
    found = {path.parent.name: path.parent for path in sorted((root / "runs").glob("*/trained.json"))}
    for cell in cells:
        if cell not in found:
            raise UserError(f"runs/{cell}: no trained cell; there are {', '.join(found) or 'none'} (`dvc pull`?)")
    return [found[cell] for cell in cells or found]


def sync_cell(root: Path, folder: Path) -> mlflow_run.Run:
    """Bring one cell's MLflow run up to date with the outs; return the run.

    Args:
        root: the repository.
        folder: ``runs/<cell>``.

    Raises:
        UserError: a record is missing or of other weights.
    """
    trained = Trained.read(folder / "trained.json")
    cell = trained.cell
    outs = {
        "prepared": f"data/prepared/{trained.dataset}",
        "runs": f"runs/{cell}",
        "metrics": f"metrics/{cell}.json",
        "translations": f"translations/{cell}",
        "exports": f"exports/{cell}",
    }
    hashes = mlflow_run.dvc_tags(root, outs.values())
    prepared = root / outs["prepared"] / "manifest.json"
    lineage = mlflow_run.lineage_of(cell, digest_tree(folder), root)
    params = (
        {"crop_size": trained.crop_size}
        | lineage.params
        | lineage.params.get(f"datasets.{trained.dataset}.augment", {})
    )
    # As the train stage logs them: short names, by which runs are searched and compared.
    params |= {"dataset": trained.dataset, "model": trained.model, "seed": trained.seed}
    run = mlflow_run.open_run(
        cell,
        run_key=lineage.run_key,
        params=params | trained.recipe | _plan(trained, folder),
        tags={"repix.profile": trained.profile["name"]}
        | mlflow_run.recorded_tags(root, hashes.get(f"dvc.{outs['runs']}")),
        dataset=mlflow_run.dataset_entry(Manifest.read(prepared), trained.data_digest, outs["prepared"])
        if prepared.is_file()
        else None,
        root=root,
    )
    run.tags(hashes)  # of now: the same weights may have been evaluated anew
    table = root / "plots" / cell / "losses.csv"
    if table.is_file():
        if not (rows := read_table(table)):
            raise UserError(f"{table.relative_to(root)}: has no rows; `dvc checkout` brings it back")
        run.curve([row._replace(values=curves.grouped(row.values)) for row in rows])
    _sync_evaluation(run, root, trained, outs)
    return run


def _plan(trained: Trained, folder: Path) -> dict[str, int]:
    """Return what a training logs of its size."""
    from repix.arrays import load_arrays

    plan = {"steps": trained.steps, "epochs": trained.epochs, "steps_per_epoch": trained.steps // trained.epochs}
    for network in trained.networks:
        path = folder / "last" / f"{network}.npz"
        if path.is_file():
            plan[f"parameters.{network}"] = sum(math.prod(array.shape) for array in load_arrays(path).values())
    return plan


def _sync_evaluation(run: mlflow_run.Run, root: Path, trained: Trained, outs: dict[str, str]) -> None:
    """Log scores, pictures and export of a cell, those that belong to these very weights."""
    metrics = Metrics.read(root / outs["metrics"]) if (root / outs["metrics"]).is_file() else None
    if metrics is not None and metrics.weights("last").items() - trained.networks.items():
        print(f"{printable(trained.cell)}: metrics are of other weights, left out; run `dvc repro`", file=sys.stderr)
        metrics = None
    if metrics is not None:
        mlflow_run.log_metrics_record(run, metrics)
        pictures = {name: root / outs["translations"] / f"{name}.png" for name in trained.translators}
        shown = {f"test/{name}": path for name, path in sorted(pictures.items()) if path.is_file()}
        mlflow_run.log_pictures(run, shown, step=trained.steps)
    exported = root / outs["exports"] / "export.json"
    if exported.is_file() and _same_weights(Exported.read(exported), trained):
        tags = mlflow_run.dvc_tags(root, [outs["exports"]])
        digest = digest_tree(exported.parent)
        mlflow_run.log_model_entry(run, trained.cell, outs["exports"], digest, tags=tags, metrics=metrics)


def _same_weights(exported: Exported, trained: Trained) -> bool:
    """Return whether the exported weights are those of a training."""
    found = trained.variants().get(exported.variant)
    return exported.weights == found


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    if not store.enabled():
        raise UserError("REPIX_TRACKING is off; unset it to sync")
    root = store.repository_root()
    folders = trained_cells(root, arguments.cells)
    synced, left_out = {}, []
    for folder in tqdm(folders, desc="sync", unit="cell", disable=None):
        try:
            run = sync_cell(root, folder)
        except UserError as error:  # the other cells can be brought up to date all the same
            tqdm.write(f"repix sync: {printable(folder.name)} is left out: {told(error)}", file=sys.stderr)
            left_out.append(folder.name)
            continue
        if not run:  # its reason was said on standard error
            raise UserError(f"{folder.name}: MLflow could not be brought up to date; mend the store and sync again")
        synced[folder.name] = run.run_id
    try:
        closed, unsure = mlflow_run.close_orphans(root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if arguments.json:
        answer = {"runs": synced, "left_out": left_out, "closed": closed, "running_elsewhere": unsure}
        print(json.dumps(answer, indent=2, sort_keys=True))
        return 1 if left_out else 0
    for cell, run_id in synced.items():
        print(printable(f"{cell}: run {run_id}"))
    if not folders:
        print("no trained cell in runs/: nothing to sync (`dvc pull` or `dvc repro` brings them)")
    if closed:
        print(f"closed as KILLED, since their process is gone: {', '.join(closed)}")
    if unsure:
        print(f"left RUNNING, on another machine or of unknown process: {', '.join(unsure)}")
    return 1 if left_out else 0
