"""Compute parameters, FLOPs, activations and receptive fields of networks from their layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers

from repix.config.models import Recipe
from repix.models.discriminators import MinibatchDiscrimination
from repix.systems.system import Batch, System, build

NPZ_ENTRY = 400  # bytes that one array costs in an .npz beside its numbers, about
# Of a training's memory on a CPU under `fast`: chosen by hand, and held against what trainings take by
# `python -m benchmarks.growth`, whose table says how far they are off.
PROCESS_BYTES = 1.04e9  # libraries, data and what the allocator keeps
BYTES_PER_WEIGHT = 12  # the weight and Adam's two moments; gradients come and go
ACTIVATIONS_KEPT = 1.25  # bytes for each byte of the layers' outputs


def parameters(network: keras.Model) -> int:
    """Return the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)


def layer_flops(layer: keras.Layer) -> int:
    """Return the floating-point operations of one layer on one example; a multiply-add counts as two.

    Convolutions, transposed convolutions and matrix products are counted, all else
    costs little beside them: kernel size x values that the kernel is laid on x 2.
    """
    if isinstance(layer, layers.Conv2DTranspose):
        places = math.prod(layer.input.shape[1:3])
    elif isinstance(layer, layers.Conv2D):
        places = math.prod(layer.output.shape[1:3])
    elif isinstance(layer, layers.Dense | MinibatchDiscrimination):
        places = 1
    else:
        return 0
    return 2 * math.prod(layer.kernel.shape) * places


def flops(network: keras.Model) -> int:
    """Return the floating-point operations of one forward pass on one example."""
    return sum(layer_flops(layer) for layer in network.layers)


def activations(network: keras.Model) -> int:
    """Return how many values the layers of a network output for one example.

    Padding, cropping and inputs are left out: no gradient needs them kept.
    """
    cheap = layers.InputLayer | layers.ZeroPadding2D | layers.Cropping2D
    return sum(math.prod(layer.output.shape[1:]) for layer in network.layers if not isinstance(layer, cheap))


def receptive_field(network: keras.Model) -> int | None:
    """Return the side, in pixels, of the patch of the input that one output value depends on.

    Followed through the graph, the widest way counting; norms, which see the whole image,
    are left out as is usual. None: the whole image by construction (a dense layer).
    """
    seen: dict[str, tuple[float, float]] = {}  # layer -> (pixels seen, pixels between neighbours)
    for layer in network.layers:
        before = [seen[tensor._keras_history.operation.name] for tensor in _inputs(layer)]
        field = max((one for one, _ in before), default=1.0)
        jump = max((other for _, other in before), default=1.0)
        if isinstance(layer, layers.Flatten):
            return None
        if isinstance(layer, layers.Conv2DTranspose):
            field += (math.ceil(layer.kernel_size[0] / layer.strides[0]) - 1) * jump
            jump /= layer.strides[0]
        elif isinstance(layer, layers.Conv2D):
            field += (layer.kernel_size[0] - 1) * jump
            jump *= layer.strides[0]
        elif isinstance(layer, layers.UpSampling2D):
            jump /= layer.size[0]
        seen[layer.name] = field, jump
    return math.ceil(seen[network.layers[-1].name][0])


def _inputs(layer: keras.Layer) -> list:
    if isinstance(layer, layers.InputLayer):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


@contextmanager
def _counted(networks: dict[str, keras.Model]) -> Iterator[Counter]:
    """Count the calls of networks by name."""
    calls: Counter = Counter()

    def counting(name, call):
        def function(*args, **kwargs):
            calls[name] += 1
            return call(*args, **kwargs)

        return function

    originals = {name: network.call for name, network in networks.items()}
    for name, network in networks.items():
        network.call = counting(name, originals[name])
    try:
        yield calls
    finally:
        for name, network in networks.items():
            network.call = originals[name]


def passes(recipe: Recipe, source: int, target: int) -> tuple[Counter, Counter]:
    """Return how often each network runs in one iteration: (all passes, passes kept for the generator's update).

    The losses of each iteration of the schedule are computed in miniature (8 x 8 px, one
    filter), and the calls of networks counted. A forward pass is one; the gradient to what a
    network was given another; the gradient to its weights a third. Passes are the mean over
    the schedule's iterations, kept ones the largest.
    """
    small = recipe.model_copy(
        update={
            "generator": recipe.generator.model_copy(
                update={"filters": 1, "depth": None, "blocks": 1, "decoder_filters": None}
            ),
            "discriminator": recipe.discriminator.model_copy(update={"filters": 1, "layers": 1, "kernels": 1}),
            "pool": 0,
        }
    )
    system = build(small, (8, 8), source, target, paired=True)
    images = (np.zeros((1, 8, 8, channels), np.float32) for channels in (source, target))
    batch = Batch(*map(keras.ops.convert_to_tensor, images), keras.ops.zeros((1, system.uniforms)))

    def gradient(function, x):
        function(x)  # its calls are counted; the value does not matter
        return x

    total: Counter = Counter()
    kept: Counter = Counter()
    for updates in system.schedule:
        with _counted(system.networks) as calls:
            generated = system.generate(batch)
        trained = any(update.group == "generator" for update in updates)
        here = Counter(calls) if trained else Counter()
        for name, number in calls.items():
            total[name] += number * (3 if trained else 1)
        for update in updates:
            with _counted(system.networks) as calls:
                update.loss(batch, generated, gradient)
            own = system.optimizer_groups[update.group]
            for name, number in calls.items():
                total[name] += number * (3 if name in own else 2)
                here[name] += number if update.group == "generator" else 0
        kept |= here  # the largest of the iterations
    length = len(system.schedule)
    return Counter({name: number / length for name, number in total.items()}), kept


def checkpoint_bytes(system: System, ema: bool = False) -> int:
    """Return the size of a checkpoint: weights, both moments of Adam, pools (best weights not counted).

    Args:
        system: its networks are built.
        ema: whether it holds the moving average of the generators' weights too.
    """
    numbers = arrays = 0
    for network in system.networks.values():
        numbers += sum(math.prod(variable.shape) for variable in network.weights) + 2 * parameters(network)
        arrays += len(network.weights) + 2 * len(network.trainable_variables)
    for network in system.optimizer_groups["generator"] if ema else ():
        numbers += parameters(system.networks[network])
        arrays += len(system.networks[network].trainable_variables)
    arrays += 2 * len(system.optimizer_groups)
    for pool in system.pools.values():
        numbers += math.prod(pool.images.shape)
        arrays += 2
    return 4 * numbers + NPZ_ENTRY * arrays


def memory_bytes(system: System, activation_bytes: float, ema: bool = False) -> int:
    """Return the most memory that a training's process takes, an estimate for a CPU under ``fast``.

    What does not grow with the model, three numbers for each weight, four for one that an average follows, and the
    layers' outputs that the generator's update keeps.

    Args:
        system: its networks are built.
        activation_bytes: of :class:`Facts`.
        ema: whether a moving average of the generators' weights is kept.
    """
    numbers = BYTES_PER_WEIGHT * sum(map(parameters, system.networks.values()))
    averaged = sum(parameters(system.networks[name]) for name in system.optimizer_groups["generator"]) if ema else 0
    return round(PROCESS_BYTES + numbers + 4 * averaged + ACTIVATIONS_KEPT * activation_bytes)


@dataclass(frozen=True)
class NetworkFacts:
    """The size and cost of one network.

    Attributes:
        parameters: trainable ones.
        output: shape of what it returns for one example.
        receptive_field: see :func:`receptive_field`.
        flops: of one forward pass on one example.
        layers: names of the layers with weights, in order; by them twins are not told apart.
    """

    parameters: int
    output: tuple[int, ...]
    receptive_field: int | None
    flops: int
    layers: tuple[str, ...] = field(compare=False)


@dataclass(frozen=True)
class Facts:
    """The size and cost of a system: of its networks, one training iteration and one checkpoint.

    Attributes:
        networks: name -> its numbers.
        step_flops: of one iteration on one batch, an estimate: passes of each network, the
            gradients to inputs and weights counted as one forward pass each.
        activation_bytes: what the generator's update keeps for its gradients, an estimate: the
            outputs of the layers, each once, in the precision of the recipe.
        memory_bytes: of the training's process, see :func:`memory_bytes`.
        checkpoint_bytes: of one checkpoint.
    """

    networks: dict[str, NetworkFacts]
    step_flops: int
    activation_bytes: int
    memory_bytes: int
    checkpoint_bytes: int


def facts(system: System, recipe: Recipe, source: int, target: int) -> Facts:
    """Return the size and cost of a system that was built from ``recipe`` for these channel counts."""
    total, kept = passes(recipe, source, target)
    width = 2 if recipe.precision == "bfloat16" else 4
    networks = {
        name: NetworkFacts(
            parameters(network),
            tuple(network.output.shape[1:]),
            receptive_field(network),
            flops(network),
            tuple(layer.name for layer in network.layers if layer.weights),
        )
        for name, network in system.networks.items()
    }
    kept_bytes = (
        width * recipe.batch_size * sum(kept[name] * activations(network) for name, network in system.networks.items())
    )
    return Facts(
        networks=networks,
        step_flops=round(recipe.batch_size * sum(total[name] * one.flops for name, one in networks.items())),
        activation_bytes=round(kept_bytes),
        memory_bytes=memory_bytes(system, kept_bytes, recipe.ema is not None),
        checkpoint_bytes=checkpoint_bytes(system, recipe.ema is not None),
    )
