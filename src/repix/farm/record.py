"""What a finished stage leaves beside its outs, and whether it is still that of the stage as it would run now.

A record is the text of the stage's entry in dvc.lock and of the files that git holds (metrics). It comes back from
another machine or lies in a folder that others can write: what does not have the form of one counts as absent, and it
can write nothing but what its stage writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repix.cells import Cell
from repix.errors import UserError
from repix.farm import merge
from repix.files import read_json
from repix.provenance import lock
from repix.provenance.pipeline import Stage

_REMOTE = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Record:
    """What a finished stage leaves beside its outs.

    Attributes:
        entry: the text of its entry in dvc.lock.
        files: path -> text of the outs that git holds.
        remote: name of the DVC remote that has the other outs; None: the cache of the machine that made them.
    """

    entry: str
    files: dict[str, str]
    remote: str | None = None

    @classmethod
    def read(cls, given: Any, stage: Stage) -> Record:
        """Return a stage's record, given as plain data: one that another machine wrote, or anybody who can.

        Raises:
            ValueError: it is none, names files that the stage does not write, or more in dvc.lock than the stage.
        """
        try:
            found = cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if not isinstance(found.entry, str):
            raise ValueError("its entry is no text")
        if not isinstance(found.files, dict) or set(found.files) != set(stage.in_git):
            raise ValueError("not what the stage leaves in git")
        if not all(isinstance(text, str) for text in found.files.values()):
            raise ValueError("a file of it is no text")
        if found.remote is not None and not (isinstance(found.remote, str) and _REMOTE.fullmatch(found.remote)):
            raise ValueError("its remote is no name of one")
        merge.check(found.entry, stage.name)
        return found

    def as_entry(self, name: str) -> dict[str, Any]:
        """Return the entry as plain data."""
        return lock.parse(f"stages:\n{self.entry}")[name]


def read_records(given: Any, own: list[Stage]) -> dict[str, Record]:
    """Return stage -> record for those of a cell's stages that have one; one that is none counts as absent.

    Args:
        given: stage -> record as plain data, whatever else it may be.
        own: the cell's stages.
    """
    found = {}
    for stage in own:
        with suppress(ValueError, TypeError, KeyError):
            found[stage.name] = Record.read(given[stage.name], stage)
    return found


def read_journal(folder: Path, own: list[Stage]) -> dict[str, Record]:
    """Return stage -> record of a cell's journal, as :func:`read_records` does."""
    given = {}
    for stage in own:
        with suppress(OSError, ValueError):
            given[stage.name] = read_json(folder / f"{stage.name}.json")
    return read_records(given, own)


def is_of(stage: Stage, cell: str) -> bool:
    """Whether a stage is one of a cell's own."""
    return "model" in stage.item and Cell(**stage.item).name == cell


def fits(
    root: Path, stage: Stage, entry: Mapping | None, made: Mapping[str, str | None], params: Mapping[str, Any]
) -> bool:
    """Whether an entry of dvc.lock is one of the stage as it would run now, so that DVC would skip it.

    Args:
        root: the tree.
        stage: the stage.
        entry: its entry, or None.
        made: hash of each out of other stages.
        params: the content of params.yaml.
    """
    if entry is None or set(lock.hashes(entry, "outs")) != set(stage.outs):
        return False
    return not any(lock.causes(stage.name, entry, lock.entry_of(root, stage, made, params)))


def usable(
    root: Path, own: list[Stage], records: Mapping[str, Record], entries: Mapping[str, dict], params: Mapping[str, Any]
) -> tuple[dict[str, Record], bool]:
    """Return the records of a cell that are still those of its stages, and whether nothing of the cell is left to make.

    After the first stage that neither a record nor dvc.lock has as it would run now, no record is of use.

    Args:
        root: the tree.
        own: the cell's stages, in order.
        records: stage -> record.
        entries: dvc.lock, with what the cell reads.
        params: the content of params.yaml.
    """
    made, kept = lock.all_outs(entries), {}
    for stage in own:
        record = records.get(stage.name)
        try:
            entry = record.as_entry(stage.name) if record else entries.get(stage.name)
        except (UserError, KeyError):
            return kept, False
        if not fits(root, stage, entry, made, params):
            return kept, False
        made |= lock.hashes(entry, "outs")
        if record:
            kept[stage.name] = record
    return kept, True
