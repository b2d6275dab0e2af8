"""What needs no service: a progress bar, or lines of progress where there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from repix.tables import duration
from repix.training.observer import Observer


class ProgressBar(Observer):
    """Steps done, time left and the last losses on stderr; without a terminal, a line per epoch and per validation.

    Args:
        stream: a text stream in place of stderr.
    """

    def __init__(self, stream=None):
        self._stream = stream
        self._bar = None
        self._plan: dict[str, Any] = {}
        self._began = 0.0

    def started(self, plan: dict[str, Any]) -> None:
        from tqdm import tqdm

        stream = self._stream or sys.stderr
        self._plan, self._began = plan, time.monotonic()
        self._bar = tqdm(
            total=plan["steps"],
            initial=plan["first_step"],
            desc=plan["cell"],
            unit="step",
            file=stream,
            disable=not stream.isatty(),
            dynamic_ncols=True,
        )

    def step_done(self, step: int) -> None:
        if not self._bar.disable:  # a disabled bar keeps no count
            self._bar.update(step - self._bar.n)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        said = {name: f"{value:.4g}" for name, value in sorted(losses.items())}
        if self._bar.disable:
            plan = self._plan
            listed = ", ".join(f"{name} {value}" for name, value in said.items())
            place = f"epoch {epoch}/{plan['epochs']}, step {step}/{plan['steps']}"
            if left := (plan["steps"] - step) * (time.monotonic() - self._began) / max(1, step - plan["first_step"]):
                place += f", {duration(left)} left"
            print(f"{plan['cell']}: {place}: {listed}", file=self._stream or sys.stderr)
        else:
            self._bar.set_postfix(said)

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        if self._bar.disable:
            told = sorted(scores.items(), key=lambda one: (one[0] == "score", one[0]))  # what decides comes last
            listed = ", ".join(f"{name} {value:.9g}" for name, value in told)
            place = f"epoch {epoch}/{self._plan['epochs']}"
            print(f"{self._plan['cell']}: {place}, validation: {listed}", file=self._stream or sys.stderr, flush=True)

    def finished(self, step: int) -> None:
        self._bar.close()

    def failed(self, error: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()
