"""Results rebuilt from scratch and held against dvc.lock: at which level they are equal, and what differs first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from repix.cells import Cell
from repix.errors import UserError
from repix.files import read_json
from repix.provenance import lock
from repix.provenance.checkout import run
from repix.provenance.code import FOLDER, environment
from repix.provenance.compare import Level, Verdict, noise_verdict, out_verdict
from repix.provenance.git import git
from repix.provenance.lineage import Lineage
from repix.provenance.lock import Difference
from repix.provenance.pipeline import Stage, stages
from repix.schemas import Metrics, Trained

NoiseOf = Callable[[Cell], Mapping[str, float]]
LEARNED = ("train", "evaluate", "export")  # stages whose outs another training may change within the noise


def chosen(found: list[Stage], cell: str | None, stage: str | None) -> list[Stage]:
    """Return the stages that a cell and a last stage need, in order.

    Raises:
        UserError: there is no such cell or stage.
    """
    kinds = list(dict.fromkeys(s.kind for s in found if s.kind != FOLDER))  # which has no result
    if stage is not None and stage not in kinds:
        raise UserError(f"no stage {stage!r}; there are {', '.join(kinds)}")
    cells = {Cell(**s.item).name for s in found if "model" in s.item}
    if cell is not None and cell not in cells:
        raise UserError(f"no cell {cell!r} in the grid of run; there are {', '.join(sorted(cells))}")
    last = [s for s in found if (stage is None or s.kind == stage) and (cell is None or _serves(s, cell))]
    needed = {dep for s in last for dep in (*s.data, *s.after)}
    kept = []
    for s in reversed(found):
        if s in last or needed & set(s.outs):
            kept.append(s)
            needed.update((*s.data, *s.after))
    return kept[::-1]


def _serves(stage: Stage, cell: str) -> bool:
    """Whether a stage is one of the cell's own, or one that any cell may need."""
    if "model" in stage.item:
        return Cell(**stage.item).name == cell
    dataset = Cell.named(cell).dataset
    return dataset == stage.item.get("dataset", dataset)


class Recorded:
    """The outs that dvc.lock tells of, where their bytes are still at hand.

    Args:
        root: the repository: its workspace, then DVC's cache, are looked at.
        lock_: the recorded dvc.lock.
    """

    def __init__(self, root: Path, lock_: Mapping[str, dict]):
        self.root, self.hashes = root, lock.all_outs(lock_)
        self._cache: Path | None = None
        self._places = [root]

    def keep(self, tree: Path, aside: Path) -> None:
        """Copy outs that git itself holds (metrics, code) from a tree to ``aside``, before a stage replaces them."""
        for out in self.hashes:
            for name, file in files_of(tree / out).items():
                (aside / out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, aside / out / name)
        self._places = [aside, self.root]

    def _cached(self, md5: str) -> Path:
        if self._cache is None:
            asked = subprocess.run(
                [sys.executable, "-P", "-m", "dvc", "cache", "dir"], cwd=self.root, capture_output=True, text=True
            )
            self._cache = Path(self.root, asked.stdout.strip() or ".dvc/cache")
        return self._cache / "files" / "md5" / md5[:2] / md5[2:]

    def files(self, out: str) -> dict[str, Path] | None:
        """Return name below the out -> file with the recorded bytes (a file out: the empty name), or None."""
        md5 = self.hashes.get(out)
        for place in self._places if md5 else ():
            if lock.md5(place / out) == md5:
                return files_of(place / out)
        if not md5 or not self._cached(md5).is_file():
            return None
        if not md5.endswith(".dir"):
            return {"": self._cached(md5)}
        listed = read_json(self._cached(md5))
        files = {entry["relpath"]: self._cached(entry["md5"]) for entry in listed}
        return files if all(path.is_file() for path in files.values()) else None

    def text(self, path: str) -> str | None:
        """Return the recorded text of a file below an out that git itself holds, or None."""
        file = self._places[0] / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def lineage(self, stage: Stage) -> Lineage | None:
        """Return the recorded lineage of a stage, if it is at hand."""
        files = self.files(lineage_out(stage) or "")
        return Lineage.read(files[""]) if files else None

    def changed_since(self, built: Path, outs: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return the files of outs in the workspace that are no longer the recorded ones, and those gone from them.

        Args:
            built: a tree in which the outs have been rebuilt as recorded.
            outs: which outs; one that the workspace does not have at all is not missed. Of one that it has
                in part (what a bundle restores) the absent files are told: nobody can take them for others.
        """
        try:
            here = lock.all_outs(lock.read(self.root))
        except UserError:
            return [], []
        found, gone = [], []
        for out in outs:
            if here.get(out) != self.hashes[out] or lock.md5(self.root / out) in (None, self.hashes[out]):
                continue
            now, then = files_of(self.root / out), files_of(built / out)
            names = [name for name in sorted(now) if not _same(now[name], then.get(name))]
            found += [f"{out}/{name}".rstrip("/") for name in names]
            gone += [f"{out}/{name}" for name in sorted(then.keys() - now.keys())]
        return found, gone


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and lock.md5(one) == lock.md5(other)


def files_of(path: Path) -> dict[str, Path]:
    """Return name below a folder -> file; a file has the empty name."""
    if path.is_file():
        return {"": path}
    return {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}


def lineage_out(stage: Stage) -> str | None:
    """Return the out that is the stage's lineage record; the stages ``code``, ``start`` and ``scores`` have none."""
    return next((out for out in stage.outs if out.startswith("lineage/")), None)


def lineage_differences(stage: str, was: Lineage, now: Lineage) -> list[Difference]:
    """Return what two lineage records of a stage do not share, outputs aside."""
    found = _compare(stage, "param", lock.flat(was.params), lock.flat(now.params))
    for kind, field in (("code", "code"), ("input", "inputs"), ("package", "environment")):
        found += _compare(stage, kind, getattr(was, field), getattr(now, field))
    return found + _compare(stage, "profile", was.profile, now.profile)


def _compare(stage: str, kind: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    keys = sorted(was.keys() | now.keys())
    return [Difference(stage, kind, key, was.get(key), now.get(key)) for key in keys if was.get(key) != now.get(key)]


def digest_verdict(stage: Stage, tree: Path, recorded: Recorded, out: str) -> Verdict:
    """Return the verdict on an out whose recorded bytes are gone: git's metrics still name the weights."""
    if stage.kind == "train" and out.startswith("runs/"):
        metrics = recorded.files(f"metrics/{Cell(**stage.item).name}.json")
        if metrics:
            digests = Metrics.read(metrics[""]).weights("last")
            now = Trained.read(tree / out / "trained.json").networks
            if digests and all(now.get(network) == digest for network, digest in digests.items()):
                return Verdict(Level.L1, f"{out}: the weights' digests are those of metrics/")
    return Verdict(
        Level.DIFFERENT, f"{out}: other bytes, and the recorded ones are not here (`dvc pull`) to look closer"
    )


def rebuild(
    tree: Path, found: list[Stage], recorded: Recorded, entries: Mapping[str, dict], noise_of: NoiseOf, say
) -> dict[str, Any]:
    """Run stages in a clean tree and compare; return level, reasons and causes as plain data.

    Args:
        tree: the clean tree.
        found: the stages, in order.
        recorded: the recorded outs.
        entries: the recorded dvc.lock.
        noise_of: gives the noise between seeds of a cell's scores, by translator/variant/metric.
        say: called with a line for people after each stage.
    """
    verdicts: dict[str, Verdict] = {}
    first, lineages = None, []
    noise: dict[str, Verdict] = {}  # of the cells whose training is another one
    for stage in found:
        run(tree, stage, recorded.root)
        if stage.kind == FOLDER:  # what differs in it is told of the stages that it concerns
            continue
        record = lineage_out(stage)
        if record is None:  # a digest of records that other stages made: where those differ it follows them
            if first is None:
                verdicts |= {out: _derived(tree, out, recorded) for out in stage.outs}
                say(f"{stage.name}: {max(verdicts[out].level for out in stage.outs).name}")
            continue
        of_stage = {}
        for out in stage.outs:
            if out == record:
                continue
            if lock.md5(tree / out) == recorded.hashes[out]:
                of_stage[out] = Verdict(Level.L0)
            else:
                files = recorded.files(out)
                of_stage[out] = (
                    out_verdict(out, files_of(tree / out), files)
                    if files
                    else digest_verdict(stage, tree, recorded, out)
                )
        verdicts |= of_stage
        worst = max(of_stage.values(), key=lambda verdict: verdict.level)
        if stage.kind == "evaluate":
            cell = Cell(**stage.item).name
            if any(verdicts[out].level > Level.L2 for out in _learned(found, {cell}) if out in verdicts):
                noise[cell] = _noise(tree, stage, recorded, noise_of)
        same_record = lock.md5(tree / record) == recorded.hashes[record]
        if (worst.level or not same_record) and first is None:
            causes = list(lock.causes(stage.name, entries[stage.name], _entry(tree, stage)))
            causes = list(lock.opened(causes, recorded.text, _text_in(tree)))
            was = recorded.lineage(stage)
            now = Lineage.read(tree / record) if was else None
            named = {cause[:3] for cause in causes}
            causes += [d for d in lineage_differences(stage.name, was, now) if d[:3] not in named] if was else []
            # What the stage itself recorded came out again; then it is the lock file that says something else.
            same = {out for out in now.outputs if was.outputs.get(out) == now.outputs[out]} if was else set()
            denied = [out for out, verdict in of_stage.items() if verdict.level and out in same]
            first = {"stage": stage.name, "causes": causes, "lineage": was is not None, "denied": denied}
        lineages += [] if same_record else [record]
        say(f"{stage.name}: {worst.level.name}{f': {worst.why}' if worst.why else ''}")
    level = max(verdict.level for verdict in verdicts.values())
    why = [verdict.why for verdict in verdicts.values() if verdict.level == level and verdict.why]
    beyond = {out for out, verdict in verdicts.items() if verdict.level > Level.L2}
    if noise and beyond <= _learned(found, noise):
        worst = max(noise.values(), key=lambda verdict: verdict.level)
        level, why = worst.level, [worst.why, *why]
    return {"level": level, "why": why, "first": first, "lineages": lineages}


def _learned(found: list[Stage], cells: Collection[str]) -> set[str]:
    """Return the outs of cells that another training may change within the noise."""
    return {out for one in found if one.kind in LEARNED and Cell(**one.item).name in cells for out in one.outs}


def _derived(tree: Path, out: str, recorded: Recorded) -> Verdict:
    """Return the verdict on an out that has to follow from recorded ones, which came out equal."""
    if lock.md5(tree / out) == recorded.hashes[out]:
        return Verdict(Level.L0)
    return Verdict(Level.DIFFERENT, f"{out}: not what follows from the records in metrics/; `dvc repro` makes it anew")


def _text_in(tree: Path):
    """Return a function from a path in a tree to the text of that file, or None."""
    return lambda path: (tree / path).read_text(encoding="utf-8") if (tree / path).is_file() else None


def _noise(tree: Path, stage: Stage, recorded: Recorded, noise_of: NoiseOf) -> Verdict:
    """Return the verdict on a cell's scores."""
    cell = Cell(**stage.item)
    path = f"metrics/{cell.name}.json"
    files = recorded.files(path)
    if files is None:
        return Verdict(Level.DIFFERENT, f"{path}: not the file that dvc.lock tells of")
    return noise_verdict(Metrics.read(tree / path), Metrics.read(files[""]), noise_of(cell))


def _entry(tree: Path, stage: Stage) -> dict[str, Any]:
    return lock.entry_of(tree, stage, {dep: lock.md5(tree / dep) for dep in stage.data})


def lock_line(root: Path) -> tuple[str, int]:
    """Return one line that compares dvc.lock here with that of HEAD, and the exit code."""
    here = lock.read(root)
    said = f"dvc.lock {lock.digest(here)}"
    try:
        text = git(root, "show", "HEAD:./dvc.lock").decode("utf-8", "replace")
    except UserError:
        return f"{said}: no dvc.lock is committed at HEAD, so there is nothing to compare with", 1
    there = lock.parse(text, "HEAD:dvc.lock")
    other, code = f"not the committed dvc.lock ({lock.digest(there)})", 6
    if _beside_lineage(here) == _beside_lineage(there):  # how it was made, and not what
        known = f"the committed one ({lock.digest(there)})"
        other, code = f"names the same bytes as {known} for every out but lineage records", 7
    found = stages(root)
    for stage in [*(s.name for s in found), *sorted(here)]:
        if stage == FOLDER:  # no result
            continue
        was, now = there.get(stage), here.get(stage)
        if (was is None and now is None) or (was and now and lock.hashes(was, "outs") == lock.hashes(now, "outs")):
            continue
        if now is None:
            return (
                f"{said}: {stage} of the committed dvc.lock ({lock.digest(there)}) is missing; `dvc repro` makes it",
                6,
            )
        if was is None:
            return f"{said}: {stage} is not in the committed dvc.lock ({lock.digest(there)})", 6
        outs = lock.hashes(was, "outs"), lock.hashes(now, "outs")
        out = min(path for path in outs[0].keys() | outs[1].keys() if outs[0].get(path) != outs[1].get(path))
        causes = list(lock.opened(lock.causes(stage, was, now), lambda path: _at_head(root, path), _text_in(root)))
        records = [path for path in outs[0] if path.startswith("lineage/") and outs[0][path] == outs[1].get(path)]
        if records:  # it holds the digests of the stage's other outs
            because = f"{records[0]} is the same in both and knows one {out}, so one lock was edited by hand"
            return f"{said}: {other}; first {stage}: {out}; {because}", 6
        because = "; ".join(f"{c.kind} {c.name}: {lock.shown(c.was)} -> {lock.shown(c.now)}" for c in causes[:3])
        if not causes:
            because = _undeclared(root, there, stage)
        elif len(causes) > 3:
            because += f" and {len(causes) - 3} more"
        return f"{said}: {other}; first {stage}: {out}; {because}", code
    made = [out for stage in found for out in stage.outs if out not in stage.in_git]
    if not any((root / out).exists() for out in made):
        return f"{said}: the committed one; none of its outs is here: `dvc repro` or `dvc pull` brings them", 0
    return f"{said}: your run made the same bytes as the commit, for every out (their hashes in dvc.lock are equal)", 0


def _beside_lineage(entries: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return (stage, out) -> its hash in a lock's entries, for all outs but the lineage records."""
    found = {(stage, out): md5 for stage, entry in entries.items() for out, md5 in lock.hashes(entry, "outs").items()}
    return {key: md5 for key, md5 in found.items() if not key[1].startswith("lineage/") and key[0] != FOLDER}


def other_packages(root: Path) -> str | None:
    """Return one line that names the packages that the outs of a tree were made with and that are others now, or None.

    DVC compares files and params, so ``dvc status`` and ``dvc repro`` do not see an upgrade.
    """
    changed: dict[str, Difference] = {}
    for stage in stages(root):
        path = root / (lineage_out(stage) or FOLDER)
        if path.is_file():
            record = Lineage.read(path)
            now = environment(record.environment.keys() - {"python"})
            for found in _compare(stage.name, "package", record.environment, now):
                changed.setdefault(found.name, found)
    if not changed:
        return None
    named = ", ".join(f"{name} {lock.shown(d.was)} -> {lock.shown(d.now)}" for name, d in sorted(changed.items()))
    return (
        f"packages: {named} since the outs were made (first {next(iter(changed.values())).stage}); "
        f"`dvc repro --force` makes them with what is installed"
    )


def _at_head(root: Path, path: str) -> str | None:
    """Return the text of a file as it is committed, or None."""
    try:
        return git(root, "show", f"HEAD:./{path}").decode("utf-8", "replace")
    except UserError:
        return None


def _undeclared(root: Path, there: Mapping[str, dict], name: str) -> str:
    """Return what the lineage records tell of a stage whose declared inputs are the same."""
    record = f"lineage/{name.replace('@', '/') if '@' in name else f'{name}/{name}'}.json"
    was = Recorded(root, there).files(record)
    if was and (root / record).is_file():
        told = lineage_differences(name, Lineage.read(was[""]), Lineage.read(root / record))
        if told:
            return "; ".join(f"{d.kind} {d.name}: {lock.shown(d.was)} -> {lock.shown(d.now)}" for d in told[:3])
    return f"params, code and inputs are the same, so packages, profile or machine differ: see {record}"
