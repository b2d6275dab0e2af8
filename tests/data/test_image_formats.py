"""One reader for everybody: each file of the table gives its exact pixels, at every door, or one refusal."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from checks import image_formats
from checks.image_formats import Case, noise, png, saved
from repix.data import image_reader, images
from repix.data.images import BadImageError
from repix.errors import UserError
from repix.provenance.code import imported_names
from repix.schemas import Side
from tests.conftest import ROOT

CASES = list(image_formats.cases())
NAMES = [f"{case.format} {case.holds}" for case in CASES]
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
SIDES = [
    Side(channels=n, dtype=f"uint{bits}", low=(0,) * n, high=(2**bits - 1,) * n, meaning=("x",) * n, colour=colour)
    for n, bits, colour in ((3, 8, "rgb"), (1, 8, "gray"), (3, 16, "rgb"), (5, 16, "raw"))
]


def heif_or_skip(case: Case) -> None:
    if case.format == "HEIC" and not HAS_HEIF:
        pytest.skip("pillow-heif is not installed: pip install -c constraints.txt -e '.[heif]'")


def test_the_page_says_what_the_reader_does():
    text = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- images:begin [^\n]*\n(.*?)<!-- images:end -->", text, re.DOTALL)[1].strip().splitlines()
    table = image_formats.table().splitlines()
    if not HAS_HEIF:
        block, table = ([line for line in lines if not line.startswith("| HEIC")] for lines in (block, table))
    assert block == table


LOSSLESS = [(case, name) for case, name in zip(CASES, NAMES, strict=True) if case.pixels is not None]


# Of the others, lossy or refused, the page says what becomes of them.
@pytest.mark.parametrize("case", [case for case, _ in LOSSLESS], ids=[name for _, name in LOSSLESS])
def test_the_pixels_are_exactly_those_of_the_file(case, tmp_path):
    heif_or_skip(case)
    (tmp_path / "x").write_bytes(case.data)
    expected = case.pixels if case.pixels.ndim == 3 else case.pixels[..., None]
    for source in (case.data, tmp_path / "x"):
        found = image_reader.decode(source).pixels
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert image_reader.size(source) == expected.shape[:2]


def at_every_door(path, side: Side) -> dict[str, np.ndarray | str]:
    """Return what each door makes of a file: the pixels, or the words of its refusal."""
    from werkzeug.exceptions import HTTPException

    from repix.demo.app import read_upload
    from repix.exporting import pyfunc
    from repix.translation.pixels import read_source

    data, bits = path.read_bytes(), np.dtype(side.dtype).itemsize * 8
    asked = {"colour": side.colour, "channels": side.channels, "bit_depth": bits}

    def training():
        return images.convert(images.decode(path, images.Limit(10**8, "x")), path, **asked)

    def translate():
        return read_source(path, side, None)

    def served():
        try:
            size = image_reader.size(data)
        except image_reader.ImageError:
            size = (4, 6)
        return pyfunc.decode(data, size, side.model_dump(mode="json"))

    def page():
        return image_reader.convert(read_upload(data), **asked)

    found = {}
    # The page has models of 8 bits alone, and refuses others by the header.
    for door in (training, translate, served, page)[: 4 if bits == 8 else 3]:
        try:
            found[door.__name__] = door()
        except BadImageError as error:
            found[door.__name__] = error.reason
        except HTTPException as error:
            found[door.__name__] = error.description
        except (image_reader.ImageError, pyfunc.RequestError) as error:
            found[door.__name__] = str(error)
    return found


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_door_gives_the_same_pixels_or_the_same_refusal(case, tmp_path):
    heif_or_skip(case)
    (tmp_path / "x").write_bytes(case.data)
    for side in SIDES:
        found = at_every_door(tmp_path / "x", side)
        first = found["training"]
        for door, one in found.items():
            if door == "page" and case.data.startswith(image_reader.PNG_SIGNATURE) and case.data[24] == 16:
                assert isinstance(one, str) and "16 bits" in one  # by its header alone, before anything is decoded
                continue
            assert type(one) is type(first), (door, found)
            assert one == first if isinstance(first, str) else np.array_equal(one, first), door


def test_a_heic_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = next(case.data for case in CASES if case.format == "HEIC")
    with pytest.raises(image_reader.ImageError, match=r"needs pillow-heif: pip install 'repix\[heif\]'"):
        image_reader.decode(heic)


def test_what_no_library_here_reads_is_not_left_out_as_if_it_were_broken(monkeypatch, tmp_path):
    """`on_error: skip` would drop it, and the data would follow from what is installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "x.heic").write_bytes(next(case.data for case in CASES if case.format == "HEIC"))
    with pytest.raises(UserError, match=r"x\.heic: a HEIC image needs pillow-heif: pip install") as caught:
        images.decode(tmp_path / "x.heic")
    assert not isinstance(caught.value, images.BadImageError)


# No decoder that nobody asked for.


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.eps"])
def test_a_postscript_file_starts_no_program(tmp_path, monkeypatch, name):
    from PIL import EpsImagePlugin

    def started(*arguments, **more):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr("subprocess.Popen.__init__", started)
    (tmp_path / name).write_bytes(saved(Image.fromarray(noise(3)), "EPS"))
    with pytest.raises(BadImageError, match=r"PostScript \(EPS\), which is not read; convert it to PNG"):
        images.decode(tmp_path / name)


def test_every_open_names_its_formats():
    """Image.open without ``formats`` tries every decoder that Pillow has, and Ghostscript."""
    found = 0
    for folder in ("src", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in re.findall(r"Image\.open\(([^\n]*)", path.read_text(encoding="utf-8")):
                assert "formats=" in call, path
                found += 1
    assert found > 2


def test_a_camera_raw_is_not_taken_for_its_preview(tmp_path):
    (tmp_path / "x.dng").write_bytes(saved(noise(3), "TIFF"))
    with pytest.raises(BadImageError, match=r"camera's raw file \(\.dng\).*develop it"):
        images.decode(tmp_path / "x.dng")


def test_the_content_decides_and_not_the_name(tmp_path):
    for name in ("x.jpg", "x.tif", "x.npy", "x"):
        (tmp_path / name).write_bytes(png(noise(3)))
        np.testing.assert_array_equal(images.read(tmp_path / name), noise(3))


# How large an image may be.


def large(kind: str) -> bytes:
    """Return a small file of 3000 x 2000 pixels."""
    zeros = np.zeros((2000, 3000), np.uint8)
    if kind == "PNG16":
        return png(np.zeros((2000, 3000, 3), np.uint16))
    if kind == "TIFF16":
        return image_formats.tiff(zeros.astype(np.uint16), compression="deflate")
    if kind == "PPM16":
        return b"P6 3000 2000 65535\n"
    if kind == "NPY":
        return image_formats.npy(zeros[:1])[:0] + _npy_header((2000, 3000, 3))
    return saved(Image.fromarray(zeros), kind)


def _npy_header(shape) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", ["PNG", "PNG16", "JPEG", "TIFF", "TIFF16", "WEBP", "BMP", "GIF", "PPM", "PPM16", "NPY"]
)
def test_pixels_are_counted_before_they_are_decoded(kind):
    data = large(kind)
    tracemalloc.start()
    try:
        with pytest.raises(
            image_reader.TooLargeError, match=r"3000 x 2000 = 6000000 pixels; at most 5999999 .*; ask less"
        ):
            image_reader.decode(data, image_reader.Limit(5_999_999, "ask less"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data) + 2_000_000  # and no array of 6 million
    if kind not in ("PPM16", "NPY"):  # those are headers alone
        assert image_reader.decode(data, image_reader.Limit(6_000_000, "")).pixels.shape[:2] == (2000, 3000)


def test_channels_beyond_four_count():
    data = image_formats.npy(np.zeros((10, 10, 9), np.uint8))
    with pytest.raises(image_reader.TooLargeError, match="100 pixels of 9 channels; at most 299"):
        image_reader.decode(data, image_reader.Limit(299, ""))
    assert image_reader.decode(data, image_reader.Limit(300, "")).pixels.shape == (10, 10, 9)


def test_pillows_own_limit_decides_nothing(tmp_path, recwarn):
    """14000 x 14000 is more than Pillow takes by itself."""
    Image.new("1", (14000, 14000)).save(tmp_path / "map.png", compress_level=1)
    assert images.size(tmp_path / "map.png") == (14000, 14000)
    assert images.decode(tmp_path / "map.png").pixels.shape == (14000, 14000, 1)
    with pytest.raises(BadImageError, match="196000000 pixels; at most 100000000 are taken; raise x"):
        images.decode(tmp_path / "map.png", images.Limit(10**8, "raise x"))
    assert not [one for one in recwarn if "ecompression" in str(one.message)]


# What Pillow or tifffile may raise never gets out.


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_damage_anywhere_is_one_reason(case):
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(case.data[: rng.integers(1, len(case.data) + 1)] if rng.random() < 0.3 else case.data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        try:
            image_reader.decode(bytes(data), image_reader.Limit(10**6, ""))
        except image_reader.ImageError as error:
            assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize("error", [UnidentifiedImageError("x"), SyntaxError("y"), ZeroDivisionError()])
def test_whatever_a_decoder_raises_is_a_reason(monkeypatch, error):
    def raises(stream, request):
        raise error

    monkeypatch.setitem(image_reader.FORMATS, "PNG", image_reader.FORMATS["PNG"]._replace(decode=raises))
    with pytest.raises(image_reader.ImageError, match=r"cannot be decoded: (damaged|y|ZeroDivisionError)"):
        image_reader.decode(png(noise(3)))


def test_reading_needs_no_tensorflow():
    assert image_reader.decode(png(noise(4, np.uint16))).pixels.dtype == np.uint16
    found = imported_names(Path(image_reader.__file__))
    assert "PIL" in found and not {name.split(".")[0] for name in found} & {"tensorflow", "keras"}


def test_a_value_below_zero_is_no_value_of_a_ppm():
    with pytest.raises(image_reader.ImageError, match="values from -5 to 7, where 0 to 1000 can be"):
        image_reader.decode(b"P3 1 1 1000 -5 0 7")


def test_too_little_memory_is_no_fault_of_the_image(monkeypatch):
    def full(*given):
        raise MemoryError

    monkeypatch.setattr(image_reader, "_format", full)
    with pytest.raises(MemoryError):
        image_reader.decode(CASES[0].data)
