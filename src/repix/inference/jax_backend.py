"""JAX in use: compiled functions that see the weights change.

The only file of ``inference`` that names JAX.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import keras


def configure() -> None:
    """Do nothing: JAX takes all that matters from the execution profile's environment."""


def compile_function(function: Callable, network: keras.Model | None = None) -> Callable:
    """Return ``function`` of tensors, compiled once for each shape that it meets.

    Args:
        network: the network that it runs: its variables are read anew at each call.
    """
    variables = network.variables if network is not None else []

    @jax.jit
    def pure(values, *given):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return function(*given)

    return lambda *given: pure([variable.value for variable in variables], *given)
