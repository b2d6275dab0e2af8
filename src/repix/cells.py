"""Cells, the trained results, and the names that data sets, models and cells may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from repix.errors import UserError

SEEDS = 2**31
"""Seeds are smaller than this."""

_NAME = "[A-Za-z0-9][A-Za-z0-9_]*"
NAME = re.compile(rf"{_NAME}\Z")
"""The name of a data set, a model or a network: without a dash, which parts a cell's name, and without a slash."""

_CELL = re.compile(rf"{_NAME}-{_NAME}-(0|[1-9][0-9]{{0,9}})\Z")


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

    @classmethod
    def named(cls, name: str) -> Cell:
        """Return the cell whose :attr:`name` this is.

        Raises:
            UserError: no cell is called so.
        """
        if not is_cell(name):
            raise UserError(f"{name!r} is no cell; a cell is named <dataset>-<model>-<seed>")
        return cls.parse(*name.split("-"))

    @property
    def family(self) -> str:
        """``<dataset>-<model>``: what is common to cells that differ in their seed alone."""
        return f"{self.dataset}-{self.model}"

    @property
    def name(self) -> str:
        """``<dataset>-<model>-<seed>``, the name of its folders, metrics and run."""
        return f"{self.family}-{self.seed}"


def is_cell(name: str) -> bool:
    """Whether this is the :attr:`Cell.name` of a cell."""
    found = _CELL.match(name)
    return found is not None and int(found[1]) < SEEDS


def _names_a_cell(name: str) -> str:
    try:
        return Cell.named(name).name
    except UserError as error:
        raise ValueError(str(error)) from None


CellName = Annotated[str, AfterValidator(_names_a_cell)]
"""The name of a cell, in a record or in params.yaml."""
