"""The one reader of image files: bytes to integer arrays with every bit that they hold, or a refusal with its reason.

Training, ``repix translate``, the served MLflow model and the demo read through it, so that equal files are
equal pixels, or the same refusal, everywhere. The served model carries this file alone: it imports nothing
of repix, and NumPy and Pillow are enough (tifffile for TIFF, pillow-heif for HEIC).

A file's first bytes say what it is, not its name, and only the decoder of that format is asked: no other one
that a library brings along, and no program that it would start, ever sees a file. The pixels are counted
before they are decoded. Pillow reads what it can do without loss. It narrows 16-bit colour to 8 bits, so that
PNG and compressed TIFF are decoded twice, once for the high and once for the low bytes, PPM is read here,
and other TIFF is read by tifffile. ``docs/images.md`` has the table of what is read as what.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Colour = Literal["rgb", "gray", "lab", "raw"]
Source = str | Path | bytes

FULL = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
ORIENTATION = 0x0112  # the EXIF and TIFF tag
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SLACK = 1 << 16  # bytes that a compressed PNG, strip or tile may have beyond twice of what it holds
_ONE_HEADER_AT_A_TIME = threading.Lock()


class ImageError(ValueError):
    """One image that cannot be used; the text is the reason."""


class MissingReaderError(ImageError):
    """The library that reads it is not installed: no fault of the image."""


class UnknownFormatError(ImageError):
    """It is of no format that is read."""


class TooLargeError(ImageError):
    """It has more pixels than the caller takes."""


class Limit(NamedTuple):
    """How many pixels an image may have (each four channels count as one), and what to do where it has more."""

    pixels: int
    mend: str


class Decoded(NamedTuple):
    """What a file holds, before any conversion.

    Attributes:
        pixels: (height, width, channels) ``uint8`` or ``uint16``, upright.
        bands: what the channels are: L, LA, RGB, RGBA, CMYK, or ``n`` for anything else.
    """

    pixels: np.ndarray
    bands: str


class _Request(NamedTuple):
    """What is wanted of an open file: its pixels, or an array of its upright size alone."""

    header_only: bool
    limit: Limit | None

    def check(self, height: int, width: int, channels: int = 1) -> None:
        if height < 1 or width < 1:
            raise ImageError(f"cannot be decoded: {width} x {height} pixels")
        if self.limit is not None:
            check_pixels(height, width, channels, self.limit)


def check_pixels(height: int, width: int, channels: int, limit: Limit) -> None:
    """Refuse an image of more pixels than the limit.

    Raises:
        TooLargeError: it has more.
    """
    pixels = height * width * max(1, -(-channels // 4))
    if pixels > limit.pixels:
        many = f" of {channels} channels" if channels > 4 else ""
        most = f"at most {limit.pixels} are taken"
        raise TooLargeError(f"{width} x {height} = {height * width} pixels{many}; {most}; {limit.mend}")


def _upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """Undo an EXIF orientation (1 to 8; anything else is taken as upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _orientation(image: Image.Image) -> Any:
    """Return the orientation that a file's metadata name; upright where they are damaged."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises SyntaxError, struct.error, KeyError, ValueError ...
        return 1


def from_array(array: np.ndarray) -> Decoded:
    """Take an array (height, width) or (height, width, channels) as an image.

    Raises:
        ImageError: another number of dimensions, or numbers that are not uint8 or uint16.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape}; expected (height, width, channels)")
    if array.dtype.newbyteorder("=") not in FULL:
        raise ImageError(f"{array.dtype} numbers; expected uint8 or uint16")
    bands = {1: "L", 3: "RGB"}.get(array.shape[2], "n")
    return Decoded(array.astype(array.dtype.newbyteorder("="), copy=False), bands)


def _blank(height: int, width: int, orientation: Any = 1, *, dtype: Any = np.uint8, channels: int = 1) -> Decoded:
    """Return an upright size as an image that takes no memory."""
    return Decoded(_upright(np.broadcast_to(np.zeros((), dtype), (height, width, channels)), orientation), "n")


# Pillow


def _open(stream: BinaryIO, kind: str) -> Image.Image:
    """Open a file of a format with Pillow; its metadata are read, its pixels are not."""
    from PIL import Image, JpegImagePlugin

    Image.MAX_IMAGE_PIXELS = None  # `limits.pixels` counts; this would warn, and refuse, at another number
    if kind == "JPEG":
        # Not by Image.open: phones store a preview or a gain map behind the photo, which it would take for frames.
        return JpegImagePlugin.JpegImageFile(stream)
    return Image.open(stream, formats=(kind,))


def _decode_pillow(stream: BinaryIO, kind: str, request: _Request) -> Decoded:
    with _open(stream, kind) as image:
        request.check(image.height, image.width)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ImageError(f"holds {frames} frames; expected one image")
        if kind == "BMP":
            _check_bmp(stream, image)
        # Pillow gives the rest of the screen some colour.
        if kind == "GIF" and image.tile and image.tile[0][1] != (0, 0, image.width, image.height):
            raise ImageError("cannot be decoded: a GIF whose picture is smaller than its screen")
        if request.header_only:
            return _blank(image.height, image.width, _orientation(image))
        if kind != "JPEG":
            return from_pillow(image)
        scans = _find_scans(stream)
        stream.seek(0)
        decoded = from_pillow(image)
        _check_whole(stream, scans, image)
        return decoded


def _check_bmp(stream: BinaryIO, image: Image.Image) -> None:
    """Refuse what Pillow reads otherwise than it is meant, or a byte at a time.

    Raises:
        ImageError: runs of pixels, or two colours by more than a bit a pixel.
    """
    if image.info.get("compression") in (1, 2):
        raise ImageError("a BMP of runs (RLE), which is not read; save it as PNG")
    place = stream.tell()
    stream.seek(14)
    header = int.from_bytes(stream.read(4), "little")
    stream.seek(24 if header == 12 else 28)
    bits = int.from_bytes(stream.read(2), "little")
    stream.seek(place)
    if image.mode == "1" and bits != 1:
        raise ImageError(f"a BMP of {bits} bits a pixel for two colours, which is not read; save it as PNG")


# JPEG (ITU-T T.81): libjpeg fills up what a file lacks with gray, and only warns of it.

_SCANS = 100  # of a JPEG: a progressive one has about ten
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that tell size and components
# Among the numbers of a scan, 0 stands behind each 255. From the first 255 of a run alone: else a long one takes hours.
_MARKER = re.compile(rb"(?<!\xff)\xff+([^\x00\xd0-\xd7\xff])")
_SMALL = 1 << 20  # pixels that are compared one by one
# Behind a whole scan it changes nothing; else it is read on, after the next restart marker where there are such.
_FILLER = b"".join(b"\x55\xaa\x33" * 32 + bytes([0xFF, 0xD0 + number % 8]) for number in range(16))


class _Scans(NamedTuple):
    """What a JPEG's markers tell: up to the end of its image, and not of what phones store behind it."""

    progressive: bool
    components: bytes
    headers: list[bytes]  # of each scan: its components, and which of their coefficients it has
    ends: list[int]  # where the numbers of each scan end


def _find_scans(stream: BinaryIO) -> _Scans:
    """Walk a JPEG's markers.

    Raises:
        ImageError: it has more scans than any program writes: each costs a pass over the pixels, and few bytes.
    """
    progressive, components, headers, ends = False, b"", [], []
    stream.seek(place := 0)
    data, scanning = b"", False
    while True:
        if (found := _MARKER.search(data)) is None:
            keep = data[-1:] if data.endswith(b"\xff") else b""
            more = stream.read(1 << 16)
            if not more:
                break
            place, data = place + len(data) - len(keep), keep + more
            continue
        if scanning:
            ends.append(place + found.start())
            scanning = False
        marker, place = found[1][0], place + found.end()
        if marker == 0xD9:
            break
        data = data[found.end() :]
        if marker in (0x01, 0xD8):  # without a length
            continue
        data += stream.read(max(0, 2 - len(data)))
        length = max(2, int.from_bytes(data[:2], "big"))
        data += stream.read(max(0, length - len(data)))
        part, data, place = data[2:length], data[length:], place + length
        if marker in _FRAMES:
            progressive, components = marker & 3 == 2, part[6::3]
        elif marker == 0xDA:
            headers.append(part)
            scanning = True
            if len(headers) > _SCANS:
                raise ImageError(f"cannot be decoded: a JPEG of more than {_SCANS} scans")
    return _Scans(progressive, components, headers, ends)


def _lacks_scans(scans: _Scans) -> bool:
    """Return whether a component has no scan, or coefficients that were never refined to their last bit."""
    left: dict[tuple[int, int], int] = {}
    for header in scans.headers:
        if len(header) < 4 or len(header) < 4 + 2 * header[0]:
            return True
        first, last, bits = header[1 + 2 * header[0] :][:3]
        for component in header[1 : 1 + 2 * header[0] : 2]:
            coefficients = range(first, min(last, 63) + 1) if scans.progressive else (0,)
            left |= {(component, one): bits & 15 if scans.progressive else 0 for one in coefficients}
    return any(left.values()) or any((component, 0) not in left for component in scans.components)


def _check_whole(stream: BinaryIO, scans: _Scans, image: Image.Image) -> None:
    """Refuse a JPEG whose numbers end before its pixels do, and which was closed as if it were whole.

    Raises:
        ImageError: it is one.
    """
    cut = ImageError("cannot be decoded: truncated, though it ends as a whole JPEG does")
    if _lacks_scans(scans):
        raise cut
    width, height = image.size
    rough = not scans.progressive and width * height > _SMALL  # what is missing of a progressive file is sharpness
    side = max(1, min(4, (width - 1) % 8, (height - 1) % 8))  # within the last block
    corner = np.asarray(image.crop((max(0, width - side), max(0, height - side), width, height)))
    if rough and (corner != corner[:1, :1]).any():  # what is filled up is gray to the last block
        return
    filled, place = bytearray(), 0
    stream.seek(0)
    for end in scans.ends:
        filled += stream.read(end - place) + _FILLER
        place = end
    with _open(io.BytesIO(bytes(filled) + b"\xff\xd9"), "JPEG") as other:
        if rough:
            other.draft(None, (1, 1))  # a pixel a block will do
            stream.seek(0)
            image = _open(stream, "JPEG")
            image.draft(None, (1, 1))
        if image.tobytes() != other.tobytes():
            raise cut


def from_pillow(image: Image.Image) -> Decoded:
    """Take a Pillow image of any mode as a file is taken: upright, palettes and 1-bit expanded.

    Raises:
        ImageError: a mode of other than 8 or 16 bits.
    """
    orientation = _orientation(image)
    image.load()
    pixels, bands = _pillow_pixels(image)
    return Decoded(_upright(pixels, orientation), bands)


def _pillow_pixels(image: Image.Image) -> tuple[np.ndarray, str]:
    """Return the pixels and bands of a loaded Pillow image of any mode."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # 16-bit PGM opens as "I"
        return np.asarray(image).astype(np.uint16)[..., None], "L"
    if mode in ("P", "PA"):
        mode = "RGBA" if mode == "PA" or "transparency" in image.info else "RGB"
    elif "transparency" in image.info and mode in ("1", "L", "RGB"):  # PNG's one transparent colour
        mode = "RGBA" if mode == "RGB" else "LA"
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}.get(mode, mode)
    if mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise ImageError(f"Pillow mode {mode}; expected 8 or 16 bits per channel: gray, RGB, or a palette")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return (pixels[..., None] if pixels.ndim == 2 else pixels), mode


def _halves(reopen: Callable[[], Image.Image], mode: str, order: Literal["little", "big"]) -> np.ndarray:
    """Return 16-bit RGB or RGBA, (height, width, 3 or 4), of what Pillow would narrow to 8 bits.

    Its raw modes ``;16B`` and ``;16L`` keep the first and the second byte of each number.
    """
    first, second = (_raw(reopen, f"{mode};16{end}").astype(np.uint16) for end in "BL")
    return (first << 8) | second if order == "big" else (second << 8) | first


def _raw(reopen: Callable[[], Image.Image], raw: str, mode: str | None = None) -> np.ndarray:
    """Return the pixels of a file whose raw bytes are taken as ``raw``."""
    with reopen() as image:
        if mode is not None:
            image._mode = mode
        rest = [(tile.args[1:] if isinstance(tile.args, tuple) else None) for tile in image.tile]
        image.tile = [
            tile._replace(args=raw if more is None else (raw, *more))
            for tile, more in zip(image.tile, rest, strict=True)
        ]
        image.load()
        return np.asarray(image)


# PNG: what decides pixels goes to Pillow, and nothing else of the file.


def _decode_png(stream: BinaryIO, request: _Request) -> Decoded:
    head, told, pixels, frames = _png_chunks(stream, request)
    height, width = struct.unpack(">II", head[8:16])[::-1]
    depth, colour, interlaced = head[16], head[17], head[20]
    if frames > 1:
        raise ImageError(f"holds {frames} frames; expected one image")
    parts = {one[4:8]: one[8:-4] for one in pixels if one[4:8] in (b"PLTE", b"tRNS")}
    palette = len(parts.get(b"PLTE", b"")) // 3
    if colour == 3 and not palette:
        raise ImageError("cannot be decoded: a PNG of indices without its palette")
    clear = None  # the one shade or colour that is transparent
    if colour in (0, 2) and b"tRNS" in parts:
        if len(parts[b"tRNS"]) != (2 if colour == 0 else 6):
            raise ImageError("cannot be decoded: a PNG whose tRNS is no shade or colour of it")
        clear = np.frombuffer(parts[b"tRNS"], ">u2") & ((1 << depth) - 1)
    end = _chunk(b"IEND", b"")
    orientation = 1
    if told:
        try:
            from PIL import Image

            about = _open(io.BytesIO(PNG_SIGNATURE + head + b"".join(told) + _chunk(b"IDAT", b"") + end), "PNG")
            orientation = Image.Image.getexif(about).get(ORIENTATION, 1)  # its own would decode the pixels first
        except Exception:  # damaged metadata; the pixels are none the worse
            orientation = 1
    if request.header_only:
        return _blank(height, width, orientation)
    clean = PNG_SIGNATURE + head + b"".join(pixels) + end

    def reopen() -> Image.Image:
        return _open(io.BytesIO(clean), "PNG")

    with reopen() as image:
        if colour in (0, 2):
            image.info.pop("transparency", None)
        if depth < 16 or colour == 0:
            image.load()
            if colour == 3 and palette < 1 << depth and image.getextrema()[1] >= palette:
                raise ImageError(f"cannot be decoded: an index of {image.getextrema()[1]} in a palette of {palette}")
            empty = not any(image.crop((0, height - 1, width, height)).tobytes())
            found, bands = _pillow_pixels(image)
    if depth < 16 and clear is not None:
        clear = clear * (255 // ((1 << min(depth, 8)) - 1))
    if depth == 16 and colour != 0:
        if colour == 4:  # gray and alpha: four bytes a pixel
            four = _raw(reopen, "RGBA", "RGBA").astype(np.uint16)
            found = (four[..., 0::2] << 8) | four[..., 1::2]
        else:
            found = _halves(reopen, "RGBA" if colour == 6 else "RGB", "big")
        empty, bands = not found[-1].any(), {2: "LA", 3: "RGB", 4: "RGBA"}[found.shape[2]]
    # Pillow fills up what a stream of pixels lacks with zeros, and says nothing.
    if (empty or interlaced) and not _holds(pixels, _png_bytes(height, width, depth, colour, interlaced)):
        raise ImageError("cannot be decoded: truncated, its last rows are missing")
    if clear is not None:
        opaque = (found != clear.astype(found.dtype)).any(axis=2, keepdims=True)
        found = np.concatenate([found, opaque * found.dtype.type(FULL[found.dtype])], axis=2)
        bands += "A"
    return Decoded(_upright(found, orientation), bands)


def _png_bytes(height: int, width: int, depth: int, colour: int, interlaced: int) -> int:
    """Return how many bytes the pixels of a PNG are, each row with its filter's byte."""
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = [(height, width)]
    if interlaced:
        steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [(-(-(height - top) // down), -(-(width - left) // right)) for top, left, down, right in steps]
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in passes if rows > 0 and columns > 0)


def _holds(chunks: list[bytes], most: int) -> bool:
    """Return whether a PNG's chunks of pixels decompress to so many bytes at least."""
    decompressor, found = zlib.decompressobj(), 0
    for data in (one[8:-4] for one in chunks if one[4:8] == b"IDAT"):
        while data and found < most and not decompressor.eof:
            found += len(decompressor.decompress(data, 1 << 20))
            data = decompressor.unconsumed_tail
    return found >= most


_ABOUT = 1 << 20  # bytes of metadata that are looked into for an orientation


def _png_chunks(stream: BinaryIO, request: _Request) -> tuple[bytes, list[bytes], list[bytes], int]:
    """Return a PNG's header chunk, those that may tell its orientation, those of its pixels, and its frames."""
    stream.seek(len(PNG_SIGNATURE))
    head, told, pixels, frames = b"", [], [], 1
    most, about, seen = 0, _ABOUT, set()
    while len(start := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if not head and (kind != b"IHDR" or length != 13):
            raise ImageError("cannot be decoded: a PNG without its header")
        wanted = kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL")
        if wanted and kind != b"IDAT" and (kind in seen or b"IDAT" in seen or length > 768):
            raise ImageError(f"cannot be decoded: a PNG whose {kind.decode()} is a second one, too long or too late")
        seen.add(kind)
        wanted = wanted and not (request.header_only and kind == b"IDAT")
        if not wanted and not (kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") and length <= about):
            if kind == b"IEND":
                break
            stream.seek(length + 4, 1)
            continue
        if kind == b"IDAT":
            most -= length
            if most < 0:
                raise ImageError("cannot be decoded: a PNG with far more bytes than its pixels can need")
        data, crc = stream.read(length), stream.read(4)
        if len(crc) < 4 and wanted:
            raise ImageError(f"cannot be decoded: truncated in its {kind.decode()}")
        if zlib.crc32(kind + data) != int.from_bytes(crc, "big"):
            if wanted:
                raise ImageError(f"cannot be decoded: damaged, the checksum of its {kind.decode()} does not fit")
            continue
        chunk = start + data + crc
        if kind == b"IHDR":
            head = chunk
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
            request.check(height, width)
            most = 2 * _png_bytes(height, width, depth, colour, interlaced) + _SLACK
        elif kind == b"acTL":
            frames = int.from_bytes(data[:4], "big")
        elif wanted and length:
            pixels.append(chunk)
        elif wanted:
            continue
        elif kind == b"eXIf" or data.startswith((b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")):
            told.append(chunk)
            about -= length
    if len(head) != 25:
        raise ImageError("cannot be decoded: a PNG that is truncated in its header")
    if b"IDAT" not in seen:
        raise ImageError("cannot be decoded: a PNG that is truncated before its pixels")
    return head, told, pixels, frames


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# PBM, PGM and PPM


def _decode_ppm(stream: BinaryIO, request: _Request) -> Decoded:
    head = stream.read(_SLACK)
    kind = head[1] - ord("0")  # 1 to 3 are text, 4 to 6 bytes; of bits, gray, RGB
    bits = kind in (1, 4)
    gap = rb"(?:\s|#[^\n\r]*[\n\r])"
    match = re.match(rb"P\d" + (gap + rb"+(\d{1,10})") * (2 if bits else 3) + gap, head)
    if not match:
        raise ImageError("cannot be decoded: a PPM without its width, height and highest value")
    width, height, most = (int(one) for one in (*match.groups(), b"1")[:3])
    if not 0 < most < 65536 or not width or not height:
        raise ImageError(f"cannot be decoded: a PPM of {width} x {height} pixels and values up to {most}")
    request.check(height, width)
    if request.header_only:
        return _blank(height, width)
    stream.seek(match.end())
    channels = 3 if kind in (3, 6) else 1
    shape = (height, -(-width // 8) if kind == 4 else width, channels)
    values = _ppm_text(stream, int(np.prod(shape)), bits) if kind < 4 else _ppm_bytes(stream, shape, most)
    values = values.reshape(shape)
    if bits:  # 1 is black
        values = np.unpackbits(values, axis=1)[:, :width] if kind == 4 else values
        return Decoded((1 - values).astype(np.uint8) * np.uint8(255), "L")
    full = 255 if most < 256 else 65535
    if most != np.iinfo(values.dtype).max and (values.min() < 0 or values.max() > most):
        raise ImageError(f"cannot be decoded: values from {values.min()} to {values.max()}, where 0 to {most} can be")
    if most != full:
        values = np.rint(values / most * full)
    return Decoded(values.astype(np.uint8 if full == 255 else np.uint16, copy=False), "RGB" if channels == 3 else "L")


_SECOND = re.compile(rb"\s*P[1-7][\s#]")


def _ppm_bytes(stream: BinaryIO, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Return the numbers of a PPM of bytes: ``uint8``, or ``uint16`` where the highest value is above 255."""
    dtype = np.dtype(">u2" if most > 255 else np.uint8)
    length = int(np.prod(shape)) * dtype.itemsize
    data = stream.read(length)
    if len(data) < length:
        raise ImageError("cannot be decoded: the file is truncated")
    if _SECOND.match(stream.read(64)):
        raise ImageError("holds more than one image; expected one")
    return np.frombuffer(data, dtype)


def _ppm_text(stream: BinaryIO, many: int, bits: bool) -> np.ndarray:
    """Return so many numbers of a PPM of text; those of bits need no space between them."""
    most = 16 * many + (1 << 20)
    text = stream.read(most + 1)
    if len(text) > most:
        raise ImageError(f"cannot be decoded: a PPM of more than {most} bytes of text for {many} numbers")
    text = re.sub(rb"#[^\n\r]*", b"", text)
    if re.search(rb"\sP[1-7][\s#]", text):
        raise ImageError("holds more than one image; expected one")
    if bits:
        values = np.frombuffer(text.translate(None, b" \t\n\r\x0b\x0c"), np.uint8) - ord("0")
        odd = values.size and values.max() > 1
    else:
        odd = re.search(rb"[^0-9\s-]|-(?!\d)", text)
        values = np.fromstring(text, np.int64, sep=" ") if text.strip() and not odd else np.zeros(0, np.int64)
    if odd:
        raise ImageError("cannot be decoded: a PPM of text that is no number")
    if values.size != many:
        raise ImageError(
            "cannot be decoded: the file is truncated"
            if values.size < many
            else f"cannot be decoded: a PPM of {values.size} numbers, where its size says {many}"
        )
    return values


# TIFF


def _decode_tiff(stream: BinaryIO, request: _Request) -> Decoded:
    try:
        import tifffile
    except ImportError:
        raise MissingReaderError("a TIFF needs tifffile: pip install tifffile") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it prints what it raises, too

    # Its metadata may name other files, those of OME, Micro-Manager and NDTiff; none is ever opened.
    # And what OME's say of the number of pages is taken at its word before any is looked for.
    alone = {"_multifile": False, "is_ome": False, "is_mmstack": False, "is_ndtiff": False}
    with tifffile.TiffFile(stream, name="image.tif", **alone) as file:
        page = file.pages[0]
        request.check(page.imagelength, page.imagewidth, page.samplesperpixel)
        if page.is_ome and _other_files(page.description):
            raise ImageError("an OME-TIFF in several files; save it as one file")
        if page.is_ome and (many := _images(page.description)) > 1:
            raise ImageError(f"holds {many} images (OME); expected one")
        if page.is_ome and _planes(page.description) > len(file.pages) * page.samplesperpixel:
            raise ImageError("cannot be decoded: its metadata name pages that it does not hold")
        series = file.series[0]
        for one in series:
            if one is None:
                raise ImageError("cannot be decoded: its metadata name pages that it does not hold")
            _check_segments(one)
        if page.sampleformat == 2 and page.bitspersample <= 8:
            raise ImageError(f"signed {page.bitspersample}-bit numbers; expected uint8 or uint16")
        orientation = page.tags.valueof(ORIENTATION, 1)
        if _pillow_reads(file, series, page):
            request.check(page.imagelength, page.imagewidth)
            if request.header_only:
                return _blank(page.imagelength, page.imagewidth, orientation)
            stream.seek(0)
            with _open(stream, "TIFF") as image:  # which knows more of colour, and turns it upright by itself
                image.info.pop("xmp", None)  # by its tag: other metadata may say otherwise
                image.load()
                if page.extrasamples == (1,) and image.getextrema()[-1] != (255, 255):
                    raise ImageError(
                        f"a TIFF of colours multiplied by their alpha by {page.compression.name}, which is not read; "
                        f"save it by Deflate or without compression"
                    )
                return Decoded(*_pillow_pixels(image))
        axes = series.axes
        if page.photometric > 2:  # 0 and 1 are gray, 2 is RGB
            raise ImageError(f"a {page.bitspersample}-bit TIFF in {page.photometric.name}; expected gray or RGB")
        if len(file.series) > 1 or not {"Y", "X"} <= set(axes) or series.ndim > 3:
            raise ImageError(f"holds {len(file.pages)} pages ({axes} {series.shape}); expected one image")
        # The axis that is neither height nor width is the channels, whether samples or pages.
        order = [axes.index("Y"), axes.index("X"), *(i for i, axis in enumerate(axes) if axis not in "YX")]
        blank = from_array(np.broadcast_to(np.zeros((), series.dtype), series.shape).transpose(order))
        request.check(*blank.pixels.shape)
        if page.bitspersample not in (8, 16):
            raise ImageError(f"has {page.bitspersample} bits per channel; expected 8 or 16")
        if request.header_only:
            return Decoded(_upright(blank.pixels, orientation), "n")
        channels = blank.pixels.shape[2]
        if _can_decompress(page):
            for one in {id(one.keyframe): one.keyframe for one in series}.values():
                _bound(one)
            decoded = from_array(series.asarray().transpose(order))
        elif len(file.pages) == 1 and blank.pixels.dtype == np.uint16 and (channels, page.planarconfig) in _BY_LIBTIFF:
            decoded, orientation = _decode_libtiff(stream, channels), 1  # Pillow turned it upright
        else:
            raise ImageError(
                f"a TIFF of {channels} channels of {page.bitspersample} bits by {page.compression.name}, "
                f"which is not read; save it by Deflate or without compression"
            )
        if page.photometric == 0:  # white is zero; other samples beside the gray are what they are
            pixels = decoded.pixels.copy()
            gray = pixels[..., : channels - len(page.extrasamples)]
            np.subtract(FULL[pixels.dtype], gray, out=gray)
            decoded = decoded._replace(pixels=pixels)
        alpha = {2: "LA", 4: "RGBA"}.get(channels)
        # Extra samples 1 and 2 are alpha by the TIFF standard, 0 is unspecified: plain channels.
        # Three gray pages are no colours; three channels of one page are, where a program calls them gray.
        stacked = channels == 3 and page.photometric != 2 and page.samplesperpixel == 1
        plain = "n" if stacked else blank.bands
        bands = alpha if alpha and page.extrasamples and page.extrasamples[0] in (1, 2) else plain
        return Decoded(_upright(decoded.pixels, orientation), bands)


_BY_LIBTIFF = {(1, 1), (3, 1), (4, 1)}  # channels, and 1 for channels within a pixel


def _pillow_reads(file: Any, series: Any, page: Any) -> bool:
    """Return whether a file is one image of at most 8 bits that Pillow reads as it is meant.

    Raises:
        ImageError: it has a palette of 16 bits, of which Pillow would keep 8.
    """
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    if page.photometric == 3 and page.colormap is not None:
        low, high = page.colormap & 255, page.colormap >> 8
        if ((low != 0) & (low != high) & (low != 255)).any():  # three ways to write 8 bits
            raise ImageError("a TIFF whose palette has 16 bits per channel; expected 8: save it as RGB")
    # Samples one behind the other: Pillow loses the second of two, and the order of bits where nothing is compressed.
    apart = page.planarconfig == 2 and (
        page.samplesperpixel == 2 or (page.fillorder == 2 and int(page.compression) == 1)
    )
    alone = len(file.pages) == 1 and series.size == page.size  # a page may stand for a stack of them
    # Pillow divides colours by their alpha, which changes none where that is full.
    alpha = page.extrasamples in ((), (2,)) or (
        page.extrasamples == (1,)
        and page.photometric == 2
        and page.compression in COMPRESSION_INFO
        and not _can_decompress(page)
    )
    return alone and not apart and page.bitspersample <= 8 and alpha


def _images(metadata: str) -> int:
    """Return how many images OME's metadata name: each of depths, channels or times is one where there are two of them.

    One of the three alone may be the channels.
    """
    many, sizes = _pixels(metadata)
    return max(many, math.prod(sizes) if sum(size > 1 for size in sizes) > 1 else 1)


def _planes(metadata: str) -> int:
    """Return how many planes OME's metadata name."""
    named = re.findall(r"\bPlaneCount\s*=\s*[\"'](\d{1,20})", metadata)
    return max(math.prod(_pixels(metadata)[1]), *map(int, named), 0)


def _pixels(metadata: str) -> tuple[int, list[int]]:
    """Return how many images OME's metadata list, and depths, channels and times of the first."""
    images = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", metadata)
    sizes = re.findall(r"\bSize[ZCT]\s*=\s*[\"'](\d{1,20})", " ".join(images[:1]))
    return len(images), [int(size) for size in sizes]


def _other_files(metadata: str) -> bool:
    """Return whether OME's metadata place the image in several files, or in another one."""
    own = re.search(r"<(?:\w+:)?OME\b[^>]*\bUUID\s*=\s*[\"']([^\"']*)", metadata)
    named = {one.strip() for one in re.findall(r"<(?:\w+:)?UUID\b[^>]*>([^<]*)<", metadata)}
    return len(named | ({own[1].strip()} if own and named else set())) > 1


def _segment(page: Any) -> tuple[int, int, int]:
    """Return the rows and columns of a page's strips or tiles (those of all its depths), and the bytes of a row."""
    rows, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    return rows * (page.tiledepth if page.is_tiled else 1), width, -(-width * samples * page.bitspersample // 8)


def _check_segments(page: Any) -> None:
    """Refuse a page whose strips or tiles cannot be those of its size: too few, too short or far too large.

    Raises:
        ImageError: the reason.
    """
    first = page.keyframe
    rows, width, row = _segment(first)
    if first.is_tiled and rows * width > 4 * first.imagelength * first.imagewidth + _TILE:
        size = f"{first.imagewidth} x {first.imagelength}"
        raise ImageError(f"cannot be decoded: a TIFF of {size} pixels in tiles of {width} x {rows}")
    many = math.prod(first.chunked)
    what = "tiles" if first.is_tiled else "strips"
    counts = page.databytecounts if first.is_tiled or 279 in first.tags else ()
    if len(page.dataoffsets) < many or (counts and len(counts) < many):
        found = min(len(page.dataoffsets), len(counts) or many)
        raise ImageError(f"cannot be decoded: a TIFF of {many} {what} that lists {found}")
    if not counts or first.photometric == 6:  # Y, Cb and Cr may have fewer pixels, or be a JPEG
        return
    counts, whole = counts[:many], rows * row
    if first.compression != 1:
        short = sum(1 for count in counts if count == 0)
        if max(counts) > 8 * whole + _SLACK:  # noise by a fax machine's code comes near
            most = f"{max(counts)} bytes of a {what[:-1]}, which holds {whole}"
            raise ImageError(f"cannot be decoded: {most} when decompressed")
    elif first.is_tiled:
        short = sum(1 for count in counts if count < whole)
    else:  # the last strip of each plane may be shorter
        each = -(-first.imagelength // rows)
        last = (first.imagelength - (each - 1) * rows) * row
        short = sum(1 for i, count in enumerate(counts, 1) if count < (last if i % each == 0 else whole))
    if short:
        raise ImageError(f"cannot be decoded: {short} of {many} {what} are truncated")


_TILE = 1 << 22  # pixels of a tile that any image may have: of 2048 x 2048


def _can_decompress(page: Any) -> bool:
    """Return whether a page is decoded here: not by the codecs of another library that may be installed."""
    import tifffile

    return page.compression in _INFLATE and page.predictor in (1, 2) and page.predictor in tifffile.TIFF.UNPREDICTORS


def _bound(page: Any) -> None:
    """Let tifffile decode a page whose strips or tiles are decompressed here, to no more than their size."""
    compression, reverse = page.compression, page.fillorder == 2
    if compression == 1:
        return
    rows, _, row = _segment(page)
    page.compression, page.fillorder = 1, 1
    plain = page.decode  # of bytes that are decompressed already
    page.compression, page.fillorder = compression, 2 if reverse else 1

    def decode(data: bytes | None, index: int, /, **more: Any) -> Any:
        if data is not None:
            data = data.translate(_REVERSED) if reverse else data
            data = bytearray(_INFLATE[int(compression)](data, rows * row))
        return plain(data, index, **more)

    page.decode = decode


_REVERSED = bytes(int(f"{one:08b}"[::-1], 2) for one in range(256))


def _inflate(data: bytes, most: int) -> bytes:
    decompressor = zlib.decompressobj()
    found = decompressor.decompress(data, most)
    # A byte more, or the checksum behind the last one.
    if not decompressor.eof and not decompressor.decompress(decompressor.unconsumed_tail, 1) and not decompressor.eof:
        raise ImageError("cannot be decoded: the file is truncated")
    return found


def _unpack_lzma(data: bytes, most: int) -> bytes:
    import lzma

    return lzma.LZMADecompressor(memlimit=1 << 28).decompress(data, most)


def _unpack_bits(data: bytes, most: int) -> bytes:
    found, place = bytearray(), 0
    while place < len(data) and len(found) < most:
        count, place = data[place], place + 1
        if count < 128:
            found += data[place : place + count + 1]
            place += count + 1
        elif count > 128:
            found += data[place : place + 1] * (257 - count)
            place += 1
    return bytes(found[:most])


# By the number of a TIFF's compression: what it holds, up to so many bytes.
_INFLATE: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda data, most: data[:most],
    8: _inflate,
    32946: _inflate,
    32773: _unpack_bits,
    34925: _unpack_lzma,
}


def _decode_libtiff(stream: BinaryIO, channels: int) -> Decoded:
    """Read 16 bits of gray, RGB or RGBA by the libtiff within Pillow, whatever the compression."""

    def reopen() -> Image.Image:
        stream.seek(0)
        image = _open(stream, "TIFF")
        image.info.pop("xmp", None)  # turned by its tag: other metadata may say otherwise
        return image

    if channels == 1:
        with reopen() as image:
            image.load()
            return Decoded(np.asarray(image).astype(np.uint16)[..., None], "L")
    # libtiff gives numbers in the order of this machine.
    return from_array(_halves(reopen, "RGB" if channels == 3 else "RGBA", sys.byteorder))


# NumPy, AVIF and HEIC


def _decode_npy(stream: BinaryIO, request: _Request) -> Decoded:
    # A header is a Python literal, and Python's parser (3.11 at least) counts the nesting of all threads together
    # (python/cpython#106905): without the lock a sound file is refused once in a while.
    with _ONE_HEADER_AT_A_TIME:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ImageError(f"cannot be decoded: a .npy of version {version}; expected 1.0 or 2.0")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        blank = np.broadcast_to(np.zeros((), dtype if not dtype.hasobject else np.uint8), shape)
        if not dtype.hasobject:
            blank = from_array(blank).pixels
            request.check(*blank.shape)
            if request.header_only:
                return Decoded(blank, "n")
        place, whole = stream.tell(), math.prod(shape) * dtype.itemsize
        there = stream.seek(0, 2) - place
        if there != whole and not dtype.hasobject:
            what = "truncated" if there < whole else "bytes behind the array that its header does not count"
            raise ImageError(f"cannot be decoded: {what}")
        stream.seek(0)
        return from_array(np.load(stream, allow_pickle=False))


def _decode_avif(stream: BinaryIO, request: _Request) -> Decoded:
    from PIL import features

    if not features.check("avif"):
        raise MissingReaderError(
            "an AVIF image needs Pillow 11.3 or later, with its AVIF decoder: pip install -U pillow"
        )
    data = stream.read()
    stream.seek(0)
    for found in re.finditer(rb"av1C..(.)", data, re.DOTALL):  # the codec's configuration, wherever it stands
        if found[1][0] & 0x40:  # high_bitdepth
            raise ImageError("an AVIF of 10 or 12 bits per channel; expected 8: save it as a 16-bit PNG or TIFF")
    return _decode_pillow(stream, "AVIF", request)


def _decode_heif(stream: BinaryIO, request: _Request) -> Decoded:
    try:
        import pillow_heif
    except ImportError:
        mend = "pip install 'repix[heif]', or pip install pillow-heif"
        raise MissingReaderError(f"a HEIC image needs pillow-heif: {mend}") from None

    # The library turns it upright by itself, as its container says. Further images (bursts, depth) are left.
    image = pillow_heif.open_heif(io.BytesIO(stream.read()), convert_hdr_to_8bit=False)
    width, height = image.size
    request.check(height, width)
    bits = image.info.get("bit_depth", 8)
    if bits != 8:
        raise ImageError(f"a HEIC of {bits} bits per channel; expected 8: save it as a 16-bit PNG or TIFF")
    if request.header_only:
        return _blank(height, width)
    pixels, bands = _pillow_pixels(image.to_pillow())
    return Decoded(pixels, bands)


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        name: as Pillow has it, where Pillow reads it.
        suffixes: of its files, in folders.
        decode: takes an open file and what is wanted of it.
    """

    name: str
    suffixes: tuple[str, ...]
    decode: Callable[[BinaryIO, _Request], Decoded]


def _by_pillow(name: str) -> Callable[[BinaryIO, _Request], Decoded]:
    return lambda stream, request: _decode_pillow(stream, name, request)


FORMATS = {
    one.name: one
    for one in (
        Format("PNG", (".png",), _decode_png),
        Format("JPEG", (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"), _by_pillow("JPEG")),
        Format("TIFF", (".tif", ".tiff"), _decode_tiff),
        Format("NPY", (".npy",), _decode_npy),
        Format("WEBP", (".webp",), _by_pillow("WEBP")),
        Format("BMP", (".bmp",), _by_pillow("BMP")),
        Format("GIF", (".gif",), _by_pillow("GIF")),
        Format("PPM", (".pbm", ".pgm", ".pnm", ".ppm"), _decode_ppm),
        Format("AVIF", (".avif",), _decode_avif),
        Format("HEIC", (".heic", ".heif", ".hif"), _decode_heif),
    )
}
SUFFIXES = tuple(sorted(suffix for one in FORMATS.values() for suffix in one.suffixes))
# fmt: off
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw",
    ".rw2", ".sr2", ".srw", ".x3f",
)
# Files that are images, and are refused by name where an image is looked for.
UNREAD_SUFFIXES = (
    *RAW_SUFFIXES,
    ".bpg", ".dds", ".dib", ".emf", ".eps", ".exr", ".fits", ".hdr", ".icns", ".ico", ".j2c", ".j2k", ".jng", ".jp2",
    ".jpf", ".jpx", ".jxl", ".jxr", ".pam", ".pcx", ".pfm", ".ps", ".psb", ".psd", ".qoi", ".sgi", ".svg", ".svgz",
    ".tga", ".wdp", ".wmf", ".xcf",
)
# fmt: on
IMAGE_SUFFIXES = (*SUFFIXES, *UNREAD_SUFFIXES)

# How files of other formats begin, for the refusal.
_OTHER_STARTS = {
    b"%!PS": "PostScript (EPS)",
    b"\xc5\xd0\xd3\xc6": "PostScript (EPS)",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"\x00\x00\x01\x00": "ICO",
    b"<svg": "SVG",
    b"qoif": "QOI",
    b"P7\n": "PAM",
    b"PF\n": "PFM",
    b"Pf\n": "PFM",
}


def _format(head: bytes, name: str) -> Format:
    """Return the format that a file's first bytes say.

    Raises:
        UnknownFormatError: none that is read.
    """
    suffix = Path(name).suffix.lower()
    if suffix in RAW_SUFFIXES:  # most look like a TIFF, and hold a small preview as its first page
        raise UnknownFormatError(f"a camera's raw file ({suffix}), which is not read; develop it to TIFF or PNG")
    brands = head[8 : max(8, int.from_bytes(head[:4], "big"))] if head[4:8] == b"ftyp" else b""
    found = [
        ("PNG", head.startswith(PNG_SIGNATURE)),
        ("JPEG", head.startswith(b"\xff\xd8\xff")),
        ("TIFF", head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
        ("NPY", head.startswith(b"\x93NUMPY")),
        ("WEBP", head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
        ("GIF", head[:6] in (b"GIF87a", b"GIF89a")),
        ("PPM", re.match(rb"P[1-6][\s#]", head)),
        ("AVIF", b"avif" in brands or b"avis" in brands),
        ("HEIC", any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1"))),
        ("BMP", head[:2] == b"BM" and len(head) > 26),
    ]
    for kind, fits in found:
        if fits:
            return FORMATS[kind]
    other = next((what for start, what in _OTHER_STARTS.items() if head.startswith(start)), None)
    if other is None and suffix in UNREAD_SUFFIXES:
        other = suffix
    if other is not None:
        raise UnknownFormatError(f"a file of the format {other}, which is not read; convert it to PNG or TIFF")
    raise UnknownFormatError(f"cannot be decoded: not an image, or damaged at its start; {', '.join(FORMATS)} are read")


def _read(source: Source, request: _Request) -> Decoded:
    name = "" if isinstance(source, bytes) else str(source)
    try:
        if not isinstance(source, bytes) and Path(source).exists() and not Path(source).is_file():
            raise ImageError("is no plain file")  # nobody might ever write into a pipe
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
            head = stream.read(64)
            stream.seek(0)
            return _format(head, name).decode(stream, request)
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except (ImageError, MemoryError):  # too little memory says nothing of the image
        raise
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, TiffFileError ...
        what = " ".join(str(error).split())
        if name:
            what = what.replace(name, Path(name).name)
        if type(error).__name__ == "UnidentifiedImageError":
            what = "damaged at its start"
        raise ImageError(f"cannot be decoded: {what[:200] or type(error).__name__}") from None


def decode(source: Source, limit: Limit | None = None) -> Decoded:
    """Read a file as it is: upright, every bit kept, palettes and 1-bit expanded.

    Args:
        source: a path, or the bytes of a file.
        limit: how many pixels are taken; checked before they are decoded.

    Raises:
        ImageError: no such file, not an image, truncated, several frames, too large, or numbers that
            are neither 8 nor 16 bits.
    """
    return _read(source, _Request(False, limit))


def size(source: Source) -> tuple[int, int]:
    """Return (height, width) of an upright image, read off its header.

    Raises:
        ImageError: as for :func:`decode`, as far as the header shows it.
    """
    pixels = _read(source, _Request(True, None)).pixels
    return pixels.shape[0], pixels.shape[1]


def to_gray(rgb: np.ndarray) -> np.ndarray:
    """Return the luma of (H, W, 3) as (H, W, 1): ITU-R 601-2 in Pillow's fixed-point arithmetic, at any depth."""
    red, green, blue = (rgb[..., i].astype(np.uint32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(rgb.dtype)[..., None]


def convert(decoded: Decoded, *, colour: Colour, channels: int, bit_depth: int = 8) -> np.ndarray:
    """Bring what a file holds to the colour, channels and depth that are asked for.

    Without loss, or not at all: opaque alpha is dropped, 8 bits widen to 16 (times 257), gray
    repeats as RGB. The two conversions that lose are those that one asks for: RGB to one
    channel (luma) and CMYK to RGB (without a profile, as Pillow does).

    Args:
        decoded: pixels and bands.
        colour: ``raw`` keeps the channels as stored; any other yields gray or RGB.
        channels: 1 or 3; any number for ``raw``.
        bit_depth: 8 or 16.

    Returns:
        (height, width, channels) of ``uint8`` or ``uint16``.

    Raises:
        ImageError: transparency, other channels, or more bits than ``bit_depth``.
    """
    pixels, bands = decoded
    if colour == "raw":
        if pixels.shape[2] != channels:
            raise ImageError(f"has {pixels.shape[2]} channels ({bands}), expected {channels}")
    elif bands == "n":
        raise ImageError(f"has {pixels.shape[2]} channels; only colour: raw takes other than gray and RGB")
    else:
        pixels = _gray_or_rgb(pixels, bands)
        if channels == 1 and pixels.shape[2] == 3:
            pixels = to_gray(pixels)
        elif channels == 3 and pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        elif channels != pixels.shape[2]:
            raise ImageError(f"cannot become {channels} channels; colour: {colour} has 1 or 3")
    if bit_depth == 8 and pixels.dtype == np.uint16:
        raise ImageError("has 16 bits per channel, expected 8; set bit_depth: 16 (before training) or convert it")
    if bit_depth == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    return pixels


def _gray_or_rgb(pixels: np.ndarray, bands: str) -> np.ndarray:
    """Return one channel or three: without an opaque alpha, and CMYK as RGB."""
    if bands in ("LA", "RGBA"):
        if pixels[..., -1].min() < FULL[pixels.dtype]:
            raise ImageError(f"has transparency ({bands}); flatten it onto a background")
        return pixels[..., :-1]
    if bands == "CMYK":
        from PIL import Image

        height, width = pixels.shape[:2]
        return np.asarray(Image.frombytes("CMYK", (width, height), pixels.tobytes()).convert("RGB"))
    return pixels
