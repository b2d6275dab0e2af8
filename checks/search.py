"""A search on the sample by two machines on one PostgreSQL database, one of them killed; then further seeds.

    python -m checks.search            # twelve trials, then three seeds of the entry and of the best; half an hour
    python -m checks.search --write    # put the table into docs/scale.md

Each machine is a fresh clone of the last commit with prepared data and a `repix search` of its own; PostgreSQL is a
real one (Debian's package `postgresql`). One of the two gets SIGKILL in the middle of a trial, with the training that
it started, and is started again. Required: all trials that were asked for end, and no other is left open.
Exit code 1 where that is not kept. Without PostgreSQL it says so, with exit code 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from checks.harness import ROOT, run_stage, table, write
from checks.support import postgres
from repix import yaml12
from repix.config import reader
from repix.errors import UserError
from repix.stage import guard
from repix.studies.search import Noise

TRIALS, SEEDS = 12, "1-3"
MODEL = {"profile": "fast", "epochs": 4, "decay_epochs": 2, "validate_every": 1}
SPACE = {
    "loss.l1": {"low": 10, "high": 300, "log": True},
    "optimizer.learning_rate": {"low": 0.00005, "high": 0.002, "log": True},
    "generator.dropout": [0, 0.5],
}
KILL_AFTER = 4  # trials that have ended
END_SECONDS = 3600


class Machine:
    """A clone of the repository with a search of its own.

    Args:
        folder: where it is made.
        database: address of the study's database.
    """

    def __init__(self, folder: Path, database: str):
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        tree = reader.load(folder / reader.FILE)
        tree["models"]["pix2pix_small"] |= MODEL
        tree["search"] = {"dataset": "sample", "model": "pix2pix_small", "trials": TRIALS, "space": SPACE}
        (folder / reader.FILE).write_text(yaml12.dump(tree), encoding="utf-8")
        self.folder, self._command = folder, [sys.executable, "-P", "-m", "repix.cli", "search", "--storage", database]
        own = {"PYTHONPATH": str(folder / "src"), "REPIX_TRACKING": "off", "DVC_ROOT": str(folder)}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("REPIX_", "MLFLOW_"))}
        self._environment = kept | own
        for name in ("download", "unpack", "preprocess"):
            run_stage(folder, name, "sample")
        run_stage(folder, "features")

    def start(self, *more: str) -> subprocess.Popen:
        """Start the search; what it says goes to ``search.log``."""
        with open(self.folder / "search.log", "a", encoding="utf-8") as said:
            return subprocess.Popen(
                [*self._command, *more],
                cwd=self.folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )

    def trained(self) -> int:
        """Return how many trainings have left something."""
        return len(list((self.folder / ".repix" / "search").glob("*/runs/*/trained.json")))


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started, the youngest last."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(word) for word in task.read_text().split()]
    return found


def finished(machine: Machine, process: subprocess.Popen) -> dict[str, Any]:
    """Wait for a search and return what it printed.

    Raises:
        UserError: it failed.
    """
    said, _ = process.communicate(timeout=END_SECONDS)
    if process.returncode:
        lines = (machine.folder / "search.log").read_text(encoding="utf-8").strip().splitlines()
        raise UserError(f"repix search ended with {process.returncode}: {lines[-1] if lines else 'nothing said'}")
    return json.loads(said)


def main(asked: argparse.Namespace) -> int:
    """Run the search; return the exit code."""
    if lacks := postgres.missing():
        print(f"NOT RUN: {lacks}")
        return 0
    with tempfile.TemporaryDirectory(prefix="repix-search-") as scratch, postgres.postgres("search") as database:
        machines = [Machine(Path(scratch) / name, database) for name in ("one", "two")]
        begun = time.monotonic()
        running = [machine.start("--json") for machine in machines]
        try:
            while sum(machine.trained() for machine in machines) < KILL_AFTER:
                if any(process.poll() is not None for process in running):
                    finished(machines[0], running[0])
                time.sleep(1)
            victims = descendants(running[1].pid)
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            running[1].wait()
            print(f"killed {len(victims)} processes of one machine after {KILL_AFTER} trials", flush=True)
            running[1] = machines[1].start("--json")
            for machine, process in zip(machines, running, strict=True):
                finished(machine, process)
            seconds = time.monotonic() - begun
            last = finished(machines[0], machines[0].start("--json", "--seeds", SEEDS))
        finally:
            for process in running:
                for pid in descendants(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    trials = sorted(last["trials"], key=lambda one: (one["score"] is None, -(one["score"] or 0.0)))
    names = list(SPACE)
    rows = [
        [one["number"], one["state"], one["score"], one["epoch"], *(str(_short(one["values"][name])) for name in names)]
        for one in trials
    ]
    states = [one["state"] for one in trials]
    ended = sum(states.count(state) for state in ("complete", "pruned", "failed"))
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    text = table(("trial", "ended", "score", "epoch", *names), rows, left=2)
    text += f"\n\n{counts}; {seconds / 60:.0f} minutes, with the kill; {Noise(**last['seeds']).text()}."
    print(text)
    if asked.write:
        write("scale", "search", text)
    return 0 if ended >= TRIALS and ended == len(trials) else 1


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    given = parser.parse_args()
    guard(lambda: sys.exit(main(given)))
