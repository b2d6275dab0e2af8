"""Check everything of params.yaml that the cells of `run` will read, before anything works.

It is what the first stage of `dvc repro` checks: names, values, what goes together, which sizes the networks
allow. What only the data can tell (sizes of images, what a split holds) is told by the stage that reads it.

Example:
  repix check
"""

from __future__ import annotations

import argparse
import json
import sys

from repix.config import check, reader
from repix.config.archive import Archive
from repix.config.run import Grid
from repix.data.sources import absent
from repix.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: of params.yaml it says so itself."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    check.grid()
    warnings = check.warnings()
    for name in reader.read("run", Grid).datasets:
        if (url := absent(reader.read(f"datasets.{name}.archive", Archive).urls)) is not None:
            mend = "only what was downloaded before can run on it"
            warnings.append(f"{reader.FILE}: datasets.{name}.archive.urls: {url}: no such file or folder: {mend}")
    cells = [cell.name for cell in reader.read("run", Grid).cells()]
    if arguments.json:
        print(json.dumps({"cells": cells, "warnings": warnings}, indent=2))
    else:
        print(f"all {len(cells)} cells can run" if len(cells) > 1 else f"{cells[0]} can run")
    for line in warnings:
        print(printable(f"repix check: warning: {line}"), file=sys.stderr)
    return 0
