"""What a file may not do: open others, hold more than it says, cost more than its pixels, or lack some of them."""

from __future__ import annotations

import io
import math
import os
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
from tests.data.test_image_formats import SIDES, at_every_door

LIMIT = image_reader.Limit(50_000_000, "ask less")


def assert_refused(data, reason: str) -> None:
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
    assert_refused(tmp_path / "set" / "a.tif" if as_path else data, "an OME-TIFF in several files; save it as one file")
    assert not [one for one in OPENED if one.endswith("private.tif")]


def test_ome_metadata_decide_no_pixels_that_are_not_there(tmp_path):
    assert_refused(ome(("b.tif", "urn:uuid:2"), channels=1), "in several files")
    assert_refused(ome(("a.tif", "urn:uuid:1"), channels=3), "name pages that it does not hold")
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
    assert_refused(
        ifd(zlib.compress(noise(1).tobytes()) + bytes(200_000), t259=8), "bytes of a strip, which holds 8192"
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_is_no_larger_than_its_image_needs(bits):
    strip = zlib.compress(bytes(100))
    tags = {"t258": bits, "t259": 8, "t273": None, "t278": None, "t279": None}
    more = [(324, 4, 0), (325, 4, len(strip))]
    data = ifd(strip, (322, 4, 32768), (323, 4, 32768), *more, **tags)
    assert cost(data)[1] < 1_000_000
    assert_refused(data, "64 x 64 pixels in tiles of 32768 x 32768")
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
    assert_refused(ifd(strip * 64, t258=bits, t278=1), "64 strips that lists 1")
    assert_refused(ifd(strip * 64, t258=bits, t279=len(strip)), "1 of 1 strips are truncated")
    assert_refused(ifd(strip * 64, t258=bits, t279=0), "1 of 1 strips are truncated")
    assert_refused(ifd(zlib.compress(strip * 64)[:-3], t258=16, t259=8), "truncated|reshaped")


def test_signed_numbers_are_no_picture():
    assert_refused(ifd(bytes(4096), (339, 3, 2), t258=8), "signed 8-bit numbers; expected uint8 or uint16")


# PNG


def raw_png(width: int, height: int, depth: int, colour: int, data: bytes, *before: bytes, after: bytes = b"") -> bytes:
    """Return a PNG of rows as they are given, filter bytes included."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(before) + chunk(b"IDAT", zlib.compress(data)) + after + chunk(b"IEND", b"")
    return image_reader.PNG_SIGNATURE + head + body


def test_a_png_that_is_cut_in_its_pixels_is_refused():
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    data = png(pixels)
    for cut in range(40, len(data) - 12):
        assert_refused(data[:cut], "cannot be decoded: .*truncated")
    for cut in range(len(data) - 12, len(data)):  # within the mark of its end, and all pixels are there
        np.testing.assert_array_equal(image_reader.decode(data[:cut]).pixels, pixels)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_whose_rows_end_early_is_refused(channels, dtype, interlaced):
    pixels = noise(channels, dtype) | 1
    whole = png(pixels, interlaced=interlaced)
    at = whole.index(b"IDAT")
    rows = zlib.decompress(whole[at + 4 : -16])
    head = whole[: at - 4]
    for missing in (1, 1 + pixels[0].nbytes, len(rows) // 2):
        data = head + chunk(b"IDAT", zlib.compress(rows[:-missing])) + chunk(b"IEND", b"")
        assert_refused(data, "cannot be decoded: .*truncated")
    black = png(pixels * 0, interlaced=interlaced)
    assert not image_reader.decode(black).pixels.any()


@pytest.mark.parametrize(("depth", "row"), [(1, b"\0\x0a"), (2, b"\0\x1b"), (4, b"\0\x1f"), (8, b"\0\1\2")])
def test_a_transparent_shade_of_few_bits_is_transparent(depth, row):
    clear = row[-1] & ((1 << depth) - 1)
    width = 8 * (len(row) - 1) // depth
    for high in (0, 0x8000):  # bits beyond the depth say nothing
        data = raw_png(width, 1, depth, 0, row, chunk(b"tRNS", struct.pack(">H", clear | high)))
        decoded = image_reader.decode(data)
        assert decoded.bands == "LA"
        assert decoded.pixels[0, -1].tolist() == [clear * 255 // ((1 << depth) - 1), 0]
        assert decoded.pixels[0, :, 1].max() == 255
        with pytest.raises(image_reader.ImageError, match=r"has transparency \(LA\)"):
            image_reader.convert(decoded, colour="rgb", channels=3)


def test_a_png_that_says_two_things_or_lacks_its_palette_is_refused():
    palette = chunk(b"PLTE", b"\1\2\3\4\5\6")
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    assert image_reader.decode(raw_png(2, 1, 8, 3, b"\0\0\1", palette)).pixels.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert_refused(raw_png(2, 1, 8, 3, b"\0\0\1"), "indices without its palette")
    assert_refused(raw_png(2, 1, 8, 3, b"\0\0\2", palette), "an index of 2 in a palette of 2")
    assert_refused(raw_png(2, 1, 8, 3, b"\0\0\1", palette, palette), "PLTE is a second one")
    assert_refused(raw_png(2, 1, 8, 0, b"\0\1\2", size), "IHDR is a second one")
    assert_refused(raw_png(2, 1, 8, 0, b"\0\1\2", after=chunk(b"tRNS", b"\0\1")), "tRNS is .* too late")


def test_a_png_of_more_bytes_than_its_pixels_need_is_refused(tmp_path):
    whole = png(noise(3))
    more = chunk(b"IDAT", bytes(1 << 20)) * 8
    data = whole[:-12] + more + whole[-12:]
    assert_refused(data, "far more bytes than its pixels can need")
    assert cost(data)[1] < 1_000_000
    (tmp_path / "x").write_bytes(data)
    assert cost(tmp_path / "x")[1] < 1_000_000
    behind = whole + more  # what stands behind its end is not read
    (tmp_path / "x").write_bytes(behind)
    assert cost(tmp_path / "x")[1] < 1_000_000
    np.testing.assert_array_equal(image_reader.decode(behind).pixels, noise(3))
    empty = whole[:-12] + chunk(b"IDAT", b"") * 20_000 + whole[-12:]
    np.testing.assert_array_equal(image_reader.decode(empty).pixels, noise(3))


def test_a_png_in_chunks_of_one_byte_is_read():
    whole = png(noise(3))
    at = whole.index(b"IDAT")
    single = b"".join(chunk(b"IDAT", bytes([one])) for one in whole[at + 4 : -16])
    np.testing.assert_array_equal(image_reader.decode(whole[: at - 4] + single + whole[-12:]).pixels, noise(3))


# PBM, PGM and PPM


@pytest.mark.parametrize("most", [1, 7, 100, 254, 255, 256, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_gray_and_rgb_are_scaled_as_pillow_does(kind, most):
    channels = 3 if kind in (3, 6) else 1
    values = np.random.default_rng(most).integers(0, most + 1, (9, 7, channels))
    text = "# a note\n".join(f"{one} " for one in values.ravel()).encode()
    raw = values.astype(">u2" if most > 255 else np.uint8).tobytes()
    data = b"P%d\n# 1 2 3\n7 9\n%d\n" % (kind, most) + (text if kind < 4 else raw)
    found = image_reader.decode(data)
    full = 255 if most < 256 else 65535
    assert found.bands == ("RGB" if channels == 3 else "L")
    assert found.pixels.dtype == (np.uint8 if full == 255 else np.uint16)
    np.testing.assert_array_equal(found.pixels, np.rint(values / most * full))
    if most < 256 or channels == 1:
        with Image.open(io.BytesIO(data), formats=("PPM",)) as image:
            np.testing.assert_array_equal(found.pixels.squeeze(), np.asarray(image))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16])
def test_bits_are_read_as_pillow_does(width):
    bits = np.random.default_rng(width).integers(0, 2, (5, width), np.uint8)
    packed = b"P4 %d 5\n" % width + np.packbits(bits, axis=1).tobytes()
    text = b"\n".join(b"".join(b"%d" % bit for bit in row) for row in bits)
    for data in (packed, b"P1 %d 5\n" % width + text, b"P1 %d 5\n" % width + text.replace(b"0", b" 0# 1\n")):
        found = image_reader.decode(data).pixels[..., 0]
        np.testing.assert_array_equal(found, 255 * (1 - bits))
    with Image.open(io.BytesIO(packed), formats=("PPM",)) as image:
        np.testing.assert_array_equal(image_reader.decode(packed).pixels[..., 0], np.asarray(image.convert("L")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5 2 1 255\n\1\2" + b"P5 2 1 255\n\3\4", "more than one image"),
        (b"P6 1 1 65535\n\0\1\0\2\0\3" * 2, "more than one image"),
        (b"P4 8 1\n\xaa\nP4 8 1\n\xaa", "more than one image"),
        (b"P2 2 1 255\n1 2\n" * 2, "more than one image"),
        (b"P2 2 1 255\n1 2 3", "3 numbers, where its size says 2"),
        (b"P1 2 1\n101", "3 numbers, where its size says 2"),
        (b"P5 2 1 100\n\xff\x32", "values from 50 to 255, where 0 to 100 can be"),
        (b"P5 2 1 1000\n\xff\xff\0\0", "values from 0 to 65535, where 0 to 1000 can be"),
        (b"P2 2 1 100\n255 50", "values from 50 to 255, where 0 to 100 can be"),
        (b"P2 2 1 100\n1 99999999999999999999999", "where 0 to 100 can be"),
        (b"P2 2 1 100\n1 - 2", "no number"),
        (b"P2 2 1 100\n1 x", "no number"),
        (b"P1 2 1\n1 2", "no number"),
        (b"P2 2 1 100\n1", "truncated"),
        (b"P2 2 1 100\n", "truncated"),
        (b"P5 2 1 255\n1", "truncated"),
        (b"P5 2 1 70000\n1111", "values up to 70000"),
        (b"P5 2 x 255\n11", "without its width, height and highest value"),
    ],
)
def test_what_is_wrong_with_a_ppm_is_said(data, reason):
    assert_refused(data, reason)


def test_text_costs_what_its_pixels_need(tmp_path):
    (tmp_path / "x").write_bytes(b"P3 1 1 1023\n" + b"1 " * 4_000_000)
    assert cost(tmp_path / "x")[1] < 4_000_000
    assert_refused(tmp_path / "x", "more than 1048624 bytes of text for 3 numbers")
    comments = b"P2\n8 8\n255\n" + b"#\n" * 300_000 + b"1 " * 64
    assert cost(comments)[0] < 2  # and not the square of their number
    assert image_reader.decode(comments).pixels.shape == (8, 8, 1)
    assert_refused(b"P2\n" + b"#\n" * 300_000 + b"8 8\n255\n" + b"1 " * 64, "without its width")


# JPEG


def scans(many: int) -> bytes:
    """Return a progressive JPEG of 512 x 512 gray pixels that repeats an empty scan."""

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    blocks = 64 * 64
    head = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, 512, 512, 1) + b"\1\x11\0")
    head += segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0")
    head += segment(0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\x00")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(blocks // 8)
    again = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x7f\xff\x00"
    return b"\xff\xd8" + head + first + again * many + b"\xff\xd9"


def test_a_jpeg_of_very_many_scans_is_refused():
    assert image_reader.decode(scans(90), LIMIT).pixels.shape == (512, 512, 1)
    assert_refused(scans(4000), "a JPEG of more than 100 scans")
    progressive = saved(Image.fromarray(noise(3)), "JPEG", progressive=True)
    assert 2 < progressive.count(b"\xff\xda") < 20
    assert image_reader.decode(progressive).pixels.shape == (4, 6, 3)


def photo(height: int = 40, width: int = 56) -> Image.Image:
    """Return noise without sharp edges."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_what_a_phone_stores_behind_a_photo_has_no_scans():
    data = saved(photo(), "JPEG")
    film = np.random.default_rng(0).bytes(1 << 16) + b"\xff\xda" * 1000
    np.testing.assert_array_equal(image_reader.decode(data + film).pixels, image_reader.decode(data).pixels)


@pytest.mark.parametrize("size", [(40, 56), (1200, 1000)])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"subsampling": 0}, {"optimize": True}],
    ids=str,
)
def test_a_jpeg_that_was_cut_and_closed_again_is_truncated(options, size):
    data = saved(photo(*size), "JPEG", **options)
    assert image_reader.decode(data, LIMIT).pixels.shape == (*size, 3)
    numbers = data.index(b"\xff\xda") + 20
    for part in (0.1, 0.5, 0.9):
        cut = data[: numbers + int(part * (len(data) - numbers))].rstrip(b"\xff")
        assert_refused(cut + b"\xff\xd9", "truncated")


def test_a_progressive_jpeg_without_its_last_scans_is_truncated():
    parts = saved(photo(), "JPEG", progressive=True).split(b"\xff\xda")
    for many in range(1, len(parts) - 1):
        assert_refused(
            b"\xff\xda".join(parts[: many + 1]) + b"\xff\xd9", "truncated, though it ends as a whole JPEG does"
        )


def test_an_array_with_bytes_behind_it_is_refused():
    data = npy()
    assert image_reader.decode(data).pixels.shape == (4, 6, 3)
    assert_refused(data * 2, "bytes behind the array that its header does not count")
    assert_refused(data[:-5], "cannot be decoded: truncated")


def test_a_pipe_is_refused_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (image_reader.decode, image_reader.size):
        with pytest.raises(image_reader.ImageError, match=r"^is no plain file$"):
            read(tmp_path / "a.png")


def test_a_pil_image_of_one_bit_keeps_its_transparent_shade():
    data = raw_png(8, 1, 1, 0, b"\0\xaa", chunk(b"tRNS", b"\0\1"))
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        found = image_reader.from_pillow(image)
    assert found.bands == "LA"
    np.testing.assert_array_equal(found.pixels, image_reader.decode(data).pixels)


def npy() -> bytes:
    data = io.BytesIO()
    np.save(data, noise(3))
    return data.getvalue()


ATTACKS = {
    "OME": ome(("b.tif", "urn:uuid:2"), channels=1),
    "bomb": ifd(zlib.compress(bytes(1 << 28)), t259=8),
    "strips": ifd(bytes(64 * 64), t258=8, t278=1),
    "cut": png(noise(3))[:-14],
    "palette": raw_png(2, 1, 8, 3, b"\0\0\1"),
    "shade": raw_png(8, 1, 1, 0, b"\0\xaa", chunk(b"tRNS", b"\0\1")),
    "two": b"P5 2 1 255\n\1\2P5 2 1 255\n\3\4",
    "scans": scans(200),
    "short": npy()[:-5],
    "closed": saved(Image.fromarray(noise(3)), "JPEG")[:-12] + b"\xff\xd9",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_door_refuses_with_the_same_words(name, tmp_path):
    (tmp_path / "x").write_bytes(ATTACKS[name])
    found = at_every_door(tmp_path / "x", SIDES[0])
    assert len(found) == 4 and len(set(found.values())) == 1, found
    assert isinstance(found["training"], str)


# What costs more than its pixels, second part


def test_a_long_run_of_255_in_a_jpeg_is_gone_through_once():
    whole = saved(noise(3), "JPEG")
    seconds, _ = cost(whole[:-2] + b"\xff" * 60_000 + b"\0\0\xff\xd9")
    assert seconds < 5  # quadratic, it would be a quarter of a minute


def test_metadata_that_name_millions_of_pages_cost_nothing():
    for places in ('<TiffData IFD="0" PlaneCount="20000000"/>', '<TiffData IFD="0" PlaneCount="100000000000000"/>'):
        data = ome(channels=1).replace(b"</Pixels>", places.encode() + b"</Pixels>")
        _, peak = cost(tiff(noise(1, np.uint16), description=described(data), metadata=None))
        assert peak < 1 << 26
    many = described(ome(channels=1)).replace('SizeT="1"', 'SizeT="40000000"')
    data = tiff(noise(1, np.uint16), description=many, metadata=None)
    assert cost(data)[1] < 1 << 26
    assert_refused(data, "its metadata name pages that it does not hold")


def described(data: bytes) -> str:
    """Return the description of a TIFF of OME."""
    start = data.index(b"<?xml")
    return data[start : data.index(b"</OME>") + 6].decode()


def test_a_bmp_of_runs_is_refused():
    head = struct.pack("<IiiHHIIiiII", 40, 1 << 20, 1, 1, 8, 1, 4, 0, 0, 256, 0)
    pixels = bytes([1, 7, 0, 0, 0, 1])
    start = 14 + 40 + 1024
    data = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + bytes(1024) + pixels
    assert_refused(data, r"a BMP of runs \(RLE\), which is not read; save it as PNG")


def test_a_size_of_nothing_is_refused_before_anything_is_divided_by_it():
    data = png(noise(1))
    head = struct.pack(">II", 0, 16) + data[24:29]
    data = data[:8] + chunk(b"IHDR", head) + data[33:]
    assert_refused(data, "cannot be decoded: 0 x 16 pixels")
    with pytest.raises(image_reader.ImageError, match="0 x 16 pixels"):
        image_reader.size(data)


@pytest.mark.parametrize("side", [1025, 1026, 1034, 1040])
@pytest.mark.parametrize("cut", [400, 1000, 2500])  # more than the last block of noise has
@pytest.mark.parametrize("sampling", [None, "4:2:0", "4:4:4"])
def test_a_jpeg_that_was_cut_and_closed_is_refused_whatever_its_size(side, cut, sampling):
    photo = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    given = {"subsampling": sampling} if sampling else {}
    whole = saved(photo if sampling else photo[..., 0], "JPEG", quality=60, **given)
    assert image_reader.decode(whole).pixels.shape[:2] == (side, side)
    assert_refused(whole[:-cut] + b"\xff\xd9", "truncated")


# Pixels that are not the file's


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_stack_that_one_directory_stands_for_is_read_whole(dtype):
    import tifffile

    stack, stream = noise(5, dtype).transpose(2, 0, 1).copy(), io.BytesIO()
    tifffile.imwrite(stream, stack, truncate=True, photometric="minisblack")
    np.testing.assert_array_equal(image_reader.decode(stream.getvalue()).pixels, stack.transpose(1, 2, 0))


def test_three_gray_pages_are_no_colours():
    import tifffile

    for dtype in (np.uint8, np.uint16):
        stream = io.BytesIO()
        tifffile.imwrite(stream, noise(3, dtype).transpose(2, 0, 1).copy(), photometric="minisblack")
        assert image_reader.decode(stream.getvalue()).bands == "n"
        # As programs for maps write three channels.
        one = tiff(noise(3, dtype), photometric="minisblack", planarconfig="contig", extrasamples=[0, 0])
        assert image_reader.decode(one).bands == "RGB"
    assert image_reader.decode(tiff(noise(3, np.uint16), photometric="rgb")).bands == "RGB"


@pytest.mark.parametrize("axes", ["ZCYX", "TZCYX", "TCYX"])
def test_ome_s_images_are_not_taken_for_channels(axes):
    """One axis beside height and width may be the channels, as in any TIFF; two are images."""
    import tifffile

    shape = (2,) * (len(axes) - 3) + (3, 16, 16)
    for given, times in ((axes, shape), ("CYX", shape[-3:])):
        stream = io.BytesIO()
        tifffile.imwrite(
            stream, np.zeros(times, np.uint16), ome=True, metadata={"axes": given}, photometric="minisblack"
        )
        if given == "CYX":
            assert image_reader.decode(stream.getvalue()).pixels.shape == (16, 16, 3)
        else:
            assert_refused(stream.getvalue(), rf"holds {math.prod(times[:-2])} images \(OME\); expected one")


def test_two_images_of_ome_are_not_one():
    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, ome=True) as file:
        for side in (16, 8):
            file.write(np.zeros((side, side), np.uint16), photometric="minisblack", metadata={"axes": "YX"})
    assert_refused(stream.getvalue(), r"holds 2 images \(OME\); expected one")


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_alpha_by_which_colours_were_multiplied_is_read_where_it_is_full(compression):
    """Whatever the compression: Pillow, which knows more of them, divides the colours by it."""

    def multiplied(pixels: np.ndarray) -> bytes:
        name = "tiff_lzw" if compression == "lzw" else "tiff_adobe_deflate"
        data, tag = saved(Image.fromarray(pixels), "TIFF", compression=name), struct.pack("<HHI", 338, 3, 1)
        assert data.count(tag + b"\2") == 1
        return data.replace(tag + b"\2", tag + b"\1")

    pixels = noise(4).copy()
    pixels[..., 3] = 255
    np.testing.assert_array_equal(image_reader.decode(multiplied(pixels)).pixels, pixels)
    pixels[0, 0, 3] = 128
    if compression == "lzw":
        assert_refused(multiplied(pixels), "colours multiplied by their alpha by LZW")
    else:
        np.testing.assert_array_equal(image_reader.decode(multiplied(pixels)).pixels, pixels)


def test_where_white_is_zero_alpha_is_not():
    pixels = noise(2, np.uint16)
    data = tiff(pixels, photometric="miniswhite", extrasamples=[2], planarconfig="contig")
    found = image_reader.decode(data)
    assert found.bands == "LA"
    np.testing.assert_array_equal(found.pixels[..., 1], pixels[..., 1])
    np.testing.assert_array_equal(found.pixels[..., 0], 65535 - pixels[..., 0])


def test_gray_and_alpha_one_behind_the_other_keep_their_alpha():
    pixels = noise(2)
    data = tiff(
        pixels.transpose(2, 0, 1),
        photometric="minisblack",
        extrasamples=[2],
        planarconfig="separate",
        compression="zlib",
    )
    np.testing.assert_array_equal(image_reader.decode(data).pixels, pixels)


def test_a_palette_of_16_bits_is_not_cut_to_8():
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :24] = np.arange(24) * 257
    data = tiff(indices, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(image_reader.decode(data).pixels[..., 0], indices)
    other = tiff(indices, photometric="palette", colormap=(colours & 0xFF00) | (255 * (colours > 0)).astype(np.uint16))
    np.testing.assert_array_equal(image_reader.decode(other).pixels[..., 0], indices)
    for shade in (26047, 101):
        colours[1, 5] = shade
        assert_refused(tiff(indices, photometric="palette", colormap=colours), "palette has 16 bits")


def test_two_colours_by_more_than_a_bit_a_pixel_are_refused():
    head = struct.pack("<IiiHHIIiiII", 40, 8, 1, 1, 8, 0, 8, 0, 0, 2, 0)
    data = (
        b"BM"
        + struct.pack("<IHHI", 14 + 40 + 8 + 8, 0, 0, 62)
        + head
        + b"\0\0\0\0\xff\xff\xff\0"
        + bytes([0, 1, 0, 1, 1, 1, 0, 0])
    )
    assert_refused(data, "a BMP of 8 bits a pixel for two colours")
    bits = saved(Image.fromarray(noise(1)).convert("1"), "BMP")
    assert set(np.unique(image_reader.decode(bits).pixels)) <= {0, 255}
    # With a header of Windows 2, in which the depth lies elsewhere.
    head = struct.pack("<IHHHH", 12, 8, 1, 1, 1)
    data = b"BM" + struct.pack("<IHHI", 36, 0, 0, 32) + head + b"\0\0\0\xff\xff\xff" + bytes([0b10110000, 0, 0, 0])
    assert image_reader.decode(data).pixels[..., 0].tolist() == [[255, 0, 255, 255, 0, 0, 0, 0]]


def test_a_gif_that_fills_no_screen_is_refused():
    data = bytearray(saved(Image.fromarray(noise(1)).convert("P"), "GIF"))
    width, height = struct.unpack_from("<HH", data, 6)
    struct.pack_into("<HH", data, 6, width + 1, height + 1)
    assert_refused(bytes(data), "a GIF whose picture is smaller than its screen")


@pytest.mark.parametrize("place", ["eXIf", "zTXt", "XMP"])
def test_a_png_is_turned_by_whatever_metadata_say_so(place):
    from checks.image_formats import turned

    exif = turned(6).tobytes()
    told = {
        "eXIf": chunk(b"eXIf", exif[6:] if exif.startswith(b"Exif") else exif),
        "zTXt": chunk(
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()),
        ),
        "XMP": chunk(
            b"iTXt",
            b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="6" '
            b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>',
        ),
    }[place]
    plain = noise(3)
    data = png(plain, told)
    assert image_reader.size(data)[:2] == (plain.shape[1], plain.shape[0])
    np.testing.assert_array_equal(image_reader.decode(data).pixels, np.rot90(plain, -1))
