"""The LiteRT file computes what the Keras network computes."""

from __future__ import annotations

import numpy as np
import pytest

from repix.errors import UserError
from tests.exporting.test_onnx_format import functional, generator, spec


@pytest.mark.parametrize(("weights", "atol"), [("float32", 5e-6), ("float16", 2e-2)])
def test_same_function_and_same_bytes(tmp_path, weights, atol):
    from repix.exporting import litert_format

    network = generator(kind="unet", norm="batch", dropout=0.5)
    path, again = tmp_path / "a.tflite", tmp_path / "b.tflite"
    for each in (path, again):
        litert_format.write(network, each, spec((16, 16), weights))
    assert path.read_bytes() == again.read_bytes()
    assert path.stat().st_size > network.count_params() * (4 if weights == "float32" else 2)
    unit = np.random.default_rng(3).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    expected = np.asarray(network(unit))
    found = litert_format.load(path)(unit)
    np.testing.assert_allclose(found, expected, atol=atol)
    assert weights == "float32" or np.abs(found - expected).max() > 1e-5, "float16 was asked for"


def test_resnet(tmp_path):
    from repix.exporting import litert_format

    network = generator(kind="resnet", norm="instance", blocks=1, padding="reflect")
    unit = np.random.default_rng(3).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    litert_format.write(network, tmp_path / "model.tflite", spec((16, 16)))
    found = litert_format.load(tmp_path / "model.tflite")(unit)
    np.testing.assert_allclose(found, np.asarray(network(unit)), atol=5e-6)


def test_reduced_precision_is_refused(tmp_path):
    from keras import layers

    from repix.exporting import litert_format

    network = functional([layers.Conv2D(2, 3, dtype="mixed_bfloat16")])
    with pytest.raises(UserError, match="computes in bfloat16"):
        litert_format.write(network, tmp_path / "model.tflite", spec((9, 11), channels=2))
