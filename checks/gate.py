"""Proof that the gate can go red, and stays green where it should, on a trained cell.

    python -m checks.gate [CELL] [--train] [--json] [--if-trained] [--write]

Evaluates the cell as it is and with broken translators (blurred, channels swapped, constant),
on fewer images, through other features, and with scores that its weights did not give; each
result is a metrics file of its own, and `repix gate` judges it. Every seed of the study takes
the place of the new run once, the tolerance estimated without it. With --train, a
generator trained a tenth and a third as long and one without the adversarial loss come on top
(minutes each). Prints a table, ends with 1 if any case came out otherwise than expected. --write
puts it and the noise between seeds into docs/gate.md.
Takes runs/CELL, data/prepared and metrics/tolerances.json, and writes to a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from checks.harness import table, write
from repix import cli, paths, profile
from repix.cells import Cell
from repix.commands import seeds as seeds_command
from repix.config import reader
from repix.config.evaluation import Evaluate
from repix.config.gate import Gate
from repix.config.models import loss_options
from repix.errors import UserError
from repix.files import digest_text
from repix.regression import baseline, tolerance
from repix.schemas import Metrics, flat
from repix.studies import seed_study

SIGMAS = (1.0, 2.0)
SHARES = (10, 3)  # a tenth and a third of the epochs
GREEN_SEEDS = 0.9


class Broken:
    """A trained cell whose translations pass through ``damage``; its weights have another digest."""

    def __init__(self, model, name: str, damage: Callable):
        networks = {network: digest_text(f"{name} {digest}") for network, digest in model.record.networks.items()}
        self.record = model.record.model_copy(update={"networks": networks})
        self.variants, self.load = model.variants, model.load
        self._model, self._damage = model, damage

    def translator(self, name: str, *, paper: bool = False):
        """Return the damaged translator."""
        inner = self._model.translator(name, paper=paper)
        return lambda images: (self._damage(image) for image in inner(images))


def first_half(prepared):
    """Return a prepared set with the first half of its test split."""
    manifest, test = prepared.manifest, prepared.split("test")
    half = len(test.source) // 2
    cut = manifest.splits["test"]
    sides = {side: getattr(cut, side).model_copy(update={"n": half}) for side in ("source", "target")}
    arrays = {name: getattr(test, name)[:half] for name in ("source", "target", "names", "target_names")}
    return SimpleNamespace(
        manifest=manifest.model_copy(update={"splits": {**manifest.splits, "test": cut.model_copy(update=sides)}}),
        split=lambda name: SimpleNamespace(**arrays),
    )


def damages(prepared) -> dict[str, Callable]:
    """Return name -> what is done to a translation, (h, w, c) integers both ways."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    targets = prepared.split("train").target
    mean = np.rint(np.mean([image.mean(axis=(0, 1)) for image in targets], axis=0)).astype(targets.dtype)
    found: dict[str, Callable] = {
        f"blurred, sigma {sigma:g}": lambda image, sigma=sigma: gaussian_filter(image, (sigma, sigma, 0))
        for sigma in SIGMAS
    }
    if targets.shape[-1] > 1:
        found["channels swapped"] = lambda image: image[..., ::-1]
    found["constant output"] = lambda image: np.broadcast_to(mean, image.shape)
    return found


def judge(folder: Path, accepted: Metrics, now: Metrics, limits: tolerance.Tolerances) -> tuple[int, str]:
    """Run ``repix gate`` on two records; return its exit code and the line that decided."""
    folder.mkdir(parents=True)
    now.write(folder / f"{now.cell}.json")
    baseline.Baseline(cells={accepted.cell: baseline.Entry.of(accepted)}).write(folder / baseline.FILE)
    limits.write(folder / tolerance.FILE)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        code = None
        try:
            cli.main(["gate", "--metrics", str(folder), "--json"])
        except SystemExit as ended:
            code = ended.code
    result = json.loads(printed.getvalue())
    reasons = []
    for score in result["scores"]:
        if score["verdict"] == result["verdict"] != "pass":
            name = score["metric"] if score["variant"] == "last" else f"{score['metric']} ({score['variant']})"
            reasons.append(
                f"{name}: {score['why']}" if score["why"] else f"{name} {score['old']:.4g} -> {score['new']:.4g}"
            )
    shown = reasons[0] if reasons and ":" in reasons[0] else ", ".join(reasons)
    return code, shown


def main() -> int:
    """Judge every case; return 0 if all came out as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", nargs="?", default="sample-pix2pix_small-0")
    parser.add_argument("--tolerances", type=Path, default=Path("metrics") / tolerance.FILE, metavar="FILE")
    parser.add_argument("--train", action="store_true", help="also train short, and without the adversarial loss")
    parser.add_argument(
        "--if-trained", action="store_true", help="do nothing where the cell or the tolerances are missing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/gate.md")
    arguments = parser.parse_args()
    missing = [path for path in (paths.RUNS / arguments.cell, arguments.tolerances) if not path.exists()]
    if missing and arguments.if_trained:
        print(f"{missing[0]} is not there: nothing to judge")
        return 0
    if missing:
        raise UserError(f"{missing[0]}: no such file; run `dvc repro`, then `repix seeds ... --write`")
    profile.enter(seed_study.profile_of(Cell.named(arguments.cell).model))
    with tempfile.TemporaryDirectory() as scratch:
        rows = judge_all(arguments, Path(scratch))
    wrong = [row for row in rows if not row["as_expected"]]
    shown = table(
        ["case", "exit", "expected", "as expected", "why"],
        [[row[key] for key in ("case", "exit", "expected", "as_expected", "why")] for row in rows],
    )
    shown += f"\n\n{len(rows) - len(wrong)} of {len(rows)} as expected"
    print(json.dumps(rows, indent=2) if arguments.json else shown)
    if arguments.write:
        name = Cell.named(arguments.cell).family
        noise = seeds_command.table(name, tolerance.read_tolerances(arguments.tolerances).families[name])
        write("gate", "noise", f"```text\n{noise}\n```")
        write("gate", "proof", shown)
    return 1 if wrong else 0


def judge_all(arguments: argparse.Namespace, scratch: Path) -> list[dict]:
    """Return a row per case: name, expected exit code, exit code, reason."""
    from repix.libraries import import_keras

    import_keras()
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.inference.trained import TrainedModel

    cell = Cell.named(arguments.cell)
    model, prepared = TrainedModel(paths.RUNS / cell.name), Prepared.open(paths.PREPARED / cell.dataset)
    limits = tolerance.read_tolerances(arguments.tolerances)
    settings = reader.read("evaluate", Evaluate).model_copy(update={"fid": False, "kid": False, "paper_mode": False})
    rows: list[dict] = []

    def case(title: str, expected: int, accepted: Metrics, now: Metrics, bounds=limits) -> None:
        code, why = judge(scratch / f"case{len(rows)}", accepted, now, bounds)
        rows.append({"case": title, "expected": expected, "exit": code, "as_expected": code == expected, "why": why})

    def score(what, data=prepared, asked=settings, **options) -> Metrics:
        return evaluate(what, data, asked, scratch / "translations", **options)

    honest = score(model)
    case("unchanged", 0, honest, score(model))
    for title, damage in damages(prepared).items():
        case(title, 1, honest, score(Broken(model, title, damage)))
    case("half of the test images", 2, honest, score(model, first_half(prepared)))
    case("other features", 2, *(score(model, asked=asked, features=net) for asked, net in other_features(settings)))
    shifted = json.loads(honest.model_dump_json())
    for variants in shifted["scores"].values():
        variants["last"]["l1"] += 1e-6
    case("equal weights, unequal metrics", 3, honest, Metrics.model_validate(shifted))
    family = limits.families.get(cell.family)
    if family and len(family.provenance) > 3:
        rows.append(seed_change(family, cell.family, scratch))
    if arguments.train:
        recipe = model.recipe
        changes = {
            f"trained 1/{share} as long": {
                "epochs": max(1, round(recipe.epochs / share)),
                "decay_epochs": round(recipe.decay_epochs / share),
            }
            for share in SHARES
        }
        loss = {key: getattr(recipe.loss, key) for key in loss_options(recipe.system, recipe.loss.gan)}
        loss |= {"gan_weight": 0.0}
        for title, change in (changes | {"L1 alone": {"loss": loss}}).items():
            wanted = seed_study.plan(Path(), cell.dataset, cell.model, changes=change)
            seed_study.run(wanted, [cell.seed], root=Path())
            case(title, 1, honest, Metrics.read(wanted.metrics_path(cell.seed)))
    return rows


def other_features(settings: Evaluate):
    """Return twice the same metric, FID at 64 dims, on networks of other weights.

    They are random: what is judged is that the gate sees another network, not the distance.
    """
    from checks.support.inception import random_network

    asked = settings.model_copy(update={"fid": True, "features": "random", "dims": (64,)})
    return [
        (asked, dataclasses.replace(random_network((64,), seed), weights=digest_text(f"random {seed}")))
        for seed in (0, 1)
    ]


def seed_change(family: tolerance.Family, name: str, scratch: Path) -> dict:
    """Judge every seed of the study against the first one, the tolerance estimated without it."""
    settings = Gate(false_alarm=family.false_alarm, power=family.power, variants=gated_variants(family))
    cells = family.cells()
    first, *others = cells
    red = []
    for cell in others:
        rest = {key: entry for key, entry in cells.items() if key != cell}
        bounds = tolerance.estimate(rest, settings, params=family.params, run_key=family.run_key)
        accepted, now = (Metrics(cell=first, **cells[key].model_dump()) for key in (first, cell))
        code, why = judge(scratch / cell, accepted, now, tolerance.Tolerances(families={name: bounds}))
        if code:
            red.append(f"{cell}: {why}")
    green = len(others) - len(red)
    return {
        "case": "another seed alone",
        "expected": 0,
        "exit": 0 if green >= GREEN_SEEDS * len(others) else 1,
        "as_expected": green >= GREEN_SEEDS * len(others),
        "why": "; ".join([f"{green} of {len(others)} green", *red]),
    }


def gated_variants(family: tolerance.Family) -> tuple[str, ...]:
    """Return the weights whose scores the family gates."""
    return tuple(sorted({key[1] for key, noise in flat(family.scores).items() if noise.tolerance is not None}))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"checks.gate: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
