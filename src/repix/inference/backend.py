"""The Keras backend in force: which one it is, and its compiler of functions, one file for each."""

from __future__ import annotations

import importlib
from types import ModuleType

import keras

from repix.errors import UserError
from repix.registry import INFERENCE


def backend_module() -> ModuleType:
    """Return the module of the backend in force, configured: it has ``compile_function``.

    Raises:
        UserError: repix does not run on this backend.
        RuntimeError: TensorFlow was used before, with another thread count.
    """
    # A user's keras.json may say otherwise; our networks would then be others, or not build.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    backend = keras.backend.backend()
    if backend not in INFERENCE:
        raise UserError(f"repix does not run on the Keras backend {backend!r}; there are {', '.join(INFERENCE)}")
    module = importlib.import_module(INFERENCE[backend])
    module.configure()
    return module
