"""dvc.lock, read without DVC: what it says, and whether a tree still fits it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from repix import yaml12
from repix.errors import UserError, printable
from repix.files import canonical_json, digest_text
from repix.provenance.code import FOLDER, CodeRecord
from repix.provenance.pipeline import Stage, code_records, leaves, look_up, stages

FILE = "dvc.lock"


CodeReader = Callable[[str], str | None]


class Difference(NamedTuple):
    """One thing that two states of a stage do not share.

    ``kind`` is ``param``, ``code``, ``input``, ``package``, ``profile``, ``command`` or ``out``;
    ``was`` is the side of dvc.lock, None where it has no such thing.
    """

    stage: str
    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind} {self.name}: {shown(self.was)} -> {shown(self.now)}"


def shown(value: Any) -> str:
    """Return a value in the few letters that a line has room for: of a hash, the first eight."""
    if value is None:
        return "(none)"
    text = printable(value) if isinstance(value, str) else json.dumps(value)
    is_hash = len(text) >= 32 and set(text.removesuffix(".dir")) <= set("0123456789abcdef")
    return text[:8] if is_hash else text if len(text) <= 60 else f"{text[:57]}..."


def md5(path: Path) -> str | None:
    """Return the hash that DVC 3 gives a file or folder (``<md5>.dir``); None where there is nothing.

    A folder's is the md5 of the JSON list of its files' hashes and relative paths.
    """
    if path.is_file():
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    if not path.is_dir():
        return None
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": md5(files[name]), "relpath": name} for name in sorted(files) if "__pycache__" not in name]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def parse(text: str, where: str = FILE) -> dict[str, dict]:
    """Return stage -> entry of a dvc.lock.

    Raises:
        UserError: it is not one.
    """
    return _stages_of(lambda: yaml12.load(text, where), where)


def _stages_of(load: Callable[[], Any], where: str) -> dict[str, dict]:
    try:
        found = dict(load()["stages"])
    except (UserError, TypeError, KeyError, ValueError):
        found = {"": None}
    for name, entry in found.items():
        if not (isinstance(name, str) and _is_entry(entry)):
            told = f" (the entry of {name!a})" if name else ""
            raise UserError(f"{where}: not a dvc.lock{told}; restore it with `git checkout HEAD -- dvc.lock`")
    return found


def _is_entry(entry: Any) -> bool:
    """Return whether an entry has the form that everything here relies on."""

    def named(value: Any, of: Callable[[Any], bool]) -> bool:
        return isinstance(value, dict) and all(isinstance(key, str) and of(below) for key, below in value.items())

    def hashed(item: Any) -> bool:
        return isinstance(item, dict) and isinstance(item.get("path"), str) and isinstance(item.get("md5"), str | None)

    lists = [entry.get(what, []) for what in ("deps", "outs")] if isinstance(entry, dict) else [None]
    return (
        all(isinstance(items, list) and all(map(hashed, items)) for items in lists)
        and isinstance(entry.get("cmd", ""), str | list)
        and named(entry.get("params", {}), lambda file: named(file, lambda value: True))
    )


def read(root: Path) -> dict[str, dict]:
    """Return stage -> entry of a tree's dvc.lock.

    Raises:
        UserError: it is missing or is not one.
    """
    try:
        return _stages_of(lambda: yaml12.read(root / FILE), FILE)
    except FileNotFoundError:
        raise UserError("no dvc.lock; `dvc repro` makes it, then commit it") from None


def hashes(entry: Mapping[str, Any], what: str) -> dict[str, str | None]:
    """Return path -> hash for ``deps`` or ``outs`` of one stage's entry."""
    return {item["path"]: item.get("md5") for item in entry.get(what, ())}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with those that are groups taken apart: ``models.x`` to ``models.x.epochs``."""
    return {
        leaf: look_up(value, leaf[len(key) + 1 :]) if leaf != key else value
        for key, value in values.items()
        for leaf in leaves(value, key)
    }


def params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of one stage's entry, by key, groups taken apart."""
    return flat({key: value for file in entry.get("params", {}).values() for key, value in file.items()})


def _without_empty(values: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return params without the groups that hold no key where the ``other`` side has keys, which tell enough."""
    return {
        key: value
        for key, value in values.items()
        if value != {} or not any(one.startswith(f"{key}.") for one in other)
    }


def all_outs(lock: Mapping[str, dict]) -> dict[str, str | None]:
    """Return out -> hash over all stages."""
    return {path: value for entry in lock.values() for path, value in hashes(entry, "outs").items()}


def digest(lock: Mapping[str, dict]) -> str:
    """Return the digest of all outs but the records of code, 16 hexadecimal digits: what README publishes."""
    return digest_text(canonical_json({out: md5 for out, md5 in all_outs(lock).items() if out != FOLDER}))[:16]


def causes(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what two entries of a stage do not share on the side of the inputs: params, code, data."""
    given = params(was), params(now)
    kinds = [("param", _without_empty(*given), _without_empty(*given[::-1]))]
    deps = hashes(was, "deps"), hashes(now, "deps")
    for kind, is_code in (("code", True), ("input", False)):
        sides = ({p: h for p, h in side.items() if p.startswith(f"{FOLDER}/") == is_code} for side in deps)
        kinds.append((kind, *sides))
    if was.get("cmd") != now.get("cmd"):
        yield Difference(name, "command", "cmd", was.get("cmd"), now.get("cmd"))
    for kind, before, after in kinds:
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key) or (key in before) != (key in after):
                yield Difference(name, kind, key, before.get(key), after.get(key))


def opened(found: Iterable[Difference], was: CodeReader, now: CodeReader) -> Iterator[Difference]:
    """Yield differences, that of a record of code as what is different in it: the files.

    Args:
        found: differences of one stage.
        was, now: give the text of a record's file on each side, or None where it is not at hand.
    """
    for difference in found:
        texts = was(difference.name), now(difference.name)
        if difference.kind != "code" or None in texts:
            yield difference
            continue
        sides = [CodeRecord.parse(text, difference.name).code for text in texts]
        yield from code_differences(difference.stage, *sides)


def code_differences(stage: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the files whose digests two records of a stage's code do not share."""
    for path in sorted(was.keys() | now.keys()):
        if was.get(path) != now.get(path):
            yield Difference(stage, "code", path, was.get(path), now.get(path))


def entry_of(
    root: Path, stage: Stage, made: Mapping[str, str | None], values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the entry that dvc.lock would have for the inputs of a stage in a tree.

    Args:
        root: the tree.
        stage: one of its stages.
        made: hash of each dependency that another stage makes.
        values: the content of its params.yaml, for who asks for many stages; None reads it.
    """
    values = yaml12.read(root / "params.yaml") if values is None else values
    deps = [{"path": dep, "md5": made[dep] if dep in made else md5(root / dep)} for dep in stage.deps]
    return {
        "cmd": stage.cmd,
        "deps": deps,
        "params": {"params.yaml": {key: look_up(values, key) for key in stage.params}},
    }


def stale(root: Path) -> list[Difference]:
    """Return where a tree's dvc.lock does not fit its dvc.yaml, params.yaml and code; nothing is run.

    It is what ``dvc status`` asks, without the need for data: a dependency that another
    stage makes is held against that stage's out in dvc.lock. Entries of cells that the grid
    no longer has are left alone, as DVC does.
    """
    lock, found = read(root), []
    made = all_outs(lock)
    records = code_records(root)
    for stage in stages(root):
        entry = lock.get(stage.name)
        if entry is None:
            found.append(Difference(stage.name, "command", "cmd", None, stage.cmd))
            continue
        for path in stage.code:
            written = root / path
            recorded = CodeRecord.read(written).code if written.is_file() else {}
            found += code_differences(stage.name, recorded, records[path].code if path in records else {})
        found += causes(stage.name, entry, entry_of(root, stage, made))
        outs = hashes(entry, "outs")
        found += [Difference(stage.name, "out", out, None, "declared") for out in stage.outs if not outs.get(out)]
        found += [Difference(stage.name, "out", out, outs[out], None) for out in sorted(outs.keys() - set(stage.outs))]
    return found
