"""Trivial predictors that a trained model has to beat: on L1 they come close to a trained generator, or beat it."""

from __future__ import annotations

import numpy as np

from repix.schemas import Side

_GRID = 64  # most points a side that nearest_neighbour compares
_COMPARISONS_AT_ONCE = 1 << 24
_ROWS_OF_VALUES_AT_ONCE = 1 << 24


MOST_CHANNELS = 16
"""Of label maps: there is a number for each code that so many channels can make."""


def _label_codes(images: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return one int32 code per pixel: each channel rounded to few steps between low and high.

    Four steps tell apart the palettes of label maps (0, 85, 170, 255) and forgive the noise
    that JPEG leaves around them; with many channels two steps keep the codes few.
    """
    channels = images.shape[-1]
    steps = 4 if channels <= 6 else 2
    span = np.where(high > low, high - low, np.inf)  # a channel that never varies tells no label apart
    codes = np.zeros(images.shape[:-1], np.int32)
    for c in range(channels):
        digit = np.rint((images[..., c] - low[c]) * ((steps - 1) / span[c]))
        codes = codes * steps + digit.clip(0, steps - 1).astype(np.int32)
    return codes


def _label_range(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if images.shape[-1] > MOST_CHANNELS:
        raise ValueError(f"{images.shape[-1]} channels are too many for label maps")
    return images.min(axis=(0, 1, 2)).astype(np.float64), images.max(axis=(0, 1, 2)).astype(np.float64)


def constant_colour_per_label(
    train_source: np.ndarray, train_target: np.ndarray, test_source: np.ndarray
) -> np.ndarray:
    """Return test images painted with the mean training colour of each source colour.

    Args:
        train_source, train_target: (n, h, w, c) and (n, h, w, k) integers.
        test_source: (m, h', w', c) integers.

    Returns:
        (m, h', w', k) of the dtype of train_target. Labels never seen get the mean of all.
    """
    low, high = _label_range(train_source)
    channels = train_target.shape[-1]
    labels = 4 ** train_source.shape[-1] if train_source.shape[-1] <= 6 else 2 ** train_source.shape[-1]
    count = np.zeros(labels, np.int64)
    total = np.zeros((labels, channels), np.float64)
    for source, target in zip(train_source, train_target, strict=True):
        codes = _label_codes(source, low, high).ravel()
        count += np.bincount(codes, minlength=labels)
        for c in range(channels):
            total[:, c] += np.bincount(codes, weights=target[..., c].ravel(), minlength=labels)
    colours = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], total.sum(axis=0) / count.sum())
    colours = np.rint(colours).astype(train_target.dtype)
    painted = np.empty((*test_source.shape[:-1], channels), train_target.dtype)
    for i, source in enumerate(test_source):
        painted[i] = colours[_label_codes(source, low, high)]
    return painted


def median_image(train_target: np.ndarray, n: int) -> np.ndarray:
    """Return the pixel-wise median of the training targets, n times, as a read-only view.

    Args:
        train_target: (m, h, w, k) integers.
    """
    row_values = int(np.prod(train_target.shape)) // train_target.shape[1]
    at_once = max(1, _ROWS_OF_VALUES_AT_ONCE // max(1, row_values))
    median = np.concatenate(
        [
            np.rint(np.median(train_target[:, i : i + at_once], axis=0)).astype(train_target.dtype)
            for i in range(0, train_target.shape[1], at_once)
        ]
    )
    return np.broadcast_to(median, (n, *median.shape))


def nearest_neighbour(train_source: np.ndarray, train_target: np.ndarray, test_source: np.ndarray) -> np.ndarray:
    """Return, for each test source, the target of the training source with the most equal labels.

    Labels are compared on a grid of at most 64 points a side; of equals the first wins.

    Args:
        train_source, train_target: (n, h, w, c) and (n, h, w, k) integers.
        test_source: (m, h, w, c) integers.

    Returns:
        (m, h, w, k) of the dtype of train_target.
    """
    if train_source.shape[1:] != test_source.shape[1:]:
        raise ValueError(f"sources of {train_source.shape[1:]} and {test_source.shape[1:]} cannot be compared")
    low, high = _label_range(train_source)
    stride = [-(-size // _GRID) for size in test_source.shape[1:3]]

    def codes(images: np.ndarray) -> np.ndarray:
        return _label_codes(images[:, :: stride[0], :: stride[1]], low, high).reshape(len(images), -1)

    wanted = codes(test_source)
    fewest = np.full(len(wanted), np.iinfo(np.int64).max)
    best = np.zeros(len(wanted), np.int64)
    at_once = max(1, _COMPARISONS_AT_ONCE // wanted.shape[1])
    for start in range(0, len(train_source), at_once):
        block = codes(train_source[start : start + at_once])
        for i, labels in enumerate(wanted):
            mismatches = (block != labels).sum(axis=1)
            j = int(mismatches.argmin())
            if mismatches[j] < fewest[i]:
                fewest[i], best[i] = mismatches[j], start + j
    return train_target[best]


def identity(test_source: np.ndarray, source: Side, target: Side) -> np.ndarray | None:
    """Return the source images as if they were translations, in the target's value range.

    One source channel serves all target channels.

    Returns:
        (m, h, w, target.channels) of the target's dtype; None where the channels do not match.
    """
    if source.channels not in (1, target.channels):
        return None
    low, high = np.asarray(source.low, np.float64), np.asarray(source.high, np.float64)
    new_low, new_high = np.asarray(target.low, np.float64), np.asarray(target.high, np.float64)
    result = np.empty((*test_source.shape[:-1], target.channels), target.dtype)
    for i, image in enumerate(test_source):
        result[i] = np.rint(new_low + (image - low) / (high - low) * (new_high - new_low))
    return result
