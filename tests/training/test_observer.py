"""Events reach everyone who listens; who raises is switched off, and training goes on."""

import inspect

import numpy as np
import pytest

from repix.training.observer import Observer, Observers

EVENTS = {
    "started": ({"cell": "a-b-0"},),
    "step_done": (1,),
    "losses": (4, ["G"], np.zeros((4, 1), np.float32)),
    "epoch_ended": (1, 4, {"G": 0.5}),
    "validated": (1, 4, {"l1": 0.5}),
    "pictures": (4, "samples", np.zeros((2, 2, 3), np.uint8)),
    "finished": (4,),
    "failed": (ValueError("nan"),),
}


class Witness(Observer):
    """Notes every event."""

    def __init__(self):
        self.heard = []

    def __getattribute__(self, name):
        if name in EVENTS:
            return lambda *details: self.heard.append((name, details))
        return super().__getattribute__(name)


class Broken(Observer):
    def epoch_ended(self, epoch, step, losses):
        raise OSError("no space\nleft on device")


def test_the_events_are_all_there_are():
    public = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")}
    assert public == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_reaches_every_observer_as_it_was_told(event):
    first, second = Witness(), Witness()
    getattr(Observers([first, Observer(), second]), event)(*EVENTS[event])
    assert first.heard == second.heard == [(event, EVENTS[event])]


def test_an_observer_that_raises_is_switched_off_with_one_line(capsys):
    before, after = Witness(), Witness()
    observers = Observers([before, Broken(), after])
    for _ in range(3):
        observers.epoch_ended(1, 4, {"G": 0.5})
    assert len(before.heard) == len(after.heard) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Broken" in said and "no space left on device" in said


def test_an_interrupt_is_no_observers_business():
    class Interrupted(Observer):
        def step_done(self, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers([Interrupted()]).step_done(1)
