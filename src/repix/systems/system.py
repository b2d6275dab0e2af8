"""The interface of a GAN system: its networks, optimizer groups, losses and schedule of updates.

The loop, the step, the checkpoint and the evaluation know a system by this module only. A new
one is a module of this package with ``build(recipe, size, source, target)`` and a line in :mod:`repix.registry`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import keras
from keras import ops

from repix.config.models import Recipe
from repix.directions import Direction
from repix.errors import UserError
from repix.registry import SYSTEMS


@dataclass(frozen=True)
class Batch:
    """What an iteration sees: images in [-1, 1], and uniform random numbers.

    ``source`` and ``target`` are (batch, height, width, channels); ``uniforms`` is (batch,
    ``System.uniforms``) in [0, 1), all the chance that a loss may use: it follows from the seed
    and the iteration's number.
    """

    source: Any
    target: Any
    uniforms: Any


Images = dict[str, Any]  # generated images by name
# gradient(f, x): the gradient of the scalar f(x) at x, itself differentiable; each backend has its own.
Gradient = Callable[[Callable[[Any], Any], Any], Any]
LossFunction = Callable[[Batch, Images, Gradient], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Update:
    """One optimizer step: the networks of ``group`` go down the gradient of ``loss``.

    Attributes:
        group: a key of :attr:`System.optimizer_groups`.
        loss: ``loss(batch, generated, gradient)`` returns the scalar to minimise and the named
            terms to report. ``generated`` is what :attr:`System.generate` returned: for an update
            of the group ``generator`` gradients flow through it, for all others it is a constant.
            ``gradient`` is for losses that contain a gradient themselves, as WGAN-GP's does.
    """

    group: str
    loss: LossFunction


Iteration = tuple[Update, ...]


@dataclass
class System:
    """Everything that the training of a GAN has to know of it.

    Attributes:
        networks: name -> network.
        optimizer_groups: name -> names of the networks that one Adam updates. The group called
            ``generator`` is the one whose networks ``generate`` calls.
        translators: the name of a :class:`~repix.directions.Direction` -> network.
        generate: calls the generators once on a batch: all images that losses need.
        schedule: the updates of each iteration, in order, as a cycle: iteration i does
            ``schedule[i % len(schedule)]``. An iteration may have no update of the generator,
            and at most one.
        pools: image pools, whose contents belong into a checkpoint.
        uniforms: uniform random numbers that one example of a batch needs.
        precision: the recipe's, set by :func:`build`; steps put it in force on a GPU.
    """

    networks: dict[str, keras.Model]
    optimizer_groups: dict[str, tuple[str, ...]]
    translators: dict[str, str]
    generate: Callable[[Batch], Images]
    schedule: tuple[Iteration, ...]
    pools: dict[str, Pool] = field(default_factory=dict)
    uniforms: int = 0
    precision: str = "float32"

    def __post_init__(self):
        if not set(self.translators) <= set(Direction):
            raise ValueError(f"translators: {list(self.translators)}; their names are {', '.join(Direction)}")
        for updates in self.schedule:
            groups = [update.group for update in updates]
            if not groups or not set(groups) <= self.optimizer_groups.keys() or groups.count("generator") > 1:
                raise ValueError(
                    f"schedule: an iteration updates {groups}; it needs one or more of "
                    f"{list(self.optimizer_groups)}, the generator at most once"
                )

    def iteration(self, number: int) -> Iteration:
        """Return the updates of iteration ``number`` (from 0), in order."""
        return self.schedule[number % len(self.schedule)]


class Reported(dict[str, Any]):
    """The losses of an iteration by name; of an update that runs more than once those of the last time."""

    def __init__(self):
        super().__init__()
        self._update: dict[str, Update] = {}

    def add(self, update: Update, terms: dict[str, Any]) -> None:
        """Add the terms that ``update`` reports.

        Raises:
            ValueError: another update reports the same name, so that one of the two would be lost.
        """
        for name in terms:
            if self._update.setdefault(name, update) != update:
                raise ValueError(f"two updates of an iteration report the loss {name!r}; give each its own name")
        self.update(terms)


def gan_schedule(
    recipe: Recipe,
    *,
    generator: LossFunction,
    discriminator: LossFunction,
    real: LossFunction,
    fake: LossFunction,
    generator_first: bool = False,
) -> tuple[Iteration, ...]:
    """Return the cycle of iterations that ``updates`` and ``discriminator_updates`` of a recipe ask for.

    Args:
        recipe: ``updates`` names the order (see :class:`repix.config.models.Recipe`); the
            generator is updated in every ``discriminator_updates``-th iteration only.
        generator: the generator's loss.
        discriminator: the discriminator's loss on real and generated images together.
        real, fake: its two halves, for the orders that update on each alone.
        generator_first: whether ``together`` and ``alternate`` update the generator first.
    """
    halves = {"separate": ((real, fake),), "alternate": ((real,), (fake,))}.get(recipe.updates, ((discriminator,),))
    # Generated images are those of before any update. So with the generator first each of both
    # is updated against the other as it was.
    first = recipe.updates == "simultaneous" or (generator_first and recipe.updates != "separate")
    every = recipe.discriminator_updates
    cycle = []
    for number in range(lcm(len(halves), every)):
        D = tuple(Update("discriminator", loss) for loss in halves[number % len(halves)])
        G = (Update("generator", generator),) if number % every == every - 1 else ()
        cycle.append(G + D if first else D + G)
    return tuple(cycle)


class Pool:
    """Earlier generated images, kept to be shown to a discriminator again (Shrivastava et al. 2017).

    As in the reference code of CycleGAN: until ``size`` images are kept each new one is
    stored and shown; then with probability 1/2 the new one is shown, otherwise a random
    stored one is shown and replaced by the new.

    Args:
        size: images kept.
        shape: (height, width, channels).
        name: name of its variables in checkpoints.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], name: str):
        self.size = size
        self.images = keras.Variable(
            lambda full, dtype: ops.zeros(full, dtype), shape=(size, *shape), trainable=False, name=f"{name}_images"
        )
        self.count = keras.Variable(0, dtype="int32", trainable=False, name=f"{name}_count")

    def show(self, images, uniforms):
        """Return images of the same shape, each new or from the pool; the pool changes.

        Args:
            images: (batch, height, width, channels).
            uniforms: (batch, 2) in [0, 1): which place, and whether the stored one is shown.
        """
        shown = []
        kept, count = ops.convert_to_tensor(self.images), ops.convert_to_tensor(self.count)
        for number in range(images.shape[0]):
            new, full = images[number], count >= self.size
            place = ops.where(full, ops.cast(uniforms[number, 0] * self.size, "int32"), count)
            place = ops.minimum(place, self.size - 1)
            old = ops.take(kept, place, axis=0)
            swap = ops.logical_and(full, uniforms[number, 1] > 0.5)
            shown.append(ops.where(swap, old, new))
            stored = ops.where(ops.logical_or(swap, ops.logical_not(full)), new, old)
            kept = ops.slice_update(kept, [place, 0, 0, 0], stored[None])
            count = ops.minimum(count + 1, self.size)
        self.images.assign(kept)
        self.count.assign(count)
        return ops.stack(shown)


def build(recipe: Recipe, size: tuple[int, int], source: int, target: int, paired: bool) -> System:
    """Build the system that ``recipe.system`` names.

    Args:
        recipe: an entry of ``models``.
        size: (height, width) of the images.
        source: channels of the source.
        target: channels of the target.
        paired: whether the data has pairs.

    Raises:
        UserError: no such system; it needs pairs that the data has not; a size that its
            networks do not allow.
    """
    if recipe.system not in SYSTEMS:
        raise UserError(f"params.yaml: system: {recipe.system!r} does not exist; there are {', '.join(SYSTEMS)}")
    module = importlib.import_module(SYSTEMS[recipe.system].module)
    if SYSTEMS[recipe.system].needs_pairs and not paired:
        raise UserError(
            f"system {recipe.system!r} learns from pairs, and this data set has none (layout: unaligned): "
            f"choose a cyclegan model or a paired data set"
        )
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.precision == "bfloat16" else "float32")
    try:
        system = module.build(recipe, size, source, target)
    finally:
        keras.config.set_dtype_policy("float32")
    system.precision = recipe.precision
    return system
