"""The training step on JAX: a block of iterations in one compiled call, for a GPU.

It does the same updates as
:mod:`repix.training.step_tensorflow`, with the same Adam and the same names in its state; what
differs is what a GPU asks for: weights, moments and pools are donated to the call and never
leave the device, neither does a data set that fits, and one call runs up to
:data:`STEPS_PER_CALL` iterations. They run in a loop on the device whose number of turns is an
argument, so that one program runs any number of them: were there a second program for the
remainder, a stopped and resumed training could round otherwise. Dropout masks are JAX's own
(Threefry keyed by the layer's key and the iteration's number): a function of (seed, iteration)
as everywhere, but other masks than TensorFlow's.
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
from repix.models.layers import DRAWS_PER_STEP, dropouts
from repix.models.scaling import to_network_range
from repix.systems.system import Batch, Iteration, Reported, System
from repix.training.checkpoint import check_state
from repix.training.shards_jax import join as join  # each step file offers it
from repix.training.shards_jax import placement
from repix.training.step import always

STEPS_PER_CALL = 25  # as many as the loop asks for at once
RESIDENT_SHARE = 0.25  # of the device's memory that a data set may take

# JAX's names. Without one, a GPU would round the products of float32 as it likes.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest"}


def resident_bytes() -> float:
    """Return how many bytes a data set may take to lie on the device; 0 on a CPU, whose memory is the host's."""
    return RESIDENT_SHARE * (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)


def _gradient(function: Callable, x):
    """Return the gradient of a scalar function at x: see :data:`repix.systems.system.Gradient`."""
    return jax.grad(function)(x)


class Step:
    """Iterations of a system, a block of them in one call; see :class:`repix.training.step.Step`.

    A data set that fits is put on the device; then a block's batches are windows to cut, a few
    numbers, in place of images. Equal iterations of the schedule share one compiled program.
    """

    def __init__(
        self,
        system: System,
        optimizer: Optimizer,
        sampler: Sampler,
        source: tuple[Sequence[float], Sequence[float]],
        target: tuple[Sequence[float], Sequence[float]],
        seed: int,
        ema: float | None = None,
    ):
        self.system, self.optimizer, self.ema = system, optimizer, ema
        self.source, self.target = source, target
        self._place = placement()
        self.steps_per_epoch = sampler.steps_per_epoch
        self._batch, self._crop_size = sampler.batch, sampler.crop_size
        self._data: dict[str, jax.Array] = {}
        fits = sampler.source.nbytes + sampler.target.nbytes <= resident_bytes()
        if self._place.everybody(fits):  # or they would run different programs
            self._data = {
                side: self._place.everywhere(np.asarray(getattr(sampler, side))) for side in ("source", "target")
            }
            self._batch = sampler.windows
        self._variables: dict[str, keras.Variable] = {}
        self._own: dict[str, list[str]] = {}  # optimizer group -> names of its variables
        self._slots: dict[str, jax.Array] = {}
        for network, model in system.networks.items():
            self._variables |= weights(network, model)
        for group, networks in system.optimizer_groups.items():
            trainable = {id(v) for network in networks for v in system.networks[network].trainable_variables}
            self._own[group] = own = [name for name, v in self._variables.items() if id(v) in trainable]
            self._slots[f"adam/{group}/beta_1_power"] = jnp.float32(optimizer.beta_1)
            self._slots[f"adam/{group}/beta_2_power"] = jnp.float32(optimizer.beta_2)
            for name in own:
                for slot in ("m", "v"):
                    self._slots[f"adam/{group}/{slot}/{name}"] = jnp.zeros(self._variables[name].shape)
        if ema is not None:
            self._slots |= {f"ema/{name}": jnp.array(self._variables[name].value) for name in self._own["generator"]}
        pools: dict[str, keras.Variable] = {}
        for name, pool in system.pools.items():
            pools |= {f"pool/{name}/images": pool.images, f"pool/{name}/count": pool.count}
        self._variables |= pools
        self._slots = {name: self._place.everywhere(array) for name, array in self._slots.items()}
        self._streams = [
            (layer, rng.key("dropout", seed, network, layer.name) % 2**32)
            for network, model in system.networks.items()
            for layer in dropouts(model)
        ]
        # Where dropout streams stand follows from the iteration's number: no part of the state.
        self._placed = {f"stream/{i}": layer.seed_generator.state for i, (layer, _) in enumerate(self._streams)}
        self._changed = [*pools, *self._placed]  # what a loss changes by itself, without an optimizer
        self._losses: dict[Iteration, list[str]] = {}  # names, known once a program is traced
        self._calls = {updates: self._compile(updates) for updates in system.schedule}

    def _images(self, data: dict, side: str, given):
        """Return a batch's images: as given, or cut from the device's array by the windows given."""
        if not data:
            return given
        array = data[side]

        def cut(window):
            example, top, left, mirrored = window
            image = lax.dynamic_slice(array, (example, top, left, 0), (1, *self._crop_size, array.shape[3]))[0]
            return jnp.where(mirrored, image[:, ::-1], image)

        return jax.vmap(cut)(given)

    def _stateless(self, function: Callable, values: dict) -> tuple:
        """Return the result of ``function`` on variables of the given values, and what it changed by itself."""
        variables = self._variables | self._placed
        with keras.StatelessScope([(variable, values[name]) for name, variable in variables.items()]) as scope:
            result = function()
            return result, {name: scope.get_current_value(variables[name]) for name in self._changed}

    def _apply(self, group: str, values: dict, slots: dict, gradients: dict, rate) -> tuple[dict, dict]:
        """Return variables and slots after one step of a group's Adam, in the form that TensorFlow computes."""
        adam, values, slots = self.optimizer, dict(values), dict(slots)
        power_1, power_2 = f"adam/{group}/beta_1_power", f"adam/{group}/beta_2_power"
        share = adam.share(group)
        rate = rate if share == 1 else rate * np.float32(share)
        alpha = rate * jnp.sqrt(1 - slots[power_2]) / (1 - slots[power_1])
        epsilon = adam.epsilon if adam.epsilon_hat else adam.epsilon * jnp.sqrt(1 - slots[power_2])
        for name, gradient in gradients.items():
            m, v = slots[f"adam/{group}/m/{name}"], slots[f"adam/{group}/v/{name}"]
            slots[f"adam/{group}/m/{name}"] = m = m + (gradient - m) * (1 - adam.beta_1)
            slots[f"adam/{group}/v/{name}"] = v = v + (jnp.square(gradient) - v) * (1 - adam.beta_2)
            values[name] = values[name] - m * alpha / (jnp.sqrt(v) + epsilon)
        slots[power_1] = slots[power_1] * adam.beta_1
        slots[power_2] = slots[power_2] * adam.beta_2
        return values, slots

    def _iteration(self, updates: Iteration, values: dict, slots: dict, batch: Batch, step, rate) -> tuple:
        """Run an iteration on values: return the new values and slots, and the losses by name."""

        def place():
            for layer, key in self._streams:
                layer.reseed(key, step * np.uint32(DRAWS_PER_STEP))

        placed = {name: jnp.zeros(2, jnp.uint32) for name in self._placed}
        values = values | self._stateless(place, values | placed)[1]
        losses = Reported()

        def generate(own):
            return self._stateless(lambda: self.system.generate(batch), values | own)

        own = {name: values[name] for name in self._own["generator"]}
        generated, pull_back, changed = jax.vjp(generate, own, has_aux=True)
        values |= changed
        for update in updates:
            own = {name: values[name] for name in self._own[update.group]}

            def loss(own, generated, update=update, values=values):
                (value, terms), changed = self._stateless(
                    lambda: update.loss(batch, generated, _gradient), values | own
                )
                return value, (terms, changed)

            if update.group == "generator":
                # Gradients reach the generator through its images, and directly if a loss depends on its weights.
                (direct, images), (terms, changed) = jax.grad(loss, (0, 1), has_aux=True)(own, generated)
                gradients = jax.tree.map(jnp.add, direct, pull_back(images)[0])
            else:
                gradients, (terms, changed) = jax.grad(loss, has_aux=True)(own, generated)
            values, slots = self._apply(update.group, values | changed, slots, gradients, rate)
            losses.add(update, terms)
        if self.ema is not None and "generator" in (update.group for update in updates):
            done = jnp.float32(step) + 1
            part = 1 - jnp.minimum(np.float32(self.ema), (1 + done) / (10 + done))
            for name in self._own["generator"]:
                average = slots[f"ema/{name}"]
                slots[f"ema/{name}"] = average + part * (values[name] - average)
        return {name: values[name] for name in self._variables}, slots, dict(losses)

    def _compile(self, updates: Iteration) -> Callable:
        """Return the program that runs iterations with these updates and returns their losses."""

        def call(values, slots, data, batches, turns):
            """Run the first ``turns`` of the iterations in ``batches``, whose axis 0 counts them."""

            @partial(jax.jit, inline=True)  # so that it is traced once, for both uses
            def iteration(values, slots, given):
                source, target, uniforms, step, rate = given
                source = to_network_range(self._images(data, "source", source), *self.source)
                target = to_network_range(self._images(data, "target", target), *self.target)
                return self._iteration(updates, values, slots, Batch(source, target, uniforms), step, rate)

            def turn(number, carried):
                values, slots, rows = carried
                values, slots, losses = iteration(values, slots, jax.tree.map(lambda each: each[number], batches))
                row = jnp.stack([jnp.asarray(losses[name], jnp.float32) for name in self._losses[updates]])
                return values, slots, rows.at[number].set(row)

            with jax.default_matmul_precision(PRODUCTS[self.system.precision]):
                shapes = jax.eval_shape(iteration, values, slots, jax.tree.map(lambda each: each[0], batches))[2]
                self._losses[updates] = sorted(shapes)
                rows = jnp.zeros((STEPS_PER_CALL, len(shapes)))
                return lax.fori_loop(0, turns, turn, (values, slots, rows))

        return self._place.compile(call)

    def _batches(self, first: int, turns: int, rate: float) -> tuple[np.ndarray, ...]:
        """Return what a call is given for its iterations, padded with zeros to :data:`STEPS_PER_CALL`."""
        rows = []
        for number in range(first, first + turns):
            source, target, uniforms = self._batch(number)
            rows.append((source, target, np.asarray(uniforms, np.float32), np.uint32(number % 2**32), np.float32(rate)))
        batches = []
        for parts in zip(*rows, strict=True):
            whole = np.zeros((STEPS_PER_CALL, *parts[0].shape), parts[0].dtype)
            whole[:turns] = parts
            batches.append(whole)
        return self._place.batches(tuple(batches))

    def run(
        self, first: int, count: int, rate: float, go_on: Callable[[int], bool] = always
    ) -> tuple[list[str], np.ndarray]:
        """Run a block in one call, telling ``go_on`` afterwards; see :meth:`repix.training.step.Step.run`."""
        updates, turns = self.system.iteration(first), 1
        while turns < min(count, STEPS_PER_CALL) and self.system.iteration(first + turns) == updates:
            turns += 1
        values = {name: self._place.everywhere(variable.value) for name, variable in self._variables.items()}
        values, self._slots, losses = self._calls[updates](
            values, self._slots, self._data, self._batches(first, turns, rate), np.int32(turns)
        )
        for name, variable in self._variables.items():
            variable.assign(self._place.local(values[name]))
        losses = np.asarray(self._place.local(losses))[:turns]  # waits for the device
        for done in range(first + 1, first + turns + 1):
            go_on(done)
        return self._losses[updates], losses

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes; see :meth:`repix.training.step.Step.state`."""
        return {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in self._readable().items()}

    def _readable(self) -> dict:
        return self._variables | {name: self._place.local(array) for name, array in self._slots.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything that changes; see :meth:`repix.training.step.Step.restore`."""
        check_state(state, self._readable())
        for name, variable in self._variables.items():
            variable.assign(jnp.array(state[name]))
        self._slots = {name: self._place.everywhere(np.array(state[name])) for name in self._slots}
