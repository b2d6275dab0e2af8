"""train: one cell, from its first weights or from where a stopped run left off.

data/prepared/<dataset>/, and starts/<cell>/ of a model with a parent -> runs/<cell>/ (all networks,
last and best), the loss table plots/<cell>/losses.csv, and its curves in plots/<cell>/curves/.
Checkpoints are kept in .repix/checkpoints, keyed by everything that determines the training: run the
same command again after a stop and it goes on. Under a profile such as jax-4 several processes can
train one cell: see docs/scale.md.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.cells import Cell
from repix.config import models, reader
from repix.config.augment import Augment
from repix.training.gang import Place


def main(cell: Cell) -> None:
    """Train ``cell``."""
    recipe = reader.read(f"models.{cell.model}", models.Recipe)
    augment = reader.read(f"datasets.{cell.dataset}.augment", Augment)
    params = {f"models.{cell.model}": recipe, f"datasets.{cell.dataset}.augment": augment}
    folder, out, plots = paths.PREPARED / cell.dataset, paths.RUNS / cell.name, paths.PLOTS / cell.name
    losses, curves = plots / "losses.csv", plots / "curves"
    start = paths.STARTS / cell.name if recipe.start_from else None
    place = Place.read()
    inputs = [folder, start] if start else [folder]
    record = stage.LineageRecord("train", cell.name, params, inputs, clears=place.leads)

    # Heavy imports come after the mistakes that need none.
    from repix.data.prepared import Prepared
    from repix.evaluation.validation import Validation
    from repix.tracking import mlflow_run
    from repix.tracking.animation import Frames
    from repix.tracking.progress import ProgressBar
    from repix.tracking.tensorboard import TensorBoard
    from repix.training.backend import step_module
    from repix.training.checkpoint import Checkpoints
    from repix.training.history import write_curves, write_losses
    from repix.training.loop import checkpoint_of, train
    from repix.training.observer import Observers
    from repix.training.result import record_of, write
    from repix.training.setup import set_up

    prepared = Prepared.open(folder)
    data_digest = record.declared.inputs[folder.as_posix()]
    checkpoints = Checkpoints(paths.WORK / "checkpoints", record.run_key)
    with checkpoints.alone() if place.leads else nullcontext():
        with step_module().join(record.run_key, record.declared.parts()) as gang:
            setup = set_up(cell, recipe, prepared, flip=augment.flip, start=start)
            going_on = None
            if setup.beginning:
                by = {part: getattr(record.declared, part) for part in ("profile", "environment", "code")}
                going_on = setup.beginning.goes_on(setup.step, prepared, flip=augment.flip, data=data_digest, by=by)
            given = {"checkpoints": checkpoints, "start": going_on, "gang": gang}
            if not gang.leads:  # it computes its part of each step, and leaves nothing
                train(setup.step, recipe, observer=Observers(), **given)
                return
            run = mlflow_run.open_run(
                cell.name,
                run_key=record.run_key,
                # The observer adds its own.
                params=vars(cell) | {"crop_size": prepared.manifest.crop_size, "flip": augment.flip},
                tags=mlflow_run.dvc_tags(Path(), [folder.as_posix()])
                | {"repix.profile": record.declared.profile["name"]},
                dataset=mlflow_run.dataset_entry(prepared.manifest, data_digest, folder.as_posix()),
                training=True,
            )
            board = TensorBoard(paths.WORK / "tensorboard" / cell.name / record.run_key[:12])
            after = going_on.step if going_on else 0
            frames = Frames(paths.WORK / "frames", record.run_key, paths.WORK / "animation", after=after)
            observer = Observers([ProgressBar(), board, mlflow_run.MLflowObserver(run), frames])
            validation = Validation(prepared, setup.translators, observer.pictures)
            history, best = train(
                setup.step,
                recipe,
                observer=observer,
                validate=validation.score if validation.possible else None,
                picture=validation.picture,
                best_of=setup.translator_weights,
                plan={
                    "cell": cell.name,
                    "paired": prepared.manifest.paired,
                    "parameters": setup.parameters(),
                    "recipe": recipe.model_dump(mode="json"),
                },
                **given,
            )
        record.check()
        state, profile = setup.step.state(), record.declared.profile
        trained = record_of(cell, recipe, setup, state, prepared.manifest, history, best, data_digest, profile)
        for animation in frames.written:
            run.file(animation, "animation")
        kept = checkpoint_of(trained.steps, state, best, history) if recipe.keep_state else None
        write(out, trained, state, best, kept)
        write_losses(losses, history.epochs)
        write_curves(curves, history.epochs)
        record.write(out, losses, curves)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", "model", "seed", trains=True)
