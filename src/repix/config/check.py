"""The whole grid, read before anything works: what cannot hold is said at the start, not after a day of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from repix.config import reader
from repix.config.datasets import Dataset
from repix.config.evaluation import Evaluate, FeatureWeights
from repix.config.export import Export
from repix.config.gate import Gate
from repix.config.limits import Limits
from repix.config.models import Recipe
from repix.config.run import Run
from repix.errors import UserError
from repix.registry import SYSTEMS


def grid(path: str | Path = reader.FILE) -> None:
    """Check everything of params.yaml that the cells of ``run`` will read; nothing heavy is imported.

    Raises:
        UserError: the first thing that cannot hold: a name that is none, an entry that is missing or wrong, a
            withdrawn data set, a recipe that needs pairs on a data set without, an export that its recipe excludes.
    """
    run = reader.read("run", Run, path)
    sets = {name: reader.read(f"datasets.{name}", Dataset, path) for name in run.datasets}
    recipes = {name: reader.read(f"models.{name}", Recipe, path) for name in run.models}
    reader.read("limits", Limits, path)
    reader.read("gate", Gate, path)
    evaluate, export = reader.read("evaluate", Evaluate, path), reader.read("export", Export, path)
    if evaluate.fid or evaluate.kid:
        reader.read(f"features.{evaluate.features}", FeatureWeights, path)
    # dvc.yaml declares these, and DVC wants what is declared written down; it would ask for it one stage at a time.
    for name in sets:
        _written(f"datasets.{name}", {"images": "{}", "augment": "{flip: true}"}, path)
        _written(f"datasets.{name}.archive", {"sha256": "null"}, path)
    for name in recipes:
        _written(f"models.{name}", {"profile": "fast"}, path)
    for name, entry in sets.items():
        if entry.archive.withdrawn:
            raise UserError(f"data set {name!r}: {entry.archive.withdrawn}")
        for model, recipe in recipes.items():
            if not entry.images.paired and SYSTEMS[recipe.system].needs_pairs:
                raise UserError(
                    f"{path}: models.{model} learns from pairs, and datasets.{name} has none (layout: unaligned): "
                    f"choose a cyclegan model or a paired data set"
                )
    for model, recipe in recipes.items():
        refused = [name for name in export.formats if name in ("onnx", "litert")]
        if recipe.precision == "bfloat16" and refused:
            raise UserError(
                f"{path}: models.{model}.precision: bfloat16 cannot be exported to {' and '.join(refused)}: "
                f"leave them out of export.formats, or set precision: float32"
            )


def _written(key: str, defaults: Mapping[str, str], path: str | Path) -> None:
    entry = reader.section(key, path)
    for name, value in defaults.items():
        if name not in entry:
            raise UserError(f"{path}: {key}.{name}: missing; dvc.yaml names it, so write `{name}: {value}`")
