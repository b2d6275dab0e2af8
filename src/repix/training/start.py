"""Putting a parent's weights, moments and schedule in force: a training that does not begin at first weights.

It is part of the trainings that ask for it and of no other: see :data:`repix.registry.STARTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from repix.arrays import check_numbers, load_arrays
from repix.cells import Cell
from repix.config import reader
from repix.config.augment import Augment
from repix.config.models import Recipe
from repix.config.start_file import KERAS
from repix.data.prepared import Prepared
from repix.directions import Direction
from repix.errors import UserError, reading
from repix.inference.keras_file import load_network
from repix.models.initialization import weights
from repix.schemas import Start
from repix.systems.system import System
from repix.training.checkpoint import Checkpoint, check_state, read_checkpoint
from repix.training.parent import RECORD, STATE
from repix.training.step import Step

Arrays = dict[str, np.ndarray]


class Beginning:
    """What a training takes over from its parent.

    Args:
        cell: the cell that is trained.
        recipe: its recipe, with ``start_from``.
        folder: ``starts/<cell>``, as :func:`repix.training.parent.fetch` left it.

    Attributes:
        record: what was taken over.

    Raises:
        UserError: the folder is not there, or cannot be read.
    """

    def __init__(self, cell: Cell, recipe: Recipe, folder: Path):
        self.cell, self.recipe, self.asked = cell, recipe, recipe.start_from
        self.folder, self.key = folder, f"models.{cell.model}.start_from"
        self.record = Start.read(folder / RECORD)
        self._state: Checkpoint | None = None
        if self.asked.takes_state:
            with reading(folder / STATE, "run `dvc repro start`"):
                self._state = read_checkpoint(folder / STATE, self.record.parent)

    @property
    def _mend(self) -> str:
        given = self.asked.file is not None
        return f"name another file in {self.key}.file" if given else "run `dvc checkout` or `dvc repro`"

    def put_weights(self, system: System, size: tuple[int, int], channels: tuple[int, int]) -> None:
        """Set the networks' weights, and freeze what is to be frozen; before the step is made.

        Args:
            system: its networks are at first weights.
            size: (height, width) of its images.
            channels: of its source and its target.

        Raises:
            UserError: a weight does not fit, or there is no layer to freeze.
        """
        translating = sorted(set(system.translators.values()))
        wanted = translating if self.asked.networks == "generator" else sorted(system.networks)
        given = self._weights(system, wanted)
        for network in wanted:
            own = weights(network, system.networks[network])
            self._check(network, own, given, size, channels)
            for name, variable in own.items():
                variable.assign(given[name])
        self._freeze(system, translating)

    def _weights(self, system: System, wanted: list[str]) -> Arrays:
        if self._state is not None:
            return self._state.arrays
        given: Arrays = {}
        for name in self.record.files:
            path = self.folder / name
            if path.suffix == ".npz":
                with reading(path, self._mend):
                    given |= load_arrays(path)
            else:
                network = self._network_of(Path(name), system, wanted)
                found = load_network(path, self._mend).weights
                given |= {f"{network}/{variable.path}": keras.ops.convert_to_numpy(variable) for variable in found}
        return given

    def _network_of(self, name: Path, system: System, wanted: list[str]) -> str:
        """Return which generator a ``.keras`` file is: by its folder, or the only one."""
        translator = name.parent.name if name.name == KERAS else ""
        if translator in system.translators:
            return system.translators[Direction(translator)]
        if len(wanted) > 1:
            raise UserError(
                f"{self.key}.file: {self.asked.file} is one network, and {self.recipe.system} has "
                f"{len(wanted)} that translate: give the folder of exports, or an .npz with {' and '.join(wanted)}"
            )
        return wanted[0]

    def _check(self, network: str, own: dict, given: Arrays, size, channels) -> None:
        """Raise UserError where weights of a network are not those that it has."""
        theirs = {name: array.shape for name, array in given.items() if name.startswith(f"{network}/")}
        ours = {name: tuple(variable.shape) for name, variable in own.items()}
        if theirs == ours:
            try:
                check_numbers(given, {name: variable.dtype for name, variable in own.items()})
            except ValueError as error:
                raise UserError(f"{self.key}: {self.record.parent} cannot be taken: {error}; give another") from None
            return
        odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        there, here = (_shape(side.get(odd[0])) for side in (theirs, ours))
        because = ""
        if self.record.crop_size is not None and (self.record.crop_size, self.record.channels) != (size, channels):
            because = f"; it was trained on {_images(self.record.crop_size, self.record.channels)}, "
            because += f"this cell is on {_images(size, channels)}"
        raise UserError(
            f"{self.key}: {self.record.parent} does not fit: {odd[0]} is {there} there and {here} here"
            f"{f', and {len(odd) - 1} more differ' if len(odd) > 1 else ''}{because}"
        )

    def _freeze(self, system: System, translating: list[str]) -> None:
        layers = [layer for network in translating for layer in system.networks[network].layers if layer.weights]
        for prefix in self.asked.freeze:
            named = [layer for layer in layers if layer.name.startswith(prefix)]
            if not named:
                names = ", ".join(dict.fromkeys(layer.name for layer in layers))
                raise UserError(f"{self.key}.freeze: no layer of the generator begins with {prefix!r}; it has {names}")
            for layer in named:
                layer.trainable = False
        if not any(system.networks[network].trainable_variables for network in translating):
            raise UserError(f"{self.key}.freeze: nothing is left to train; leave a layer out")

    def put_moments(self, step: Step) -> None:
        """Set Adam's moments under a new schedule, those of what is taken over and is not frozen."""
        if not self.asked.moments:
            return
        now = step.state()
        group = "adam/generator/" if self.asked.networks == "generator" else "adam/"
        taken = {n: a for n, a in self._state.arrays.items() if n.startswith(group) and n in now}
        step.restore(now | taken)

    def goes_on(
        self, step: Step, prepared: Prepared, *, flip: bool, data: str, by: Mapping[str, Mapping[str, Any]]
    ) -> Checkpoint | None:
        """Return the state that the loop goes on from, None under a new schedule; say where bits will differ.

        Args:
            step: of this training.
            prepared: the data set.
            flip: whether training mirrors images.
            data: digest of the prepared folder.
            by: profile, environment and code of this training, as its lineage has them.

        Raises:
            UserError: the parent has trained as long already, or its state is of another system.
        """
        if self.asked.schedule == "new":
            return None
        done, name = self.record.epochs, self.record.parent
        if self.recipe.epochs <= done:
            raise UserError(
                f"models.{self.cell.model}.epochs: {self.recipe.epochs}: {name} has done {done} already, and "
                f"schedule: continue counts them: set more"
            )
        state = Checkpoint(done * step.steps_per_epoch, self._state.arrays, self._state.extra)
        try:
            own = {n: a for n, a in state.arrays.items() if not n.startswith("best/")}
            check_state(own, step.state())
        except ValueError as error:
            raise UserError(f"{self.key}: {name} cannot be continued: {error}") from None
        reasons = self._differences(prepared, flip, data, by)
        said = f"not the bits of {self.recipe.epochs} epochs in one go: {'; '.join(reasons)}"
        if not reasons:
            said = f"the bits of {self.recipe.epochs} epochs in one go"
        print(f"repix: {self.cell.name} continues {name} after {done} epochs: {said}", file=sys.stderr)
        return state

    def _differences(self, prepared: Prepared, flip: bool, data: str, by: Mapping[str, Mapping]) -> list[str]:
        """Return why a straight training would leave other bits, as far as the records tell."""
        params, inputs = (self.record.trained_by.get(what, {}) for what in ("params", "inputs"))
        name, done = self.record.parent, self.record.epochs
        parent = Cell.named(name)
        if not params:
            return [f"lineage/train/{name}.json is not here, so nobody knows"]
        before = reader.parse(params[f"models.{parent.model}"], Recipe, f"models.{parent.model}", f"lineage of {name}")
        found = []
        if parent.seed != self.cell.seed:
            found.append(f"seed {parent.seed} there, {self.cell.seed} here")
        if inputs.get(f"data/prepared/{parent.dataset}") != data:
            found.append("the data is another")
        augment = reader.parse(params[f"datasets.{parent.dataset}.augment"], Augment, "augment", f"lineage of {name}")
        if augment.flip != flip:
            found.append("augment.flip differs")
        rates = [(before.learning_rate(epoch), self.recipe.learning_rate(epoch)) for epoch in range(done)]
        first = next((epoch for epoch, (was, is_) in enumerate(rates) if was != is_), None)
        if first is not None:
            found.append(f"epoch {first + 1} had the rate {rates[first][0]:.3g} and would have {rates[first][1]:.3g}")
        sides = (before.model_dump(mode="json"), self.recipe.model_dump(mode="json"))
        found += [f"{key} differs" for key in sorted(sides[0].keys() | sides[1].keys()) if _moves(key, *sides)]
        for part, now in by.items():
            if (was := self.record.trained_by.get(part)) is None:  # a start of an earlier version's
                found.append(f"the {part} of {name} is not known")
                continue
            # A parent runs no code of children: what both have counts.
            named = was.keys() & now.keys() if part == "code" else was.keys() | now.keys()
            if odd := sorted(key for key in named if was.get(key) != now.get(key)):
                found.append(f"{part} differs in {', '.join(odd[:3])}{', ...' if odd[3:] else ''}")
        every = self.recipe.validate_every
        if "val" in prepared.manifest.splits and (before.validate_every != every or done % every):
            found.append(f"best and the loss table alone: epoch {done} was validated, as the last one there")
        return found


# Keys of a recipe that move no weight, and those that are looked at by themselves.
_ASIDE = {"epochs", "decay_epochs", "validate_every", "picture_every", "checkpoint_every", "keep_state", "start_from"}


def _moves(key: str, one: dict, other: dict) -> bool:
    return key not in _ASIDE and one.get(key) != other.get(key)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a number"


def _images(size: tuple[int, int], channels: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px, {channels[0]} to {channels[1]} channels"
