"""LiteRT (once TensorFlow Lite): for phones, browsers and small machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from repix import profile
from repix.errors import UserError
from repix.exporting.spec import ExportSpec
from repix.files import atomic_path
from repix.libraries import native_chatter


def write(network: keras.Model, path: Path, spec: ExportSpec) -> None:
    """Write a network as a LiteRT file. Equal weights give equal bytes.

    With ``export.litert_weights: float16`` the file has half the size, and computes in float32
    all the same.

    The file takes and gives float32 (1, height, width, channels) in [-1, 1].

    Raises:
        UserError: the network computes in another type than float32.
    """
    other = {layer.compute_dtype for layer in network.layers} - {"float32"}
    if other:
        raise UserError(
            f"export litert: the network computes in {', '.join(sorted(other))}, the export is float32; "
            f"take litert out of export.formats"
        )

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec((1, *spec.size, spec.source.channels), tf.float32, "image")]
    )
    def translation(image):
        return network(image, training=False)

    class Frozen(tf.Module):
        """What the converter freezes: it finds variables only as attributes of a module."""

        def __init__(self):
            super().__init__()
            self.variables_of_network = [variable.value for variable in network.weights]

    with native_chatter():
        traced = translation.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], Frozen())
        if spec.settings.litert_weights == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        data = converter.convert()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the file's function on [-1, 1], image by image, run on the profile's threads."""
    from ai_edge_litert.interpreter import Interpreter

    with native_chatter():
        interpreter = Interpreter(str(path), num_threads=profile.current().resolved_threads())
        interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, np.asarray(image[None], np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(target)[0]

    return lambda unit: np.stack([one(image) for image in np.asarray(unit)])
