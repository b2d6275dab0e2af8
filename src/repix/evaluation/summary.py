"""The scores of a grid in one small table of numbers: the same names whatever was trained, for DVC's tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from repix import paths
from repix.cells import Cell
from repix.errors import UserError
from repix.schemas import Metrics

FILE = "scores.json"
FORTH = "source_to_target"


def summary(found: Iterable[tuple[Cell, Metrics]]) -> dict[str, Any]:
    """Return metric -> score, the mean over seeds; of the way back below its translator's name.

    They are the scores of the weights that are shown and exported: the average of the weights (``ema``) where
    the recipe keeps one, else the ``last``. Of several data sets or models each has such a table, below
    ``<dataset>-<model>``. A metric that was not asked for, or that not every seed has, is left out.

    Args:
        found: the grid's cells with their records.
    """
    families: dict[str, list[Metrics]] = {}
    for cell, metrics in found:
        families.setdefault(cell.family, []).append(metrics)
    tables = {family: _table(records) for family, records in families.items()}
    return tables if len(tables) > 1 else next(iter(tables.values()), {})


def whereabouts(cells: list[str]) -> list[str]:
    """Return lines that say where the results of a grid are: the end of a run is where one asks."""
    if len(cells) > 1:
        return [f"{len(cells)} cells  repix results; translations/<cell>/index.html; exports/<cell>/"]
    return [
        f"scores    repix results {cells[0]}",
        f"pictures  {(paths.TRANSLATIONS / cells[0]).as_posix()}/index.html",
        f"model     {(paths.EXPORTS / cells[0]).as_posix()}/",
        f"use it    repix translate {cells[0]} IMAGES -o OUT",
    ]


def checked(metrics: Metrics, networks: dict[str, str], place: str) -> Metrics:
    """Return a record, if it scored the weights that are there.

    Args:
        metrics: the record.
        networks: network -> digest of the trained cell.
        place: the record's path, for the message.

    Raises:
        UserError: it scored others: the evaluation since has failed, or has not run.
    """
    scored = metrics.weights("last")
    if {name: networks.get(name) for name in scored} != scored:
        raise UserError(f"{place}: holds the scores of other weights; `dvc repro` evaluates those that are there")
    return metrics


def _table(records: list[Metrics]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for translator in sorted(records[0].scores):
        seeds = [_shown(record.scores.get(translator, {})) for record in records]
        means = {
            metric: sum(scores[metric] for scores in seeds) / len(seeds)
            for metric in sorted(seeds[0])
            if all(scores.get(metric) is not None for scores in seeds)
        }
        if translator == FORTH:
            table |= means
        elif means:
            table[translator] = means
    return table


def _shown(variants: dict[str, dict[str, float | None] | None]) -> dict[str, float | None]:
    return variants.get("ema") or variants.get("last") or {}
