"""``run``: the grid of cells that ``dvc repro`` trains, and the execution profile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from repix.config.reader import Settings
from repix.errors import UserError
from repix.profile import PROFILES, SHARDED

SEEDS = 2**31
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*\Z")


def _is_a_profile(name: str, *more: str) -> str:
    if name not in (*more, *PROFILES) and not SHARDED.fullmatch(name):
        expected = f"{', '.join(map(repr, (*more, *PROFILES)))} or 'jax-4' (for so many devices)"
        raise PydanticCustomError("literal_error", "not one of {expected}", {"expected": expected})
    return name


ProfileName = Annotated[str, AfterValidator(lambda name: _is_a_profile(name))]
"""An execution profile: ``portable``, ``fast``, ``jax``, or ``jax-4`` for four devices; see :mod:`repix.profile`."""


@dataclass(frozen=True)
class Cell:
    """One trained result: a data set, a model and a seed."""

    dataset: str
    model: str
    seed: int

    @classmethod
    def parse(cls, dataset: str, model: str, seed: str) -> Cell:
        """Return the cell that three command-line arguments name.

        Raises:
            UserError: a name with other characters than it may have, or a seed that is none.
        """
        for name in (dataset, model):
            if not NAME.match(name):
                raise UserError(f"{name!r} is not a name: names are letters, digits and underscores")
        if not re.fullmatch(r"[0-9]{1,10}", seed) or int(seed) >= SEEDS:
            raise UserError(f"{seed!r} is not a seed: seeds are whole numbers from 0 to {SEEDS - 1}")
        return cls(dataset, model, int(seed))

    @property
    def name(self) -> str:
        """``<dataset>-<model>-<seed>``, the name of its folders, metrics and run."""
        return f"{self.dataset}-{self.model}-{self.seed}"


class Grid(Settings):
    """The grid: every data set with every model with every seed.

    Attributes:
        datasets, models: names of entries.
        seeds: one cell each.
        profile: execution profile of all stages; ``auto`` takes that of the model's entry,
            and ``portable`` for stages that have no model. ``jax`` trains on JAX, and runs the
            other stages under ``fast``; ``jax-4`` trains on four devices.
    """

    datasets: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    profile: Annotated[str, AfterValidator(lambda name: _is_a_profile(name, "auto"))] = "auto"

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
        if any(not 0 <= seed < SEEDS for seed in seeds):
            raise ValueError(f"seeds are whole numbers from 0 to {SEEDS - 1}")
        return seeds

    @field_validator("datasets", "models", "seeds")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value!r} is given twice")
        return values

    def cells(self) -> list[Cell]:
        """Return the cells of the grid, data set by data set."""
        return [Cell(d, m, s) for d in self.datasets for m in self.models for s in self.seeds]
