"""The options of the data sets that repix draws itself: ``synthetic:<generator>?option=value``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from repix.config.reader import nearest
from repix.errors import UserError

SPLITS = ("train", "val", "test")
DEFAULTS = {"size": 64, "train": 400, "val": 40, "test": 100, "seed": 0}
ALLOWED = {
    "size": (16, 1024),
    "train": (1, 1_000_000),
    "val": (0, 1_000_000),
    "test": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
}
GENERATORS = ("facades",)


def settings(generator: str, options: Mapping[str, str]) -> dict[str, int]:
    """Return the options of a generator as integers, complete with the defaults.

    Raises:
        UserError: an unknown generator or option, or a value that is not allowed.
    """
    if generator not in GENERATORS:
        raise UserError(
            f"synthetic:{generator}: no such generator{nearest(generator, GENERATORS)}; "
            f"generators: {', '.join(GENERATORS)}"
        )
    found = dict(DEFAULTS)
    for name, text in options.items():
        if name not in DEFAULTS:
            raise UserError(
                f"synthetic:{generator}: unknown option {name!r}{nearest(name, DEFAULTS)}; "
                f"options: {', '.join(DEFAULTS)}"
            )
        low, high = ALLOWED[name]
        if not re.fullmatch(r"-?[0-9]{1,100}", text):
            raise UserError(f"synthetic:{generator}: {name}={text}: expected an integer of {low} .. {high}")
        found[name] = min(max(int(text), low), high)
        if found[name] != int(text):
            raise UserError(
                f"synthetic:{generator}: {name}={text}: expected {low} .. {high}; the nearest is {found[name]}"
            )
    return found
