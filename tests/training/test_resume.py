"""A training that was stopped, wherever, and went on leaves the bits of one that was not."""

from __future__ import annotations

import signal
from contextlib import nullcontext

import numpy as np
import pytest

from checks.support import cells
from repix.cells import Cell
from repix.data.prepared import Prepared
from repix.evaluation.validation import Validation
from repix.files import digest_arrays
from repix.training import loop
from repix.training.checkpoint import Checkpoints
from repix.training.observer import Observer
from repix.training.setup import set_up
from tests.conftest import library_convolutions


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


def run(data, folder, system, at=None, deed=kill, traced=None, **changes):
    """Train, going on where ``folder`` says; return everything that must be equal, and where it began.

    ``traced`` keeps the step for the next training, which finds it at its first weights, as in a new process; it
    is traced with the library's convolutions, which takes a quarter of the time.
    """
    with nullcontext() if traced is None else library_convolutions():
        return _run(data, folder, system, at, deed, traced, changes)


def _run(data, folder, system, at, deed, traced, changes):
    prepared = data[system == "pix2pix"]
    asked = cells.recipe(system, **({"pool": 2, "checkpoint_every": 2} | changes))
    if traced:
        setup, beginning = traced
        setup.step.restore(beginning)
    else:
        setup = set_up(Cell("tiny", system, 0), asked, prepared, flip=True)
        if traced is not None:
            traced.extend((setup, setup.step.state()))
    witness = At(at, deed)
    history, best = loop.train(
        setup.step,
        asked,
        checkpoints=Checkpoints(folder, "key"),
        observer=witness,
        validate=Validation(prepared, setup.translators, Observer().pictures).score,
        best_of=setup.translator_weights,
    )
    state = setup.step.state()
    return {
        "weights, Adam, pools": digest_arrays(state),
        "best": digest_arrays(best),
        "rows": history.epochs,
        "best row": history.best,
    }, witness.first


@pytest.mark.parametrize(
    ("system", "share", "changes"),
    [
        # Each of its trainings sets up and traces anew, as the profile has it; for the others that takes long.
        ("pix2pix", False, {}),
        ("cyclegan", True, {}),
        ("pix2pix", True, {"updates": "alternate", "checkpoint_every": 1}),
        ("pix2pix", True, {"loss": {"gan": "wgangp"}, "discriminator_updates": 3}),
    ],
    ids=["pix2pix", "cyclegan", "alternate", "n_critic"],
)
def test_stopped_and_killed_in_any_epoch_is_bit_for_bit_the_same(data, tmp_path, monkeypatch, system, share, changes):
    changes = changes | {"traced": [] if share else None}
    expected, first = run(data, tmp_path / "whole", system, **changes)
    assert first == 0 and len(expected["rows"]) == 2 and expected["best row"]

    folder = tmp_path / "parts"
    with pytest.raises(loop.StoppedError):
        run(data, folder, system, 3, lambda: signal.raise_signal(signal.SIGTERM), **changes)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        run(data, folder, system, 7, **changes)
    got, first = run(data, folder, system, **changes)
    assert first == 6  # the state before the step that was killed
    assert got == expected


def test_a_finished_training_is_taken_up_as_it_is(data, tmp_path):
    traced: list = []
    expected, _ = run(data, tmp_path, "pix2pix", traced=traced, epochs=1)
    got, first = run(data, tmp_path, "pix2pix", traced=traced, epochs=1)
    assert first == 5 and got == expected


def test_what_changes_is_all_in_the_state(data):
    asked = cells.recipe("cyclegan")
    setup = set_up(Cell("tiny", "cyclegan", 0), asked, data[False], flip=True)
    names = setup.step.state().keys()
    for network in setup.system.networks:
        assert any(name.startswith(f"{network}/") for name in names)
    for group in setup.system.optimizer_groups:
        assert {f"adam/{group}/beta_1_power", f"adam/{group}/beta_2_power"} <= names
    moments = sum(name.startswith("adam/") and ("/m/" in name or "/v/" in name) for name in names)
    assert moments == 2 * sum(len(network.trainable_variables) for network in setup.system.networks.values())
    assert {"pool/source_fakes/images", "pool/target_fakes/count"} <= names


def test_a_state_of_another_system_changes_nothing(data):
    asked = cells.recipe()
    setup = set_up(Cell("tiny", "pix2pix", 0), asked, data[True], flip=True)
    before = digest_arrays(setup.step.state())
    name = sorted(setup.step.state())[-1]
    for wrong in (lambda a: a.astype(np.float64), lambda a: a[..., None]):
        # All others differ from what is in force, so that a half-done restore would show.
        other = {key: array + 1 for key, array in setup.step.state().items()}
        other[name] = wrong(other[name])
        with pytest.raises(ValueError, match="another system's"):
            setup.step.restore(other)
        assert digest_arrays(setup.step.state()) == before
    with pytest.raises(ValueError, match="names differ"):
        setup.step.restore({})
    setup.step.restore({key: array + 1 for key, array in setup.step.state().items()})
    assert digest_arrays(setup.step.state()) != before


def test_losses_of_each_iteration_carry_their_own_names(data, tmp_path):
    """Real on even iterations, fake on odd ones: each mean is over the steps that gave it."""
    asked = cells.recipe(updates="alternate", epochs=1, decay_epochs=0)
    step = set_up(Cell("tiny", "pix2pix", 0), asked, data[True], flip=True).step
    told = [step.run(number, 4, 1e-4) for number in range(4)]
    assert all(len(losses) == 1 for _, losses in told)
    assert ["d_real" in names for names, _ in told] == [True, False, True, False]
    assert ["d_fake" in names for names, _ in told] == [False, True, False, True]


def test_discriminators_may_have_a_rate_of_their_own(data):
    """Adam's first step is proportional to the rate: half of it moves the discriminator half as far."""
    moved = {}
    for own in (None, 2e-4, 1e-4):
        asked = cells.recipe(optimizer={"discriminator_rate": own})
        step = set_up(Cell("tiny", "pix2pix", 0), asked, data[True], flip=True).step
        before = step.state()
        step.run(0, 1, 2e-4)
        after = step.state()
        moved[own] = {name: after[name] - before[name] for name in after if name.startswith("discriminator/")}
    for name, change in moved[None].items():
        np.testing.assert_array_equal(moved[2e-4][name], change)
        np.testing.assert_allclose(moved[1e-4][name], change / 2, rtol=1e-3, atol=1e-7)
    assert max(np.abs(change).max() for change in moved[None].values()) > 1e-5
