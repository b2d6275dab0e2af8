"""``run``: the grid of cells that ``dvc repro`` trains, and the execution profile."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from repix.cells import NAME, SEEDS, Cell
from repix.config.reader import Settings
from repix.profile import PROFILES, SHARDED


def _is_a_profile(name: str, *more: str) -> str:
    if name not in (*more, *PROFILES) and not SHARDED.fullmatch(name):
        expected = f"{', '.join(map(repr, (*more, *PROFILES)))} or 'jax-4' (for so many devices)"
        raise PydanticCustomError("literal_error", "not one of {expected}", {"expected": expected})
    return name


ProfileName = Annotated[str, AfterValidator(lambda name: _is_a_profile(name))]
"""An execution profile: ``portable``, ``fast``, ``jax``, or ``jax-4`` for four devices; see :mod:`repix.profile`."""


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

    def profile_of(self, own: str) -> str:
        """Return the execution profile of the stages of a model whose entry names ``own``."""
        return own if self.profile == "auto" else self.profile

    def cells(self) -> list[Cell]:
        """Return the cells of the grid, data set by data set."""
        return [Cell(d, m, s) for d in self.datasets for m in self.models for s in self.seeds]
