"""What tests/training/test_step_jax.py runs in a process of its own: one process has one Keras backend.

    python -m tests.training.step_jax_worker SYSTEM DATA FOLDER FIRST

Plays iterations FIRST to 20 of a tiny game, from ``FOLDER/state-FIRST.npz`` where FIRST is not 0,
and writes losses and states into FOLDER.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from repix import profile

STEPS = 20


def game_of(system: str, data: str):
    """Return the tiny game that both backends play."""
    from checks.support import cells
    from repix.config.run import Cell
    from repix.data.prepared import Prepared
    from repix.training.prepare import prepare

    # With Adam's 1e-8 its first steps follow the signs of the smallest gradients, and rounding decides
    # these: TensorFlow against itself, first weights moved by 1e-7, differs by 3e-4 after 20 steps of cyclegan.
    recipe = cells.recipe(system, initializer="glorot", optimizer={"epsilon": 1e-3})
    return prepare(Cell("tiny", system, 0), recipe, Prepared.open(data), flip=True)


def play(game, first: int, last: int, *, at_once: int = STEPS):
    """Play iterations; return their losses, looking at them after each ``at_once``."""
    import numpy as np

    rows = []
    for start in range(first, last, at_once):
        numbers = range(start, min(last, start + at_once))
        answers = [game.step(number, *game.sampler.batch(number), 2e-4) for number in numbers]
        rows += [np.asarray(answer) for answer in answers]
    return np.stack(rows)


def main(system: str, data: str, folder: Path, first: int) -> None:
    """Play; see the module."""
    profile.apply("jax")
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # a third of the time to compile
    import keras
    import numpy as np

    from repix.training import step_jax

    assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
    game = game_of(system, data)
    if first:
        game.step.restore(dict(np.load(folder / f"state-{first}.npz")))
        play(game, first, STEPS, at_once=1)
        np.savez(folder / "resumed.npz", **game.step.state())
        return
    np.savez(folder / "state-0.npz", **game.step.state())
    losses = play(game, 0, 7)
    np.savez(folder / "state-7.npz", **game.step.state())
    np.savez(folder / "losses.npz", losses=np.concatenate([losses, play(game, 7, STEPS)]), names=game.step.losses)
    np.savez(folder / "state-20.npz", **game.step.state())
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    shown = {name: translator.translate(image) for name, translator in game.translators.items()}
    np.savez(folder / "translations.npz", **shown)

    # Taken up again, looked at step by step: calls of other lengths.
    game.step.restore(dict(np.load(folder / "state-7.npz")))
    play(game, 7, STEPS, at_once=1)
    np.savez(folder / "again.npz", **game.step.state())

    # One iteration from a state that the other backend left.
    game.step.restore(dict(np.load(folder / "other-7.npz")))
    play(game, 7, 8)
    np.savez(folder / "other-8.npz", **game.step.state())

    if system == "pix2pix":
        step_jax.room = lambda: float("inf")
        resident = game_of(system, data)
        assert resident.sampler.batch(0)[0].shape == (1, 4)
        play(resident, 0, STEPS)
        np.savez(folder / "resident.npz", **resident.step.state())
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
