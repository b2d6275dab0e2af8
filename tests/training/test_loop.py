"""The loop by itself, on a step of one number: what it saves, when it stops, what it says."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from checks.support.cells import recipe
from repix.errors import UserError
from repix.training import loop
from repix.training.checkpoint import Checkpoints
from repix.training.observer import Observer

PER_EPOCH, EPOCHS = 4, 3


class OneNumber:
    """A step whose state counts the steps; ``losses`` and ``state`` can be broken at a step."""

    def __init__(self, *, loss=lambda number: 1.0, weight=lambda number: 0.0):
        self.steps_per_epoch, self.blocks, self.largest = PER_EPOCH, [], 25
        self.weight, self.loss = np.zeros(1, np.float32), loss
        self.break_weight = weight

    def run(self, first, count, rate, go_on):
        self.blocks.append((first, count, rate))
        rows = []
        for number in range(first, first + min(count, self.largest)):
            self.weight = self.weight + 1 + self.break_weight(number)
            rows.append([number, self.loss(number)])
            if not go_on(number + 1):
                break
        return ["d_real", "g_l1"], np.array(rows, np.float32)

    def state(self):
        return {"g/w": self.weight.copy()}

    def restore(self, state):
        self.weight = state["g/w"]


class Witness(Observer):
    def __init__(self, **deeds):
        self.heard, self.deeds = [], deeds

    def started(self, plan):
        self.heard.append(("started", plan["first_step"]))

    def step_done(self, step):
        self.deeds.get(f"at_{step}", lambda: None)()

    def finished(self, step):
        self.heard.append(("finished", step))

    def failed(self, error):
        self.heard.append(("failed", type(error).__name__))


def run(folder, step=None, witness=None, **options):
    step, witness = step or OneNumber(), witness or Witness()
    asked = recipe(epochs=EPOCHS, decay_epochs=2, **options.pop("changes", {}))
    checkpoints = Checkpoints(folder, "key")
    return loop.train(step, asked, checkpoints=checkpoints, observer=witness, **options), step, witness


def kept(folder) -> list[int]:
    return [int(path.stem[5:]) for path in sorted(folder.glob("key/step-*.npz"))]


def test_a_row_per_epoch_with_means_and_rate(tmp_path):
    (history, best), step, witness = run(tmp_path)
    assert [row["d_real"] for row in history.epochs] == [1.5, 5.5, 9.5]
    assert [(row["epoch"], row["step"]) for row in history.epochs] == [(1, 4), (2, 8), (3, 12)]
    rates = [row["learning_rate"] for row in history.epochs]
    assert rates[0] > rates[1] > rates[2] > 0
    assert step.weight == 12 and best == {} and history.best is None
    assert witness.heard == [("started", 0), ("finished", 12)]


def test_blocks_end_with_their_epoch_and_every_iteration_is_told(tmp_path):
    told = []
    witness = Witness()
    witness.step_done = told.append
    step = OneNumber()
    step.largest = 3  # as a backend whose largest block is smaller than what is asked for
    (history, _), *_ = run(tmp_path, step, witness)
    assert told == list(range(1, 13))
    assert [block[:2] for block in step.blocks] == [(0, 4), (3, 1), (4, 4), (7, 1), (8, 4), (11, 1)]
    assert [row["learning_rate"] for row in history.epochs] == [step.blocks[i][2] for i in (1, 3, 5)]
    assert [row["d_real"] for row in history.epochs] == [1.5, 5.5, 9.5]


def test_the_best_validation_is_kept_and_later_equals_do_not_replace_it(tmp_path):
    scores = iter([{"score": 1.0}, {"score": 3.0}, {"score": 3.0}])
    step = OneNumber()
    (history, best), *_ = run(tmp_path, step, validate=lambda: next(scores), best_of=step.state)
    assert history.best == {"epoch": 2, "step": 8, "score": 3.0} and best["g/w"] == 8
    assert [row["val_score"] for row in history.epochs] == [1.0, 3.0, 3.0]


@pytest.mark.usefixtures("as_in_a_terminal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_says_one_line_and_names_its_exit_code(tmp_path, number, code):
    before = signal.getsignal(number)
    witness = Witness(at_6=lambda: signal.raise_signal(number))
    with pytest.raises(loop.StoppedError) as caught:
        run(tmp_path, witness=witness)
    assert caught.value.exit_code == code
    assert f"{number.name} after step 6 of 12" in str(caught.value) and "\n" not in str(caught.value)
    assert kept(tmp_path) == [4, 6] and witness.heard[-1] == ("failed", "StoppedError")
    assert signal.getsignal(number) is before
    (history, _), step, witness = run(tmp_path)
    assert witness.heard[0] == ("started", 6) and step.weight == 12
    assert [row["d_real"] for row in history.epochs] == [1.5, 5.5, 9.5]


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path, witness=Witness(at_2=twice))
    assert not isinstance(caught.value, loop.StoppedError) and kept(tmp_path) == []


def test_long_epochs_are_saved_by_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)

    def killed():
        raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path, witness=Witness(at_3=killed))
    assert kept(tmp_path) == [1, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_loss_stops_with_what_where_when(tmp_path, value):
    step = OneNumber(loss=lambda number: value if number == 5 else 1.0)
    witness = Witness()
    with pytest.raises(loop.DivergedError) as caught:
        run(tmp_path, step, witness)
    said = str(caught.value)
    assert f"loss g_l1 is {value} at step 6 (epoch 2)" in said and "step-000000004.npz" in said and "\n" not in said
    assert caught.value.exit_code == 1 and witness.heard[-1] == ("failed", "DivergedError")
    assert kept(tmp_path) == [4]
    _, mended, witness = run(tmp_path)
    assert witness.heard[0] == ("started", 4) and mended.weight == 12


def test_a_broken_weight_never_becomes_a_checkpoint(tmp_path):
    step = OneNumber(weight=lambda number: np.inf if number == 7 else 0.0)
    with pytest.raises(loop.DivergedError, match=r"g/w is not finite at step 8 \(epoch 2\)"):
        run(tmp_path, step)
    assert kept(tmp_path) == [4]


def test_a_broken_score_is_no_best(tmp_path):
    scores = iter([{"score": 1.0}, {"score": float("nan")}])
    with pytest.raises(loop.DivergedError, match=r"validation score score is nan at step 8"):
        run(tmp_path, validate=lambda: next(scores))
    assert kept(tmp_path) == [4]


def test_a_broken_loss_is_told_rather_than_a_stop(tmp_path):
    step = OneNumber(loss=lambda number: np.nan if number == 1 else 1.0)
    witness = Witness(at_3=lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(loop.DivergedError, match=r"at step 2 .*no checkpoint was due yet"):
        run(tmp_path, step, witness)
    assert kept(tmp_path) == []


def test_a_disk_that_fills_up_stops_with_one_line(tmp_path, monkeypatch):
    def full(self, checkpoint):
        if checkpoint.step > 4:
            raise UserError("disk")
        return saved(self, checkpoint)

    saved = Checkpoints.save
    with monkeypatch.context() as patched, pytest.raises(UserError, match="disk"):
        patched.setattr(Checkpoints, "save", full)
        run(tmp_path)
    assert kept(tmp_path) == [4]
    (history, _), step, _ = run(tmp_path)
    assert step.weight == 12 and len(history.epochs) == EPOCHS


def test_a_refused_state_leaves_the_first_weights(tmp_path, capsys):
    run(tmp_path)

    class Other(OneNumber):
        def restore(self, state):
            raise ValueError("the state is another system's")

    (history, _), step, witness = run(tmp_path, Other())
    assert witness.heard[0] == ("started", 0) and step.weight == 12 and len(history.epochs) == EPOCHS
    assert "no sound checkpoint is left" in capsys.readouterr().err
