"""The training step on JAX: many iterations in one compiled call, for a GPU.

The only file of ``training`` that names JAX. It plays the same moves as
:mod:`repix.training.step_tensorflow`, with the same Adam, the same dropout masks and the
same names in its state; what differs is what a GPU asks for: weights, moments and pools are
donated to the call and never leave the device, neither does a data set that fits, and one
call plays up to :data:`STEPS_PER_CALL` iterations. They run in a loop on the device whose
number of turns is an argument, so that one program plays any number of them: were there a
second program for the remainder, a stopped and resumed training could round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import keras
import numpy as np
from jax import lax
from jax import numpy as jnp

from repix import rng
from repix.config.models import Optimizer
from repix.data.sampler import Sampler
from repix.models.initialization import weights
from repix.models.layers import DRAWS_PER_STEP, Dropout, dropouts
from repix.models.scaling import to_unit
from repix.systems.system import Batch, Move, System
from repix.training.checkpoint import check_state

STEPS_PER_CALL = 25  # as many as the loop lets pass between two looks at the losses
RESIDENT_SHARE = 0.25  # of the device's memory that a data set may take

# JAX's names. Without one, a GPU would round the products of float32 as it likes.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest"}


def room() -> float:
    """Return the bytes that a data set may take on the device; 0 on a CPU, whose memory is the host's."""
    return RESIDENT_SHARE * (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)


def _philox(key: Sequence, counter: Sequence) -> list:
    """Return the four 32-bit words of Philox-4x32-10 (Salmon et al. 2011), element by element.

    Args:
        key, counter: two and four uint32 arrays.
    """

    def product(constant: int, x):
        """Return (high, low) words of a 32 x 32 bit product, from 16-bit halves: JAX has no 64 bits here."""
        mask, top, bottom = np.uint32(0xFFFF), np.uint32(constant >> 16), np.uint32(constant & 0xFFFF)
        low, high = x & mask, x >> 16
        middle = bottom * high + (bottom * low >> 16)
        cross = top * low + (middle & mask)
        return top * high + (middle >> 16) + (cross >> 16), np.uint32(constant) * x

    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        (high_0, low_0), (high_2, low_2) = product(0xD2511F53, c0), product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high_2 ^ c1 ^ k0, low_2, high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + np.uint32(0x9E3779B9), k1 + np.uint32(0xBB67AE85)
    return [c0, c1, c2, c3]


def uniform(seed, shape: tuple[int, ...], dtype: str):
    """Return what TensorFlow's ``stateless_uniform`` draws in [0, 1), to the bit.

    Args:
        seed: (2,) uint32, as a seed generator of Keras hands it out.
        shape: shape of the draws.
        dtype: ``float32`` or ``bfloat16``.
    """
    seed = seed % np.uint32(2**31 - 2)  # as Keras passes it on to TensorFlow
    zero = jnp.zeros((), jnp.uint32)
    scramble = jnp.uint32(0x3EC8F720), jnp.uint32(0x02461E29)
    mixed = _philox(scramble, (seed[0], zero, seed[1], zero))
    count = int(np.prod(shape))
    numbers = jnp.arange(-(-count // 4), dtype=jnp.uint32)
    words = jnp.stack(_philox(mixed[:2], (numbers, zero, mixed[2], mixed[3])), axis=-1).reshape(-1)[:count]
    # The low bits of a word become the fraction of a number in [1, 2).
    bits, unsigned = (7, jnp.uint16) if keras.backend.standardize_dtype(dtype) == "bfloat16" else (23, jnp.uint32)
    pattern = (words & np.uint32(2**bits - 1)) | np.uint32(127 << bits)
    return (lax.bitcast_convert_type(pattern.astype(unsigned), dtype) - 1).reshape(shape)


Dropout.uniform = staticmethod(uniform)


class _Windows:
    """Batches as windows into arrays that lie on the device; stands in for the sampler."""

    def __init__(self, sampler: Sampler):
        self.steps_per_epoch, self.batch = sampler.steps_per_epoch, sampler.windows


class _Losses:
    """The losses of one iteration, played when they are asked for: an array to NumPy."""

    def __init__(self, play: Callable):
        self.values, self._play = None, play

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            self._play()
        values, row = self.values
        return np.array(np.asarray(values)[row], dtype)


class Step:
    """Iterations of a system: its moves, each with its player's own Adam.

    Call it with the arrays of a batch. Iterations are put off until :data:`STEPS_PER_CALL`
    have come together, or until somebody asks for the losses of one or for :meth:`state`: so
    ask before looking at the networks' weights, as the loop does.

    Args and attributes: see :class:`repix.training.step_tensorflow.Step`.
    """

    def __init__(
        self,
        system: System,
        optimizer: Optimizer,
        source: tuple[Sequence[float], Sequence[float]],
        target: tuple[Sequence[float], Sequence[float]],
        seed: int,
    ):
        self.system, self.optimizer = system, optimizer
        self.source, self.target = source, target
        self.losses: list[str] = []
        system.gradient = lambda function, x: jax.grad(function)(x)
        self._variables: dict[str, keras.Variable] = {}
        self._own: dict[str, list[str]] = {}  # player -> names of the variables that it moves
        self._slots: dict[str, jax.Array] = {}
        for network, model in system.networks.items():
            self._variables |= weights(network, model)
        for player, networks in system.players.items():
            trainable = {id(v) for network in networks for v in system.networks[network].trainable_variables}
            self._own[player] = own = [name for name, v in self._variables.items() if id(v) in trainable]
            self._slots[f"adam/{player}/beta_1_power"] = jnp.float32(optimizer.beta_1)
            self._slots[f"adam/{player}/beta_2_power"] = jnp.float32(optimizer.beta_2)
            for name in own:
                for slot in ("m", "v"):
                    self._slots[f"adam/{player}/{slot}/{name}"] = jnp.zeros(self._variables[name].shape)
        moving: dict[str, keras.Variable] = {}
        for name, pool in system.pools.items():
            moving |= {f"pool/{name}/images": pool.images, f"pool/{name}/count": pool.count}
        self._variables |= moving
        self._streams = [
            (layer, rng.key("dropout", seed, network, layer.name) % 2**32)
            for network, model in system.networks.items()
            for layer in dropouts(model)
        ]
        # Where dropout streams stand follows from the iteration's number: no part of the state.
        self._placed = {f"stream/{i}": layer.seed_generator.state for i, (layer, _) in enumerate(self._streams)}
        self._moving = [*moving, *self._placed]  # what a loss may change by itself, without an optimizer
        self._data: dict[str, jax.Array] = {}
        self._queue: list[tuple] = []
        self._answers: list[_Losses] = []
        self._phase = 0
        self._phase_losses: list[list[str]] = [[] for _ in system.moves]
        self._calls = [self._compile(phase) for phase in range(len(system.moves))]

    def feed(self, sampler: Sampler) -> Sampler | _Windows:
        """Return what gives the loop its batches; a data set that fits is put on the device.

        Then its batches are windows to cut, a few numbers, in place of images.
        """
        if sampler.source.nbytes + sampler.target.nbytes > room():
            return sampler
        self._data = {"source": jnp.asarray(sampler.source), "target": jnp.asarray(sampler.target)}
        self._size = sampler.crop_size
        return _Windows(sampler)

    def _images(self, data: dict, side: str, given):
        """Return a batch's images: as given, or cut from the device's array by the windows given."""
        if not data:
            return given
        array = data[side]

        def cut(window):
            example, top, left, mirrored = window
            image = lax.dynamic_slice(array, (example, top, left, 0), (1, *self._size, array.shape[3]))[0]
            return jnp.where(mirrored, image[:, ::-1], image)

        return jax.vmap(cut)(given)

    def _run(self, function: Callable, values: dict) -> tuple:
        """Return the result of ``function`` on variables of the given values, and what it left in the moving ones."""
        variables = self._variables | self._placed
        with keras.StatelessScope([(variable, values[name]) for name, variable in variables.items()]) as scope:
            result = function()
            return result, {name: scope.get_current_value(variables[name]) for name in self._moving}

    def _apply(self, player: str, values: dict, slots: dict, gradients: dict, rate) -> tuple[dict, dict]:
        """Return variables and slots after one step of a player's Adam, in the form that TensorFlow computes."""
        adam, values, slots = self.optimizer, dict(values), dict(slots)
        power_1, power_2 = f"adam/{player}/beta_1_power", f"adam/{player}/beta_2_power"
        alpha = rate * jnp.sqrt(1 - slots[power_2]) / (1 - slots[power_1])
        for name, gradient in gradients.items():
            m, v = slots[f"adam/{player}/m/{name}"], slots[f"adam/{player}/v/{name}"]
            slots[f"adam/{player}/m/{name}"] = m = m + (gradient - m) * (1 - adam.beta_1)
            slots[f"adam/{player}/v/{name}"] = v = v + (jnp.square(gradient) - v) * (1 - adam.beta_2)
            values[name] = values[name] - m * alpha / (jnp.sqrt(v) + adam.epsilon)
        slots[power_1] = slots[power_1] * adam.beta_1
        slots[power_2] = slots[power_2] * adam.beta_2
        return values, slots

    def _iteration(self, moves: Sequence[Move], values: dict, slots: dict, batch: Batch, step, rate) -> tuple:
        """Play an iteration on values: return the new values and slots, and the losses by name."""

        def place():
            for layer, key in self._streams:
                layer.reseed(key, step * np.uint32(DRAWS_PER_STEP))

        values = values | self._run(place, values | {name: jnp.zeros(2, jnp.uint32) for name in self._placed})[1]
        results: dict = {}

        def generate(own):
            return self._run(lambda: self.system.generate(batch), values | own)

        own = {name: values[name] for name in self._own["generator"]}
        played, pull_back, moved = jax.vjp(generate, own, has_aux=True)
        values |= moved
        for move in moves:
            own = {name: values[name] for name in self._own[move.player]}

            def loss(own, played, move=move, values=values):
                (value, parts), moved = self._run(lambda: move.loss(batch, played), values | own)
                return value, (parts, moved)

            if move.player == "generator":
                # Gradients reach the generator through what it played, and directly if a loss speaks of its weights.
                (direct, images), (parts, moved) = jax.grad(loss, (0, 1), has_aux=True)(own, played)
                gradients = jax.tree.map(jnp.add, direct, pull_back(images)[0])
            else:
                gradients, (parts, moved) = jax.grad(loss, has_aux=True)(own, played)
            values, slots = self._apply(move.player, values | moved, slots, gradients, rate)
            results |= parts
        return {name: values[name] for name in self._variables}, slots, results

    def _compile(self, phase: int) -> Callable:
        moves = self.system.moves[phase]

        def call(values, slots, data, batches, turns):
            """Play the first ``turns`` of the iterations in ``batches``, whose axis 0 counts them."""

            @partial(jax.jit, inline=True)  # so that it is traced once, for both uses
            def play(values, slots, given):
                source, target, draws, step, rate = given
                source = to_unit(self._images(data, "source", source), *self.source)
                target = to_unit(self._images(data, "target", target), *self.target)
                return self._iteration(moves, values, slots, Batch(source, target, draws), step, rate)

            def turn(number, carried):
                values, slots, losses = carried
                values, slots, results = play(values, slots, jax.tree.map(lambda each: each[number], batches))
                row = jnp.stack([jnp.asarray(results[name], jnp.float32) for name in self._phase_losses[phase]])
                return values, slots, losses.at[number].set(row)

            with jax.default_matmul_precision(PRODUCTS[self.system.precision]):
                shapes = jax.eval_shape(play, values, slots, jax.tree.map(lambda each: each[0], batches))[2]
                self._phase_losses[phase] = sorted(shapes)
                losses = jnp.zeros((STEPS_PER_CALL, len(shapes)))
                return lax.fori_loop(0, turns, turn, (values, slots, losses))

        return jax.jit(call, donate_argnums=(0, 1))

    def _play(self) -> None:
        """Play what was put off; the device works on while the host goes on."""
        if not self._queue:
            return
        turns = len(self._queue)
        batches = []
        for parts in zip(*self._queue, strict=True):
            whole = np.zeros((STEPS_PER_CALL, *parts[0].shape), parts[0].dtype)
            whole[:turns] = parts
            batches.append(whole)
        values = {name: variable.value for name, variable in self._variables.items()}
        values, self._slots, losses = self._calls[self._phase](
            values, self._slots, self._data, tuple(batches), np.int32(turns)
        )
        for name, variable in self._variables.items():
            variable.assign(values[name])
        for row, answer in enumerate(self._answers):
            answer.values = losses, row
        self._queue, self._answers = [], []

    def __call__(self, step: int, source: np.ndarray, target: np.ndarray, draws: np.ndarray, rate: float):
        """Put iteration ``step`` (from 0) on a batch in line.

        Args:
            source, target: (batch, height, width, channels) stored integers; (batch, 4)
                windows where :meth:`feed` put the data on the device.
            draws: (batch, ``system.draws``) uniform in [0, 1).
            rate: learning rate.

        Returns:
            The losses, in the order of :attr:`losses`; asking NumPy for the values plays what waits.
        """
        phase = step % len(self._calls)
        if phase != self._phase:
            self._play()
        self._phase = phase
        answer = _Losses(self._play)
        self._answers.append(answer)
        self._queue.append((source, target, np.asarray(draws, np.float32), np.uint32(step % 2**32), np.float32(rate)))
        # The first call of a phase is not put off: its tracing finds the losses' names.
        if len(self._queue) == STEPS_PER_CALL or not self._phase_losses[phase]:
            self._play()
        self.losses = self._phase_losses[phase]
        return answer

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that moves: weights, Adam's moments and powers, pools."""
        self._play()
        return {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in self._named().items()}

    def _named(self) -> dict:
        return self._variables | self._slots

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything that moves to what :meth:`state` returned, here or under TensorFlow.

        Raises:
            ValueError: names, dtypes or shapes are not those of this system; nothing was set.
        """
        self._play()
        check_state(state, self._named())
        for name, variable in self._variables.items():
            variable.assign(jnp.array(state[name]))
        self._slots = {name: jnp.array(state[name]) for name in self._slots}
