"""The whole grid, read before anything works: what cannot hold is said at the start, not after a day of training."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from repix.cells import Cell
from repix.config import drawn, halving, reader, sizes, urls
from repix.config.datasets import Dataset
from repix.config.evaluation import Evaluate, FeatureWeights
from repix.config.export import Export
from repix.config.gate import Gate
from repix.config.images import height_width
from repix.config.limits import Limits
from repix.config.models import Recipe
from repix.config.run import Grid
from repix.config.start_file import files_of
from repix.errors import UserError
from repix.libraries import install
from repix.metrics import ASK_FOR_FEATURES, METRICS, OWN_NETWORK, Metric
from repix.paths import RUNS, STARTS, found
from repix.profile import find as find_profile
from repix.registry import FORMATS, SYSTEMS
from repix.schemas import Start

SECTIONS = ("run", "limits", "evaluate", "features", "export", "gate", "datasets", "models")
ASKED = (*ASK_FOR_FEATURES, *OWN_NETWORK, "features")  # of evaluate: what says which weights are fetched
FLOAT16 = 2**-11  # most that rounding to it changes a number between 1/2 and 1


def grid(path: str | Path = reader.FILE) -> None:
    """Check everything of params.yaml that the cells of ``run`` will read; nothing heavy is imported.

    Raises:
        UserError: the first thing that cannot hold: a name that is none, an entry that is missing or wrong, a
            withdrawn data set, a recipe that needs pairs on a data set without, or networks that its images are
            too small for, an export that its recipe or its tolerance excludes, a backend that is not installed.
    """
    for name in reader.load(path):
        if name not in SECTIONS and (close := difflib.get_close_matches(str(name), SECTIONS, n=1, cutoff=0.75)):
            raise UserError(f"{path}: {name}: no stage reads this section; did you mean {close[0]!r}?")
    run = reader.read("run", Grid, path)
    sets = {name: reader.read(f"datasets.{name}", Dataset, path) for name in run.datasets}
    recipes = {name: reader.read(f"models.{name}", Recipe, path) for name in run.models}
    reader.read("limits", Limits, path)
    gate = reader.read("gate", Gate, path)
    evaluate, export = reader.read("evaluate", Evaluate, path), reader.read("export", Export, path)
    for name in evaluate.weights:
        if name not in (known := reader.load(path).get("features") or {}):
            mend = reader.nearest(name, known) or "; what such an entry holds: repix's docs/metrics.md"
            raise UserError(f"{path}: no features.{name}{mend}")
        _addresses(f"features.{name}", reader.read(f"features.{name}", FeatureWeights, path).urls, path)
    # dvc.yaml declares these, and DVC wants what is declared written down; it would ask for it one stage at a time.
    for key, settings, names in (("run", Grid, ["profile"]), ("limits", Limits, None), ("evaluate", Evaluate, ASKED)):
        fields = settings.model_fields
        _written(key, {name: json.dumps(fields[name].default) for name in names or fields}, path)
    if "features" not in reader.load(path):
        raise UserError(f"{path}: features: missing; dvc.yaml names it, so write `features: {{}}`")
    for name in sets:
        _written(f"datasets.{name}", {"images": "{}", "augment": "{flip: true}"}, path)
        _written(f"datasets.{name}.archive", {"sha256": "null"}, path)
    for name in recipes:
        _written(f"models.{name}", {"profile": "fast"}, path)
    for name, entry in sets.items():
        _addresses(f"datasets.{name}.archive", entry.archive.urls, path)
        if entry.archive.withdrawn:
            raise UserError(f"data set {name!r}: {entry.archive.withdrawn}")
        for model, recipe in recipes.items():
            if not entry.images.paired and SYSTEMS[recipe.system].needs_pairs:
                raise UserError(
                    f"{path}: models.{model} learns from pairs, and datasets.{name} has none (layout: unaligned): "
                    f"choose a cyclegan model or a paired data set"
                )
            try:
                sizes.check(recipe, height_width(entry.images.crop_size))
            except UserError as error:
                raise UserError(f"{path}: models.{model} on datasets.{name}: {error}") from None
    for model, recipe in recipes.items():
        if export.variant == "ema" and recipe.ema is None:
            raise UserError(
                f"{path}: export.variant: ema: models.{model} keeps no moving average: set models.{model}.ema, such as "
                f"0.999, or variant: auto"
            )
        refused = [name for name in export.formats if name in ("onnx", "litert")]
        if recipe.precision == "bfloat16" and refused:
            raise UserError(
                f"{path}: models.{model}.precision: bfloat16 cannot be exported to {' and '.join(refused)}: "
                f"leave them out of export.formats, or set precision: float32"
            )
        profile = run.profile_of(recipe.profile)
        used = find_profile(profile)
        if used.shards and recipe.batch_size % used.shards:
            raise UserError(
                f"{path}: models.{model}.batch_size: {recipe.batch_size} cannot be cut over the {used.shards} devices "
                f"of the profile {profile}: make it a multiple of {used.shards}"
            )
        if used.backend == "jax" and find_spec("jax") is None:
            raise UserError(
                f"{path}: models.{model} trains under the profile {profile}, and JAX is not installed: "
                f"{install('jax')}, or jax-cuda for jax on a GPU"
            )
    _parents(run, recipes, path)
    given = export.tolerance.get("litert")
    most = given.max if given else FORMATS["litert"].max_error
    if "litert" in export.formats and export.litert_weights == "float16" and most < FLOAT16:
        raise UserError(
            f"{path}: export.tolerance.litert: max: {most:g} is less than float16 rounds a weight by; "
            f"about {{max: 0.05, mean: 0.005}} can hold, or litert_weights: float32"
        )
    for name, entry in sets.items():
        scored = [metric.name for metric in METRICS if _is_scored(metric, evaluate, entry)]
        if not set(scored) & set(gate.metrics):
            raise UserError(
                f"{path}: gate.metrics: datasets.{name} gets no {' or '.join(gate.metrics)}, so the gate would have "
                f"nothing to hold: name one of {', '.join(scored) or 'those that evaluate can switch on'}"
            )
    paper = [variant for variant in gate.variants if variant.endswith("_paper")]
    if paper and not evaluate.paper_mode:
        raise UserError(
            f"{path}: gate.variants: {paper[0]} has no scores to gate: set evaluate.paper_mode: true, or leave it out"
        )


def _ancestors(cell: Cell, recipes: Mapping[str, Recipe], cells: list[Cell]) -> list[str]:
    """Return the names of a cell and of the cells of the grid that it starts from, each once."""
    named, names = {one.name: one for one in cells}, []
    while cell.name not in names:
        names.append(cell.name)
        start = recipes[cell.model].start_from
        cell = named.get((start.parent(cell) if start else None) or "", cell)
    return names


def _parents(run: Grid, recipes: Mapping[str, Recipe], path: str | Path) -> None:
    """Check the cells that start from others: DVC trains a grid in its order, and knows of no parent."""
    cells = run.cells()
    place = {cell.name: number for number, cell in enumerate(cells)}
    for cell in cells:
        start, key = recipes[cell.model].start_from, f"{path}: models.{cell.model}.start_from"
        if start is None:
            continue
        name = start.parent(cell)
        if name is None:
            made = Path(start.file).parts
            if made[:1] in (("exports",), ("runs",)) and made[1:2] and made[1] in place:
                raise UserError(f"{key}.file: {start.file} is made by this grid: name the cell: {made[1]}")
            file = found(Path(start.file))
            if file.is_file() or file.is_dir():
                files_of(start.file, file, key)
            elif not _is_kept(cell, start.file):
                raise UserError(f"{key}.file: {start.file}: no such file or folder")
            continue
        if name in place:
            if place[name] >= place[cell.name]:
                if cell.name in _ancestors(cells[place[name]], recipes, cells):
                    own = "itself" if name == cell.name else f"{name}, which starts from it"
                    raise UserError(f"{key}: {cell.name} would start from {own}: one has to begin elsewhere")
                own = f"{name}, which comes later in the grid"
                raise UserError(
                    f"{key}: {cell.name} would start from {own}: in run, list what is trained first before it"
                )
            parent = cells[place[name]].model
            if start.takes_state and not recipes[parent].keep_state:
                raise UserError(f"{key}: needs the finished state of {name}: set models.{parent}.keep_state: true")
            if start.schedule == "continue" and recipes[cell.model].epochs <= recipes[parent].epochs:
                raise UserError(
                    f"{path}: models.{cell.model}.epochs: {recipes[cell.model].epochs}: {name} does "
                    f"{recipes[parent].epochs} already, and schedule: continue counts them: set more"
                )
        elif found(RUNS / name / "trained.json").exists():
            if start.takes_state and not found(RUNS / name / "state.npz").exists():
                raise UserError(
                    f"{key}: needs the finished state of {name}, which kept none: set keep_state: true in its model "
                    f"and train it again, or `dvc checkout` it"
                )
        elif not _is_kept(cell, name):
            raise UserError(
                f"{key}: there is no {RUNS / name}, and the grid does not make it: name it in run, before "
                f"{cell.model} (what was trained and has not changed is taken from DVC's cache)"
            )


def _is_kept(cell: Cell, parent: str) -> bool:
    """Whether a parent that is gone left in ``starts/<cell>`` what this cell takes; of another parent it has none."""
    try:
        return Start.read(STARTS / cell.name / "start.json").parent == parent
    except UserError:
        return False


def warnings(path: str | Path = reader.FILE) -> list[str]:
    """Return a line for each cell of a grid that can run, and is likely not what was meant; after :func:`grid`."""
    run = reader.read("run", Grid, path)
    recipes = {model: reader.read(f"models.{model}", Recipe, path) for model in run.models}
    found = []
    for name in run.datasets:
        images = reader.read(f"datasets.{name}", Dataset, path).images
        for model, recipe in recipes.items():
            if said := halving.warning(recipe, images.crop_size):
                found.append(f"{path}: models.{model} on datasets.{name}: {said}")
    return found


def _is_scored(metric: Metric, evaluate: Evaluate, entry: Dataset) -> bool:
    """Whether a data set's cells get a metric."""
    if metric.kind in ("paired", "labels", "network") and not entry.images.paired:
        return False
    always = evaluate.on_features if metric.kind == "features" else True
    return always if metric.default is None else getattr(evaluate, metric.name)


def _addresses(key: str, given: tuple[str, ...], path: str | Path) -> None:
    """Refuse addresses that the stage which fetches them refuses by their text."""
    for url in given:
        urls.check(url, f"{path}: {key}")
        if url.partition(":")[0].lower() == "synthetic":
            try:
                drawn.settings(*urls.of_synthetic(url))
            except UserError as error:
                raise UserError(f"{path}: {key}.urls: {error}") from None


def _written(key: str, defaults: Mapping[str, str], path: str | Path) -> None:
    entry = reader.section(key, path)
    for name, value in defaults.items():
        if name not in entry:
            raise UserError(f"{path}: {key}.{name}: missing; dvc.yaml names it, so write `{name}: {value}`")
