"""Connections to web servers that keep a lowest rate, and ask before they follow a redirect.

A time-out of a socket starts anew with every byte. So a server that sends one byte now and
then, or ``100 Continue`` without end, would keep a download for ever; here the bytes are
counted where they leave the socket, headers included.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import requests
import urllib3


class SlowError(OSError):
    """A server keeps below the lowest rate, or talks without coming to the file."""


class _Counted(io.RawIOBase):
    """A socket's bytes, with their rate held against the lowest one.

    Args:
        raw: what is read.
        seconds: over how long the rate is taken.
        rate: bytes a second.
        most: bytes that may come as long as this is set.
    """

    def __init__(self, raw: io.RawIOBase, seconds: float, rate: float, most: int):
        self._raw, self._seconds, self._rate, self.most = raw, seconds, rate, most
        self._count, self._waited = 0, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:
        begin = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - begin  # of the server; what is done with the bytes takes its own time
        self._count += count or 0
        if self.most is not None:
            self.most -= count or 0
            if self.most < 0:
                raise SlowError("headers without end")
        if self._waited > self._seconds:
            if count and self._count < self._rate * self._waited:
                raise SlowError(f"only {self._count} bytes came in {self._waited:.3g} s")
            self._count, self._waited = 0, 0.0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def session(seconds: float, rate: float, header_bytes: int, may_follow: Callable[[str, str], None]) -> requests.Session:
    """Return a session whose connections raise :class:`SlowError` below ``rate``.

    Args:
        seconds: over how long the rate is taken.
        rate: bytes a second.
        header_bytes: most that may come before the first byte of a body.
        may_follow: called with the address that redirects and the one that it names; raises
            where that is not to be asked.
    """

    class Response(http.client.HTTPResponse):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self._counted = _Counted(self.fp.detach(), seconds, rate, header_bytes)
            self.fp = io.BufferedReader(self._counted)

        def begin(self) -> None:
            super().begin()
            self._counted.most = None

    class Http(urllib3.connection.HTTPConnection):
        response_class = Response

    class Https(urllib3.connection.HTTPSConnection):
        response_class = Response

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args, **options) -> None:
            super().init_poolmanager(*args, **options)
            self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

        def proxy_manager_for(self, *args, **options) -> urllib3.ProxyManager:
            manager = super().proxy_manager_for(*args, **options)
            manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
            return manager

    class Session(requests.Session):
        def get_redirect_target(self, response: requests.Response) -> str | None:
            target = super().get_redirect_target(response)
            if target:
                may_follow(response.url, urljoin(response.url, target))
                # requests would read the body of the redirect to its end, of any length and packed as it may be.
                response._content, response._content_consumed = b"", True
                response.raw.close()
            return target

        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            left = [urlsplit(url).scheme == "https" for url in (response.request.url, prepared_request.url)]
            if left == [True, False]:  # else netrc's password for this host would be sent for all to read
                prepared_request.headers.pop("Authorization", None)
                return
            super().rebuild_auth(prepared_request, response)

    made = Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, Adapter())
    return made
