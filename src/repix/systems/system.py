"""A system is a game of players: what every system tells the loop, and nothing more.

A system names its networks, its players, what the generator plays and what each player
minimises. The loop, the step, the checkpoint and the evaluation know this page only; a new
system is a module of this package with a function ``build(recipe, size, source, target)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from repix.config.models import Recipe
from repix.errors import UserError
from repix.registry import SYSTEMS


@dataclass(frozen=True)
class Batch:
    """What a step sees: images in [-1, 1], and uniform draws for whatever chance it needs.

    ``source`` and ``target`` are (batch, height, width, channels); ``draws`` is (batch,
    ``System.draws``) in [0, 1).
    """

    source: Any
    target: Any
    draws: Any


Loss = tuple[Any, dict[str, Any]]  # the scalar that a player minimises, and named parts to show


@dataclass(frozen=True)
class Move:
    """One optimizer step of one player: it minimises ``loss(batch, played)``.

    ``played`` is what :attr:`System.generate` returned. For a move of the player named
    ``generator`` gradients flow through it; for all others it is data.
    """

    player: str
    loss: Callable[[Batch, dict[str, Any]], Loss]


@dataclass
class System:
    """A game, complete.

    Attributes:
        networks: name -> network.
        players: name -> names of the networks that its optimizer moves. The player called
            ``generator`` is the one whose networks ``generate`` runs.
        translators: name (``source_to_target``, ``target_to_source``) -> network.
        generate: runs the generators once on a batch: all images that losses speak about.
        moves: for each phase of the game, the moves of one iteration in their order. Most
            games have one phase; iteration i plays ``moves[i % len(moves)]``.
        pools: image pools, whose contents belong into a checkpoint.
        draws: uniform draws that one example of a batch needs.
        gradient: set by the step: ``gradient(f, x)`` of a scalar function.
        precision: the recipe's, set by :func:`build`; steps put it in force on a GPU.
    """

    networks: dict[str, keras.Model]
    players: dict[str, tuple[str, ...]]
    translators: dict[str, str]
    generate: Callable[[Batch], dict[str, Any]]
    moves: tuple[tuple[Move, ...], ...]
    pools: dict[str, Pool] = field(default_factory=dict)
    draws: int = 0
    gradient: Callable | None = None
    precision: str = "float32"


class Pool:
    """The history of generated images shown to a discriminator (Shrivastava et al. 2017).

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

    def show(self, images, draws):
        """Return images of the same shape, each new or from the pool; the pool changes.

        Args:
            images: (batch, height, width, channels).
            draws: (batch, 2) uniform in [0, 1).
        """
        shown = []
        kept, count = ops.convert_to_tensor(self.images), ops.convert_to_tensor(self.count)
        for number in range(images.shape[0]):
            new, full = images[number], count >= self.size
            place = ops.where(full, ops.cast(draws[number, 0] * self.size, "int32"), count)
            place = ops.minimum(place, self.size - 1)
            old = ops.take(kept, place, axis=0)
            swap = ops.logical_and(full, draws[number, 1] > 0.5)
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
    module = importlib.import_module(SYSTEMS[recipe.system])
    if module.NEEDS_PAIRS and not paired:
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
