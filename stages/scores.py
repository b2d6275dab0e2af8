"""scores: the scores of all cells of the grid in one small table.

metrics/<cell>.json -> metrics/scores.json (in git): metric -> mean over seeds, without all that says how
it was measured. `dvc exp show`, `dvc metrics diff`, VS Code and Studio read this file, whichever cells there are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import reader
from repix.config.run import Grid
from repix.evaluation import summary
from repix.files import write_json
from repix.schemas import Metrics, Trained


def main() -> None:
    """Write the table."""
    found = []
    for cell in reader.read("run", Grid).cells():
        place, trained = paths.METRICS / f"{cell.name}.json", paths.RUNS / cell.name / "trained.json"
        metrics = Metrics.read(place)
        # Inputs of which there are as many as cells cannot be named in dvc.yaml, so DVC does not look at them.
        if trained.exists():
            summary.checked(metrics, Trained.read(trained).networks, place.as_posix())
        found.append((cell, metrics))
    write_json(paths.METRICS / summary.FILE, summary.summary(found))
    print("\n".join(summary.whereabouts([cell.name for cell, _ in found])))


if __name__ == "__main__":
    stage.run(main, __doc__, profiled=False)
