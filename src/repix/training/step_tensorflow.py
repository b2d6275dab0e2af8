"""The training step on TensorFlow: one compiled function for all updates of an iteration.

The only file of ``training`` that names TensorFlow. A step file for another Keras backend
offers a class of the same name: see :class:`repix.training.step.Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from repix import rng
from repix.config.models import Optimizer
from repix.data.sampler import Sampler
from repix.inference.tensorflow_backend import compile_function, read
from repix.models.initialization import weights
from repix.models.layers import DRAWS_PER_STEP, dropouts
from repix.models.scaling import to_network_range
from repix.systems.system import Batch, Images, Iteration, Reported, System, Update
from repix.training.checkpoint import check_state
from repix.training.gang import Alone, only_one
from repix.training.step import always


def join(run_key: str, parts: Mapping[str, str]) -> Alone:
    """Return this process' gang: it alone; see :func:`repix.training.gang.only_one`."""
    return only_one()


def _gradient(function: Callable, x):
    """Return the gradient of a scalar function at x: see :data:`repix.systems.system.Gradient`."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


class Step:
    """Iterations of a system, each one call of a compiled function; see :class:`repix.training.step.Step`.

    Adam is that of Kingma and Ba 2015. The kernel has the form of section 2's last remark; with
    epsilon * sqrt(1 - beta_2^t) for its epsilon it is algorithm 1. Equal iterations of the schedule
    share one compiled function.
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
        self.system, self.optimizer, self.sampler, self.seed = system, optimizer, sampler, seed
        self.ema = ema
        self.source, self.target = source, target
        self.steps_per_epoch = sampler.steps_per_epoch
        # For a GPU; TensorFlow's own default would round the products of float32.
        tf.config.experimental.enable_tensor_float_32_execution(system.precision == "tf32")
        self._variables: dict[str, dict[str, keras.Variable]] = {}
        self._slots: dict[str, dict[str, tf.Variable]] = {}
        for group, networks in system.optimizer_groups.items():
            named = {}
            for network in networks:
                trainable = {id(v) for v in system.networks[network].trainable_variables}
                named |= {k: v for k, v in weights(network, system.networks[network]).items() if id(v) in trainable}
            self._variables[group] = named
            slots = {
                f"adam/{group}/beta_1_power": tf.Variable(optimizer.beta_1, dtype=tf.float32),
                f"adam/{group}/beta_2_power": tf.Variable(optimizer.beta_2, dtype=tf.float32),
            }
            for name, variable in named.items():
                for slot in ("m", "v"):
                    slots[f"adam/{group}/{slot}/{name}"] = tf.Variable(tf.zeros(variable.shape))
            self._slots[group] = slots
        self._averages: dict[str, tf.Variable] = {}
        if ema is not None:
            for name, variable in self._variables["generator"].items():
                self._averages[f"ema/{name}"] = tf.Variable(variable.value)
        self._losses: dict[Iteration, list[str]] = {}  # names, known once a function is traced
        self._functions = {updates: self._compile(updates) for updates in system.schedule}

    def _apply(self, group: str, gradients: list, rate) -> None:
        """Update one group by Adam, with the library's fused kernel (a third of the time of Keras' own)."""
        slots, adam = self._slots[group], self.optimizer
        share = adam.share(group)
        rate = rate if share == 1 else rate * np.float32(share)
        power_1, power_2 = slots[f"adam/{group}/beta_1_power"], slots[f"adam/{group}/beta_2_power"]
        epsilon = adam.epsilon if adam.epsilon_hat else adam.epsilon * tf.sqrt(1 - power_2)
        for (name, variable), gradient in zip(self._variables[group].items(), gradients, strict=True):
            if gradient is None:
                raise RuntimeError(f"the loss of {group!r} does not depend on {name}")
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=slots[f"adam/{group}/m/{name}"].handle,
                v=slots[f"adam/{group}/v/{name}"].handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=rate,
                beta1=adam.beta_1,
                beta2=adam.beta_2,
                epsilon=epsilon,
                grad=gradient,
            )
        # The powers are carried along by multiplication, which every CPU rounds alike; pow is not.
        power_1.assign(power_1 * adam.beta_1)
        power_2.assign(power_2 * adam.beta_2)

    def _follow(self, step) -> None:
        """Let the average of the generators' weights follow them, after iteration ``step`` (from 0)."""
        if not self._averages:
            return
        done = tf.cast(step, tf.float32) + 1
        part = 1 - tf.minimum(np.float32(self.ema), (1 + done) / (10 + done))
        for name, variable in self._variables["generator"].items():
            average = self._averages[f"ema/{name}"]
            # average += part * (variable - average), to the bit: signs move no rounding. One pass over memory less.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.handle, alpha=part, delta=average - variable.value, use_locking=False
            )

    def _compile(self, updates: Iteration) -> Callable:
        """Return the function that runs an iteration with these updates on a batch and returns its losses."""
        system = self.system
        streams = [
            (layer, rng.key("dropout", self.seed, network, layer.name) % 2**32)
            for network, model in system.networks.items()
            for layer in dropouts(model)
        ]

        def function(source, target, uniforms, step, rate):
            for layer, key in streams:
                layer.reseed(key, step * DRAWS_PER_STEP)
            batch = Batch(to_network_range(source, *self.source), to_network_range(target, *self.target), uniforms)
            losses = self._iteration(updates, batch, rate)
            if "generator" in (update.group for update in updates):
                self._follow(step)
            self._losses[updates] = names = sorted(losses)
            return tf.stack([tf.cast(losses[name], tf.float32) for name in names])

        return compile_function(function, *system.networks.values())

    def _iteration(self, updates: Iteration, batch: Batch, rate) -> dict:
        """Run the updates on a batch; return the losses by name."""
        losses = Reported()
        groups = [update.group for update in updates]
        place = groups.index("generator") if "generator" in groups else len(updates)
        values = [variable.value for variable in self._variables["generator"].values()] if place < len(updates) else []
        # One forward pass of the generator serves all updates, its own gradient included.
        with tf.GradientTape(watch_accessed_variables=False, persistent=False) as tape:
            tape.watch(values)
            generated = self.system.generate(batch)
            with tape.stop_recording():
                for update in updates[:place]:
                    losses.add(update, self._update(update, batch, generated, rate))
            if values:
                loss, terms = updates[place].loss(batch, generated, _gradient)
        if values:
            self._apply("generator", tape.gradient(loss, values), rate)
            losses.add(updates[place], terms)
        for update in updates[place + 1 :]:
            losses.add(update, self._update(update, batch, generated, rate))
        return losses

    def _update(self, update: Update, batch: Batch, generated: Images, rate) -> dict:
        """Update a group other than the generator, to which generated images are constants; return the losses."""
        values = [v.value for v in self._variables[update.group].values()]
        fixed = {name: tf.stop_gradient(image) for name, image in generated.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss, terms = update.loss(batch, fixed, _gradient)
        self._apply(update.group, tape.gradient(loss, values), rate)
        return terms

    def run(
        self, first: int, count: int, rate: float, go_on: Callable[[int], bool] = always
    ) -> tuple[list[str], np.ndarray]:
        """Run a block, asking ``go_on`` after each iteration; see :meth:`repix.training.step.Step.run`."""
        updates, rows = self.system.iteration(first), []
        for number in range(first, first + count):
            if self.system.iteration(number) != updates:
                break
            source, target, uniforms = self.sampler.batch(number)
            rows.append(
                self._functions[updates](
                    tf.constant(source),
                    tf.constant(target),
                    tf.constant(uniforms, tf.float32),
                    tf.constant(number, tf.int64),
                    tf.constant(rate, tf.float32),
                )
            )
            if not go_on(number + 1):
                break
        # Only now: looking at a loss waits for the device.
        return self._losses[updates], np.stack([np.asarray(row) for row in rows])

    def _named(self) -> dict:
        named: dict = {}
        for network, model in self.system.networks.items():
            named |= weights(network, model)
        for slots in self._slots.values():
            named |= slots
        named |= self._averages
        for name, pool in self.system.pools.items():
            named |= {f"pool/{name}/images": pool.images, f"pool/{name}/count": pool.count}
        return named

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes; see :meth:`repix.training.step.Step.state`.

        The arrays are read-only views, not copies: a full-size system's state is larger than all that a
        step needs beside it. They stay as they are when training goes on, since TensorFlow writes an update
        into other memory as long as what was read is in use.
        """
        return {name: read(value) for name, value in self._named().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything that changes; see :meth:`repix.training.step.Step.restore`."""
        named = self._named()
        check_state(state, named)
        for name, value in named.items():
            value.assign(state[name])
