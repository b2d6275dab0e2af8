"""evaluate: a trained cell on the test split.

runs/<cell>/ and data/prepared/<dataset>/ -> metrics/<cell>.json (in git) and
translations/<cell>/ with every translation, per-image scores and the picture
source | output | target, which is also in plots/<cell>/test/ for `dvc plots`.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.cells import Cell
from repix.config import evaluation, reader
from repix.files import atomic_folder


def main(cell: Cell) -> None:
    """Evaluate ``cell``."""
    settings = reader.read("evaluate", evaluation.Evaluate)
    prepared, trained = paths.PREPARED / cell.dataset, paths.RUNS / cell.name
    out, metrics = paths.TRANSLATIONS / cell.name, paths.METRICS / f"{cell.name}.json"
    shown = paths.PLOTS / cell.name / "test"
    record = stage.LineageRecord("evaluate", cell.name, {"evaluate": settings}, [prepared, trained, paths.FEATURES])

    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.evaluation.features import load_network
    from repix.evaluation.score import own_networks
    from repix.inference.trained import TrainedModel
    from repix.schemas import Archive
    from repix.tracking import mlflow_run

    network = None
    if settings.on_features:
        weights = Archive.read(paths.FEATURES / "archive.json")
        network = load_network(settings.dims, paths.FEATURES / weights.file, weights.sha256)
    model = TrainedModel(trained)
    networks = own_networks(settings, paths.FEATURES)
    given = {"features": network, "networks": networks, "cache": record.memo("repix.evaluation.features")}
    scored = evaluate(model, Prepared.open(prepared), settings, out, **given)
    record.check()
    with atomic_folder(shown) as folder:
        for translator in model.record.translators:
            shutil.copyfile(out / f"{translator}.png", folder / f"{translator}.png")
    scored.write(metrics)

    run = mlflow_run.run_of(cell.name, record.declared.inputs[trained.as_posix()])
    mlflow_run.log_metrics_record(run, scored)
    pictures = {f"test/{name}": out / f"{name}.png" for name in model.record.translators}
    mlflow_run.log_pictures(run, pictures, step=model.record.steps)
    record.write(out, shown, metrics)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", "model", "seed")
