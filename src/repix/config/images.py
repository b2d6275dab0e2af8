"""``datasets.<name>.images``: how the files of an archive become arrays."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repix.config.reader import Settings

Size = int | tuple[int, int]

JITTER = 286 / 256  # load size by crop size, as in pix2pix
CHANNELS = {"rgb": (3, 3), "gray": (1, 1), "lab": (1, 2), "raw": (3, 3)}


def height_width(size: Size) -> tuple[int, int]:
    """Return a size as (height, width); one number is a square."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def load_size(crop: tuple[int, int]) -> tuple[int, int]:
    """Return the size (height, width) that train images are stored at, for a crop of this size to be drawn from."""
    return round(crop[0] * JITTER), round(crop[1] * JITTER)


class Images(Settings):
    """What the images are, and the sizes that they are stored and seen at; the defaults are those of pix2pix.

    Attributes:
        layout: how images lie in the tree. ``aligned``: source and target side by side in
            one file, per split folder; ``unaligned``: folders trainA, trainB, testA, testB;
            ``folders``: two parallel folders per split, ``<split>/A`` and ``<split>/B``,
            paired by file name (whatever the extension, and whatever all names of a side end
            or begin in); ``hdf5``: the book's ``training/images/*.h5`` tree;
            ``single``: one image, both sides derived from it (Lab colourisation).
        direction: which side is the source: AtoB (left to right) or BtoA.
        colour: rgb, gray, lab (source L, target a and b), or raw (n channels as stored).
        channels: channels of source and target, [source, target]; 1 converts to grey. Where it is not
            given it follows from ``colour``: :data:`CHANNELS`.
        bit_depth: 8 or 16 bits per channel, from file to array.
        resize: how an image reaches ``load_size``: ``resize_and_crop`` (resize to load
            size, train crops), ``crop`` (no resize, train crops), ``scale_width`` (width to
            load size, height in proportion), ``pad`` (no resize; images up to crop size are mirrored at their
            borders, to load size in train), ``none``.
        resample: interpolation of the resize.
        load_size: size that training images are stored at, n or [height, width].
        crop_size: size that networks see, n or [height, width]; other splits are stored
            at this size.
        val_fraction: where the archive has no val split, this fraction of train becomes
            it, chosen by hash of the file name.
        test_fraction: the same for test, where the archive has neither test nor val; images in
            no split folders at all are then taken, too.
        on_error: ``strict`` stops at broken images, after listing all of them; ``skip``
            leaves them out and counts them in the manifest.
    """

    layout: Literal["aligned", "unaligned", "folders", "hdf5", "single"] = "aligned"
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    colour: Literal["rgb", "gray", "lab", "raw"] = "rgb"
    channels: tuple[int, int] = Field(default=None, validate_default=True)
    bit_depth: Literal[8, 16] = 8
    resize: Literal["resize_and_crop", "crop", "scale_width", "pad", "none"] = "resize_and_crop"
    resample: Literal["bicubic", "bilinear", "nearest", "lanczos", "box"] = "bicubic"
    load_size: Size = 286
    crop_size: Size = 256
    val_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    test_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    on_error: Literal["strict", "skip"] = "strict"

    @field_validator("channels", mode="before")
    @classmethod
    def _of_the_colour(cls, value: Any, info: ValidationInfo) -> Any:
        return CHANNELS[info.data.get("colour", "rgb")] if value is None else value

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
    def _consistent(self) -> Images:
        if self.resize in ("resize_and_crop", "pad"):
            load, crop = height_width(self.load_size), height_width(self.crop_size)
            if crop[0] > load[0] or crop[1] > load[1]:
                raise ValueError(
                    f"crop_size {crop} is larger than load_size {load}; raise load_size or lower crop_size"
                )
        if self.resize == "scale_width" and height_width(self.crop_size)[1] > height_width(self.load_size)[1]:
            raise ValueError(
                f"crop_size {height_width(self.crop_size)} is wider than the {height_width(self.load_size)[1]} px "
                f"that load_size scales to; raise load_size or lower crop_size"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing of train; lower one")
        if (self.colour == "lab") != (self.layout == "single"):
            raise ValueError("colour: lab and layout: single go together, and only together")
        if self.colour in ("lab", "gray") and self.channels != CHANNELS[self.colour]:
            raise ValueError(f"colour: {self.colour} has channels {list(CHANNELS[self.colour])}; leave channels out")
        return self

    @property
    def paired(self) -> bool:
        """Whether every source image has its target."""
        return self.layout != "unaligned"
