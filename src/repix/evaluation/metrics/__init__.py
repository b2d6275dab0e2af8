"""The metrics, one file for each: what it computes, and the definition that is published with every number.

``repix.metrics.METRICS`` names the metrics; the file of each holds a :class:`Scorer` under the name
``SCORER``. The rules that all of them share:

- Images arrive as integer arrays (n, height, width, channels) with the value range of their
  side: ``low`` and ``high`` are, per channel, the integers that stand for -1 and +1.
  :func:`repix.evaluation.unit_range` scales them to float64 in [0, 1].
- Sums run in float64 in a fixed order, and random numbers follow from a fixed seed that the
  definition names: under the portable profile the same arrays give the same bits.
- No metric depends on batch size or on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """What a metric says of one set of translations.

    Attributes:
        value: the number; None where there is none, for the ``reason``.
        reason: why there is no number.
        details: results that describe the number and that no comparison reads; JSON.
        per_image: (n,) float64, of paired metrics.
        definition: parts of the definition that follow from the images; JSON.
    """

    value: float | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    per_image: np.ndarray | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_images(cls, values: np.ndarray, **given: Any) -> Score:
        """Return the mean over images, with the number of each.

        Args:
            values: (n,) float64.
            given: further attributes.
        """
        return cls(float(values.mean()), per_image=values, **given)


def _always(height: int, width: int) -> None:
    return None


@dataclass(frozen=True)
class Scorer:
    """How a metric is computed.

    Attributes:
        definition: what a number has to be published with, and must share with whatever it is
            compared with; JSON.
        function: returns a :class:`Score` with a value. Of a paired metric it takes ``outputs,
            targets, low, high``; of a distribution metric ``outputs, reference``, (n, h, w, c) and
            (m, h, w, c); on features ``outputs, reference``, (n, dims) and (m, dims). Of kind ``training``
            it takes ``ours, real``, the distances of outputs (n,) and of real test photos (m,) to their nearest
            training photos; of kind ``labels`` those of a paired metric and ``labels, (low, high), colours``; of
            kind ``network`` ``outputs, targets, network``, the images as (n, h, w, 3) uint8.
        unavailable: of the images' height and width: why they cannot be scored, or None.
        details: further details of a metric on features, of what ``function`` takes; computed
            only where descriptions are asked for.
    """

    definition: Mapping[str, Any]
    function: Callable[..., Score]
    unavailable: Callable[[int, int], str | None] = _always
    details: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]] | None = None
