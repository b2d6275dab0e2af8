"""TensorFlow's SavedModel: for TensorFlow Serving, C++, Java, and conversion."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from repix.exporting.spec import ExportSpec
from repix.models.scaling import to_network_range, to_stored_range


def write(network: keras.Model, path: Path, spec: ExportSpec) -> None:
    """Write a network as a folder with two signatures.

    ``serving_default``: ``image``, stored integers (batch, height, width, channels) ->
    ``translation``, stored integers. ``unit``: float32 in [-1, 1] both ways.

    The weights lie in it once: the module holds the network's own variables and no second
    copy. Its fingerprint, a random number, is left out; TensorFlow loads it without. So are
    the threads of the machine that writes it.
    """
    source, target, size = spec.source, spec.target, spec.size
    shutil.rmtree(path, ignore_errors=True)

    class Exported(tf.Module):
        """The variables and the two functions, and nothing that training needed."""

        def __init__(self):
            super().__init__()
            self.weights = [variable.value for variable in network.weights]

        @tf.function(
            autograph=False,
            input_signature=[tf.TensorSpec((None, *size, source.channels), tf.as_dtype(source.dtype), "image")],
        )
        def stored(self, image):
            unit = network(to_network_range(image, source.low, source.high), training=False)
            return {"translation": to_stored_range(unit, target.low, target.high, target.dtype)}

        @tf.function(
            autograph=False, input_signature=[tf.TensorSpec((None, *size, source.channels), tf.float32, "image")]
        )
        def unit(self, image):
            return {"translation": network(image, training=False)}

    module = Exported()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.stored, "unit": module.unit})
    (path / "assets").rmdir()  # empty, and an empty folder is nothing that DVC can keep
    (path / "fingerprint.pb").unlink(missing_ok=True)
    _forget_threads(path / "saved_model.pb")


def _forget_threads(path: Path) -> None:
    """Take the numbers of threads out of a SavedModel: each call in it has those of the process that wrote it."""
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in (one.graph_def for one in saved.meta_graphs):
        for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
            if "config_proto" in node.attr:
                config = config_pb2.ConfigProto.FromString(node.attr["config_proto"].s)
                config.ClearField("inter_op_parallelism_threads")
                config.ClearField("intra_op_parallelism_threads")
                node.attr["config_proto"].s = config.SerializeToString(deterministic=True)
    path.write_bytes(saved.SerializeToString(deterministic=True))


def load(path: Path):
    """Return the ``unit`` signature as a function of (batch, height, width, channels)."""
    loaded = tf.saved_model.load(str(path))
    return lambda unit: np.asarray(loaded.signatures["unit"](image=tf.constant(unit))["translation"])
