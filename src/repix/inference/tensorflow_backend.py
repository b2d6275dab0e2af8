"""TensorFlow in use: threads and determinism, compiled functions, and what a variable holds.

The only file of ``inference`` that names TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import keras
import numpy as np
import tensorflow as tf

from repix import profile
from repix.libraries import native_chatter
from repix.models.convolutions import faster_convolutions
from repix.models.fixed_sums import fixed_sums


def configure() -> None:
    """Put threads, determinism and the graph optimiser's absence in force.

    Raises:
        RuntimeError: TensorFlow was used before, with another thread count.
    """
    now = profile.current()
    threads, operations = now.tensorflow_threads()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(operations)
    except RuntimeError as error:
        # Used before, but under the profile's environment, which says the same: 0 is "not set here".
        found = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS")
        if str(found) != str(threads):
            raise RuntimeError(f"TensorFlow was used before its threads were set: {error}") from error
    tf.config.experimental.enable_op_determinism()
    # Of the graph optimiser, the pass that fuses fails on a discriminator's gradient, leaves the graph as it
    # was and says so as an error: without it the same graph runs, and no error is shown.
    off = {"remapping": False} if now.graph_optimizer else {"disable_meta_optimizer": True}
    tf.config.optimizer.set_experimental_options(off)
    with native_chatter():
        tf.config.list_logical_devices()


def read(variable: keras.Variable | tf.Variable) -> np.ndarray:
    """Return what a variable holds now, as a read-only view on its memory."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return np.asarray(memoryview(variable.read_value()))


def _convolutions(networks: tuple[keras.Model, ...]) -> AbstractContextManager[None]:
    """Return the context within which networks are traced as the profile has them computed."""
    if profile.current().portable:
        return fixed_sums(networks)
    if tf.config.list_logical_devices("GPU"):  # what is faster was measured on CPUs
        return nullcontext()
    return faster_convolutions(networks)


def compile_function(function: Callable, *networks: keras.Model) -> Callable:
    """Return ``function`` of tensors, compiled once for each shape that it meets.

    Args:
        networks: those that it runs: their convolutions are computed as the profile in force has them.
    """

    def traced(*given):
        with _convolutions(networks):
            return function(*given)

    # No function of ours branches on a tensor: rewriting their source for that would be most of the time of tracing.
    return tf.function(traced, autograph=False, reduce_retracing=False)
