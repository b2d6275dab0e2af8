"""start: the weights that a cell's training starts from, where its model names a parent.

runs/<parent>/ or a file -> starts/<cell>/ with start.json and what is taken over; of a cell without a
parent start.json says so. It always runs, in a moment: which cell is the parent stands in params.yaml,
where DVC sees no path. What it leaves changes with the parent, and then the cell trains again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.cells import Cell
from repix.config import models, reader
from repix.training import parent


def main(cell: Cell) -> None:
    """Fetch the parent of ``cell``."""
    recipe = reader.read(f"models.{cell.model}", models.Recipe)
    recipe.model_dump()  # all of it is checked, and all of it is read
    parent.fetch(cell, recipe.start_from, paths.STARTS / cell.name)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", "model", "seed", profiled=False)
