"""Cells of several seeds each, side by side: whether their means differ by more than other seeds alone would make them.

The gate and `repix compare` judge one cell by a noise that was measured before; here both sides bring their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repix.metrics import direction
from repix.regression.baseline import Entry
from repix.regression.gate import unlike
from repix.regression.tolerance import mean_and_sd, values_of, welch

LEVEL = 0.05
"""A difference whose p is below it has a word; of twenty scores of equal recipes, one comes out so by chance."""

Key = tuple[str, str, str]  # translator, variant, metric


@dataclass(frozen=True)
class Difference:
    """One score of two families.

    Attributes:
        means, sds: of each over its seeds; the standard deviation with n - 1.
        p: of Welch's test, which takes neither equal noise nor equal numbers of seeds for granted; None where
            the scores were not measured alike.
        word: ``better`` or ``worse`` of the second family, ``noise``, ``equal``, or empty where nothing is judged.
        why: why nothing is.
    """

    means: tuple[float, float]
    sds: tuple[float, float]
    p: float | None
    word: str
    why: str = ""

    @property
    def step(self) -> float:
        """How far the mean of the second is from that of the first."""
        return self.means[1] - self.means[0]


def differences(one: Sequence[Entry], other: Sequence[Entry], why: str = "") -> dict[Key, Difference]:
    """Return translator, variant, metric -> what two families have of it, for the scores that all their seeds have.

    Of a score that one seed lacks there is nothing: the others would be another selection of seeds.

    Args:
        one, other: the scores of two seeds or more.
        why: a reason to judge none, known beforehand.
    """
    values, others = values_of(one), values_of(other)
    found = {}
    for key in (key for key in values if key in others):
        (mean, sd), (other_mean, other_sd) = mean_and_sd(values[key]), mean_and_sd(others[key])
        finite = all(map(math.isfinite, (mean, other_mean)))
        reason = why or _unlike(key, one[0], [*one[1:], *other]) or ("" if finite else "not a finite number")
        p = None if reason else welch(values[key], others[key])
        word = "" if p is None or direction(key[2]) is None else _word(key[2], other_mean - mean, p)
        found[key] = Difference((mean, other_mean), (sd, other_sd), p, word, reason)
    return found


def _unlike(key: Key, first: Entry, others: Sequence[Entry]) -> str:
    """Return how the first score was measured otherwise than another one; empty where it was not."""
    translator, _, metric = key
    for entry in others:
        if lines := unlike(first, entry, translator, metric):
            return f"measured otherwise: {lines[0]}"
    return ""


def _word(metric: str, step: float, p: float) -> str:
    if p >= LEVEL:
        return "noise" if step else "equal"
    return "better" if step * direction(metric) > 0 else "worse"
