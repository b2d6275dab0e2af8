"""params.yaml as text: entries are added, pinned and left out, and all else stays as it is, to the letter."""

from __future__ import annotations

import re
from typing import Any

from repix import yaml12
from repix.config import reader
from repix.errors import UserError

RUN = """\
run: # the grid: every data set with every model with every seed
  datasets:
  - sample
  models:
  - pix2pix_small
  seeds:
  - 0
  profile: auto # what the model's entry says; portable and fast force one for all
"""


def pristine(text: str) -> str:
    """Return params.yaml with the grid that a project begins with, and without data sets of files on this disk.

    A clone has what its user asked for last, and that is no part of another project.

    Raises:
        UserError: it is not written as DVC does.
    """
    entries = yaml12.load(text, reader.FILE)["datasets"]
    text = re.sub(r"^run:.*\n(?: .*\n)+", RUN, text, flags=re.MULTILINE)
    for name, entry in entries.items():
        archive = entry.get("archive") if isinstance(entry, dict) else None
        urls = archive.get("urls") if isinstance(archive, dict) else None
        # Half of an entry, which is being written, is nobody else's either.
        if not isinstance(urls, list) or (
            archive.get("sha256") and any(str(url).lower().startswith("file:") for url in urls)
        ):
            text = re.sub(rf"^  {re.escape(name)}:.*\n(?:    .*\n)*", "", text, flags=re.MULTILINE)
    found = yaml12.load(text, reader.FILE)
    kept = {name for name, entry in entries.items() if name in found["datasets"]}
    if found["run"] != yaml12.load(RUN, "run")["run"] or "sample" not in kept:
        raise UserError(f"{reader.FILE}: is not written as DVC does; restore it by `git checkout {reader.FILE}`")
    return text


def with_entry(text: str, name: str, entry: str, section: str = "datasets") -> str:
    """Return params.yaml with an entry at the end of a section; all else stays as it is, to the letter."""
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(rf"{section}:\s*(#.*)?$", line)), None)
    if start is None:
        raise _by_hand(entry, section)
    end = next((i for i in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[i])), len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):
        end -= 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    indent = next((re.match(" *", line)[0] for line in lines[start + 1 : end] if line.lstrip()[:1] not in "#"), "  ")
    lines[end:end] = [indent + line for line in entry.splitlines(keepends=True)]
    return _checked("".join(lines), text, name, yaml12.load(entry, "entry")[name], entry, section)


def with_pin(text: str, name: str, sha256: str) -> str:
    """Return params.yaml with another sha256 in an entry of ``datasets``."""
    entry = yaml12.load(text, reader.FILE)["datasets"][name]
    entry = entry | {"archive": entry["archive"] | {"sha256": sha256}}
    pattern = rf"(?m)^( +){re.escape(name)}:[^\n]*\n(?:(?:\1 +[^\n]*)?\n)*?\1 +[^\n]*?\bsha256:"
    found = re.search(pattern, text)
    line = f"sha256: {sha256}\n"
    if not found:
        raise _by_hand(line)
    rest = re.sub(r"\A *(?:[0-9a-f]{64}|null|~)?", f" {sha256}", text[found.end() :])
    return _checked(text[: found.end()] + rest, text, name, entry, line)


def _checked(new: str, old: str, name: str, entry: Any, by_hand: str, section: str = "datasets") -> str:
    """Return the new text, where it says what the old one said, and the entry."""
    before, after = yaml12.load(old, reader.FILE), yaml12.load(new, reader.FILE)
    if after != before | {section: (before[section] or {}) | {name: entry}}:
        raise _by_hand(by_hand, section)
    return new


def _by_hand(text: str, section: str = "datasets") -> UserError:
    return UserError(
        f"{reader.FILE}: {section} is not written as DVC does; add this to it by hand:", *text.rstrip().split("\n")
    )
