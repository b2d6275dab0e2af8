"""What the loop asks of a training step: the protocol that each backend's ``Step`` meets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np


def always(done: int) -> bool:
    """Return True: the ``go_on`` of a block that is not to end early."""
    return True


class Step(Protocol):
    """Iterations of one system on one data set: it owns the batches, the weights and Adam's state.

    A class that meets it is made as ``Step(system, optimizer, sampler, source, target, seed, ema)``:

    - system: a :class:`repix.systems.system.System`; its networks hold the weights.
    - optimizer: Adam's settings, the same for each optimizer group.
    - sampler: the batches, as a function of the iteration's number.
    - source, target: (low, high) of each side: the stored values of -1 and +1.
    - seed: the cell's seed, from which dropout masks follow.
    - ema: decay of the moving average of the generators' weights, or None: see :class:`repix.config.models.Recipe`.

    Beside it the file has ``join(run_key, parts)``: the :class:`~repix.training.gang.Alone` of this process.

    Attributes:
        steps_per_epoch: iterations in an epoch.
    """

    steps_per_epoch: int

    def run(
        self, first: int, count: int, rate: float, go_on: Callable[[int], bool] = always
    ) -> tuple[list[str], np.ndarray]:
        """Run a block of iterations ``first``, ``first + 1``, ... (from 0): at least one, at most ``count``.

        A block ends early where the next iteration has other updates, and so other losses; where
        ``go_on`` says so; or where the backend's largest block ends.

        Args:
            rate: learning rate.
            go_on: called once for each iteration with the number of iterations that are then done,
                ``first + 1`` onwards; False asks to end the block. A backend that runs a block as
                one call on the device calls it afterwards.

        Returns:
            (names of the losses, losses): float32 of shape (iterations that were run, names).
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes: weights, averages, Adam's moments and powers, image pools; by name."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything that changes to what :meth:`state` returned, on this backend or another.

        Raises:
            ValueError: names, dtypes or shapes are not those of this system; nothing was set.
        """
        ...
