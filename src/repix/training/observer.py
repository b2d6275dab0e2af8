"""Events of a training, and the interface of what listens to them.

The loop calls these methods; a progress bar, a loss table, TensorBoard or MLflow (all in
:mod:`repix.tracking`) show or store them. An observer can neither stop nor change a
training: what it raises is printed once and it gets no more events.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from repix.errors import printable

if TYPE_CHECKING:
    import numpy as np


class Observer:
    """Receives every event of a training and ignores it; subclasses override the methods that they need."""

    def started(self, plan: dict[str, Any]) -> None:
        """Training begins, or goes on from a checkpoint.

        Args:
            plan: ``cell`` (str), ``steps`` and ``epochs`` (totals), ``steps_per_epoch``,
                ``first_step`` (steps already done: 0, or where a checkpoint left off),
                ``parameters`` (network -> trainable parameters), ``recipe`` (nested dict), ``paired`` (bool),
                ``history`` (a :class:`repix.training.history.Row` for each epoch that is done).
        """

    def step_done(self, step: int) -> None:
        """``step`` steps are done, counted from 1. Called every step: must be cheap."""

    def losses(self, step: int, names: list[str], losses: np.ndarray) -> None:
        """A block of iterations is done, ``step`` of them by now; ``losses`` is float32 (iterations, names)."""

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        """An epoch (counted from 1) ended after ``step`` steps; ``losses`` are its means."""

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        """The val split was scored after ``epoch`` epochs."""

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture to show: ``image`` is uint8 (height, width, 3), ``name`` its series."""

    def finished(self, step: int) -> None:
        """All ``step`` steps are done; the networks are not written yet."""

    def failed(self, error: BaseException) -> None:
        """Training stops because of ``error``; KeyboardInterrupt and SystemExit included."""


class Observers(Observer):
    """Tells several observers, in order; one that raises is switched off with one line.

    Args:
        observers: who is told.
    """

    def __init__(self, observers: Iterable[Observer] = ()):
        self.listening = list(observers)

    def _tell(self, event: str, *details: Any) -> None:
        for observer in tuple(self.listening):
            try:
                getattr(observer, event)(*details)
            except Exception as error:
                self.listening.remove(observer)
                said = printable(" ".join(str(error).split())[:200])
                print(
                    f"{type(observer).__name__} is switched off, training goes on: {type(error).__name__}: {said}",
                    file=sys.stderr,
                )

    def started(self, plan: dict[str, Any]) -> None:
        self._tell("started", plan)

    def step_done(self, step: int) -> None:
        self._tell("step_done", step)

    def losses(self, step: int, names: list[str], losses: np.ndarray) -> None:
        self._tell("losses", step, names, losses)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        self._tell("epoch_ended", epoch, step, losses)

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        self._tell("validated", epoch, step, scores)

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        self._tell("pictures", step, name, image)

    def finished(self, step: int) -> None:
        self._tell("finished", step)

    def failed(self, error: BaseException) -> None:
        self._tell("failed", error)
