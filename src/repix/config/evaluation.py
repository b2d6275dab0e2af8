"""``evaluate`` and ``features``: which metrics a cell gets, and on which features."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from repix.config.reader import Settings


class FeatureWeights(Settings):
    """``features.<name>``: one file of Inception weights, an input like any archive.

    Attributes:
        urls: addresses of the file, tried in order: ``https://``, ``http://`` or ``file:``.
        sha256: the file's digest. It is required, since it is part of every number that
            is computed with the file; ``fid`` is the name of the published file's alone.
        licence: the licence or terms of the weights.
    """

    urls: tuple[str, ...] = Field(min_length=1)
    sha256: str
    licence: str = "unknown"

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("a sha256 is 64 hexadecimal digits in lower case")
        return value


class Evaluate(Settings):
    """``evaluate``: the metrics of every cell. L1, PSNR and SSIM are always computed for pairs.

    Attributes:
        swd: sliced Wasserstein distance; needs no weights, takes seconds.
        fid: Frechet distance on the features of ``features``, once per entry of ``dims``.
        kid: kernel distance on the same features.
        features: entry under ``features`` whose weights fid and kid use; null without them.
        dims: feature layers of pytorch-fid's Inception: 2048 is what FID means; 64, 192 and
            768 carry their dims in the metric's name.
        paper_mode: also score the translator with dropout on, as the pix2pix paper tests it.
    """

    swd: bool = True
    fid: bool = False
    kid: bool = False
    features: str | None = None
    dims: tuple[Literal[64, 192, 768, 2048], ...] = Field(default=(2048,), min_length=1)
    paper_mode: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Evaluate:
        if (self.fid or self.kid) and self.features is None:
            raise ValueError("fid and kid take features: name an entry of `features`, or switch both off")
        if len(set(self.dims)) != len(self.dims):
            raise ValueError("dims names a layer twice")
        return self
