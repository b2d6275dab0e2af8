"""The files below `benchmarks/measured` that trainings add to: read with care, and written by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from checks.harness import read_as
from checks.systems import make_folder
from repix.errors import UserError
from repix.files import clear_leftovers, digest_file, locked, write_json

Scores = dict[str, dict[str, dict[str, FiniteFloat]]]
"""Direction -> weights -> metric -> score."""


class _Read(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Point(_Read):
    """A state on the way of a training."""

    steps: int
    scores: Scores


class Seed(_Read):
    """One training, scored."""

    steps: int
    profile: str
    n: dict[str, int]
    scores: Scores
    floor: dict[str, dict[str, FiniteFloat]]
    weights: dict[str, str]
    cost: dict[str, str | FiniteFloat | None]
    curve: list[Point] = []


class OptionSeeds(_Read):
    """An option of a recipe."""

    entry: dict[str, Any]
    seeds: dict[str, Seed]


class TaskOptions(_Read):
    """A task of `benchmarks.quality`."""

    dataset: str
    size: int
    options: dict[str, OptionSeeds]


class Row(_Read):
    """A row of `benchmarks.results`."""

    row: str
    model: str
    dataset: str
    size: int
    epochs: int
    seeds: dict[str, Seed] = Field(min_length=1)
    reference: dict[str, Seed]
    baselines: dict[str, dict[str, FiniteFloat | None]] = {}


TASKS = TypeAdapter(dict[str, TaskOptions])
ROW = TypeAdapter(Row)


def read(path: Path, kind: TypeAdapter) -> dict[str, Any]:
    """Return what a file of results holds; nothing where there is none.

    Args:
        path: the file.
        kind: :data:`TASKS` or :data:`ROW`.

    Raises:
        UserError: it is no such file, or holds scores that are no numbers.
    """
    return read_as(path, kind, "restore it from git, or name another") if path.exists() else {}


@contextmanager
def updated(path: Path, kind: TypeAdapter) -> Iterator[dict[str, Any]]:
    """Yield what a file of results holds by now, and write what the body makes of it.

    Another process that adds to it waits, so that no seed of either is lost.

    Args:
        path: the file; a link is followed.
        kind: :data:`TASKS` or :data:`ROW`.

    Raises:
        UserError: as :func:`read`; or it cannot be written.
    """
    path = path.resolve()
    check_place(path)
    with locked(path.with_name(f".{path.name}.lock"), str(path)):
        clear_leftovers(path.parent, path.stem, alone=True)
        found = read(path, kind)
        before = repr(found)
        yield found
        if repr(found) != before:
            write_json(path, found)


def check_place(path: Path) -> None:
    """Check that a file can be at ``path``; make its folder.

    Raises:
        UserError: it is a folder, or below a file.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    make_folder(path.parent)


def check_weights(path: Path | None) -> None:
    """Check weights of Inception before hours are spent on trainings that they would score.

    Raises:
        UserError: there is no such file, or it holds others.
    """
    if path is None:
        return
    if not path.is_file():
        raise UserError(f"--features {path}: no such file")
    from repix.evaluation.features import load_network

    load_network((768,), path, digest_file(path))
