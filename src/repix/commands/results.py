"""Print the metrics of all cells as a table: metric, value, number of test images.

Examples:
  repix results
  repix results sample-pix2pix_small-0 --json
  repix results --write README.md     (between its two results markers)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from repix.api import COLUMNS, records, rows
from repix.commands import here, replace_text
from repix.errors import UserError
from repix.paths import METRICS
from repix.schemas import Metrics
from repix.tables import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cells", nargs="*", metavar="CELL", help="cells to show; default: all in metrics/")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--write", type=here, metavar="FILE", help="put the table between the results markers of FILE")


def table(found: list[Metrics]) -> str:
    """Return the scores as aligned text, one line per cell, translator, weights and metric."""
    lines = [(*names, f"{value:.4f}", str(n)) for *names, value, n in rows(found)]
    return "\n".join(aligned([COLUMNS, *lines], right=(4, 5)))


def write_between_markers(path: Path, text: str, name: str = "results") -> None:
    """Replace what stands between the two comments ``<name>:begin`` and ``<name>:end`` of a Markdown file.

    Raises:
        UserError: the file cannot be read, or does not have both markers.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    begin, end = old.find(f"<!-- {name}:begin"), old.find(f"<!-- {name}:end -->")
    start = old.find("\n", begin, max(begin, end)) + 1
    if begin < 0 or not start:
        raise UserError(f"{path}: no lines <!-- {name}:begin --> and <!-- {name}:end --> to write between")
    replace_text(path, f"{old[:start]}{text}\n{old[end:]}")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: all that it reads lies in metrics/."""
    return not METRICS.is_dir()


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    found = records(dict.fromkeys(arguments.cells))
    if arguments.json:
        print(json.dumps({m.cell: {"n": m.n, "scores": m.scores} for m in found}, indent=2, sort_keys=True))
    elif arguments.write:
        write_between_markers(arguments.write, f"```text\n{table(found)}\n```")
        print(f"{arguments.write}: the scores of {', '.join(one.cell for one in found)} are written")
    else:
        print(table(found))
    return 0
