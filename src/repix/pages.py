"""Pages from Jinja2 templates, where whatever is filled in stays text: it cannot become markup.

The template of a module is ``templates/<its name>.html`` or ``.md`` beside it, and no other module fills it in:
so :mod:`repix.provenance.code` knows whose code it is, and an edit of it re-runs the stages that write the page.
A template includes no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from repix.tables import markdown

FOLDER = "templates"

# Characters that begin markup in Markdown. An underscore does so only at the edge of a word, "&" only before a name.
_MARKUP = re.compile(r"[\\`*<>\[\]~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


class Written(str):
    """Text that is Markdown already: a template takes it as it is."""

    __slots__ = ()


def escape(text: Any) -> Written:
    """Return text as Markdown that reads as that text, on one line; what is :class:`Written` stays as it is.

    A pipe is left to :func:`repix.tables.markdown`: elsewhere it is a character like any other.
    """
    return text if isinstance(text, Written) else Written(_MARKUP.sub(r"\\\g<0>", " ".join(str(text).splitlines())))


def code(text: Any) -> Written:
    """Return text as a code span, in more backticks than it holds in a row, on one line."""
    line = " ".join(str(text).splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return Written(f"{fence}{room}{line}{room}{fence}")


def prose(text: Any) -> Written:
    """Return a message as the program says it, its `commands` in backticks as code spans, and the rest escaped."""
    parts = " ".join(str(text).splitlines()).split("`")
    if len(parts) % 2 == 0:  # the last backtick opens nothing
        parts[-2:] = ["`".join(parts[-2:])]
    return Written("".join(code(part) if place % 2 else escape(part) for place, part in enumerate(parts)))


def link(text: Any, path: str) -> Written:
    """Return a link to a file, or behind a ``!`` a picture, in Markdown."""
    return Written(f"[{escape(text)}]({quote(path)})")


def block(text: Any) -> Written:
    """Return text for a block of code, with its lines.

    Raises:
        ValueError: a line of it would end the block.
    """
    if re.search(r"^\s*(```|~~~)", str(text), re.MULTILINE):
        raise ValueError(f"cannot stand in a block of code: {text!r}")
    return Written(text)


def table(rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> Written:
    """Return rows, the heading first, as a table in Markdown, with every cell escaped."""
    return Written("\n".join(markdown([[escape(cell) for cell in row] for row in rows], right=right)))


def render(module: str, kind: str, /, **values: Any) -> str:
    """Return the page of a module with values filled in: the same values, the same text.

    Args:
        module: its ``__file__``.
        kind: ``html`` or ``md``.
        values: what the template names; one that it names and that is not given is an error.

    Raises:
        ValueError: something filled in is None.
        jinja2.UndefinedError: a value is missing.
    """
    path = Path(module).with_suffix(f".{kind}")
    text = (path.parent / FOLDER / path.name).read_text(encoding="utf-8")
    return _environment(kind).from_string(text).render(values)


@cache
def _environment(kind: str):
    """Return the Jinja2 environment of a kind of page; it has no loader, so that no template reaches another."""
    from jinja2 import Environment, StrictUndefined

    def filled(value: Any) -> Any:
        if value is None:
            raise ValueError("a page is given None where it shows a value")
        return value if kind == "html" else escape(value)

    made = Environment(
        autoescape=kind == "html",
        finalize=filled,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    if kind == "md":
        made.filters |= {one.__name__: one for one in (code, prose, link, block, table)}
    return made
