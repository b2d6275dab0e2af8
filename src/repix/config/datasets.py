"""``datasets``: what the images are and how they become arrays."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from repix.config.reader import Settings

Size = int | tuple[int, int]


def height_width(size: Size) -> tuple[int, int]:
    """Return a size as (height, width); one number is a square."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class Dataset(Settings):
    """One entry of ``datasets``. Stages declare in dvc.yaml which of its keys they read.

    Attributes:
        urls: mirrors of one archive, tried in order: ``https://``, ``http://``, ``file:``
            or ``synthetic:<generator>?option=value``.
        sha256: the archive's digest; null records what came and says so.
        licence: the licence or terms of the images, shown by the data card.
        withdrawn: why the set can no longer be had; download then stops with this line.
        layout: how images lie in the tree. ``aligned``: source and target side by side in
            one file, per split folder; ``unaligned``: folders trainA, trainB, testA, testB;
            ``folders``: two parallel folders per split, ``<split>/A`` and ``<split>/B``,
            paired by file name; ``hdf5``: the book's ``training/images/*.h5`` tree;
            ``single``: one image, both sides derived from it (Lab colourisation).
        direction: which side is the source: AtoB (left to right) or BtoA.
        colour: rgb, gray, lab (source L, target a and b), or raw (n channels as stored).
        channels: channels of source and target, [source, target]; 1 converts to grey.
        bit_depth: 8 or 16 bits per channel, from file to array.
        resize: how an image reaches ``load_size``: ``resize_and_crop`` (resize to load
            size, train crops), ``crop`` (no resize, train crops), ``scale_width`` (width to
            load size, height in proportion), ``none``.
        resample: interpolation of the resize.
        load_size: size that training images are stored at, n or [height, width].
        crop_size: size that networks see, n or [height, width]; other splits are stored
            at this size.
        flip: whether training flips a pair horizontally, half of the time.
        val_fraction: where the archive has no val split, this fraction of train becomes
            it, chosen by hash of the file name.
        on_error: ``strict`` stops at broken images, after listing all of them; ``skip``
            leaves them out and counts them in the manifest.
    """

    urls: tuple[str, ...] = Field(min_length=1)
    sha256: str | None = None
    licence: str = "unknown"
    withdrawn: str | None = None
    layout: Literal["aligned", "unaligned", "folders", "hdf5", "single"]
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    colour: Literal["rgb", "gray", "lab", "raw"] = "rgb"
    channels: tuple[int, int] = (3, 3)
    bit_depth: Literal[8, 16] = 8
    resize: Literal["resize_and_crop", "crop", "scale_width", "none"] = "resize_and_crop"
    resample: Literal["bicubic", "bilinear", "nearest", "lanczos", "box"] = "bicubic"
    load_size: Size
    crop_size: Size
    flip: bool = True
    val_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    on_error: Literal["strict", "skip"] = "strict"

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("a sha256 is 64 hexadecimal digits in lower case, or null for not known")
        return value

    @field_validator("load_size", "crop_size")
    @classmethod
    def _positive(cls, value: Size) -> Size:
        if min(height_width(value)) < 1:
            raise ValueError("a size is n or [height, width], each at least 1")
        return value

    @field_validator("channels")
    @classmethod
    def _some_channels(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1:
            raise ValueError("channels are [source, target], each at least 1")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        if self.resize == "resize_and_crop":
            load, crop = height_width(self.load_size), height_width(self.crop_size)
            if crop[0] > load[0] or crop[1] > load[1]:
                raise ValueError(f"crop_size {crop} is larger than load_size {load}; raise load_size")
        if self.resize == "scale_width" and height_width(self.crop_size)[1] > height_width(self.load_size)[1]:
            raise ValueError(
                f"crop_size {height_width(self.crop_size)} is wider than the {height_width(self.load_size)[1]} px "
                f"that load_size scales to; raise load_size"
            )
        if (self.colour == "lab") != (self.layout == "single"):
            raise ValueError("colour: lab and layout: single go together, and only together")
        if self.colour == "lab" and self.channels != (1, 2):
            raise ValueError("colour: lab has channels [1, 2]: L, and a with b")
        if self.colour == "gray" and self.channels != (1, 1):
            raise ValueError("colour: gray has channels [1, 1]")
        return self

    @property
    def paired(self) -> bool:
        """Whether every source image has its target."""
        return self.layout != "unaligned"


class Limits(Settings):
    """``limits``: what an archive and its images may ask of this machine before they are refused.

    Attributes:
        pixels: most pixels of one image, counted before it is decoded; each four channels count as one.
        download_bytes: most bytes of one archive.
        unpack_bytes: most bytes of all files in it together.
        unpack_files: most files in it.
        unpack_ratio: most bytes out for one byte in (a zip bomb has thousands).
    """

    pixels: int = Field(default=100_000_000, gt=0)
    download_bytes: int = Field(default=20_000_000_000, gt=0)
    unpack_bytes: int = Field(default=50_000_000_000, gt=0)
    unpack_files: int = Field(default=1_000_000, gt=0)
    unpack_ratio: float = Field(default=200.0, gt=1)
