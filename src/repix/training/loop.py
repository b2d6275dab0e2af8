"""The training loop: blocks of iterations, means of their losses, validation, checkpoints.

It knows no system, no backend and no tracker: see :class:`repix.training.step.Step` and
:class:`repix.training.observer.Observer`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from repix import processes
from repix.config.models import Recipe
from repix.errors import UserError
from repix.training.checkpoint import Checkpoint, Checkpoints
from repix.training.gang import Alone
from repix.training.observer import Observer
from repix.training.step import Step

FETCH_EVERY = 25  # iterations in a block: looking at its losses waits for the device
SAVE_SECONDS = 600.0  # longest time between checkpoints: an epoch of a large set takes hours


class DivergedError(UserError):
    """A loss or a weight is no longer a finite number."""


class StoppedError(UserError, KeyboardInterrupt):
    """A signal asked to stop; a checkpoint was written. Exit code 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class History:
    """What was measured in a training so far; it is part of every checkpoint.

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
    """Yield a function that tells whether SIGINT, SIGTERM or SIGHUP has come since.

    The iteration under way (on JAX: the block) is finished and a checkpoint written. A second Ctrl-C kills as usual.
    """
    asked: list[int] = []

    def ask(number, frame):
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    with processes.handling(ask):
        yield lambda: asked[0] if asked else None


@dataclass
class TrainingState:
    """Where a training stands between two blocks: all that a checkpoint holds beside the step's own state.

    Attributes:
        done: iterations done.
        history: what was measured so far.
        best: the arrays kept at the best validation; empty before the first.
        saved: when the last checkpoint was written, by the monotonic clock.
    """

    done: int = 0
    history: History = field(default_factory=History)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    saved: float = field(default_factory=time.monotonic)


def train(
    step: Step,
    recipe: Recipe,
    *,
    checkpoints: Checkpoints,
    observer: Observer,
    validate: Callable[[], dict[str, float]] | None = None,
    picture: Callable[[int], None] | None = None,
    best_of: Callable[[], dict[str, np.ndarray]] | None = None,
    plan: dict | None = None,
    start: Checkpoint | None = None,
    gang: Alone | None = None,
) -> tuple[History, dict[str, np.ndarray]]:
    """Train from the newest checkpoint of this run, or from the first weights, to the end.

    Args:
        step: the backend's step, with its batches.
        recipe: epochs, learning rate, and how often to validate, show and save.
        checkpoints: where states of this run key are kept.
        observer: told what happens.
        validate: scores the translators on the val split; its ``score`` (higher is better)
            decides which weights are kept as best. None where there is no val split.
        picture: shows translations at a step.
        best_of: the arrays to keep when a validation is the best so far.
        plan: what the observer is told at the start, beside steps and epochs.
        start: the state to begin with where this run has no checkpoint; None begins with the step as it is.
        gang: the processes of this training; None where it is one. The leader alone resumes and saves; give
            the others no ``validate`` and no ``picture``.

    Returns:
        The history, and the arrays kept at the best validation (empty without one).

    Raises:
        DivergedError: a loss, score or weight became NaN or infinite; the last checkpoint is sound.
        StoppedError: SIGTERM or Ctrl-C; a checkpoint was written, the next run goes on.
        UserError: a checkpoint cannot be written; the earlier ones are kept.
    """
    per_epoch = step.steps_per_epoch
    total = recipe.epochs * per_epoch
    gang = gang or Alone()
    state = _resume(step, checkpoints, start, gang)
    diverged = partial(_diverged, per_epoch=per_epoch, checkpoints=checkpoints)
    counts = {"steps": total, "epochs": recipe.epochs, "steps_per_epoch": per_epoch}
    observer.started((plan or {}) | counts | {"first_step": state.done, "history": list(state.history.epochs)})
    try:
        with _stop_requests() as stop:

            def go_on(done: int) -> bool:
                observer.step_done(done)
                return stop() is None and not _save_is_due(state)

            while state.done < total:
                epoch, place = divmod(state.done, per_epoch)
                rate = recipe.learning_rate(epoch)
                # A block ends with its epoch at the latest, so that its rate is one.
                names, losses = step.run(state.done, min(FETCH_EVERY, per_epoch - place), rate, go_on)
                _add_losses(state, names, losses, diverged)
                observer.losses(state.done, names, losses)

                ended, last = state.done % per_epoch == 0, state.done == total
                if ended:
                    means = _end_epoch(state.history, epoch + 1, state.done, rate)
                    if validate is not None and ((epoch + 1) % recipe.validate_every == 0 or last):
                        _validate(state, validate, best_of, observer, diverged)
                    observer.epoch_ended(epoch + 1, state.done, {"learning_rate": rate, **means})
                    if picture is not None and ((epoch + 1) % recipe.picture_every == 0 or last):
                        picture(state.done)
                # What one process alone knows, all act on: what waits for the others is run by all or by none.
                asked, timer = gang.agree(stop() or 0, int(_save_is_due(state)))
                due = ended and ((epoch + 1) % recipe.checkpoint_every == 0 or last)
                if due or asked or timer:
                    _save(state, step, checkpoints, diverged, gang)
                if asked:
                    raise StoppedError(
                        f"stopped by {signal.Signals(asked).name} after step {state.done} of {total}; "
                        f"the state is saved, run the same command to go on",
                        asked,
                    )
        observer.finished(total)
    except BaseException as error:
        observer.failed(error)
        raise
    return state.history, state.best


def _resume(step: Step, checkpoints: Checkpoints, start: Checkpoint | None, gang: Alone) -> TrainingState:
    """Return the state of the newest sound checkpoint, put in force, or that of a training at its ``start``."""
    state = TrainingState()

    def restore(resumed: Checkpoint) -> None:
        history = History(**resumed.extra)
        step.restore({name: array for name, array in resumed.arrays.items() if not name.startswith("best/")})
        state.best = {name[5:]: array for name, array in resumed.arrays.items() if name.startswith("best/")}
        state.history, state.done = history, resumed.step

    own = checkpoints.resume(restore) if gang.leads else None
    found = gang.share(own) or start
    if found is not None and found is not own:
        restore(found)
    state.saved = time.monotonic()
    return state


def _add_losses(state: TrainingState, names: list[str], losses: np.ndarray, diverged: Callable) -> None:
    """Count a block's iterations as done, look for NaN, and add the losses up in order."""
    history = state.history
    for row in losses.tolist():
        for name, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                raise diverged(f"loss {name} is {value}", state.done)
            history.sums[name] = history.sums.get(name, 0.0) + value
            history.counts[name] = history.counts.get(name, 0) + 1
        state.done += 1


def _end_epoch(history: History, epoch: int, step: int, rate: float) -> dict[str, float]:
    """Append the epoch's row, with the means of its losses, and begin new sums; return the means."""
    means = {name: value / history.counts[name] for name, value in sorted(history.sums.items())}
    history.sums.clear()
    history.counts.clear()
    history.epochs.append({"epoch": epoch, "step": step, "learning_rate": rate, **means})
    return means


def _validate(
    state: TrainingState,
    validate: Callable[[], dict[str, float]],
    best_of: Callable[[], dict[str, np.ndarray]] | None,
    observer: Observer,
    diverged: Callable,
) -> None:
    """Score the translators, add the scores to the epoch's row, and keep the weights if they are the best."""
    scores, history = validate(), state.history
    row = history.epochs[-1]
    for name, value in scores.items():
        if not math.isfinite(value):
            raise diverged(f"validation score {name} is {value}", state.done - 1)
    row |= {f"val_{name}": value for name, value in scores.items()}
    observer.validated(row["epoch"], state.done, scores)
    if history.best is None or scores["score"] > history.best["score"]:
        history.best = {"epoch": row["epoch"], "step": state.done, **scores}
        state.best = best_of() if best_of else {}


def _save_is_due(state: TrainingState) -> bool:
    return time.monotonic() - state.saved >= SAVE_SECONDS


def _save(state: TrainingState, step: Step, checkpoints: Checkpoints, diverged: Callable, gang: Alone) -> None:
    """Write a checkpoint, if this process leads."""
    arrays = step.state()
    # A finite loss can still leave a weight that is not: never let it replace a sound state.
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise diverged(f"{broken[0]} is not finite", state.done - 1)
    if gang.leads:
        checkpoints.save(checkpoint_of(state.done, arrays, state.best, state.history))
    state.saved = time.monotonic()


def checkpoint_of(done: int, arrays: dict, best: dict, history: History) -> Checkpoint:
    """Return all that a training goes on from: the step's ``arrays`` after ``done`` steps, the best ones, the table."""
    return Checkpoint(done, arrays | {f"best/{name}": array for name, array in best.items()}, vars(history))


def _diverged(what: str, number: int, *, per_epoch: int, checkpoints: Checkpoints) -> DivergedError:
    """Return the error that says what was not finite at iteration ``number`` (from 0), and what to do."""
    kept = sorted(checkpoints.folder.glob("step-*.npz"))
    sound = f"the last sound state is {kept[-1].name}" if kept else "no checkpoint was due yet"
    return DivergedError(
        f"{what} at step {number + 1} (epoch {number // per_epoch + 1}); {sound}. "
        f"Lower optimizer.learning_rate or set precision: float32"
    )
