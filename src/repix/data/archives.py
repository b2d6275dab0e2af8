"""Unpack an archive from a stranger into a tree of plain files.

:func:`unpack` trusts nothing that an archive says of itself: the format is read from the
bytes, names are checked before a file is opened, and limits are held against the bytes that
really come out, a small piece at a time. Headers are read by ``tarfile`` and ``zipfile``, and
what those two pass over in silence is an error here: a damaged tar header (plain ``tarfile``
takes it for the end and loses the files behind it), zip entries that the table of contents
does not count, anything behind the end.

Formats: tar as in POSIX.1-2017 "pax Interchange Format" and the GNU tar manual, gzip as in
RFC 1952, zip as in PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import bz2
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from repix.errors import UserError
from repix.files import CHUNK_BYTES, atomic_folder

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
_HEADERS_IN_A_ROW = 32  # most of them before one member
_NAME_CHARACTERS = 1024
_DEEPEST = 64  # parts of a name: each is a folder to be made, and costs the archive two letters
_PIECE = 1 << 18  # most that is read, or decompressed, at once
_PACKED_PIECE = 1 << 14  # of what holds streams: what follows a stream is copied, and each may be a few bytes long
_XZ_MEMORY = 128 << 20  # xz -9 needs 65 MiB
_BLOCK = tarfile.BLOCKSIZE


class _CorruptError(Exception):
    """The archive breaks its own format; the text says how."""


class _Member(NamedTuple):
    """One entry of an archive: ``kind`` is file, folder, hard link (to ``target``), or a word for what is refused."""

    name: str
    kind: str
    chunks: Iterator[bytes] = iter(())
    target: str = ""


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
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:
        return "tar"  # an empty one
    except tarfile.HeaderError:
        return "unknown"
    return "tar"


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

    Regular files and folders only (a hard link to a file of the archive becomes a copy of it);
    modes and times are not carried over (files are 0644), names are stored in Unicode NFC, and
    what macOS adds (``__MACOSX``, ``.DS_Store``, ``._*``) and folders of git's are left out. Backslashes in a zip from
    Windows separate folders. Memory does not grow with the archive, save for its names.

    Args:
        archive: tar, tar.gz, tar.xz or zip, told apart by content and not by name.
        folder: where the tree goes.
        max_bytes: most bytes that may come out, a tar's headers included.
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
    except MemoryError:
        raise UserError(f"{archive}: takes more memory than there is; give it more, or get another copy") from None
    except (_CorruptError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
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

    def entries(self, count: int) -> None:
        """Refuse a table of contents of more entries than files, folders and what macOS adds to each."""
        if count > 4 * self.max_files:
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
        for chunk in _copied(folder / member.target, meter) if member.target else member.chunks:
            stream.write(chunk)
    path.chmod(0o644)


def _copied(path: Path, meter: _Meter) -> Iterator[bytes]:
    """Yield the bytes of the file that a hard link names, which cost as much as any others."""
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            meter.spend(len(chunk))
            yield chunk


def _checked(members: Iterable[_Member], archive: Path, meter: _Meter) -> Iterator[_Member]:
    """Yield the members that are to be written, under their clean names; raise at the first bad one."""
    taken: dict[str, tuple[str, str]] = {}
    for name, kind, chunks, target in members:
        shown = ascii(name)
        parts = _parts(name, archive)
        # A folder of git's may name programs, which git would run for whoever stands there.
        if (
            "__MACOSX" in parts
            or ".git" in map(str.casefold, parts)
            or (parts and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))
        ):
            for _ in chunks:  # its checksum is looked at, too
                pass
            continue
        if kind == "hard link":
            linked = target.removeprefix("./")
            found = taken.get(unicodedata.normalize("NFC", linked.casefold()))
            if found != (unicodedata.normalize("NFC", linked), "file"):
                raise UserError(
                    f"{archive}: {shown} is a hard link to {target!a}, which is no file before it in the archive; "
                    "pack it again with tar --hard-dereference"
                )
            kind, target = "file", found[0]
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
        yield _Member("/".join(parts), kind, chunks, target)


def _parts(name: str, archive: Path) -> list[str]:
    """Return the parts of a member's name in NFC, without ``.`` and empty ones."""

    def refuse(why: str) -> UserError:
        return UserError(f"{archive}: the name {name!a} {why}; nothing was unpacked: rename it and pack it again")

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
    if len(parts) > _DEEPEST:
        raise refuse(f"nests deeper than {_DEEPEST} folders")
    return parts


def _members(raw: BinaryIO, meter: _Meter) -> Iterator[_Member]:
    """Return the members of an archive of one of :data:`FORMATS`, streamed.

    The chunks of a member must be used up before the next member is asked for.
    """
    kind = sniff(raw.read(HEAD_BYTES))
    raw.seek(0)
    if kind == "zip":
        return _zip_members(raw, meter)
    piece = _PIECE if kind == "tar" else _PACKED_PIECE
    pieces = iter(lambda: raw.read(piece), b"")
    if kind == "gzip":
        pieces = _streams(pieces, lambda: zlib.decompressobj(31))
    if kind == "xz":
        pieces = _streams(pieces, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
    return _tar_members(_Bytes(pieces, meter))


def _decompressed(decompressor: Any, data: bytes) -> Iterator[bytes]:
    """Yield what ``data`` decompresses to, at most :data:`_PIECE` bytes at once."""
    while not decompressor.eof:
        out = decompressor.decompress(data, _PIECE)
        if out:
            yield out
        if hasattr(decompressor, "needs_input"):
            data, done = b"", decompressor.needs_input
        else:  # of zlib, which keeps what did not fit into the piece
            data = decompressor.unconsumed_tail
            done = not data and len(out) < _PIECE
        if done:
            return


def _streams(pieces: Iterator[bytes], start: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the bytes of compressed streams that follow each other, with nothing but zeros behind them."""
    decompressor, begun = start(), False
    for data in pieces:
        while data:
            if not begun:
                data = data.lstrip(b"\0")
                begun = bool(data)
            if data:
                yield from _decompressed(decompressor, data)
                data = decompressor.unused_data
            if decompressor.eof:
                decompressor, begun = start(), False
            else:
                break
    if begun:
        raise EOFError("it ends in the middle")


class _Bytes:
    """A tar's bytes, read forwards only; every one that was decompressed is counted."""

    def __init__(self, pieces: Iterator[bytes], meter: _Meter):
        self._pieces, self._meter, self._piece, self._used, self._position = pieces, meter, b"", 0, 0

    def tell(self) -> int:
        return self._position

    def piece(self, most: int) -> bytes:
        """Return some bytes, at most ``most``; none at the end."""
        if self._used == len(self._piece):
            self._piece, self._used = next(self._pieces, b""), 0
            self._meter.spend(len(self._piece))
        found = self._piece[self._used : self._used + most]
        self._used += len(found)
        self._position += len(found)
        return found

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield exactly ``size`` bytes."""
        while size:
            if not (found := self.piece(size)):
                raise _CorruptError("it ends in the middle")
            size -= len(found)
            yield found

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""
        found = self.piece(size)
        while len(found) < size and (more := self.piece(size - len(found))):
            found += more
        return found

    def seek(self, position: int) -> None:
        if position < self._position:
            raise _CorruptError("a header points backwards")
        for _ in self.chunks(position - self._position):
            pass


# --- zip

_ZIP_METHODS = {
    zipfile.ZIP_STORED: None,
    zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-15),
    zipfile.ZIP_BZIP2: bz2.BZ2Decompressor,
}
_ZIP_NAMES = {9: "Deflate64", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}


def _zip_members(raw: BinaryIO, meter: _Meter) -> Iterator[_Member]:
    directory, count = _zip_directory(raw, meter)
    try:
        opened = zipfile.ZipFile(raw)
    except (ValueError, OverflowError, NotImplementedError, struct.error, OSError) as error:
        raise _CorruptError(f"its table of contents cannot be read: {error}") from None
    # File order, so that overlaps show as neighbours and the disk is read forwards.
    entries = sorted(opened.infolist(), key=lambda entry: entry.header_offset)
    if len(entries) != count or opened.start_dir != directory:
        raise _CorruptError("its table of contents does not count its entries")
    names = _zip_file_names(entries)
    starts = [_zip_data_start(raw, entry) for entry in entries]
    ends = [*(entry.header_offset for entry in entries), directory][1:]
    place = 0
    for entry, start, end in zip(entries, starts, ends, strict=True):
        if entry.header_offset != place:
            raise _CorruptError(f"bytes before {entry.filename!a} that its table of contents does not count")
        rest = end - start - entry.compress_size
        if rest < 0:
            raise _CorruptError(f"{entry.filename!a} overlaps what follows it")
        # Behind its bytes an entry may say once more how many there are: with or without a signature, 32 or 64 bits.
        if rest not in ((0, 12, 16, 20, 24) if entry.flag_bits & 0x8 else (0,)):
            raise _CorruptError(f"{rest} bytes after {entry.filename!a} that its table of contents does not count")
        place = end
    if place != directory:
        raise _CorruptError("bytes that its table of contents does not count")
    for entry, name, start in zip(entries, names, starts, strict=True):
        kind = _zip_kind(entry, name)
        yield _Member(name, kind, _zip_chunks(raw, entry, start, meter) if kind == "file" else iter(()))


def _zip_directory(raw: BinaryIO, meter: _Meter) -> tuple[int, int]:
    """Return where the table of contents begins and how many entries it has, having walked it to the end.

    It must reach to the record that closes the file, and that record to the last byte.
    """
    size = raw.seek(0, 2)
    raw.seek(max(0, size - 22 - 0xFFFF))
    tail = raw.read()
    last = tail.rfind(b"PK\5\6")
    if last < 0 or len(tail) - last < 22:
        raise _CorruptError("it has no table of contents")
    end = size - len(tail) + last
    disk, first, here, count, length, start, comment = struct.unpack_from("<4H2IH", tail, last + 4)
    if end + 22 + comment != size:
        raise _CorruptError("more data after the end of the archive")
    if 0xFFFF in (here, count) or 0xFFFFFFFF in (length, start):
        raw.seek(max(0, end - 20))
        locator = raw.read(20)
        if locator[:4] == b"PK\6\7":
            end = struct.unpack_from("<Q", locator, 8)[0]
            raw.seek(min(end, size))
            record = raw.read(56)
            if len(record) != 56 or record[:4] != b"PK\6\6":
                raise _CorruptError("its table of contents is not where it says")
            disk, first, here, count, length, start = struct.unpack_from("<2I4Q", record, 16)
    if (disk, first) != (0, 0) or here != count or start + length != end:
        raise _CorruptError("its table of contents does not reach to its end")
    meter.entries(count)
    place = start
    for _ in range(count):
        raw.seek(place)
        header = raw.read(46)
        if len(header) != 46 or header[:4] != b"PK\1\2":
            raise _CorruptError("its table of contents does not count its entries")
        place += 46 + sum(struct.unpack_from("<3H", header, 28))
    if place != end:
        raise _CorruptError("its table of contents does not count its entries")
    return start, count


def _zip_raw_name(entry: zipfile.ZipInfo) -> bytes:
    return entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")


def _zip_file_names(entries: list[zipfile.ZipInfo]) -> list[str]:
    """Return the entries' names with ``/`` between folders.

    A zip says of a name only whether it is UTF-8. Others count as code page 437, unless one
    holds a two-byte character of Shift-JIS whose second byte is a backslash and all of them
    are Shift-JIS. In what Windows or DOS packed, a backslash separates folders.
    """
    local = [_zip_raw_name(entry) for entry in entries if not entry.flag_bits & 0x800]
    japanese = any(re.search(rb"[\x81-\x9f\xe0-\xfc]\\", name) for name in local)
    try:
        decoded = [name.decode("cp932") for name in local]
        japanese = japanese and sum(name.count("\\") for name in decoded) < sum(name.count(b"\\") for name in local)
    except UnicodeDecodeError:
        japanese = False
    names = []
    for entry in entries:
        name = entry.orig_filename
        if japanese and not entry.flag_bits & 0x800:
            name = _zip_raw_name(entry).decode("cp932")
        names.append(name.replace("\\", "/") if entry.create_system == 0 else name)
    return names


def _zip_data_start(raw: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Return where an entry's bytes begin, having compared its own header with the table of contents."""
    raw.seek(entry.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != b"PK\3\4":
        raise _CorruptError(f"{entry.filename!a} is not where the table of contents says")
    flags, method = struct.unpack_from("<2H", header, 6)
    name, extra = struct.unpack_from("<2H", header, 26)
    if (
        raw.read(name) != _zip_raw_name(entry)
        or method != entry.compress_type
        or (flags ^ entry.flag_bits) & 0x809  # encrypted, sizes behind the bytes, UTF-8
    ):
        raise _CorruptError(f"{entry.filename!a} differs between the table of contents and its own header")
    return entry.header_offset + 30 + name + extra


def _zip_kind(entry: zipfile.ZipInfo, name: str) -> str:
    if entry.flag_bits & 0x2041:  # the last two: strong encryption, of bytes and of the table of contents
        return "password-protected file"
    if entry.flag_bits & 0x20:
        return "patch of another file"
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "device or pipe"
    if entry.compress_type not in _ZIP_METHODS:
        method = _ZIP_NAMES.get(entry.compress_type, f"method {entry.compress_type}")
        return f"file compressed by {method} (zip it again with deflate)"
    if name.endswith("/"):
        if entry.file_size:
            raise _CorruptError(f"{name!a} is a folder of {entry.file_size} bytes")
        return "folder"
    return "file"


def _zip_chunks(raw: BinaryIO, entry: zipfile.ZipInfo, start: int, meter: _Meter) -> Iterator[bytes]:
    """Yield an entry's bytes, metered; at their end size and checksum are what the table of contents says."""
    begin = _ZIP_METHODS[entry.compress_type]
    decompressor = begin() if begin else None
    size = checksum = 0
    raw.seek(start)
    for place in range(0, entry.compress_size, _PIECE):
        data = raw.read(min(_PIECE, entry.compress_size - place))
        if decompressor and decompressor.eof:
            raise _CorruptError(f"{entry.filename!a} has bytes after its end")
        for out in _decompressed(decompressor, data) if decompressor else [data]:
            meter.spend(len(out))
            size += len(out)
            checksum = zlib.crc32(out, checksum)
            yield out
    if decompressor and (not decompressor.eof or decompressor.unused_data):
        raise _CorruptError(f"{entry.filename!a} does not end where it says")
    if size != entry.file_size:
        raise _CorruptError(f"{entry.filename!a} has {size} bytes and claims {entry.file_size}")
    if checksum != entry.CRC:
        raise _CorruptError(f"{entry.filename!a} does not fit its checksum")


# --- tar

_TAR_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.DIRTYPE: "folder",
    tarfile.FIFOTYPE: "pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_SAYS_MORE = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Header(tarfile.TarInfo):
    """A tar header of which every error is an error; ``tarfile`` takes most of them for the end.

    The headers that say more about the next one (pax, GNU long names) are read here: those of
    ``tarfile`` take quadratic time, and read a size that is no number as 0.
    """

    @classmethod
    def fromtarfile(cls, tar: _Tar) -> _Header:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):
            raise _CorruptError("it ends in the middle") from None
        except tarfile.HeaderError as error:
            raise _CorruptError(f"a header that cannot be read: {error}") from None

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if not (buf[124] == 0x80 or re.fullmatch(rb"[ \0]*[0-7]*[ \0]*", buf[124:136])):
            raise _CorruptError(f"{buf[124:136]!a} is no size")
        if buf[257:263] != b"ustar\0":  # only POSIX has a prefix there; GNU keeps times in its place
            header.name = buf[:100].split(b"\0")[0].decode(encoding, errors)
        return header

    def _proc_member(self, tar: _Tar) -> _Header:
        if self.type not in _SAYS_MORE:
            tar.row = 0
            return self._proc_builtin(tar)
        tar.row += 1
        if self.size > _METADATA_BYTES:
            raise _CorruptError(f"a header of {self.size} bytes")
        if tar.row > _HEADERS_IN_A_ROW:
            raise _CorruptError(f"more than {_HEADERS_IN_A_ROW} headers in a row")
        text = b"".join(tar.fileobj.chunks(self.size))
        tar.fileobj.seek(tar.fileobj.tell() + -self.size % _BLOCK)
        if self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            values = _pax(text)
        else:
            values = {b"path" if self.type == tarfile.GNUTYPE_LONGNAME else b"linkpath": text.rstrip(b"\0")}
        try:
            header = self.fromtarfile(tar)
        except tarfile.EOFHeaderError:
            if self.type == tarfile.XGLTYPE:
                raise
            raise _CorruptError("a header without its member") from None
        sparse = any(key.startswith(b"GNU.sparse.") for key in values)
        if self.type == tarfile.XGLTYPE:
            if sparse or values.keys() & {b"path", b"linkpath", b"size"}:
                raise _CorruptError("a name or size that is to be that of all members")
            return header
        if sparse:
            header.type = tarfile.GNUTYPE_SPARSE
        if values.get(b"path"):
            header.name = values[b"path"].decode("utf-8", "surrogateescape")
        if values.get(b"linkpath"):
            header.linkname = values[b"linkpath"].decode("utf-8", "surrogateescape")
        if b"size" in values:
            header.size = _decimal(values[b"size"])
            if header.isreg():
                tar.offset = header.offset_data + header.size + -header.size % _BLOCK
        return header


class _Tar(tarfile.TarFile):
    tarinfo = _Header
    row = 0
    """How many headers came since the last member."""


def _tar_members(stream: _Bytes) -> Iterator[_Member]:
    tar = _Tar(fileobj=stream, encoding="utf-8", errors="surrogateescape")
    while header := tar.next():
        tar.members.clear()  # or its memory grows
        kind = _TAR_KINDS.get(header.type, f"member of unknown type {header.type.decode('latin-1')!a}")
        if header.type == tarfile.AREGTYPE and header.name.endswith("/"):
            kind = "folder"  # how archives older than POSIX say it
            if header.size:
                raise _CorruptError(f"{header.name!a} is a folder of {header.size} bytes")
        chunks = stream.chunks(header.size) if kind == "file" else iter(())
        yield _Member(_tar_text(header.name), kind, chunks, _tar_text(header.linkname) if kind == "hard link" else "")
    # To the very end: only there do gzip and xz compare their checksums. What is not zero
    # would be a second archive glued on, whose files would be missing.
    while rest := stream.piece(_PIECE):
        if rest.count(0) != len(rest):
            raise _CorruptError("more data after the end of the archive")
    if stream.tell() % _BLOCK:  # bytes are missing, perhaps with the header of a file
        raise _CorruptError(f"its {stream.tell()} bytes are no whole blocks of {_BLOCK}")


def _tar_text(name: str) -> str:
    """Return a name that was read as UTF-8; where it is not, it counts as Latin-1."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise _CorruptError(f"{text[:40]!a} is no decimal number")
    return int(text)


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Read pax records, each ``<length> <key>=<value>\\n`` with the length of all of it."""
    values, start = {}, 0
    while start < len(text):
        space = text.find(b" ", start, start + 20)
        end = start + _decimal(text[start:space] if space > 0 else b"")
        key, equals, value = text[space + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or not space < end <= len(text):
            raise _CorruptError("a pax header that cannot be read")
        values[key] = value[:-1]
        start = end
    return values
