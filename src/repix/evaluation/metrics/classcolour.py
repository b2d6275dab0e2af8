"""Class colour error: how far the colour of each label's region is from that of the photo, lower is better.

Where one side is a label map, every image falls into the regions of its labels. Of each region the mean colour of
the translation is set against that of the target; labels count alike, however small they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repix.evaluation import UNIT_RANGE, check_pairs, unit_range
from repix.evaluation.metrics import Score, Scorer

STEPS = 4
MOST_CHANNELS = 31  # of a label map without a table of colours: of so many steps each, that 64 bits hold

PROTOCOL = {
    "definition": "absolute difference of the mean colours of output and target in the region of a label",
    "scale": UNIT_RANGE,
    "aggregate": "mean over channels, over the labels of an image, then over images",
}


def label_numbers(image: np.ndarray, colours: np.ndarray | None, low: Sequence[float], high: Sequence[float]):
    """Return the number of each pixel's label, (h, w) int64.

    Args:
        image: (h, w, channels) integers, a label map.
        colours: (labels, channels), the table of label colours in stored integers: a pixel has the nearest, the
            first of equal ones. None: each channel rounded to four steps of its range.
        low, high: value range per channel.
    """
    if colours is None:
        steps = np.rint(unit_range(image, low, high).clip(0.0, 1.0) * (STEPS - 1)).astype(np.int64)
        return steps @ STEPS ** np.arange(image.shape[-1] - 1, -1, -1)
    nearest, number = np.full(image.shape[:2], np.inf), np.zeros(image.shape[:2], np.int64)
    for i, colour in enumerate(colours):
        distance = np.square(image - np.asarray(colour, np.float64)).sum(axis=-1)
        number[distance < nearest] = i
        np.minimum(nearest, distance, out=nearest)
    return number


def class_colour_error(output: np.ndarray, target: np.ndarray, numbers: np.ndarray) -> dict[int, float]:
    """Return the error of each label that one image has, in [0, 1].

    Args:
        output, target: (h, w, c) float64 in [0, 1].
        numbers: (h, w) int64, from 0, the label of each pixel.
    """
    found, flat = np.unique(numbers.ravel(), return_inverse=True)
    count = np.bincount(flat)
    errors = np.zeros(len(count))
    for c in range(output.shape[-1]):
        errors += np.abs(np.bincount(flat, (output[..., c] - target[..., c]).ravel())) / count
    return {int(number): float(error / output.shape[-1]) for number, error in zip(found, errors, strict=True)}


def _score(outputs, targets, low, high, labels, label_range, colours) -> Score:
    """Return the score of (n, h, w, c) outputs with the label maps (n, h, w, k) that their regions come from."""
    check_pairs(outputs, targets)
    each, of_label = [], {}
    for output, target, image in zip(outputs, targets, labels, strict=True):
        numbers = label_numbers(image, colours, *label_range)
        errors = class_colour_error(unit_range(output, low, high), unit_range(target, low, high), numbers)
        each.append(sum(errors.values()) / len(errors))
        for number, error in errors.items():
            total, count = of_label.get(number, (0.0, 0))
            of_label[number] = total + error, count + 1
    details = {str(k): {"error": total / count, "images": count} for k, (total, count) in sorted(of_label.items())}
    return Score.of_images(np.array(each), details={"labels": details})


SCORER = Scorer(PROTOCOL, _score)
