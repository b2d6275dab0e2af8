"""Options of a recipe trained over seeds beside PyTorch, and what is kept and shown of them: `benchmarks.quality`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from checks.harness import ROOT, run_module, run_stage, table
from checks.systems import archive_of, data, lay_out, ms_per_step, sized
from repix import paths
from repix.cells import Cell
from repix.config import reader
from repix.config.gate import Gate
from repix.config.models import Recipe
from repix.errors import UserError
from repix.files import canonical_json, digest_file, digest_text, read_json, write_json
from repix.metrics import direction
from repix.regression import baseline, tolerance
from repix.regression.tolerance import mean_and_sd, welch
from repix.schemas import Metrics, Trained

SIZE, SEEDS = 64, (0, 1, 2, 3, 4)
MEASURED = ROOT / "benchmarks" / "measured"
FILE = MEASURED / "quality.json"
GATE = MEASURED / "gate"
GATED = ("l1", "psnr", "ssim", "swd")  # what needs no weights of Inception
SHOWN = ("l1", "psnr", "ssim", "swd", "fid_768", "kid_768")
AUGMENT = ("colour", "translation", "cutout")
REFERENCE = "reference"


@dataclass(frozen=True)
class Option:
    """A change of the recipe, by the keys of its entry in params.yaml.

    Attributes:
        says: what it changes, for the table.
        changes: key -> value; a mapping is merged into the recipe's own.
    """

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What the options are measured on.

    Attributes:
        model, dataset: entries of params.yaml.
        epochs: of 400 steps each.
        options: name -> change of the recipe.
    """

    model: str
    dataset: str
    epochs: int
    options: Mapping[str, Option]


AUGMENTED = Option("differentiable augmentation", {"discriminator": {"augment": list(AUGMENT)}})
TASKS = {
    "pix2pix": Task(
        "pix2pix",
        "facades",
        20,
        {
            "plain": Option("the paper's recipe"),
            "augment": AUGMENTED,
            "no_cutout": Option("the same without cutout", {"discriminator": {"augment": list(AUGMENT[:2])}}),
            "two_rates": Option("discriminator at a quarter of the weight", {"loss": {"discriminator": 0.125}}),
            "no_dropout": Option("no dropout", {"generator": {"dropout": 0.0}}),
            "bfloat16": Option("networks in bfloat16", {"precision": "bfloat16"}),
        },
    ),
    "cyclegan": Task(
        "cyclegan", "facades_unaligned", 10, {"plain": Option("the paper's recipe"), "augment": AUGMENTED}
    ),
}


def says(task: Task, option: str) -> str:
    """Return what an option is called in a table."""
    return "the reference code's rules, PyTorch" if option == REFERENCE else task.options[option].says


def recipe_of(task: Task, option: Option, epochs: int) -> dict[str, Any]:
    """Return the entry of ``models`` that an option trains."""
    entry = dict(reader.load(ROOT / reader.FILE)["models"][task.model])
    changes = {
        "generator": {"filters": 32},
        "discriminator": {"filters": 32},
        "epochs": epochs,
        "decay_epochs": epochs // 2,
        "ema": 0.999,
        "picture_every": epochs,
        "profile": "fast",
    }
    for change in (changes, option.changes):
        for key, value in change.items():
            entry[key] = {**entry.get(key, {}), **value} if isinstance(value, dict) else value
    return entry


def lay_out_params(out: Path, task: Task, epochs: int, weights: Path | None) -> None:
    """Write the params.yaml of all trainings into ``out``; other parameters than before start it anew.

    Without weights of Inception those of an earlier run stay, since the trainings are the same.
    """
    tree = reader.load(ROOT / reader.FILE)
    entry = tree["datasets"][task.dataset]
    groups = {
        "archive": entry["archive"] | archive_of(task.dataset),
        "images": entry["images"] | sized(task.dataset, SIZE),
    }
    tree["datasets"] = {task.dataset: entry | groups}
    tree["models"] = {name: recipe_of(task, option, epochs) for name, option in task.options.items()}
    tree["run"] = {"datasets": [task.dataset], "models": list(tree["models"]), "seeds": list(SEEDS), "profile": "auto"}
    tree["evaluate"] = tree["evaluate"] | {"swd": True, "fid": bool(weights), "kid": bool(weights), "dims": [768]}
    tree["export"]["formats"] = ["keras"]  # nothing is exported, and not every format takes bfloat16
    if weights is None and (out / reader.FILE).exists():
        kept = reader.load(out / reader.FILE)
        tree |= {key: kept[key] for key in ("evaluate", "features")}
    if weights:
        entry = {"urls": [weights.resolve().as_uri()], "sha256": digest_file(weights), "licence": "see the file"}
        tree["features"] = {"inception": entry}
    lay_out(out, yaml.safe_dump(tree, sort_keys=False), hours=True)


# --- a cell


def make_cell(out: Path, cell: Cell, entry: str) -> None:
    """Train and score a cell in a folder, as far as it is not there.

    Args:
        out: with params.yaml, the prepared data and what the stage ``features`` left.
        cell: its model is an entry of params.yaml, or ``reference``.
        entry: the model whose entry the reference takes.
    """
    if (out / paths.METRICS / f"{cell.name}.json").exists():
        return
    cost = out / "costs" / f"{cell.name}.json"
    if cell.model == REFERENCE:
        write_json(cost, {"commit": commit()})
        run_module(out, "benchmarks.support.reference", cell.dataset, entry, str(cell.seed))
        return
    if not (out / paths.RUNS / cell.name).exists():
        # A training that was killed and is taken up has only its last part timed.
        resumed = (out / ".repix" / "tensorboard" / cell.name).exists()
        ran = run_stage(out, "train", *cell.name.split("-"))
        write_json(cost, {"commit": commit(), "seconds": None if resumed else ran.seconds, "peak_gb": ran.peak})
    run_stage(out, "evaluate", *cell.name.split("-"))


def commit() -> str | None:
    """Return the repository's commit, its first twelve digits; None outside of git."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip()[:12] or None


def cost_of(out: Path, cell: Cell) -> dict[str, Any]:
    """Return ``ms_per_step`` (of the fastest epoch), ``seconds``, ``peak_gb`` and ``commit``, null where not known."""
    found: dict[str, Any] = {"seconds": None, "peak_gb": None, "commit": None}
    for path in (out / "costs" / f"{cell.name}.json", out / paths.RUNS / cell.name / "cost.json"):
        found |= read_json(path) if path.exists() else {}
    return found if cell.model == REFERENCE else found | {"ms_per_step": ms_per_step(cell.name, out)}


def scores_of(metrics: Metrics) -> dict[str, dict[str, dict[str, float]]]:
    """Return direction -> weights -> metric -> score, those that there are."""
    return {
        name: {
            variant: {metric: value for metric, value in scores.items() if value is not None}
            for variant, scores in variants.items()
            if scores
        }
        for name, variants in metrics.scores.items()
    }


def record_of(out: Path, cell: Cell) -> dict[str, Any]:
    """Return what is kept of a scored cell: its scores and floors by direction, digests of weights, and cost."""
    metrics = Metrics.read(out / paths.METRICS / f"{cell.name}.json")
    trained = Trained.read(out / paths.RUNS / cell.name / "trained.json")
    described = metrics.protocol["description"]
    return {
        "steps": trained.steps,
        "profile": trained.profile["name"],
        "n": {name: metrics.images(name) for name in metrics.scores},
        "scores": scores_of(metrics),
        "floor": {
            name: {metric: one["floor"] for metric, one in described[name]["last"].items() if "floor" in one}
            for name in metrics.scores
        },
        "weights": metrics.weights_digest,
        "cost": cost_of(out, cell),
    }


# --- all cells


def read_results(path: Path) -> dict[str, Any]:
    """Return task -> ``size``, ``steps`` and ``options``; nothing where there is no file."""
    return read_json(path) if path.exists() else {}


def entry_of(task: Task, option: str, epochs: int) -> dict[str, Any]:
    """Return what an option is trained by, as results keep it: its entry, or what the reference takes of plain's."""
    entry = recipe_of(task, task.options["plain" if option == REFERENCE else option], epochs)
    if option != REFERENCE:
        return entry
    whole = Recipe.model_validate(entry).model_dump(mode="json")
    taken = {key: whole[key] for key in ("system", "epochs", "decay_epochs")}
    return taken | {"filters": whole["generator"]["filters"], "loss": whole["loss"]}


def check_settings(found: Mapping[str, Any], path: Path, name: str, task: Task, epochs: int) -> None:
    """Refuse to mix cells of other settings with those that a file of results holds.

    Raises:
        UserError: an option of the file was trained otherwise than it would be now.
    """
    for option, kept in found.get(name, {}).get("options", {}).items():
        if kept["entry"] != entry_of(task, option, epochs):
            raise UserError(
                f"{path}: {name} {option} was trained by another entry ({kept['entry']['epochs']} epochs); "
                f"name another file with --json, or remove the option from this one"
            )


def collect(out: Path, path: Path, name: str, epochs: int) -> dict[str, Any]:
    """Add what was scored in ``out`` to a file of results, and return all of the file."""
    task, found = TASKS[name], read_results(path)
    check_settings(found, path, name, task, epochs)
    here = found.setdefault(name, {"dataset": task.dataset, "size": SIZE, "options": {}})
    for file in sorted((out / paths.METRICS).glob(f"{task.dataset}-*.json")):
        _, option, seed = file.stem.split("-")
        if option not in (*task.options, REFERENCE):
            continue
        kept = here["options"].setdefault(option, {"entry": entry_of(task, option, epochs), "seeds": {}})
        if seed not in kept["seeds"]:
            kept["seeds"][seed] = record_of(out, Cell(task.dataset, option, int(seed)))
    write_json(path, found)
    return found


def train(out: Path, path: Path, name: str, epochs: int, options: Sequence[str], seeds: Sequence[int]) -> None:
    """Bring every cell that the results lack through train and evaluate, seed by seed.

    So a stop leaves as many seeds of each option.
    """
    task = TASKS[name]
    kept = read_results(path).get(name, {}).get("options", {})
    cells = [Cell(task.dataset, option, seed) for seed in seeds for option in options]
    missing = [cell for cell in cells if str(cell.seed) not in kept.get(cell.model, {}).get("seeds", {})]
    if not missing:
        return
    data(out, task.dataset)
    if not (out / paths.FEATURES).exists():
        run_stage(out, "features")
    for number, cell in enumerate(missing, 1):
        print(f"{time.strftime('%H:%M')} {number} of {len(missing)}: {cell.name}", file=sys.stderr, flush=True)
        make_cell(out, cell, "plain")
        collect(out, path, name, epochs)


# --- tables


def values_of(seeds: Mapping[str, Mapping], translator: str, variant: str, metric: str) -> list[float]:
    """Return a metric's value for every seed that has it; other than published weights stand in the score's name."""
    found = []
    for record in seeds.values():
        scores = record["scores"].get(translator, {}).get(variant, {})
        found += [value for name, value in scores.items() if name == metric or name.startswith(f"{metric}_")]
    return found


def mean_sd(values: Sequence[float]) -> str:
    """Return mean and standard deviation as a cell of a table."""
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else ""
    return "{:.4g} ± {:.2g}".format(*mean_and_sd(values))


def difference(metric: str, values: Sequence[float], others: Sequence[float]) -> str:
    """Return how much better values are than others, in standard deviations over seeds, with the p of Welch's test."""
    if min(len(values), len(others)) < 2:
        return ""
    (mean, sd), (other, other_sd) = mean_and_sd(values), mean_and_sd(others)
    pooled = ((sd**2 + other_sd**2) / 2) ** 0.5
    gain = direction(metric) * (mean - other) / pooled if pooled else 0.0
    return f" ({gain:+.1f} sd, p {welch(values, others):.2g})"


def rows_of(task: Task, found: Mapping[str, Any]) -> list[list[Any]]:
    """Return the table's rows: option, weights, seeds, each metric beside the plain recipe's, time and memory."""
    rows: list[list[Any]] = []
    options = found["options"]
    names = [name for name in (*task.options, REFERENCE) if name in options]
    translators = list(next(iter(options[names[0]]["seeds"].values()))["scores"]) if names else []
    for translator in translators:
        plain = options.get("plain", {}).get("seeds", {})
        for option in names:
            seeds = options[option]["seeds"]
            costs = [record["cost"] for record in seeds.values()]
            for variant in ("last", "ema"):
                if not any(variant in record["scores"][translator] for record in seeds.values()):
                    continue
                row: list[Any] = [says(task, option), variant, len(seeds)]
                for metric in SHOWN:
                    values = values_of(seeds, translator, variant, metric)
                    text = mean_sd(values)
                    if (option, variant) != ("plain", "last"):
                        text += difference(metric, values, values_of(plain, translator, "last", metric))
                    row.append(text)
                row += [least(costs, "ms_per_step"), least(costs, "peak_gb", max)]
                rows.append(row if len(translators) == 1 else [translator.replace("_", " "), *row])
        floors = [record["floor"][translator] for option in names for record in options[option]["seeds"].values()]
        floor = ["real photos, one half against the other", "", ""]
        floor += [shown_floor(floors, metric) for metric in SHOWN] + ["", ""]
        rows.append(floor if len(translators) == 1 else [translator.replace("_", " "), *floor])
    return rows


def shown_floor(floors: Sequence[Mapping[str, float]], metric: str) -> str:
    """Return the floor of a metric, the same for every cell, as a cell of a table."""
    found = [value for one in floors for name, value in one.items() if name == metric or name.startswith(f"{metric}_")]
    return f"{statistics.median(found):.4g}" if found else ""


def least(costs: Sequence[Mapping[str, Any]], key: str, of=min) -> str:
    """Return the smallest of the known costs (or what ``of`` takes) as a cell of a table."""
    known = [cost[key] for cost in costs if cost.get(key) is not None]
    return f"{of(known):.3g}" if known else ""


def report(found: Mapping[str, Any]) -> str:
    """Return the tables of all tasks as Markdown, from the results alone."""
    parts, missing = [], []
    for name, task in TASKS.items():
        measured = found.get(name, {}).get("options", {})
        if lacking := [option for option in (*task.options, REFERENCE) if option not in measured]:
            missing.append(f"- `{name}`: {', '.join(lacking)}")
        if not measured:
            continue
        rows = rows_of(task, found[name])
        records = [one for option in found[name]["options"].values() for one in option["seeds"].values()]
        steps, n = (sorted({str(value) for value in all_}) for all_ in ([r["steps"] for r in records], counts(records)))
        head = ["recipe", "weights", "seeds", *SHOWN, "ms per step", "peak GB"]
        head = head if len(rows[0]) == len(head) else ["direction", *head]
        parts.append(
            f"`{task.model}` on `{task.dataset}`, {found[name]['size']} px, half width, {', '.join(steps)} steps, "
            f"{', '.join(n)} test images:\n\n" + table(head, rows, left=len(head) - 9)
        )
    if missing:
        parts.append("\n".join(["Not measured yet:", "", *missing]))
    return "\n\n".join(parts)


def counts(records: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the numbers of test images of some records."""
    return {n for record in records for n in record["n"].values()}


# --- the gate


def write_gate(out: Path, name: str, folder: Path) -> list[Path]:
    """Write baseline (the first seed) and tolerances (all seeds) of the plain recipe; return both files.

    Raises:
        UserError: fewer than three seeds of it are scored in ``out``.
    """
    task = TASKS[name]
    entries = baseline.read_metrics(out / paths.METRICS)
    cells = {cell: entry for cell, entry in entries.items() if cell.startswith(f"{task.dataset}-plain-")}
    if len(cells) < 3:
        raise UserError(f"{out}: {len(cells)} seeds of {task.dataset}-plain are scored; a tolerance takes three")
    params = reader.load(out / reader.FILE)
    asked = {"models.plain": params["models"]["plain"], "evaluate": params["evaluate"]}
    settings = reader.parse(params.get("gate", {}) | {"metrics": list(GATED)}, Gate, "gate")
    family = tolerance.estimate(cells, settings, params=asked, run_key=digest_text(canonical_json(asked)))
    first = min(cells, key=lambda cell: int(cell.rpartition("-")[2]))
    files = [folder / baseline.FILE, folder / tolerance.FILE]
    baseline.Baseline(cells={first: cells[first]}).write(files[0])
    tolerance.Tolerances(families={f"{task.dataset}-plain": family}).write(files[1])
    return files


def measure(
    name: str,
    out: Path,
    path: Path,
    *,
    epochs: int | None = None,
    options: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Train and score what a file of results lacks of a task, and return all of the file.

    Args:
        name: of the task.
        out: folder in which it is trained.
        path: the file.
        epochs: instead of the task's.
        options: which; None: all, and the reference.
        seeds: which.
        weights: of Inception, for FID and KID at 768 dims.

    Raises:
        UserError: an option that is none, or the file holds cells of other settings.
    """
    task = TASKS[name]
    known = (*task.options, REFERENCE)
    options, epochs = options or known, epochs or task.epochs
    if unknown := [option for option in options if option not in known]:
        raise UserError(f"--only {unknown[0]}: no option; there are {', '.join(known)}")
    check_settings(read_results(path), path, name, task, epochs)
    lay_out_params(out, task, epochs, weights)
    train(out, path, name, epochs, options, seeds)
    return collect(out, path, name, epochs)
