"""What needs no service: a progress bar, the loss table, and its curves for ``dvc plots``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from repix.errors import UserError
from repix.files import atomic_folder, write_text
from repix.training.observer import Observer


class ProgressBar(Observer):
    """Steps done, time left and the last losses on stderr; without a terminal, one line per epoch.

    Args:
        stream: a text stream in place of stderr.
    """

    def __init__(self, stream=None):
        self._stream = stream
        self._bar = None
        self._plan: dict[str, Any] = {}

    def started(self, plan: dict[str, Any]) -> None:
        from tqdm import tqdm

        stream = self._stream or sys.stderr
        self._plan = plan
        self._bar = tqdm(
            total=plan["steps"],
            initial=plan["first_step"],
            desc=plan["cell"],
            unit="step",
            file=stream,
            disable=not stream.isatty(),
            dynamic_ncols=True,
        )

    def step_done(self, step: int) -> None:
        if not self._bar.disable:  # a disabled bar keeps no count
            self._bar.update(step - self._bar.n)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        said = {name: f"{value:.4g}" for name, value in sorted(losses.items())}
        if self._bar.disable:
            plan = self._plan
            listed = ", ".join(f"{name} {value}" for name, value in said.items())
            place = f"epoch {epoch}/{plan['epochs']}, step {step}/{plan['steps']}"
            print(f"{plan['cell']}: {place}: {listed}", file=self._stream or sys.stderr)
        else:
            self._bar.set_postfix(said)

    def finished(self, step: int) -> None:
        self._bar.close()

    def failed(self, error: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()


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
