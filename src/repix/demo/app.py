"""The page's server: a few addresses, each a pure function of what it is asked.

It keeps nothing of what is sent. The page and all that it loads come from ``static/``:
nothing is fetched from elsewhere, and the headers forbid it.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Iterable

import numpy as np
from flask import Flask, Response, abort, jsonify, request, send_file
from PIL import Image
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, make_server

from repix import pages
from repix.data import image_reader
from repix.data.resizing import resize
from repix.demo.catalogue import Entry
from repix.exporting.cards import MODEL_CARD
from repix.exporting.pyfunc import MAX_BYTES, RequestError, TranslatorModel, decode

MAX_PIXELS = 50_000_000
OPEN = 4  # models that are held in memory
LOOPBACK = ("127.0.0.1", "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
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
                model.open(entry.model, entry.exported.model_dump(mode="json"), entry.translator)
            self._open[entry.key] = model
            while len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
            return model


def read_upload(data: bytes) -> image_reader.Decoded:
    """Return what an uploaded file holds, read as training reads it.

    Raises:
        HTTPException: 413 for too many pixels, 415 for another format, 400 for a broken file.
    """
    try:
        return image_reader.decode(data, image_reader.Limit(MAX_PIXELS, "make it smaller first"))
    except image_reader.TooLargeError as error:
        abort(413, str(error))
    except image_reader.UnknownFormatError as error:
        abort(415, str(error))
    except image_reader.ImageError as error:
        abort(400, str(error))


def create(entries: Iterable[Entry], left_out: Iterable[str] = (), hosts: Iterable[str] | None = LOOPBACK) -> Flask:
    """Return the application.

    Args:
        entries: what it shows.
        left_out: lines on what it does not show.
        hosts: names that it answers to (a page elsewhere may not reach it by another name
            for this machine); None for any.
    """
    shown = {entry.key: entry for entry in entries}
    app = Flask(__name__, static_folder="static", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.config["TRUSTED_HOSTS"] = list(hosts) if hosts is not None else None
    app.json.sort_keys = False
    told = {"models": [entry.describe() for entry in shown.values()], "left_out": list(left_out)}
    models = Models()

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException):
        said = error.description
        if error.code == 413 and request.content_length and request.content_length > MAX_BYTES:
            said = f"{request.content_length / 1e6:.0f} MB; at most {MAX_BYTES // 10**6} MB are taken"
        return jsonify(error=said), error.code

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
        decoded = read_upload(request.get_data())
        source, size = entry.sides[0], entry.exported.crop_size
        try:
            pixels = image_reader.convert(decoded, colour=source.colour, channels=source.channels)
        except image_reader.ImageError as error:
            abort(400, str(error))
        height, width = pixels.shape[:2]
        resample = entry.prepared.manifest.resample if entry.prepared else "bicubic"
        return png(resize(pixels, size, resample), **{"X-Size": f"{width} x {height}"})

    @app.post("/models/<cell>/<translator>/translate")
    def translate(cell: str, translator: str):
        """Return the translation of an image of exactly the model's size: PNG, and how long it took."""
        entry = entry_of(cell, translator)
        model = models.get(entry)
        try:
            image = decode(request.get_data(), model.size, model.source)
        except RequestError as error:
            abort(400, str(error))
        begun = time.perf_counter()
        found = model.translate(image)
        spent = (time.perf_counter() - begun) * 1000
        return png(found, **{"Server-Timing": f"model;dur={spent:.2f}"})

    return app


def serve(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """Return a server that listens; ``serve_forever()`` runs it, ``port`` is its port (of 0: a free one).

    Werkzeug's server is made for one user at a time, which a page on loopback has. It reads
    a refused body to its end, so that the browser sees the refusal.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line per request
    # A socket of our own: Werkzeug prints and exits where the address is taken.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(64)
        # Werkzeug takes a duplicate of the descriptor.
        return make_server(host, port, app, threaded=True, fd=listening.fileno())
    finally:
        listening.close()
