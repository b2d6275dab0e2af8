"""``run``: the grid of cells that ``dvc repro`` trains, and the execution profile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from repix.config.reader import Settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Cell:
    """One trained result: a data set, a model and a seed."""

    dataset: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """``<dataset>-<model>-<seed>``, the name of its folders, metrics and run."""
        return f"{self.dataset}-{self.model}-{self.seed}"


class Run(Settings):
    """The grid: every data set with every model with every seed.

    Attributes:
        datasets, models: names of entries.
        seeds: one cell each.
        profile: execution profile of all stages; ``auto`` takes that of the model's entry,
            and ``portable`` for stages that have no model.
    """

    datasets: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    profile: Literal["auto", "portable", "fast"] = "auto"

    @field_validator("datasets", "models")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not NAME.match(name):
                # A dash would make the cell's name ambiguous, a slash would leave its folder.
                raise ValueError(f"{name!r}: names are letters, digits and underscores")
        return names

    @field_validator("seeds")
    @classmethod
    def _counting_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= seed < 2**31 for seed in seeds):
            raise ValueError("seeds are whole numbers from 0 to 2147483647")
        return seeds

    def cells(self) -> list[Cell]:
        """Return the cells of the grid, data set by data set."""
        return [Cell(d, m, s) for d in self.datasets for m in self.models for s in self.seeds]
