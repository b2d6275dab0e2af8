"""The training step of the Keras backend in force: one file for each backend."""

from __future__ import annotations

import importlib
from types import ModuleType

import keras

from repix.inference.backend import backend_module
from repix.registry import STEPS


def step_module() -> ModuleType:
    """Return the module of the backend in force, with :class:`Step`.

    Raises:
        UserError: there is no step file for this backend.
    """
    backend_module()
    return importlib.import_module(STEPS[keras.backend.backend()])
