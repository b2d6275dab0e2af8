"""export: the trained translator in the forms that people use, provably the same function.

runs/<cell>/ -> exports/<cell>/<translator>/ with model.keras, saved_model, model.onnx and
model.tflite, and export.json. Each file is loaded back in its own runtime and compared with
the network.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import stage
from repix.config import export as config
from repix.config import reader
from repix.config.run import Cell


def main(cell: Cell) -> None:
    """Export ``cell``."""
    settings = reader.read("export", config.Export)
    prepared, trained = stage.PREPARED / cell.dataset, stage.RUNS / cell.name
    metrics, out = stage.METRICS / f"{cell.name}.json", stage.EXPORTS / cell.name
    record = stage.Record("export", cell.name, {"export": settings}, [prepared, trained, metrics])

    from repix.data.store import Prepared
    from repix.exporting.export import export
    from repix.schemas import Metrics
    from repix.tracking import mlflow_run
    from repix.tracking.observers import Row
    from repix.training.trained import TrainedModel

    model = TrainedModel(trained)
    measured = export(model, Prepared.open(prepared), settings, out)
    for name, seen in sorted(measured.items()):
        print(
            f"{cell.name}: {name}: error {seen.max_error:.2g} at most on [-1, 1], {seen.ms_per_image:.0f} ms per image"
        )

    run = mlflow_run.open_run(cell.name, run_key=model.record.run_key)
    values = {f"{name}/{key}": value for name, seen in measured.items() for key, value in seen.values().items()}
    run.curve("export", [Row(model.record.epochs, model.record.steps, values)])
    digest = stage.digest_tree(out)
    mlflow_run.log_model_entry(run, cell.name, out.as_posix(), digest, metrics=Metrics.read(metrics))
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", "model", "seed")
