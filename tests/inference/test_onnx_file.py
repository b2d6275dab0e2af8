"""ONNX files from strangers: one reason for refusing each, at every door, and none computes for ever."""

from __future__ import annotations

import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from checks.support.cells import images
from checks.support.repository import CELL
from repix.errors import UserError
from repix.files import digest_file
from repix.inference import onnx_file

SHAPE = ("batch", 16, 16, 3)


def value(name, shape=SHAPE, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, constants=(), gives=None, functions=(), domains=()) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("image")],
        [gives or value("translation")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions).SerializeToString()


def endless() -> bytes:
    """Return a file whose loop never ends."""
    flag = (value(name, [], TensorProto.BOOL) for name in ("goes_on", "still"))
    goes_on, still = flag
    nodes = [
        helper.make_node("Identity", ["goes_on"], ["still"]),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    body = helper.make_graph(
        nodes, "body", [value("i", [], TensorProto.INT64), goes_on, value("x")], [still, value("y")]
    )
    loop = helper.make_node("Loop", ["", "true", "image"], ["translation"], body=body)
    return model([loop], {"true": np.array(True)})


def doubling(depth: int = 40) -> bytes:
    """Return a file of functions that each call the one before twice: it is to be opened as 2**depth operators."""
    functions = []
    for number in range(depth):
        name, domain = ("Relu", "") if not number else (f"f{number - 1}", "own")
        nodes = [helper.make_node(name, [a], [b], domain=domain) for a, b in (("x", "y"), ("y", "z"))]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{number}", ["x"], ["z"], nodes, opsets))
    node = helper.make_node(f"f{depth - 1}", ["image"], ["translation"], domain="own")
    return model([node], functions=functions, domains=["own"])


def one(kind: str, constants=(), gives=None, **attributes) -> bytes:
    return model([helper.make_node(kind, ["image", *dict(constants)], ["translation"], **attributes)], constants, gives)


def named_after_a_limit() -> bytes:
    """Return a file whose words are those of a machine that lacks memory or disk."""
    name = "bad_alloc: No space left on device"
    graph = helper.make_graph([helper.make_node("Neg", ["image"], [name])], name, [value("image")], [value(name)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


HOSTILE = {
    "limit": (named_after_a_limit, "takes and gives"),
    "endless": (endless, "has a graph within an operator"),
    "doubling": (doubling, "has functions of its own"),
    "nan": (lambda: one("Mul", {"k": np.float32("nan")}), "gives NaN or infinite numbers"),
    "infinite": (lambda: one("Mul", {"k": np.float32("inf")}), "gives NaN or infinite numbers"),
    "size": (lambda: one("Tile", {"n": [1, 2, 2, 1]}, value("translation", ("b", "h", "w", "c"))), "takes and gives"),
    "none": (lambda: one("Tile", {"n": [0, 1, 1, 1]}), r"gives an array of shape \(0, 16, 16, 3\)"),
    "type": (lambda: one("Cast", (), value("translation", SHAPE, TensorProto.STRING), to=8), "takes and gives"),
    "unknown": (lambda: one("Mystery"), "cannot be read"),
    "memory": (
        lambda: model(
            [
                helper.make_node("Expand", ["k", "n"], ["large"]),
                helper.make_node("ReduceMax", ["large"], ["r"], keepdims=0),
                helper.make_node("Add", ["image", "r"], ["translation"]),
            ],
            {"k": np.zeros(1, np.float32), "n": np.array([1 << 45])},
        ),
        "cannot be computed",
    ),
    "garbage": (lambda: b"garbage", r"cannot be read \(it is no ONNX file"),
    "empty": (lambda: b"", "cannot be read"),
    "ort": (lambda: b"\0\0\0\0ORTM" + bytes(100), r"cannot be read \(it is no ONNX file"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, tiny_repository):
    return tiny_repository(tmp_path_factory.mktemp("onnx") / "repository")


@pytest.fixture
def forged(repository, tmp_path):
    """Return a function that puts a file in the place of an export's, with its digest; it returns the root."""
    shutil.copytree(repository / "exports", tmp_path / "exports")

    def forge(data: bytes):
        folder = tmp_path / "exports" / CELL
        path = folder / "source_to_target" / "model.onnx"
        path.write_bytes(data)
        record = json.loads((folder / "export.json").read_text())
        record["digests"]["source_to_target"]["onnx"] = digest_file(path)
        (folder / "export.json").write_text(json.dumps(record))
        return tmp_path

    return forge


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_to_be_taken_is_refused_alike_by_translate_demo_and_served_model(forged, name):
    import pandas
    from mlflow.exceptions import MlflowException

    from repix.demo import app, catalogue
    from repix.exporting import pyfunc
    from repix.translation import model as models
    from tests.demo.test_app import encoded

    made, said = HOSTILE[name]
    root, (image,) = forged(made()), images(1, 1)
    folder = root / "exports" / CELL
    with pytest.raises(UserError, match=rf"model\.onnx: {said}.*; run `dvc checkout` or `dvc repro`") as caught:
        record = models.read_record(folder / "export.json")
        models.load(folder, record, "source_to_target", backend="onnx")(image)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000

    client = app.create(*catalogue.find(root)).test_client()
    answer = client.post(f"/models/{CELL}/source_to_target/translate", data=encoded(image))
    assert answer.status_code == 422 and re.match(f"model.onnx: {said}", answer.json["error"])

    context = SimpleNamespace(artifacts={"export": root / "served"})
    shutil.copytree(folder / "source_to_target", root / "served")
    record = json.loads((folder / "export.json").read_text()) | {"translator": "source_to_target"}
    (root / "served" / "export.json").write_text(json.dumps(record))
    served = pyfunc.TranslatorModel()
    with pytest.raises((MlflowException, pyfunc.ModelError), match=said) as caught:
        served.load_context(context)
        served.predict(None, pandas.DataFrame({"image": [image]}))
    if isinstance(caught.value, MlflowException):
        assert caught.value.get_http_status_code() == 400


def test_a_field_that_two_readers_see_differently_is_refused():
    """protobuf drops what is above 32 bits of a field's number: a function would hide behind one."""
    hidden = onnx.FunctionProto(name="f").SerializeToString()
    key = (1 << 32) | (25 << 3) | 2
    number = bytes([key & 0x7F | 0x80, key >> 7 & 0x7F | 0x80, key >> 14 & 0x7F | 0x80, key >> 21 & 0x7F | 0x80])
    number += bytes([key >> 28])
    with pytest.raises(onnx_file.ModelError, match="is no ONNX file"):
        onnx_file.check_operators(number + bytes([len(hidden)]) + hidden)


def test_a_cut_file_is_refused_wherever_it_was_cut(repository, tmp_path):
    path, cut = repository / "exports" / CELL / "source_to_target" / "model.onnx", tmp_path / "cut.onnx"
    onnx_file.Network(path, (16, 16), (3, 3))
    whole = path.read_bytes()
    for end in {*range(1, 2000, 37), *range(len(whole) - 3000, len(whole), 97)}:
        cut.write_bytes(whole[:end])
        with pytest.raises(onnx_file.ModelError):
            onnx_file.Network(cut, (16, 16), (3, 3))


def test_a_file_is_opened_by_any_name_and_as_the_one_that_was_checked(tmp_path, monkeypatch):
    """Whatever is written into it, or takes its place, between check and opening: it is what it was."""
    path = tmp_path / os.fsdecode(b"caf\xe9.onnx")  # Latin-1: letters that are no UTF-8
    path.write_bytes(one("Neg"))
    unit, check, digest = np.ones((16, 16, 3), np.float32), onnx_file.check_operators, digest_file(path)

    def opened():
        path.write_bytes(one("Neg"))
        return onnx_file.Network(path, (16, 16), (3, 3), digest=digest)(unit)

    assert (opened() == -1).all()
    other = tmp_path / "other"
    for change in (
        lambda: path.write_bytes(one("Exp")),
        lambda: os.truncate(path, 10),  # who maps a file dies of this
        lambda: other.write_bytes(one("Exp")) and other.replace(path),
        path.unlink,
    ):
        monkeypatch.setattr(onnx_file, "check_operators", lambda data, change=change: (change(), check(data)))
        assert (opened() == -1).all()


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    path, descriptors = tmp_path / "model.onnx", os.listdir("/proc/self/fd")
    for make, said in (
        (path.mkdir, "Is a directory"),
        (lambda: os.mkfifo(path), "it is no file"),
        (lambda: path.symlink_to("model.onnx"), "Too many levels of symbolic links"),
        (lambda: path.symlink_to("nothing"), "No such file"),
    ):
        make()
        with pytest.raises(onnx_file.ModelError, match=rf"cannot be read \(({said})") as caught:
            onnx_file.Network(path, (16, 16), (3, 3))
        assert isinstance(caught.value.__cause__, OSError)
        path.rmdir() if path.is_dir() else path.unlink()
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("place", ["initializer", "constant", "sparse"])
def test_weights_in_another_file_are_refused(place, tmp_path, monkeypatch):
    """It would read what lies below its own folder, such as secrets, into its pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(4 * 16 * 16 * 3))
    tensor = numpy_helper.from_array(np.zeros((1, 16, 16, 3), np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    add = helper.make_node("Add", ["image", "weights"], ["translation"])
    if place == "initializer":
        whole = onnx.load_model_from_string(model([add]))
        whole.graph.initializer.append(tensor)
        data = whole.SerializeToString()
    else:
        values = {"value": tensor}
        if place == "sparse":
            indices = numpy_helper.from_array(np.arange(3, dtype=np.int64), "indices")
            values = {"sparse_value": helper.make_sparse_tensor(tensor, indices, [1, 16, 16, 3])}
        data = model([helper.make_node("Constant", [], ["weights"], **values), add])
    with pytest.raises(onnx_file.ModelError, match="has weights in another file; an export has none"):
        onnx_file.check_operators(data)
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(onnx_file.ModelError, match="another file"):
        onnx_file.Network(tmp_path / "model.onnx", (16, 16), (3, 3))
