"""Rebuild results from scratch and compare them with dvc.lock.

The revision is put into a folder of its own, without cache, checkpoints or earlier
downloads; its stages run there in order, MLflow off; every out is compared with dvc.lock:

  L0  the same bytes
  L1  the same content (canonical digest of arrays, pixels, numbers)
  L2  the same within 0.001, absolute up to 1 and relative above; pixels within one level
  L3  another result, but test scores within the noise measured between seeds
      (metrics/tolerances.json)

L1 to L3 compare with the recorded outs, where they are still in the workspace or in DVC's
cache. Otherwise only the digests in metrics/ can help. Where something differs, the first
stage that differs is named, and what it followed from: command, param, code, input,
package or profile.

Exit codes:
  0  L0: every out is the recorded one, bit for bit
  1  nothing was verified: a mistake in the arguments, no dvc.lock, a stage failed
  3  L1          4  L2          5  L3
  6  different
  7  the same outs, but not from the same things: a lineage record tells what
  8  rebuilt as recorded, but an out in the workspace has been changed since

Examples:
  repix verify
  repix verify --rev v1.0 --stage preprocess
  repix verify --dirty sample-pix2pix_small-0
  repix verify --lock-only     instant: dvc.lock here against that of HEAD
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repix.cells import Cell
from repix.errors import UserError, printable
from repix.paths import METRICS
from repix.provenance import lock
from repix.provenance.checkout import checkout
from repix.provenance.compare import Level
from repix.provenance.git import changes
from repix.provenance.pipeline import stages
from repix.provenance.verify import NoiseOf, Recorded, chosen, lock_line, other_packages, rebuild
from repix.regression import tolerance
from repix.schemas import flat

EXIT = {Level.L0: 0, Level.L1: 3, Level.L2: 4, Level.L3: 5, Level.DIFFERENT: 6}
OTHER_LINEAGE, CHANGED_SINCE = 7, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cell", nargs="?", metavar="CELL", help="verify this cell only; default: all of run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rev", default="HEAD", help="commit to verify (default: HEAD)")
    which.add_argument("--dirty", action="store_true", help="verify the working tree as it is, uncommitted changes too")
    which.add_argument("--lock-only", action="store_true", help="rebuild nothing: compare dvc.lock with that of HEAD")
    parser.add_argument("--stage", metavar="S", help="stop after this stage, such as train")
    parser.add_argument("--json", action="store_true", help="print JSON")


def explain(first: Mapping[str, Any]) -> list[str]:
    """Return lines that say what the first differing stage followed from."""
    if first["denied"]:
        return [
            f"first difference: {first['stage']}: dvc.lock names other bytes for {first['denied'][0]} than the "
            f"stage's own lineage record, and the recorded ones came out again: dvc.lock was edited; "
            f"`git log -p dvc.lock` shows when, `dvc commit {first['stage']}` writes it anew"
        ]
    if first["causes"]:
        return [f"first difference: {first['causes'][0]}", *(f"  also {cause}" for cause in first["causes"][1:6])]
    if first["stage"].startswith("download@"):
        return [f"first difference: {first['stage']}: what its urls lead to is another archive"]
    told = (
        "the same params, code, inputs, packages and profile"
        if first["lineage"]
        else "the same params, code and inputs; its lineage record, which names packages and profile, "
        "is not here (`dvc pull`)"
    )
    return [f"first difference: {first['stage']}, from {told}: another machine, or a stage that is not deterministic"]


def noise_of(tree: Path) -> NoiseOf:
    """Return a function that gives the noise between seeds of a cell's scores; nothing where none was measured."""

    def of(cell: Cell) -> dict[str, float]:
        family = tolerance.read_tolerances(tree / METRICS / tolerance.FILE).families.get(cell.family)
        return {
            "/".join(key): noise.tolerance
            for key, noise in flat(family.scores if family else {}).items()
            if noise.tolerance is not None
        }

    return of


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    root = Path.cwd()
    if arguments.lock_only:
        line, code = lock_line(root)
        packages = other_packages(root)
        if arguments.json:
            print(json.dumps({"exit_code": code, "line": line, "packages": packages}))
        else:
            print("\n".join(map(printable, filter(None, [line, packages]))))
        return code

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr)

    changed = changes(root)
    if changed and not arguments.dirty:
        what = f"{changed[0]}{f' and {len(changed) - 1} more' if len(changed) > 1 else ''}"
        say(f"not verified: uncommitted changes ({what}); --dirty takes the working tree, this is {arguments.rev}")
    with checkout(root, None if arguments.dirty else arguments.rev) as tree:
        if not (tree / lock.FILE).is_file():
            raise UserError(f"no dvc.lock in {arguments.rev}; run `dvc repro` and commit dvc.lock")
        entries = lock.read(tree)
        found = chosen(stages(tree), arguments.cell, arguments.stage)
        for stage in found:
            outs = lock.hashes(entries.get(stage.name, {}), "outs")
            if any(out not in outs for out in stage.outs):
                raise UserError(f"dvc.lock does not know {stage.name}; run `dvc repro` and commit dvc.lock")
        for difference in lock.stale(tree):
            say(f"dvc.lock does not fit its own tree: {difference}")
        recorded = Recorded(root, entries)
        recorded.keep(tree, tree.parent / "recorded")
        result = rebuild(tree, found, recorded, entries, noise_of(tree), say)
        outs = [out for stage in found for out in stage.outs]
        since, gone = recorded.changed_since(tree, outs) if not result["level"] else ([], [])
    in_git = [out for stage in found for out in stage.in_git]
    if gone:
        what = f"{gone[0]}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}"
        mend = "`git checkout` brings it" if _below(gone[0], in_git) else "`dvc checkout` brings what the cache has"
        say(f"not in the workspace: {what} ({mend})")
    code = EXIT[result["level"]]
    lines = [f"{result['level'].name}: {_meaning(result['level'], len(outs))}", *result["why"][:5]]
    if result["first"]:
        lines += explain(result["first"])
    if code == 0 and result["lineages"]:
        code = OTHER_LINEAGE
        lines[0] = "L0, but from other things than recorded: see what differs first"
    elif code == 0 and since:
        code = CHANGED_SINCE
        lines, held = [], [name for name in since if _below(name, in_git)]
        restore = f"git checkout {'HEAD' if arguments.dirty else arguments.rev} -- {' '.join(held)}"
        for mend, names in (("dvc checkout --force", [name for name in since if name not in held]), (restore, held)):
            if names:
                lines += [f"L0 when rebuilt, but changed since in the workspace (`{mend}` mends):", *names]
    if arguments.json:
        causes = [cause._asdict() for cause in (result["first"] or {}).get("causes", ())]
        tree_ = {"level": result["level"].name, "exit_code": code, "why": result["why"], "causes": causes}
        print(json.dumps(tree_ | {"changed_since": since}, indent=2, sort_keys=True))
    else:
        print("\n".join(map(printable, lines)))
    return code


def _below(name: str, outs: list[str]) -> bool:
    return any(name == out or name.startswith(f"{out}/") for out in outs)


def _meaning(level: Level, outs: int) -> str:
    return {
        Level.L0: f"all {outs} outs rebuilt from scratch equal dvc.lock, bit for bit",
        Level.L1: "other files, the same content",
        Level.L2: "the same within the bound",
        Level.L3: "another result, within the noise between seeds",
        Level.DIFFERENT: "not the recorded result",
    }[level]
