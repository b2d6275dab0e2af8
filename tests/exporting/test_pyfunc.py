"""The served model: what it takes, what it gives, and what it refuses with HTTP 400."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import urllib.error
import urllib.request

import numpy as np
import pandas
import pytest
from PIL import Image

from checks.support.cells import images
from checks.support.repository import CELL
from repix.schemas import Exported


def png(array) -> bytes:
    text = io.BytesIO()
    Image.fromarray(array).save(text, "PNG")
    return text.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_repository):
    """Return (repository, folder of the MLflow model)."""
    from repix.publishing import registry

    root = tiny_repository(tmp_path_factory.mktemp("served") / "repository")
    out = root.parent / "model"
    registry.save(root, Exported.read(root / "exports" / CELL / "export.json"), "source_to_target", out)
    return root, out


@pytest.fixture(scope="module")
def model(served):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(served[1]))


def test_bytes_base64_and_arrays_are_one_translation_and_that_of_the_network(served, model):
    from repix.inference.trained import TrainedModel

    (image,) = images(5, 1)
    asked = pandas.DataFrame({"image": [png(image), text(png(image)), image, image.tolist()]})
    arrays = model.predict(asked, params={"output": "array"})["translation"].to_list()
    assert all(array == arrays[0] for array in arrays)
    trained = TrainedModel(served[0] / "runs" / CELL)
    trained.load("last")
    expected = trained.translator("source_to_target").translate(image[None])[0]
    # Half of a step may round either way.
    assert np.abs(np.asarray(arrays[0], int) - expected.astype(int)).max() <= 1
    pictures = model.predict(asked[:1])["translation"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0])))), arrays[0])


def test_nothing_is_pickled_and_nothing_of_repix_is_needed(served, model):
    names = sorted(path.name for path in served[1].rglob("*") if path.is_file())
    assert "pyfunc.py" in names and "model.onnx" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle"))]
    (image,) = images(5, 1)
    ask = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"repix", "tensorflow", "keras", "skimage"}}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model({str(served[1])!r})
print(model.predict(pandas.DataFrame({{"image": [{text(png(image))!r}]}}))["translation"][0])
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, env=environment, cwd=served[1].parent
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict(pandas.DataFrame({"image": [png(image)]}))["translation"][0]
    assert done.stdout.split()[-1] == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"not an image", "not an image, or damaged"),
        (png(images(1, 1)[0])[:200], "cannot be decoded: .*truncated"),
        ("%%%", "not base64"),
        (png(images(1, 1, (8, 16))[0]), "16 x 8 pixels, the network takes 16 x 16"),
        (np.zeros((16, 16, 4), np.uint8), r"shape \(16, 16, 4\)"),
        ([[1], [1, 2]], "different lengths"),
        (np.full((16, 16, 3), 256), "whole numbers from 0 to 255"),
        (np.full((16, 16, 3), 0.5), "whole numbers from 0 to 255"),
        ("A" * 30_000_000, "letters of base64"),
    ],
    ids=["corrupt", "cut", "no base64", "size", "channels", "ragged", "range", "float", "large"],
)
def test_what_cannot_be_translated_is_refused_with_the_reason(model, given, said):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"image 0: .*{said}") as raised:
        model.predict(pandas.DataFrame({"image": [given]}))
    assert raised.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a" * 1_000_000] + [""] * 300, r"shape \(301,\)"),
        ([[["a" * 1_000_000] + [0] * 2] + [[0] * 3] * 15] + [[[0] * 3] * 16] * 15, "whole numbers from 0 to 255"),
        ([[[True] * 3] * 16] * 16, "whole numbers from 0 to 255"),
        ([[[10**400] * 3] * 16] * 16, "whole numbers from 0 to 255"),
        ([[[0] * 4] * 16] * 16, r"shape \(16, 16, 4\)"),
        ([[[0] * 3] * 16] * 15 + [[[0] * 3] * 15], "different lengths"),
        ([[[[0]] * 3] * 16] * 16, r"shape \(16, 16, 3, 1\)"),
        (None, r"shape \(\)"),
        ({"a": 1}, r"shape \(\)"),
    ],
    ids=["texts", "a text", "truth", "huge", "channels", "ragged", "deep", "nothing", "a table"],
)
def test_what_is_no_array_of_numbers_is_refused_at_its_own_size(given, said):
    from repix.exporting import pyfunc

    side = {"channels": 3, "dtype": "uint8", "colour": "rgb"}
    tracemalloc.start()
    try:
        with pytest.raises(pyfunc.RequestError, match=said):
            pyfunc.decode(given, (16, 16), side)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    array = np.arange(16 * 16 * 3).reshape(16, 16, 3) % 256
    for whole in (array, array.tolist(), list(array), np.array(list(array), object)):
        np.testing.assert_array_equal(pyfunc.decode(whole, (16, 16), side), array.astype(np.uint8))


def test_too_many_images_and_unknown_outputs_are_refused(model):
    from mlflow.exceptions import MlflowException

    many = pandas.DataFrame({"image": ["AA=="] * 65})
    with pytest.raises(MlflowException, match="65 images"):
        model.predict(many)
    with pytest.raises(MlflowException, match="it is png or array"):
        model.predict(many[:1], params={"output": "jpeg"})


def test_http(served):
    """A real server: one translation, four bad requests, and it still translates."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(served[1]), "--env-manager", "local"]
    # The server finds uvicorn on the path, beside this Python.
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    log = open(served[1].parent / "server.log", "wb")  # noqa: SIM115 (closed below)
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"PATH": path},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def ask(body: bytes) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def rows(*given) -> bytes:
        return json.dumps({"dataframe_split": {"columns": ["image"], "data": [[each] for each in given]}}).encode()

    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < until and server.poll() is None, "the server did not start"
                time.sleep(0.3)
        good = rows(text(png(images(5, 1)[0])))
        status, first = ask(good)
        assert status == 200
        picture = Image.open(io.BytesIO(base64.b64decode(json.loads(first)["predictions"][0]["translation"])))
        assert picture.size == (16, 16)
        for body, said in (
            (rows(text(b"nonsense")), "not an image, or damaged"),
            (rows(text(png(images(1, 1, (8, 8))[0]))), "8 x 8 pixels, the network takes 16 x 16"),
            (rows("A" * 100_000_000), "letters of base64"),
            (b"{not json", "JSON"),
        ):
            status, answer = ask(body)
            assert (status, said in answer) == (400, True), answer[:500]
            assert len(answer) < 5000
        assert ask(good) == (200, first)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
        log.close()
