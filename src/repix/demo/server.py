"""A server that a stranger cannot fill up: few connections, each with a deadline, and none kept waiting for nothing.

Werkzeug's server has a thread for every connection and waits for each as long as it stays
open. Here the number of connections is bounded, a request has to arrive in time, and where
all places are taken the connection that has kept us waiting longest makes room.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import re
import socket
import sys
import threading
import time

from flask import Flask
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, WSGIRequestHandler

CONNECTIONS = 64
"""Most at once; a browser opens six."""

IDLE_SECONDS = 10.0
"""How long to wait for the next bytes, and for a client to take an answer."""

REQUEST_SECONDS = 60.0
"""How long a request may take to arrive."""

HEADER_BYTES = 1 << 17
"""Most of a request before its body."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a header's name, RFC 9110
_DRAINED = 1 << 20  # of a refused body, read at once and thrown away; Werkzeug reads a thousand times
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    b'{"error": "all connections are taken; try again"}\n'
)


class _Timed(io.RawIOBase):
    """The bytes of one connection, which have to come in time."""

    def __init__(self, connection: socket.socket, server: _Server):
        self._connection, self._server = connection, server
        self._until = time.monotonic() + REQUEST_SECONDS
        self.left: int | None = HEADER_BYTES  # None: the headers are through

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        seconds = min(IDLE_SECONDS, self._until - time.monotonic())
        if seconds <= 0:
            raise TimeoutError("the request takes too long")
        self._connection.settimeout(seconds)
        with self._server.waiting(self._connection):
            count = self._connection.recv_into(buffer)
        self._connection.settimeout(IDLE_SECONDS)
        if self.left is not None:
            self.left -= count
            if self.left < 0:
                raise http.client.LineTooLong("header")
        return count


class _Body(io.BufferedReader):
    """A request's bytes; once it is answered, the rest of them is read in small pieces."""

    answered = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.answered and (size is None or not 0 <= size <= _DRAINED):
            size = _DRAINED
        return super().read(size)


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._timed = _Timed(self.connection, self.server)
        self.rfile = _Body(self._timed)

    def parse_request(self) -> bool:
        found = super().parse_request()
        self._timed.left = None
        if found and "Transfer-Encoding" in self.headers:
            # Werkzeug's reader of chunks tells Python of more bytes than came, which Python before 3.11.4 believes:
            # the process would crash. No browser sends chunks.
            self.close_connection = True
            self.send_error(411, "a request says its length")
            return False
        if found and (why := _odd(self)):
            # Read otherwise by a proxy before us: its next client would be answered what this one hid in its body.
            self.close_connection = True
            self.send_error(400, why)
            return False
        return found

    def send_response(self, *args, **options) -> None:
        self.rfile.answered = True
        super().send_response(*args, **options)

    def log(self, *_: object) -> None:
        """Say nothing: what a stranger sends is no event of ours."""

    def log_request(self, *_: object) -> None:
        """Say nothing; an address that cannot be read is no error of ours."""


def _odd(request: WSGIRequestHandler) -> str | None:
    """Return what two servers would read differently in a request, or None."""
    lengths = request.headers.get_all("Content-Length", [])
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
        return "its length is no number"
    if request.headers.defects or not all(map(_TOKEN.fullmatch, request.headers)):
        return "a header without a name"
    if not request.path.startswith("/"):  # of a proxy, or broken
        return "its address is no path"
    return None


class _Server(ThreadedWSGIServer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}  # in the order of their arrival -> whether we wait for its client

    @contextlib.contextmanager
    def waiting(self, connection: socket.socket):
        """Note that a client is waited for."""
        with self._lock:
            if connection not in self._open:
                raise ConnectionAbortedError("it made room for another")
            self._open[connection] = True
        try:
            yield
        finally:
            with self._lock:
                if connection in self._open:
                    self._open[connection] = False

    def process_request(self, request: socket.socket, client_address) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                longest = next((one for one, waited_for in self._open.items() if waited_for), None)
                if longest is not None:
                    del self._open[longest]
                    with contextlib.suppress(OSError):
                        longest.shutdown(socket.SHUT_RDWR)
            room = len(self._open) < CONNECTIONS
            if room:
                self._open[request] = False
        if room:
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)

    def shutdown_request(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket, client_address) -> None:
        """Say nothing of a connection that broke."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """Return a server that listens; ``serve_forever()`` runs it, ``port`` is its port (of 0: a free one).

    It reads a refused body to its end, so that the browser sees the refusal.

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
        listening.listen(128)
        # Werkzeug takes a duplicate of the descriptor.
        return _Server(host, port, app, _Handler, fd=listening.fileno())
    finally:
        listening.close()
