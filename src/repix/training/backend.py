"""The door to the step of the Keras backend in force: one file per backend behind it."""

from __future__ import annotations

import importlib
from types import ModuleType

import keras

from repix.errors import UserError

BACKENDS = ("tensorflow", "jax")


def step_module() -> ModuleType:
    """Return the module of the backend in force, with ``Step`` and ``compile_function``.

    Raises:
        UserError: there is no step file for this backend.
    """
    # A user's keras.json may say otherwise; our networks would then be others, or not build.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise UserError(f"no training step for the Keras backend {backend!r}; there are {', '.join(BACKENDS)}")
    return importlib.import_module(f"repix.training.step_{backend}")
