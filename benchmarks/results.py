"""Recipes trained on real images, and docs/results.md made of what they reached.

    python -m benchmarks.results --train facades_256 --features pt_inception.pth   # a row; again: where it was
    python -m benchmarks.results --train facades_64 --seeds 0 1 --reference        # more seeds, PyTorch beside them
    python -m benchmarks.results --list                                            # which rows there are
    python -m benchmarks.results --write                       # docs/results.md and README's table, from git alone

A row is a recipe of params.yaml as it stands, but for its epochs and, at 256 px, its precision, on a real data set of
params.yaml, but for its size. It goes through the stages' own scripts (train, evaluate) in a folder of its own below
--out; killed, the same command goes on where it was. What it reached goes to benchmarks/measured/<row>.json, its first
test images at full size (source | output | target) to docs/images/<row>.png: both are in git, --write needs nothing
else, and a seed that the JSON has is not trained again. Beside the scores stand the best trivial predictor's, metric by
metric, and the floor: the distance between two halves of the real images. --reference trains PyTorch after the
reference code's rules for as many steps. Of each quarter of a training one state is kept (below --out, in `kept`) and
scored as well: what more steps bring.

The archives lie in ../shared/data, or below REPIX_REAL_DATA. FID and KID at 768 dims need weights of Inception: a file
for --features, else they are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.arguments import refuse_unread, whole_number
from benchmarks.support.measured import check_weights
from benchmarks.support.quality import FILE, MEASURED, read_results, report
from benchmarks.support.results import PICTURES, ROWS, lay_out_row, one_line, page_rows, section, summary, train
from checks.harness import ROOT, write
from checks.systems import alone
from repix import stage
from repix.commands.results import write_between_markers
from repix.errors import UserError


def main(given_: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--train", nargs="+", metavar="ROW", help="rows to train and to score")
    how.add_argument("--list", action="store_true", help="print the rows")
    how.add_argument("--write", action="store_true", help="write docs/results.md and README's table")
    parser.add_argument("--seeds", nargs="+", type=whole_number, help="default: 0")
    parser.add_argument("--reference", action="store_true", help="train PyTorch after the reference code's rules too")
    parser.add_argument("--out", type=Path, help="folder of the trainings' own; default: .repix/results")
    parser.add_argument("--features", type=Path, help="weights of Inception, for FID and KID at 768 dims")
    asked = parser.parse_args(given_)
    for flag in ("list", "write"):
        refuse_unread(parser, asked, flag, ("seeds", "reference", "out", "features"))
    if asked.list:
        print("\n".join(one_line(name) for name in ROWS))
        return 0
    if asked.write:
        rows, options, first = page_rows(MEASURED, PICTURES), report(read_results(FILE)), summary(MEASURED)
        write("results", "rows", rows)
        write("results", "options", options)
        write_between_markers(ROOT / "README.md", first, "real")
        return 0
    if unknown := [name for name in asked.train if name not in ROWS]:
        raise UserError(f"--train {unknown[0]}: no row; there are {', '.join(ROWS)}")
    check_weights(asked.features)
    for name in asked.train:
        folder = (asked.out or ROOT / ".repix" / "results").resolve() / name
        with alone(folder):
            lay_out_row(folder, ROWS[name], asked.features)
            record = train(ROWS[name], folder, MEASURED, PICTURES, asked.seeds or [0], asked.reference)
        print(section(ROWS[name], record, PICTURES))
    return 0


if __name__ == "__main__":
    stage.guard(lambda: sys.exit(main()))
