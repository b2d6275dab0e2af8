"""A batch is a function: ``batch(step)`` follows from the seed, and no iterator exists.

Resuming is counting, and the order is the same on every backend.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from repix import rng
from repix.errors import UserError


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return how many whole batches an epoch has, at least one: a smaller set goes round in it."""
    return max(1, examples // batch_size)


class Sampler:
    """Random access to the batches of a training.

    Args:
        source, target: (n, height, width, channels) integer arrays, memory-mapped or not.
            In a paired set row i of both belong together.
        seed: the cell's seed.
        batch_size: examples in a batch.
        crop_size: (height, width) cut out at random, the same window from both of a pair.
        flip: whether to mirror left to right, half of the time, both of a pair alike.
        paired: whether rows belong together; otherwise the two sides are drawn independently.
        replacement: draw each example anew instead of going through a permutation.
        uniforms: uniform random numbers that come with each example, see :class:`repix.systems.system.Batch`.

    Raises:
        UserError: the crop is larger than the images.
    """

    def __init__(
        self,
        source: np.ndarray,
        target: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        crop_size: tuple[int, int],
        flip: bool,
        paired: bool = True,
        replacement: bool = False,
        uniforms: int = 0,
    ):
        for array in (source, target):
            if array.shape[1] < crop_size[0] or array.shape[2] < crop_size[1]:
                raise UserError(
                    f"cannot crop {crop_size[0]}x{crop_size[1]} from images of {array.shape[1]}x{array.shape[2]}; "
                    f"lower the data set's crop_size"
                )
        self.source, self.target = source, target
        self.seed, self.batch_size, self.crop_size = seed, batch_size, crop_size
        self.flip, self.paired, self.replacement, self.uniforms = flip, paired, replacement, uniforms
        self.examples = max(len(source), len(target))
        self.steps_per_epoch = steps_per_epoch(self.examples, batch_size)
        # One epoch's table is 40 bytes an example; the next epoch replaces it.
        self._table = lru_cache(maxsize=4)(self._make_table)

    def _make_table(self, epoch: int, turn: int, side: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (order of examples, per place the crop's top, left and the flip)."""
        raw = rng.named("batch", self.seed, epoch, side, *([turn] if turn else [])).words(n, 4)
        order = (
            (raw[:, 0] % np.uint64(n)).astype(np.int64) if self.replacement else np.argsort(raw[:, 0], kind="stable")
        )
        return order, raw[:, 1:]

    def _rows(self, step: int, side: str, n: int) -> list[tuple[int, np.ndarray]]:
        """Return (example, random words for its crop and flip) for each place of a batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = []
        for i in range(place * self.batch_size, (place + 1) * self.batch_size):
            # The smaller side of an unpaired set, or a set smaller than a batch, goes round:
            # each turn has an order, crops and flips of its own.
            order, words = self._table(epoch, i // n, side, n)
            rows.append((int(order[i % n]), words[i % n]))
        return rows

    def _window(self, array: np.ndarray, rows: list[tuple[int, np.ndarray]]) -> list[tuple[int, int, int, bool]]:
        """Return (example, top, left, mirrored) for each place of a batch."""
        height, width = self.crop_size
        return [
            (
                example,
                int(word[0] % np.uint64(array.shape[1] - height + 1)),
                int(word[1] % np.uint64(array.shape[2] - width + 1)),
                self.flip and bool(word[2] >> np.uint64(63)),
            )
            for example, word in rows
        ]

    def _cut(self, array: np.ndarray, windows: list[tuple[int, int, int, bool]]) -> np.ndarray:
        height, width = self.crop_size
        batch = np.empty((len(windows), height, width, array.shape[3]), array.dtype)
        for place, (example, top, left, mirrored) in enumerate(windows):
            window = array[example, top : top + height, left : left + width]
            if mirrored:
                # Channel by channel takes a third of the time: NumPy has no fast copy of mirrored pixels.
                for channel in range(array.shape[3]):
                    batch[place, ..., channel] = window[:, ::-1, channel]
            else:
                batch[place] = window
        return batch

    def _windows(self, step: int) -> tuple[list, list]:
        if self.paired:
            rows = self._rows(step, "pair", len(self.source))
            return self._window(self.source, rows), self._window(self.target, rows)
        return (
            self._window(self.source, self._rows(step, "source", len(self.source))),
            self._window(self.target, self._rows(step, "target", len(self.target))),
        )

    def _uniforms(self, step: int) -> np.ndarray:
        return rng.named("draws", self.seed, step).float32(self.batch_size, self.uniforms)

    def windows(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what :meth:`batch` does, with windows to cut where it has images.

        Shapes: (batch, 4) int32 twice: example, top, left, whether mirrored; and the uniforms.
        """
        source, target = self._windows(step)
        return np.array(source, np.int32), np.array(target, np.int32), self._uniforms(step)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (source, target, uniforms) of a step, counted from 0 over all epochs.

        Shapes: (batch, height, width, channels) twice, and (batch, uniforms) float32 in [0, 1).
        """
        source, target = self._windows(step)
        return self._cut(self.source, source), self._cut(self.target, target), self._uniforms(step)
