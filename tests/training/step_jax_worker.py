"""What tests/training/test_step_jax.py runs in a process of its own: one process has one Keras backend.

    python -m tests.training.step_jax_worker SYSTEM DATA FOLDER FIRST

Runs iterations FIRST to 20 of a tiny training, from ``FOLDER/state-FIRST.npz`` where FIRST is not 0,
and writes losses and states into FOLDER.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from repix import profile

STEPS = 20
ONE = 8  # the iteration after which states of both backends are compared that began it alike


def compared(system: str, data: str):
    """Return the tiny training that both backends run: no dropout, since each has masks of its own."""
    # With Adam's 1e-8 its first steps follow the signs of the smallest gradients, and rounding decides
    # these: TensorFlow against itself, first weights moved by 1e-7, differs by 3e-4 after 20 steps of cyclegan.
    generator = {"filters": 4, "dropout": 0.0} | ({"kind": "resnet", "blocks": 1} if system == "cyclegan" else {})
    updates = 3 if system == "pix2pix" else 1
    optimizer = {"epsilon": 1e-3, "discriminator_rate": 1e-4}
    options = {"initializer": "glorot", "optimizer": optimizer, "generator": generator, "pool": 2, "ema": 0.9}
    if system == "pix2pix":
        options["loss"] = {"r1": 1.0}
    return new(system, data, discriminator_updates=updates, **options)


def new(system: str, data: str, **changes):
    """Return a tiny training."""
    from checks.support import cells
    from repix.cells import Cell
    from repix.data.prepared import Prepared
    from repix.training.setup import set_up

    recipe = cells.recipe(system, **changes)
    return set_up(Cell("tiny", system, 0), recipe, Prepared.open(data), flip=True)


def run(step, first: int, last: int, *, at_once: int = STEPS) -> dict[str, list[float]]:
    """Run iterations in blocks of at most ``at_once``; return the values of each loss."""
    found: dict[str, list[float]] = {}
    while first < last:
        names, losses = step.run(first, min(at_once, last - first), 2e-4)
        for name, values in zip(names, losses.T.tolist(), strict=True):
            found.setdefault(name, []).extend(values)
        first += len(losses)
    return found


ADAM = {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-3}
ADAM_STEPS = 6


def adam(epsilon_hat: bool):
    """Return the three weights of a linear map after each of :data:`ADAM_STEPS` steps of Adam, shape (steps, 3)."""
    from types import SimpleNamespace

    import keras
    import numpy as np
    from keras import ops

    from repix.config.models import Optimizer
    from repix.systems.system import System, Update
    from repix.training.backend import step_module

    network = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Conv2D(1, 1, use_bias=False, name="map")])
    network.layers[0].kernel.assign(adam_data()[0].reshape(1, 1, 3, 1))

    def loss(batch, generated, gradient):
        value = ops.mean(ops.square(generated["fake"] - batch.target))
        return value, {"g": value}

    system = System(
        networks={"generator": network},
        optimizer_groups={"generator": ("generator",)},
        translators={},
        generate=lambda batch: {"fake": network(batch.source)},
        schedule=((Update("generator", loss),),),
    )

    def batch(number):
        source = adam_data()[1][number].reshape(1, 1, 1, 3)
        return source, np.zeros((1, 1, 1, 1), np.uint8), np.zeros((1, 0), np.float32)

    still = np.zeros((1, 1, 1, 1), np.uint8)
    sampler = SimpleNamespace(steps_per_epoch=1, batch=batch, source=still, target=still, crop_size=(1, 1))
    ranges = ((0.0,) * 3, (255.0,) * 3), ((0.0,), (255.0,))
    step = step_module().Step(system, Optimizer(**ADAM, epsilon_hat=epsilon_hat), sampler, *ranges, 0)
    found = []
    for number in range(ADAM_STEPS):
        step.run(number, 1, ADAM["learning_rate"])
        (kernel,) = (array for name, array in step.state().items() if not name.startswith("adam/"))
        found.append(kernel.ravel().copy())
    return np.stack(found)


def adam_data():
    """Return first weights (3) and sources (steps, 3), uint8, all grey but a little: small gradients."""
    import numpy as np

    generator = np.random.default_rng(0)
    return np.float32([0.3, -0.2, 0.1]), generator.integers(126, 131, (ADAM_STEPS, 3), np.uint8)


def augmented():
    """Return what a discriminator sees of two images and their sources, (2, 16, 16, 4)."""
    import numpy as np
    from keras import ops

    from repix.models.augmentation import UNIFORMS, augment

    chance = np.random.default_rng(0)
    image, source = (chance.uniform(-1, 1, (2, 16, 16, channels)).astype(np.float32) for channels in (3, 1))
    uniforms = chance.random((2, UNIFORMS), np.float32)
    seen = augment(*map(ops.convert_to_tensor, (image, source, uniforms)), ("colour", "translation", "cutout"))
    return np.asarray(ops.concatenate(seen, axis=-1))


def masks():
    """Return dropout masks by (layer's key, counter), the first one drawn twice."""
    import numpy as np

    from repix.models.layers import Dropout

    layer, found = Dropout(0.5), []
    for key, counter in ((7, 64), (8, 0), (7, 64), (7, 128), (9, 64)):
        layer.reseed(key, counter)
        found.append(np.asarray(layer(np.ones((1, 16, 16, 8), np.float32), training=True)))
    return np.stack(found)


def main(system: str, data: str, folder: Path, first: int) -> None:
    """Run; see the module."""
    profile.apply("jax")
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # a third of the time to compile
    import keras
    import numpy as np

    from repix.training import step_jax

    assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
    # One compiled function of the large system does for all that is asked of it.
    shared = system == "cyclegan"
    setup = compared(system, data) if shared else new(system, data)
    step = setup.step
    beginning = {name: np.array(array) for name, array in step.state().items()}
    if first:
        step.restore(dict(np.load(folder / f"state-{first}.npz")))
        run(step, first, STEPS, at_once=1)
        np.savez(folder / "resumed.npz", **step.state())
        return
    told: list[int] = []
    assert len(step.run(0, 7, 2e-4, told.append)[1]) == 7 and told == [1, 2, 3, 4, 5, 6, 7]
    np.savez(folder / "state-7.npz", **step.state())
    run(step, 7, STEPS)
    np.savez(folder / "state-20.npz", **step.state())
    # Taken up again, in blocks of other lengths.
    step.restore(dict(np.load(folder / "state-7.npz")))
    run(step, 7, STEPS, at_once=1)
    np.savez(folder / "again.npz", **step.state())

    if system == "pix2pix":
        step_jax.resident_bytes = lambda: float("inf")
        resident = new(system, data).step
        assert resident._batch(0)[0].shape == (1, 4)
        run(resident, 0, STEPS)
        np.savez(folder / "resident.npz", **resident.state())
        step_jax.resident_bytes = lambda: 0.0
    np.savez(folder / "masks.npz", masks=masks(), augmented=augmented())
    if system == "pix2pix":
        np.savez(folder / "adam.npz", hat=adam(True), corrected=adam(False))

    other = setup if shared else compared(system, data)
    if shared:
        step.restore(beginning)
    np.savez(folder / "compared-0.npz", **other.step.state())
    losses = []
    for number in range(3):
        losses.append(run(other.step, number, number + 1))
        np.savez(folder / f"compared-{number + 1}.npz", **other.step.state())
    losses.append(run(other.step, 3, STEPS))
    names = sorted(losses[-1])
    np.savez(folder / "losses.npz", **{name: [v for part in losses for v in part.get(name, ())] for name in names})
    np.savez(folder / "compared-20.npz", **other.step.state())
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    shown = {name: translator.translate(image) for name, translator in other.translators.items()}
    np.savez(folder / "translations.npz", **shown)
    # Each iteration from the state that the other backend began it with.
    followed: dict[str, list[float]] = {}
    for number in range(STEPS):
        other.step.restore(dict(np.load(folder / f"other-{number}.npz")))
        for name, values in run(other.step, number, number + 1).items():
            followed.setdefault(name, []).extend(values)
        if number == ONE:
            np.savez(folder / "other-after.npz", **other.step.state())
    np.savez(folder / "followed.npz", **followed)
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
