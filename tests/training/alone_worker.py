"""A training of one number in a process of its own, as the train stage does it: ``alone_worker FOLDER OUT``.

It tells each step on standard output, and waits until it may take the next: for a line on standard
input, or its end. OUT gets the weight, the loss table and the step at which the training began.
"""

from __future__ import annotations

import sys
from pathlib import Path

from checks.support.cells import recipe
from repix import stage
from repix.files import write_json
from repix.training import loop
from repix.training.checkpoint import Checkpoints
from repix.training.observer import Observer
from tests.training.test_loop import EPOCHS, OneNumber


class Teller(Observer):
    """Tells each step, and waits."""

    def __init__(self):
        self.first = -1

    def started(self, plan):
        self.first = plan["first_step"]
        print("begins", flush=True)

    def step_done(self, step):
        print(step, flush=True)
        sys.stdin.readline()


def main(folder: str, out: str) -> None:
    """Train; at the end write what came out."""
    checkpoints, step, teller = Checkpoints(Path(folder), "key"), OneNumber(), Teller()
    asked = recipe(epochs=EPOCHS, decay_epochs=2)
    print("asks", flush=True)
    with checkpoints.alone():
        history, _ = loop.train(step, asked, checkpoints=checkpoints, observer=teller)
        write_json(out, {"weight": float(step.weight[0]), "epochs": history.epochs, "first": teller.first})


if __name__ == "__main__":
    stage.guard(lambda: main(*sys.argv[1:]))
