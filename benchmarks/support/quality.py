"""Options of a recipe trained over seeds beside PyTorch, and what is kept and shown of them: `benchmarks.quality`."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.support import measured
from checks.harness import ROOT, run_module, run_stage, table
from checks.systems import alone, archive_of, data, lay_out, ms_per_step, sized
from repix import paths
from repix.cells import Cell
from repix.config import reader
from repix.config.evaluation import Evaluate
from repix.config.gate import Gate
from repix.config.models import Recipe
from repix.errors import UserError
from repix.files import canonical_json, digest_file, digest_text, read_json, write_json
from repix.metrics import direction
from repix.regression import baseline, tolerance
from repix.regression.tolerance import error_of_means, mean_and_sd, p_of, t_quantile
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
        beyond: another option, of which it has the changes and more: they are compared.
    """

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    beyond: str | None = None


@dataclass(frozen=True)
class Task:
    """What the options are measured on.

    Attributes:
        model, dataset: entries of params.yaml.
        epochs: of 400 steps each.
        options: name -> change of the recipe.
        as_reference: the option whose rules are nearest to the reference code's.
        plus: the option that, with the average of the weights, is the recipe ``<model>_plus``.
        dropped: what did not help, and is in the code no more -> what it is called. Its rows name their commit.
    """

    model: str
    dataset: str
    epochs: int
    options: Mapping[str, Option]
    as_reference: str = "plain"
    plus: str | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)


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
            "two_rates": Option("discriminator at a quarter of the rate", {"optimizer": {"discriminator_rate": 5e-5}}),
            "long_decay": Option("the rate falling from the start", {"decay_epochs": 20}),
            "r1": Option("R1, gamma 10", {"loss": {"r1": 10.0}}),
            "augment_two_rates": Option(
                "augmentation, and a quarter of the rate",
                {"discriminator": {"augment": list(AUGMENT)}, "optimizer": {"discriminator_rate": 5e-5}},
                beyond="augment",
            ),
            "one_dropout": Option(
                "dropout in one block, as the PyTorch code", {"generator": {"dropout_first": 1, "dropout_blocks": 1}}
            ),
            "no_dropout": Option("no dropout", {"generator": {"dropout": 0.0}}),
            "bfloat16": Option("networks in bfloat16", {"precision": "bfloat16"}),
        },
        as_reference="one_dropout",
        plus="augment",
        dropped={"features": "feature matching (dropped)"},
    ),
    "cyclegan": Task(
        "cyclegan", "facades_unaligned", 10, {"plain": Option("the paper's recipe"), "augment": AUGMENTED}
    ),
}


def says(task: Task, option: str) -> str:
    """Return what an option is called in a table."""
    if option == REFERENCE:
        return "the reference code's rules, PyTorch"
    return task.dropped[option] if option in task.dropped else task.options[option].says


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


def params_of_all(task: Task, epochs: int) -> dict[str, Any]:
    """Return the params.yaml of all trainings of a task, without what they are scored by."""
    tree = reader.load(ROOT / reader.FILE)
    entry = tree["datasets"][task.dataset]
    groups = {
        "archive": entry["archive"] | archive_of(task.dataset),
        "images": entry["images"] | sized(task.dataset, SIZE),
    }
    tree["datasets"] = {task.dataset: entry | groups}
    tree["models"] = {name: recipe_of(task, option, epochs) for name, option in task.options.items()}
    tree["run"] = {"datasets": [task.dataset], "models": list(tree["models"]), "seeds": list(SEEDS), "profile": "auto"}
    return tree


def settings_of(params: Mapping[str, Any], dataset: str, model: str) -> str:
    """Return a digest of what a training follows from in params.yaml: recipe with its defaults, archive and images.

    What is off is left out: a setting that comes later, and is off by default, makes no training another one.
    """
    recipe = reader.parse(params["models"][model], Recipe, f"models.{model}").model_dump(mode="json")
    entry = params["datasets"][dataset]
    read = {"archive": entry["archive"]["sha256"], "images": entry["images"]}
    return digest_text(canonical_json({"recipe": _on(recipe), **read}))


def _on(value: Any) -> Any:
    """Return settings without those that are null, false, 0 or empty."""
    return {key: on for key, one in value.items() if (on := _on(one))} if isinstance(value, Mapping) else value


def score_by(tree: dict[str, Any], weights: Path | None, paper_mode: bool = False) -> None:
    """Put into a params.yaml by what is scored here, whatever it switches on for its own cells."""
    on = weights is not None
    scored = Evaluate(swd=True, fid=on, kid=on, features="inception", dims=(768,), paper_mode=paper_mode)
    tree["evaluate"] = scored.model_dump(mode="json")
    tree["export"] = tree["export"] | {"formats": ["keras"]}  # nothing is exported, and not every format takes bfloat16
    if weights is not None:
        entry = {"urls": [weights.resolve().as_uri()], "sha256": digest_file(weights), "licence": "see the file"}
        tree["features"] = {"inception": entry}


def lay_out_params(out: Path, params: Mapping[str, Any], weights: Path | None) -> None:
    """Write the params.yaml of all trainings into ``out``; other parameters than before start it anew.

    Without weights of Inception those of an earlier run stay, since the trainings are the same.
    """
    tree = dict(params)
    score_by(tree, weights)
    if weights is None and (out / reader.FILE).exists():
        kept = reader.load(out / reader.FILE)
        tree |= {key: kept[key] for key in ("evaluate", "features")}
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
        write_json(cost, {"commit": commit()})
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
        with suppress(ValueError, OSError):
            found |= read_json(path)
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


def record_of(out: Path, cell: Cell, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a scored cell: its scores and floors by direction, digests of weights, and cost.

    Raises:
        UserError: it was trained otherwise than ``params`` have it.
    """
    metrics = Metrics.read(out / paths.METRICS / f"{cell.name}.json")
    trained = Trained.read(out / paths.RUNS / cell.name / "trained.json")
    if cell.model != REFERENCE:
        recipe = reader.parse(params["models"][cell.model], Recipe, f"models.{cell.model}").model_dump(mode="json")
        if _on(trained.recipe) != _on(recipe):
            raise UserError(f"{out}: {cell.name} was trained by another recipe than it has now; remove the folder")
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
    return measured.read(path, measured.TASKS)


def entry_of(task: Task, option: str, epochs: int) -> dict[str, Any]:
    """Return what an option is trained by, as results keep it: its entry, or what the reference takes of plain's."""
    entry = recipe_of(task, task.options["plain" if option == REFERENCE else option], epochs)
    if option != REFERENCE:
        return entry
    whole = Recipe.model_validate(entry).model_dump(mode="json")
    taken = {key: whole[key] for key in ("system", "epochs", "decay_epochs")}
    return taken | {"filters": whole["generator"]["filters"], "loss": whole["loss"]}


def trained_by(task: Task, option: str, epochs: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results keep of what an option is trained by: :func:`entry_of` and :func:`settings_of`."""
    settings = settings_of(params, task.dataset, "plain" if option == REFERENCE else option)
    return {"entry": entry_of(task, option, epochs), "settings": settings}


def check_settings(found: Mapping[str, Any], path: Path, name: str, epochs: int, params: Mapping[str, Any]) -> None:
    """Refuse to mix cells of other settings with those that a file of results holds.

    Raises:
        UserError: an option of the file was trained otherwise than it would be now.
    """
    task = TASKS[name]
    for option, kept in found.get(name, {}).get("options", {}).items():
        if option not in (*task.options, REFERENCE):
            continue
        if kept | trained_by(task, option, epochs, params) != kept:
            raise UserError(
                f"{path}: {name} {option} was trained by another entry ({kept['entry']['epochs']} epochs), defaults or "
                f"images; name another file with --json, or remove the option from this one"
            )


def collect(out: Path, path: Path, name: str, epochs: int, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Add what was scored in ``out`` to a file of results, and return all of the file.

    Args:
        out: where.
        path: the file.
        name: of the task.
        epochs: of its trainings.
        params: those of :func:`params_of_all`, where they are at hand.
    """
    task = TASKS[name]
    cells = [Cell.named(file.stem) for file in sorted((out / paths.METRICS).glob(f"{task.dataset}-*.json"))]
    cells = [cell for cell in cells if cell.model in (*task.options, REFERENCE)]
    if not cells:
        return read_results(path)
    params = params or params_of_all(task, epochs)
    with measured.updated(path, measured.TASKS) as found:
        check_settings(found, path, name, epochs, params)
        here = found.setdefault(name, {"dataset": task.dataset, "size": SIZE, "options": {}})
        for cell in cells:
            option, seed = cell.model, str(cell.seed)
            kept = here["options"].setdefault(option, trained_by(task, option, epochs, params) | {"seeds": {}})
            if seed not in kept["seeds"]:
                kept["seeds"][seed] = record_of(out, cell, params)
    return found


def train(
    out: Path,
    path: Path,
    name: str,
    epochs: int,
    params: Mapping[str, Any],
    options: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Bring every cell that the results lack through train and evaluate, seed by seed.

    So a stop leaves as many seeds of each option.
    """
    task = TASKS[name]
    missing = missing_of(path, name, options, seeds)
    data(out, task.dataset)
    if not (out / paths.FEATURES).exists():
        run_stage(out, "features")
    for number, cell in enumerate(missing, 1):
        print(f"{time.strftime('%H:%M')} {number} of {len(missing)}: {cell.name}", file=sys.stderr, flush=True)
        make_cell(out, cell, "plain")
        collect(out, path, name, epochs, params)


def missing_of(path: Path, name: str, options: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return the cells of a task that a file of results lacks, seed by seed."""
    kept = read_results(path).get(name, {}).get("options", {})
    cells = [Cell(TASKS[name].dataset, option, seed) for seed in seeds for option in options]
    return [cell for cell in cells if str(cell.seed) not in kept.get(cell.model, {}).get("seeds", {})]


# --- tables


def name_of(records: Iterable[Mapping[str, Any]], metric: str) -> str:
    """Return the name under which records have a metric: other than published weights of a network stand in it.

    Raises:
        UserError: they have it under several, and so by several networks.
    """
    scores = [found for record in records for variants in record["scores"].values() for found in variants.values()]
    names = {name for one in scores for name in one if name == metric or name.startswith(f"{metric}_")}
    if len(names) > 1:
        raise UserError(f"{' and '.join(sorted(names))} were computed by other networks, and do not compare")
    return next(iter(names), metric)


def values_of(seeds: Mapping[str, Mapping], translator: str, variant: str, metric: str) -> dict[str, float]:
    """Return seed -> a metric's value, for every seed that has it."""
    name = name_of(seeds.values(), metric)
    found = {seed: record["scores"].get(translator, {}).get(variant, {}).get(name) for seed, record in seeds.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def mean_sd(values: Collection[float]) -> str:
    """Return mean and standard deviation as a cell of a table."""
    if len(values) < 2:
        return "".join(f"{value:.4g}" for value in values)
    return "{:.4g} ± {:.2g}".format(*mean_and_sd(list(values)))


class Difference(NamedTuple):
    """How much better some scores are than others, in standard deviations over seeds.

    Attributes:
        gain: the difference of the means, positive where it is better.
        low, high: its 95 % interval.
        p: of the test of no difference.
    """

    gain: float
    low: float
    high: float
    p: float


def difference(
    metric: str, values: Mapping[str, float], others: Mapping[str, float], paired: bool
) -> Difference | None:
    """Return how much better values are than others; None of fewer than two seeds, or where none varies.

    Args:
        metric: whose.
        values, others: seed -> score.
        paired: whether an equal seed is one training, scored twice: Student's test of the differences, else Welch's.
    """
    if paired:
        values, others = ({seed: side[seed] for seed in values if seed in others} for side in (values, others))
    one, two = list(values.values()), list(others.values())
    if min(len(one), len(two)) < 2:
        return None
    (mean, sd), (other, other_sd) = mean_and_sd(one), mean_and_sd(two)
    pooled = math.sqrt((sd**2 + other_sd**2) / 2)
    if not pooled:
        return None
    if paired:
        error = mean_and_sd([a - b for a, b in zip(one, two, strict=True)])[1] / math.sqrt(len(one))
        degrees: float = len(one) - 1
    else:
        error, degrees = error_of_means(one, two)
    gain = direction(metric) * (mean - other) / pooled
    reach = t_quantile(0.975, degrees) * error / pooled
    p = p_of(abs(mean - other) / error, degrees) if error else float(mean == other)
    return Difference(gain, gain - reach, gain + reach, p)


def rows_of(task: Task, found: Mapping[str, Any]) -> list[list[Any]]:
    """Return the table's rows: direction, option, weights, seeds, each metric, time and memory."""
    rows: list[list[Any]] = []
    for translator, option, variant, seeds in shown(task, found):
        costs = [record["cost"] for record in seeds.values()]
        scores = [mean_sd(values_of(seeds, translator, variant, metric).values()) for metric in SHOWN]
        row = [says(task, option), variant, len(seeds), *scores]
        rows.append([translator.replace("_", " "), *row, least(costs, "ms_per_step"), least(costs, "peak_gb", max)])
    records = [one for option in found["options"].values() for one in option["seeds"].values()]
    for translator in dict.fromkeys(name for record in records for name in record["floor"]):
        floors = [record["floor"][translator] for record in records]
        floor = [shown_floor(floors, metric) for metric in SHOWN]
        rows.append([translator.replace("_", " "), "real photos, one half against the other", "", "", *floor, "", ""])
    return rows


def shown(task: Task, found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield translator, option, weights and seed -> record of each row."""
    every = (*task.options, *task.dropped, REFERENCE)
    options = {name: found["options"][name]["seeds"] for name in every if name in found["options"]}
    translators = dict.fromkeys(name for seeds in options.values() for one in seeds.values() for name in one["scores"])
    for translator in translators:
        for option, seeds in options.items():
            for variant in ("last", "ema"):
                if any(variant in record["scores"][translator] for record in seeds.values()):
                    yield translator, option, variant, seeds


def differences_of(task: Task, found: Mapping[str, Any]) -> list[list[str]]:
    """Return the second table's rows: direction, what is compared with what, and the difference on each metric."""
    rows = []

    def seeds_of(name: str) -> dict[str, Any]:
        return found["options"].get(name, {"seeds": {}})["seeds"]

    plain, alike = seeds_of("plain"), seeds_of(task.as_reference)
    for translator, option, variant, seeds in shown(task, found):
        beside = [("its own", seeds, "last", True)] if variant == "ema" else []
        if option != "plain":  # like with like, so that no option is credited with what the average does
            beside.append((f"{says(task, 'plain')},", plain, variant, False))
        if option == task.plus and variant != "last":
            beside.append((f"{says(task, 'plain')},", plain, "last", False))
        if option in task.options and (base := task.options[option].beyond):
            beside.append((f"{says(task, base)},", seeds_of(base), variant, False))
        if option == REFERENCE and alike is not plain:
            beside.append((f"{says(task, task.as_reference)},", alike, "last", False))
        for what, others, weights, paired in beside:
            cells = []
            for metric in SHOWN:
                sides = values_of(seeds, translator, variant, metric), values_of(others, translator, weights, metric)
                one = difference(metric, *sides, paired=paired)
                cells.append(f"{one.gain:+.1f} [{one.low:+.1f}, {one.high:+.1f}], p {one.p:.2g}" if one else "")
            if any(cells):
                rows.append(
                    [translator.replace("_", " "), f"{says(task, option)}, `{variant}`", f"{what} `{weights}`", *cells]
                )
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
        records = [one for option in measured.values() for one in option["seeds"].values()]
        steps, n = (sorted({str(value) for value in all_}) for all_ in ([r["steps"] for r in records], counts(records)))
        names = [name_of(records, metric) for metric in SHOWN]
        parts.append(
            f"`{task.model}` on `{task.dataset}`, {found[name]['size']} px, half width, {', '.join(steps)} steps, "
            f"{', '.join(n)} test images:"
        )
        head = ["direction", "recipe", "weights", "seeds", *names, "ms per step", "peak GB"]
        parts.append(by_direction(head, rows_of(task, found[name]), left=3))
        if rows := differences_of(task, found[name]):
            parts.append(
                "How much better, in standard deviations over seeds as they were observed, with the 95 % interval of "
                "the difference of the means:"
            )
            parts.append(by_direction(["direction", "recipe", "beside", *names], rows, left=3))
    if missing:
        parts.append("\n".join(["Not measured yet:", "", *missing]))
    return "\n\n".join(parts)


def by_direction(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int) -> str:
    """Return a table without empty columns, and without the direction where it is the same in all rows."""
    cut = int(len({row[0] for row in rows}) == 1)
    kept = [place for place in range(cut, len(head)) if place < left or any(row[place] for row in rows)]
    return table([head[place] for place in kept], [[row[place] for place in kept] for row in rows], left=left - cut)


def counts(records: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the numbers of test images of some records."""
    return {n for record in records for n in record["n"].values()}


# --- the gate


def write_gate(out: Path, name: str, folder: Path) -> list[Path]:
    """Write baseline (the first seed) and tolerances (all seeds) of the plain recipe; return both files.

    Raises:
        UserError: fewer than three seeds of it are scored in ``out``, or one has a score that is no number.
    """
    task = TASKS[name]
    entries = baseline.read_metrics(out / paths.METRICS)
    cells = {cell: entry for cell, entry in entries.items() if cell.startswith(f"{task.dataset}-plain-")}
    if len(cells) < 3:
        raise UserError(f"{out}: {len(cells)} seeds of {task.dataset}-plain are scored; a tolerance takes three")
    baseline.check_numbers(cells)
    params = reader.load(out / reader.FILE)
    if params["models"]["plain"] != recipe_of(task, task.options["plain"], task.epochs):
        raise UserError(f"{out}: was trained by another entry than the {task.epochs} epochs of {name} plain")
    asked = {"models.plain": params["models"]["plain"], "evaluate": params["evaluate"]}
    settings = reader.parse(params.get("gate", {}) | {"metrics": list(GATED)}, Gate, "gate")
    family = tolerance.estimate(cells, settings, params=asked, run_key=digest_text(canonical_json(asked)))
    first = min(cells, key=lambda cell: Cell.named(cell).seed)
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
    params = params_of_all(task, epochs)
    measured.check_place(path)
    found = read_results(path)
    check_settings(found, path, name, epochs, params)
    if not missing_of(path, name, options, seeds):
        return found
    measured.check_weights(weights)
    with alone(out):
        lay_out_params(out, params, weights)
        train(out, path, name, epochs, params, options, seeds)
        return collect(out, path, name, epochs, params)
