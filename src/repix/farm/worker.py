"""Makes one cell in a clone: fetches what it reads, runs its stages, gives away what they leave.

What a finished stage leaves goes to a record (:mod:`repix.farm.record`), its outs to the DVC remote or to a cache. A
record is kept in the journal, where there is one, so that another try goes on after it; a training that was killed
goes on from its checkpoints.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from repix import profile
from repix.config import reader
from repix.errors import UserError
from repix.farm import merge
from repix.farm.record import Record, fits, is_of, read_journal, read_records, usable
from repix.files import remove, write_json, write_text
from repix.paths import WORK
from repix.provenance import lock
from repix.provenance.pipeline import Stage, stages

LOOK_SECONDS = 0.25
KILLED = 137
GONE = "Checkout failed for"  # DVC's words where neither cache nor remote has an out
_KILLED = re.compile(r"exited with (?:-9|-15|137|143)\b")


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Attributes:
        cell: the cell's name.
        repository, commit, prefix: what to clone, and the folder of dvc.yaml in it.
        lock: text of dvc.lock, with what the cells read in it.
        files: path -> text, of files that git holds and that are newer than the commit (records of code).
        config: text of ``.dvc/config.local``.
        remote: name of the DVC remote that outs go to; None: they go to the cache that ``config`` names.
        journal: folder for records, where other tries find them.
        checkpoints: folder for checkpoints, where other tries find them.
        log: file for what the stages say.
        folder, starter: the temporary folder of this try, and the process that minds it.
    """

    cell: str
    repository: str
    commit: str
    prefix: str
    lock: str
    files: dict[str, str]
    config: str
    remote: str | None = None
    journal: str | None = None
    checkpoints: str | None = None
    log: str | None = None
    folder: str | None = None
    starter: int | None = None
    records: dict[str, dict] = field(default_factory=dict)

    def text(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))


class _LostError(UserError):
    """What an earlier try made cannot be had."""


class _Worker:
    def __init__(self, root: Path, task: Task):
        self.root, self.task = root, task
        self.params = reader.load(root / reader.FILE)
        self.own = [stage for stage in stages(root) if is_of(stage, task.cell)]

    def dvc(self, what: str, *arguments: str) -> None:
        from dvc.cli import main as dvc  # in this process: its start takes longer than most of what it is asked

        log = Path(self.task.log)
        before = log.stat().st_size  # another try may have written, too: what it said of its end is not of this one's
        if dvc(list(arguments)):
            said = log.read_bytes()[before:].decode(errors="replace").splitlines()[-200:]
            if _KILLED.search("\n".join(said[-20:])):
                sys.exit(KILLED)
            told = [
                f"{line} {' '.join(said[number + 1 : number + 2])}" if line.endswith(":") else line
                for number, line in enumerate(said)
                if line.startswith(("repix: ", "ERROR: "))
            ]
            own = [line for line in told if line.startswith("repix: ")]
            raise UserError(f"{what}: {(own or told or said or ['no word'])[-1]}")

    def fetch(self, stage: Stage) -> None:
        """Bring what a stage reads and other stages made."""
        missing = [dep for dep in stage.data if not (self.root / dep).exists()]
        if missing and self.task.remote:
            self.dvc("pull", "pull", "--remote", self.task.remote, *missing)  # --quiet would keep the reason back
        elif missing:
            self.dvc("checkout", "checkout", *missing)

    def put(self, records: Mapping[str, Record], order: list[str]) -> None:
        """Write records into the clone, as if it had run their stages."""
        for record in records.values():
            for path, text in record.files.items():
                write_text(self.root / path, text)
        text = merge.merged(
            (self.root / lock.FILE).read_text(encoding="utf-8"), {n: r.entry for n, r in records.items()}, order
        )
        write_text(self.root / lock.FILE, text)

    def run(self) -> dict[str, Record]:
        journal = Path(self.task.journal) if self.task.journal else None
        known = read_records(self.task.records, self.own)
        if journal:
            known |= read_journal(journal, self.own)
        records, _ = usable(self.root, self.own, known, lock.read(self.root), self.params)
        try:
            return self.make(records, journal)
        except _LostError:
            # What earlier tries made has left the cache (`dvc gc`) or the remote: this one makes all of it.
            for name in records:
                print(f"repix: the outs of {name} are gone: the cell is made again", file=sys.stderr, flush=True)
                if journal:
                    remove(journal / f"{name}.json")
            write_text(self.root / lock.FILE, self.task.lock)
            return self.make({}, journal)

    def make(self, records: dict[str, Record], journal: Path | None) -> dict[str, Record]:
        """Run the stages that have no record yet; return the records of all.

        Raises:
            _LostError: what the stages with a record made is not there.
        """
        given = {out for stage in self.own if stage.name in records for out in stage.outs}
        self.put(records, [stage.name for stage in self.own])
        for stage in self.own:
            entries = lock.read(self.root)
            if fits(self.root, stage, entries.get(stage.name), lock.all_outs(entries), self.params):
                continue
            try:
                self.fetch(stage)
            except UserError as error:
                if given.isdisjoint(stage.data) or GONE not in str(error):
                    raise
                raise _LostError(*error.lines) from None
            self.dvc(stage.name, "repro", "--single-item", stage.name)
            if self.task.remote:
                self.dvc(f"push of {stage.name}", "push", "--remote", self.task.remote, stage.name)
            entry = merge.parts((self.root / lock.FILE).read_text(encoding="utf-8")).entries[stage.name]
            files = {path: (self.root / path).read_text(encoding="utf-8") for path in stage.in_git}
            records[stage.name] = Record(entry, files, self.task.remote)
            if journal:
                write_json(journal / f"{stage.name}.json", asdict(records[stage.name]))
        return records


# Ends a group of processes, then removes its folder: the other way round, a stage would go on writing into it.
_END = """
import os, shutil, signal, sys, time
os.killpg(int(sys.argv[1]), signal.SIGKILL)
for _ in range(100):
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    if not os.path.exists(sys.argv[2]):
        break
    time.sleep(0.1)
"""


def _mind(task: Task) -> None:
    """End this process, all that it started and its folder as soon as the starter is gone."""
    while os.getppid() == task.starter:
        time.sleep(LOOK_SECONDS)
    command = [sys.executable, "-c", _END, str(os.getpgid(0)), task.folder]
    subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True)


def lay_out(root: Path, task: Task) -> None:
    """Make a clone what the driver's tree is: dvc.lock, files newer than the commit, remote or cache, checkpoints."""
    write_text(root / lock.FILE, task.lock)
    for path, text in task.files.items():
        write_text(root / path, text)
    write_text(root / ".dvc" / "config.local", task.config)
    if task.checkpoints:
        place = root / WORK.name / "checkpoints"
        place.parent.mkdir(exist_ok=True)
        Path(task.checkpoints).mkdir(parents=True, exist_ok=True)
        place.symlink_to(task.checkpoints, target_is_directory=True)


def main() -> None:
    """Make the cell of the task on standard input; print its records, or what is wrong, as JSON."""
    task = Task(**json.load(sys.stdin))
    threading.Thread(target=_mind, args=(task,), daemon=True).start()
    # SIGTERM is for the training, which saves and ends; its exit code ends this process, too.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    answer = os.dup(1)
    os.dup2(2, 1)  # what DVC says belongs to the log
    root = Path.cwd()
    try:
        lay_out(root, task)
        records = _Worker(root, task).run()
        said = {"records": {name: asdict(record) for name, record in records.items()}}
        said["cores"] = profile.find("fast").resolved_threads()
    except UserError as error:
        said = {"error": str(error)}
    with open(answer, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(said))


if __name__ == "__main__":
    main()
