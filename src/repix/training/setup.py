"""Setting a training up: networks, step and translators from a recipe and a prepared data set."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from repix import profile
from repix.cells import Cell
from repix.config.models import Recipe
from repix.data.prepared import Prepared
from repix.data.sampler import Sampler
from repix.directions import Direction
from repix.errors import UserError
from repix.inference.backend import backend_module
from repix.inference.translator import Translator
from repix.models.initialization import initialize, weights
from repix.registry import STARTS
from repix.systems.system import System, build
from repix.training.backend import step_module
from repix.training.step import Step


@dataclass(frozen=True)
class Setup:
    """A system on its data, at its first weights.

    Attributes:
        system: networks, losses and schedule.
        step: the backend's step, with the batches of the train split.
        translators: name -> function of stored integers, following the weights.
        beginning: what is taken over from a parent (:class:`repix.training.start.Beginning`); None at first weights.
    """

    system: System
    step: Step
    translators: dict[str, Translator]
    beginning: Any = None

    def parameters(self) -> dict[str, int]:
        """Return the trainable parameters of each network."""
        return {
            name: sum(math.prod(variable.shape) for variable in network.trainable_variables)
            for name, network in self.system.networks.items()
        }

    def translator_weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the weights of the networks that translate, by name."""
        return {
            name: np.array(keras.ops.convert_to_numpy(variable))
            for network in sorted(set(self.system.translators.values()))
            for name, variable in weights(network, self.system.networks[network]).items()
        }


def set_up(cell: Cell, recipe: Recipe, prepared: Prepared, *, flip: bool, start: Path | None = None) -> Setup:
    """Build the networks for a data set, set their first weights, and open the train split.

    Args:
        cell: names the seed.
        recipe: the model's entry.
        prepared: the data set's arrays.
        flip: whether training mirrors images.
        start: ``starts/<cell>``, of a recipe that starts from a parent.

    Raises:
        UserError: the system needs pairs, or its networks another size; the parent's weights do not fit; the batch
            cannot be cut over the profile's devices.
    """
    if (shards := profile.current().shards) and recipe.batch_size % shards:
        key, size = f"models.{cell.model}.batch_size", recipe.batch_size
        raise UserError(f"{key}: {size} on {shards} devices: make it a multiple of {shards}")
    manifest = prepared.manifest
    backend = step_module()
    system = build(recipe, manifest.crop_size, manifest.source.channels, manifest.target.channels, manifest.paired)
    initialize(system.networks, recipe.initializer, cell.seed)
    source, target = manifest.source, manifest.target
    beginning = None
    if recipe.start_from is not None:
        if start is None:
            raise UserError(f"models.{cell.model}.start_from: only the pipeline knows the parent: `dvc repro`")
        beginning = importlib.import_module(STARTS["parent"]).Beginning(cell, recipe, start)
        beginning.put_weights(system, manifest.crop_size, (source.channels, target.channels))
    train = prepared.split("train")
    sampler = Sampler(
        train.source,
        train.target,
        seed=cell.seed,
        batch_size=recipe.batch_size,
        crop_size=manifest.crop_size,
        flip=flip,
        paired=manifest.paired,
        replacement=recipe.sampling == "replacement",
        uniforms=system.uniforms,
    )
    ranges = (source.low, source.high), (target.low, target.high)
    step = backend.Step(system, recipe.optimizer, sampler, *ranges, cell.seed, recipe.ema)
    if beginning is not None:
        beginning.put_moments(step)
    translators = {
        name: Translator(
            system.networks[network], *Direction(name).sides(source, target), backend_module().compile_function
        )
        for name, network in system.translators.items()
    }
    return Setup(system, step, translators, beginning)
