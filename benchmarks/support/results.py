"""Recipes trained on real images, and what docs/results.md says of them: `benchmarks.results`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.support import curve, measured
from benchmarks.support.quality import (
    REFERENCE,
    least,
    make_cell,
    mean_sd,
    record_of,
    score_by,
    settings_of,
    shown_floor,
    values_of,
)
from checks.harness import ROOT, run_stage, table
from checks.systems import Row, archive_of, baselines, compared, data, lay_out, params_of, sized
from repix import paths
from repix.cells import Cell
from repix.config import reader
from repix.config.models import Recipe
from repix.data.sampler import steps_per_epoch
from repix.errors import UserError
from repix.metrics import NAMES, find
from repix.schemas import Manifest

PICTURES = ROOT / "docs" / "images"
PICTURED = 3  # images of a row's picture


SAYS = {
    "facades": "labels to façades",
    "facades_bw": "labels to grey façades",
    "facades_unaligned": "façades without pairs",
    "lab_colorization": "colours of photos",
}
"""Data set -> the task, in words."""

HALF = {"precision": "bfloat16"}
"""Networks that compute in bfloat16: a step at 256 px takes two thirds of the time (docs/performance.md)."""

ROWS = {
    row.name: row
    for row in (
        Row("facades_256", "pix2pix", "facades", 256, 50, recipe=HALF),
        Row("facades_256_plus", "pix2pix_plus", "facades", 256, 50, recipe=HALF),
        Row("facades_128", "pix2pix", "facades", 128, 20),
        Row("facades_128_plus", "pix2pix_plus", "facades", 128, 20),
        Row("facades_64", "pix2pix", "facades", 64, 20),
        Row("facades_64_plus", "pix2pix_plus", "facades", 64, 20),
        Row("cyclegan_64", "cyclegan", "facades_unaligned", 64, 13),
        Row("scratch_64", "pix2pix_scratch", "facades", 64, 13),
        Row("book_64", "pix2pix_book", "facades_bw", 64, 13),
        Row("tf2_64", "pix2pix_tf2", "facades", 64, 13, {"resample": "nearest"}),
        Row("affine_64", "pix2pix_affine", "facades", 64, 13, {"resample": "box"}),
        Row("lab_128", "pix2pix_affine", "lab_colorization", 128, 84),
    )
}


# --- training


def falls(row: Row) -> bool:
    """Whether the learning rate falls over the second half of a row's training: as its recipe has it."""
    return bool(reader.section(f"models.{row.model}", ROOT / reader.FILE).get("decay_epochs"))


def lay_out_row(folder: Path, row: Row, weights: Path | None) -> None:
    """Write the params.yaml of a row into its folder; other parameters than before start it anew.

    Raises:
        UserError: a training is under way there with others.
    """
    model = {"epochs": row.epochs, "picture_every": row.epochs}
    if falls(row):
        model["decay_epochs"] = row.epochs // 2
    model |= row.recipe
    images = sized(row.dataset, row.size) | row.changes
    tree = yaml.safe_load(params_of({row.model: model}, {row.dataset: (archive_of(row.dataset), images)}))
    score_by(tree, weights, paper_mode=True)
    lay_out(folder, yaml.safe_dump(tree, sort_keys=False), hours=True)


def train(
    row: Row, folder: Path, results: Path, pictures: Path, seeds: Sequence[int], reference: bool
) -> dict[str, Any]:
    """Bring the seeds of a row that its JSON lacks through the stages; write JSON and picture, return the record.

    Args:
        row: what is trained; its name is that of its JSON and picture.
        folder: where, with the params.yaml of :func:`lay_out_row`.
        results, pictures: folders of JSON and picture.
        seeds: which.
        reference: whether PyTorch is trained as well.

    Raises:
        UserError: the JSON was made by other parameters, or the recipe is none that the reference code has.
    """
    name = row.name
    asked = {"row": name, "model": row.model, "dataset": row.dataset, "size": row.size, "epochs": row.epochs}
    asked |= {"recipe": dict(row.recipe)} if row.recipe else {}
    file = results / f"{name}.json"
    record = read_row(file) or asked | {"seeds": {}, REFERENCE: {}}
    if record | asked != record or record.get("recipe", {}) != dict(row.recipe):
        raise UserError(f"{file}: was made by another row; remove it to train this one")
    if reference and row.model not in ("pix2pix", "cyclegan"):
        raise UserError(f"--reference: the reference code has pix2pix and cyclegan, not {row.model}")
    wanted = [(row.model, "seeds", seed) for seed in seeds]
    wanted += [(REFERENCE, REFERENCE, seed) for seed in seeds if reference]
    for model, key, seed in wanted:
        cell = Cell(row.dataset, model, seed)
        if str(seed) in record[key]:
            if "curve" not in record[key][str(seed)] and (found := curve.points(folder, cell)):  # it was stopped there
                record = put(file, record, key, str(seed), record[key][str(seed)] | {"curve": found})
            continue
        print(f"{time.strftime('%H:%M')} {name}: {cell.name}", file=sys.stderr, flush=True)
        params = reader.load(folder / reader.FILE)
        settings = settings_of(params, row.dataset, row.model)
        if any(one.get("settings") != settings for one in record[key].values()):
            raise UserError(f"{file}: its seeds were trained with other settings; remove it to train them anew")
        data(folder, row.dataset)
        if not (folder / paths.FEATURES).exists():
            run_stage(folder, "features")
        with curve.keeping(folder, cell, steps_of(folder, row)):
            make_cell(folder, cell, row.model)
        scored = record_of(folder, cell, params) | {"settings": settings}
        if "baselines" not in record:
            record["baselines"] = best_baselines(folder, cell, scored)
        if model == row.model and not record["seeds"]:
            picture(folder, cell, row.size, pictures / f"{name}.png")
        record = put(file, record, key, str(seed), scored)
        if found := curve.points(folder, cell):
            record = put(file, record, key, str(seed), scored | {"curve": found})
    return record


def read_row(file: Path) -> dict[str, Any]:
    """Return what the file of a row holds; nothing where there is none."""
    return measured.read(file, measured.ROW)


def put(file: Path, record: Mapping[str, Any], key: str, seed: str, scored: Mapping[str, Any]) -> dict[str, Any]:
    """Add a seed to the file of a row, beside those that others have added since it was read; return all of it."""
    with measured.updated(file, measured.ROW) as found:
        for name, value in record.items():
            found.setdefault(name, value)
        found[key] = {**found[key], seed: dict(scored)}
    return found


def steps_of(folder: Path, row: Row) -> int:
    """Return how many steps a training of a row has, whose data lies prepared in ``folder``."""
    recipe = reader.read(f"models.{row.model}", Recipe, folder / reader.FILE)
    split = Manifest.read(folder / paths.PREPARED / row.dataset / "manifest.json").splits["train"]
    return recipe.epochs * steps_per_epoch(max(split.source.n, split.target.n), recipe.batch_size)


def best_baselines(folder: Path, cell: Cell, record: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return translator -> metric -> score of the best trivial predictor on that metric."""
    from repix.libraries import import_keras

    import_keras()
    from repix.data.prepared import Prepared

    prepared = Prepared.open(folder / paths.PREPARED / cell.dataset)
    return {
        name: compared(dict.fromkeys(NAMES), baselines(prepared, name))["best_baseline"] for name in record["scores"]
    }


def picture(folder: Path, cell: Cell, size: int, out: Path) -> None:
    """Write source | output | target of the first test images at full size: the top of the stage's own picture."""
    import numpy as np
    from PIL import Image

    from repix.data.image_writer import write as write_image
    from repix.evaluation.pictures import GAP

    with Image.open(next((folder / paths.TRANSLATIONS / cell.name).glob("*_to_target.png"))) as whole:
        pixels = np.asarray(whole.convert("RGB"))
    paired = pixels.shape[1] > 2 * (3 * size + 2 * GAP)  # two columns of three pictures, not of two
    pieces = 3 if paired else 2
    out.parent.mkdir(parents=True, exist_ok=True)
    write_image(out, pixels[: PICTURED * (size + GAP) - GAP, : pieces * (size + GAP) - GAP])


# --- the page


def section(row: Row, record: Mapping[str, Any], pictures: Path) -> str:
    """Return what the page says of a row that was trained."""
    seeds, others = record["seeds"], record[REFERENCE]
    costs = [one["cost"] for one in seeds.values()]
    hours = [cost["seconds"] for cost in costs if cost.get("seconds")]
    commits = dict.fromkeys(cost["commit"] for cost in costs if cost.get("commit"))
    first = next(iter(seeds.values()))
    digests = " ".join(f"{network} `{digest[:12]}`" for network, digest in first["weights"].items())
    counted = ", ".join(f"{n} {direction.replace('_', ' ')}" for direction, n in first["n"].items())
    facts = [
        f"recipe `{row.model}`, data `{row.dataset}`, {record['size']} px, {first['steps']:,} steps",
        f"{len(seeds)} seed{'s'[: len(seeds) > 1]}; test images: {counted}",
        f"profile `{first['profile']}`"
        + "".join(f", {key} `{value}`" for key, value in (record.get("recipe", {}) | dict(row.changes)).items()),
        f"{least(costs, 'ms_per_step')} ms per step, "
        + (
            f"{max(hours) / 3600:.1f} h as the machine was"
            if hours
            else "stopped on the way, so that its hours are not known"
        ),
        f"commit{'s'[: len(commits) > 1]} {', '.join(f'`{commit}`' for commit in commits)}",
    ]
    if peak := least(costs, "peak_gb", max):
        facts.append(f"at most {peak} GB")
    facts.append(f"weights of seed {next(iter(seeds))}: {digests}")
    lines = [
        f"### {row.name}: {SAYS.get(row.dataset, row.dataset)}, {record['size']} px",
        "",
        "; ".join(facts) + ".",
        "",
    ]
    on_features = any(name.startswith("fid") for name in next(iter(first["scores"].values()))["last"])
    features = " --features FILE" if on_features else ""
    lines += [f"    python -m benchmarks.results --train {row.name} --seeds {' '.join(seeds)}{features}", ""]
    lines.append(scores_table(record, seeds, others))
    if "curve" in first:
        shown = shown_weights(next(iter(first["scores"].values())))
        more = first["steps"], first["scores"], shown, first["curve"], first["cost"].get("ms_per_step")
        rate = "falls to 0 over the second half" if falls(row) else "stays as it is"
        lines += ["", f"Along the training, whose rate {rate}, by `{shown}`, one seed:", "", curve.section(*more)]
    if (pictures / f"{row.name}.png").exists():
        heads = "source | output | target" if "l1" in first["scores"]["source_to_target"]["last"] else "source | output"
        lines += ["", f"![{heads} of the first test images](images/{row.name}.png)"]
    return "\n".join(lines)


def scores_table(record: Mapping[str, Any], seeds: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Return a row's scores: each of its weights, the reference's, the best trivial predictor's, and the floor."""
    first = next(iter(seeds.values()))
    found = {name for variants in first["scores"].values() for scores in variants.values() for name in scores}
    metrics = sorted(found, key=lambda name: NAMES.index(find(name).name))
    rows: list[list[Any]] = []
    for translator, variants in first["scores"].items():
        start = [translator.replace("_", " ")]
        named = [(variant, seeds, variant) for variant in variants]
        if others:
            theirs = next(iter(others.values()))["scores"][translator]
            named += [(f"{variant}, reference code's rules", others, variant) for variant in theirs]
        for name, records, variant in named:
            values = [mean_sd(values_of(records, translator, variant, metric).values()) for metric in metrics]
            rows.append([*start, name, len(records), *values])
        best = record["baselines"][translator]
        rows.append([*start, "best trivial predictor", "", *(mean_sd(given(best.get(m))) for m in metrics)])
        floors = [one["floor"][translator] for one in seeds.values()]
        rows.append([*start, "floor", "", *(shown_floor(floors, metric) for metric in metrics)])
    return table(["direction", "weights", "seeds", *metrics], rows, left=2)


def shown_weights(variants: Iterable[str]) -> str:
    """Return which weights a result is shown by: the average where one is kept."""
    return "ema" if "ema" in variants else "last"


def summary(results: Path) -> str:
    """Return a table of all rows, a line a direction: of the average of weights where one is kept.

    Args:
        results: folder of the rows' JSON.
    """
    lines = []
    for name, row in ROWS.items():
        if not (results / f"{name}.json").exists():
            continue
        record = read_row(results / f"{name}.json")
        seeds = record["seeds"]
        first = next(iter(seeds.values()))
        for translator, variants in first["scores"].items():
            shown = shown_weights(variants)
            floors = [one["floor"][translator] for one in seeds.values()]
            trivial = mean_sd(given(record["baselines"][translator].get("ssim")))
            cells = []
            for metric, beside in (
                ("ssim", trivial),
                ("swd", shown_floor(floors, "swd")),
                ("fid_768", shown_floor(floors, "fid_768")),
            ):
                value = mean_sd(values_of(seeds, translator, shown, metric).values())
                cells.append(f"{value} ({beside})" if value and beside else value)
            task = SAYS[row.dataset] if translator == "source_to_target" else "and back"
            lines.append([task, f"`{row.model}`", shown, row.size, first["steps"], len(seeds), *cells])
    head = ["task", "recipe", "weights", "px", "steps", "seeds", "SSIM (trivial)", "SWD (floor)", "FID-768 (floor)"]
    return table(head, lines, left=3)


def given(value: float | None) -> list[float]:
    """Return a value as a list of what there is."""
    return [] if value is None else [value]


def page_rows(results: Path, pictures: Path) -> str:
    """Return the part of the page on the rows, from JSON and pictures alone."""
    made = {name: results / f"{name}.json" for name in ROWS if (results / f"{name}.json").exists()}
    parts = [section(ROWS[name], read_row(file), pictures) for name, file in made.items()]
    missing = [name for name in ROWS if name not in made]
    if missing:
        head = "Not trained yet" if made else "Nothing has been trained yet. These rows are prepared"
        parts.append("\n".join([f"{head}:", "", *(f"- {one_line(name)}" for name in missing)]))
    return "\n\n".join(parts)


def one_line(name: str) -> str:
    """Return what a row is, in a line."""
    row = ROWS[name]
    return (
        f"`{name}`: {SAYS[row.dataset]}, `{row.model}` on `{row.dataset}`, {row.size} px, {row.epochs} epochs"
        + "".join(f", {key} `{value}`" for key, value in row.recipe.items())
    )
