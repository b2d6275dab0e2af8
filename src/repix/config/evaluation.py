"""``evaluate`` and ``features``: which metrics a cell gets, and on which features."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, create_model, field_validator, model_validator

from repix.config.reader import Settings
from repix.metrics import ASK_FOR_FEATURES, METRICS, OWN_NETWORK


class FeatureWeights(Settings):
    """``features.<name>``: one file of weights, of Inception or (``lpips``) of AlexNet, an input like any archive.

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


class _Common(Settings):
    """The keys of ``evaluate`` that are no metric.

    Attributes:
        features: entry under ``features`` whose weights fid, kid and the like use; null without them.
        dims: feature layers of pytorch-fid's Inception: 2048 is what FID means; 64, 192 and
            768 carry their dims in the metric's name.
        paper_mode: also score the translator with dropout on, as the pix2pix paper tests it.
        labels: which half of the data set holds label maps, for ``classcolour``.
        label_colours: the table of label colours, in the stored integers of that half; null rounds each channel to
            four steps, which tells apart the colours of the façades.
    """

    features: str | None = None
    dims: tuple[Literal[64, 192, 768, 2048], ...] = Field(default=(2048,), min_length=1)
    paper_mode: bool = False
    labels: Literal["source", "target"] = "source"
    label_colours: tuple[tuple[int, ...], ...] | None = Field(default=None, min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> _Common:
        if self.on_features and self.features is None:
            asked = " and ".join(name for name in ASK_FOR_FEATURES if getattr(self, name))
            raise ValueError(f"{asked}: on features: name an entry of `features`, or switch off what takes them")
        if len(set(self.dims)) != len(self.dims):
            raise ValueError("dims names a layer twice")
        return self

    @property
    def on_features(self) -> bool:
        """Whether a metric is on that compares features, so that their network is needed."""
        return any(getattr(self, name) for name in ASK_FOR_FEATURES)

    @property
    def weights(self) -> tuple[str, ...]:
        """The entries of ``features`` whose weights are needed."""
        common = (self.features,) if self.on_features else ()
        return common + tuple(name for name in OWN_NETWORK if getattr(self, name))


Evaluate = create_model(
    "Evaluate",
    __base__=_Common,
    **{metric.name: (bool, metric.default) for metric in METRICS if metric.default is not None},
)
"""``evaluate``: the metrics of every cell: beside the common keys one switch, true or false, for each
metric of :mod:`repix.metrics` that has a default. L1, PSNR and SSIM are always computed for pairs."""
