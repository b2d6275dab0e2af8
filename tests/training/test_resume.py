"""A training that was stopped, wherever, and went on leaves the bits of one that was not."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from checks.support import cells
from repix.config.run import Cell
from repix.data.prepared import Prepared
from repix.evaluation.validation import Validation
from repix.files import digest_arrays
from repix.training import loop
from repix.training.checkpoint import Checkpoints
from repix.training.observer import Observer
from repix.training.prepare import prepare


class KilledError(Exception):
    """Stands for what leaves no time to save."""


class At(Observer):
    """Does something after a step."""

    def __init__(self, step: int | None, deed):
        self.step, self.deed, self.first = step, deed, None

    def started(self, plan):
        self.first = plan["first_step"]

    def step_done(self, step):
        if step == self.step:
            self.deed()


def kill():
    raise KilledError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the prepared sets, paired and not, with five training images."""
    sets = {}
    for paired in (True, False):
        root = tmp_path_factory.mktemp("set")
        counts = (("train", 5), ("val", 2), ("test", 1))
        sets[paired] = Prepared.open(cells.prepare_set(root, paired=paired, counts=counts))
    return sets


def play(data, folder, system, at=None, deed=kill, **changes):
    """Train, going on where ``folder`` says; return everything that must be equal, and where it began."""
    prepared = data[system == "pix2pix"]
    asked = cells.recipe(system, **({"pool": 2, "checkpoint_every": 2} | changes))
    game = prepare(Cell("tiny", system, 0), asked, prepared, flip=True)
    witness = At(at, deed)
    history, best = loop.train(
        game.step,
        game.sampler,
        asked,
        checkpoints=Checkpoints(folder, "key"),
        observer=witness,
        validate=Validation(prepared, game.translators, Observer().pictures).score,
        best_of=game.translator_weights,
    )
    state = game.step.state()
    return {
        "weights, Adam, pools": digest_arrays(state),
        "best": digest_arrays(best),
        "rows": history.epochs,
        "best row": history.best,
    }, witness.first


@pytest.mark.parametrize(
    ("system", "changes"),
    [("pix2pix", {}), ("cyclegan", {}), ("pix2pix", {"updates": "alternate", "checkpoint_every": 1})],
    ids=["pix2pix", "cyclegan", "alternate"],
)
def test_stopped_and_killed_in_any_epoch_is_bit_for_bit_the_same(data, tmp_path, monkeypatch, system, changes):
    expected, first = play(data, tmp_path / "whole", system, **changes)
    assert first == 0 and len(expected["rows"]) == 2 and expected["best row"]

    folder = tmp_path / "parts"
    with pytest.raises(loop.StoppedError):
        play(data, folder, system, 3, lambda: signal.raise_signal(signal.SIGTERM), **changes)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        play(data, folder, system, 7, **changes)
    got, first = play(data, folder, system, **changes)
    assert first == 6  # the state before the step that was killed
    assert got == expected


def test_a_finished_training_is_taken_up_as_it_is(data, tmp_path):
    expected, _ = play(data, tmp_path, "pix2pix", epochs=1)
    got, first = play(data, tmp_path, "pix2pix", epochs=1)
    assert first == 5 and got == expected


def test_what_moves_is_all_in_the_state(data):
    asked = cells.recipe("cyclegan")
    game = prepare(Cell("tiny", "cyclegan", 0), asked, data[False], flip=True)
    names = game.step.state().keys()
    for network in game.system.networks:
        assert any(name.startswith(f"{network}/") for name in names)
    for player in game.system.players:
        assert {f"adam/{player}/beta_1_power", f"adam/{player}/beta_2_power"} <= names
    moments = sum(name.startswith("adam/") and ("/m/" in name or "/v/" in name) for name in names)
    assert moments == 2 * sum(len(network.trainable_variables) for network in game.system.networks.values())
    assert {"pool/source_fakes/images", "pool/target_fakes/count"} <= names


def test_a_state_of_another_system_changes_nothing(data):
    asked = cells.recipe()
    game = prepare(Cell("tiny", "pix2pix", 0), asked, data[True], flip=True)
    before = digest_arrays(game.step.state())
    name = sorted(game.step.state())[-1]
    for wrong in (lambda a: a.astype(np.float64), lambda a: a[..., None]):
        # All others differ from what is in force, so that a half-done restore would show.
        other = {key: array + 1 for key, array in game.step.state().items()}
        other[name] = wrong(other[name])
        with pytest.raises(ValueError, match="another system's"):
            game.step.restore(other)
        assert digest_arrays(game.step.state()) == before
    with pytest.raises(ValueError, match="names differ"):
        game.step.restore({})
    game.step.restore({key: array + 1 for key, array in game.step.state().items()})
    assert digest_arrays(game.step.state()) != before


def test_losses_of_each_phase_carry_their_own_names(data, tmp_path):
    """Real on even iterations, fake on odd ones: each mean is over the steps that gave it."""
    told = []

    def listen(game, asked):
        step = game.step
        for number in range(4):
            values = np.asarray(step(number, *game.sampler.batch(number), 1e-4))
            told.append(dict(zip(step.losses, values.tolist(), strict=True)))

    asked = cells.recipe(updates="alternate", epochs=1, decay_epochs=0)
    listen(prepare(Cell("tiny", "pix2pix", 0), asked, data[True], flip=True), asked)
    assert ["d_real" in losses for losses in told] == [True, False, True, False]
    assert ["d_fake" in losses for losses in told] == [False, True, False, True]
