"""How well options of a recipe learn: façades at equal steps, several seeds each, every metric with its noise.

    python -m benchmarks.quality --features pt_inception.pth       # train what has not been, print the table
    python -m benchmarks.quality --only plain reference --seeds 0 1  # some options, some seeds
    python -m benchmarks.quality --task cyclegan                   # CycleGAN, on façades without pairs
    python -m benchmarks.quality --collect                         # train nothing: keep what --out holds by now
    python -m benchmarks.quality --gate                            # baseline and tolerances of plain, for `repix gate`
    python -m benchmarks.quality --write                           # the tables of docs/results.md, from the JSON alone

An option is a change of one recipe, pix2pix or CycleGAN at half width; each trains 8,000 steps (CycleGAN 4,000) of one
image at 64 px, the rate falling over the second half, through the stages' own scripts (train, evaluate) in a folder
below --out. `reference` is a training in plain PyTorch after the reference code's rules, on the same prepared arrays
(benchmarks/support/torch_reference.py), scored by the same function. All of ours keep a moving average of the
generator's weights, which is scored beside the last ones: one training gives two rows.

Every cell goes to benchmarks/measured/quality.json (--json), which is in git, as soon as it is scored: what is in there
is not trained again, whatever becomes of --out. Killed, the same command goes on where it was. A difference is
given in standard deviations over seeds, with an interval and the p of a t-test: Welch's to the plain recipe, paired
between weights of the same trainings. p is no measure of size: a test of many metrics finds one in twenty by chance.

FID and KID at 768 dims need weights of Inception: a file for --features, else they are left out. They are not FID at
2048 dims and compare with nothing but this table. The archive lies in ../shared/data, or below REPIX_REAL_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.arguments import positive_number, refuse_unread
from benchmarks.support.quality import FILE, GATE, SEEDS, TASKS, collect, measure, read_results, report, write_gate
from checks.harness import ROOT, write
from repix import stage
from repix.errors import UserError


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, help="default: pix2pix")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the trainings' own; default: .repix/quality, of cyclegan .repix/quality_cyclegan",
    )
    parser.add_argument("--json", type=Path, default=FILE, help="default: benchmarks/measured/quality.json")
    parser.add_argument("--only", nargs="+", metavar="OPTION", help="some options; default: all, and reference")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, help="some seeds")
    parser.add_argument("--epochs", type=positive_number, help="400 steps each; default: 20, of cyclegan 10")
    parser.add_argument("--features", type=Path, help="weights of Inception, for FID and KID at 768 dims")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--collect", action="store_true", help="add what --out holds to the JSON; train nothing")
    how.add_argument("--gate", action="store_true", help="write benchmarks/measured/gate/ from what --out holds")
    how.add_argument("--write", action="store_true", help="put the tables into docs/results.md; train nothing")
    asked = parser.parse_args(given)
    refuse_unread(parser, asked, "write", ("task", "out", "only", "seeds", "epochs", "features"))
    refuse_unread(parser, asked, "gate", ("task", "only", "seeds", "epochs", "features"))
    refuse_unread(parser, asked, "collect", ("only", "seeds", "features"))
    if asked.write:
        found = read_results(asked.json)
        if not found:
            raise UserError(f"{asked.json}: no results to write")
        write("results", "options", report(found))
        return 0
    task = asked.task or "pix2pix"
    out = (asked.out or ROOT / ".repix" / ("quality" if task == "pix2pix" else f"quality_{task}")).resolve()
    if asked.gate:
        print("\n".join(str(path) for path in write_gate(out, task, GATE)))
    elif asked.collect:
        print(report(collect(out, asked.json, task, asked.epochs or TASKS[task].epochs)))
    else:
        seeds = asked.seeds or list(SEEDS)
        wanted = {"epochs": asked.epochs, "options": asked.only, "seeds": seeds, "weights": asked.features}
        print(report(measure(task, out, asked.json, **wanted)))
    return 0


if __name__ == "__main__":
    stage.guard(lambda: sys.exit(main()))
