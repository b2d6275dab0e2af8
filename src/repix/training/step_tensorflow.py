"""The training step on TensorFlow: one compiled function for all moves of an iteration.

The only file of ``training`` that names TensorFlow. A step file for another Keras backend
offers a class of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from repix import profile, rng
from repix.config.models import Optimizer
from repix.data.sampler import Sampler
from repix.inference.tensorflow_backend import compile_function, read
from repix.models.initialization import weights
from repix.models.layers import DRAWS_PER_STEP, dropouts
from repix.models.scaling import to_unit
from repix.systems.system import Batch, System
from repix.training.checkpoint import check_state
from repix.training.convolutions import as_products


class Step:
    """One iteration of a system: its moves, each with its player's own Adam.

    Call it with the arrays of a batch; it changes the system's weights and returns the
    losses. Everything that it changes is in :meth:`state`, so a checkpoint of that is
    complete.

    Args:
        system: the game; its networks hold the weights.
        optimizer: Adam's settings, the same for each player (Kingma and Ba 2015, in the
            form of section 2's last remark, as Keras and TensorFlow compute it).
        source, target: (low, high) of each side: the stored values of -1 and +1.
        seed: the cell's seed, from which dropout masks follow.

    Attributes:
        losses: names of what the last call returned; phases of a game may differ in them.
    """

    def __init__(
        self,
        system: System,
        optimizer: Optimizer,
        source: tuple[Sequence[float], Sequence[float]],
        target: tuple[Sequence[float], Sequence[float]],
        seed: int,
    ):
        self.system, self.optimizer, self.seed = system, optimizer, seed
        self.source, self.target = source, target
        self.losses: list[str] = []
        system.gradient = self._gradient
        # For a GPU; TensorFlow's own default would round the products of float32.
        tf.config.experimental.enable_tensor_float_32_execution(system.precision == "tf32")
        self._variables: dict[str, dict[str, keras.Variable]] = {}
        self._slots: dict[str, dict[str, tf.Variable]] = {}
        for player, networks in system.players.items():
            named = {}
            for network in networks:
                trainable = {id(v) for v in system.networks[network].trainable_variables}
                named |= {k: v for k, v in weights(network, system.networks[network]).items() if id(v) in trainable}
            self._variables[player] = named
            slots = {
                f"adam/{player}/beta_1_power": tf.Variable(optimizer.beta_1, dtype=tf.float32),
                f"adam/{player}/beta_2_power": tf.Variable(optimizer.beta_2, dtype=tf.float32),
            }
            for name, variable in named.items():
                for slot in ("m", "v"):
                    slots[f"adam/{player}/{slot}/{name}"] = tf.Variable(tf.zeros(variable.shape))
            self._slots[player] = slots
        self._phase_losses: list[list[str]] = [[] for _ in system.moves]
        self._functions = [self._compile(phase) for phase in range(len(system.moves))]

    def feed(self, sampler: Sampler) -> Sampler:
        """Return what gives the loop its batches: here the sampler itself."""
        return sampler

    @staticmethod
    def _gradient(function: Callable, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    def _apply(self, player: str, gradients: list, rate) -> None:
        """Move one player by Adam, with the library's fused kernel (a third of the time of Keras' own)."""
        slots, adam = self._slots[player], self.optimizer
        power_1, power_2 = slots[f"adam/{player}/beta_1_power"], slots[f"adam/{player}/beta_2_power"]
        for (name, variable), gradient in zip(self._variables[player].items(), gradients, strict=True):
            if gradient is None:
                raise RuntimeError(f"the loss of player {player!r} does not depend on {name}")
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=slots[f"adam/{player}/m/{name}"].handle,
                v=slots[f"adam/{player}/v/{name}"].handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=rate,
                beta1=adam.beta_1,
                beta2=adam.beta_2,
                epsilon=adam.epsilon,
                grad=gradient,
            )
        # The powers are carried along by multiplication, which every CPU rounds alike; pow is not.
        power_1.assign(power_1 * adam.beta_1)
        power_2.assign(power_2 * adam.beta_2)

    def _compile(self, phase: int) -> Callable:
        system, moves = self.system, self.system.moves[phase]
        values = {player: [v.value for v in named.values()] for player, named in self._variables.items()}
        streams = [
            (layer, rng.key("dropout", self.seed, network, layer.name) % 2**32)
            for network, model in system.networks.items()
            for layer in dropouts(model)
        ]

        # Not where the bits are promised: products and convolutions round differently. Not on a GPU: measured on CPUs.
        as_written = profile.current().portable or tf.config.list_logical_devices("GPU")
        layers = nullcontext if as_written else partial(as_products, system.networks.values())

        def function(source, target, draws, step, rate):
            with layers():  # it holds while the function is traced
                return play(source, target, draws, step, rate)

        def play(source, target, draws, step, rate):
            for layer, key in streams:
                layer.reseed(key, step * DRAWS_PER_STEP)
            batch = Batch(to_unit(source, *self.source), to_unit(target, *self.target), draws)
            results = {}

            with tf.GradientTape(watch_accessed_variables=False, persistent=False) as outer:
                outer.watch(values["generator"])
                played = system.generate(batch)
                for position, move in enumerate(moves):
                    if move.player == "generator":
                        loss, parts = move.loss(batch, played)
                        after = moves[position + 1 :]
                        break
                    with outer.stop_recording():
                        self._move(move, batch, played, rate, results)
            # The generator's own move closes the tape: its one forward pass serves here too.
            self._apply("generator", outer.gradient(loss, values["generator"]), rate)
            results |= parts
            for move in after:
                self._move(move, batch, played, rate, results)
            self._phase_losses[phase] = names = sorted(results)  # known once the function is traced
            return tf.stack([tf.cast(results[name], tf.float32) for name in names])

        return compile_function(function)

    def _move(self, move, batch: Batch, played: dict, rate, results: dict) -> None:
        """One step of a player other than the generator: what was played is data to it."""
        values = [v.value for v in self._variables[move.player].values()]
        fixed = {name: tf.stop_gradient(image) for name, image in played.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss, parts = move.loss(batch, fixed)
        self._apply(move.player, tape.gradient(loss, values), rate)
        results |= parts

    def __call__(self, step: int, source: np.ndarray, target: np.ndarray, draws: np.ndarray, rate: float):
        """Play iteration ``step`` (from 0) on a batch.

        Args:
            source, target: (batch, height, width, channels) stored integers.
            draws: (batch, ``system.draws``) uniform in [0, 1).
            rate: learning rate.

        Returns:
            A tensor with the losses, in the order of :attr:`losses`.
        """
        phase = step % len(self._functions)
        values = self._functions[phase](
            tf.constant(source),
            tf.constant(target),
            tf.constant(draws, tf.float32),
            tf.constant(step, tf.int64),
            tf.constant(rate, tf.float32),
        )
        self.losses = self._phase_losses[phase]
        return values

    def _named(self) -> dict:
        named: dict = {}
        for network, model in self.system.networks.items():
            named |= weights(network, model)
        for slots in self._slots.values():
            named |= slots
        for name, pool in self.system.pools.items():
            named |= {f"pool/{name}/images": pool.images, f"pool/{name}/count": pool.count}
        return named

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that moves: weights, Adam's moments and powers, pools.

        The arrays are read-only views, not copies: a full-size system's state is larger than all that a
        step needs beside it. They stay as they are when training goes on, since TensorFlow writes an update
        into memory of its own as long as somebody holds what was read.
        """
        return {name: read(value) for name, value in self._named().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything that moves to what :meth:`state` returned.

        Raises:
            ValueError: names, dtypes or shapes are not those of this system; nothing was set.
        """
        named = self._named()
        check_state(state, named)
        for name, value in named.items():
            value.assign(state[name])
