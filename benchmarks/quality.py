"""How well options of a recipe learn: façades at equal steps, several seeds each, every metric with its noise.

    python -m benchmarks.quality --features pt_inception.pth       # train what has not been, print the tables
    python -m benchmarks.quality --only plain augment --seeds 0 1  # some options, some seeds
    python -m benchmarks.quality --write                           # put the tables into docs/systems.md

An option is a change of one recipe, pix2pix at half width; each trains 8,000 steps of one image at 64 px, the rate
falling over the second half, through the stages' own scripts (train, evaluate) in a folder below --out. Killed, the
same command goes on where it was. All keep a moving average of the generator's weights, which is scored beside the
last ones: one training gives two rows. A difference to the plain recipe is given in standard deviations over seeds and
with Welch's t-test, whose p is no measure of size: a test of many metrics finds one in twenty by chance.

FID and KID at 768 dims need weights of Inception: a file for --features, else they are left out. They are not FID at
2048 dims and compare with nothing but this table. The archive lies in ../shared/data, or below REPIX_REAL_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from checks.harness import ROOT, run_stage, table, write
from checks.systems import archive_of, data, lay_out, sized
from repix import paths, stage
from repix.config import reader
from repix.config.run import Cell
from repix.directions import Direction
from repix.files import digest_file, write_json
from repix.metrics import direction
from repix.schemas import Metrics

SIZE, EPOCHS, SEEDS = 64, 20, (0, 1, 2, 3, 4)
DATASET = "facades"
SHOWN = ("l1", "psnr", "ssim", "swd", "fid_768", "kid_768")
AUGMENT = ("colour", "translation", "cutout")


@dataclass(frozen=True)
class Option:
    """A change of the recipe, by the keys of its entry in params.yaml.

    Attributes:
        says: what it changes, for the table.
        changes: key -> value; a mapping is merged into the recipe's own.
    """

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)


OPTIONS = {
    "plain": Option("the paper's recipe"),
    "augment": Option("differentiable augmentation", {"discriminator": {"augment": list(AUGMENT)}}),
    "no_cutout": Option("the same without cutout", {"discriminator": {"augment": list(AUGMENT[:2])}}),
    "two_rates": Option("discriminator at a quarter of the weight", {"loss": {"discriminator": 0.125}}),
    "no_dropout": Option("no dropout", {"generator": {"dropout": 0.0}}),
}


def recipe_of(option: Option, epochs: int) -> dict[str, Any]:
    """Return the entry of ``models`` that an option trains."""
    entry = dict(reader.load(ROOT / reader.FILE)["models"]["pix2pix"])
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


def lay_out_params(out: Path, epochs: int, weights: Path | None) -> None:
    """Write the params.yaml of all trainings into ``out``; other parameters than before start it anew.

    Without weights of Inception those of an earlier run stay, since the trainings are the same.
    """
    tree = reader.load(ROOT / reader.FILE)
    entry = tree["datasets"][DATASET]
    groups = {"archive": entry["archive"] | archive_of(DATASET), "images": entry["images"] | sized(DATASET, SIZE)}
    tree["datasets"] = {DATASET: entry | groups}
    tree["models"] = {name: recipe_of(option, epochs) for name, option in OPTIONS.items()}
    tree["run"] = {"datasets": [DATASET], "models": list(tree["models"]), "seeds": list(SEEDS), "profile": "auto"}
    tree["evaluate"] = tree["evaluate"] | {"swd": True, "fid": bool(weights), "kid": bool(weights), "dims": [768]}
    if weights is None and (out / reader.FILE).exists():
        kept = reader.load(out / reader.FILE)
        tree |= {key: kept[key] for key in ("evaluate", "features")}
    if weights:
        entry = {"urls": [weights.resolve().as_uri()], "sha256": digest_file(weights), "licence": "see the file"}
        tree["features"] = {"inception": entry}
    lay_out(out, yaml.safe_dump(tree, sort_keys=False))


def train(out: Path, options: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Bring every cell through train and evaluate, seed by seed, so that a stop leaves as many of each option.

    Returns:
        What :func:`collect` does.
    """
    data(out, DATASET)
    if not (out / paths.FEATURES).exists():
        run_stage(out, "features")
    cells = [Cell(DATASET, option, seed) for seed in seeds for option in options]
    for number, cell in enumerate(cells, 1):
        for name, left in (("train", paths.RUNS / cell.name), ("evaluate", paths.METRICS / f"{cell.name}.json")):
            if not (out / left).exists():
                print(f"{number} of {len(cells)}: {name} {cell.name}", file=sys.stderr, flush=True)
                run_stage(out, name, *cell.name.split("-"))
        found = collect(out)
    return found


def collect(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return option -> ``<variant>/<metric>`` -> seed -> score of what was evaluated, and keep it beside the cells."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted((out / paths.METRICS).glob(f"{DATASET}-*.json")):
        record = Metrics.read(path)
        _, option, seed = record.cell.split("-")
        for variant in ("last", "ema"):
            scores = record.scores[Direction.SOURCE_TO_TARGET].get(variant) or {}
            for name, value in scores.items():
                # Weights of Inception that are not the published ones stand in the name.
                metric = next((shown for shown in SHOWN if name == shown or name.startswith(f"{shown}_")), None)
                if metric and value is not None:
                    found.setdefault(option, {}).setdefault(f"{variant}/{metric}", {})[seed] = value
    write_json(out / "quality.json", found)
    return found


def rows_of(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[Any]]:
    """Return the table: option, variant, seeds, and per metric mean, sd and the gain over the plain recipe in sds."""
    from scipy.stats import ttest_ind

    rows = []
    for option, scores in found.items():
        for variant in ("last", "ema"):
            row: list[Any] = [OPTIONS[option].says, variant, len(next(iter(scores.values())))]
            for metric in SHOWN:
                values = list(scores.get(f"{variant}/{metric}", {}).values())
                plain = list(found.get("plain", {}).get(f"last/{metric}", {}).values())
                if not values:
                    row.append("")
                    continue
                mean = statistics.mean(values)
                cell = f"{mean:.4g}"
                if len(values) > 1:
                    cell += f" ± {statistics.stdev(values):.2g}"
                if (option, variant) != ("plain", "last") and len(values) > 1 and len(plain) > 1:
                    pooled = ((statistics.variance(values) + statistics.variance(plain)) / 2) ** 0.5
                    gain = direction(metric) * (mean - statistics.mean(plain)) / pooled if pooled else 0.0
                    p = ttest_ind(values, plain, equal_var=False).pvalue
                    cell += f" ({gain:+.1f} sd, p {p:.2g})"
                row.append(cell)
            rows.append(row)
    return rows


def report(found: Mapping) -> str:
    """Return the table as Markdown."""
    return table(["recipe", "weights", "seeds", *SHOWN], rows_of(found), left=2)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / ".repix" / "quality", help="default: .repix/quality")
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="some options")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS), help="some seeds")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"400 steps each; default: {EPOCHS}")
    parser.add_argument("--features", type=Path, help="weights of Inception, for FID and KID at 768 dims")
    parser.add_argument("--write", action="store_true", help="put the table into docs/systems.md")
    arguments = parser.parse_args(given)
    out = arguments.out.resolve()
    lay_out_params(out, arguments.epochs, arguments.features)
    text = report(train(out, arguments.only, arguments.seeds))
    print(text)
    if arguments.write:
        write("systems", "options", text)
    return 0


if __name__ == "__main__":
    stage.guard(lambda: sys.exit(main()))
