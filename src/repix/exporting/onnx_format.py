"""ONNX, written straight from the layers of a generator.

The general route (Keras traces the network with TensorFlow, tf2onnx rewrites the graph)
takes 16.5 GB and a minute for a U-Net of 54 million parameters; this one takes a few
hundred megabytes and seconds, because a generator is a few kinds of layers and each is one
or two ONNX operators. What it does not know it refuses by name.

The file takes and gives ``image`` and ``translation``, float32 (batch, height, width,
channels) in [-1, 1], any batch. Inside, images are (batch, channels, height, width), the
only order that ONNX' convolutions have. The stored values of -1 and +1 are in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from repix.errors import UserError
from repix.exporting.spec import ExportSpec
from repix.files import atomic_path
from repix.inference.onnx_runtime import open_session
from repix.models.layers import BatchNormalization, Dropout, InstanceNormalization, ReflectionPadding2D
from repix.version import VERSION

OPSET = 17  # January 2022: read by every runtime of the last years
IR_VERSION = 8  # the file version that belongs to it


class _Graph:
    """An ONNX graph in the making: nodes in order, each constant stored once."""

    def __init__(self):
        self.nodes: list = []
        self.constants: dict[str, object] = {}
        self.shapes: dict[str, tuple] = {}  # of intermediate values, as Keras knows them (channels last)

    def constant(self, name: str, array: np.ndarray) -> str:
        """Store an array under ``name``, unless it is there, and return the name."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        """Append a node with one output; return the output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def _array(variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


def _refuse(layer, problem: str) -> None:
    raise UserError(
        f"export onnx: layer {layer.name!r} ({type(layer).__name__}): {problem}; "
        f"take onnx out of export.formats, or teach src/repix/exporting/onnx_format.py the layer"
    )


def _plain_convolution(layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return kernel size and strides of a convolution that has no other options."""
    if layer.data_format != "channels_last" or tuple(layer.dilation_rate) != (1, 1) or getattr(layer, "groups", 1) != 1:
        _refuse(layer, "channels first, dilation and groups are not supported")
    if keras.activations.serialize(layer.activation) != "linear" or layer.padding not in ("same", "valid"):
        _refuse(layer, f"activation and padding {layer.padding!r} are not supported")
    return tuple(layer.kernel_size), tuple(layer.strides)


def _kernel_and_bias(graph: _Graph, layer) -> list[str]:
    # Keras: (rows, columns, in, out) and, transposed, (rows, columns, out, in);
    # ONNX: (out, in, rows, columns) and (in, out, rows, columns).
    kernel = layer.kernel
    names = [graph.constant(kernel.path, _array(kernel).transpose(3, 2, 0, 1))]
    return names + ([graph.constant(layer.bias.path, _array(layer.bias))] if layer.use_bias else [])


def _convolution(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    kernel, strides = _plain_convolution(layer)
    before, after = [0, 0], [0, 0]
    if layer.padding == "same":
        for axis, side in enumerate(graph.shapes[inputs[0]][1:3]):
            # TensorFlow's rule: as many outputs as strides fit, the odd pixel at the end.
            total = max((-(-side // strides[axis]) - 1) * strides[axis] + kernel[axis] - side, 0)
            before[axis], after[axis] = total // 2, total - total // 2
    parts = [inputs[0], *_kernel_and_bias(graph, layer)]
    return graph.add("Conv", parts, output, kernel_shape=kernel, strides=strides, pads=[*before, *after])


def _transposed_convolution(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    kernel, strides = _plain_convolution(layer)
    if layer.output_padding is not None:
        _refuse(layer, "output_padding is not supported")
    before, after, more = [0, 0], [0, 0], [0, 0]
    for axis in range(2):
        # The full result of one more input pixel is `strides` longer; `same` keeps in * strides.
        excess = kernel[axis] - strides[axis]
        if layer.padding == "same":
            before[axis], after[axis] = max(excess, 0) // 2, max(excess, 0) - max(excess, 0) // 2
        more[axis] = max(-excess, 0)
    return graph.add(
        "ConvTranspose",
        [inputs[0], *_kernel_and_bias(graph, layer)],
        output,
        kernel_shape=kernel,
        strides=strides,
        pads=[*before, *after],
        output_padding=more,
    )


def _normalization(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    # Both layers use the statistics of each image alone at inference: instance normalisation.
    channels = graph.shapes[inputs[0]][-1]
    if isinstance(layer, BatchNormalization) or layer.affine:
        scale, shift = (graph.constant(v.path, _array(v)) for v in (layer.gamma, layer.beta))
    else:
        scale = graph.constant(f"ones_{channels}", np.ones(channels, np.float32))
        shift = graph.constant(f"zeros_{channels}", np.zeros(channels, np.float32))
    return graph.add("InstanceNormalization", [inputs[0], scale, shift], output, epsilon=float(layer.epsilon))


def _pad(graph: _Graph, inputs: list[str], output: str, rows, columns, mode: str) -> str:
    pads = np.asarray([0, 0, rows[0], columns[0], 0, 0, rows[1], columns[1]], np.int64)
    return graph.add("Pad", [inputs[0], graph.constant(f"{output}/pads", pads)], output, mode=mode)


def _zero_padding(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    return _pad(graph, inputs, output, *layer.padding, "constant")


def _reflection_padding(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    return _pad(graph, inputs, output, (layer.padding,) * 2, (layer.padding,) * 2, "reflect")


def _cropping(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    (top, bottom), (left, right) = layer.cropping
    height, width = graph.shapes[inputs[0]][1:3]
    bounds = {"starts": [top, left], "ends": [height - bottom, width - right], "axes": [2, 3]}
    named = [graph.constant(f"{output}/{name}", np.asarray(value, np.int64)) for name, value in bounds.items()]
    return graph.add("Slice", [inputs[0], *named], output)


def _upsampling(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    if layer.interpolation != "nearest":
        _refuse(layer, f"interpolation {layer.interpolation!r} is not supported")
    scales = graph.constant(f"{output}/scales", np.asarray([1, 1, *layer.size], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", [inputs[0], "", scales], output, **how)


def _leaky_relu(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    return graph.add("LeakyRelu", inputs, output, alpha=float(layer.negative_slope))


def _relu(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        _refuse(layer, "max_value, negative_slope and threshold are not supported")
    return graph.add("Relu", inputs, output)


def _activation(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    kinds = {"tanh": "Tanh", "relu": "Relu", "linear": "Identity"}
    kind = keras.activations.serialize(layer.activation)
    if kind not in kinds:
        _refuse(layer, f"activation {kind!r} is not supported")
    return graph.add(kinds[kind], inputs, output)


def _concatenate(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    if layer.axis not in (-1, 3):
        _refuse(layer, f"joining along axis {layer.axis} is not supported")
    return graph.add("Concat", inputs, output, axis=1)


def _add(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    return graph.add("Add", inputs, output) if len(inputs) == 2 else graph.add("Sum", inputs, output)


def _identity(graph: _Graph, layer, inputs: list[str], output: str) -> str:
    return inputs[0]  # dropout is off: no node


CONVERTERS: dict[type, Callable[[_Graph, keras.layers.Layer, list[str], str], str]] = {
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.ZeroPadding2D: _zero_padding,
    layers.Cropping2D: _cropping,
    layers.UpSampling2D: _upsampling,
    layers.LeakyReLU: _leaky_relu,
    layers.ReLU: _relu,
    layers.Activation: _activation,
    layers.Concatenate: _concatenate,
    layers.Add: _add,
    layers.Dropout: _identity,
    Dropout: _identity,
    ReflectionPadding2D: _reflection_padding,
    BatchNormalization: _normalization,
    InstanceNormalization: _normalization,
}


def convert(network: keras.Model, metadata: dict[str, str] | None = None):
    """Return a generator at inference as an ONNX model.

    Args:
        network: a functional model, (batch, height, width, channels) in [-1, 1] both ways.
        metadata: pairs of text that the file carries.

    Raises:
        UserError: the network has a layer, or a layer an option, that has no converter; or
            it computes in another type than float32.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    (source,), (target,) = network.inputs, network.outputs
    names = {id(source): graph.add("Transpose", ["image"], "source/nchw", perm=[0, 3, 1, 2])}
    graph.shapes["source/nchw"] = tuple(source.shape)
    taken: set[str] = set()
    nodes = [node for _, level in sorted(network._nodes_by_depth.items(), reverse=True) for node in level]
    for node in nodes:
        layer = node.operation
        if isinstance(layer, layers.InputLayer):
            continue
        converter = CONVERTERS.get(type(layer))
        if converter is None:
            _refuse(layer, "there is no converter for this kind of layer")
        if layer.compute_dtype != "float32":
            _refuse(layer, f"it computes in {layer.compute_dtype}, the export is float32")
        output = layer.name
        while output in taken:  # a layer that is called more than once
            output += "_again"
        taken.add(output)
        (result,) = node.outputs
        names[id(result)] = value = converter(graph, layer, [names[id(x)] for x in node.input_tensors], output)
        if left := sorted(weight.name for weight in layer.trainable_weights if weight.path not in graph.constants):
            _refuse(layer, f"its {', '.join(left)} would be lost")
        graph.shapes[value] = tuple(result.shape)
    graph.add("Transpose", [names[id(target)]], "translation", perm=[0, 2, 3, 1])

    def value(name, tensor):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *tensor.shape[1:]])

    constants = list(graph.constants.values())
    graph.constants.clear()  # the model takes a copy
    made = helper.make_graph(
        graph.nodes, network.name, [value("image", source)], [value("translation", target)], constants
    )
    del constants
    model = helper.make_model_gen_version(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="repix"
    )
    model.producer_version = VERSION
    helper.set_model_props(model, dict(sorted((metadata or {}).items())))
    return model


def write(network: keras.Model, path: Path, spec: ExportSpec) -> None:
    """Write a network as an ONNX file, checked by onnx.checker. Equal weights give equal bytes."""
    import onnx

    sides = {"source": spec.source, "target": spec.target}
    ranges = {
        f"repix.{name}": json.dumps({"low": s.low, "high": s.high, "dtype": s.dtype}) for name, s in sides.items()
    }
    with atomic_path(path) as temporary:
        model = convert(network, ranges)
        with open(temporary, "wb") as stream:
            stream.write(model.SerializeToString(deterministic=True))
        del model
        onnx.checker.check_model(str(temporary), full_check=True)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the file's function on [-1, 1], run by onnxruntime on the profile's threads."""
    session = open_session(path)
    return lambda unit: session.run(["translation"], {"image": np.asarray(unit, np.float32)})[0]
