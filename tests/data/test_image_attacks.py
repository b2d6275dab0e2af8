"""What a file may not do: open others, hold more than it says, cost more than its pixels, or pass with pixels missing."""

from __future__ import annotations

import io
import struct
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from checks.image_formats import chunk, noise, png, saved, tiff
from repix.data import image_reader

LIMIT = image_reader.Limit(50_000_000, "ask less")


def refused(data, reason: str) -> None:
    with pytest.raises(image_reader.ImageError, match=reason) as raised:
        image_reader.decode(data, LIMIT)
    assert "\n" not in str(raised.value)


def cost(data) -> tuple[float, int]:
    """Return the seconds and the bytes of memory that a file costs, read or refused."""
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        image_reader.decode(data, LIMIT)
    except image_reader.ImageError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return time.perf_counter() - begun, peak


# TIFF


def ifd(strip: bytes, *more: tuple[int, int, int], **given: int) -> bytes:
    """Return a little-endian TIFF of one strip, 64 x 64 gray pixels of 16 bits unless told otherwise."""
    tags = {256: 64, 257: 64, 258: 16, 259: 1, 262: 1, 273: 0, 277: 1, 278: 64, 279: len(strip)}
    tags |= {int(tag[1:]): value for tag, value in given.items()}
    entries = [(tag, 4, value) for tag, value in tags.items() if value is not None]
    start = 8 + 2 + 12 * (len(entries) + len(more)) + 4
    entries = [(tag, kind, start if tag in (273, 324) else value) for tag, kind, value in [*entries, *more]]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + strip


def ome(*files: tuple[str, str], channels: int, own: str = "urn:uuid:1") -> bytes:
    """Return metadata of OME in which each further channel lies in a file."""
    placed = "".join(
        f'<TiffData IFD="0" FirstC="{i}" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for i, (name, uuid) in enumerate(files)
    )
    text = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="6" SizeY="4" '
        f'SizeC="{channels}" SizeZ="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="1"/>{placed}</Pixels></Image></OME>'
    )
    return tiff(noise(1, np.uint16), description=text, metadata=None)


OPENED: list[str] = []
sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if event == "open" else None)


@pytest.mark.parametrize("as_path", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_an_ome_tiff_opens_no_other_file(tmp_path, monkeypatch, as_path, absolute):
    (tmp_path / "private.tif").write_bytes(tiff(np.full((4, 6), 7777, np.uint16)))
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    other = str(tmp_path / "private.tif") if absolute else "../private.tif"
    data = ome(("a.tif", "urn:uuid:1"), (other, "urn:uuid:2"), (other, "urn:uuid:3"), channels=3)
    (tmp_path / "set" / "a.tif").write_bytes(data)
    OPENED.clear()
    refused(tmp_path / "set" / "a.tif" if as_path else data, "an OME-TIFF in several files; save it as one file")
    assert not [one for one in OPENED if one.endswith("private.tif")]


def test_ome_metadata_decide_no_pixels_that_are_not_there(tmp_path):
    refused(ome(("b.tif", "urn:uuid:2"), channels=1), "in several files")
    refused(ome(("a.tif", "urn:uuid:1"), channels=3), "name pages that it does not hold")
    whole = ome(("a.tif", "urn:uuid:1"), channels=1)
    np.testing.assert_array_equal(image_reader.decode(whole).pixels[..., 0], noise(1, np.uint16))
    stream = io.BytesIO()
    import tifffile

    tifffile.imwrite(stream, noise(3, np.uint16), ome=True, photometric="rgb")
    np.testing.assert_array_equal(image_reader.decode(stream.getvalue()).pixels, noise(3, np.uint16))


@pytest.mark.parametrize("kind", ["deflate", "lzma", "packbits"])
def test_a_strip_is_decompressed_to_its_size_and_no_further(kind):
    import lzma

    zeros = bytes(1 << 25)
    strips = {
        "deflate": (8, zlib.compress(zeros)),
        "lzma": (34925, lzma.compress(zeros)),
        "packbits": (32773, b"\x81\0" * (1 << 14)),
    }
    number, strip = strips[kind]
    # Four unnamed channels, which libtiff within Pillow is not asked for.
    data = ifd(strip, t259=number, t277=5, t258=16)
    assert cost(data)[1] < 12_000_000  # xz has a dictionary of 8 MiB
    assert not image_reader.decode(data, LIMIT).pixels.any()


def test_a_strip_of_more_bytes_than_it_can_need_is_refused():
    refused(ifd(zlib.compress(noise(1).tobytes()) + bytes(100_000), t259=8), "bytes of a strip, which holds 8192")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_is_no_larger_than_its_image_needs(bits):
    strip = zlib.compress(bytes(100))
    tags = {"t258": bits, "t259": 8, "t273": None, "t278": None, "t279": None}
    more = [(324, 4, 0), (325, 4, len(strip))]
    data = ifd(strip, (322, 4, 32768), (323, 4, 32768), *more, **tags)
    assert cost(data)[1] < 1_000_000
    refused(data, "64 x 64 pixels in tiles of 32768 x 32768")
    pixels = noise(1, np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(
        image_reader.decode(tiff(pixels, tile=(512, 512), compression="deflate"), LIMIT).pixels[..., 0], pixels
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("more", [{"rowsperstrip": 3}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("predictor", [None, True])
def test_strips_and_tiles_that_are_whole_are_read(dtype, compression, more, predictor):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 50, 3), dtype)
    if compression:
        more = more | {"predictor": predictor}
    given = np.moveaxis(pixels, 2, 0) if "planarconfig" in more else pixels
    data = tiff(given, photometric="rgb", compression=compression, **more)
    np.testing.assert_array_equal(image_reader.decode(data, LIMIT).pixels, pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_strips_are_missing_or_short_is_refused(bits):
    strip = bytes(64 * bits // 8)
    refused(ifd(strip * 64, t258=bits, t278=1), "64 strips that lists 1")
    refused(ifd(strip * 64, t258=bits, t279=len(strip)), "1 of 1 strips are truncated")
    refused(ifd(strip * 64, t258=bits, t279=0), "1 of 1 strips are truncated")
    refused(ifd(zlib.compress(strip * 64)[:-3], t258=16, t259=8), "truncated|reshaped")


def test_signed_numbers_are_no_picture():
    refused(ifd(bytes(4096), (339, 3, 2), t258=8), "signed 8-bit numbers; expected uint8 or uint16")
