"""What is read as what: a file of each format, depth, alpha and orientation, made here and read by the one reader.

    python -m checks.image_formats            # prints the table
    python -m checks.image_formats --write    # into docs/images.md

tests/data/test_image_formats.py holds the page against it, and hands every file to training, `repix translate`,
the served model and the demo.
"""

from __future__ import annotations

import argparse
import base64
import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from checks import harness
from repix.data import image_reader

HEIGHT, WIDTH = 4, 6
# 16 x 16 pixels of one colour. pillow-heif, which would write it, need not be there.
HEIC = """
AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAX5tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA
AAEAAQAAAAABogABAAAAAAAAAGsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/mlwcnAAAADeaXBjbwAA
AHdodmNDAQQIAAAAnjgAAAAA//AA/P/4+AAADwNgAAEAF0ABDAH//wQIAAADAJ44AAADAAD/ugJAYQABACpCAQEECAAAAwCeOAAAAwAA/5AEECCy3VXT
XNwENBgQAAADAZAAAAMAEIBiAAEACEQBwXAwYLEgAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAAAQAAAAAQAA
ABAAAAAB////0AAAAAL////QAAAAAgAAABBwaXhpAAAAAAMICAgAAAAYaXBtYQAAAAAAAAABAAEFgQIDBYQAAABzbWRhdAAAAGcoAa8Fsh5AcNAvBcSz
/0kkkttttKh//8idr//9TyoZiasuXLlzRYsWLFixRM//Y90AP9H+h+Z8Tk5OTk5eXl5eXl5eW8CZitiWIWS41wGSbs6AX+BhothaY0BivwX/IAtgT+Dr
8icM
"""


class Case(NamedTuple):
    """A file: its format, what it holds, its bytes, and its upright pixels, where they are known exactly."""

    format: str
    holds: str
    data: bytes
    pixels: np.ndarray | None = None


def noise(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Return (4, 6) or (4, 6, channels) random integers; every bit of them is in use."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def saved(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """Return a file as Pillow writes it."""
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(value: int) -> Image.Exif:
    """Return EXIF data with an orientation."""
    exif = Image.Exif()
    exif[image_reader.ORIENTATION] = value
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array: np.ndarray, *more: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG of 8 or 16 bits, with further chunks before its pixels."""
    deep = array if array.ndim == 3 else array[..., None]
    height, width, channels = deep.shape
    head = struct.pack(">IIBBBBB", width, height, array.itemsize * 8, (0, 0, 4, 2, 6)[channels], 0, 0, interlaced)
    raw = deep.astype(array.dtype.newbyteorder(">"))
    passes = [raw]
    if interlaced:
        starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [raw[top::down, left::right] for top, left, down, right in starts]
    rows = b"".join(b"\0" + row.tobytes() for one in passes if one.size for row in one)
    body = b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return image_reader.PNG_SIGNATURE + chunk(b"IHDR", head) + body


def lzw(data: bytes) -> bytes:
    """Return bytes as TIFF's LZW: each as itself, and a clear code before codes would grow."""
    codes = [256]
    for start in range(0, len(data), 200):
        codes += [*data[start : start + 200], 256]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def tiff_lzw(array: np.ndarray, *, predictor: int = 1, order: str = "<", extra: int | None = None) -> bytes:
    """Return an array (height, width) or (height, width, channels) as a TIFF by LZW."""
    deep = array if array.ndim == 3 else array[..., None]
    height, width, channels = deep.shape
    stored = deep.astype(array.dtype.newbyteorder(order))
    if predictor == 2:
        stored = np.concatenate([deep[:, :1], deep[:, 1:] - deep[:, :-1]], axis=1).astype(stored.dtype)
    strip = lzw(stored.tobytes())
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [array.itemsize * 8] * channels), (259, 3, [5])]
    tags += [(262, 3, [2 if channels >= 3 else 1]), (273, 4, [8]), (277, 3, [channels]), (278, 3, [height])]
    tags += [(279, 4, [len(strip)]), (317, 3, [predictor])] + ([(338, 3, [extra])] if extra is not None else [])
    place = 8 + len(strip) + len(strip) % 2
    behind = place + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, more = struct.pack(f"{order}I", behind + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + more
    return head + strip.ljust(place - 8, b"\0") + directory


def tiff(array: np.ndarray, **options) -> bytes:
    """Return a TIFF as tifffile writes it."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def cases() -> Iterator[Case]:
    """Yield every case, in the order of the table."""
    deep = {n: noise(n, np.uint16) for n in (1, 2, 3, 4, 5)}
    flat = {n: noise(n) for n in (1, 2, 3, 4, 5)}
    opaque, opaque16 = flat[4].copy(), deep[4].copy()
    opaque[..., 3], opaque16[..., 3] = 255, 65535
    rgb = Image.fromarray(flat[3])
    palette, one_bit = rgb.quantize(8), Image.fromarray(flat[1] > 127)

    yield Case("PNG", "gray, 1 bit", saved(one_bit, "PNG"), np.asarray(one_bit.convert("L")))
    yield Case("PNG", "gray, 1 bit, one shade transparent", saved(one_bit, "PNG", transparency=0))
    yield Case("PNG", "palette", saved(palette, "PNG"), np.asarray(palette.convert("RGB")))
    yield Case("PNG", "palette with a transparent colour", saved(palette, "PNG", transparency=0))
    yield Case("PNG", "gray, 8 bits", png(flat[1]), flat[1])
    yield Case("PNG", "gray and alpha, 8 bits", png(flat[2]), flat[2])
    yield Case("PNG", "RGB, 8 bits", png(flat[3]), flat[3])
    yield Case("PNG", "RGB, 8 bits, interlaced", png(flat[3], interlaced=True), flat[3])
    colour = struct.pack(">HHH", *map(int, flat[3][0, 0]))
    yield Case("PNG", "RGB, 8 bits, one colour transparent", png(flat[3], chunk(b"tRNS", colour)))
    yield Case("PNG", "RGBA, 8 bits, all opaque", png(opaque), opaque)
    yield Case("PNG", "RGBA, 8 bits", png(flat[4]), flat[4])
    yield Case("PNG", "gray, 16 bits", png(deep[1]), deep[1])
    colour = struct.pack(">H", int(deep[1][0, 0]))
    yield Case("PNG", "gray, 16 bits, one shade transparent", png(deep[1], chunk(b"tRNS", colour)))
    yield Case("PNG", "gray and alpha, 16 bits", png(deep[2]), deep[2])
    yield Case("PNG", "RGB, 16 bits", png(deep[3]), deep[3])
    yield Case("PNG", "RGB, 16 bits, interlaced", png(deep[3], interlaced=True), deep[3])
    colour = struct.pack(">HHH", *map(int, deep[3][0, 0]))
    yield Case("PNG", "RGB, 16 bits, one colour transparent", png(deep[3], chunk(b"tRNS", colour)))
    yield Case("PNG", "RGBA, 16 bits, all opaque", png(opaque16), opaque16)
    yield Case("PNG", "RGBA, 16 bits", png(deep[4]), deep[4])
    yield Case("PNG", "RGB, EXIF says turned right", saved(rgb, "PNG", exif=turned(6)), np.rot90(flat[3], -1))
    exif16 = png(deep[3], chunk(b"eXIf", turned(6).tobytes()[6:]))
    yield Case("PNG", "RGB, 16 bits, EXIF says turned right", exif16, np.rot90(deep[3], -1))
    yield Case("PNG", "RGB, EXIF damaged", png(flat[3], chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03")), flat[3])
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (1 << 21)))
    yield Case("PNG", "RGB, 2 MiB of text", png(flat[3], text), flat[3])
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(1 << 21)))
    yield Case("PNG", "RGB, a colour profile of 2 MiB", png(flat[3], profile), flat[3])
    frames = saved(rgb, "PNG", save_all=True, append_images=[Image.fromarray(255 - flat[3])])
    yield Case("PNG", "animated, 2 frames", frames)
    yield Case("PNG", "RGB, a byte of its pixels changed", png(flat[3])[:60] + b"?" + png(flat[3])[61:])
    yield Case("JPEG", "gray", saved(flat[1], "JPEG"))
    yield Case("JPEG", "RGB", saved(rgb, "JPEG"))
    yield Case("JPEG", "CMYK", saved(rgb.convert("CMYK"), "JPEG"))
    yield Case("JPEG", "RGB, EXIF says turned right", saved(rgb, "JPEG", exif=turned(6)))
    yield Case("JPEG", "RGB, EXIF damaged", saved(rgb, "JPEG", exif=b"Exif\0\0II\x2a\0\xff\xff\xff\x7f"))
    phone = saved(rgb, "MPO", save_all=True, append_images=[rgb.resize((3, 2))])
    yield Case("JPEG", "a phone's: a second picture behind the photo (MPO)", phone)
    yield Case("TIFF", "gray, 8 bits", saved(flat[1], "TIFF"), flat[1])
    yield Case("TIFF", "RGB, 8 bits, by LZW", saved(rgb, "TIFF", compression="tiff_lzw"), flat[3])
    yield Case("TIFF", "RGB, 8 bits, turned right", saved(rgb, "TIFF", exif=turned(6)), np.rot90(flat[3], -1))
    yield Case("TIFF", "CMYK, 8 bits", saved(rgb.convert("CMYK"), "TIFF"), np.asarray(rgb.convert("CMYK")))
    yield Case("TIFF", "RGBA, 8 bits", saved(flat[4], "TIFF"), flat[4])
    yield Case("TIFF", "gray, 16 bits", tiff(deep[1]), deep[1])
    yield Case("TIFF", "gray, 16 bits, white is 0", tiff(65535 - deep[1], photometric="miniswhite"), deep[1])
    yield Case("TIFF", "gray, 16 bits, by LZW", tiff_lzw(deep[1], predictor=2), deep[1])
    yield Case("TIFF", "RGB, 16 bits", tiff(deep[3], photometric="rgb"), deep[3])
    yield Case(
        "TIFF",
        "RGB, 16 bits, turned right",
        tiff(deep[3], photometric="rgb", extratags=[(274, 3, 1, 6)]),
        np.rot90(deep[3], -1),
    )
    yield Case("TIFF", "RGB, 16 bits, by LZW", tiff_lzw(deep[3]), deep[3])
    yield Case("TIFF", "RGB, 16 bits, by LZW with a predictor", tiff_lzw(deep[3], predictor=2), deep[3])
    yield Case("TIFF", "RGB, 16 bits, big-endian, by LZW", tiff_lzw(deep[3], order=">"), deep[3])
    yield Case("TIFF", "RGBA, 16 bits, by LZW", tiff_lzw(deep[4], extra=2), deep[4])
    yield Case("TIFF", "5 channels, 8 bits", tiff(flat[5], photometric="minisblack", planarconfig="contig"), flat[5])
    yield Case("TIFF", "5 channels, 16 bits", tiff(deep[5], photometric="minisblack", planarconfig="contig"), deep[5])
    yield Case("TIFF", "5 channels, 16 bits, by LZW", tiff_lzw(deep[5], extra=0))
    yield Case("TIFF", "gray, 32-bit floats", tiff(flat[1].astype(np.float32)))
    yield Case("TIFF", "2 pages of 3 channels", tiff(np.stack([flat[3]] * 2), photometric="rgb"))
    for n in (1, 3, 5):
        yield Case("NPY", f"{n} channel{'s' * (n > 1)}, uint8", npy(flat[n]), flat[n])
        yield Case("NPY", f"{n} channel{'s' * (n > 1)}, uint16", npy(deep[n]), deep[n])
    yield Case("NPY", "3 channels, float32", npy(flat[3].astype(np.float32)))
    yield Case("WEBP", "RGB", saved(rgb, "WEBP", lossless=True), flat[3])
    yield Case("WEBP", "RGBA", saved(flat[4], "WEBP", lossless=True, exact=True), flat[4])
    yield Case(
        "WEBP", "RGB, EXIF says turned right", saved(rgb, "WEBP", lossless=True, exif=turned(6)), np.rot90(flat[3], -1)
    )
    yield Case("WEBP", "animated, 2 frames", saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)]))
    yield Case("BMP", "gray, 8 bits", saved(flat[1], "BMP"), flat[1])
    yield Case("BMP", "RGB", saved(rgb, "BMP"), flat[3])
    yield Case("GIF", "palette", saved(palette, "GIF"), np.asarray(palette.convert("RGB")))
    yield Case("GIF", "animated, 2 frames", saved(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]))
    size = f"{WIDTH} {HEIGHT}".encode()
    yield Case("PPM", "gray (PGM), 8 bits", saved(flat[1], "PPM"), flat[1])
    yield Case("PPM", "gray (PGM), 16 bits", b"P5 " + size + b" 65535\n" + deep[1].astype(">u2").tobytes(), deep[1])
    yield Case("PPM", "RGB, 8 bits", saved(rgb, "PPM"), flat[3])
    yield Case(
        "PPM", "RGB, 16 bits", b"P6\n# a note\n" + size + b"\n65535\n" + deep[3].astype(">u2").tobytes(), deep[3]
    )
    words = " ".join(map(str, (deep[3] % 1024).reshape(-1))).encode()
    ten = np.rint(deep[3] % 1024 / 1023 * 65535).astype(np.uint16)
    yield Case("PPM", "RGB, values to 1023, as text", b"P3 " + size + b" 1023\n" + words, ten)
    yield Case("AVIF", "RGB, 8 bits", saved(rgb, "AVIF"))
    yield Case("AVIF", "RGBA, 8 bits", saved(flat[4], "AVIF"))
    data = bytearray(saved(rgb, "AVIF"))
    data[data.find(b"av1C") + 6] |= 0x40
    yield Case("AVIF", "10 or 12 bits", bytes(data))
    yield Case("HEIC", "RGB, 8 bits", base64.b64decode(HEIC))
    yield Case("EPS", "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\nshowpage\n")
    yield Case("JPEG 2000", "RGB", saved(rgb, "JPEG2000"))
    yield Case("JPEG XL", "anything", b"\xff\x0a" + bytes(40))
    yield Case("Photoshop", "anything", b"8BPS" + bytes(40))
    yield Case("none", "a web page", b"<html>not found</html>")


def row(case: Case) -> list[str]:
    """Return a case's line of the table."""
    try:
        decoded = image_reader.decode(case.data)
    except image_reader.ImageError as error:
        return [case.format, case.holds, "refused", str(error)]
    height, width, channels = decoded.pixels.shape
    kind = decoded.bands if decoded.bands != "n" else f"{channels} channels"
    read = f"{kind}, {decoded.pixels.itemsize * 8} bits{', turned upright' if height > width else ''}"
    try:
        image_reader.convert(decoded, colour="rgb", channels=3)
    except image_reader.ImageError as error:
        return [case.format, case.holds, read, f"refused: {error}"]
    return [case.format, case.holds, read, "read"]


def table() -> str:
    """Return the table in Markdown."""
    return harness.table(["format", "a file that holds", "is read as", "for RGB of 8 bits"], map(row, cases()))


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write it into docs/images.md")
    text = table()
    if parser.parse_args().write:
        harness.write("images", "images", f"{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
