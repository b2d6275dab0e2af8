"""Downloads against a real server on loopback that cuts, lies and changes its mind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import types
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from repix.config import urls
from repix.data import sources
from repix.errors import UserError
from repix.schemas import Archive
from tests.conftest import ROOT, real_data

LIMIT = 1 << 30
HTML = b"<!DOCTYPE html><html><body>Moved.</body></html>" + b" " * 2000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def data() -> bytes:
    """Return an archive of about 400 kB, which is seven chunks of the downloader."""
    info = tarfile.TarInfo("set/train/a.bin")
    info.size = 400_000
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(random.Random(0).randbytes(400_000)))
    return buffer.getvalue()


@dataclass
class Server:
    """What it serves, how it misbehaves (one entry of each list per request), what it was asked."""

    body: bytes
    statuses: list[int] = field(default_factory=list)  # instead of an answer
    cuts: list[int] = field(default_factory=list)  # bytes of the body after which the connection breaks
    bodies: list[bytes] = field(default_factory=list)  # the file becomes this before the request
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    validator: str | None = "ETag"
    length: int | str | None = "true"
    most: int = 1 << 40  # bytes of one 206 answer
    shift: int = 0  # what a 206 answer is off from the place that was asked for
    pause: float = 0.0
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def ranges_asked(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server: Server = self.server.knobs
        self.close_connection = True
        server.asked.append(dict(self.headers))
        server.paths.append(self.path)
        server.sent.append(0)
        mine = len(server.sent) - 1
        if server.bodies:
            server.body = server.bodies.pop(0)
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_response(status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = {"ETag": f'"{sha256(server.body)[:8]}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        start, total = 0, len(server.body)
        if server.ranges and (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            condition = self.headers.get("If-Range")
            if not server.if_range or condition is None or condition == tag.get(server.validator):
                start = int(wanted[1]) + server.shift
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            total = min(total, start + server.most)
        if server.validator:
            self.send_header(server.validator, tag[server.validator])
        if server.length is not None:
            self.send_header("Content-Length", str(total - start if server.length == "true" else server.length))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = min(total, start + server.cuts.pop(0)) if server.cuts else total
        for place in range(start, end, 8192):
            block = server.body[place : min(place + 8192, end)]
            try:
                self.wfile.write(block)
                self.wfile.flush()
            except OSError:
                return
            server.sent[mine] += len(block)
            time.sleep(server.pause)


@pytest.fixture
def serve(data):
    """Return a function that starts a server with the given knobs; all are stopped afterwards."""
    running = []

    def start(body: bytes = data, path: str = "/set.tar.gz", context: ssl.SSLContext | None = None, **knobs) -> Server:
        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        if context:
            http.socket = context.wrap_socket(http.socket, server_side=True)
        http.knobs = Server(body, **knobs)
        http.knobs.url = f"http{'s' if context else ''}://127.0.0.1:{http.server_port}{path}"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(http)
        return http.knobs

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


class Place:
    """An out, a work folder, and the waits that a fetch asked for."""

    def __init__(self, root: Path):
        self.out, self.work, self.waits = root / "out" / "raw" / "toy", root / "work", []

    def fetch(self, *urls: str, sha256: str | None = None, max_bytes: int = LIMIT, **options) -> Archive:
        options = {"sleep": self.waits.append, "timeout": (2.0, 2.0)} | options
        return sources.fetch(urls, sha256, self.out, dataset="toy", max_bytes=max_bytes, work=self.work, **options)

    def refused(self, *urls: str, keeps_part: bool = False, **options) -> str:
        """Return the message, having checked that nothing was left in the out and nothing beside it."""
        with pytest.raises(UserError) as caught:
            self.fetch(*urls, **options)
        assert not self.out.exists()
        if self.out.parent.exists():
            assert not list(self.out.parent.iterdir())
        left = [path.name for path in self.work.iterdir()] if self.work.exists() else []
        if not keeps_part:
            assert not left
        message = str(caught.value)
        assert "\n" not in message and "datasets.toy" in message
        return message

    def assert_holds(self, record: Archive, data: bytes, name: str = "set.tar.gz", pinned: bool = False) -> None:
        """Check that the out holds exactly the archive and its record, and the work folder no rest."""
        assert sorted(path.name for path in self.out.iterdir()) == sorted(["archive.json", name])
        assert [path.name for path in self.out.parent.iterdir()] == [self.out.name]
        assert (self.out / name).read_bytes() == data
        assert Archive.read(self.out / "archive.json") == record
        assert record == Archive(dataset="toy", file=name, bytes=len(data), sha256=sha256(data), pinned=pinned)
        assert not [path.name for path in self.work.iterdir() if ".part" in path.name]


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


# --- http that works


def test_a_plain_download_without_a_digest_says_how_to_pin_it(place, serve, data, capsys):
    server = serve()
    place.assert_holds(place.fetch(server.url), data)
    assert server.ranges_asked() == [None]
    assert server.asked[0]["Accept-Encoding"] == "identity"
    said = capsys.readouterr().err
    assert f"    sha256: {sha256(data)}\n" in said and "datasets.toy" in said


def test_a_pinned_download_says_nothing_and_is_used_again_without_network(place, serve, data, capsys):
    server = serve()
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert len(server.asked) == 1
    assert capsys.readouterr().err == ""


def test_a_kept_archive_that_was_damaged_is_fetched_again(place, serve, data):
    server = serve()
    place.fetch(server.url, sha256=sha256(data))
    kept = place.work / sha256(data)
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert len(server.asked) == 2
    assert kept.read_bytes() == data


def test_an_unpinned_archive_is_asked_for_each_time(place, serve, data):
    server = serve()
    place.fetch(server.url)
    server.body = data[:-1] + b"?"
    place.assert_holds(place.fetch(server.url), data[:-1] + b"?")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/set.tar.gz?id=1", "set.tar.gz"),
        ("/some%20set%2F..%2Fx.zip", "x.zip"),
        ("/..%5c..%5cevil.zip", "_.._evil.zip"),
        ("/.hidden", "hidden"),
        ("/download/", "download"),
        ("/", "archive"),
        ("/archive.json", "archive"),
        ("/" + "n" * 300 + ".zip", ("n" * 300 + ".zip")[-120:]),
    ],
)
def test_the_file_is_named_after_the_url(place, serve, data, path, name):
    place.assert_holds(place.fetch(serve(path=path).url), data, name=name)


def test_the_out_does_not_depend_on_the_mirror_that_answered(place, serve, data):
    bad, good = serve(statuses=[404], path="/first.tar.gz"), serve(path="/other.tgz")
    place.assert_holds(place.fetch(bad.url, good.url, sha256=sha256(data)), data, name="first.tar.gz", pinned=True)
    assert len(bad.asked) == len(good.asked) == 1


def test_a_body_that_claims_an_encoding_is_stored_as_it_lies_on_the_server(place, serve, data):
    server = serve(headers={"Content-Encoding": "gzip"})
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)


def test_a_redirect_is_followed(place, serve, data):
    target = serve(path="/elsewhere?id=7")
    server = serve(statuses=[302], headers={"Location": target.url})
    place.assert_holds(place.fetch(server.url), data)
    assert len(target.asked) == 1


def test_a_previous_out_is_replaced(place, serve, data):
    place.out.mkdir(parents=True)
    (place.out / "old.zip").write_bytes(b"old")
    place.assert_holds(place.fetch(serve().url), data)


# --- cut, resumed, restarted


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_cut_connections_are_resumed_where_they_stopped(place, serve, data, validator, capsys):
    server = serve(cuts=[150_000, 100_000, 70_000], validator=validator)
    place.assert_holds(place.fetch(server.url), data)
    starts = [int(wanted[6:-1]) for wanted in server.ranges_asked()[1:]]
    assert starts == sorted(set(starts)) and len(starts) == 3
    assert sum(server.sent) < len(data) + 4 * sources._NETWORK_CHUNK_BYTES
    assert all("If-Range" in headers for headers in server.asked[1:])
    assert place.waits == [1.0, 1.0, 1.0]
    assert "the connection was cut" in capsys.readouterr().err


def test_more_cuts_than_attempts_are_no_failure_while_bytes_come(place, serve, data):
    server = serve(cuts=[66_000] * 6)
    place.assert_holds(place.fetch(server.url, attempts=2), data)
    assert len(server.asked) == 7


def test_a_server_without_ranges_starts_again(place, serve, data):
    server = serve(cuts=[150_000], ranges=False)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert server.sent == [150_000, len(data)]


def test_a_server_without_ranges_that_always_cuts_is_given_up(place, serve, data):
    server = serve(cuts=[150_000] * 20, ranges=False)
    message = place.refused(server.url, attempts=3, keeps_part=True)
    assert "the connection was cut" in message and "150000 bytes came, 3 attempts added nothing" in message
    assert len(server.asked) == 4
    assert place.waits == [1.0, 1.0, 2.0]


def test_a_server_that_gives_less_than_was_asked_for_is_asked_again(place, serve, data):
    server = serve(cuts=[150_000], most=100_000)
    place.assert_holds(place.fetch(server.url), data)
    assert server.sent == [150_000, 100_000, 100_000, len(data) - 350_000]


def test_a_server_that_answers_another_range_is_not_believed(place, serve, data, capsys):
    server = serve(cuts=[150_000], shift=-512)
    place.assert_holds(place.fetch(server.url), data)
    assert len(server.asked) == 3 and server.ranges_asked()[2] is None
    assert "the file changed on the server" in capsys.readouterr().err


def test_a_weak_etag_is_no_ground_to_resume_on(place, serve, data):
    server = serve(cuts=[150_000], validator="Last-Modified", headers={"ETag": 'W/"1"'})
    place.assert_holds(place.fetch(server.url), data)
    assert server.asked[1]["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_a_changed_length_is_noticed_before_the_digest_is(place, serve, data, capsys):
    server = serve(bodies=[data + b"longer", data, data], cuts=[150_000], validator=None)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert len(server.asked) == 3 and "the file changed on the server" in capsys.readouterr().err


def test_a_file_that_changed_between_attempts_is_not_mixed(place, serve, data):
    new = data[:-600] + bytes(600)
    server = serve(bodies=[data, new], cuts=[150_000])
    place.assert_holds(place.fetch(server.url), new)
    assert server.ranges_asked()[1] is not None and server.sent[1] == len(new)


@pytest.mark.parametrize("new_size", [0, 1000, 300_000])
def test_a_server_that_ignores_if_range_does_not_mix_versions(place, serve, data, new_size):
    """The changed ETag (same length) or the changed length gives it away; a shorter file answers 416."""
    new = data[: len(data) - new_size - 600] + bytes(600)
    server = serve(bodies=[data, new, new], cuts=[150_000], if_range=False)
    place.assert_holds(place.fetch(server.url), new)
    assert len(server.asked) == 3 and server.ranges_asked()[2] is None


def test_a_part_longer_than_the_new_file_starts_again(place, serve, data):
    new = data[:100_000]
    server = serve(bodies=[data, new, new], cuts=[150_000], if_range=False)
    place.assert_holds(place.fetch(server.url), new)
    assert server.ranges_asked()[1] is not None and len(server.asked) == 3


def test_without_validator_and_digest_nothing_is_resumed(place, serve, data):
    server = serve(cuts=[150_000], validator=None)
    place.assert_holds(place.fetch(server.url), data)
    assert server.ranges_asked() == [None, None]


def test_without_validator_the_digest_finds_mixed_versions_and_starts_again(place, serve, data):
    old = bytes(data[:20]) + b"?" * 1000 + data[1020:]
    server = serve(bodies=[old, data, data], cuts=[150_000], validator=None)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert server.ranges_asked() == [None, "bytes=150000-", None]


def test_a_pinned_download_goes_on_at_the_next_mirror(place, serve, data):
    first, second = serve(cuts=[150_000], statuses=[200, 404]), serve()
    place.assert_holds(place.fetch(first.url, second.url, sha256=sha256(data)), data, pinned=True)
    assert second.ranges_asked() == ["bytes=150000-"] and "If-Range" not in second.asked[0]


def test_an_unpinned_download_starts_again_at_the_next_mirror(place, serve, data):
    first, second = serve(cuts=[150_000], statuses=[200, 404]), serve()
    place.assert_holds(place.fetch(first.url, second.url), data)
    assert second.ranges_asked() == [None]


def test_a_failed_download_is_resumed_by_the_next_call(place, serve, data):
    server = serve(cuts=[150_000, 0, 0])
    message = place.refused(server.url, attempts=2, keeps_part=True)
    assert "150000 bytes came" in message
    place.assert_holds(place.fetch(server.url), data)
    assert server.sent[-1] == len(data) - 150000


def test_a_pinned_part_that_was_complete_is_checked_without_network(place, serve, data):
    server = serve(cuts=[len(data) - 10, 0])
    place.refused(server.url, sha256=sha256(data), attempts=1, keeps_part=True)
    part = place.work / f"{sha256(data)}.part"
    part.write_bytes(data)
    asked = len(server.asked)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert len(server.asked) == asked


def test_an_unpinned_part_that_was_complete_is_the_servers_to_confirm(place, serve, data):
    server = serve(cuts=[150_000, 0])
    place.refused(server.url, attempts=1, keeps_part=True)
    (part,) = place.work.glob("*.part")
    part.write_bytes(data)
    place.assert_holds(place.fetch(server.url), data)
    assert server.ranges_asked()[2:] == [f"bytes={len(data)}-"] and server.sent[2] == 0


def test_without_a_length_a_cut_is_found_by_the_digest(place, serve, data):
    server = serve(cuts=[150_000], length=None, validator=None)
    place.assert_holds(place.fetch(server.url, sha256=sha256(data)), data, pinned=True)
    assert len(server.asked) == 2


def test_a_length_that_promises_too_much_is_a_cut(place, serve, data):
    server = serve(length=len(data) + 5, ranges=False)
    message = place.refused(server.url, attempts=2, keeps_part=True)
    assert "the connection was cut" in message


def test_a_length_that_promises_too_little_is_found_by_the_digest(place, serve, data):
    server = serve(length=len(data) - 700)
    message = place.refused(server.url, sha256=sha256(data))
    assert sha256(data[:-700]) in message and sha256(data) in message


def test_a_killed_download_is_resumed_and_only_the_rest_is_asked_for(place, serve, data):
    server = serve(pause=0.02)
    code = (
        "import sys; from repix.data import sources; url, out, work = sys.argv[1:];"
        "sources.fetch([url], None, out, dataset='toy', max_bytes=1 << 30, work=work)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", code, server.url, place.out, place.work], env=environment)
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size >= 100_000 for path in place.work.glob("*.part")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not place.out.exists() and not place.out.parent.exists()
    (part,) = place.work.glob("*.part")
    there = part.stat().st_size
    assert 100_000 <= there < len(data)
    server.pause = 0
    place.assert_holds(place.fetch(server.url), data)
    assert server.ranges_asked() == [None, f"bytes={there}-"]
    assert server.sent[1] == len(data) - there


def test_two_at_once_download_once(place, serve, data, capfd, monkeypatch):
    monkeypatch.setattr("repix.files.SAY_SECONDS", 0.0)
    server = serve(pause=0.01)
    results = []

    def other():
        second = Place(place.work.parent)
        second.out = place.out.parent.parent / "second" / "toy"
        results.append((second, second.fetch(server.url, sha256=sha256(data))))

    thread = threading.Thread(target=other)
    thread.start()
    place.fetch(server.url, sha256=sha256(data))
    thread.join()
    results[0][0].assert_holds(results[0][1], data, pinned=True)
    assert len(server.asked) == 1
    assert "which is at the download of toy" in capfd.readouterr().err


# --- http that fails


def test_a_busy_server_is_asked_again_after_growing_waits(place, serve, data):
    server = serve(statuses=[503, 500, 429, 502])
    place.assert_holds(place.fetch(server.url), data)
    assert place.waits == [1.0, 2.0, 4.0, 8.0]


def test_a_server_that_names_a_wait_gets_it_up_to_a_minute(place, serve, data):
    server = serve(statuses=[503], headers={"Retry-After": "7"})
    place.assert_holds(place.fetch(server.url), data)
    assert place.waits == [7.0]
    server = serve(statuses=[503], headers={"Retry-After": "86400"})
    place.fetch(server.url)
    assert place.waits == [7.0, 60.0]


def test_a_server_that_stays_busy_is_given_up(place, serve):
    server = serve(statuses=[503] * 9)
    assert "HTTP 503 Service Unavailable; 0 bytes came, 5 attempts" in place.refused(server.url)
    assert len(server.asked) == 5 and place.waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(("status", "text"), [(404, "Not Found"), (403, "Forbidden"), (410, "Gone"), (401, "")])
def test_a_refusal_is_final(place, serve, status, text):
    server = serve(statuses=[status])
    assert f"HTTP {status} {text}" in place.refused(server.url)
    assert len(server.asked) == 1 and place.waits == []


def test_the_line_lists_what_each_mirror_said_and_the_mend(place, serve):
    gone, page, missing = serve(statuses=[404]), serve(HTML), "file:not/there.zip"
    message = place.refused(gone.url, page.url, missing)
    assert f"{gone.url}: HTTP 404 Not Found; {page.url}: is a web page, not an archive" in message
    assert "file:not/there.zip: no such file" in message
    assert "params.yaml" in message and "file:///" in message


@pytest.mark.parametrize("body", [HTML, b"<html>short</html>", b"\xef\xbb\xbf\n<!doctype HTML>" + b" " * 100_000])
@pytest.mark.parametrize("pinned", [None, "0" * 64])
def test_a_web_page_is_named_as_such(place, serve, body, pinned):
    server = serve(body)
    assert "is a web page, not an archive" in place.refused(server.url, sha256=pinned)
    assert len(server.asked) == 1


def test_a_large_file_that_is_no_archive_is_not_downloaded_to_its_end(place, serve):
    server = serve(b"no archive " * 400_000, pause=0.002)
    assert "is not an archive" in place.refused(server.url)
    time.sleep(0.1)
    assert server.sent[0] < len(server.body)


def test_a_wrong_digest_names_both_and_the_mend(place, serve, data):
    server = serve()
    message = place.refused(server.url, sha256="1" * 64)
    assert sha256(data) in message and "1" * 64 in message and "datasets.toy.archive.sha256" in message
    assert len(server.asked) == 1


def test_a_mirror_with_the_wrong_file_is_passed_over(place, serve, data):
    wrong, right = serve(data[:-1] + b"?"), serve()
    place.assert_holds(place.fetch(wrong.url, right.url, sha256=sha256(data)), data, pinned=True)


def test_too_large_by_its_length_is_not_even_begun(place, serve, data):
    server = serve(pause=0.01)
    message = place.refused(server.url, max_bytes=len(data) - 1)
    assert f"is {len(data)} bytes" in message and "limits.download_bytes" in message
    assert server.sent[0] < len(data)


def test_too_large_without_a_length_is_stopped_on_the_way(place, serve):
    server = serve(b"\x1f\x8b" + bytes(3_000_000), length=None, pause=0.002)
    message = place.refused(server.url, max_bytes=100_000)
    assert "more than the 100000 of limits.download_bytes" in message
    time.sleep(0.1)
    assert server.sent[0] < 3_000_000


def test_a_limit_of_exactly_its_size_is_enough(place, serve, data):
    place.assert_holds(place.fetch(serve().url, max_bytes=len(data)), data)


def test_a_kept_archive_above_a_lowered_limit_is_refused_and_kept(place, serve, data):
    server = serve()
    place.fetch(server.url, sha256=sha256(data))
    with pytest.raises(UserError, match=r"limits\.download_bytes"):
        place.fetch(server.url, sha256=sha256(data), max_bytes=100)
    assert (place.work / sha256(data)).read_bytes() == data


def test_an_unknown_host(place, monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = place.refused("http://nowhere.invalid/set.zip", attempts=2)
    assert "http://nowhere.invalid/set.zip: the host name is not known (is there a network?)" in message


def test_a_closed_port(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "Connection refused" in place.refused(f"http://127.0.0.1:{port}/set.zip", attempts=2)


def test_a_silent_server(place):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip"
        assert "nothing came for 0.2 s" in place.refused(url, attempts=2, timeout=(1.0, 0.2))
    assert place.waits == [1.0]


def test_a_certificate_that_nobody_signed(place, serve, tmp_path):
    server = serve(context=self_signed(tmp_path))
    message = place.refused(server.url)
    assert "its https certificate is not accepted (self-signed certificate" in message
    assert place.waits == []


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server context with a certificate made on the spot."""
    import datetime
    import ipaddress

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


# --- who may know and change what


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda url: url.replace("//", "//me:hidden@"), "~/.netrc"),
        (lambda url: url.replace("//", "//hidden@"), "~/.netrc"),
        (lambda url: url + "?token=hidden", "token=$NAME"),
        (lambda url: url + "?id=1&X-Amz-Signature=hidden", "X-Amz-Signature=$NAME"),
    ],
)
def test_secrets_in_a_url_are_refused_before_anybody_is_asked(place, serve, change, mend):
    server = serve()
    message = place.refused(change(server.url))
    assert "hidden" not in message and mend in message and not server.asked


def test_a_secret_comes_from_the_environment_and_is_not_repeated(place, serve, data, monkeypatch, capsys):
    target, lost = serve(), serve(statuses=[404])
    server = serve(statuses=[302], headers={"Location": target.url + "?token=hidden"})
    monkeypatch.delenv("TOY_TOKEN", raising=False)
    assert "set the environment variable TOY_TOKEN" in place.refused(server.url + "?token=$TOY_TOKEN")
    monkeypatch.setenv("TOY_TOKEN", "hid den")
    place.assert_holds(place.fetch(server.url + "?token=$TOY_TOKEN"), data)
    assert server.paths == ["/set.tar.gz?token=hid%20den"]
    written = b"".join(path.read_bytes() for path in place.out.rglob("*.json"))
    assert b"hid" not in written and "hid" not in capsys.readouterr().err
    shutil.rmtree(place.out)
    assert "hid" not in place.refused(lost.url + "?token=$TOY_TOKEN")


def test_an_error_that_quotes_the_url_does_not_quote_its_secret(place, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.zip"
    monkeypatch.setenv("TOY_TOKEN", "hidden")
    assert "hidden" not in place.refused(url + "?token=$TOY_TOKEN", attempts=1)
    said = "url: /set.zip?token=hidden (https://me:hidden@host/x?y=hidden)"
    assert urls.clean(said) == "url: /set.zip (https://host/x)"


def test_netrc_is_asked_for_who_we_are(place, serve, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve()
    place.fetch(server.url)
    assert server.asked[0]["Authorization"].startswith("Basic ")


@pytest.fixture
def trusted(tmp_path, monkeypatch) -> ssl.SSLContext:
    """Return a context whose certificate is trusted in this test."""
    context = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "server.pem"))
    return context


def test_https_that_redirects_to_http_needs_a_digest(place, serve, data, trusted):
    plain = serve()
    safe = serve(statuses=[302, 302], headers={"Location": plain.url}, context=trusted)
    assert "plain http in place of https" in place.refused(safe.url)
    assert not plain.asked
    place.assert_holds(place.fetch(safe.url, sha256=sha256(data)), data, pinned=True)


def test_a_password_is_not_sent_in_clear_where_https_redirects_to_http(
    place, serve, data, trusted, tmp_path, monkeypatch
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    plain = serve()
    safe = serve(statuses=[302], headers={"Location": plain.url}, context=trusted)
    place.assert_holds(place.fetch(safe.url, sha256=sha256(data)), data, pinned=True)
    assert "Authorization" in safe.asked[0] and "Authorization" not in plain.asked[0]


def test_the_body_of_a_redirect_is_not_read(place, serve, data):
    target = serve()
    head = (
        f"HTTP/1.1 302 Found\r\nLocation: {target.url}\r\nContent-Encoding: gzip\r\nContent-Length: 1000000000\r\n\r\n"
    )
    with talking(head.encode(), b"x" * 1000, pause=5.0) as url:
        began = time.monotonic()
        place.assert_holds(place.fetch(url), data)
        assert time.monotonic() - began < 4


def test_http_does_not_stand_in_for_https_without_a_digest(place, serve, data, trusted):
    plain = serve()
    safe = serve(statuses=[404, 404], context=trusted)
    message = place.refused(safe.url, plain.url)
    assert "HTTP 404" in message and "plain http in place of https" in message and not plain.asked
    place.assert_holds(place.fetch(safe.url, plain.url, sha256=sha256(data)), data, pinned=True)


def test_http_alone_was_asked_for_by_name(place, serve, data, trusted):
    place.assert_holds(place.fetch(serve().url), data)
    place.assert_holds(place.fetch(serve(context=trusted).url), data)


@contextlib.contextmanager
def talking(*parts: bytes, pause: float = 0.0, again: bool = False):
    """Serve every connection these bytes, the last of them for ever where ``again``; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def talk(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while again and not over.is_set():
                connection.sendall(parts[-1])
                time.sleep(pause)

    def listen():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/set.tar.gz"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"Content-Length: 100000\r\n\r\n", b"\x1f"),
        (OK + b"Content-Length: 100000000\r\n\r\n", b"\x1f\x8b" * 5000),
        (OK, b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
    ],
)
def test_bytes_that_drip_are_no_progress(place, parts, monkeypatch):
    monkeypatch.setattr(sources, "LOWEST_RATE", 10**7)
    begin = time.monotonic()
    with talking(*parts, pause=0.02, again=True) as url:
        message = place.refused(url, attempts=2, timeout=(1.0, 0.4), keeps_part=True)
    assert "2 attempts added nothing" in message and "bytes came in 0.4" in message
    assert time.monotonic() - begin < 5


def test_a_slow_server_is_given_up_although_its_bytes_add_up(place, serve, monkeypatch):
    monkeypatch.setattr(sources, "LOWEST_RATE", 10**7)
    server = serve(pause=0.05)
    message = place.refused(server.url, attempts=2, timeout=(1.0, 0.6), keeps_part=True)
    assert "bytes came in 0." in message and len(server.asked) == 2


def test_headers_without_end(place):
    with talking(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, again=True) as url:
        assert "headers without end" in place.refused(url, attempts=1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://[bad/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"a" * 300 + b"/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://a..b/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://host:99999/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /set.tar.gz\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        OK + b"Content-Length: banana\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nbanana\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n",
        b"HTTP/1.1 9999 No\r\n\r\n",
        b"banana\r\n\r\n",
        b"\x16\x03\x01",
        b"",
        b"HTTP/1.1 404 \x1b[31mRed\x07\x9b1m\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_nonsense_is_the_failure_of_one_mirror(place, serve, data, answer):
    with talking(answer) as url:
        message = place.refused(url, sha256=sha256(data), attempts=1, keeps_part=True)
        assert message.isprintable() and len(message) < 1200
        place.assert_holds(place.fetch(url, serve().url, sha256=sha256(data), attempts=1), data, pinned=True)


@pytest.mark.parametrize("url", ["http://a..b/x.zip", "https://" + "a" * 300 + "/x.zip", "http://host:99999/x.zip"])
def test_host_names_that_are_none(place, url):
    assert "is no URL" in place.refused(url)


def test_a_date_within_the_minute_is_no_ground_to_resume_on(place, serve, data):
    now = formatdate(usegmt=True)
    server = serve(cuts=[150_000], validator=None, headers={"Last-Modified": now}, if_range=False)
    place.assert_holds(place.fetch(server.url), data)
    assert server.ranges_asked() == [None, None]


def test_a_work_folder_that_cannot_be_made(place, serve, tmp_path):
    place.work = tmp_path / "file" / "work"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"datasets\.toy\.archive: .*file.*; mend the path"):
        place.fetch(serve().url)


# --- file:


def test_an_absolute_file_is_copied_not_linked(place, tmp_path, data):
    source = tmp_path / "my set%.tar.gz"
    source.write_bytes(data)
    url = f"file://{tmp_path}/my%20set%25.tar.gz"
    place.assert_holds(place.fetch(url, sha256=sha256(data)), data, name="my_set_.tar.gz", pinned=True)
    copy = place.out / "my_set_.tar.gz"
    assert source.read_bytes() == data and not copy.is_symlink() and copy.stat().st_nlink == 1
    assert copy.stat().st_ino != source.stat().st_ino
    assert not (place.work / sha256(data)).exists()


def test_a_relative_address_counts_from_the_repository_that_a_temporary_folder_was_made_of(
    place, data, tmp_path, monkeypatch
):
    """As under `dvc exp run --temp` and `repix verify`; what lies in the folder itself goes first."""
    origin, temporary = tmp_path / "repository", tmp_path / "temporary"
    origin.mkdir()
    temporary.mkdir()
    (origin / "set.tar.gz").write_bytes(data)
    monkeypatch.chdir(temporary)
    monkeypatch.setattr("repix.paths.ORIGIN", origin)
    place.assert_holds(place.fetch("file:set.tar.gz"), data)
    (temporary / "set.tar.gz").write_bytes(data[:-1] + b"?")
    place.assert_holds(place.fetch("file:set.tar.gz"), data[:-1] + b"?")
    code = "from repix.paths import ORIGIN; print(ORIGIN.as_posix())"
    for variables, expected in (
        ({}, "."),
        ({"DVC_ROOT": "/a"}, "/a"),
        ({"DVC_ROOT": "/a", "REPIX_ORIGIN": "/b"}, "/b"),
    ):
        environment = {"PYTHONPATH": str(ROOT / "src"), **variables}
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout
        assert said.strip() == expected


@pytest.mark.parametrize("url", ["file:sub/set.tar.gz", "file:./sub/set.tar.gz", "FILE:sub/set.tar.gz"])
def test_a_relative_file_is_relative_to_the_current_folder(place, tmp_path, data, monkeypatch, url):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "set.tar.gz").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    place.assert_holds(place.fetch(url), data)


def test_file_localhost(place, tmp_path, data):
    (tmp_path / "set.tar.gz").write_bytes(data)
    place.assert_holds(place.fetch(f"file://localhost{tmp_path}/set.tar.gz"), data)


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        (None, {}, "no such file"),
        ("folder", {}, "holds no files"),
        (HTML, {}, "is a web page"),
        (b"", {}, "is an empty file"),
        (b"text" * 200, {}, "is not an archive"),
        (b"BZh9" * 200, {}, "is a bzip2 archive"),
        (b"\x1f\x8b" + bytes(500), {"max_bytes": 100}, "is 502 bytes, more than the 100"),
        (b"\x1f\x8b" + bytes(500), {"sha256": "2" * 64}, "2" * 64),
    ],
)
def test_files_that_are_refused(place, tmp_path, content, options, why):
    path = tmp_path / "given"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert why in place.refused(f"file://{path}", **options)
    if isinstance(content, bytes):
        assert path.read_bytes() == content  # theirs, whatever we think of it


def test_weights_are_a_file_and_no_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a file"):
        sources.fetch(
            [f"file://{tmp_path}"], None, "x", dataset="toy", max_bytes=9, work=tmp_path / "work", archive=False
        )


# --- synthetic:


@pytest.fixture
def generator(monkeypatch, data):
    """Put a generator in the place of ``repix.data.synthetic``; return the calls that it got."""
    calls = []

    def write_archive(path: Path, generator: str, options: dict[str, str]) -> None:
        calls.append((generator, options))
        if generator == "unknown":
            raise UserError("no generator 'unknown'; there is shapes")
        Path(path).write_bytes(data)

    fake = types.ModuleType("repix.data.synthetic")
    fake.write_archive = write_archive
    monkeypatch.setitem(sys.modules, "repix.data.synthetic", fake)
    monkeypatch.setattr("repix.data.synthetic", fake, raising=False)
    return calls


def test_a_synthetic_set_is_made_here(place, generator, data):
    record = place.fetch("synthetic:shapes?train=24&size=64&note=a%20b&empty=", sha256=sha256(data))
    place.assert_holds(record, data, name="shapes.tar", pinned=True)
    assert generator == [("shapes", {"train": "24", "size": "64", "note": "a b", "empty": ""})]
    place.fetch("synthetic:shapes")
    assert generator[1] == ("shapes", {})


def test_what_a_killed_synthetic_run_left_is_cleared(place, generator, data):
    program = (
        "import os, sys; from repix.files import scratch_folder\n"
        "with scratch_folder(sys.argv[1]) as made:\n    (made / 'half.tar').touch(); os._exit(9)"
    )
    subprocess.run(
        [sys.executable, "-c", program, place.work / "synthetic"], env={"PYTHONPATH": str(ROOT / "src")}, check=False
    )
    assert len(list(place.work.iterdir())) == 1
    place.assert_holds(place.fetch("synthetic:shapes"), data, name="shapes.tar")
    assert not list(place.work.iterdir())


def test_a_synthetic_set_with_another_digest_is_refused(place, generator, data):
    assert sha256(data) in place.refused("synthetic:shapes", sha256="3" * 64)


def test_an_unknown_generator_is_the_generators_to_refuse(place, generator):
    with pytest.raises(UserError, match="there is shapes"):
        place.fetch("synthetic:unknown")
    assert not place.out.exists() and not list(place.work.iterdir())


# --- URLs that can never be right


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/set.zip", "repix knows https://, http://, file: and synthetic:"),
        ("data/set.zip", "write file:path"),
        ("/data/set.zip", "write file:path"),
        ("", "write file:path"),
        ("C:\\set.zip", "write file:path"),
        ("http:///set.zip", "names no host"),
        ("https:set.zip", "names no host"),
        ("http://[half/set.zip", "is no URL"),
        ("http://host:port/set.zip", "is no URL"),
        ("file://data/set.zip", "file:///absolute/path or file:relative/path"),
        ("synthetic:", "synthetic:generator?option=value"),
        ("synthetic:../shapes", "synthetic:generator?option=value"),
        ("synthetic:shapes?size", "synthetic:generator?option=value"),
        ("synthetic:shapes?size=1&size=2", "synthetic:generator?option=value"),
    ],
)
def test_a_bad_url_is_refused_before_the_good_ones_are_asked(place, serve, url, why):
    server = serve()
    message = place.refused(server.url, url)
    assert why in message and "datasets.toy.archive.urls" in message
    assert server.asked == [] and not place.work.exists()


# --- the real thing


def test_the_real_facades_over_a_line_that_is_cut_twice(place, serve):
    body = real_data("data/facades.tar.gz").read_bytes()
    server = serve(body, path="/facades.tar.gz", cuts=[9_000_000, 8_000_000])
    record = place.fetch(server.url, sha256=sha256(body))
    place.assert_holds(record, body, name="facades.tar.gz", pinned=True)
    assert len(server.asked) == 3 and None not in server.ranges_asked()[1:]
    assert sum(server.sent) < len(body) + 3 * sources._NETWORK_CHUNK_BYTES


def test_weights_need_not_be_an_archive_but_a_web_page_is_refused(tmp_path):
    """The published Inception weights are a bare pickle; a captive portal's page is not."""
    weights, page = tmp_path / "weights.pth", tmp_path / "page.pth"
    weights.write_bytes(b"\x80\x02" + bytes(2000))
    page.write_bytes(b"<!DOCTYPE html><html><body>please log in</body></html>" + b" " * 1000)
    asked = {"dataset": "inception", "max_bytes": 10_000, "work": tmp_path / "work"}
    got = sources.fetch([weights.as_uri()], None, tmp_path / "out", archive=False, **asked)
    assert got.bytes == 2002
    with pytest.raises(UserError, match="not an archive"):
        sources.fetch([weights.as_uri()], None, tmp_path / "out2", **asked)
    with pytest.raises(UserError, match="web page"):
        sources.fetch([page.as_uri()], None, tmp_path / "out3", archive=False, **asked)


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_a_file_of_a_folder_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch, change):
    folder, add = tmp_path / "photos", tarfile.TarFile.addfile
    folder.mkdir()
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (1, 1))

    def write_then_add(self, header, file):
        if header.name == "2.png":
            (folder / "2.png").write_bytes(bytes({"shorter": 10, "longer": 2000, "other": 1000}[change]))
        add(self, header, file)

    asked = {"dataset": "toy", "max_bytes": LIMIT, "work": tmp_path / "work"}
    assert sources.fetch([f"{folder.as_uri()}/"], None, tmp_path / "out", **asked).file == "photos.tar"
    monkeypatch.setattr(tarfile.TarFile, "addfile", write_then_add)
    with pytest.raises(
        UserError, match=r"2\.png: changed while it was read; run the same command when nobody writes it"
    ):
        sources.fetch([f"{folder.as_uri()}/"], None, tmp_path / "again", **asked)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train" / "B").rename(folder / "train" / "C"),
        lambda folder: (folder / "val" / "A" / "1.png").unlink(),
        lambda folder: (folder / "train" / "B" / "1.png").write_bytes(b"other"),
    ],
    ids=["renamed", "removed", "changed"],
)
def test_a_folder_is_packed_again_only_after_a_change(tmp_path, change, monkeypatch):
    from repix import digests
    from repix.data import packing

    folder = tmp_path / "photos"
    for place in ("train/B", "val/A"):
        (folder / place).mkdir(parents=True)
        (folder / place / "1.png").write_bytes(b"x")
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    packed = []

    def digest():
        packed.append(None)
        return packing.digest(folder)

    known = digests.Digests(tmp_path / "known")
    first = known.of_folder(folder, lambda: packing.below(folder), digest)
    assert known.of_folder(folder, lambda: packing.below(folder), digest) == first and len(packed) == 1
    times = {path: path.stat() for path in [*folder.rglob("*"), folder]}
    change(folder)
    for path, was in times.items():
        if path.exists():
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert known.of_folder(folder, lambda: packing.below(folder), digest) != first and len(packed) == 2
