"""The loss table of a training, and its curves for ``dvc plots``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from repix.errors import UserError
from repix.files import atomic_folder, write_text


class Row(NamedTuple):
    """One line of a loss table: ``values`` after ``epoch`` epochs and ``step`` steps."""

    epoch: int
    step: int
    values: dict[str, float]


def read_table(path: str | Path) -> list[Row]:
    """Return the rows of a table that :func:`write_losses` wrote; empty cells are left out.

    Raises:
        UserError: the file is missing or is not such a table.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [
                Row(int(line.pop("epoch")), int(line.pop("step")), {k: float(v) for k, v in line.items() if v})
                for line in csv.DictReader(stream)
            ]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it") from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a table of epoch, step and losses ({error}); re-run train") from None


def table_text(rows: Iterable[Row]) -> str:
    """Return rows as CSV: epoch, step, then the names sorted.

    Values are rounded to float32, the precision that they are computed in, and written as
    the shortest decimal of that number as a double: the same text wherever the bits are
    the same.
    """
    import numpy as np

    rows = list(rows)
    names = sorted({name for row in rows for name in row.values})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", "step", *names])
    for row in rows:
        cells = [repr(float(np.float32(row.values[name]))) if name in row.values else "" for name in names]
        table.writerow([row.epoch, row.step, *cells])
    return text.getvalue()


def write_losses(path: str | Path, epochs: Iterable[Mapping[str, float]]) -> None:
    """Write a training's history, one row per epoch: see :func:`table_text`."""
    write_text(path, table_text(_rows(epochs)))


def write_curves(folder: str | Path, epochs: Iterable[Mapping[str, float]]) -> None:
    """Write a training's history as ``<name>.csv`` per curve, for ``dvc plots``.

    DVC plots the last column of every file of a folder. Which curves there are depends on
    the system and on whether there is a val split, so that no list in dvc.yaml could name them.
    """
    rows = _rows(epochs)
    with atomic_folder(folder) as made:
        for name in sorted({name for row in rows for name in row.values}):
            known = [row._replace(values={name: row.values[name]}) for row in rows if name in row.values]
            write_text(made / f"{name}.csv", table_text(known))


def _rows(epochs: Iterable[Mapping[str, float]]) -> list[Row]:
    return [
        Row(int(row["epoch"]), int(row["step"]), {k: v for k, v in row.items() if k not in ("epoch", "step")})
        for row in epochs
    ]
