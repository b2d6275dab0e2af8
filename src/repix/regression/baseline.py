"""Read the committed baseline, the scores of each cell that were last accepted (``metrics/baseline.json``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from repix.cells import CellName
from repix.errors import UserError
from repix.schemas import Metrics, Protocol, Record, Scores, flat

FILE = "baseline.json"


class Entry(BaseModel):
    """The part of a :class:`repix.schemas.Metrics` that can be compared.

    ``protocol`` is without its ``description``, which holds results and not definitions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights_digest: dict[str, str]
    n: int
    scores: Scores
    protocol: Protocol
    weights: ClassVar = Metrics.weights

    @classmethod
    def of(cls, metrics: Metrics) -> Entry:
        """Return the comparable part of a metrics record."""
        protocol = {key: value for key, value in metrics.protocol.items() if key != "description"}
        return cls(weights_digest=metrics.weights_digest, n=metrics.n, scores=metrics.scores, protocol=protocol)


class Baseline(Record):
    """``metrics/baseline.json``: cell -> what was accepted."""

    SCHEMA: ClassVar[str] = "repix.baseline/1"
    MADE_BY: ClassVar[str] = "`repix gate --accept`"
    IN_GIT: ClassVar[bool] = True
    cells: dict[CellName, Entry]


def read_metrics(folder: str | Path) -> dict[str, Entry]:
    """Return cell -> entry for every ``<cell>.json`` of a folder, sorted by cell.

    Raises:
        UserError: a file cannot be read, or speaks of another cell than its name says.
    """
    found = {}
    for path in sorted(Path(folder).glob("*-*-*.json")):
        metrics = Metrics.read(path)
        if metrics.cell != path.stem:
            raise UserError(f"{path}: holds the metrics of {metrics.cell}; rename it or run `dvc repro`")
        found[metrics.cell] = Entry.of(metrics)
    return found


def check_numbers(cells: Mapping[str, Entry]) -> None:
    """Check that scores can be compared with later ones, before they are accepted.

    Raises:
        UserError: one is infinite, or no number.
    """
    for cell, entry in cells.items():
        for (*_, metric), value in flat(entry.scores).items():
            if value is not None and not math.isfinite(value):
                raise UserError(f"{cell}: {metric} is no number; find out why, and score it again")


def read_baseline(path: str | Path) -> Baseline | None:
    """Return the baseline, or None where none was accepted yet.

    Raises:
        UserError: the file is there and cannot be read.
    """
    return Baseline.read(path) if Path(path).exists() else None


def changes(old: Baseline | None, new: Baseline) -> list[str]:
    """Return one line per cell or score that accepting ``new`` changes, ``old -> new``."""
    before = old.cells if old else {}
    lines = []
    for cell in sorted(before.keys() | new.cells.keys()):
        if cell not in before:
            lines.append(f"{cell}: new")
        if cell not in new.cells:
            lines.append(f"{cell}: removed")
            continue
        was = _flat(before[cell]) if cell in before else {}
        now = _flat(new.cells[cell])
        for key in sorted(was.keys() | now.keys()):
            if was.get(key) != now.get(key):
                lines.append(f"{cell} {key}: {_shown(was.get(key))} -> {_shown(now.get(key))}")
        if cell in before:
            one, two = before[cell], new.cells[cell]
            if one.weights_digest != two.weights_digest:
                lines.append(f"{cell}: other weights")
            lines += [f"{cell} {line}" for line in differences(protocol_of(one), protocol_of(two))]
    return lines


def _flat(entry: Entry) -> dict[str, float | None]:
    return {" ".join(key): value for key, value in flat(entry.scores).items()}


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.6g}"


def protocol_of(entry: Entry) -> dict[str, Any]:
    """Return all of an entry that has to be equal for its scores to be comparable."""
    return {"n": entry.n, **entry.protocol}


def differences(one: Any, two: Any, where: str = "") -> list[str]:
    """Return ``key.path: a -> b`` for every leaf in which two JSON trees differ, sorted by path."""
    if isinstance(one, dict) and isinstance(two, dict):
        return [
            line
            for key in sorted(one.keys() | two.keys())
            for line in differences(one.get(key, _ABSENT), two.get(key, _ABSENT), f"{where}.{key}" if where else key)
        ]
    return [] if one == two else [f"{where}: {_brief(one)} -> {_brief(two)}"]


_ABSENT = object()


def _brief(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = value if isinstance(value, str) else str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:8]  # a digest: the first digits tell them apart
    return text if len(text) <= 60 else f"{text[:57]}..."
