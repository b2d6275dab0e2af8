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
    from repix.description.facts import facts
    from repix.systems.system import build
    from repix.training.backend import step_module
    from repix.training.trial import drawn_step

    step_module()

    recipe = recipe_of(system, precision)
    recipe = recipe.model_copy(update={"batch_size": batch})
    if filters is not None:
        parts = {part: getattr(recipe, part) for part in ("generator", "discriminator")}
        narrowed = {name: part.model_copy(update={"filters": filters}) for name, part in parts.items()}
        recipe = recipe.model_copy(update=narrowed)
    built = build(recipe, (size, size), 3, 3, True)
    return drawn_step(built, recipe, (size, size), 3, 3), facts(built, recipe, 3, 3).step_flops
