"""Register an exported cell and make it the champion, or refuse and say why.

The alias `champion` moves only if the tree is clean, the export's bytes are those that the
stage left, its weights are those that metrics/<cell>.json scored, and `repix gate` passed
that score. Refused otherwise; --rollback moves the alias back to the champion before.

Examples:
  repix promote sample-pix2pix_small-0
  repix promote --rollback sample
  MLFLOW_TRACKING_URI=sqlite:///mlflow.db mlflow models serve -m models:/repix-sample@champion --env-manager local
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from repix.cells import Cell, is_cell
from repix.directions import Direction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cell", metavar="CELL", help="<dataset>-<model>-<seed>; with --rollback also <dataset>")
    directions = [direction.value for direction in Direction]
    parser.add_argument("--translator", choices=directions, default=directions[0], help="default: %(default)s")
    parser.add_argument("--rollback", action="store_true", help="move the alias back to the champion before")
    parser.add_argument("--json", action="store_true", help="print JSON")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: a champion on a server can be taken back from anywhere."""
    return not (arguments.rollback and os.environ.get("MLFLOW_TRACKING_URI"))


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix.publishing import registry

    root = Path()
    if arguments.rollback:
        asked = arguments.cell
        dataset = Cell.named(asked).dataset if is_cell(asked) else asked
        done = registry.rollback(root, dataset, translator=arguments.translator)
    else:
        done = registry.promote(root, arguments.cell, translator=arguments.translator)
    if arguments.json:
        print(json.dumps(done, indent=2, sort_keys=True))
    else:
        before = f", before it version {done['previous']}" if done["previous"] else ""
        print(f"champion of {done['model']}: version {done['version']}{before}")
        print(f"serve it: mlflow models serve -m {done['uri']} --env-manager local")
    return 0
