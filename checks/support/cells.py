"""A tiny trained cell, made by the code that the stages call, in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZE = 16


class TinyCell(NamedTuple):
    """Where things lie, as the stages leave them below one root."""

    root: Path
    prepared: Path
    trained: Path


def images(seed: int, n: int, size: tuple[int, int] = (SIZE, SIZE), channels: int = 3) -> np.ndarray:
    """Return (n, height, width, channels) uint8 noise, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), np.uint8)


def recipe(system: str = "pix2pix", **changes: Any):
    """Return a recipe of four filters; ``changes`` replace fields of it."""
    from repix.config.models import Recipe

    base: dict[str, Any] = {
        "system": system,
        "generator": {"filters": 4} if system == "pix2pix" else {"filters": 4, "kind": "resnet", "blocks": 1},
        "discriminator": {"filters": 4, "layers": 1, "conditional": system == "pix2pix"},
        "loss": {"gan": "vanilla" if system == "pix2pix" else "lsgan"},
        "pool": 0 if system == "pix2pix" else 2,
        "epochs": 2,
        "decay_epochs": 1,
        "validate_every": 1,
        "checkpoint_every": 1,
    }
    return Recipe.model_validate(base | changes)


def prepare_set(
    root: Path, *, paired: bool = True, counts=(("train", 3), ("val", 2), ("test", 2)), **wanted: Any
) -> Path:
    """Write a tiny image tree below ``root``, prepare it, and return the prepared folder."""
    from repix.config.images import Images
    from repix.data import preprocess
    from repix.data.images import write

    tree = root / "images"
    for split_number, (split, n) in enumerate(counts):
        a, b = images(split_number, n), images(100 + split_number, n)
        for i in range(n):
            if paired:
                (tree / split).mkdir(parents=True, exist_ok=True)
                write(tree / split / f"{i}.png", np.concatenate([a[i], b[i]], axis=1))
            else:
                for side, array in (("A", a), ("B", b)):
                    (tree / f"{split}{side}").mkdir(parents=True, exist_ok=True)
                    write(tree / f"{split}{side}" / f"{i}.png", array[i])
    asked = {"layout": "aligned" if paired else "unaligned", "load_size": SIZE + 2, "crop_size": SIZE}
    out = root / "prepared"
    preprocess.prepare(tree, Images.model_validate(asked | wanted), out, name="tiny")
    return out


def train_cell(root: Path, *, system: str = "pix2pix", seed: int = 0, paired: bool = True, **changes: Any) -> TinyCell:
    """Prepare a tiny set and train a tiny cell on it; return where both lie."""
    from repix.cells import Cell
    from repix.data.prepared import Prepared
    from repix.evaluation.validation import Validation
    from repix.training.checkpoint import Checkpoints
    from repix.training.loop import train
    from repix.training.observer import Observer
    from repix.training.result import record_of, write
    from repix.training.setup import set_up

    folder = prepare_set(root, paired=paired)
    prepared, cell, asked = Prepared.open(folder), Cell("tiny", system, seed), recipe(system, **changes)
    setup = set_up(cell, asked, prepared, flip=True)
    validation = Validation(prepared, setup.translators, Observer().pictures)
    history, best = train(
        setup.step,
        asked,
        checkpoints=Checkpoints(root / "checkpoints", "tiny"),
        observer=Observer(),
        validate=validation.score,
        best_of=setup.translator_weights,
    )
    out = root / "runs" / cell.name
    state = setup.step.state()
    record = record_of(cell, asked, setup, state, prepared.manifest, history, best, "data", {"name": "portable"})
    write(out, record, state, best)
    return TinyCell(root, folder, out)
