"""``limits``: what an archive and its images may ask of this machine."""

from __future__ import annotations

from pydantic import Field

from repix.config.reader import Settings


class Limits(Settings):
    """What an archive and its images may ask of this machine before they are refused.

    Attributes:
        pixels: most pixels of one image, counted before it is decoded; each four channels count as one.
        download_bytes: most bytes of one archive.
        unpack_bytes: most bytes of all files in it together.
        unpack_files: most files in it.
        unpack_ratio: most bytes out for one byte in (a zip bomb has thousands).
        image_tree: whether the unpacked files are kept, and cached by DVC; otherwise ``preprocess`` unpacks the
            archive for itself, and only for as long as it reads.
    """

    pixels: int = Field(default=100_000_000, gt=0)
    download_bytes: int = Field(default=20_000_000_000, gt=0)
    unpack_bytes: int = Field(default=50_000_000_000, gt=0)
    unpack_files: int = Field(default=1_000_000, gt=0)
    unpack_ratio: float = Field(default=200.0, gt=1)
    image_tree: bool = True
