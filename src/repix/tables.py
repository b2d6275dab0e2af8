"""Tables for people: columns of text, aligned."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return a line per row, columns two spaces apart and as wide as their longest text.

    Args:
        rows: texts, the heading among them; all rows have one length.
        right: columns whose texts end together, such as numbers; the others begin together.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
