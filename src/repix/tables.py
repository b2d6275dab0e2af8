"""Tables for people: columns of text, aligned, or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from repix.errors import printable

_WIDEST = 40  # characters: wider cells are not padded


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return a line per row, columns two spaces apart and as wide as their longest text.

    Args:
        rows: texts, the heading among them; all rows have one length. What a terminal would obey is spelt out.
        right: columns whose texts end together, such as numbers; the others begin together.
    """
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]], right: Collection[int] = (), *, padded: bool = False) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        rows: Markdown of the cells, the heading first; all rows have one length. What would end a cell,
            a pipe or a line break, does not.
        right: columns whose cells end together.
        padded: fill cells up to 40 characters, so that the table also reads well in a terminal.
    """
    cells = [[_cell(text) for text in row] for row in rows]
    if not padded:
        rule = "|".join("--:" if column in right else "---" for column in range(len(cells[0])))
        head, *body = [f"| {' | '.join(row)} |" for row in cells]
        return [head, f"|{rule}|", *body]
    widths = [min(_WIDEST, max(3, *map(len, column))) for column in zip(*cells, strict=True)]
    head, *body = [
        [text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in enumerate(places)]
        for places in (zip(row, widths, strict=True) for row in cells)
    ]
    rule = [f"{'-' * (width - 1)}:" if column in right else "-" * width for column, width in enumerate(widths)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]


def _cell(text: str) -> str:
    """Return a cell on one line, with each pipe behind an odd number of backslashes: those it had, or one more."""
    line = " ".join(text.splitlines())
    return re.sub(r"(\\*)\|", lambda found: f"{found[1]}{'' if len(found[1]) % 2 else chr(92)}|", line)


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for unit, name in ((86400, "days"), (3600, "h")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, seconds):.0f} s"
