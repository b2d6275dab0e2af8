"""A cell as a commit, a DVC experiment or the workspace holds it: its scores, its parameters, its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repix import yaml12
from repix.cells import Cell, is_cell
from repix.config import reader
from repix.config.datasets import Dataset
from repix.config.evaluation import Evaluate
from repix.config.models import Recipe
from repix.config.run import Grid
from repix.errors import UserError
from repix.paths import METRICS
from repix.provenance import lock
from repix.provenance.git import commit_of, git
from repix.provenance.pipeline import look_up
from repix.provenance.verify import Recorded, files_of
from repix.schemas import Metrics

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Held:
    """One cell at one place.

    Attributes:
        asked: as the user named it.
        cell: data set, model and seed.
        place: where it was found, for people: ``workspace``, ``HEAD (1a2b3c4)``.
        metrics: its scores.
        params: what they follow from, by key of params.yaml, with the defaults filled in and groups taken
            apart; the data set's begin with ``datasets.<name>``, the recipe's with ``models.<name>``.
        code: stage -> hash of the record of what it runs.
        data: hash of the prepared data set; None where dvc.lock does not know it.
        settings: what dvc.lock says that the training read of params.yaml, whatever stands there now.
        files: function from the path of an out to name -> file, or to None where its bytes are not on this machine.
    """

    asked: str
    cell: Cell
    place: str
    metrics: Metrics
    params: Mapping[str, Any]
    code: Mapping[str, str | None]
    data: str | None
    settings: Mapping[str, Any]
    files: Callable[[str], dict[str, Path] | None]


def find(root: Path, asked: str) -> Held:
    """Return the cell that somebody names.

    Args:
        root: the repository.
        asked: a cell of the workspace, ``REV:CELL``, or ``REV`` alone where its grid is one cell; a
            ``REV`` is what git calls a commit, the name of a DVC experiment, or ``workspace``.

    Raises:
        UserError: there is no such thing, or it has no scores.
    """
    revision, colon, name = asked.rpartition(":")
    if not colon:
        here = (root / METRICS / f"{asked}.json").is_file()
        revision, name = (WORKSPACE, asked) if here else (asked, "")
    commit = None if revision == WORKSPACE else _commit(root, revision, asked)

    def text(path: str) -> str | None:
        if commit is None:
            return (root / path).read_text(encoding="utf-8") if (root / path).is_file() else None
        try:
            return git(root, "show", f"{commit}:./{path}").decode("utf-8", "replace")
        except UserError:
            return None

    params = yaml12.load(text(reader.FILE) or "", f"{asked}: {reader.FILE}") or {}
    name = name or _only_cell(params, revision)
    try:
        cell = Cell.named(name)
    except UserError as error:
        raise UserError(f"{asked}: {error}") from None
    path = f"{METRICS.as_posix()}/{cell.name}.json"
    scored = text(path)
    if scored is None:
        raise UserError(f"{asked}: no {path} there; {_offer(root, commit)}")
    locked = text(lock.FILE)
    entries = lock.parse(locked, f"{asked}: {lock.FILE}") if locked else {}
    trained, evaluated = (entries.get(f"{kind}@{cell.name}", {}) for kind in ("train", "evaluate"))
    recorded = Recorded(root, entries)
    return Held(
        asked=asked,
        cell=cell,
        place=revision if commit is None or commit.startswith(revision) else f"{revision} ({commit[:7]})",
        metrics=Metrics.parse(scored, f"{asked}: {path}"),
        params=_params(params, cell),
        code={kind: _dependency(entry, "code/") for kind, entry in (("train", trained), ("evaluate", evaluated))},
        data=_dependency(trained, "data/"),
        settings=trained.get("params") or {},
        files=recorded.files if commit else lambda out: files_of(root / out) or None,
    )


def seeds_of(root: Path, asked: str) -> list[str]:
    """Return the names of the cells, one a seed, that ``<dataset>-<model>`` or ``REV:<dataset>-<model>`` stands for.

    Of another name, none.

    Raises:
        UserError: there is no such revision, or no such scores.
    """
    revision, colon, name = asked.rpartition(":")
    if name.count("-") != 1 or (not colon and (commit_of(root, name) is not None or name in _experiments(root))):
        return []
    commit = None if revision in ("", WORKSPACE) else _commit(root, revision, asked)
    found = [cell for cell in _cells(root, commit) if Cell.named(cell).family == name]
    if not found and colon:
        raise UserError(f"{asked}: no scores of it there; {_offer(root, commit)}")
    return [f"{revision}{colon}{cell}" for cell in sorted(found, key=lambda cell: Cell.named(cell).seed)]


def _commit(root: Path, revision: str, asked: str) -> str:
    """Return the commit of a revision or of an experiment, the newest of several of one name."""
    if (commit := commit_of(root, revision)) is not None:
        return commit
    found = _experiments(root)
    if revision in found:
        return found[revision]
    known = [*(path.stem for path in _scored(root)), *found]
    listed = f"; cells here: {', '.join(path.stem for path in _scored(root))}" if _scored(root) else ""
    raise UserError(
        f"{asked}: no cell of the workspace, git revision or DVC experiment{reader.nearest(revision, known)}{listed}; "
        f"`dvc exp list` names the experiments"
    )


def _experiments(root: Path) -> dict[str, str]:
    """Return name -> commit of the experiments that DVC keeps in refs/exps/<two digits>/<the others>/<name>."""
    try:
        listed = git(root, "for-each-ref", "--sort=committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    except UserError:
        return {}
    found = re.findall(r"^(\w+) refs/exps/[0-9a-f]{2}/[0-9a-f]+/(\S+)$", listed.decode(), re.MULTILINE)
    return {name: commit for commit, name in found}


def _scored(root: Path) -> list[Path]:
    return sorted((root / METRICS).glob("*-*-*.json"))


def _cells(root: Path, commit: str | None) -> list[str]:
    """Return which cells have scores at a place."""
    if commit is None:
        paths = _scored(root)
    else:
        paths = map(Path, git(root, "ls-tree", "--name-only", commit, f"{METRICS.as_posix()}/").decode().split())
    return [path.stem for path in paths if path.suffix == ".json" and is_cell(path.stem)]


def _offer(root: Path, commit: str | None) -> str:
    """Return words on which cells have scores at a place."""
    cells = _cells(root, commit)
    return f"it has scores of {', '.join(cells)}" if cells else "it has no scores at all"


def _only_cell(params: Mapping[str, Any], revision: str) -> str:
    grid = reader.parse(params.get("run") or {}, Grid, "run", f"{revision}: {reader.FILE}")
    names = [cell.name for cell in grid.cells()]
    if len(names) > 1:
        raise UserError(f"{revision} has {len(names)} cells; say which: {', '.join(f'{revision}:{n}' for n in names)}")
    return names[0]


def _params(params: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Return what a cell's scores follow from, defaults filled in where this version can read it."""
    kinds = {f"datasets.{cell.dataset}": Dataset, f"models.{cell.model}": Recipe, "evaluate": Evaluate}
    groups: dict[str, Any] = {"run.profile": look_up(params, "run.profile")}
    for key, kind in kinds.items():
        groups[key] = look_up(params, key) or {}
        try:
            groups[key] = reader.parse(groups[key], kind, key).model_dump(mode="json")
        except UserError:
            continue  # of another version: as it stands
    return lock.flat(groups)


def _dependency(entry: Mapping[str, Any], folder: str) -> str | None:
    """Return the hash of the one dependency of a stage that lies in a folder."""
    return next((md5 for path, md5 in lock.hashes(entry, "deps").items() if path.startswith(folder)), None)
