"""Image files to integer arrays and back, with every bit that the file holds.

Arrays are (height, width, channels), ``uint8`` or ``uint16``, upright (EXIF orientation is
applied on reading). Pillow reads and writes what it can do without loss; it truncates 16-bit
RGB to 8 bits, so 16-bit colour PNG goes through TensorFlow's libpng and 16-bit or n-channel
TIFF through tifffile (which scikit-image brings along).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from repix.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Colour = Literal["rgb", "gray", "lab", "raw"]

PILLOW_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".webp")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*PILLOW_SUFFIXES, *TIFF_SUFFIXES, ".npy")
FULL = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
ORIENTATION = 0x0112  # the EXIF and TIFF tag
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ONE_HEADER_AT_A_TIME = threading.Lock()


class BadImageError(UserError):
    """One image that cannot be used: ``path`` and, apart from it, the ``reason``."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Decoded(NamedTuple):
    """What a file holds, before any conversion.

    Attributes:
        pixels: (height, width, channels) ``uint8`` or ``uint16``.
        bands: what the channels are: L, LA, RGB, RGBA, CMYK, or ``n`` for anything else.
    """

    pixels: np.ndarray
    bands: str


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1 to 8; anything else is taken as upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _holds_16_bit_colour(path: Path) -> bool:
    """Return whether a file is a PNG of 16 bits and more than one channel (read off its header)."""
    with open(path, "rb") as stream:
        head = stream.read(26)
    return head.startswith(PNG_SIGNATURE) and len(head) == 26 and head[24] == 16 and head[25] != 0


def _bands(channels: int) -> str:
    """Return the bands of an array that says no more than its channel count."""
    return {1: "L", 3: "RGB"}.get(channels, "n")


def from_array(array: np.ndarray, path: str | Path) -> Decoded:
    """Take an array (height, width) or (height, width, channels) as an image; ``path`` names it in errors.

    Raises:
        BadImageError: another number of dimensions, or numbers that are not uint8 or uint16.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise BadImageError(path, f"an array of shape {array.shape}; expected (height, width, channels)")
    if array.dtype.newbyteorder("=") not in FULL:
        raise BadImageError(path, f"{array.dtype} numbers; expected uint8 or uint16")
    return Decoded(array.astype(array.dtype.newbyteorder("="), copy=False), _bands(array.shape[2]))


def _decode_npy(path: Path, header_only: bool) -> Decoded:
    # A header is a Python literal, and Python's parser (3.11 at least) counts the nesting of all threads together
    # (python/cpython#106905): without the lock a sound file is refused once in a while.
    with _ONE_HEADER_AT_A_TIME:
        array = np.load(path, mmap_mode="r" if header_only else None, allow_pickle=False)
    return from_array(array, path)


def _decode_png16(path: Path) -> Decoded:
    import tensorflow as tf
    from PIL import Image

    with Image.open(path) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
    with tf.device("CPU"):
        pixels = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
    return Decoded(_upright(pixels, orientation), {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]])


def _decode_tiff(path: Path, header_only: bool) -> Decoded | None:
    """Read a TIFF with tifffile, or return None where Pillow reads it as well and knows more of colour."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page, series = file.pages[0], file.series[0]
        if len(file.pages) == 1 and page.bitspersample <= 8 and page.extrasamples in ((), (1,), (2,)):
            return None
        axes = series.axes
        if page.photometric > 2:  # 0 and 1 are gray, 2 is RGB
            raise BadImageError(
                path, f"a {page.bitspersample}-bit TIFF in {page.photometric.name}; expected gray or RGB"
            )
        if len(file.series) > 1 or not {"Y", "X"} <= set(axes) or series.ndim > 3:
            raise BadImageError(path, f"holds {len(file.pages)} pages ({axes} {series.shape}); expected one image")
        # The axis that is neither height nor width is the channels, whether samples or pages.
        order = [axes.index("Y"), axes.index("X"), *(i for i, axis in enumerate(axes) if axis not in "YX")]
        if header_only:
            pixels = np.broadcast_to(np.zeros((), series.dtype), series.shape)
        else:
            pixels = series.asarray()
        decoded = from_array(pixels.transpose(order), path)
        if page.photometric == 0:  # white is zero
            decoded = decoded._replace(pixels=FULL[decoded.pixels.dtype] - decoded.pixels)
        orientation = page.tags.valueof(ORIENTATION, 1)
        alpha = {2: "LA", 4: "RGBA"}.get(decoded.pixels.shape[2])
        # Extra samples 1 and 2 are alpha by the TIFF standard, 0 is unspecified: plain channels.
        bands = alpha if alpha and page.extrasamples and page.extrasamples[0] in (1, 2) else decoded.bands
        return Decoded(_upright(decoded.pixels, orientation), bands)


def _decode_pillow(path: Path, header_only: bool) -> Decoded:
    from PIL import Image

    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise BadImageError(path, f"holds {image.n_frames} frames; expected one image")
        orientation = image.getexif().get(ORIENTATION, 1)
        if header_only:
            return Decoded(_upright(np.broadcast_to(np.uint8(0), (image.height, image.width, 1)), orientation), "L")
        image.load()
        pixels, bands = _pillow_pixels(image, path)
    return Decoded(_upright(pixels, orientation), bands)


def _pillow_pixels(image: Image.Image, path: Path) -> tuple[np.ndarray, str]:
    """Return the pixels and bands of a loaded Pillow image of any mode."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # 16-bit PGM opens as "I"
        return np.asarray(image).astype(np.uint16)[..., None], "L"
    if mode in ("P", "PA"):
        mode = "RGBA" if mode == "PA" or "transparency" in image.info else "RGB"
    elif "transparency" in image.info and mode in ("L", "RGB"):  # PNG's one transparent colour
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}.get(mode, mode)
    if mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise BadImageError(path, f"Pillow mode {mode}; expected 8 or 16 bits per channel: gray, RGB, or a palette")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return (pixels[..., None] if pixels.ndim == 2 else pixels), mode


def _decode(path: Path, header_only: bool) -> Decoded:
    try:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            return _decode_npy(path, header_only)
        if suffix in TIFF_SUFFIXES:
            decoded = _decode_tiff(path, header_only)
            if decoded is not None:
                return decoded
        elif not header_only and _holds_16_bit_colour(path):
            return _decode_png16(path)
        return _decode_pillow(path, header_only)
    except FileNotFoundError:
        raise BadImageError(path, "no such file") from None
    except BadImageError:
        raise
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, TiffFileError ...
        what = " ".join(str(error).split()).replace(str(path), path.name)
        if type(error).__name__ == "UnidentifiedImageError":
            what = "not an image, or damaged at its start"
        raise BadImageError(path, f"cannot be decoded: {what[:200] or type(error).__name__}") from None


def decode(path: str | Path) -> Decoded:
    """Read a file as it is: upright, every bit kept, palettes and 1-bit expanded.

    Raises:
        BadImageError: no such file, not an image, truncated, several frames, or numbers that are
            neither 8 nor 16 bits.
    """
    return _decode(Path(path), header_only=False)


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an upright image, read off the file's header where it tells.

    (A PNG may keep its EXIF orientation behind the pixels, so Pillow reads all of it.)

    Raises:
        BadImageError: as for :func:`decode`, as far as the header shows it.
    """
    pixels = _decode(Path(path), header_only=True).pixels
    return pixels.shape[0], pixels.shape[1]


def to_gray(rgb: np.ndarray) -> np.ndarray:
    """Return the luma of (H, W, 3) as (H, W, 1): ITU-R 601-2 in Pillow's fixed-point arithmetic, at any depth."""
    red, green, blue = (rgb[..., i].astype(np.uint32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(rgb.dtype)[..., None]


def convert(decoded: Decoded, path: str | Path, *, colour: Colour, channels: int, bit_depth: int = 8) -> np.ndarray:
    """Bring what a file holds to the colour, channels and depth that a data set asks for.

    Without loss, or not at all: opaque alpha is dropped, 8 bits widen to 16 (times 257), gray
    repeats as RGB. The two conversions that lose are those that one asks for: RGB to one
    channel (luma) and CMYK to RGB (without a profile, as Pillow does).

    Args:
        decoded: pixels and bands.
        path: names the image in errors.
        colour: ``raw`` keeps the channels as stored; any other yields gray or RGB.
        channels: 1 or 3; any number for ``raw``.
        bit_depth: 8 or 16.

    Returns:
        (height, width, channels) of ``uint8`` or ``uint16``.

    Raises:
        BadImageError: transparency, other channels, or more bits than ``bit_depth``.
    """
    pixels, bands = decoded
    if colour == "raw":
        if pixels.shape[2] != channels:
            raise BadImageError(path, f"has {pixels.shape[2]} channels ({bands}), expected {channels}")
    elif bands == "n":
        raise BadImageError(path, f"has {pixels.shape[2]} channels; only colour: raw takes other than gray and RGB")
    else:
        pixels = _gray_or_rgb(pixels, bands, path)
        if channels == 1 and pixels.shape[2] == 3:
            pixels = to_gray(pixels)
        elif channels == 3 and pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        elif channels != pixels.shape[2]:
            raise BadImageError(path, f"cannot become {channels} channels; colour: {colour} has 1 or 3")
    if bit_depth == 8 and pixels.dtype == np.uint16:
        raise BadImageError(path, "has 16 bits per channel, expected 8; set bit_depth: 16 or convert it")
    if bit_depth == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    return pixels


def _gray_or_rgb(pixels: np.ndarray, bands: str, path: str | Path) -> np.ndarray:
    """Return one channel or three: without an opaque alpha, and CMYK as RGB."""
    if bands in ("LA", "RGBA"):
        if pixels[..., -1].min() < FULL[pixels.dtype]:
            raise BadImageError(path, f"has transparency ({bands}); flatten it onto a background")
        return pixels[..., :-1]
    if bands == "CMYK":
        from PIL import Image

        height, width = pixels.shape[:2]
        return np.asarray(Image.frombytes("CMYK", (width, height), pixels.tobytes()).convert("RGB"))
    return pixels


def read(path: str | Path, *, colour: Colour = "rgb", channels: int = 3, bit_depth: int = 8) -> np.ndarray:
    """Read one image as (height, width, channels); see :func:`decode` and :func:`convert`.

    Raises:
        BadImageError: it cannot be decoded, or is not what was asked for.
    """
    return convert(decode(path), path, colour=colour, channels=channels, bit_depth=bit_depth)


def resize(array: np.ndarray, size: tuple[int, int], resample: str = "bicubic") -> np.ndarray:
    """Resize (H, W, C) to ``size`` = (height, width) with Pillow's antialiased filters.

    8-bit images go through Pillow's own fixed-point resize, RGB at once and other counts channel
    by channel; 16-bit ones through 32-bit floats, rounded and clipped back.

    Args:
        array: ``uint8`` or ``uint16``.
        size: (height, width).
        resample: bicubic, bilinear, nearest, lanczos or box.
    """
    from PIL import Image

    if array.shape[:2] == tuple(size):
        return array
    method = Image.Resampling[resample.upper()]
    extent = (size[1], size[0])
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return np.asarray(Image.fromarray(array).resize(extent, method))
    planes = []
    for channel in range(array.shape[2]):
        plane = array[..., channel]
        if array.dtype == np.uint8:
            planes.append(np.asarray(Image.fromarray(plane).resize(extent, method)))
        else:
            wide = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(extent, method))
            planes.append(np.clip(np.rint(wide), 0, FULL[array.dtype]).astype(array.dtype))
    return np.stack(planes, axis=2)


def crop_centre(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle (height, width) of (H, W, C); an odd remainder goes right and below."""
    top, left = (array.shape[0] - size[0]) // 2, (array.shape[1] - size[1]) // 2
    return array[top : top + size[0], left : left + size[1]]


def write(path: str | Path, array: np.ndarray, *, quality: int = 95) -> None:
    """Write (H, W) or (H, W, C) in the format of the suffix; the values keep their depth.

    PNG takes 1 to 4 channels of 8 or 16 bits, TIFF and .npy any number of them, JPEG 8 bits of
    1 or 3 channels (lossy). The bytes are a function of the array alone. For an out, write
    inside :func:`repix.files.atomic_folder` or to a path from :func:`repix.files.atomic_path`.

    Raises:
        UserError: another suffix, or an array that the format cannot hold without loss.
    """
    path = Path(path)
    pixels = from_array(np.asarray(array), path).pixels
    channels, bits, suffix = pixels.shape[2], pixels.dtype.itemsize * 8, path.suffix.lower()
    if suffix == ".npy":
        np.save(path, pixels)
    elif suffix in TIFF_SUFFIXES:
        import tifffile

        photometric = "rgb" if channels == 3 else "minisblack"
        planar = "contig" if channels > 1 else None
        data = pixels if channels > 1 else pixels[..., 0]
        tifffile.imwrite(path, data, photometric=photometric, planarconfig=planar, metadata=None, software=False)
    elif suffix == ".png" and channels <= 4:
        if bits == 16 and channels > 1:
            import tensorflow as tf

            with tf.device("CPU"):
                path.write_bytes(tf.io.encode_png(pixels).numpy())
        else:
            _to_pillow(pixels).save(path, format="PNG")
    elif suffix in (".jpg", ".jpeg") and bits == 8 and channels in (1, 3):
        _to_pillow(pixels).save(path, format="JPEG", quality=quality, subsampling=0)
    else:
        known = "PNG holds 1 to 4 channels, JPEG 1 or 3 of 8 bits, TIFF and .npy any"
        raise UserError(f"{path}: cannot hold {channels} channels of {bits} bits; {known}")


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    """Return uint8 of 1 to 4 channels, or uint16 of one, as a Pillow image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
