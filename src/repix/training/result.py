"""What a finished training leaves: ``runs/<cell>/`` with its record and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repix.arrays import save_arrays
from repix.config.models import Recipe
from repix.files import atomic_folder
from repix.inference.trained import by_network, digests
from repix.schemas import Trained
from repix.training.checkpoint import Checkpoint, write_checkpoint
from repix.training.parent import STATE


def record_of(cell, recipe: Recipe, setup, state, manifest, history, best, data: str, profile: dict) -> Trained:
    """Return the record of a finished training.

    Args:
        cell: data set, model and seed.
        recipe: the model's entry, defaults filled in.
        setup: see :class:`repix.training.setup.Setup`, at its last weights.
        state: what ``setup.step.state()`` returned then.
        manifest: the prepared data's manifest.
        history: what the loop returned.
        best: weights kept at the best validation; empty without one.
        data: digest of the prepared data.
        profile: the execution profile's record.
    """
    networks = setup.system.networks
    if history.best:
        history.best["networks"] = digests(best, networks)
    start = setup.beginning
    return Trained(
        cell=cell.name,
        dataset=cell.dataset,
        model=cell.model,
        seed=cell.seed,
        steps=recipe.epochs * setup.step.steps_per_epoch,
        epochs=recipe.epochs,
        profile=profile,
        recipe=recipe.model_dump(mode="json"),
        crop_size=manifest.crop_size,
        source=manifest.source,
        target=manifest.target,
        translators=setup.system.translators,
        networks=digests(state, networks),
        best=history.best,
        ema={"decay": recipe.ema, "networks": digests(averages(state), networks)} if recipe.ema else None,
        data_digest=data,
        direction=manifest.direction,
        start=start.record.told() if start else None,
    )


def averages(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the averages in a step's state under the names of the weights; empty where none are kept.

    A weight that no optimizer moves has none, and stands as it is.
    """
    networks = {name.split("/")[1] for name in state if name.startswith("ema/")}
    return {name: state.get(f"ema/{name}", array) for name, array in state.items() if name.split("/")[0] in networks}


def write(
    out: Path,
    record: Trained,
    state: dict[str, np.ndarray],
    best: dict[str, np.ndarray],
    kept: Checkpoint | None = None,
) -> None:
    """Write the folder of a finished training: record, last weights, and best weights and averages if any.

    Args:
        kept: the finished state of a recipe with ``keep_state``.
    """
    with atomic_folder(out) as folder:
        for variant, arrays in (("last", state), ("best", best), ("ema", averages(state))):
            for network, named in by_network(arrays, record.networks).items():
                if named:
                    save_arrays(folder / variant / f"{network}.npz", named)
        if kept is not None:
            write_checkpoint(folder / STATE, kept, record.cell)
        record.write(folder / "trained.json")
