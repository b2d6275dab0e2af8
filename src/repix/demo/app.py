"""The page's server: a few addresses, each a pure function of what it is asked.

It keeps nothing of what is sent. The page and all that it loads come from ``static/``:
nothing is fetched from elsewhere, and the headers forbid it. It answers its own page and
nobody else's: a foreign ``Host`` or ``Origin`` is refused. What one request may cost is known
before it is done, and how many are done at once is bounded, so memory is bounded too.
"""

from __future__ import annotations

import io
import ipaddress
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
from flask import Flask, Response, abort, jsonify, request, send_file
from PIL import Image
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from repix import pages
from repix.data import image_reader
from repix.data.resizing import resize
from repix.demo.catalogue import Entry
from repix.exporting.cards import MODEL_CARD
from repix.exporting.pyfunc import MAX_BYTES, ModelError, RequestError, TranslatorModel, decode

MAX_PIXELS = 50_000_000
OPEN = 4  # models that are held in memory
TRANSLATIONS = 2  # at once
LARGE_BYTES = 1 << 20  # of a body; a drawing has less
LARGE = 8  # bodies of more that are held at once
WAIT_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Models:
    """The opened models; the least recently used one makes room for another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, TranslatorModel] = {}

    def get(self, entry: Entry) -> TranslatorModel:
        """Return the model of an entry."""
        with self._lock:
            model = self._open.pop(entry.key, None)
            if model is None:
                model = TranslatorModel()
                digest = entry.exported.digests[entry.translator]["onnx"]
                model.open(entry.model, entry.exported.model_dump(mode="json"), entry.translator, digest)
            self._open[entry.key] = model
            while len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
            return model


class Places:
    """So many at once: the others wait their turn, and after :data:`WAIT_SECONDS` are asked to come again."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ServiceUnavailable: none became free in time.
        """
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise ServiceUnavailable("too much to do at once; try again in a moment", retry_after=5)
        try:
            yield
        finally:
            self._free.release()


def read_upload(data: bytes) -> image_reader.Decoded:
    """Return what an uploaded file holds, read as training reads it.

    Raises:
        HTTPException: 413 for too many pixels, 415 for another format, 400 for a broken file
            or 16 bits a channel.
    """
    try:
        if data.startswith(image_reader.PNG_SIGNATURE) and data[24:25] == b"\x10":
            abort(400, "has 16 bits per channel, expected 8; convert it")  # as no model of this page takes
        return image_reader.decode(data, image_reader.Limit(MAX_PIXELS, "make it smaller first"))
    except image_reader.TooLargeError as error:
        abort(413, str(error))
    except image_reader.UnknownFormatError as error:
        abort(415, str(error))
    except image_reader.ImageError as error:
        abort(400, str(error))
    except MemoryError:
        raise ServiceUnavailable("too little memory for it now; try again in a moment", retry_after=5) from None


def is_own(host: str, names: frozenset[str], addresses: bool) -> bool:
    """Return whether a ``Host`` header names this server.

    A name that somebody else gives to this machine (DNS rebinding) is not among ours; numbers
    cannot be given to others.

    Args:
        host: a name or numbers, with or without a port.
        names: ours, in small letters.
        addresses: whether any numbers will do.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names:
            return True
        return addresses and bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def create(
    entries: Iterable[Entry],
    left_out: Iterable[str] = (),
    hosts: Iterable[str] = LOOPBACK,
    *,
    addresses: bool = False,
) -> Flask:
    """Return the application.

    Args:
        entries: what it shows.
        left_out: lines on what it does not show.
        hosts: names that it answers to (a page elsewhere may not reach it by another name
            for this machine).
        addresses: whether it answers to any address in numbers, too.
    """
    shown = {entry.key: entry for entry in entries}
    app = Flask(__name__, static_folder="static", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.json.sort_keys = False
    told = {"models": [entry.describe() for entry in shown.values()], "left_out": list(left_out)}
    models, names = Models(), frozenset(name.lower() for name in hosts)
    translating, decoding, receiving = Places(TRANSLATIONS), Places(1), Places(LARGE)

    @app.before_request
    def refuse_strangers() -> None:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not is_own(host, names, addresses):
            abort(400, "this server has another name; `repix demo --name NAME` adds one")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            abort(403, "asked for by a page of another origin")
        told = request.headers.get("Sec-Fetch-Site", "none")
        # A link may lead here; a page may not ask, or show, anything of it.
        if told not in ("none", "same-origin") and request.headers.get("Sec-Fetch-Mode") != "navigate":
            abort(403, "asked for by a page of another site")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException):
        said = error.description
        if error.code == 413 and request.content_length and request.content_length > MAX_BYTES:
            said = f"{request.content_length / 1e6:.0f} MB; at most {MAX_BYTES // 10**6} MB are taken"
        again = getattr(error, "retry_after", None)
        return jsonify(error=said), error.code, {"Retry-After": str(again)} if again else {}

    @contextmanager
    def body() -> Iterator[bytes]:
        """Receive what was sent; a length that is not told counts as large."""
        if (request.content_length or LARGE_BYTES + 1) <= LARGE_BYTES:
            yield request.get_data(cache=False)
        else:
            with receiving.one():
                yield request.get_data(cache=False)

    def entry_of(cell: str, translator: str) -> Entry:
        return shown.get(f"{cell}/{translator}") or abort(404, f"no model {cell}/{translator}")

    def png(array: np.ndarray, **headers: str) -> Response:
        data = io.BytesIO()
        Image.fromarray(array if array.shape[2] == 3 else array[..., 0]).save(data, "PNG")
        return Response(data.getvalue(), mimetype="image/png", headers=headers)

    @app.get("/")
    def page():
        return pages.render(__file__, "html", most_mb=MAX_BYTES // 10**6)

    @app.get("/models")
    def catalogue():
        return jsonify(told)

    @app.get("/models/<cell>/<translator>/card")
    def card(cell: str, translator: str):
        path = entry_of(cell, translator).folder / MODEL_CARD
        return send_file(path.resolve(), "text/plain") if path.is_file() else abort(404, "it has no card")

    @app.get("/models/<cell>/<translator>/examples/<int:number>/<any(source, target):side>")
    def example(cell: str, translator: str, number: int, side: str):
        found = entry_of(cell, translator).example(number, side)
        return png(found) if found is not None else abort(404, "no such test image")

    @app.post("/models/<cell>/<translator>/fit")
    def fit(cell: str, translator: str):
        """Return an uploaded image as the model takes it: PNG; ``X-Size`` says what it was."""
        entry = entry_of(cell, translator)
        source, size = entry.sides[0], entry.exported.crop_size
        resample = entry.prepared.manifest.resample if entry.prepared else "bicubic"
        with body() as data, decoding.one():
            decoded = read_upload(data)
            try:
                pixels = image_reader.convert(decoded, colour=source.colour, channels=source.channels)
            except image_reader.ImageError as error:
                abort(400, str(error))
            height, width = pixels.shape[:2]
            return png(resize(pixels, size, resample), **{"X-Size": f"{width} x {height}"})

    @app.post("/models/<cell>/<translator>/translate")
    def translate(cell: str, translator: str):
        """Return the translation of an image of exactly the model's size: PNG, and how long it took."""
        entry = entry_of(cell, translator)
        with body() as data, translating.one():
            try:
                model = models.get(entry)
                image = decode(data, model.size, model.source)
                begun = time.perf_counter()
                found = model.translate(image)
            except RequestError as error:
                abort(400, str(error))
            except ModelError as error:
                abort(422, f"{entry.model.name}: {error}; run `dvc checkout` or `dvc repro`")
            spent = (time.perf_counter() - begun) * 1000
            return png(found, **{"Server-Timing": f"model;dur={spent:.2f}"})

    return app
