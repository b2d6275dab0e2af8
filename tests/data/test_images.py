"""Every bit of a file reaches the array, or the file is refused with its name and the reason."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from repix.data import images
from repix.data.images import BadImageError
from repix.errors import UserError


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_written_values_come_back(tmp_path, suffix, dtype, channels):
    array = noise(5, 7, channels, dtype=dtype)
    path = tmp_path / f"x{suffix}"
    images.write(path, array)
    back = images.read(path, colour="raw", channels=channels, bit_depth=np.iinfo(dtype).bits)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)
    assert images.size(path) == (5, 7)


def test_equal_arrays_are_equal_bytes(tmp_path):
    for suffix in (".png", ".tif", ".jpg", ".npy"):
        for name in "ab":
            images.write(tmp_path / f"{name}{suffix}", noise(6, 6, 3))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_jpeg_is_close_and_keeps_gray(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 128, 8, dtype=np.uint8)[:, None, None], (16, 16, 1))
    images.write(tmp_path / "x.jpg", ramp)
    back = images.read(tmp_path / "x.jpg", channels=1, colour="gray")
    assert back.shape == (16, 16, 1) and np.abs(back.astype(int) - ramp).max() <= 6


@pytest.mark.parametrize("name, array", [("x.jpg", (4, 4, 4)), ("x.png", (4, 4, 5)), ("x.gif", (4, 4, 3))])
def test_write_refuses_what_a_format_cannot_hold(tmp_path, name, array):
    with pytest.raises(UserError, match=r"cannot hold \d channels of 8 bits"):
        images.write(tmp_path / name, np.zeros(array, np.uint8))
    with pytest.raises(UserError, match="float32"):
        images.write(tmp_path / "x.png", np.zeros((4, 4, 3), np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_that_of_pillow(tmp_path, orientation):
    path = tmp_path / "x.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(4, 6, 3)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(images.read(path), expected)
    assert images.size(path) == expected.shape[:2]


def test_multichannel_tiff_as_samples_or_as_pages(tmp_path):
    import tifffile

    array = noise(5, 7, 6, dtype=np.uint16)
    images.write(tmp_path / "samples.tif", array)
    tifffile.imwrite(tmp_path / "pages.tif", np.moveaxis(array, 2, 0), photometric="minisblack")
    for name in ("samples.tif", "pages.tif"):
        back = images.read(tmp_path / name, colour="raw", channels=6, bit_depth=16)
        np.testing.assert_array_equal(back, array)


def test_tiff_with_white_as_zero_is_turned(tmp_path):
    import tifffile

    array = noise(5, 7, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite")
    np.testing.assert_array_equal(images.read(tmp_path / "x.tif", channels=1, bit_depth=16)[..., 0], 65535 - array)


def test_big_endian_npy_keeps_its_values(tmp_path):
    array = noise(3, 4, dtype=np.uint16)
    np.save(tmp_path / "x.npy", array.astype(">u2"))
    back = images.read(tmp_path / "x.npy", channels=1, bit_depth=16)
    assert back.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(back[..., 0], array)


class Interrupting:
    """Garbage whose end runs Python code, so that another thread may go on in the middle of a parse."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        sum(range(50))


def test_npy_in_many_threads(tmp_path):
    images.write(tmp_path / "x.npy", noise(2, 2, 3))

    def read_often(_):
        for _ in range(300):
            Interrupting()
            last = images.decode(tmp_path / "x.npy")
        return last.pixels

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(20, 1, 10**6)
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(read_often, range(8)))
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
    assert all((pixels == noise(2, 2, 3)).all() for pixels in read)


def test_pgm_of_16_bits(tmp_path):
    array = noise(3, 4, dtype=np.uint16)
    (tmp_path / "x.pgm").write_bytes(b"P5 4 3 65535\n" + array.astype(">u2").tobytes())
    np.testing.assert_array_equal(images.read(tmp_path / "x.pgm", channels=1, bit_depth=16)[..., 0], array)


def test_palette_one_bit_cmyk_and_opaque_alpha_become_rgb(tmp_path):
    rgb = Image.fromarray(noise(6, 6, 3))
    palette = rgb.quantize(8)
    one_bit = Image.fromarray(noise(6, 6) > 127)
    opaque = rgb.copy()
    opaque.putalpha(255)
    cmyk = rgb.convert("CMYK")
    for image, name in ((palette, "p.png"), (one_bit, "b.png"), (opaque, "a.png"), (cmyk, "c.tif")):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(images.read(tmp_path / name), np.asarray(image.convert("RGB")), err_msg=name)
    np.testing.assert_array_equal(
        images.read(tmp_path / "c.tif", colour="raw", channels=4), np.asarray(cmyk)
    )  # raw: as stored


def test_gray_repeats_and_luma_is_that_of_pillow(tmp_path):
    rgb, gray = noise(20, 20, 3), noise(5, 5)
    images.write(tmp_path / "rgb.png", rgb)
    images.write(tmp_path / "gray.png", gray)
    luma = np.asarray(Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(images.read(tmp_path / "rgb.png", channels=1)[..., 0], luma)
    np.testing.assert_array_equal(images.read(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, axis=2))
    wide = np.full((2, 2, 3), 65535, np.uint16)
    np.testing.assert_array_equal(images.to_gray(wide), wide[..., :1])  # no overflow at the top


def test_8_bits_widen_and_16_do_not_narrow(tmp_path):
    images.write(tmp_path / "8.png", np.array([[0, 1, 255]], np.uint8))
    images.write(tmp_path / "16.png", np.array([[0, 1, 65535]], np.uint16))
    np.testing.assert_array_equal(images.read(tmp_path / "8.png", channels=1, bit_depth=16)[..., 0], [[0, 257, 65535]])
    with pytest.raises(BadImageError, match="16 bits per channel, expected 8; set bit_depth: 16"):
        images.read(tmp_path / "16.png", channels=1)


def see_through(path):
    Image.fromarray(noise(4, 4, 4)).save(path)


def see_through_palette(path):
    Image.fromarray(noise(4, 4, 3)).quantize(4).save(path, transparency=0)


def truncated(path):
    images.write(path, noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-500])


def truncated_16(path):
    images.write(path, noise(16, 16, 3, dtype=np.uint16))
    path.write_bytes(path.read_bytes()[:-500])


def animated(path):
    Image.fromarray(noise(4, 4)).save(path, save_all=True, append_images=[Image.fromarray(noise(4, 4) ^ 255)])


BAD = {
    "x.png": [
        (see_through, {}, r"transparency \(RGBA\); flatten"),
        (see_through_palette, {}, r"transparency \(RGBA\)"),
        (truncated, {}, "cannot be decoded: .*truncated"),
        (truncated_16, {"bit_depth": 16}, "cannot be decoded: .*(truncated|Invalid PNG)"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), {}, "not an image"),
        (lambda path: path.write_bytes(b""), {}, "not an image"),
        (lambda path: None, {}, "no such file"),
        (
            lambda path: images.write(path, noise(4, 4, 3)),
            {"colour": "raw", "channels": 4},
            "has 3 channels .*expected 4",
        ),
    ],
    "x.jpg": [(truncated, {}, "cannot be decoded: .*truncated")],
    "x.gif": [(animated, {}, "holds 2 frames")],
    "x.tif": [
        (
            lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path),
            {"channels": 1},
            "float32 numbers|mode F",
        ),
        (lambda path: Image.fromarray(np.zeros((4, 4), np.int32)).save(path), {"channels": 1}, "int32 numbers|mode I"),
        (lambda path: images.write(path, noise(4, 4, 5)), {}, "has 5 channels; only colour: raw"),
        (lambda path: path.write_bytes(b"II*\0"), {}, "cannot be decoded"),
    ],
    "x.npy": [
        (lambda path: np.save(path, np.zeros((4, 4, 3))), {}, "float64 numbers; expected uint8 or uint16"),
        (lambda path: np.save(path, np.zeros((2, 4, 4, 3), np.uint8)), {}, r"shape \(2, 4, 4, 3\)"),
        (
            lambda path: np.save(path, np.array([{}]), allow_pickle=True),
            {},
            "cannot be decoded: .*[Pp]ickle|allow_pickle",
        ),
        (lambda path: images.write(path, noise(4, 4, 2)), {}, "has 2 channels; only colour: raw"),
    ],
}


@pytest.mark.parametrize("name, make, ask, reason", [(name, *case) for name, cases in BAD.items() for case in cases])
def test_bad_images_are_refused_with_path_and_reason(tmp_path, name, make, ask, reason):
    path = tmp_path / name
    make(path)
    with pytest.raises(BadImageError, match=reason) as caught:
        images.read(path, **ask)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear", "nearest", "lanczos", "box"])
def test_rgb_resize_is_pillows(resample):
    array = noise(9, 13, 3)
    expected = Image.fromarray(array).resize((8, 6), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(images.resize(array, (6, 8), resample), np.asarray(expected))


def test_resize_goes_channel_by_channel_at_both_depths():
    array = noise(9, 13, 5)
    small = images.resize(array, (6, 8))
    assert small.shape == (6, 8, 5)
    np.testing.assert_array_equal(small[..., 4:], images.resize(array[..., 4:], (6, 8)))
    np.testing.assert_array_equal(small[..., :3], images.resize(array[..., :3], (6, 8)))
    wide = images.resize(array.astype(np.uint16) * 257, (6, 8))
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - small).max() < 1.1  # one filter at both depths
    assert len(np.unique(wide % 257)) > 100  # and all 16 bits are in use


def test_16_bit_resize_clips_its_overshoot():
    edge = np.zeros((8, 8, 1), np.uint16)
    edge[:, 4:] = 65535
    large = images.resize(edge, (8, 32))
    assert large.min() == 0 and large.max() == 65535
    assert (np.diff(large[0, :, 0].astype(int))[8:24] >= 0).all()  # no wrap around at either end


def test_resize_to_its_own_size_changes_nothing():
    array = noise(6, 8, 3)
    assert images.resize(array, (6, 8)) is array


def test_crop_centre():
    array = np.arange(5 * 6).reshape(5, 6, 1)
    np.testing.assert_array_equal(images.crop_centre(array, (2, 2))[..., 0], [[8, 9], [14, 15]])
