"""How a training's curves are named and thinned: the same in MLflow and TensorBoard, live and from the loss table.

Viewers make a section of charts of the part of a name before its last slash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repix.training.history import Row

LOSS, WITHIN = "loss", "loss_within_epoch"
MOST_POINTS = 200  # within epochs, in a whole training: each is a request to a server


def grouped(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values of a row of the loss table by their curves.

    ``val_<score>`` becomes ``score/val/<score>``, the learning rate ``schedule/learning_rate``, and a
    loss ``loss/<name>``.
    """
    return {_curve(name): value for name, value in values.items()}


def _curve(name: str) -> str:
    if name.startswith("val_"):
        return f"score/val/{name.removeprefix('val_')}"
    return f"schedule/{name}" if name == "learning_rate" else f"{LOSS}/{name}"


def validation(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores of the val split by their curves, see :func:`grouped`."""
    return grouped({f"val_{name}": value for name, value in scores.items()})


class Within:
    """Mean losses at evenly spaced iterations, where a training has few epochs; else nothing.

    Args:
        plan: what an observer is told when a training starts.

    Attributes:
        every: iterations between two points; each is the mean of the losses since the one before.
    """

    def __init__(self, plan: Mapping[str, Any]):
        self.every = -(-plan["steps"] // MOST_POINTS)
        self._per_epoch = plan["steps_per_epoch"]
        self._seen: dict[str, list[float]] = {}

    def add(self, step: int, names: Sequence[str], losses: np.ndarray) -> list[Row]:
        """Take in the losses of a block and return the points that it completes.

        Args:
            step: iterations that are done after the block.
            names: its losses.
            losses: (iterations of the block, names).
        """
        if self.every >= self._per_epoch:
            return []
        points = []
        for number, row in enumerate(losses.tolist(), step - len(losses) + 1):
            for name, value in zip(names, row, strict=True):
                self._seen.setdefault(name, []).append(value)
            if number % self.every == 0:
                means = {f"{WITHIN}/{name}": sum(values) / len(values) for name, values in self._seen.items()}
                points.append(Row(-(-number // self._per_epoch), number, means))
                self._seen = {}
        return points
