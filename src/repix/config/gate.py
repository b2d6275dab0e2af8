"""``gate``: which scores are defended, and how often another seed alone may turn the gate red."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from repix.config.reader import Settings
from repix.metrics import NAMES


class Gate(Settings):
    """``gate``: read by ``repix seeds``, which turns it into tolerances; the gate reads those alone.

    Attributes:
        seeds: what ``repix seeds`` trains where it is not told otherwise.
        metrics: the metrics that are gated, by the first part of their names: ``fid`` covers
            ``fid_768`` too. The others are measured and shown, but turn nothing red.
        variants: the weights whose scores are gated. The correction for many comparisons is
            shared by all of them, so each further one makes the tolerances wider.
        false_alarm: chance, per cell, that another seed alone turns any of its scores red.
        power: chance with which the stated smallest detectable effect is seen.
    """

    seeds: tuple[int, ...] = Field(default=tuple(range(10)), min_length=2)
    metrics: tuple[Literal[NAMES], ...] = Field(default=NAMES, min_length=1)
    variants: tuple[Literal["last", "best", "ema", "last_paper", "best_paper", "ema_paper"], ...] = Field(
        default=("last",), min_length=1
    )
    false_alarm: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.9, gt=0.5, lt=1)

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or any(not 0 <= seed < 2**31 for seed in seeds):
            raise ValueError("seeds are different whole numbers from 0 to 2147483647")
        return seeds
