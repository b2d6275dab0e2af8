"""The table of metrics: what each is called, which way is better, and what it compares.

A new metric is one line here and one file, ``repix/evaluation/metrics/<name>.py``, which computes it
(see :mod:`repix.evaluation.metrics`). Scoring, the gate's configuration and verdicts, the model card,
the gallery and the demo read this table. It imports nothing, so that the gate judges without arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its name in ``metrics/<cell>.json``; letters and digits.
        better: whether a ``lower`` or a ``higher`` value is better.
        kind: ``paired``: each translation against its own target, one number an image.
            ``distribution``: the set of translations against the set of real images.
            ``features``: the same on the features of a network, once for each of
            ``evaluate.dims``; the name may then be followed by what the features are (``fid_768``).
            ``training``: the set of translations against the training images, on features where a
            metric asks for them, else on pixels. ``labels``: as ``paired``, in the regions of the
            label maps. ``network``: as ``paired``, through a network with weights of its own,
            the entry of the metric's name under ``features``.
        default: whether it is computed where ``evaluate.<name>`` in params.yaml says nothing. None: it
            has no such switch; it is always computed (on features: wherever another metric asks for them).
        listed: whether ``metrics/<cell>.json`` says that it was not asked for, where that is so.
    """

    name: str
    better: Literal["lower", "higher"]
    kind: Literal["paired", "distribution", "features", "training", "labels", "network"]
    default: bool | None = None
    listed: bool = True


METRICS = (
    Metric("l1", "lower", "paired"),
    Metric("psnr", "higher", "paired"),
    Metric("ssim", "higher", "paired"),
    Metric("swd", "lower", "distribution", default=True),
    Metric("fid", "lower", "features", default=False),
    Metric("kid", "lower", "features", default=False),
    Metric("precision", "higher", "features", default=False, listed=False),
    Metric("recall", "higher", "features", default=False, listed=False),
    Metric("density", "higher", "features", default=False, listed=False),
    Metric("coverage", "higher", "features", default=False, listed=False),
    Metric("memorisation", "higher", "training", default=False, listed=False),
    Metric("lpips", "lower", "network", default=False, listed=False),
    Metric("classcolour", "lower", "labels", default=False, listed=False),
)

NAMES = tuple(metric.name for metric in METRICS)
ASK_FOR_FEATURES = tuple(m.name for m in METRICS if m.kind == "features" and m.default is not None)
"""The metrics whose switch brings the features."""
OWN_NETWORK = tuple(m.name for m in METRICS if m.kind == "network")
"""The metrics whose switch brings weights of their own, ``features.<metric>``."""


def find(name: str) -> Metric | None:
    """Return the metric of a score by its name (``fid_768`` is a ``fid``), or None if it is unknown."""
    first = name.split("_")[0]
    return next((metric for metric in METRICS if metric.name == first), None)


def better(name: str) -> Literal["lower", "higher"] | None:
    """Return which value of a score is better, or None if its metric is unknown."""
    metric = find(name)
    return metric and metric.better


def direction(name: str) -> int | None:
    """Return +1 where a higher value of a score is better, -1 where a lower one is, None if unknown."""
    return {"higher": 1, "lower": -1, None: None}[better(name)]
