"""The door to the step of the Keras backend in force: one file per backend behind it."""

from __future__ import annotations

import importlib
from types import ModuleType

import keras

from repix.errors import UserError

STEPS = {"tensorflow": "repix.training.step_tensorflow"}


def step_module() -> ModuleType:
    """Return the module of the backend in force, with ``Step`` and ``compile_function``.

    Raises:
        UserError: there is no step file for this backend.
    """
    backend = keras.backend.backend()
    if backend not in STEPS:
        raise UserError(f"no training step for the Keras backend {backend!r}; there are {', '.join(STEPS)}")
    return importlib.import_module(STEPS[backend])
