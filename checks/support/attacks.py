"""Files that a stranger might send: sound ones, the same ones damaged, and ones made to do harm.

Each is a function of a random generator alone, so that a seed and a number name a file.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LIMITS = {"max_bytes": 16_000_000, "max_files": 500, "max_ratio": 200.0}
TREE = {
    "set/train/a.bin": random.Random(1).randbytes(3000),
    "set/train/b.txt": b"plain text\n" * 200,
    "set/test/c.bin": random.Random(2).randbytes(700),
    "set/empty": b"",
}


class Case(NamedTuple):
    """One file.

    Attributes:
        label: how it was made.
        data: its bytes.
        suffix: of its name.
        expected: ``refuse``: accepting it is wrong; ``same``: what is accepted must be ``original``;
            ``any``: it may be either, as long as it is orderly.
        original: what the undamaged file held.
        whole: whether whole blocks of a tar are missing, or doubled.
    """

    label: str
    data: bytes
    suffix: str
    expected: str
    original: Any = None
    whole: bool = False


def damage(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return a word for a kind of damage, and the damaged bytes."""
    place, size = chance.randrange(len(data)), len(data)
    kind = chance.choice(("bits", "bytes", "cut", "insert", "delete", "double", "zeros", "number", "append", "move"))
    changed = bytearray(data)
    if kind == "bits":
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif kind == "bytes":
        changed[place : place + chance.randint(1, 16)] = chance.randbytes(chance.randint(1, 16))
    elif kind == "cut":
        del changed[place:]
    elif kind == "insert":
        changed[place:place] = chance.randbytes(chance.randint(1, 600))
    elif kind == "delete":
        del changed[place : place + chance.randint(1, 600)]
    elif kind == "double":
        changed[place:place] = data[place : place + chance.randint(1, 600)]
    elif kind == "zeros":
        changed[place : place + 64] = bytes(min(64, size - place))
    elif kind == "number":
        number = chance.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 1 << 20))
        changed[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)
    elif kind == "append":
        changed += chance.randbytes(chance.randint(1, 2000))
    else:
        other = chance.randrange(size)
        changed[place : place + 32], changed[other : other + 32] = data[other : other + 32], data[place : place + 32]
    return kind, bytes(changed)


# --- archives


def _tar(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _file(name: str, data: bytes = b"data", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def _zip(entries: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries:
            if isinstance(name, str):  # whose time would be now
                name = zipfile.ZipInfo(name)
                name.external_attr = 0o600 << 16
            archive.writestr(name, data, method)
    return out.getvalue()


def _packed(tar: bytes, chance: random.Random) -> bytes:
    """Return a tar as it is, or compressed."""
    kind = chance.choice(("plain", "gzip", "xz"))
    return (
        tar if kind == "plain" else gzip.compress(tar, 1, mtime=0) if kind == "gzip" else lzma.compress(tar, preset=0)
    )


@functools.cache
def _sound_archives() -> dict[str, bytes]:
    tars = {
        name: _tar([_file(*one) for one in TREE.items()], form)
        for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("ustar", tarfile.USTAR_FORMAT))
    }
    return {
        **{f"tar {name}": data for name, data in tars.items()},
        "tar.gz": gzip.compress(tars["pax"], mtime=0),
        "tar.xz": lzma.compress(tars["gnu"]),
        "zip deflate": _zip(list(TREE.items())),
        "zip stored": _zip(list(TREE.items()), zipfile.ZIP_STORED),
        "zip bzip2": _zip(list(TREE.items()), zipfile.ZIP_BZIP2),
    }


BAD_NAMES = (
    "../x", "a/../../x", "/abs/x", "//x", "C:\\x", "c:x", "a\\..\\x", "a/..\\..\\x", "..", "a/..", "a\x01b", "a\nb",
    "x\x7f", "n" * 300, "d/" * 600 + "x", "set/../../../tmp/x", "./../x", "\x85x",
)  # fmt: skip


def _tar_attack(chance: random.Random) -> tuple[str, list, str]:
    """Return a label, the members and what is expected of an attack by members of a tar."""
    kind = chance.choice(
        ("name", "link", "through a link", "hard link", "device", "type", "twice", "case", "nfc", "both", "sparse")
    )
    good = _file("set/a.txt")
    if kind == "name":
        return kind, [good, _file(chance.choice(BAD_NAMES))], "refuse"
    if kind in ("link", "hard link"):
        target = chance.choice(("/etc/passwd", "../../x", "missing", "..", "/", "set/b"))
        link = _file("set/l", b"", type=tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE, linkname=target)
        return kind, [good, link], "refuse"
    if kind == "through a link":
        link = _file("set/l", b"", type=tarfile.SYMTYPE, linkname=chance.choice(("/tmp", "..", "/")))
        return kind, [link, _file("set/l/x")], "refuse"
    if kind == "device":
        made = chance.choice((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE))
        return kind, [good, _file("set/d", b"", type=made, devmajor=1, devminor=chance.randrange(9))], "refuse"
    if kind == "type":
        return kind, [good, _file("set/t", b"", type=chance.choice((b"9", b"Z", b"M", b"V", b"D")))], "refuse"
    if kind == "twice":
        return kind, [good, _file("set/a.txt", b"other")], "refuse"
    if kind == "case":
        return kind, [good, _file(chance.choice(("set/A.TXT", "SET/b", "set/a.TXT")))], "refuse"
    if kind == "nfc":
        return kind, [_file("set/\u00e9"), _file("set/e\u0301")], "refuse"
    if kind == "both":
        return kind, [good, _file("set/a.txt/x")], "refuse"
    return kind, [good, _file("set/s", b"", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})], "refuse"


def _checksummed(header: bytes) -> bytes:
    """Return a tar header with the checksum that it ought to have."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def _tar_header_attack(chance: random.Random) -> tuple[str, bytes, str]:
    base = _sound_archives()["tar gnu"]
    kind = chance.choice(
        ("size", "checksum", "no end", "two", "garbage", "long names", "pax path", "pax size", "blank")
    )
    if kind == "size":
        field = chance.choice((b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12,
        b"\x80" + bytes(3) + b"\x7f" + bytes(7),
                               b"-0000000001\0", b"0000009999z\0", b"99999999999\0"))  # fmt: skip
        return kind, _checksummed(base[:124] + field + base[136:512]) + base[512:], "refuse"
    if kind == "checksum":
        return kind, base[:148] + b"000000\0 " + base[156:], "refuse"
    if kind == "no end":
        return kind, base[: 512 + chance.randrange(3000)], "refuse"
    if kind == "two":
        return kind, base + base, "refuse"
    if kind == "garbage":
        return kind, base + b"hidden", "refuse"
    if kind == "long names":
        long = _file("x", b"y" * 50, type=tarfile.GNUTYPE_LONGNAME)
        return kind, _tar([long] * chance.choice((40, 200)) + [_file("a")], tarfile.GNU_FORMAT), "refuse"
    if kind == "pax path":
        return kind, _tar([_file("a", pax_headers={"path": chance.choice(BAD_NAMES)})]), "refuse"
    if kind == "pax size":
        size = chance.choice(("-1", "99999999999999999999", "x", "1e3", "8000000000"))
        return kind, _tar([_file("a", pax_headers={"size": size})]), "refuse"
    return kind, bytes(512 * chance.randint(1, 20)), "refuse"


def _zip_attack(chance: random.Random) -> tuple[str, bytes, str]:
    kind = chance.choice(
        ("name", "link", "encrypted", "checksum", "sizes", "names differ", "hidden", "count", "before", "behind",
        "method",
         "twice", "case", "overlap", "zip64", "local offset", "comment")
    )  # fmt: skip
    base = bytearray(_zip([("set/a.txt", b"aaaa" * 50), ("set/b.txt", b"bbbb" * 50)]))
    directory = base.index(b"PK\1\2")
    if kind == "name":
        names = [name for name in BAD_NAMES if not name.startswith("//")]
        return kind, _zip([("set/a.txt", b"a"), (chance.choice(names), b"x")]), "refuse"
    if kind == "link":
        info = zipfile.ZipInfo("set/l")
        info.create_system, info.external_attr = 3, chance.choice((0o120777, 0o060666, 0o010666)) << 16
        return kind, _zip([("set/a.txt", b"a"), (info, b"/etc/passwd")]), "refuse"
    if kind == "encrypted":
        bit = chance.choice((0x1, 0x20, 0x40, 0x2000))
        for place in (6, directory + 8):
            struct.pack_into("<H", base, place, struct.unpack_from("<H", base, place)[0] | bit)
    elif kind == "checksum":
        struct.pack_into("<I", base, directory + 16, chance.getrandbits(32) | 1)
    elif kind == "sizes":
        struct.pack_into("<I", base, directory + chance.choice((20, 24)), chance.choice((0, 5, 0x7FFFFFFF, 0xFFFFFFFE)))
    elif kind == "names differ":
        base[30:39] = b"../../../"
    elif kind == "hidden":
        extra = _zip([("set/hidden", b"h")])
        hidden = extra[: extra.index(b"PK\1\2")]
        struct.pack_into("<I", base, len(base) - 6, directory + len(hidden))
        base[directory:directory] = hidden
    elif kind == "count":
        count = chance.choice((0, 1, 3, 60000))
        struct.pack_into("<2H", base, len(base) - 14, count, count)
    elif kind == "before":
        base[:0] = chance.randbytes(chance.randint(1, 100))
    elif kind == "behind":
        base += chance.randbytes(chance.randint(1, 100))
    elif kind == "method":
        for place in (8, directory + 10):
            struct.pack_into("<H", base, place, chance.choice((9, 14, 93, 95, 98, 1234)))
    elif kind == "twice":
        double = _zip([("set/a.txt", b"a"), ("set/q.txt", b"b")])
        return kind, double.replace(b"set/q.txt", b"set/a.txt"), "refuse"
    elif kind == "case":
        return kind, _zip([("set/a.txt", b"a"), ("set/A.TXT", b"b")]), "refuse"
    elif kind == "overlap":
        second = base.index(b"PK\1\2", directory + 4)
        struct.pack_into("<I", base, second + 42, 0)
    elif kind == "zip64":
        struct.pack_into("<I", base, len(base) - 6, 0xFFFFFFFF)
    elif kind == "local offset":
        struct.pack_into("<I", base, directory + 42, chance.choice((1, 0x7FFFFFFF, len(base))))
    else:
        struct.pack_into("<H", base, len(base) - 2, chance.randint(1, 0xFFFF))
    return kind, bytes(base), "refuse"


@functools.cache
def _bombs() -> tuple[tuple[str, bytes, str], ...]:
    zeros = bytes(LIMITS["max_bytes"] + 4_000_000)
    tar = _tar([_file("set/zeros", zeros)])
    many = _tar([_file(f"set/{i}", b"") for i in range(LIMITS["max_files"] + 10)])
    folders = _tar([_file(f"set/{i}", b"", type=tarfile.DIRTYPE) for i in range(LIMITS["max_files"] + 10)])
    return (
        ("gzip bomb", gzip.compress(tar, mtime=0), "refuse"),
        ("xz bomb", lzma.compress(tar, preset=1), "refuse"),
        ("zip bomb", _zip([("set/zeros", zeros)]), "refuse"),
        ("bzip2 in zip bomb", _zip([("set/zeros", zeros)], zipfile.ZIP_BZIP2), "refuse"),
        ("streams of gzip", gzip.compress(b"", mtime=0) * 20_000, "refuse"),
        ("files", gzip.compress(many, mtime=0), "refuse"),
        ("folders", gzip.compress(folders, mtime=0), "refuse"),
        ("zip of files", _zip([(f"{i}", b"") for i in range(LIMITS["max_files"] + 10)]), "refuse"),
        ("web page", b"<!DOCTYPE html><html>" + b" " * 600, "refuse"),
        ("bzip2", bz2.compress(_sound_archives()["tar gnu"]), "refuse"),
        ("nothing", b"", "refuse"),
        ("gzip of nothing", gzip.compress(b"", mtime=0), "refuse"),
        ("empty zip", _zip([]), "refuse"),
    )


def archive(chance: random.Random) -> Case:
    """Return an archive; ``original`` is path -> bytes."""
    kind = chance.choices(("sound", "damaged", "members", "headers", "zip", "bomb"), (1, 50, 20, 12, 14, 3))[0]
    if kind in ("sound", "damaged"):
        name, data = chance.choice(sorted(_sound_archives().items()))
        if kind == "sound":
            return Case(f"sound {name}", data, ".bin", "accept", TREE)
        how, changed = damage(data, chance)
        # A plain tar has checksums of its headers alone: there a file's bytes may differ, not which files there are.
        expected, whole = "names" if name.startswith("tar ") else "same", (len(data) - len(changed)) % 512 == 0
        return Case(f"{name}: {how}", changed, ".bin", expected, TREE, whole and len(data) != len(changed))
    if kind == "members":
        label, members, expected = _tar_attack(chance)
        return Case(f"tar: {label}", _packed(_tar(members), chance), ".bin", expected)
    if kind == "bomb":
        label, data, expected = chance.choice(_bombs())
        return Case(label, data, ".bin", expected)
    label, data, expected = (_tar_header_attack if kind == "headers" else _zip_attack)(chance)
    return Case(f"{'tar header' if kind == 'headers' else 'zip'}: {label}", data, ".bin", expected)


# --- images


@functools.cache
def _pixels(channels: int, bits: int = 8) -> np.ndarray:
    smooth = np.add.outer(np.arange(40), np.arange(48))[..., None] * np.arange(1, channels + 1)
    return (smooth % 251).astype(np.uint8) if bits == 8 else (smooth * 199 % 65521).astype(np.uint16)


@functools.cache
def _sound_images() -> dict[str, tuple[bytes, np.ndarray]]:
    from PIL import Image

    from repix.data import images

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, channels, bits in (
            ("rgb.png", 3, 8), ("gray.png", 1, 8), ("deep.png", 1, 16), ("deep3.png", 3, 16), ("rgba.png", 4, 8),
            ("rgb.tif", 3, 8),
            ("deep.tif", 3, 16), ("five.tif", 5, 8), ("rgb.npy", 3, 8), ("deep.npy", 2, 16), ("rgb.jpg", 3, 8),
            ("gray.jpg", 1, 8),
        ):  # fmt: skip
            path = Path(folder) / name
            images.write(path, _pixels(channels, bits))
            found[name] = path.read_bytes(), images.decode(path).pixels
        for name in ("rgb.bmp", "rgb.webp", "rgb.gif", "rgb.ppm"):
            path = Path(folder) / name
            Image.fromarray(_pixels(3)).save(path, lossless=True) if name.endswith("webp") else Image.fromarray(
                _pixels(3)
            ).save(path)
            found[name] = path.read_bytes(), images.decode(path).pixels
    return found


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, colours: int = 2, *more: bytes, body: bytes = b"") -> bytes:
    """Return a PNG that claims a size; ``body`` is its compressed pixels, ``more`` chunks stand before them."""
    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", head), *more, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@functools.cache
def _image_attacks() -> tuple[tuple[str, bytes, str], ...]:
    from PIL import Image

    frames = io.BytesIO()
    Image.new("RGB", (8, 8)).save(frames, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    bomb = zlib.compress(bytes(4_000_000), 9)
    pages = io.BytesIO()
    sizes = 'SizeX="8" SizeY="8" SizeC="1" SizeZ="1" SizeT="1000000000"'
    told = f'<?xml version="1.0"?><OME><Image><Pixels {sizes}><TiffData IFD="0"/></Pixels></Image></OME>'
    Image.new("L", (8, 8)).save(pages, "TIFF", tiffinfo={270: told})
    npy = b"\x93NUMPY\x01\x00"

    def header(text: str) -> bytes:
        return npy + struct.pack("<H", len(text)) + text.encode()

    array = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"
    whole = header((array % "4, 4, 3").ljust(117) + "\n")
    photo, progressive = io.BytesIO(), io.BytesIO()
    Image.fromarray(_pixels(3)).save(photo, "JPEG")
    Image.fromarray(_pixels(3)).save(progressive, "JPEG", progressive=True)
    scans = progressive.getvalue()
    return (
        ("jpeg cut and closed", photo.getvalue()[: len(photo.getvalue()) * 3 // 4] + b"\xff\xd9", ".jpg"),
        ("jpeg without its last scans", b"\xff\xda".join(scans.split(b"\xff\xda")[:5]) + b"\xff\xd9", ".jpg"),
        ("npy with bytes behind it", whole + bytes(60), ".npy"),
        ("npy cut", whole + bytes(40), ".npy"),
        ("claims 60000 x 60000", png(60_000, 60_000, body=bomb), ".png"),
        ("claims 12000 x 12000", png(12_000, 12_000, body=bomb), ".png"),
        ("claims 16 bits 30000 x 30000", png(30_000, 30_000, 16, body=bomb), ".png"),
        ("claims 0 x 0", png(0, 0), ".png"),
        ("claims 0 x 16", png(0, 16), ".png"),
        ("bmp of runs, a million pixels in six bytes", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1084, 0, 0, 1078, 40,
        1 << 20, 1, 1, 8, 1, 6, 0, 0, 256, 0) + bytes(1024) + b"\1\7\0\0\0\1", ".bmp"),
        ("ome tiff of a thousand million pages", pages.getvalue(), ".tif"),
        ("claims 4294967295 x 1", png(0xFFFFFFFF, 1), ".png"),
        ("no pixels", png(40, 40), ".png"),
        ("text bomb", png(40, 40, 8, 2, png_chunk(b"zTXt", b"C\0\0" + zlib.compress(bytes(50_000_000)))), ".png"),
        ("profile bomb", png(40, 40, 8, 2, png_chunk(b"iCCP", b"C\0\0" + zlib.compress(bytes(50_000_000)))), ".png"),
        ("bmp claims 2147483647", b"BM" + struct.pack("<IHHIIiiHHIIIIII", 70, 0, 0, 54, 40, 0x7FFFFFFF, -5, 1, 24, 0,
        0, 0, 0, 0, 0), ".bmp"),
        ("gif of frames", frames.getvalue(), ".gif"),
        ("ppm claims 99999 x 99999", b"P6\n99999 99999\n255\n" + bytes(100), ".ppm"),
        ("ppm 16 bits claims 30000", b"P6\n30000 30000\n65535\n" + bytes(100), ".ppm"),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n", ".png"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", ".png"),
        ("tiff that points to itself", b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8), ".tif"),
        ("tiff of nothing", b"II*\0\x08\0\0\0\0\0\0\0\0\0", ".tif"),
        ("tiff claims 100000 x 100000", b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + b"".join(
            struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 100_000), (257, 100_000), (273, 8), (279,
            100))) + bytes(4), ".tif"),
        ("npy of objects",
        npy + b"\x76\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
         + b"cos\nsystem\n(S'x'\ntR.", ".npy"),
        ("npy nests", header("(" * 5000), ".npy"),
        ("npy nests lists", header("{'descr': " + "[" * 900 + "]" * 900 + "}"), ".npy"),
        ("npy claims 10^15", header(array % "100000000, 10000000, 3"), ".npy"),
        ("npy claims 10^40", header(array % "10000000000000000000000000, 100000000000000, 3"), ".npy"),
        ("npy negative", header(array % "-1, 4, 3"), ".npy"),
        ("npy header of 4 GB", b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFF0) + b"{", ".npy"),
        ("nothing", b"", ".png"),
        ("text", b"not an image", ".jpg"),
    )  # fmt: skip


def image(chance: random.Random) -> Case:
    """Return an image file; ``original`` is its pixels."""
    kind = chance.choices(("sound", "damaged", "attack"), (2, 78, 20))[0]
    if kind == "attack":
        label, data, suffix = chance.choice(_image_attacks())
        return Case(label, data, suffix, "refuse")
    name, (data, pixels) = chance.choice(sorted(_sound_images().items()))
    suffix = Path(name).suffix
    if kind == "sound":
        return Case(f"sound {name}", data, suffix, "accept", pixels)
    how, changed = damage(data, chance)
    if len(changed) < len(data) // 2 and how == "cut":
        return Case(f"{name}: cut to less than half", changed, suffix, "refuse")
    return Case(f"{name}: {how}", changed, suffix, "any", pixels)


# --- HDF5


@functools.cache
def _sound_hdf5() -> dict[str, tuple[bytes, np.ndarray]]:
    import h5py

    found, rows = {}, np.stack([_pixels(3)] * 3)
    for name, options in (
        ("contiguous", {}),
        ("gzip", {"chunks": (1, 40, 48, 3), "compression": "gzip"}),
        ("checksummed", {"chunks": (1, 40, 48, 3), "compression": "lzf", "shuffle": True, "fletcher32": True}),
    ):
        out = io.BytesIO()
        with h5py.File(out, "w") as file:
            file.create_dataset("data", data=rows, track_times=False, **options)
        found[name] = out.getvalue(), rows
    return found


@functools.cache
def _hdf5_attacks() -> tuple[tuple[str, bytes, str], ...]:
    import h5py

    def made(fill: Callable[[Any], None]) -> bytes:
        out = io.BytesIO()
        with h5py.File(out, "w") as file:
            fill(file)
        return out.getvalue()

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((3, 4, 4, 3), "uint8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "data", shape=(3, 4, 4, 3))
        file.create_virtual_dataset("data", layout)

    def link(target: Any) -> Callable[[Any], None]:
        return lambda file: file.__setitem__("data", target)

    def dataset(*given: Any, **options: Any) -> Callable[[Any], None]:
        return lambda file: file.create_dataset("data", *given, **options)

    def chunk(raw: bytes | None, skipped: int = 0, **options: Any) -> Callable[[Any], None]:
        """Two images of a chunk each; what the second is stored as, or None: it is not."""

        def fill(file: Any) -> None:
            data = file.create_dataset("data", (2, 8, 8, 3), "uint8", chunks=(1, 8, 8, 3), **options)
            data[0] = 1
            if raw is not None:
                data.id.write_direct_chunk((1, 0, 0, 0), raw, skipped)

        return fill

    huge = (1, 30_000, 30_000, 3)
    attacks = (
        ("never written", dataset((2, 8, 8, 3), "uint8")),
        ("a chunk never written", chunk(None)),
        ("a chunk that unpacks to too little", chunk(zlib.compress(bytes(9)), compression="gzip")),
        ("a chunk that unpacks to too much", chunk(zlib.compress(bytes(900)), compression="gzip")),
        ("a chunk past its filter, and short", chunk(bytes(9), 1, compression="gzip")),
        ("external link", link(h5py.ExternalLink("/etc/passwd", "/data"))),
        ("soft link", link(h5py.SoftLink("/data"))),
        ("dangling", link(h5py.SoftLink("/nowhere"))),
        ("external storage", dataset((3, 4, 4, 3), "uint8", external=[("/etc/passwd", 0, 144)])),
        ("virtual", virtual),
        ("group", lambda file: file.create_group("data")),
        ("nothing", lambda file: None),
        ("another name", lambda file: file.create_dataset("images", data=np.zeros((1, 2, 2, 3), np.uint8))),
        ("floats", dataset(data=np.zeros((1, 2, 2, 3), np.float64))),
        ("text", dataset(data=np.array([b"x" * 9] * 4, object), dtype=h5py.string_dtype())),
        ("two dimensions", dataset(data=np.zeros((2, 2), np.uint8))),
        ("a billion rows", dataset((10**9, 4, 4, 3), "uint8", chunks=(1, 4, 4, 3))),
        ("10^18 pixels", dataset((1, 10**9, 10**9, 1), "uint8", chunks=(1, 16, 16, 1))),
        ("a chunk of 2.7 GB", dataset(huge, "uint8", chunks=huge, compression="gzip")),
        ("a row of nothing stored", dataset(huge, "uint8", chunks=(1, 100, 100, 3))),
        ("scale-offset", dataset(data=np.zeros((1, 8, 8, 3), np.uint8), chunks=(1, 8, 8, 3), scaleoffset=2)),
    )
    return tuple((label, made(fill), ".h5") for label, fill in attacks)


def hdf5(chance: random.Random) -> Case:
    """Return an HDF5 file; ``original`` is its rows."""
    kind = chance.choices(("sound", "damaged", "attack"), (2, 78, 20))[0]
    if kind == "attack":
        label, data, suffix = chance.choice(_hdf5_attacks())
        return Case(label, data, suffix, "refuse")
    name, (data, rows) = chance.choice(sorted(_sound_hdf5().items()))
    if kind == "sound":
        return Case(f"sound {name}", data, ".h5", "accept", rows)
    how, changed = damage(data, chance)
    return Case(f"{name}: {how}", changed, ".h5", "any", rows)


# --- records


@functools.cache
def records() -> dict[str, str]:
    """Return class of :mod:`repix.schemas` (or ``dvc.lock``) -> the JSON text of a sound record."""
    side = {"channels": 3, "dtype": "uint8", "low": [0] * 3, "high": [255] * 3, "meaning": list("RGB"), "colour": "rgb"}
    both, digest = {"source": side, "target": side}, "a" * 64
    half = {"n": 1, "size": [16, 16], "examples": "train-source.jsonl", "examples_sha256": digest}
    half["shards"] = [{"file": "train-source.npy", "n": 1, "sha256": digest}]
    made = {
        "Archive": {"dataset": "d", "file": "a.zip", "bytes": 5, "sha256": digest, "pinned": True},
        "Manifest": {
            "dataset": "d", "paired": True, "direction": "AtoB", "resize": "exact", "resample": "bicubic",
            "load_size": [18, 18], "crop_size": [16, 16], "splits": {"train": {"source": half, "target": half}}, **both,
        },
        "Metrics": {
            "cell": "d-m-0", "weights_digest": {"generator": digest}, "n": 2, "protocol": {"kid": {"reason": "no"}},
            "scores": {"source_to_target": {"last": {"l1": 0.5, "kid": None}, "best": None}},
        },
        "Trained": {
            "cell": "d-m-0", "dataset": "d", "model": "m", "seed": 0, "steps": 3, "epochs": 1,
            "profile": {"name": "fast"}, "recipe": {"system": "pix2pix"}, "crop_size": [16, 16],
            "translators": {"source_to_target": "generator"}, "networks": {"generator": digest},
            "best": None, "data_digest": digest, "direction": "BtoA", **both,
        },
        "Exported": {
            "cell": "d-m-0", "variant": "last", "crop_size": [16, 16], "weights": {"generator": digest},
            "bytes": {"source_to_target": {"onnx": 5}}, "digests": {"source_to_target": {"onnx": digest}},
            "tolerance": {"onnx": {"max": 1e-3, "mean": 1e-4}}, "parity": "pass", "direction": "AtoB", **both,
        },
    }  # fmt: skip
    from repix import schemas

    out = {"path": "runs/c", "md5": digest[:32] + ".dir", "size": 5}
    entry = {"cmd": "x", "deps": [out], "outs": [out], "params": {"params.yaml": {"models.m": {"epochs": 1}}}}
    lock = {"dvc.lock": json.dumps({"schema": "2.0", "stages": {"train@c": entry}})}
    return lock | {name: json.dumps({"schema": getattr(schemas, name).SCHEMA} | tree) for name, tree in made.items()}


ODD = (
    "null",
    "true",
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 400,
    "-1",
    '""',
    '"\\ud800"',
    '"\\u0000"',
    "[]",
    "{}",
    '"' + "x" * 100_000 + '"',
)


def _odd_record(text: str, chance: random.Random) -> tuple[str, bytes]:
    kind = chance.choice(("value", "nested", "twice", "damaged", "encoding", "whole"))
    if kind == "value":
        places = [place for place, letter in enumerate(text) if letter == ":"]
        place = chance.choice(places[1:]) + 1
        _, end = json.JSONDecoder().raw_decode(text, place + 1)
        return kind, (text[:place] + chance.choice(ODD) + text[end:]).encode()
    if kind == "nested":
        many = chance.choice((500, 5_000, 100_000))
        opened, closed = chance.choice((("[", "]"), ('{"a":', "}")))
        return kind, (text[:-1] + ', "x": ' + opened * many + "1" + closed * many + "}").encode()
    if kind == "twice":
        return kind, (text[:-1] + ", " + text[1:]).encode()
    if kind == "encoding":
        return kind, text.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig")))
    if kind == "whole":
        return kind, chance.choice((*ODD, "", "[" * 200_000, "0" * 10_000)).encode()
    return damage(text.encode(), chance)


@functools.cache
def checkpoint() -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a sound checkpoint of the run key ``run`` after step 7, and its arrays."""
    from repix.training.checkpoint import Checkpoint, Checkpoints

    arrays = {"g/kernel": np.arange(600, dtype=np.float32).reshape(20, 30), "step": np.array(7, np.int64)}
    with tempfile.TemporaryDirectory() as folder:
        path = Checkpoints(Path(folder), "run").save(Checkpoint(7, arrays, {"rows": []}))
        return path.read_bytes(), arrays


@functools.cache
def _npz_attacks() -> tuple[tuple[str, bytes], ...]:
    def member(text: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data

    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }\n"
    one = ("a.npy", member((head % "1").rjust(118), bytes(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        twice = _zip([one, one], zipfile.ZIP_STORED)
    million = io.BytesIO()
    with zipfile.ZipFile(million, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as stream:
        stream.write(member(head % "300000000"))
        for _ in range(300):
            stream.write(bytes(4_000_000))
    return (
        ("compressed 1.2 GB", million.getvalue()),
        ("claims 10^15", _zip([("a.npy", member(head % "1000000000000000"))], zipfile.ZIP_STORED)),
        ("claims 4 GB", _zip([("a.npy", member(head % "1000000000"))], zipfile.ZIP_STORED)),
        ("objects", _zip([("a.npy", member("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
        b"cos\nsystem\n(S'x'\ntR."))])),
        ("nests", _zip([("a.npy", member("(" * 9000))], zipfile.ZIP_STORED)),
        ("names lead out", _zip([("../../a.npy", member(head % "1", bytes(4)))])),
        ("two of one name", twice),
        ("bytes behind an array", _zip([(one[0], one[1] + b"x")], zipfile.ZIP_STORED)),
        ("no arrays", _zip([("a.txt", b"x")])),
        ("empty", _zip([])),
        ("many", _zip([(f"{i}.npy", member(head % "1", bytes(4))) for i in range(3000)])),
    )  # fmt: skip


def record(chance: random.Random) -> Case:
    """Return a JSON record (``suffix`` names its class) or a checkpoint (``.npz``)."""
    if chance.random() < 0.6:
        name, text = chance.choice(sorted(records().items()))
        if chance.random() < 0.03:
            return Case(f"sound {name}", text.encode(), name, "accept", text)
        how, data = _odd_record(text, chance)
        return Case(f"{name}: {how}", data, name, "any", text)
    sound, arrays = checkpoint()
    draw = chance.random()
    if draw < 0.05:
        return Case("sound checkpoint", sound, ".npz", "accept", arrays)
    if draw < 0.2:
        label, data = chance.choice(_npz_attacks())
        return Case(f"npz: {label}", data, ".npz", "refuse")
    how, data = damage(sound, chance)
    return Case(f"checkpoint: {how}", data, ".npz", "same", arrays)


WARM: dict[str, tuple[Callable[[], Any], ...]] = {
    "archives": (_sound_archives, _bombs),
    "images": (_sound_images, _image_attacks),
    "hdf5": (_sound_hdf5, _hdf5_attacks),
    "records": (records, checkpoint, _npz_attacks),
    "urls": (_sound_archives,),
}
"""Kind -> what is made once for all cases, whose time and memory are no case's."""
