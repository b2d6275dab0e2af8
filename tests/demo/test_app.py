"""What the page's server answers, and what it refuses: a clear 4xx, and it goes on."""

from __future__ import annotations

import http.client
import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from checks.support.cells import images
from repix import cli
from repix.errors import UserError
from tests.demo.conftest import BFLOAT16, SECOND
from tests.exporting.repository import CELL

AT = f"/models/{CELL}/source_to_target"


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, kind)
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture(scope="module")
def client(entries):
    from repix.demo import app

    return app.create(*entries).test_client()


@pytest.fixture(scope="module")
def port(entries):
    """A real server's port."""
    from repix.demo import app

    server = app.serve(app.create(*entries), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_catalogue_tells_scores_and_lineage_of_exactly_these_weights(repository, client):
    from repix.schemas import Exported, Metrics

    told = client.get("/models").get_json()
    assert [model["key"] for model in told["models"]] == [f"{CELL}/source_to_target", f"{SECOND}/source_to_target"]
    assert told["left_out"] == [
        f"{BFLOAT16}/source_to_target: was not exported to onnx; see export.formats in params.yaml"
    ]
    first, second = told["models"]
    metrics = Metrics.read(repository / "metrics" / f"{CELL}.json")
    scores = metrics.scores["source_to_target"]["last"]
    assert {row["name"]: row["value"] for row in first["metrics"]} == {k: v for k, v in scores.items() if v is not None}
    assert first["n"] == metrics.n == 2
    assert second["metrics"] == [] and "no metrics/tiny-pix2pix-1.json" in second["unscored"]
    lineage = {row["name"]: row["value"] for row in first["lineage"]}
    exported = Exported.read(repository / "exports" / CELL / "export.json")
    assert lineage["run key"] == "k" * 64
    assert lineage["model.onnx"] == exported.digests["source_to_target"]["onnx"]
    assert lineage["generator (last)"] == exported.weights["generator"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    assert lineage["commit"] == head


def test_scores_of_other_weights_are_not_shown(repository, entries):
    from dataclasses import replace

    entry = entries[0][0]
    other = entry.exported.model_copy(update={"weights": entry.exported.weights | {"generator": "0" * 64}})
    told = replace(entry, exported=other).describe()
    assert told["metrics"] == [] and "scored other weights" in told["unscored"]


def test_a_translation_is_that_of_the_served_model(repository, client):
    from repix.inference.trained import TrainedModel

    (image,) = images(5, 1)
    answer = client.post(f"{AT}/translate", data=encoded(image))
    assert answer.status_code == 200 and answer.mimetype == "image/png"
    assert float(answer.headers["Server-Timing"].removeprefix("model;dur=")) > 0
    trained = TrainedModel(repository / "runs" / CELL)
    trained.load("last")
    expected = trained.translator("source_to_target").translate(image[None])[0].astype(int)
    # Half of a step may round either way.
    assert np.abs(pixels(answer.data) - expected).max() <= 1
    other = client.post(f"/models/{SECOND}/source_to_target/translate", data=encoded(image))
    assert np.abs(pixels(other.data) - (255 - expected)).max() <= 1


def test_test_images_and_their_targets(repository, client, entries):
    from repix.data.prepared import Prepared

    test = Prepared.open(repository / "data" / "prepared" / "tiny").split("test")
    for side in ("source", "target"):
        found = client.get(f"{AT}/examples/1/{side}")
        assert np.array_equal(pixels(found.data), getattr(test, side)[1])
    assert client.get(f"{AT}/examples/2/source").status_code == 404
    assert b"# tiny-pix2pix-0" in client.get(f"{AT}/card").data


def test_an_upload_becomes_the_models_size_as_preprocess_would_make_it(client):
    from repix.data.images import resize

    (photo,) = images(7, 1, (48, 32))
    answer = client.post(f"{AT}/fit", data=encoded(photo))
    assert answer.headers["X-Size"] == "32 x 48"
    assert np.array_equal(pixels(answer.data), resize(photo, (16, 16)))
    grey = client.post(f"{AT}/fit", data=encoded(photo[..., 0], "BMP"))
    assert pixels(grey.data).shape == (16, 16, 3)
    for kind in ("JPEG", "WEBP"):
        assert client.post(f"{AT}/fit", data=encoded(photo, kind)).status_code == 200


def header_only(width: int, height: int) -> bytes:
    """Return a PNG whose header promises more than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")


SMALL = encoded(images(1, 1, (8, 8))[0])


@pytest.mark.parametrize(
    ("address", "body", "code", "said"),
    [
        (f"{AT}/fit", b"not an image", 415, "not an image, or damaged at its start"),
        (f"{AT}/fit", b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "PostScript (EPS), which is not read; convert it to PNG"),
        (f"{AT}/fit", b"", 415, "not an image, or damaged at its start"),
        (f"{AT}/fit", encoded(images(1, 1)[0])[:200], 400, "cannot be decoded"),
        (f"{AT}/fit", encoded(images(1, 1, channels=4)[0]), 400, "transparen"),
        (f"{AT}/fit", header_only(20_000, 20_000), 413, "400000000 pixels; at most 50000000"),
        (f"{AT}/fit", header_only(8_000, 8_000), 413, "8000 x 8000 = 64000000 pixels; at most 50000000 are taken"),
        (f"{AT}/fit", bytes(17_000_000), 413, "17 MB; at most 16 MB"),
        (f"{AT}/translate", bytes(17_000_000), 413, "17 MB; at most 16 MB"),
        (f"{AT}/translate", b"not an image", 400, "not an image, or damaged"),
        (f"{AT}/translate", SMALL, 400, "8 x 8 pixels, the network takes 16 x 16"),
        ("/models/tiny-none-0/source_to_target/translate", SMALL, 404, "no model tiny-none-0/source_to_target"),
    ],
    ids=["text", "eps", "empty", "cut", "alpha", "bomb", "pixels", "17 MB", "17 MB asked", "corrupt", "size", "model"],
)
def test_what_is_refused_and_why(client, address, body, code, said):
    answer = client.post(address, data=body)
    assert (answer.status_code, said in answer.get_json()["error"]) == (code, True), answer.get_json()


def test_other_names_for_this_machine_are_refused(client):
    assert client.get("/models", headers={"Host": "attacker.example:7860"}).status_code == 400
    assert client.get("/models", headers={"Host": "localhost:7860"}).status_code == 200


def test_nothing_may_be_loaded_from_elsewhere(client):
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for name in ("/", "/static/demo.js", "/static/demo.css"):
        found = client.get(name)
        assert found.status_code == 200
        text = found.text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "//" not in text.replace("// ", "") and "@import" not in text


def test_100_mb_by_http_and_the_server_still_answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", f"{AT}/fit", bytes(100_000_000), {"Content-Type": "image/png"})
    answer = connection.getresponse()
    assert (answer.status, b"100 MB; at most 16 MB" in answer.read()) == (413, True)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", f"{AT}/translate", encoded(images(5, 1)[0]), {"Content-Type": "image/png"})
    assert connection.getresponse().status == 200


def test_a_changed_file_is_not_shown(repository, entries, tmp_path):
    from repix.demo import catalogue

    shutil.copytree(repository / "exports" / CELL, tmp_path / "exports" / CELL)
    (alone,), _ = catalogue.find(tmp_path)
    told = alone.describe()
    # No data, metrics or git here: what is missing is missing, no more.
    assert (told["examples"], told["metrics"]) == (0, []) and len(told["colours"]) > 4
    with open(alone.model, "ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match=r"model\.onnx is not the file of export\.json; run `dvc checkout`"):
        catalogue.find(tmp_path)


def test_the_colours_of_a_label_map_are_those_to_draw_with(entries):
    from repix.data.synthetic import PALETTE
    from repix.demo.catalogue import Entry

    class Labels(Entry):
        def _test(self):
            from repix.data.prepared import SplitArrays

            found = np.empty((20, 16, 16, 3), np.uint8)
            found[...], found[:, 4:9], found[:, 12:, 3:5] = PALETTE["wall"], PALETTE["window"], PALETTE["door"]
            found[0, 0, 0] = 9  # a speck is no label
            return SplitArrays(found, found, (), ())

    entry = Labels(entries[0][0].root, entries[0][0].exported, "source_to_target")
    assert entry.colours() == [
        {"colour": "#0030ff", "name": "wall"},
        {"colour": "#0080ff", "name": "window"},
        {"colour": "#00cfff", "name": "door"},
    ]
    assert "#c0392b" in {one["colour"] for one in entries[0][0].colours()}  # noise is no label map


def test_the_command_says_where_it_listens_and_ends_on_interrupt(repository):
    command = [sys.executable, "-m", "repix.cli", "demo", "--port", "0"]
    server = subprocess.Popen(
        command,
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = server.stdout.readline()
        assert line.startswith("2 models at http://127.0.0.1:"), server.stderr.read()
        found = http.client.HTTPConnection(line.split("//")[1].split(" ")[0], timeout=10)
        found.request("GET", "/models")
        assert found.getresponse().status == 200
    finally:
        os.kill(server.pid, signal.SIGINT)
        _, error = server.communicate(timeout=20)
    assert server.returncode == 0 and "Traceback" not in error
    assert "not shown: tiny-pix2pix-2" in error


@pytest.mark.parametrize(
    ("taken", "options", "said"),
    [(True, [], "Address already in use; choose another with --port"), (False, ["--host", "192.0.2.1"], "192.0.2.1")],
)
def test_a_taken_address_is_one_line(repository, monkeypatch, capsys, taken, options, said):
    monkeypatch.chdir(repository)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit) as stopped:
            cli.main(["demo", "--port", str(other.getsockname()[1]), *options])
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1] and lines[-1].startswith("repix demo: ") and len(lines) == 1, lines


def test_nothing_exported_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["demo"])
    assert capsys.readouterr().err == (
        "repix demo: no exported model in exports/ that a page can show: run `make repro`, or `dvc pull`\n"
    )
