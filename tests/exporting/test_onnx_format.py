"""The ONNX file computes what the Keras network computes, for every layer that a generator has."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from repix.config.export import Export
from repix.config.models import Norm
from repix.errors import UserError
from repix.exporting.spec import ExportSpec
from repix.schemas import Side

RGB = Side(
    channels=3, dtype="uint8", low=(0, 0, 0), high=(255, 255, 255), meaning=("R", "G", "B"), colour="rgb"
)  # fmt: skip


def spec(size=(16, 16), weights="float32", channels=3) -> ExportSpec:
    """Return what a format is told of a translator into RGB."""
    source = RGB.model_copy(update={"channels": channels})
    return ExportSpec(source, RGB, size, Export(litert_weights=weights))


def generator(size=(16, 16), source=3, **settings):
    """Return a generator of four filters with weights that are not the zeros of a new one."""
    from repix.config.models import Generator
    from repix.models.generators import build_generator
    from repix.models.initialization import initialize

    network = build_generator(Generator.model_validate({"filters": 4} | settings), size, source, 3)
    initialize({"generator": network}, "glorot", 1)
    return network


def functional(layers, size=(9, 11), channels=2):
    """Return a chain of layers as a network with random weights."""
    import keras

    x = image = keras.Input((*size, channels))
    for layer in layers:
        x = layer(x)
    network = keras.Model(image, x, name="chain")
    rng = np.random.default_rng(2)
    network.set_weights([rng.normal(0, 0.3, w.shape).astype(np.float32) for w in network.get_weights()])
    return network


def both(network, folder, n=3):
    """Return (ONNX' result, Keras' result) for n random images."""
    from repix.exporting import onnx_format

    unit = np.random.default_rng(3).uniform(-1, 1, (n, *network.inputs[0].shape[1:])).astype(np.float32)
    onnx_format.write(network, folder / "model.onnx", spec())
    return onnx_format.load(folder / "model.onnx")(unit), np.asarray(network(unit))


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "unet", "norm": "batch", "dropout": 0.5},
        {"kind": "unet", "norm": "instance", "upsampling": "resize", "size": (16, 32)},
        {"kind": "unet", "norm": "none", "relu": "before_concat", "source": 1},
        {"kind": "resnet", "norm": "instance", "blocks": 2, "padding": "reflect"},
        {"kind": "resnet", "norm": "batch", "blocks": 1, "padding": "same", "dropout": 0.5, "size": (12, 20)},
    ],
    ids=lambda settings: f"{settings['kind']}-{settings['norm']}",
)
def test_generators(tmp_path, settings):
    found, expected = both(generator(**settings), tmp_path)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("kernel", "stride"), [(1, 1), (3, 1), (4, 1), (3, 2), (4, 2), (5, 3), (2, 3), ((4, 3), (2, 1))]
)
@pytest.mark.parametrize("kind", ["Conv2D", "Conv2DTranspose"])
def test_padding_of_convolutions(tmp_path, kind, kernel, stride, padding):
    from keras import layers

    found, expected = both(functional([getattr(layers, kind)(3, kernel, stride, padding)]), tmp_path)
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_asymmetric_padding_and_cropping(tmp_path):
    from keras import layers

    chain = [layers.ZeroPadding2D(((1, 2), (3, 0))), layers.Cropping2D(((0, 3), (2, 1))), layers.UpSampling2D((2, 3))]
    found, expected = both(functional(chain), tmp_path)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_norm_with_weights_that_have_learned(tmp_path, norm):
    """First weights tell nothing: a scale of one and a shift of zero are what is there without them."""
    from repix.models.layers import normalization

    layer = normalization(norm, 1e-5, "norm")
    found, expected = both(functional([layer] if layer is not None else []), tmp_path)
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_a_converter_that_forgets_a_weight_is_refused(tmp_path, monkeypatch):
    from repix.exporting import onnx_format
    from repix.models.layers import InstanceNormalization

    forgets = {InstanceNormalization: lambda graph, layer, inputs, output: graph.add("Relu", inputs, output)}
    monkeypatch.setattr(onnx_format, "CONVERTERS", onnx_format.CONVERTERS | forgets)
    with pytest.raises(UserError, match=r"layer 'norm' \(InstanceNormalization\): its beta, gamma"):
        both(functional([InstanceNormalization(1e-5, affine=True, name="norm")]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_called_twice_is_stored_once(tmp_path):
    import onnx
    from keras import layers

    shared = layers.Conv2D(2, 3, padding="same")
    network = functional([shared, layers.LeakyReLU(0.2), shared])
    found, expected = both(network, tmp_path)
    np.testing.assert_allclose(found, expected, atol=5e-6)
    assert len(onnx.load(tmp_path / "model.onnx").graph.initializer) == 2


def test_the_file_is_checked_stated_and_the_same_again(tmp_path):
    import onnx

    from repix.exporting import onnx_format

    network = generator()
    path, again = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for each in (path, again):
        onnx_format.write(network, each, spec())
    assert path.read_bytes() == again.read_bytes()
    model = onnx.load(path)
    assert model.opset_import[0].version == onnx_format.OPSET
    assert {p.key for p in model.metadata_props} == {"repix.source", "repix.target"}
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "batch"
    assert [node.op_type for node in model.graph.node].count("Transpose") == 2


def test_what_it_does_not_know_is_refused_by_name(tmp_path):
    from keras import layers

    from repix.exporting import onnx_format

    for layer, named in (
        (layers.AveragePooling2D(2, name="odd"), "'odd' .AveragePooling2D.: there is no converter"),
        (layers.Conv2D(2, 3, dilation_rate=2, name="wide"), "'wide' .Conv2D.: .*dilation"),
        (layers.Activation("softplus", name="soft"), "'soft' .Activation.: activation 'softplus'"),
        (layers.Conv2D(2, 3, dtype="mixed_bfloat16", name="half"), "'half' .*computes in bfloat16"),
    ):
        with pytest.raises(UserError, match=named):
            onnx_format.write(functional([layer]), tmp_path / "model.onnx", spec())
    assert not list(tmp_path.glob("*.onnx"))
