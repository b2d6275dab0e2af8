"""dvc.lock put together from entries that several clones wrote, byte for byte what one `dvc repro` would write.

An entry is kept as the text that DVC wrote. A round trip through a reader of YAML would be a second opinion on how
numbers and quotes are written, and one letter of difference makes DVC run a stage again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from repix import yaml12
from repix.errors import UserError
from repix.provenance import lock

_HEAD = "schema: '2.0'\nstages:\n"
_PARTS = re.compile(r"(.*?^stages:[^\n]*\n)(.*?)(^\S.*)?\Z", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^  \S.*?(?=^  \S|\Z)", re.DOTALL | re.MULTILINE)


class Parts(NamedTuple):
    """A dvc.lock taken apart: ``head``, the text of each stage's entry, ``tail``."""

    head: str
    entries: dict[str, str]
    tail: str


def parts(text: str) -> Parts:
    """Take the text of a dvc.lock apart.

    Raises:
        UserError: it is none, or not laid out as DVC writes it.
    """
    names = list(lock.parse(text))
    match = _PARTS.fullmatch(text)
    blocks = _ENTRY.findall(match[2]) if match else []
    if match is None or len(blocks) != len(names) or "".join(blocks) != match[2]:
        raise UserError(f"{lock.FILE}: not laid out as DVC writes it; restore it with `git checkout {lock.FILE}`")
    return Parts(match[1], dict(zip(names, blocks, strict=True)), match[3] or "")


def check(entry: str, name: str) -> None:
    """Require of a text that it is the entry of one stage as DVC writes it, and nothing else.

    Raises:
        ValueError: it is not.
    """
    try:
        found = parts(_HEAD + entry)
        plain = yaml12.is_plain(_HEAD + entry)
    except UserError as error:
        raise ValueError(str(error)) from None
    if found.entries != {name: entry} or not entry.endswith("\n") or not plain:
        raise ValueError(f"not the entry of {name} alone, as DVC writes it")


def merged(text: str, entries: Mapping[str, str], order: Sequence[str]) -> str:
    """Return a dvc.lock with entries of other clones in it.

    Args:
        text: the dvc.lock that the clones began with, empty where there was none.
        entries: stage -> the text of its entry.
        order: the stages as `dvc repro` goes through them: new ones are appended in this order.

    Raises:
        UserError: what would come of it is no dvc.lock.
    """
    head, known, tail = parts(text) if text else Parts(_HEAD, {}, "")
    new = sorted(entries.keys() - known.keys(), key=order.index)
    together = known | {name: entries[name] for name in entries if name in known}
    made = head + "".join(together.values()) + "".join(entries[name] for name in new) + tail
    parts(made)
    return made
