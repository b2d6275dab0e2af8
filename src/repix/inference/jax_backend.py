"""JAX in use: compiled functions that see the weights change.

The only file of ``inference`` that names JAX.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import keras


def configure() -> None:
    """Do nothing: JAX takes all that matters from the execution profile's environment."""


def compile_function(function: Callable, *networks: keras.Model) -> Callable:
    """Return ``function`` of tensors, compiled once for each shape that it meets.

    Args:
        networks: those that it runs: their variables are read anew at each call.
    """
    variables = [variable for network in networks for variable in network.variables]

    @jax.jit
    def pure(values, *given):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return function(*given)

    return lambda *given: pure([variable.value for variable in variables], *given)
