"""What the page's server answers, and what it refuses: a clear 4xx, and it goes on."""

from __future__ import annotations

import contextlib
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
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from checks.support.cells import images
from checks.support.repository import CELL
from repix import cli
from repix.errors import UserError
from tests.conftest import ROOT
from tests.demo.conftest import BFLOAT16, SECOND

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
    from repix.demo.server import serve

    server = serve(app.create(*entries), "127.0.0.1", 0)
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


def header_only(width: int, height: int, bits: int = 8, colours: int = 2) -> bytes:
    """Return a PNG whose header promises more than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")


def large_text() -> bytes:
    """Return a sound 16 x 16 PNG with more text, behind its pixels, than Pillow reads."""
    data = encoded(images(1, 1)[0])
    body = b"Comment\0\0" + zlib.compress(bytes(5 << 20))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return data[:-12] + chunk + data[-12:]


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


def test_other_names_for_this_machine_are_refused(client, entries):
    from repix.demo import app

    for name in ("attacker.example:7860", "localhost.attacker.example", "10.0.0.1", "[::1", "", "127.0.0.1@attacker"):
        for address in ("/models", "/", "/static/demo.js", "/nothing"):
            assert client.get(address, headers={"Host": name}).status_code == 400, name
    for name in ("localhost:7860", "127.0.0.1:1", "[::1]:7860", "LocalHost"):
        assert client.get("/models", headers={"Host": name}).status_code == 200, name
    # With --host: any numbers, which nobody can give to another's machine, and the names that were asked for.
    wide = app.create(*entries, (*app.LOOPBACK, "Workstation"), addresses=True).test_client()
    for name, code in (("192.0.2.7:80", 200), ("[2001:db8::1]", 200), ("workstation", 200), ("attacker.example", 400)):
        assert wide.get("/models", headers={"Host": name}).status_code == code, name


def test_pages_of_other_origins_may_not_ask(client):
    body, own = encoded(images(5, 1)[0]), {"Host": "127.0.0.1:7860"}
    for origin in ("http://attacker.example", "http://127.0.0.1:9999", "http://127.0.0.1", "null", "", "http://[bad"):
        answer = client.post(f"{AT}/translate", data=body, headers=own | {"Origin": origin})
        assert (answer.status_code, "another origin" in answer.get_json()["error"]) == (403, True), origin
    for told in ({"Origin": "http://127.0.0.1:7860"}, {}, {"Sec-Fetch-Site": "same-origin"}):
        assert client.post(f"{AT}/translate", data=body, headers=own | told).status_code == 200
    foreign = own | {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/models", headers=foreign | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/", headers=foreign | {"Sec-Fetch-Mode": "navigate"}).status_code == 200  # a link
    assert client.get("/").headers["Cross-Origin-Resource-Policy"] == "same-origin"


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


def test_sixteen_bits_are_refused_by_the_header_and_import_no_tensorflow(repository):
    """In a process of its own: this one has TensorFlow."""
    script = """
import sys
from pathlib import Path
from repix.demo import app, catalogue
from tests.demo.test_app import AT, header_only
client = app.create(*catalogue.find(Path())).test_client()
for body in (header_only(8, 8, 16, 2), header_only(8, 8, 16, 0)):
    answer = client.post(f"{AT}/fit", data=body)
    print(answer.status_code, answer.get_json(), "tensorflow" in sys.modules)
"""
    places = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
    )
    expected = "400 {'error': 'has 16 bits per channel, expected 8; convert it'} False\n"
    assert done.stdout == expected * 2, done.stdout + done.stderr


def test_text_behind_the_pixels_is_no_error_of_ours(client):
    for address in (f"{AT}/fit", f"{AT}/translate"):
        answer = client.post(address, data=large_text())
        assert answer.status_code == 200, answer.get_json()


def test_prepared_arrays_are_mapped_before_requests_come(client, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("a header was read in a request"))
    assert client.get(f"{AT}/examples/0/source").status_code == 200
    assert client.get(f"{AT}/examples/0/target").status_code == 200


def test_uploads_are_decoded_one_at_a_time_and_translations_two(client, monkeypatch):
    from repix.demo import app
    from repix.exporting.pyfunc import TranslatorModel

    now, most, lock = {"fit": 0, "translate": 0}, {"fit": 0, "translate": 0}, threading.Lock()

    def counted(name, plain):
        def call(*arguments):
            with lock:
                now[name] += 1
                most[name] = max(most[name], now[name])
            time.sleep(0.05)
            try:
                return plain(*arguments)
            finally:
                with lock:
                    now[name] -= 1

        return call

    monkeypatch.setattr(app, "read_upload", counted("fit", app.read_upload))
    monkeypatch.setattr(TranslatorModel, "translate", counted("translate", TranslatorModel.translate))
    body = encoded(images(5, 1)[0])
    with ThreadPoolExecutor(12) as pool:
        post = [(client.application.test_client().post, f"{AT}/{name}") for name in list(now) * 6]
        asked = [pool.submit(call, address, data=body) for call, address in post]
        assert {one.result().status_code for one in asked} == {200}
    assert most == {"fit": 1, "translate": 2}


def test_who_waits_too_long_is_asked_to_come_again(client, monkeypatch):
    from repix.demo import app

    begun, over = threading.Event(), threading.Event()
    plain = app.read_upload
    monkeypatch.setattr(app, "read_upload", lambda data: (begun.set(), over.wait(10), plain(data))[2])
    monkeypatch.setattr(app, "WAIT_SECONDS", 0.1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, f"{AT}/fit", data=SMALL)
        assert begun.wait(10)
        second = client.application.test_client().post(f"{AT}/fit", data=SMALL)
        over.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.headers["Retry-After"]) == (503, "5")
    assert "try again" in second.get_json()["error"]


def test_idle_connections_make_room_and_do_not_pile_up(port):
    """200 connections that say nothing: not so many threads, and a request among them is served."""
    from repix.demo.server import CONNECTIONS

    before, idle = threading.active_count(), []
    try:
        for _ in range(200):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/models")
        assert connection.getresponse().status == 200
        time.sleep(0.2)
        assert threading.active_count() - before <= CONNECTIONS
        assert idle[0].recv(1) == b""  # the oldest had to go
    finally:
        for one in idle:
            one.close()


@pytest.mark.parametrize(
    ("sent", "again"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X"),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (f"POST {AT}/fit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode(), b"x"),
    ],
    ids=["silent", "headers that drip", "refused body that drips", "body that drips"],
)
def test_a_request_has_to_arrive_in_time(port, monkeypatch, sent, again):
    from repix.demo import server

    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.0)
    begun, closed = time.monotonic(), False
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
        connection.sendall(sent)
        while not closed and time.monotonic() - begun < 5:
            try:
                connection.sendall(again)
                closed = connection.recv(4096) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
    assert closed and time.monotonic() - begun < 3


def test_headers_without_end_are_refused(port):
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"X: " + b"y" * 50_000 + b"\r\n") * 90 + b"\r\n")
        answer = connection.recv(100)
    assert answer == b"" or b" 431 " in answer
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/models")
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("size", [b"5", b"f" * 30, b"ffffff", b"-1", b"x"])
def test_a_body_in_chunks_is_refused_before_it_is_read(port, size):
    head = b"POST /models/a/b/translate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head + size + b"\r\nhello\r\n0\r\n\r\n")
        assert b" 411 " in connection.recv(100)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/models")
    assert connection.getresponse().status == 200


@pytest.mark.parametrize(
    "odd",
    [
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: +36",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3_6",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x24",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36\r\nContent-Length: 0",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length : 36",
        "POST http://[x/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36",
        "POST http://localhost/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36",
    ],
)
def test_what_two_servers_would_read_differently_is_refused_and_hides_no_request(port, odd, capfd):
    hidden = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(odd.encode() + b"\r\n\r\n" + hidden)
        while more := connection.recv(4096):
            answer += more
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in capfd.readouterr().err


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


def test_a_file_that_was_changed_while_the_page_was_up_is_not_opened(repository, tmp_path):
    import onnx

    from repix.demo import app, catalogue

    shutil.copytree(repository / "exports" / CELL, tmp_path / "exports" / CELL)
    (alone,), failures = catalogue.find(tmp_path)
    client = app.create([alone], failures).test_client()
    other = onnx.load(alone.model)
    other.producer_name = "another"
    onnx.save(other, alone.model)
    (image,) = images(1, 1)
    answer = client.post(f"/models/{CELL}/source_to_target/translate", data=encoded(image))
    assert answer.status_code == 422 and answer.json["error"].startswith("model.onnx: not the file of export.json")


def test_a_record_that_is_none_leaves_the_others_on_the_page(repository, tmp_path):
    from repix.demo import catalogue

    shutil.copytree(repository / "exports" / CELL, tmp_path / "exports" / CELL)
    (tmp_path / "exports" / "old").mkdir()
    (tmp_path / "exports" / "old" / "export.json").write_text('{"schema": "repix.export/0"}')
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / f"{CELL}.json").write_text("{")
    for place in (f"lineage/train/{CELL}.json", f"lineage/export/{CELL}.json", "data/prepared/tiny/manifest.json"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text('{"schema": "repix.of/another.version"}')
    (shown,), (left_out,) = catalogue.find(tmp_path)
    assert "exports/old/export.json" in left_out and "\n" not in left_out
    assert f"metrics/{CELL}.json" in shown.scores()["unscored"]
    assert shown.prepared is None and shown.examples() == 0
    assert "run key" not in {row["name"] for row in shown.lineage()}


def test_the_colours_of_a_label_map_are_those_to_draw_with(entries):
    from repix.data.synthetic import PALETTE
    from repix.demo.catalogue import Entry

    class Labels(Entry):
        @property
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
    (tmp_path / "exports").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["demo"])
    assert capsys.readouterr().err == (
        "repix demo: no exported model in exports/ that a page can show: run `dvc repro`, or `dvc pull`\n"
    )
