"""Compare trained cells with trivial baselines on a paired data set, in standard deviations over seeds.

Baselines: the untrained generator (a model's first weights), the best constant colour per label,
the median training image, and the target of the nearest training neighbour by label map. The
neighbour is made of real photos: on SWD it marks what is possible, and need not be beaten.
L1 rewards blur and is shown beside SSIM and SWD. Trained cells: mean and standard deviation
over the seeds in metrics/ and in metrics/tolerances.json.

Examples:
  repix baselines sample
  repix baselines sample --cells sample-pix2pix_small-0 sample-pix2pix_small-1 --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from repix.cells import Cell, is_cell
from repix.commands import here
from repix.errors import UserError, printable_lines
from repix.files import read_json
from repix.regression import baseline, tolerance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", help="a paired data set, prepared")
    parser.add_argument("--cells", nargs="+", metavar="CELL", help="trained cells; default: every one of the data set")
    parser.add_argument("--metrics", type=here, default=Path("metrics"), metavar="DIR", help="folder of <cell>.json")
    parser.add_argument("--json", action="store_true", help="print JSON")


def trained_cells(dataset: str, cells: list[str] | None, folder: Path) -> dict[str, dict[str, baseline.Entry]]:
    """Return model -> cell -> scores, from the folder's metrics and its tolerances' provenance.

    A cell that is in both is taken from the metrics.

    Raises:
        UserError: there is none, or one that was asked for is not there.
    """
    found: dict[str, baseline.Entry] = {}
    for family in tolerance.read_tolerances(folder / tolerance.FILE).families.values():
        found |= family.cells()
    found |= baseline.read_metrics(folder)
    names = cells or [cell for cell in found if Cell.named(cell).dataset == dataset]
    for cell in names:
        if cell not in found or Cell.named(cell).dataset != dataset:
            raise UserError(f"no metrics of {cell} on {dataset} in {folder}/; there are {', '.join(sorted(found))}")
    if not names:
        there = ", ".join(sorted({Cell.named(cell).dataset for cell in found}))
        mend = f"there are those of {there}" if there else "run `dvc repro` first"
        raise UserError(f"no metrics of {dataset} in {folder}/; {mend}")
    models: dict[str, dict[str, baseline.Entry]] = {}
    for cell in sorted(names):
        models.setdefault(Cell.named(cell).model, {})[cell] = found[cell]
    return models


def first_model(dataset: str, cells: list[str] | None, folder: Path) -> str | None:
    """Return the first model that :func:`trained_cells` would, by names alone: what checks records imports NumPy.

    None where there is none, or the tolerances cannot be read, which they say then.

    Raises:
        UserError: no cell is called so.
    """
    path = folder / tolerance.FILE
    try:
        families = read_json(path)["families"] if path.exists() else {}
        found = [path.stem for path in folder.glob("*-*-*.json")] + [f"{family}-0" for family in families]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    asked = cells and {Cell.named(cell).family for cell in cells}
    there = [Cell.named(name) for name in found if is_cell(name)]
    models = [one.model for one in there if one.dataset == dataset and (not asked or one.family in asked)]
    return min(models, default=None)


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: without metrics it has nothing to begin with."""
    return not arguments.metrics.is_dir()


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix import profile
    from repix.studies.seed_study import profile_of

    if model := first_model(arguments.dataset, arguments.cells, arguments.metrics):
        profile.enter(profile_of(model))
    models = trained_cells(arguments.dataset, arguments.cells, arguments.metrics)

    from repix.libraries import import_keras

    import_keras()
    from repix.studies import margins

    found = [margins.compare(arguments.dataset, model, cells) for model, cells in models.items()]
    if arguments.json:
        print(json.dumps([comparison.as_json() for comparison in found], indent=2, sort_keys=True))
    else:
        print(printable_lines("\n\n".join(comparison.text() for comparison in found)))
    return 0
