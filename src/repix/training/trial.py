"""A few iterations on drawn images: what one takes on this machine, before anything is trained."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from repix.config.images import load_size
from repix.config.models import Recipe
from repix.data.sampler import Sampler
from repix.models.initialization import initialize
from repix.systems.system import System
from repix.training.backend import step_module
from repix.training.loop import FETCH_EVERY
from repix.training.step import Step


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
    sides = load_size(size)
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

    They run in blocks, as in a training: on some backends a block is one call, and what a call costs is shared by all.

    Args:
        system, recipe, size, source, target: as of :func:`drawn_step`.
        seconds: for how long; at least three blocks are run.
        untimed: runs of the schedule, at least one, that are not counted, after the one that compiles: memory and
            caches settle.
    """
    before = time.perf_counter()
    step = drawn_step(system, recipe, size, source, target)
    done, cycle = 0, len(system.schedule)

    def run(iterations: int) -> float:
        """Run some iterations, and return the seconds of one."""
        nonlocal done
        start, end = time.perf_counter(), done + iterations
        while done < end:
            done += len(step.run(done, end - done, recipe.optimizer.learning_rate)[1])
        return (time.perf_counter() - start) / iterations

    run(cycle)
    first = time.perf_counter() - before
    one = min(run(cycle) for _ in range(untimed))
    # Whole schedules, as many as a third of the time has room for.
    block = cycle * max(1, min(FETCH_EVERY, int(seconds / (3 * one))) // cycle)
    times = [run(block) for _ in range(3)]
    while sum(times) * block < seconds:
        times.append(run(block))
    return Trial(1000 * statistics.median(times), first, len(times) * block)
