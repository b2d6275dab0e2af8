"""Integer arrays to image files: equal arrays are equal bytes, and no bit is lost but in JPEG.

Pillow writes 8 bits and 16 of gray; 16-bit colour PNG goes through TensorFlow's libpng, TIFF through tifffile
(which scikit-image brings along).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repix.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

JPEG_QUALITY = 95


def write(path: str | Path, array: np.ndarray) -> None:
    """Write (H, W) or (H, W, C) in the format of the suffix; the values keep their depth.

    PNG takes 1 to 4 channels of 8 or 16 bits, TIFF and .npy any number of them, JPEG 8 bits of
    1 or 3 channels (lossy). The bytes are a function of the array alone. For an out, write
    inside :func:`repix.files.atomic_folder` or to a path from :func:`repix.files.atomic_path`.

    Raises:
        UserError: another suffix, or an array that the format cannot hold without loss.
    """
    path = Path(path)
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.dtype not in (np.uint8, np.uint16):
        given = f"{pixels.dtype} numbers of shape {pixels.shape}"
        raise UserError(f"{path}: {given}; expected uint8 or uint16 (height, width, channels)")
    channels, bits, suffix = pixels.shape[2], pixels.dtype.itemsize * 8, path.suffix.lower()
    if suffix == ".npy":
        np.save(path, pixels)
    elif suffix in (".tif", ".tiff"):
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
        _to_pillow(pixels).save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        known = "PNG holds 1 to 4 channels, JPEG 1 or 3 of 8 bits, TIFF and .npy any"
        raise UserError(f"{path}: cannot hold {channels} channels of {bits} bits; {known}")


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    """Return uint8 of 1 to 4 channels, or uint16 of one, as a Pillow image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
