"""The two directions that a cell can translate in, and what each of them starts from and makes."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Direction(StrEnum):
    """A direction of translation. It is also the translator's name, in records and in the names of files.

    Not to be confused with ``datasets.<name>.direction`` (AtoB or BtoA), which says which images are the source.
    """

    SOURCE_TO_TARGET = "source_to_target"
    TARGET_TO_SOURCE = "target_to_source"

    def sides(self, source: T, target: T) -> tuple[T, T]:
        """Return what the translation starts from, and what it makes, of something that both sides have."""
        return (source, target) if self is Direction.SOURCE_TO_TARGET else (target, source)
