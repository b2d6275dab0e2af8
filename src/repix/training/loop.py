"""The loop, from top to bottom: batches in, losses out, checkpoints on the way.

It knows no system, no backend and no tracker: see :class:`repix.systems.system.System`,
:mod:`repix.inference.backend` and :class:`repix.training.observer.Observer`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from repix.config.models import Recipe
from repix.data.sampler import Sampler
from repix.errors import UserError
from repix.training.checkpoint import Checkpoint, Checkpoints
from repix.training.observer import Observer

FETCH_EVERY = 25  # steps between two looks at the losses: a look waits for the device
SAVE_SECONDS = 600.0  # longest time between checkpoints: an epoch of a large set takes hours


class DivergedError(UserError):
    """A loss or a weight is no longer a finite number."""


class StoppedError(UserError, KeyboardInterrupt):
    """A signal asked to stop; a checkpoint was written. Exit code 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class History:
    """What a training has seen so far: it travels in checkpoints.

    Attributes:
        epochs: one row per epoch: ``epoch``, ``step``, ``learning_rate`` and mean losses.
        best: epoch, step and score of the best validation so far, or None.
        sums: losses summed over the current epoch, float64.
        counts: how many values each of these sums holds.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@contextmanager
def _stop_requests():
    """Yield a function that tells whether SIGTERM or SIGINT has come since.

    The step under way is finished and a checkpoint written. A second Ctrl-C kills as usual.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ask(number, frame):
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def train(
    step: Callable,
    sampler: Sampler,
    recipe: Recipe,
    *,
    checkpoints: Checkpoints,
    observer: Observer,
    validate: Callable[[], dict[str, float]] | None = None,
    picture: Callable[[int], None] | None = None,
    best_of: Callable[[], dict[str, np.ndarray]] | None = None,
    plan: dict | None = None,
) -> tuple[History, dict[str, np.ndarray]]:
    """Train from the newest checkpoint of this run, or from the first weights, to the end.

    Args:
        step: the backend's step: ``step(number, source, target, draws, rate) -> losses``,
            with ``losses`` (names of what the last call returned), ``state()`` and
            ``restore(state)``.
        sampler: batches as a function of the step's number.
        recipe: epochs, schedule, and how often to validate, show and save.
        checkpoints: where states of this run key are kept.
        observer: told what happens.
        validate: scores the translators on the val split; its ``score`` (higher is better)
            decides which weights are kept as best. None where there is no val split.
        picture: shows translations at a step.
        best_of: the arrays to keep when a validation is the best so far.
        plan: what the observer is told at the start, beside steps and epochs.

    Returns:
        The history, and the arrays kept at the best validation (empty without one).

    Raises:
        DivergedError: a loss, score or weight became NaN or infinite; the last checkpoint is sound.
        StoppedError: SIGTERM or Ctrl-C; a checkpoint was written, the next run goes on.
        UserError: a checkpoint cannot be written; the earlier ones are kept.
    """
    per_epoch = sampler.steps_per_epoch
    total = recipe.epochs * per_epoch
    history, best, first = History(), {}, 0

    def take_up(resumed: Checkpoint) -> None:
        nonlocal history, best, first
        seen = History(**resumed.extra)
        step.restore({name: array for name, array in resumed.arrays.items() if not name.startswith("best/")})
        best = {name[5:]: array for name, array in resumed.arrays.items() if name.startswith("best/")}
        history, first = seen, resumed.step

    checkpoints.resume(take_up)
    saved = time.monotonic()

    def save(number: int) -> None:
        nonlocal saved
        arrays = step.state()
        # A finite loss can still leave a weight that is not: never let it replace a sound state.
        broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if broken:
            raise DivergedError(_advice(f"{broken[0]} is not finite", number - 1, per_epoch, checkpoints))
        arrays |= {f"best/{name}": array for name, array in best.items()}
        checkpoints.save(Checkpoint(number, arrays, vars(history)))
        saved = time.monotonic()

    pending: list[tuple[int, list[str], object]] = []

    def fetch() -> None:
        """Bring the pending losses to the host, look for NaN, and add them up in order."""
        for number, names, values in pending:
            for name, value in zip(names, np.asarray(values, np.float32).tolist(), strict=True):
                if not math.isfinite(value):
                    raise DivergedError(_advice(f"loss {name} is {value}", number, per_epoch, checkpoints))
                history.sums[name] = history.sums.get(name, 0.0) + value
                history.counts[name] = history.counts.get(name, 0) + 1
        pending.clear()

    observer.started(
        (plan or {})
        | {
            "steps": total,
            "epochs": recipe.epochs,
            "steps_per_epoch": per_epoch,
            "first_step": first,
            "history": list(history.epochs),
        }
    )
    try:
        with _stop_requests() as stop:
            for number in range(first, total):
                epoch, place = divmod(number, per_epoch)
                rate = recipe.learning_rate(epoch)
                values = step(number, *sampler.batch(number), rate)
                pending.append((number, step.losses, values))
                observer.step_done(number + 1)

                last_of_epoch = place == per_epoch - 1
                end = number + 1 == total
                if len(pending) >= FETCH_EVERY or last_of_epoch:
                    fetch()
                if last_of_epoch:
                    means = {name: value / history.counts[name] for name, value in sorted(history.sums.items())}
                    history.sums.clear()
                    history.counts.clear()
                    row = {"epoch": epoch + 1, "step": number + 1, "learning_rate": rate, **means}
                    history.epochs.append(row)
                    if validate is not None and ((epoch + 1) % recipe.validate_every == 0 or end):
                        scores = validate()
                        for name, value in scores.items():
                            if not math.isfinite(value):
                                what = f"validation score {name} is {value}"
                                raise DivergedError(_advice(what, number, per_epoch, checkpoints))
                        row |= {f"val_{name}": value for name, value in scores.items()}
                        observer.validated(epoch + 1, number + 1, scores)
                        if history.best is None or scores["score"] > history.best["score"]:
                            history.best = {"epoch": epoch + 1, "step": number + 1, **scores}
                            best = best_of() if best_of else {}
                    observer.epoch_ended(epoch + 1, number + 1, {"learning_rate": rate, **means})
                    if picture is not None and ((epoch + 1) % recipe.picture_every == 0 or end):
                        picture(number + 1)
                asked = stop()
                due = last_of_epoch and ((epoch + 1) % recipe.checkpoint_every == 0 or end)
                if due or asked or time.monotonic() - saved >= SAVE_SECONDS:
                    fetch()
                    save(number + 1)
                if asked:
                    raise StoppedError(
                        f"stopped by {signal.Signals(asked).name} after step {number + 1} of {total}; "
                        f"the state is saved, run the same command to go on",
                        asked,
                    )
        observer.finished(total)
    except BaseException as error:
        observer.failed(error)
        raise
    return history, best


def _advice(what: str, number: int, per_epoch: int, checkpoints: Checkpoints) -> str:
    kept = sorted(checkpoints.folder.glob("step-*.npz"))
    sound = f"the last sound state is {kept[-1].name}" if kept else "no checkpoint was due yet"
    return (
        f"{what} at step {number + 1} (epoch {number // per_epoch + 1}); {sound}. "
        f"Lower optimizer.learning_rate or set precision: float32"
    )
