"""What command lines of benchmarks check alike."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def whole_number(text: str) -> int:
    """Return a number from 0 on."""
    return _from(0, text)


def positive_number(text: str) -> int:
    """Return a number from 1 on."""
    return _from(1, text)


def _from(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def refuse_unread(parser: argparse.ArgumentParser, asked: argparse.Namespace, flag: str, unread: Iterable[str]) -> None:
    """End with a line where an option is given that ``flag`` would not read, so that nobody takes it for heeded."""
    given = [name for name in unread if getattr(asked, name) not in (None, False)]
    if getattr(asked, flag) and given:
        parser.error(f"--{flag} takes no --{given[0]}")
