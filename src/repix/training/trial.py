"""A few iterations on drawn images: what one takes on this machine, before anything is trained."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from repix.config.models import Recipe
from repix.data.sampler import Sampler
from repix.models.initialization import initialize
from repix.systems.system import System
from repix.training.backend import step_module
from repix.training.step import Step

JITTER = 286 / 256  # side of the drawn images to that of the crop: the papers'


@dataclass(frozen=True)
class Trial:
    """What iterations took.

    Attributes:
        ms: of an iteration, the median.
        first_seconds: of the first of each kind, which compiles, with the making of the step.
        steps: how many were timed.
    """

    ms: float
    first_seconds: float
    steps: int


def drawn_step(system: System, recipe: Recipe, size: tuple[int, int], source: int, target: int) -> Step:
    """Return the step of a system on the backend in force, at first weights, on images that are drawn.

    Args:
        system: what ``recipe`` builds for this size and these channels; its weights are set.
        recipe: what is trained.
        size: (height, width) of the crops.
        source, target: channels of both sides; values are bytes.
    """
    initialize(system.networks, recipe.initializer, 0)
    sides = [round(length * JITTER) for length in size]
    images = (
        np.random.default_rng(seed).integers(0, 256, (max(recipe.batch_size, 4), *sides, channels), np.uint8)
        for seed, channels in enumerate((source, target))
    )
    sampler = Sampler(
        *images, seed=0, batch_size=recipe.batch_size, crop_size=size, flip=True, uniforms=system.uniforms
    )  # fmt: skip
    bytes_of = [((0.0,) * channels, (255.0,) * channels) for channels in (source, target)]
    return step_module().Step(system, recipe.optimizer, sampler, *bytes_of, 0, recipe.ema)


def trial(
    system: System,
    recipe: Recipe,
    size: tuple[int, int],
    source: int,
    target: int,
    *,
    seconds: float = 5.0,
    untimed: int = 2,
) -> Trial:
    """Run iterations of a recipe and return what one takes; what is trained is thrown away.

    Args:
        system, recipe, size, source, target: as of :func:`drawn_step`.
        seconds: for how long; the schedule is run at least three times.
        untimed: runs of the schedule that are not counted, after the one that compiles: memory and caches settle.
    """
    before = time.perf_counter()
    step = drawn_step(system, recipe, size, source, target)
    done = 0

    def cycle() -> float:
        """Run each iteration of the schedule once, and return the seconds of one."""
        nonlocal done
        start = time.perf_counter()
        for _ in system.schedule:
            step.run(done, 1, recipe.optimizer.learning_rate)
            done += 1
        return (time.perf_counter() - start) / len(system.schedule)

    cycle()
    first = time.perf_counter() - before
    for _ in range(untimed):
        cycle()
    times = [cycle() for _ in range(3)]
    while sum(times) * len(system.schedule) < seconds:
        times.append(cycle())
    return Trial(1000 * statistics.median(times), first, len(times) * len(system.schedule))
