"""Make the cells of the grid in parallel: on this machine, on Ray, on SLURM. Then `dvc repro` has nothing to do.

The stages that cells share (download to features) run here first. Then each cell that dvc.lock does not hold goes to
a worker: a process with a git clone of HEAD in a temporary folder, which fetches what the cell reads, runs train,
evaluate and export, and gives back their outs. dvc.lock becomes, byte for byte, what `dvc repro` alone would write.

On this machine workers share DVC's cache and the checkpoints of this repository. On others they clone --repository and
exchange outs through the DVC remote --remote; with --shared, a folder that all of them see, a killed training goes
on from its checkpoint, otherwise it starts again. The same command goes on where it was stopped or killed.

Exit codes: 0 all cells are made, 1 some could not be (the others are in dvc.lock).

Examples:
  repix farm --workers 2
  repix farm --engine ray --remote store --shared /nfs/farm --repository https://host/me/repix.git
  repix farm --engine slurm --remote store --shared /nfs/farm --option slurm_partition=gpu --gpus 1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repix.commands import here
from repix.errors import UserError, printable_lines
from repix.farm.engines import ENGINES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--engine", choices=ENGINES, default="local", help="where cells run (default: local processes)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="cells at once (default: local one for two cores, else all)"
    )
    parser.add_argument("--remote", metavar="NAME", help="DVC remote that outs go through (needed by ray and slurm)")
    parser.add_argument("--repository", metavar="URL", help="what workers clone (default: this folder)")
    parser.add_argument("--shared", type=here, metavar="DIR", help="a folder that all workers see, for checkpoints")
    parser.add_argument(
        "--cpus", type=int, default=2, metavar="N", help="cores that a cell gets of a node (default: 2)"
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that a cell gets of a node (default: 0)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the engine")


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix import profile
    from repix.farm import driver, engines

    root, local = Path.cwd(), arguments.engine == "local"
    if not local and arguments.remote is None:
        raise UserError(f"--engine {arguments.engine} needs --remote NAME: outs go through it; see `dvc remote list`")
    if min(arguments.cpus, 1 if arguments.workers is None else arguments.workers) < 1 or arguments.gpus < 0:
        raise UserError("--workers and --cpus are 1 or more, --gpus is 0 or more")
    if odd := [text for text in arguments.option if "=" not in text]:
        raise UserError(f"--option {odd[0]}: expected KEY=VALUE, such as timeout_min=600")
    if local and arguments.gpus:
        raise UserError("--gpus: local workers share what GPUs this machine has; --engine ray and slurm hand them out")
    plan = driver.plan_of(
        root, local=local, repository=arguments.repository, remote=arguments.remote, shared=arguments.shared
    )
    workers = arguments.workers or (max(1, profile.find("fast").resolved_threads() // 2) if local else len(plan.cells))
    options = dict(text.split("=", 1) for text in arguments.option)

    def open_engine():
        return engines.open_engine(
            arguments.engine, cpus=arguments.cpus, gpus=arguments.gpus, folder=str(plan.work), options=options
        )

    made, failed = driver.run(plan, open_engine, workers=workers, secrets=local)
    for cell, error in failed.items():
        print(f"repix farm: {cell}: {printable_lines(str(error))}", file=sys.stderr)
    told = f"{len(made)} of {len(plan.cells)} cells made" if made else "no cell to make"
    if failed:
        print(f"{told}, {len(failed)} failed")
    elif stale := list(driver.unmade(plan)):
        print(
            f"{told}; what {', '.join(stale)} is made of was changed on the way: the same command makes it as it is now"
        )
    elif gone := driver.gone(plan):
        more = f" and {len(gone) - 1} more" if gone[1:] else ""
        print(f"{told}; outs of {gone[0]}{more} are not here and could not be brought: `dvc repro` makes them again")
    else:
        print(f"{told}, `dvc repro` has nothing to do")
    return 1 if failed else 0
