"""Read image arrays from HDF5 files that may be hostile, in a process of its own.

libhdf5 follows links into other files, sizes its memory by what a file claims, and can crash on
a damaged one. So :mod:`repix.data.hdf5` starts this file as a program, with a limit on memory:
a crash or a flood ends this process, and there it is one line about that file.

One request is a line of JSON on standard input, ``{"path": ..., "row": n or null}``; the answer
is a line ``{"shape": ..., "dtype": ...}``, after it the bytes of that row where one was asked
for, or a line ``{"refused": ...}`` (the file) or ``{"damaged": ...}`` (the row).
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import zlib
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

KEY = "data"
MEMORY_BYTES = 1 << 30
"""What this process may map; the libraries take about a tenth of it."""

CHUNK_BYTES = 1 << 27
"""Most bytes of one chunk: it is held whole, and once more for each filter."""

CACHE_BYTES = 2 * CHUNK_BYTES
"""Most bytes of chunks that all open files keep: without them each row of a chunk would unpack all of it again."""

MOST_OPEN = 8
MOST_ROWS = 1_000_000
MOST_CHUNKS = 1 << 22
FLOOR_BYTES = 1 << 20
RATIO = 200
"""Most bytes of images for one that is on disk, above a floor; as ``limits.unpack_ratio`` for archives."""


DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000  # numbers of filters, as files have them


class RefusedError(Exception):
    """The file holds something that is not read; the text says what, and the mend."""


def check(file: Any) -> Any:
    """Return the dataset :data:`KEY` of an open file, having looked at all that it claims.

    Raises:
        RefusedError: no such dataset, one whose values lie in other files, filters that are not
            read, a shape or numbers that are no images, or more of them than the file can hold.
    """
    import h5py

    if KEY not in file and file.get(KEY, getlink=True) is None:
        names = sorted(file)
        if KEY in names:
            raise RefusedError(f"{KEY!r} is damaged; restore the file")
        has = ", ".join(map(ascii, names[:5])).replace("'", "") + (", ..." if len(names) > 5 else "")
        raise RefusedError(f"no dataset {KEY!r}; it has {has or 'nothing'}; store the images under {KEY!r}")
    if not isinstance(file.get(KEY, getlink=True), h5py.HardLink):
        raise RefusedError(f"{KEY!r} is a link to elsewhere; store the images themselves")
    if file.get(KEY, getclass=True) is not h5py.Dataset:
        raise RefusedError(f"{KEY!r} is no dataset; store the images under {KEY!r}")
    data = file[KEY]
    stored = data.id.get_create_plist()
    if stored.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise RefusedError(f"{KEY!r} is virtual, its values lie in other files; store the images themselves")
    if stored.get_external_count():
        raise RefusedError(f"{KEY!r} lies in other files (external storage); store the images themselves")
    allowed = (DEFLATE, SHUFFLE, FLETCHER32, LZF)
    filters = [stored.get_filter(number)[0] for number in range(stored.get_nfilters())]
    for code in filters:
        if code not in allowed:
            raise RefusedError(f"{KEY!r} is stored by filter {code}; use gzip, lzf, shuffle or fletcher32")
    packing = [place for place, code in enumerate(filters) if code in (DEFLATE, LZF)]
    if len(packing) > 1 or (packing and SHUFFLE in filters[packing[0] :]):
        raise RefusedError(
            f"{KEY!r} is compressed twice, or before it is shuffled; use shuffle and one of gzip and lzf"
        )
    if data.ndim != 4 or 0 in data.shape[1:]:
        raise RefusedError(f"{KEY!r} has shape {data.shape}; expected (n, height, width, channels)")
    if data.dtype not in ("uint8", "uint16"):
        raise RefusedError(f"{KEY!r} holds {data.dtype} numbers; expected uint8 (or uint16)")
    if stored.get_layout() == h5py.h5d.CHUNKED:
        chunk = _chunk_bytes(data)
        if not 0 < chunk <= CHUNK_BYTES:
            raise RefusedError(f"{KEY!r} has chunks of {chunk} bytes, at most {CHUNK_BYTES}; make one image a chunk")
    size, on_disk = math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size()
    if on_disk > os.path.getsize(file.filename):
        raise RefusedError(f"{KEY!r} claims {on_disk} bytes on disk, more than the file has")
    if data.shape[0] > MOST_ROWS:
        raise RefusedError(f"{KEY!r} has {data.shape[0]} images; at most {MOST_ROWS} in one file, use several")
    if size > max(FLOOR_BYTES, RATIO * on_disk):
        raise RefusedError(f"{KEY!r} claims {size} bytes of images and holds {on_disk}, less than one in {RATIO}")
    if data.chunks and (many := math.prod(_counts(data))) > MOST_CHUNKS:
        raise RefusedError(f"{KEY!r} has {many} chunks, at most {MOST_CHUNKS}; make one image a chunk")
    if stored.get_layout() == h5py.h5d.CONTIGUOUS and data.shape[0] and data.id.get_offset() is None:
        raise RefusedError(f"{KEY!r} was made, and no image written into it; write the file anew")
    return data


def _chunk_bytes(data: Any) -> int:
    """Return how many bytes one chunk of a dataset unpacks to; 0 where it is stored in one piece."""
    return math.prod(data.chunks) * data.dtype.itemsize if data.chunks else 0


def _counts(data: Any) -> list[int]:
    """Return how many chunks lie along each axis."""
    return [-(-length // step) for length, step in zip(data.shape, data.chunks, strict=True)]


ABSENT, SOUND = -1, -2  # in place of the bytes of a chunk: never written, and looked at


def stored_chunks(data: Any) -> array[int]:
    """Return the bytes in the file of each chunk, counted row by row; :data:`ABSENT` for those never written.

    Once for a file: to look one up, libhdf5 goes through those before it.
    """
    if not data.chunks:
        return array("q")
    found = array("q", [ABSENT]) * math.prod(_counts(data))
    number_of = _numbers(data)
    data.id.chunk_iter(lambda one: found.__setitem__(number_of(one.chunk_offset), one.size))
    return found


def _numbers(data: Any) -> Callable[[Sequence[int]], int]:
    """Return a function from the place at which a chunk begins to its number, counted row by row."""
    chunks, counts = data.chunks, _counts(data)  # asked once: h5py looks them up in the file

    def number_of(place: Sequence[int]) -> int:
        number = 0
        for at, step, count in zip(place, chunks, counts, strict=True):
            number = number * count + at // step
        return number

    return number_of


def check_chunks(data: Any, row: int, stored: array[int]) -> None:
    """Refuse a row of which a chunk was never written, or does not unpack to a chunk's bytes.

    For the first libhdf5 gives zeros, and for one that is too short whatever lay in its memory.

    Args:
        data: a dataset that :func:`check` returned.
        row: which image.
        stored: what :func:`stored_chunks` returned of it; the chunks of this row become :data:`SOUND`.

    Raises:
        OSError: with the reason.
    """
    if not data.chunks:
        return
    made, whole, number_of = data.id.get_create_plist(), _chunk_bytes(data), _numbers(data)
    filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
    steps = [range(0, length, step) for length, step in zip(data.shape[1:], data.chunks[1:], strict=True)]
    for place in product([row - row % data.chunks[0]], *steps):
        number = number_of(place)
        size = stored[number]
        if size == SOUND:
            continue
        if size == ABSENT:
            raise OSError("it was never written")
        if size > 2 * whole + FLOOR_BYTES:
            raise OSError(f"{size} bytes of a chunk that holds {whole}")
        skipped, raw = data.id.read_direct_chunk(place)
        if (found := _unpacked(raw, filters, skipped, whole)) != whole:
            raise OSError(f"a chunk of {whole} bytes unpacks to {found}{' or more' * (found > whole)}")
        stored[number] = SOUND


def _unpacked(raw: bytes, filters: list[int], skipped: int, most: int) -> int:
    """Return to how many bytes a chunk unpacks; where they are more than ``most``, to some number above it."""
    packed, size = True, len(raw)
    for place in reversed(range(len(filters))):
        if skipped >> place & 1:
            continue
        if filters[place] == FLETCHER32:  # four bytes behind the others
            raw, size = raw[:-4] if packed else b"", size - 4
        elif filters[place] in (DEFLATE, LZF):
            room = most + 4 * len(filters) + 1
            size = _lzf_size(raw, room) if filters[place] == LZF else _deflated_size(raw, room)
            packed = False
    return size


def _deflated_size(raw: bytes, most: int) -> int:
    try:
        return len(zlib.decompressobj().decompress(raw, most))
    except zlib.error as error:
        raise OSError(str(error)) from None


def _lzf_size(raw: bytes, most: int) -> int:
    place = size = 0
    while place < len(raw) and size < most:
        code = raw[place]
        if code < 32:  # so many bytes as they are
            size, place = size + code + 1, place + code + 2
            continue
        long = code >> 5 == 7
        size += (code >> 5) + 2 + (raw[place + 1] if long and place + 1 < len(raw) else 0)
        place += 3 if long else 2
    return size


class Opened(NamedTuple):
    """A file that stays open.

    Attributes:
        stamp: the time of its last change.
        data: its dataset.
        kept: bytes that it keeps.
        stored: bytes of each of its chunks, see :func:`stored_chunks`; empty until a row is asked for.
    """

    stamp: int
    data: Any
    kept: int
    stored: array[int]


def answer(opened: dict[str, Opened], path: str, row: int | None) -> tuple[dict[str, Any], bytes]:
    """Return what to say of a file or of one of its rows.

    Args:
        opened: files that stay open: photos and labels take turns.
        path: the file.
        row: which image, or None for what the file is.
    """
    import h5py

    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise RefusedError("is no plain file")
        stamp = about.st_mtime_ns
        if path in opened and opened[path].stamp != stamp:
            opened.pop(path).data.file.close()
        if path not in opened:
            with h5py.File(path, "r") as file:
                table = 8 * math.prod(_counts(data)) if (data := check(file)).chunks else 0
                kept = min(_chunk_bytes(data) + table + (1 << 16), CACHE_BYTES)
            while opened and (
                len(opened) == MOST_OPEN or kept + sum(one.kept for one in opened.values()) > CACHE_BYTES
            ):
                opened.pop(next(iter(opened))).data.file.close()
            opened[path] = Opened(stamp, check(h5py.File(path, "r", rdcc_nbytes=kept - table)), kept, array("q"))
        _, data, _, stored = opened[path]
    except RefusedError as error:
        return {"refused": str(error)}, b""
    except Exception as error:  # of a damaged file h5py raises nearly every kind
        return {"refused": f"cannot be read as HDF5 ({' '.join(str(error).split())}); restore the file"}, b""
    about = {"shape": data.shape, "dtype": data.dtype.str}
    if row is None:
        return about, b""
    try:
        if not stored:
            stored = stored_chunks(data)
            opened[path] = opened[path]._replace(stored=stored)
        check_chunks(data, row, stored)
        return about, data[row].tobytes()
    except Exception as error:  # a damaged chunk
        return {"damaged": " ".join(str(error).split()) or type(error).__name__}, b""


def main() -> None:
    """Answer requests until standard input ends."""
    import resource

    for what, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS does not let every one of them be lowered
            resource.setrlimit(what, (value, value))
    opened: dict[str, Opened] = {}
    for line in sys.stdin.buffer:
        about, content = answer(opened, **json.loads(line))
        sys.stdout.buffer.write(json.dumps(about).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
