"""Compare metrics/*.json with the committed baseline; the exit code is the verdict.

  0  pass           nothing got worse by more than another seed may
  1  fail           a score is worse by more than its tolerance
  2  incomparable   another n, reference, features, metric definition or execution profile,
                    or nothing to compare with: no baseline, no such cell, unknown noise
  3  contradiction  equal weights gave unequal scores

Tolerances come from `repix seeds` (metrics/tolerances.json). Needs nothing but these files.

Examples:
  repix gate
  repix gate --markdown >comment.md
  repix gate --accept
"""

from __future__ import annotations

import argparse
import json
import sys

from repix.commands import check_project, here
from repix.errors import UserError, printable, printable_lines
from repix.paths import METRICS
from repix.regression import baseline, gate, report, tolerance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--metrics", type=here, default=METRICS, metavar="DIR", help="folder of <cell>.json")
    parser.add_argument("--baseline", type=here, metavar="FILE", help="default: baseline.json in DIR")
    parser.add_argument("--tolerances", type=here, metavar="FILE", help="default: tolerances.json in DIR")
    parser.add_argument("--accept", action="store_true", help="make what was measured the baseline; say what changed")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print markdown, for a pull-request comment")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: see :func:`main`, whose exit code means something."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    try:
        return _main(arguments)
    except UserError as error:
        error.exit_code = gate.EXIT_CODES["incomparable"]  # 1 is kept for: it got worse
        raise


def _main(arguments: argparse.Namespace) -> int:
    if arguments.metrics == METRICS and not METRICS.is_dir():
        check_project()
    file = arguments.baseline or arguments.metrics / baseline.FILE
    now = baseline.read_metrics(arguments.metrics)
    try:
        accepted = baseline.read_baseline(file)
    except UserError as error:
        if not arguments.accept:
            raise
        print(printable(f"repix gate: warning: what was accepted before is lost: {error}"), file=sys.stderr)
        accepted = None
    if not now and (accepted is None or arguments.accept):
        raise UserError(f"no metrics in {arguments.metrics}/; run `dvc repro` first")
    if arguments.accept:
        baseline.check_numbers(now)
        new = baseline.Baseline(cells=now)
        changes = baseline.changes(accepted, new)
        new.write(file)
        if arguments.json:
            print(json.dumps({"baseline": file.as_posix(), "changes": changes}, indent=2))
        else:
            print("\n".join(map(printable, [*changes, f"{file}: accepted, {len(changes)} changes; commit it"])))
        return 0
    limits = tolerance.read_tolerances(arguments.tolerances or arguments.metrics / tolerance.FILE)
    result = gate.judge(accepted, now, limits)
    if arguments.json:
        print(json.dumps(report.as_json(result), indent=2, sort_keys=True))
    else:
        print(printable_lines(report.markdown(result) if arguments.markdown else report.text(result)))
    return result.exit_code
