"""A URL becomes an archive on disk, whole and checked, or nothing does.

Three kinds of source: ``http(s)://`` (mirrors in order, resumed where they were cut),
``file:`` (a copy from this machine; a folder is packed on the way) and ``synthetic:`` (made here, needs no network).
What is under way lives in a work folder that is no out of any stage, so that a killed
download is resumed by the next one and a failed one leaves no file that looks finished.

HTTP: range requests as in RFC 9110, sections 13 and 14. A password or token is never part of a
URL here, since params.yaml, dvc.lock and the cards repeat it: it comes from ~/.netrc or, as
``$NAME`` in the query, from an environment variable.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from tqdm import tqdm

from repix import paths
from repix.config.urls import check, clean, of_synthetic
from repix.data.archives import HEAD_BYTES, refusal, sniff
from repix.digests import Digests
from repix.errors import UserError, limit_of_the_machine
from repix.files import (
    CHUNK_BYTES,
    atomic_folder,
    canonical_json,
    digest_text,
    locked,
    read_json,
    scratch_folder,
    write_json,
)
from repix.schemas import Archive

if TYPE_CHECKING:
    import requests

LOWEST_RATE = 1024
"""Bytes a second below which a transfer counts as cut."""

_HEADER_BYTES = 1 << 20  # most that a server may say before the first byte of the file
_HTTP_REFUSED = (
    "is plain http in place of https, and no sha256 is pinned; pin it, or leave http:// addresses alone under urls"
)

# A process that is killed loses what it has of a chunk.
_NETWORK_CHUNK_BYTES = 1 << 16
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0


class _MirrorError(Exception):
    """This source cannot give the archive; the text says why. The next one may."""


class _DigestError(_MirrorError):
    """The archive came whole and is not the one that was asked for."""


class _CutError(Exception):
    """The transfer stopped; trying again may help.

    Attributes:
        wait: seconds that the server asks to be left alone, or 0.
        slow: whether what came does not count as progress.
    """

    def __init__(self, reason: str, wait: float = 0.0, slow: bool = False):
        super().__init__(reason)
        self.wait, self.slow = wait, slow


def fetch(
    urls: Sequence[str],
    sha256: str | None,
    folder: str | Path,
    *,
    dataset: str,
    max_bytes: int,
    work: str | Path,
    archive: bool = True,
    hint: bool = True,
    attempts: int = 5,
    timeout: tuple[float, float] = (10.0, 60.0),
    sleep: Callable[[float], None] = time.sleep,
) -> Archive:
    """Bring the archive of a data set into ``folder``, with its record ``archive.json``.

    The file is named after the first URL, whichever mirror answered. A connection that is
    cut is resumed from the byte where it stopped, in this call or the next; an archive that
    was fetched over the network and whose digest is pinned is kept in ``work`` and used
    again without asking anybody. Plain http can be changed by anybody on the way: where no
    digest is pinned, https is neither redirected to it nor replaced by it.

    Args:
        urls: mirrors of one archive, tried in order: ``https://``, ``http://``,
            ``file:///absolute`` or ``file:relative`` (to the current folder, else to the
            repository that it was made of), which may be a folder, or
            ``synthetic:<generator>?option=value&...``. ``$NAME`` in the query of a web
            address stands for the environment variable.
        sha256: the archive's digest, 64 hexadecimal digits, or None where it is not known;
            the digest of what came is then recorded.
        folder: the stage's out; replaced when all is well, else left alone.
        dataset: name of the entry in params.yaml, for the record and the messages.
        max_bytes: most bytes that the archive may have (``limits.download_bytes``).
        work: where partial downloads and pinned archives are kept.
        archive: whether it must be an archive that ``unpack`` reads; network weights are not.
        hint: whether params.yaml has an entry: what to mend in it is told then, and how to pin a digest.
        attempts: connections to one mirror in a row that bring nothing new before it is
            given up.
        timeout: seconds to wait for a connection, and for the next bytes; over that time
            :data:`LOWEST_RATE` must be kept.
        sleep: how to wait between attempts: 1, 2, 4 ... seconds, or what the server asks for.

    Returns:
        The record that was written.

    Raises:
        UserError: a URL of another scheme or with a password in it, or no mirror gave an archive with this digest
            within the limit; the line says what each of them answered.
    """
    urls, folder, work = tuple(urls), Path(folder), Path(work)
    entry = f"datasets.{dataset}.archive" if archive else f"features.{dataset}"
    for url in urls:
        check(url, entry)
        if url.lower().startswith(("http:", "https:")):
            _with_variables(url, entry)
    name = _file_name(urls[0])
    key = sha256 or digest_text(canonical_json(urls))
    job = _Job(dataset, entry, sha256, max_bytes, work, key, archive, hint, attempts, timeout, sleep)
    answers = []
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked(work / f"{job.key}.lock", f"the download of {dataset}"):
            if sha256 and job.kept.is_file():
                try:
                    return _deliver(job.kept, name, folder, job)
                except _DigestError:  # damaged since it was kept
                    job.kept.unlink()
                except _MirrorError as reason:
                    raise UserError(f"{entry}: {job.kept}: {reason}") from None
            for number, url in enumerate(urls):
                try:
                    if sha256 is None and _is_http(url) and any(not _is_http(better) for better in urls[:number]):
                        raise _MirrorError(_HTTP_REFUSED)
                    return _from(url, name, folder, job)
                except _MirrorError as reason:
                    answers.append(f"{clean(url)}: {reason}")
    except OSError as error:
        refused = limit_of_the_machine(error)
        said = refused or f"{error.filename or folder}: {error.strerror or error}; mend the path"
        raise UserError(f"{entry}: {said}") from None
    mend = "Mend the entry in params.yaml, or bring the file by hand and put file:///path/to/it under urls"
    raise UserError(f"{entry}: no archive came: {'; '.join(answers)}{f'. {mend}' if hint else ''}")


@dataclass(frozen=True)
class _Job:
    """What stays the same for all mirrors of one fetch."""

    dataset: str
    entry: str
    sha256: str | None
    max_bytes: int
    work: Path
    key: str
    archive: bool
    hint: bool
    attempts: int
    timeout: tuple[float, float]
    sleep: Callable[[float], None]

    def refuses(self, head: bytes) -> str | None:
        """Return why a file that begins with ``head`` is not what was asked for, or None."""
        kind = sniff(head)
        return refusal(kind) if self.archive or kind in ("html", "empty") else None

    @property
    def kept(self) -> Path:
        """Where a finished archive with a pinned digest is kept."""
        return self.work / self.key

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.work / f"{self.key}.part"

    @property
    def state(self) -> Path:
        """Which server and version of the file the part is of."""
        return self.work / f"{self.key}.part.json"

    def too_large(self, size: int | str) -> _MirrorError:
        return _MirrorError(
            f"is {size} bytes, more than the {self.max_bytes} of limits.download_bytes; raise it if you want this file"
        )

    def received(self) -> int:
        """Return how many bytes have come so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def forget(self) -> None:
        """Throw away what has come so far."""
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


def absent(urls: Sequence[str]) -> str | None:
    """Return the first of the URLs where all name files or folders of this machine, and none of them is there."""
    if any(url.partition(":")[0].lower() != "file" or _file_path(url).exists() for url in urls):
        return None
    return clean(urls[0])


def _with_variables(url: str, entry: str) -> str:
    """Return a web address with the environment's values in place of ``$NAME`` in its query."""

    def value(match: re.Match) -> str:
        if match[1] not in os.environ:
            raise UserError(f"{entry}.urls: {clean(url)!r}: set the environment variable {match[1]}")
        return quote(os.environ[match[1]], safe="")

    address, mark, query = url.partition("?")
    return address + mark + re.sub(r"\$([A-Za-z_][A-Za-z0-9_]*)", value, query)


def _is_http(url: str) -> bool:
    return url.lower().startswith("http:")


def _file_name(url: str) -> str:
    """Return a plain file name for a URL: its last part, letters, digits, dot, dash, underscore."""
    scheme = url.partition(":")[0].lower()
    if scheme == "synthetic":
        return f"{of_synthetic(url)[0]}.tar"
    path = str(_file_path(url)) if scheme == "file" else unquote(urlsplit(url).path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.rstrip("/").rpartition("/")[2]).lstrip(".")[-120:]
    name = name if name and name.lower() != "archive.json" else "archive"
    return f"{name}.tar" if scheme == "file" and (url.endswith("/") or Path(path).is_dir()) else name


def _from(url: str, name: str, folder: Path, job: _Job) -> Archive:
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        path = _file_path(url)
        if path.is_dir() and job.archive:
            return _from_folder(path, name, folder, job)
        if not path.is_file():
            raise _MirrorError("is a folder, not a file" if path.is_dir() else "no such file or folder")
        return _deliver(path, name, folder, job)
    if scheme == "synthetic":
        with scratch_folder(job.work / "synthetic") as made:
            from repix.data import synthetic

            generator, options = of_synthetic(url)
            path = made / name
            synthetic.write_archive(path, generator, options)
            return _deliver(path, name, folder, job)
    pieced = _download(url, job)
    try:
        try:
            archive = _deliver(job.part, name, folder, job)
        except _DigestError:
            if not pieced:
                raise
            # Not the server's file perhaps, but pieces of two versions of it: once more, in one piece.
            _say(f"{job.dataset}: the resumed file does not fit its digest; once more from the start")
            job.forget()
            _download(url, job)
            archive = _deliver(job.part, name, folder, job)
    except _MirrorError:
        job.forget()
        raise
    if job.sha256:
        job.part.replace(job.kept)
    job.forget()
    return archive


def _from_folder(path: Path, name: str, folder: Path, job: _Job) -> Archive:
    from repix.data import packing

    size = sum(file.stat().st_size for _, file in packing.entries(path))
    if not size:
        raise _MirrorError("holds no files, or only empty ones")
    if size > job.max_bytes:
        raise job.too_large(size)
    with scratch_folder(job.work / "packed") as made:
        with open(made / name, "wb") as stream:
            packing.write_tar(path, stream)
        try:
            return _deliver(made / name, name, folder, job)
        except _DigestError:
            raise _DigestError(
                "its files are others than when it was added; "
                f"`repix add {shlex.quote(str(path))} --name {job.dataset}` takes them as they are now"
            ) from None


def changed(urls: Sequence[str], sha256: str | None, archive: Path, digests: Digests) -> Path | None:
    """Return the folder or file that a data set comes from, where it is another than what was taken.

    It is read only where it was not looked at since it last changed, by ``digests``: not by the times of its files
    alone, which copies and archives keep.

    Args:
        urls, sha256: as in params.yaml.
        archive: the record of what was taken, ``archive.json``; without it nothing was taken yet.
        digests: those that are known.
    """
    from repix.data import packing

    path = _source(urls)
    if path is None or not archive.is_file():
        return None
    taken = Archive.read(archive).sha256
    if sha256 not in (None, taken):  # another pin makes DVC take it anew
        return None

    def read() -> str:
        print(f"repix: {clean(str(path))}: is read, to see whether it has changed", file=sys.stderr)
        return packing.digest(path)

    try:
        if path.is_dir():
            found = digests.of_folder(path, lambda: packing.below(path), read)
        else:
            found = digests(path)
    except (OSError, UserError):  # what cannot be read any more
        found = None
    return None if found == taken else path


def _source(urls: Sequence[str]) -> Path | None:
    """Return the file or folder of this machine that a data set comes from; None where it is none, or gone."""
    path = _file_path(urls[0]) if urls[0].lower().startswith("file:") else None
    return path if path is not None and path.exists() else None


def remember(urls: Sequence[str], archive: Path, digests: Digests) -> None:
    """Keep the digest of a folder that was taken just now, so that :func:`changed` need not read it again."""
    from repix.data import packing

    path = _source(urls)
    if path is not None and path.is_dir():
        taken = Archive.read(archive).sha256
        digests.of_folder(path, lambda: packing.below(path), lambda: taken)


def _deliver(source: Path, name: str, folder: Path, job: _Job) -> Archive:
    """Copy a file into a fresh ``folder`` with its record, checking it on the way."""
    digest, size = hashlib.sha256(), 0
    bar = tqdm(total=source.stat().st_size, desc=f"{job.dataset}: check", unit="B", unit_scale=True, disable=None)
    with bar, open(source, "rb") as stream, atomic_folder(folder) as temporary:
        if reason := job.refuses(stream.read(HEAD_BYTES)):
            raise _MirrorError(reason)
        stream.seek(0)
        with open(temporary / name, "wb") as copy:
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                if size > job.max_bytes:
                    raise job.too_large(source.stat().st_size)
                digest.update(chunk)
                copy.write(chunk)
                bar.update(len(chunk))
        found = digest.hexdigest()
        if job.sha256 and found != job.sha256:
            raise _DigestError(
                f"its sha256 is {found} and params.yaml says {job.sha256}; if this is the file that you want, "
                f"put its digest under {job.entry}.sha256"
            )
        archive = Archive(dataset=job.dataset, file=name, bytes=size, sha256=found, pinned=job.sha256 is not None)
        archive.write(temporary / "archive.json")
    if not archive.pinned and job.hint:
        _say(f"{job.dataset}: the archive is not pinned; to pin it, paste under {job.entry} in params.yaml:")
        _say(f"    sha256: {found}")
    return archive


def _file_path(url: str) -> Path:
    rest = url.partition(":")[2]
    quoted = "/" + rest[2:].partition("/")[2] if rest.startswith("//") else rest
    path = Path(unquote(quoted, errors="surrogateescape"))  # a name that is no UTF-8
    return paths.found(path)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


# --- http


def _download(url: str, job: _Job) -> bool:
    """Bring the whole of ``url`` into ``job.part``.

    Returns:
        Whether it may be pieces of two versions: it was resumed, or its length was not known.
    """
    fruitless, furthest = 0, job.received()
    with tqdm(desc=job.dataset, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        while True:
            try:
                return _transfer(url, job, bar)
            except _CutError as cut:
                # Only bytes that were never there before count, or a server that cuts every
                # connection at the same place and knows no ranges would keep us for ever.
                fruitless = 0 if job.received() > furthest and not cut.slow else fruitless + 1
                furthest = max(furthest, job.received())
                if fruitless >= job.attempts:
                    raise _MirrorError(f"{cut}; {furthest} bytes came, {fruitless} attempts added nothing") from None
                wait = min(max(2.0 ** max(fruitless - 1, 0), cut.wait), _LONGEST_WAIT)
                _say(f"{job.dataset}: {cut}; {job.received()} bytes are here, trying again in {wait:g} s")
                job.sleep(wait)


def _transfer(url: str, job: _Job, bar: tqdm) -> bool:
    """Make one connection and take what it gives; see :func:`_download` for the answer."""
    start, validator, total = _resume_point(url, job)
    if start and start == total and job.sha256:
        return True  # killed between the last byte and the check
    headers = {"User-Agent": "repix", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with _connect(url, headers, job) as response:
        resumed = start > 0 and response.status_code == 206
        if resumed:
            found = re.fullmatch(
                r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
            )
            of = int(found[2]) if found and found[2] != "*" else total
            changed = validator and (_validator(response.headers) or validator) != validator
            if not found or int(found[1]) != start or total not in (None, of) or changed:
                job.forget()
                raise _CutError("the file changed on the server")
            total = of
        elif response.status_code == 416:
            if validator and start == total and response.headers.get("Content-Range") == f"bytes */{total}":
                return True  # killed between the last byte and the check, and the file is still that one
            job.forget()
            raise _CutError("the file changed on the server")
        elif response.status_code == 200:
            length = response.headers.get("Content-Length", "")
            start, total = 0, int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        else:
            answer = clean(f"HTTP {response.status_code} {response.reason or ''}")
            if response.status_code not in _PASSING_STATUS:
                raise _MirrorError(answer)
            wait = response.headers.get("Retry-After", "")
            raise _CutError(answer, float(wait) if wait.isdecimal() else 0.0)
        if total is not None and total > job.max_bytes:
            job.forget()
            raise job.too_large(total)
        bar.total, bar.n = total, start
        size = _receive(response, job, start, bar, None if resumed else _state(url, response.headers, total))
    if total is not None and size != total:
        if size > total:
            job.forget()
        raise _CutError("the connection was cut")
    return resumed or total is None


def _receive(response: requests.Response, job: _Job, size: int, bar: tqdm, state: dict[str, Any] | None) -> int:
    """Write the body to the part, from the start where ``state`` is given; return the size reached."""
    with open(job.part, "wb" if state else "ab") as part:
        if state:
            # After the part was emptied: a state never speaks of bytes of another file.
            write_json(job.state, state)
        for chunk in _body(response, job.timeout):
            reason = job.refuses(chunk[:HEAD_BYTES]) if size == 0 and len(chunk) >= HEAD_BYTES else None
            size += len(chunk)
            if reason or size > job.max_bytes:
                job.forget()
                raise _MirrorError(reason) if reason else job.too_large(f"at least {size}")
            part.write(chunk)
            bar.update(len(chunk))
    return size


def _resume_point(url: str, job: _Job) -> tuple[int, str | None, int | None]:
    """Return where to go on: bytes that are there, the server's validator, the file's length.

    Without a validator of this very URL only a pinned digest can tell, afterwards, that the
    pieces belong together; where there is neither, the download starts anew.
    """
    try:
        state = read_json(job.state)
        same, validator, total = state["url"] == digest_text(url), state["validator"], state["total"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None, None
    if job.sha256 or (same and validator):
        return job.received(), validator if same else None, total
    return 0, None, None


def _state(url: str, headers: Any, total: int | None) -> dict[str, Any]:
    # The digest and not the URL, which may hold a password.
    return {"url": digest_text(url), "validator": _validator(headers), "total": total}


def _validator(headers: Any) -> str | None:
    """Return what If-Range may carry (RFC 9110, section 13.1.5): a strong ETag, else a strong date.

    A date is strong where the file was a minute old when it was sent: it counts seconds, and
    a file may change twice in one.
    """
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    try:
        changed, now = (parsedate_to_datetime(headers.get(name)) for name in ("Last-Modified", "Date"))
        return headers.get("Last-Modified") if now - changed >= timedelta(minutes=1) else None
    except (TypeError, ValueError, OverflowError):  # no such header, or no date
        return None


def _connect(url: str, headers: dict[str, str], job: _Job) -> requests.Response:
    """Ask a server, and return what it answers once its headers are here.

    Raises:
        _CutError: there was no answer, which may pass.
        _MirrorError: the address, or what it redirects to, cannot be asked.
    """
    import http.client

    import requests
    import urllib3

    from repix.data.connection import session

    def may_follow(before: str, after: str) -> None:
        if job.sha256 is None and _is_http(after) and not _is_http(before):
            raise _MirrorError(f"leads to {clean(after)}, which {_HTTP_REFUSED}")

    try:
        asked = session(job.timeout[1], LOWEST_RATE, _HEADER_BYTES, may_follow)
        return asked.get(_with_variables(url, job.entry), headers=headers, timeout=job.timeout, stream=True)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _failure(error, job.timeout) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(_one_line(error)) from None


def _body(response: requests.Response, timeout: tuple[float, float]) -> Iterator[bytes]:
    """Yield the bytes of the file as they lie on the server, whatever Content-Encoding it claims."""
    import http.client

    import urllib3

    try:
        yield from response.raw.stream(_NETWORK_CHUNK_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, OSError) as error:
        raise _failure(error, timeout) from None


def _failure(error: BaseException, timeout: tuple[float, float]) -> Exception:
    """Return what to raise for a connection that failed, in words."""
    import http.client
    import ssl

    import urllib3

    from repix.data.connection import SlowError

    causes, seen = [error], []
    while causes:
        cause = causes.pop()
        if cause in seen:
            continue
        seen.append(cause)
        inner = [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
        causes += [one for one in inner if isinstance(one, BaseException)]
    for cause in seen:
        if isinstance(cause, SlowError):
            return _CutError(str(cause), slow=True)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _MirrorError(f"its https certificate is not accepted ({clean(cause.verify_message)})")
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            return _CutError("the host name is not known (is there a network?)")
        # NewConnectionError (refused, unreachable) derives from this one, and is no timeout.
        if type(cause) is urllib3.exceptions.ConnectTimeoutError:
            return _CutError(f"no answer within {timeout[0]:g} s")
        if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return _CutError(f"nothing came for {timeout[1]:g} s")
        if isinstance(cause, http.client.IncompleteRead):
            return _CutError("the connection was cut")
    for cause in seen:
        if isinstance(cause, OSError) and cause.strerror:
            return _CutError(clean(cause.strerror))
    return _CutError(_one_line(error))


def _one_line(error: BaseException) -> str:
    return clean(str(error)) or type(error).__name__
