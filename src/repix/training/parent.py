"""What a training starts from, laid beside it: ``starts/<cell>/``.

A copy, so that the child trains from bytes that DVC tracks as its own: the parent may leave the grid or be
trained anew. DVC's cache holds equal files once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from repix.cells import Cell
from repix.config.models import StartFrom
from repix.config.start_file import files_of
from repix.errors import UserError
from repix.files import atomic_folder, digest_file, read_json
from repix.paths import LINEAGE, RUNS, found
from repix.schemas import Start, Trained

FOLLOWED = ("params", "inputs", "profile", "environment", "code")  # of a lineage record: what moves a training's bits
STATE = "state.npz"  # the finished state, in runs/<cell>/ of a recipe with keep_state
RECORD = "start.json"


def fetch(cell: Cell, start: StartFrom | None, out: Path) -> None:
    """Leave in ``out`` what a cell starts from; a folder that holds it already is not touched.

    A parent that is no longer there is no mistake as long as ``out`` has what was taken of it.

    Raises:
        UserError: there is no such parent, it has not what is asked for, or it changed while it was copied: an
            experiment in a temporary folder reads what the repository may be training anew.
    """
    key = f"models.{cell.model}.start_from"
    record, files, source = Start(cell=cell.name), {}, Path()
    if start is not None:
        name = start.parent(cell)
        source = found(RUNS / name) if name is not None else found(Path(start.file))
        if not source.exists():
            kept = _kept(out)
            if kept is not None and kept.parent == (name or start.file) and _is_whole(out, kept):
                if name is not None and (kept.weights, STATE in kept.files) != (start.weights, start.takes_state):
                    wanted = "its finished state" if start.takes_state else f"its {start.weights} weights alone"
                    has = f"{kept.weights}{', as a state' if STATE in kept.files else ''}"
                    raise UserError(
                        f"{source}: not there, and of what {key} asks for, {wanted}, {out} has none (it has {has}): "
                        f"train that cell again, or `dvc checkout` it"
                    )
                print(f"{cell.name}: {source} is gone; it starts from what {out} has of it")
                return
            raise UserError(f"{source}: not there, and {key} names it; train that cell first, or `dvc checkout` it")
        record, files = _taken(cell, start, source, key)
    if _kept(out) == record and _is_whole(out, record):
        return
    with atomic_folder(out) as folder:
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        record.write(folder / RECORD)
        if not _is_whole(folder, record) or (start is not None and _taken(cell, start, source, key)[0] != record):
            raise UserError(f"{source}: changed while {key} was copied from it; run the same command again")


def _taken(cell: Cell, start: StartFrom, source: Path, key: str) -> tuple[Start, dict[str, Path]]:
    """Return the record of what is there to be taken over, digests included, and its files."""
    of = _of_file if start.file is not None else _of_cell
    record, files = of(cell, start, source, key)
    digests = {name: digest_file(path) for name, path in sorted(files.items())}
    return record.model_copy(update={"files": digests}), files


def _kept(out: Path) -> Start | None:
    try:
        return Start.read(out / RECORD)
    except UserError:
        return None


def _is_whole(out: Path, record: Start) -> bool:
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return there == {RECORD, *record.files} and all(
        digest_file(out / name) == digest for name, digest in record.files.items()
    )


def _of_cell(cell: Cell, start: StartFrom, source: Path, key: str) -> tuple[Start, dict[str, Path]]:
    """Return the record and the files of a start from ``runs/<parent>``."""
    trained = Trained.read(source / "trained.json")
    if start.weights not in trained.variants():
        raise UserError(f"{key}.weights: {trained.cell} has no {start.weights}, only {', '.join(trained.variants())}")
    if start.takes_state:
        if not (source / STATE).is_file():
            raise UserError(
                f"{key}: {trained.cell} kept no state: set models.{trained.model}.keep_state: true and train it again"
            )
        files = {STATE: source / STATE}
    else:
        networks = trained.variants()[start.weights]
        if start.networks == "generator":
            networks = sorted(set(trained.translators.values()))
        files = {f"{network}.npz": source / start.weights / f"{network}.npz" for network in networks}
    for path in files.values():
        if not path.is_file():
            raise UserError(f"{path}: not there; run `dvc checkout` or `dvc repro`")
    record = Start(
        cell=cell.name,
        parent=trained.cell,
        weights=start.weights,
        crop_size=trained.crop_size,
        channels=(trained.source.channels, trained.target.channels),
        epochs=trained.epochs,
        trained_by=_trained_by(trained.cell) if start.schedule == "continue" else {},
    )
    return record, files


def _trained_by(cell: str) -> dict[str, Any]:
    """Return what a cell's training followed from, by its lineage record; empty where that is not here.

    Raises:
        UserError: it is damaged.
    """
    path = found(LINEAGE / "train" / f"{cell}.json")
    if not path.is_file():
        return {}
    parent = Cell.named(cell)
    try:
        record = read_json(path)
        parts = {name: record[name] for name in FOLLOWED}
        own = [parts["params"][f"models.{parent.model}"], parts["params"][f"datasets.{parent.dataset}.augment"]]
    except (OSError, ValueError, TypeError, LookupError):
        parts, own = {}, [None]
    if not all(isinstance(group, dict) for group in (*parts.values(), *own)):
        raise UserError(f"{path}: is no record of this training; restore it by `git checkout` or `dvc checkout`")
    return parts


def _of_file(cell: Cell, start: StartFrom, source: Path, key: str) -> tuple[Start, dict[str, Path]]:
    """Return the record and the files of a start from a file, or from a folder of exports."""
    return Start(cell=cell.name, parent=start.file), files_of(start.file, source, key)
