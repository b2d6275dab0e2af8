"""A training step of a recipe's networks, without a pipeline around it."""

from __future__ import annotations

from checks.harness import ROOT

FILTERS = 64  # of the first layers, as both papers have it


def recipe_of(system: str, precision: str):
    """Return the model's entry of params.yaml with another precision."""
    from repix.config import models, reader

    found = reader.read(f"models.{system}", models.Recipe, ROOT / "params.yaml")
    return found.model_copy(update={"precision": precision})


def built_step(system: str, size: int, batch: int, precision: str, filters: int | None = None):
    """Return the step of ours on the backend in force, at its first weights, on images that are drawn.

    Args:
        system, size, batch, precision: what is trained.
        filters: of the first layer of each network, others are multiples; None: as the recipe has it.

    Returns:
        The :class:`repix.training.step.Step`, and the floating-point operations of one iteration.
    """
    from repix.libraries import import_keras

    import_keras()
    import numpy as np

    from repix.data.sampler import Sampler
    from repix.description.facts import facts
    from repix.models.initialization import initialize
    from repix.systems.system import build
    from repix.training.backend import step_module

    backend = step_module()
    recipe = recipe_of(system, precision)
    recipe = recipe.model_copy(update={"batch_size": batch})
    if filters is not None:
        parts = {part: getattr(recipe, part) for part in ("generator", "discriminator")}
        narrowed = {name: part.model_copy(update={"filters": filters}) for name, part in parts.items()}
        recipe = recipe.model_copy(update=narrowed)
    built = build(recipe, (size, size), 3, 3, True)
    initialize(built.networks, "normal", 0)
    byte = ((0.0,) * 3, (255.0,) * 3)
    side = size * 286 // 256
    images = np.random.default_rng(0).integers(0, 256, (2, max(batch, 4), side, side, 3), np.uint8)
    sampler = Sampler(
        *images, seed=0, batch_size=batch, crop_size=(size, size), flip=True, uniforms=built.uniforms
    )  # fmt: skip
    step = backend.Step(built, recipe.optimizer, sampler, byte, byte, 0)
    return step, facts(built, recipe, 3, 3).step_flops
