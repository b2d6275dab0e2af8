"""Train and evaluate several seeds of one data set and model, and measure the noise between them.

Prints mean, standard deviation and range of every score, the tolerance that follows for
`repix gate`, and the smallest change that the gate sees. The cells are made in .repix/seeds/,
beside the pipeline; the same command goes on where it stopped. In MLflow the study is one run, the seeds
are nested under it. With --write the result goes
to metrics/tolerances.json, and every seed's scores to metrics/spread-DATASET-MODEL.csv and .png.
With --draw nothing is trained: the .csv and the .png are made from metrics/tolerances.json.

Examples:
  repix seeds sample pix2pix_small --write
  repix seeds sample pix2pix_small --seeds 0-2 --quick --workers 2
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path

from repix.cells import SEEDS
from repix.config import reader
from repix.config.gate import Gate
from repix.errors import UserError, printable
from repix.files import locked
from repix.paths import WORK
from repix.regression import tolerance
from repix.regression.baseline import Entry
from repix.schemas import flat
from repix.tables import aligned

MOST = 1000  # seeds of a study: noise is measured with a few


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", help="a name under datasets in params.yaml; its data is prepared")
    parser.add_argument("model", help="a name under models in params.yaml")
    parser.add_argument("--seeds", metavar="0-9", help="such as 0-4 or 0,3,5; default: gate.seeds in params.yaml")
    parser.add_argument(
        "--quick", action="store_true", help="one epoch per seed, to try the command; cannot be written"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="seeds at once (default: 1)")
    parser.add_argument("--write", action="store_true", help="write metrics/tolerances.json, the spread as CSV and PNG")
    parser.add_argument("--draw", action="store_true", help="write the spread of the seeds in metrics/tolerances.json")
    parser.add_argument("--json", action="store_true", help="print JSON")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of ``0-4`` or ``0,3,5-7``, sorted, each once.

    Raises:
        UserError: it is neither.
    """
    seeds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < SEEDS:
            raise UserError(
                f"--seeds {printable(text)[:80]}: expected numbers and ranges, such as 0-9 or 0,3,5, up to {SEEDS - 1}"
            )
        if len(seeds) + last - first >= MOST:
            raise UserError(f"--seeds {printable(text)[:80]}: more than {MOST} seeds, each a training; give fewer")
        seeds.update(range(first, last + 1))
    return tuple(sorted(seeds))


def table(name: str, family: tolerance.Family) -> str:
    """Return a family's noise as aligned text."""
    rows = [("translator", "weights", "metric", "mean", "sd", "lowest", "highest", "tolerance", "detectable")]
    for key, noise in flat(family.scores).items():
        numbers = (noise.mean, noise.sd, noise.low, noise.high, noise.tolerance, noise.detectable)
        rows.append((*key, *("not gated" if value is None else f"{value:.4g}" for value in numbers)))
    lines = aligned(rows, right=range(3, 9))
    lines.append(
        f"{name}: {family.k} seeds, n = {family.n}, profile {family.profile}; tolerance = {family.factor:.2f} sd: "
        f"another seed alone is red at most {family.false_alarm:.0%} of the time over {family.comparisons} scores"
    )
    if family.seed_change:
        counted = family.seed_change
        lines.append(
            f"seed change alone (tolerance without the new seed): {counted.green_new_seeds} of {counted.new_seeds} "
            f"green against the first seed, {counted.green} of {counted.pairs} over all pairs"
        )
    return "\n".join(lines)


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    if arguments.draw and (arguments.quick or arguments.write):
        raise UserError("--draw trains nothing; leave out --quick and --write")
    if arguments.quick and arguments.write:
        raise UserError("--quick trains too little for tolerances; leave out --write or --quick")
    if arguments.workers < 1:
        raise UserError("--workers is 1 or more")
    root = Path()
    settings = reader.parse(reader.load(root / reader.FILE).get("gate", {}), Gate, "gate")
    seeds = parse_seeds(arguments.seeds) if arguments.seeds is not None else settings.seeds
    if len(seeds) < 2:
        raise UserError("noise between seeds takes two seeds or more; give `--seeds 0-9`")

    from repix.studies import seed_study
    from repix.tracking import mlflow_run
    from repix.training.history import Row

    name, file = f"{arguments.dataset}-{arguments.model}", root / "metrics" / tolerance.FILE
    if arguments.draw:
        family = tolerance.read_tolerances(file).families.get(name)
        if family is None:
            raise UserError(f"{file}: nothing of {name}; `repix seeds {arguments.dataset} {arguments.model} --write`")
        return report(arguments, name, family, draw(family.cells(), root / "metrics" / f"spread-{name}"))
    if arguments.write:
        tolerance.read_tolerances(file)  # what cannot be added to is said before anything is trained
    wanted = seed_study.plan(
        root, arguments.dataset, arguments.model, changes=seed_study.QUICK if arguments.quick else None
    )
    with mlflow_run.study(name, run_key=wanted.key, params=wanted.params, root=root.resolve()) as run:
        cells = seed_study.run(wanted, seeds, root=root, workers=arguments.workers)
        family = tolerance.estimate(cells, settings, params=wanted.params, run_key=wanted.key)
        run.curve([Row(0, len(cells), curves_of(family))])
    places = draw(cells, root / "metrics" / f"spread-{name}" if arguments.write else wanted.folder / "spread")
    if arguments.write:
        # Of two at once one would take the other's family away.
        with locked(root / WORK / "tolerances.lock", tolerance.FILE):
            families = tolerance.read_tolerances(file).families | {name: family}
            tolerance.Tolerances(families=families).write(file)
        places.append(file)
    return report(arguments, name, family, places)


def curves_of(family: tolerance.Family) -> dict[str, float]:
    """Return ``score/test/<translator>/<weights>/<metric> <mean|sd|tolerance>`` -> value, for MLflow."""
    return {
        f"score/test/{'/'.join(key)} {name}": value
        for key, noise in flat(family.scores).items()
        for name, value in (("mean", noise.mean), ("sd", noise.sd), ("tolerance", noise.tolerance))
        if value is not None
    }


def draw(cells: Mapping[str, Entry], path: Path) -> list[Path]:
    """Write the scores of every seed as ``<path>.csv`` and ``<path>.png``; return both."""
    from repix.files import write_text
    from repix.studies import seed_study

    places = [path.with_suffix(".csv"), path.with_suffix(".png")]
    write_text(places[0], seed_study.spread_csv(cells))
    seed_study.spread_plot(cells, places[1])
    return places


def report(arguments: argparse.Namespace, name: str, family: tolerance.Family, places: list[Path]) -> int:
    """Print the family, and where things were written."""
    if arguments.json:
        print(json.dumps({name: family.model_dump(mode="json")}, indent=2, sort_keys=True))
    else:
        print(table(name, family))
        print("\n".join(f"{place}" for place in places))
    return 0
