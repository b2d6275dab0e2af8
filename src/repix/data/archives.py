"""Archives from strangers to a tree of plain files, and a tree to an archive of fixed bytes.

:func:`unpack` trusts nothing that an archive says of itself: the format is read from the
bytes, names are checked before a file is opened, and limits are held against the bytes
that really come out. The tar reader is our own because ``tarfile`` takes a damaged header
in the middle for the end of the archive, which would lose images without a word.

:func:`pack_tar_gz` writes the same bytes on every machine.

Formats: tar as in POSIX.1-2017 "pax Interchange Format" and the GNU tar manual (long
names, base-256 sizes), gzip as in RFC 1952, deflate as in RFC 1951.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from repix.errors import UserError
from repix.files import CHUNK_BYTES, atomic_folder, atomic_path

FORMATS = ("gzip", "xz", "zip", "tar")
"""What :func:`unpack` reads; gzip and xz hold a tar."""

HEAD_BYTES = 512
"""How much of a file's beginning :func:`sniff` wants to see."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # an empty one
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)

# Below this a high ratio is no bomb: a tiny archive is mostly padding.
_RATIO_FLOOR_BYTES = 1 << 20
_METADATA_BYTES = 1 << 20  # most of one pax header or GNU long name, which are read whole
_NAME_CHARACTERS = 1024  # also bounds how deep folders nest
_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)


class _CorruptError(Exception):
    """The archive breaks its own format; the text says how."""


class _Member(NamedTuple):
    """One entry of an archive: ``kind`` is file, folder, or a word for what is refused."""

    name: str
    kind: str
    chunks: Iterator[bytes]


def sniff(head: bytes) -> str:
    """Return the format of a file by its first :data:`HEAD_BYTES` bytes.

    Returns:
        One of :data:`FORMATS`; ``html`` for a web page; ``bzip2``, ``7z``, ``rar``, ``zstd``;
        ``empty``; or ``unknown``.
    """
    if not head:
        return "empty"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml", b"<script", b"<body")):
        return "html"
    if len(head) >= _BLOCK and (head[:_BLOCK] == _ZERO_BLOCK or _checksum_fits(head[:_BLOCK])):
        return "tar"
    return "unknown"


def refusal(kind: str) -> str | None:
    """Return why a file of this kind (see :func:`sniff`) is not taken, or None where it is."""
    if kind in FORMATS:
        return None
    what = {
        "html": "is a web page, not an archive",
        "empty": "is an empty file",
        "unknown": "is not an archive",
    }.get(kind, f"is a {kind} archive")
    return f"{what}; repix reads tar, tar.gz, tar.xz and zip"


def unpack(archive: str | Path, folder: str | Path, *, max_bytes: int, max_files: int, max_ratio: float) -> int:
    """Unpack an archive into ``folder``, which takes the place of what was there.

    Regular files and folders only; modes and times are not carried over (files are 0644),
    names are stored in Unicode NFC, and what macOS adds (``__MACOSX``, ``.DS_Store``,
    ``._*``) is left out. Memory does not grow with the archive, save for its names.

    Args:
        archive: tar, tar.gz, tar.xz or zip, told apart by content and not by name.
        folder: where the tree goes.
        max_bytes: most bytes of all files together.
        max_files: most files, and most folders.
        max_ratio: most bytes out for one byte of archive (held above 1 MiB out).

    Returns:
        The number of files.

    Raises:
        UserError: the archive is missing, not one of these formats, corrupt, cut short,
            encrypted, empty, above a limit, or has an entry that is not to be written:
            one that leaves the folder, a link, a device, or two names that are one on a
            case-insensitive disk. ``folder`` is then what it was before.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; run the stage that downloads it")
    meter = _Meter(archive, max_bytes, max_files, max_ratio)
    bar = tqdm(total=archive.stat().st_size, unit="B", unit_scale=True, desc=archive.name, disable=None)
    try:
        with bar, open(archive, "rb") as raw:
            if reason := refusal(sniff(raw.read(HEAD_BYTES))):
                raise UserError(f"{archive}: {reason}; get another copy")
            raw.seek(0)
            with atomic_folder(folder) as temporary:
                for member in _checked(_members(raw, meter), archive, meter):
                    _write(member, temporary, meter)
                    bar.update(raw.tell() - bar.n)
                if not meter.files:
                    raise UserError(f"{archive}: holds no files; get another copy")
    except (_CorruptError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: corrupt or cut short ({error}); get another copy") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked to {folder}: {error.strerror or error}") from None
    return meter.files


class _Meter:
    """Counts what really comes out of an archive, and stops it at the limits."""

    def __init__(self, archive: Path, max_bytes: int, max_files: int, max_ratio: float):
        self.archive, self.max_bytes, self.max_files, self.max_ratio = archive, max_bytes, max_files, max_ratio
        self.ratio_bytes = max(_RATIO_FLOOR_BYTES, archive.stat().st_size * max_ratio)
        self.bytes = self.files = self.folders = 0

    def spend(self, count: int) -> None:
        """Count bytes that were decompressed, whether or not they are written."""
        self.bytes += count
        if self.bytes > self.max_bytes:
            self._stop(f"unpacks to more than {self.max_bytes} bytes", "unpack_bytes")
        if self.bytes > self.ratio_bytes:
            self._stop(f"unpacks to more than {self.max_ratio:g} times its size", "unpack_ratio")

    def entry(self, kind: str) -> None:
        """Count an entry."""
        if kind == "file":
            self.files += 1
        else:
            self.folders += 1
        if max(self.files, self.folders) > self.max_files:
            self._stop(f"holds more than {self.max_files} files", "unpack_files")

    def _stop(self, what: str, limit: str) -> None:
        raise UserError(f"{self.archive}: {what}; if it is what you want, raise limits.{limit} in params.yaml")


def _write(member: _Member, folder: Path, meter: _Meter) -> None:
    path = folder / member.name
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as stream:
        for chunk in member.chunks:
            meter.spend(len(chunk))
            stream.write(chunk)
    path.chmod(0o644)


def _checked(members: Iterable[_Member], archive: Path, meter: _Meter) -> Iterator[_Member]:
    """Yield the members that are to be written, under their clean names; raise at the first bad one."""
    taken: dict[str, tuple[str, str]] = {}
    for name, kind, chunks in members:
        shown = ascii(name)
        parts = _parts(name, archive)
        if "__MACOSX" in parts or (parts and (parts[-1] == ".DS_Store" or parts[-1].startswith("._"))):
            for chunk in chunks:
                meter.spend(len(chunk))
            continue
        if kind not in ("file", "folder"):
            raise UserError(f"{archive}: {shown} is a {kind}; only plain files and folders are unpacked")
        if not parts:
            if kind == "file":
                raise UserError(f"{archive}: {shown} is a file without a name; get another copy")
            continue
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            entry = (path, kind if depth == len(parts) else "folder")
            before = taken.setdefault(unicodedata.normalize("NFC", path.casefold()), entry)
            if before is entry:
                meter.entry(entry[1])
            elif before[0] != path:
                raise UserError(
                    f"{archive}: {before[0]!a} and {path!a} are one name on a disk that ignores case; "
                    "rename one and pack it again"
                )
            elif before != entry:
                raise UserError(f"{archive}: {path!a} is both a file and a folder; get another copy")
            elif entry[1] == "file":
                raise UserError(f"{archive}: {path!a} is there twice; pack it again with one of them")
        yield _Member("/".join(parts), kind, chunks)


def _parts(name: str, archive: Path) -> list[str]:
    """Return the parts of a member's name in NFC, without ``.`` and empty ones."""

    def refuse(why: str) -> UserError:
        return UserError(f"{archive}: the name {name!a} {why}; nothing was unpacked, get another copy")

    if name.startswith("/"):
        raise refuse("is an absolute path")
    if "\\" in name:
        raise refuse("holds a backslash, a path separator on Windows")
    if re.match(r"[A-Za-z]:", name):
        raise refuse("starts with a drive letter")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise refuse("holds a control character")
    parts = [part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refuse("leads out of its folder")
    if len(name) > _NAME_CHARACTERS or any(len(part.encode()) > 255 for part in parts):
        raise refuse("is too long for a disk")
    return parts


def _members(raw: BinaryIO, meter: _Meter) -> Iterator[_Member]:
    """Return the members of an archive of one of :data:`FORMATS`, streamed.

    The chunks of a member must be used up before the next member is asked for.
    """
    kind = sniff(raw.read(HEAD_BYTES))
    raw.seek(0)
    if kind == "zip":
        return _zip_members(raw)
    if kind == "gzip":
        return _tar_members(gzip.GzipFile(fileobj=raw), meter)
    if kind == "xz":
        return _tar_members(lzma.LZMAFile(raw), meter)
    return _tar_members(raw, meter)


# --- zip


def _zip_members(raw: BinaryIO) -> Iterator[_Member]:
    try:
        opened = zipfile.ZipFile(raw)
    except (ValueError, OverflowError, NotImplementedError, struct.error, OSError) as error:
        raise _CorruptError(f"its table of contents cannot be read: {error}") from None
    with opened:
        # File order, so that overlaps show as neighbours and the disk is read forwards.
        entries = sorted(opened.infolist(), key=lambda entry: entry.header_offset)
        starts = [entry.header_offset for entry in entries] + [opened.start_dir]
        for entry, end in zip(entries, starts[1:], strict=True):
            # 30 bytes of local header and the name are the least that stands before the data.
            if entry.header_offset + 30 + len(entry.orig_filename) + entry.compress_size > end:
                raise _CorruptError(f"{entry.filename!a} overlaps what follows it")
        for entry in entries:
            kind = _zip_kind(entry)
            yield _Member(entry.orig_filename, kind, _zip_chunks(opened, entry) if kind == "file" else iter(()))


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 0x1:
        return "password-protected file"
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "device or pipe"
    return "folder" if entry.orig_filename.endswith("/") else "file"


def _zip_chunks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    read = 0
    try:
        with opened.open(entry) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                read += len(chunk)
                yield chunk
    except (ValueError, OverflowError, NotImplementedError, RuntimeError, struct.error) as error:
        raise _CorruptError(f"{entry.filename!a}: {error}") from None
    if read != entry.file_size:
        raise _CorruptError(f"{entry.filename!a} has {read} bytes and claims {entry.file_size}")


# --- tar

_TAR_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "pipe",
    b"S": "sparse file",
}


def _tar_members(stream: BinaryIO, meter: _Meter) -> Iterator[_Member]:
    everywhere: dict[str, bytes] = {}  # pax values for all members that follow
    here: dict[str, bytes] = {}  # for the next member only
    while (header := _exactly(stream, _BLOCK)) != _ZERO_BLOCK:
        if not _checksum_fits(header):
            raise _CorruptError("a header's checksum does not fit")
        size, flag = _number(header[124:136]), header[156:157]
        if flag in (b"x", b"g", b"L", b"K"):
            if size > _METADATA_BYTES:
                raise _CorruptError(f"a header of {size} bytes")
            meter.spend(size)
            text = _exactly(stream, size)
            _exactly(stream, -size % _BLOCK)
            if flag == b"g":
                everywhere |= _pax(text)
            elif flag == b"x":
                here |= _pax(text)
            elif flag == b"L":
                here["path"] = text.rstrip(b"\0")
            continue
        values = everywhere | here
        here = {}
        name = values.get("path") or _tar_name(header)
        kind = _TAR_KINDS.get(flag, f"member of unknown type {flag.decode('latin-1')!a}")
        if any(key.startswith("GNU.sparse.") for key in values):
            kind = "sparse file"
        if kind == "file" and flag == b"\0" and name.endswith(b"/"):
            kind = "folder"  # how archives older than POSIX say it
        if "size" in values:
            size = _decimal(values["size"])
        try:
            text_name = name.decode()
        except UnicodeDecodeError:
            raise _CorruptError(f"the name {name!a} is not UTF-8") from None
        yield _Member(text_name, kind, _tar_chunks(stream, size) if kind == "file" else iter(()))
    # To the very end: only there do gzip and xz compare their checksums. What is not zero
    # would be a second archive glued on, whose files would be missing.
    while rest := stream.read(CHUNK_BYTES):
        meter.spend(len(rest))
        if rest.count(0) != len(rest):
            raise _CorruptError("more data after the end of the archive")


def _tar_chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    for start in range(0, size, CHUNK_BYTES):
        yield _exactly(stream, min(CHUNK_BYTES, size - start))
    _exactly(stream, -size % _BLOCK)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise _CorruptError("it ends in the middle")
    return data


def _checksum_fits(header: bytes) -> bool:
    """Whether a tar header's sum of bytes, its own field taken as spaces, is what it says."""
    try:
        return sum(header[:148]) + sum(header[156:]) + 8 * 0x20 == _number(header[148:156])
    except _CorruptError:
        return False


def _number(field: bytes) -> int:
    """Read a tar number: octal text, or GNU's base-256 where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise _CorruptError(f"{field!a} is no octal number")
    return int(text or b"0", 8)


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise _CorruptError(f"{text!a} is no decimal number")
    return int(text)


def _tar_name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    # Only POSIX has a prefix there; GNU's own format keeps times in its place.
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _pax(text: bytes) -> dict[str, bytes]:
    """Read pax records, each ``<length> <key>=<value>\\n`` with the length of all of it."""
    values = {}
    while text:
        length = _decimal(text.partition(b" ")[0])
        record = text[:length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if not equals or not value.endswith(b"\n") or len(record) != length:
            raise _CorruptError("a pax header that cannot be read")
        values[key.decode("utf-8", "replace")] = value[:-1]
        text = text[length:]
    return values


# --- writing

_STORED_BYTES = 65535  # most of one stored block: its length has 16 bits


def pack_tar_gz(path: str | Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a ``.tar.gz`` whose bytes are a function of its members and of nothing else.

    The tar layer is USTAR with time 0, owner 0 and mode 0644. The gzip layer uses stored
    blocks only (RFC 1951, section 3.2.4): what a compressor makes of the same bytes differs
    between builds of zlib, and images do not compress anyway.

    Args:
        path: the archive; it appears whole or not at all.
        members: (name, bytes) in the order in which they shall stand. They are written as
            they come, so a generator keeps memory constant.

    Raises:
        ValueError: a name is given twice, is not relative, or does not fit into USTAR
            (a last part of 100 bytes after folders of 155).
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        output = _StoredGzip(stream)
        names = set()
        for name, data in members:
            if name in names or name.startswith("/"):
                raise ValueError(f"{name!r} is there twice or is not relative")
            names.add(name)
            output.write(_ustar_header(name, len(data)))
            output.write(data)
            output.write(bytes(-len(data) % _BLOCK))
        output.write(2 * _ZERO_BLOCK)
        output.finish()


def _ustar_header(name: str, size: int) -> bytes:
    encoded, prefix = name.encode(), b""
    if len(encoded) > 100:
        # The last cut that leaves folders short enough for the prefix field.
        cut = encoded.rfind(b"/", 0, 156)
        prefix, encoded = encoded[: max(cut, 0)], encoded[cut + 1 :]
    if not 0 < len(encoded) <= 100 or size >= 8**11:
        raise ValueError(f"{name!r} of {size} bytes does not fit into a USTAR header")
    zero = b"0000000\0"
    head = encoded.ljust(100, b"\0") + b"0000644\0" + zero + zero + b"%011o\0" % size + b"%011o\0" % 0
    tail = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + zero + zero + prefix.ljust(155, b"\0") + bytes(12)
    checksum = sum(head) + 8 * 0x20 + sum(tail)
    return head + b"%06o\0 " % checksum + tail


class _StoredGzip:
    """A gzip stream (RFC 1952) of stored blocks: no time, no name, unknown system."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._waiting, self._crc, self._size = stream, bytearray(), 0, 0
        stream.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._waiting += data
        start = 0
        # The last block is marked, so a full one waits until something follows it.
        while len(self._waiting) - start > _STORED_BYTES:
            self._block(self._waiting[start : start + _STORED_BYTES], final=False)
            start += _STORED_BYTES
        del self._waiting[:start]

    def finish(self) -> None:
        self._block(self._waiting, final=True)
        self._stream.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, data: bytes | bytearray, final: bool) -> None:
        # Stored blocks end on a byte, so the three bits of the next head are a byte of their own.
        self._stream.write(struct.pack("<BHH", final, len(data), len(data) ^ 0xFFFF))
        self._stream.write(data)
