"""Makes the cells of the grid on an engine, and writes what comes back into dvc.lock.

Nothing is written into dvc.lock before all cells have ended, so that it becomes what one `dvc repro` would write
whatever the order in which cells come back, and whatever was killed on the way. Until then finished stages are kept
as records in ``.repix/farm/cells``: the same command goes on from them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from repix import processes, profile
from repix.cells import Cell
from repix.config import reader
from repix.errors import UserError
from repix.farm import merge, start
from repix.farm.engine import LOST, Engine, Job
from repix.farm.record import Record, fits, is_of, read_journal, read_records, usable
from repix.farm.screen import Screen
from repix.farm.worker import Task
from repix.files import clear_leftovers, locked, parse_json, remove, write_json, write_text
from repix.paths import WORK
from repix.provenance import lock
from repix.provenance.git import changes, git, line_of
from repix.provenance.pipeline import Stage, stages

LOOK_SECONDS = 0.2
RETRIES = 3  # tries that a cell has beside the first, if its worker is killed
_SECRET = re.compile(r"password|passphrase|secret|token|account_key|connection_string|sas")


@dataclass(frozen=True)
class Plan:
    """What a farm is going to do.

    Attributes:
        root: the repository.
        order: all stages, as `dvc repro` goes through them.
        repository: what workers clone; None: this repository, which they see as a folder.
        remote: name of the DVC remote between driver and workers; None: they share this repository's cache.
        shared: a folder that all workers and the driver see, for records and logs; None: there is none.
        checkpoints: a folder that all workers see, for checkpoints; None: there is none.
    """

    root: Path
    order: list[Stage]
    repository: str | None = None
    remote: str | None = None
    shared: Path | None = None
    checkpoints: Path | None = None

    @property
    def work(self) -> Path:
        """The driver's own folder."""
        return self.root / WORK / "farm"

    @property
    def cells(self) -> list[str]:
        """The names of the cells of the grid, in the order of dvc.yaml."""
        return list(dict.fromkeys(Cell(**s.item).name for s in self.order if "model" in s.item))

    @property
    def before(self) -> list[Stage]:
        """The stages that make what cells read, which the driver runs before them."""
        needed = {dep for stage in self.order if "model" in stage.item for dep in stage.deps}
        found = []
        for stage in reversed([stage for stage in self.order if "model" not in stage.item]):
            if any(dep == out or dep.startswith(f"{out}/") for dep in needed for out in stage.outs):
                found.append(stage)
                needed.update(stage.deps)
        return found[::-1]

    @property
    def after(self) -> list[Stage]:
        """The stages that are no cell's own and that no cell reads, which the driver runs after all cells."""
        before = self.before
        return [stage for stage in self.order if "model" not in stage.item and stage not in before]

    def own(self, cell: str) -> list[Stage]:
        """Return a cell's stages."""
        return [stage for stage in self.order if is_of(stage, cell)]

    def journal(self, cell: str) -> Path:
        """Return the driver's folder for the records of a cell."""
        return self.work / "cells" / cell

    def log(self, cell: str) -> Path:
        """Return where the log of a cell is, if there is a shared folder."""
        return (self.shared or self.work) / "logs" / f"{cell}.log"


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Refuse a second farm in a repository.

    Raises:
        UserError: another one runs.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(root / WORK / "farm.lock", "the farm", seconds=0))
        except TimeoutError:
            raise UserError("another `repix farm` runs in this repository: wait for it, or stop it by Ctrl-C") from None
        yield


def uncommitted(root: Path, order: list[Stage]) -> dict[str, str]:
    """Return path -> text of files that git holds, that stages write, and that are newer than HEAD.

    Raises:
        UserError: another file that workers need is not committed.
    """
    made = [out for stage in order for out in stage.in_git]
    found = {}
    tracked = set(os.fsdecode(git(root, "ls-files", "-z", "--", ".")).split("\0"))
    prefix = line_of(root, "rev-parse", "--show-prefix")
    for name in changes(root):
        name = name.removeprefix(prefix)
        if name == lock.FILE:
            continue
        if any(name == out or name.startswith(f"{out}/") for out in made):
            if (root / name).is_file():
                found[name] = (root / name).read_text(encoding="utf-8")
        elif name in tracked or name.startswith(("src/", "stages/")) or name in ("dvc.yaml", reader.FILE):
            raise UserError(f"{name} differs from HEAD, and workers clone what is committed: commit it first")
    return found


def config_for(root: Path, remote: str | None, *, secrets: bool) -> str:
    """Return the text of a worker's ``.dvc/config.local``: where outs come from and go to.

    Args:
        root: the repository; what DVC is told of the user and the machine counts as well, as it does for DVC.
        remote: name of the DVC remote; None: the cache of this repository.
        secrets: whether keys and passwords in the configuration may go along.

    Raises:
        UserError: there is no such remote, or the configuration is none.
    """
    from configobj import ConfigObj
    from dvc.config import Config, ConfigError

    try:
        given = Config(str(root / ".dvc"), validate=False)  # paths in it are whole
    except (ConfigError, OSError) as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(f"DVC's configuration cannot be read ({why}); mend .dvc/config or .dvc/config.local") from None
    out: dict[str, dict[str, Any]] = {}
    if remote is None:
        out["cache"] = {"dir": str((root / ".dvc" / "cache").resolve())} | {
            key: value for key, value in given.get("cache", {}).items() if key in ("dir", "type")
        }
    while remote is not None:
        options = given.get("remote", {}).get(remote)
        if options is None:
            raise UserError(f"no DVC remote {remote!r}; `dvc remote add {remote} URL` makes it")
        if "url" not in options:
            raise UserError(f"DVC remote {remote!r} has no url; `dvc remote modify {remote} url URL` gives it one")
        out[f'remote "{remote}"'] = {key: value for key, value in options.items() if secrets or not _SECRET.search(key)}
        base = re.match("remote://([^/]+)", options["url"])  # a place in another remote
        remote = base[1] if base and f'remote "{base[1]}"' not in out else None
    return "".join(f"{line}\n" for line in ConfigObj(out).write())


def _dvc(root: Path, *arguments: str) -> None:
    """Run DVC in a tree, its words on standard error."""
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    code = processes.run(command, cwd=root, env=processes.environment(), stdin=subprocess.DEVNULL, stdout=2)
    if code:
        raise UserError(f"dvc {arguments[0]} failed with exit code {code}: see above")


def run_shared(plan: Plan) -> None:
    """Run the stages that cells share.

    DVC goes through named stages in no order of ours, so their new entries are put into that of `dvc repro`.

    Raises:
        UserError: one failed.
    """
    file, names = plan.root / lock.FILE, [stage.name for stage in plan.order]
    was = file.read_text(encoding="utf-8") if file.is_file() else ""
    _dvc(plan.root, "repro", *(stage.name for stage in plan.before))
    text = file.read_text(encoding="utf-8")
    write_text(file, merge.merged(was, merge.parts(text).entries, names))


def unmade(plan: Plan) -> Iterator[str]:
    """Yield the cells that dvc.lock does not hold, one after the other: whoever asks for any waits for no more."""
    entries = lock.read(plan.root) if (plan.root / lock.FILE).is_file() else {}
    params, made = reader.load(plan.root / reader.FILE), lock.all_outs(entries)
    for cell in plan.cells:
        if not all(fits(plan.root, stage, entries.get(stage.name), made, params) for stage in plan.own(cell)):
            yield cell


def waiting(plan: Plan) -> dict[str, dict[str, Record]]:
    """Return cell -> records of its finished stages, for the cells that dvc.lock does not hold yet.

    Where a cell is not whole, only records whose outs its worker can get are of use: those of another engine's
    workers lie in another place.
    """
    entries, params, found = lock.read(plan.root), reader.load(plan.root / reader.FILE), {}
    for cell in unmade(plan):
        clear_leftovers(plan.journal(cell))
        own = plan.own(cell)
        kept, _ = usable(plan.root, own, read_journal(plan.journal(cell), own), entries, params)
        if len(kept) < len(own):
            kept = dict(takewhile(lambda item: item[1].remote == plan.remote, kept.items()))
        found[cell] = kept
    return found


class _Cells:
    """The cells under way: handed out, tried again, kept as records."""

    def __init__(self, plan: Plan, engine: Engine, tasks: Mapping[str, Task], screen: Screen):
        self.plan, self.engine, self.tasks, self.screen = plan, engine, dict(tasks), screen
        self.waiting, self.jobs, self.tries = list(tasks), {}, dict.fromkeys(tasks, 0)
        self.records: dict[str, dict[str, Record]] = {}
        self.failed: dict[str, str] = {}
        self.cores = {profile.find("fast").resolved_threads()}
        # Once, and as they are when workers are sent out: nothing here writes dvc.lock before all have ended.
        self.entries, self.params = lock.read(plan.root), reader.load(plan.root / reader.FILE)

    def run(self, workers: int) -> None:
        try:
            while self.waiting or self.jobs:
                while self.waiting and len(self.jobs) < workers:
                    self._start(self.waiting.pop(0))
                for cell, job in list(self.jobs.items()):
                    self._look(cell, job)
                self.screen.draw()
                time.sleep(LOOK_SECONDS)
        except (KeyboardInterrupt, SystemExit):
            self.screen.say("stopping: trainings save their state; the same command goes on")
            raise
        finally:
            for job in self.jobs.values():
                job.cancel()

    def _start(self, cell: str) -> None:
        command = [sys.executable, "-c", Path(start.__file__).read_text(encoding="utf-8")]
        self.jobs[cell] = self.engine.start(command, self.tasks[cell].text())
        self.screen.started(cell, self.plan.log(cell))

    def _look(self, cell: str, job: Job) -> None:
        done = job.result()
        if done is None:
            return
        del self.jobs[cell]
        told = f": {done.stdout}" if done.returncode == LOST and done.stdout else ""  # by the engine, not the worker
        why = f"its worker went away (exit code {done.returncode}{told})"
        if done.returncode == 0:
            try:
                return self._take(cell, parse_json((done.stdout.strip().splitlines() or [""])[-1]))
            except ValueError as error:
                why = f"its worker's answer is none ({error})"
        self.tries[cell] += 1
        if self.tries[cell] <= RETRIES:
            self.screen.again(cell, why)
            self.waiting.append(cell)
        else:
            self._fail(cell, f"{why}, {self.tries[cell]} times")

    def _take(self, cell: str, answer: object) -> None:
        """Take what a worker answered.

        Raises:
            ValueError: it is not the records of the cell's stages, nor a reason.
        """
        if not isinstance(answer, dict):
            raise ValueError("no record")
        if isinstance(answer.get("error"), str):
            return self._fail(cell, answer["error"])
        plan, own, cores = self.plan, self.plan.own(cell), answer.get("cores")
        records = read_records(answer.get("records"), own)
        if not records or len(answer["records"]) > len(records) or type(cores) is not int:
            raise ValueError("not the records of its stages")
        _, whole = usable(plan.root, own, records, self.entries, self.params)
        if not whole:  # another try would make the same
            return self._fail(
                cell, "its worker made something else than params.yaml, code and data ask for, or not all"
            )
        for name, record in records.items():
            write_json(plan.journal(cell) / f"{name}.json", asdict(record))
        self.cores.add(cores)
        self.records[cell] = records
        self.screen.ended(cell, None)

    def _fail(self, cell: str, error: str) -> None:
        log = self.plan.log(cell)
        self.failed[cell] = f"{error}{f'; all of it: {log}' if log.is_file() else ''}"
        self.screen.ended(cell, self.failed[cell])


def _bring(root: Path, remote: str | None, names: Iterable[str]) -> None:
    """Bring the outs of stages from a DVC remote, or from the cache."""
    how = ["pull", "--remote", remote] if remote else ["checkout"]
    _dvc(root, *how, "--quiet", "--force", *names)


def _in_cache(plan: Plan, cell: str) -> bool:
    """Whether the outs of a cell that dvc.lock names can be brought from the cache."""
    try:
        _bring(plan.root, None, [stage.name for stage in plan.own(cell)])
    except UserError:
        return False
    return True


def write_back(plan: Plan, records: Mapping[str, Mapping[str, Record]], failed: Collection[str] = ()) -> None:
    """Write the records of finished cells into the tree, and bring the outs that are not there.

    A cell's records are kept until its outs are there, so that after a kill in between the next call brings them.
    Outs of other cells that dvc.lock names are brought as well, where they can be had: they keep no result back.

    Args:
        plan: see :class:`Plan`.
        records: cell -> its records.
        failed: the cells that dvc.lock does not hold even so; what there is of them is kept for the next call.
    """
    found = {name: record for of_cell in records.values() for name, record in of_cell.items()}
    file = plan.root / lock.FILE
    was = file.read_text(encoding="utf-8")
    if found:
        entries = {name: record.entry for name, record in found.items()}
        write_text(file, merge.merged(was, entries, [stage.name for stage in plan.order]))
    entries = lock.read(plan.root)
    bring: dict[str | None, list[str]] = defaultdict(list)
    others: list[str] = []
    for cell in (cell for cell in plan.cells if cell not in failed):
        for stage in (stage for stage in plan.own(cell) if stage.name in entries):
            if cell in records:
                bring[found[stage.name].remote if stage.name in found else plan.remote].append(stage.name)
            elif plan.journal(cell).exists() or _gone(plan, stage):
                others.append(stage.name)
    for remote, names in bring.items():
        try:
            _bring(plan.root, remote, names)
        except UserError:
            lost = [cell for cell in records if remote is None and not _in_cache(plan, cell)]
            write_text(file, was)  # which names no outs that are nowhere
            if lost:
                for cell in lost:
                    remove(plan.journal(cell))
                raise UserError(
                    f"outs of {', '.join(lost)} have left DVC's cache; the same command makes them again"
                ) from None
            raise
    for record in found.values():
        for path, text in record.files.items():
            write_text(plan.root / path, text)
    done = [cell for cell in plan.cells if cell not in failed]
    try:
        if others:
            _bring(plan.root, plan.remote, others)
    except UserError:  # told of by `gone`, and tried again by the next call
        done = [cell for cell in done if cell in records]
    for cell in done:
        for path in (plan.journal(cell), plan.log(cell), (plan.shared or plan.work) / "cells" / cell):
            remove(path)


def _gone(plan: Plan, stage: Stage) -> bool:
    return not all((plan.root / out).exists() for out in stage.outs)


def gone(plan: Plan) -> list[str]:
    """Return the stages that dvc.lock holds though outs of theirs are not here, or were not brought to their end."""
    entries = lock.read(plan.root)
    return [
        stage.name
        for cell in plan.cells
        for stage in plan.own(cell)
        if stage.name in entries and (plan.journal(cell).exists() or _gone(plan, stage))
    ]


def tidy(*folders: Path) -> None:
    """Remove folders that are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            continue


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--shared {folder}: {error.strerror or error}; a folder that this machine and all workers can write"
        ) from None


def tasks_of(plan: Plan, found: Mapping[str, dict[str, Record]], *, secrets: bool) -> dict[str, Task]:
    """Return cell -> what its worker is told.

    Args:
        plan: see :class:`Plan`.
        found: cell -> records of earlier tries.
        secrets: see :func:`config_for`.
    """
    common = {
        "repository": plan.repository or line_of(plan.root, "rev-parse", "--show-toplevel"),
        "commit": line_of(plan.root, "rev-parse", "HEAD"),
        "prefix": line_of(plan.root, "rev-parse", "--show-prefix"),
        "lock": (plan.root / lock.FILE).read_text(encoding="utf-8"),
        "files": uncommitted(plan.root, plan.order),
        "config": config_for(plan.root, plan.remote, secrets=secrets),
        "remote": plan.remote,
    }
    tasks = {}
    for cell, records in found.items():
        places = {"journal": plan.shared / "cells" / cell, "log": plan.log(cell)} if plan.shared else {}
        places |= {"checkpoints": plan.checkpoints} if plan.checkpoints else {}
        kept = {name: asdict(record) for name, record in records.items()}
        tasks[cell] = Task(cell, **common, **{key: str(path.resolve()) for key, path in places.items()}, records=kept)
    return tasks


def run(plan: Plan, open_engine, *, workers: int, secrets: bool, screen=Screen) -> tuple[list[str], dict[str, str]]:
    """Make the cells that dvc.lock does not hold; return the names of those made, and cell -> what went wrong.

    Args:
        plan: see :class:`Plan`.
        open_engine: called without arguments, returns the engine; not called where nothing has to be made.
        workers: how many cells at once.
        secrets: whether keys in the configuration of the DVC remote may go to the engine.
        screen: called with the cells, returns where progress goes.

    Raises:
        UserError: another farm runs, something is not committed, or a stage that all cells share failed.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with alone(plan.root), ExitStack() as opened:
            engine: Engine | None = None
            # Mistakes first, before anything works.
            uncommitted(plan.root, plan.order)
            config_for(plan.root, plan.remote, secrets=secrets)
            if plan.shared and plan.shared != plan.work:
                _require_writable(plan.shared)
            if any(True for _ in unmade(plan)):
                engine = opened.enter_context(closing(open_engine()))
            run_shared(plan)
            found = waiting(plan)
            whole = {cell: kept for cell, kept in found.items() if len(kept) == len(plan.own(cell))}
            todo = {cell: kept for cell, kept in found.items() if cell not in whole}
            failed: dict[str, str] = {}
            if todo:
                if plan.remote:
                    names = [stage.name for stage in plan.before]
                    _dvc(plan.root, "push", "--quiet", "--remote", plan.remote, *names)
                tasks = tasks_of(plan, todo, secrets=secrets)
                engine = engine or opened.enter_context(closing(open_engine()))
                cells = _Cells(plan, engine, tasks, screen(list(todo)))
                cells.run(workers)
                opened.close()
                if len(cells.cores) > 1:
                    counts = " and ".join(map(str, sorted(cells.cores)))
                    print(
                        f"repix: workers and this machine have {counts} cores: under `fast` results differ",
                        file=sys.stderr,
                    )
                whole |= cells.records
                failed = cells.failed
            write_back(plan, {cell: whole[cell] for cell in plan.cells if cell in whole}, failed)
            if not failed:
                for stage in plan.after:
                    _dvc(plan.root, "repro", "--single-item", stage.name)
            inner = [place / name for place in (plan.work, plan.shared or plan.work) for name in ("cells", "logs")]
            tidy(*inner, *filter(None, [plan.checkpoints]), plan.work)
            return list(whole), failed
    finally:
        signal.signal(signal.SIGTERM, before)


def plan_of(root: Path, *, local: bool, repository: str | None, remote: str | None, shared: Path | None) -> Plan:
    """Return the plan for a tree; see :class:`Plan`.

    Args:
        root: the tree.
        local: whether workers are processes of this machine: they share the checkpoints of `dvc repro`.
        repository, remote, shared: see :class:`Plan`.
    """
    plan = Plan(root, stages(root), repository, remote)
    made = {out for stage in plan.order for out in stage.outs}
    if child := next((stage for stage in plan.order if made & set(stage.after)), None):
        raise UserError(
            f"{child.name} starts from {child.after[0]}, which this grid makes too: cells are made at once here; "
            f"leave one of them out of run, or run `dvc repro`"
        )
    if shared is None and local:
        return replace(plan, shared=plan.work, checkpoints=root / WORK / "checkpoints")
    return replace(plan, shared=shared, checkpoints=shared / "checkpoints" if shared else None)
