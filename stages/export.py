"""export: the trained translator in the forms that people use, provably the same function.

runs/<cell>/ -> exports/<cell>/ with export.json, MODEL_CARD.md, croissant.json, and in
<translator>/ model.keras, saved_model, model.onnx and model.tflite. Each file is loaded back
in its own runtime and compared with the network.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.cells import Cell
from repix.config import export as config
from repix.config import reader
from repix.config.archive import Archive


def main(cell: Cell) -> None:
    """Export ``cell``."""
    settings = reader.read("export", config.Export)
    prepared, trained = paths.PREPARED / cell.dataset, paths.RUNS / cell.name
    metrics, out = paths.METRICS / f"{cell.name}.json", paths.EXPORTS / cell.name
    archive = reader.read(f"datasets.{cell.dataset}.archive", Archive)
    described = archive.model_dump(mode="json", include={"urls", "sha256", "licence"})
    params = {"export": settings, f"datasets.{cell.dataset}.archive": described}
    record = stage.LineageRecord("export", cell.name, params, [prepared, trained, metrics])

    from repix.data.prepared import Prepared
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel
    from repix.schemas import Metrics
    from repix.tracking import mlflow_run
    from repix.training.history import Row

    model = TrainedModel(trained)
    scores = Metrics.read(metrics)
    measured = export(model, Prepared.open(prepared), settings, out, metrics=scores, archive=archive)
    for name, seen in sorted(measured.items()):
        print(
            f"{cell.name}: {name}: error {seen.max_error:.2g} at most on [-1, 1], {seen.ms_per_image:.0f} ms per image"
        )

    record.check()
    run = mlflow_run.run_of(cell.name, record.declared.inputs[trained.as_posix()])
    values = {
        f"score/export/{name}/{key}": value for name, seen in measured.items() for key, value in seen.values().items()
    }
    run.curve([Row(model.record.epochs, model.record.steps, values)])
    digest = stage.digest_tree(out)
    mlflow_run.log_model_entry(run, cell.name, out.as_posix(), digest, metrics=scores)
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", "model", "seed")
