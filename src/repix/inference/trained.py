"""What a training leaves, and how it is loaded again: ``runs/<cell>/``.

``trained.json`` is everything that it takes to build the networks; ``last/<network>.npz``,
``best/<network>.npz`` and ``ema/<network>.npz`` are weights. Nothing needs to be retyped to use them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repix.arrays import check_numbers, load_arrays
from repix.config import reader
from repix.config.models import Recipe
from repix.directions import Direction
from repix.errors import UserError, reading
from repix.files import digest_arrays
from repix.inference.backend import backend_module
from repix.inference.translator import Translator
from repix.models.initialization import weights
from repix.schemas import Trained
from repix.systems.system import System, build


def by_network(arrays: dict[str, np.ndarray], networks) -> dict[str, dict[str, np.ndarray]]:
    """Split named arrays (``generator/down1/kernel``) by network."""
    return {
        network: {name: array for name, array in arrays.items() if name.startswith(f"{network}/")}
        for network in networks
    }


def digests(arrays: dict[str, np.ndarray], networks) -> dict[str, str]:
    """Return the canonical digest of each network's weights."""
    return {network: digest_arrays(named) for network, named in by_network(arrays, networks).items() if named}


class TrainedModel:
    """A finished training, ready for use.

    Args:
        folder: ``runs/<cell>``.

    Attributes:
        record: its :class:`Trained` record.
        recipe: the recipe of the record, as typed settings.
        variants: ``last``, ``best`` where a val split was scored, ``ema`` where an average was kept.

    Raises:
        UserError: the folder is not a finished training.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.record = Trained.read(self.folder / "trained.json")
        self.recipe = reader.parse(self.record.recipe, Recipe, "recipe", self.folder / "trained.json")
        self.variants = list(self.record.variants())
        self._system: System | None = None
        self._translators: dict[tuple[str, bool], Translator] = {}

    @property
    def system(self) -> System:
        """The networks, built at first use."""
        if self._system is None:
            backend_module()  # threads and determinism before the first operation
            size, record = self.record.crop_size, self.record
            # Built for pairs: what the data allows was settled when the training began.
            self._system = build(self.recipe, size, record.source.channels, record.target.channels, paired=True)
        return self._system

    def load(self, variant: str) -> None:
        """Put the weights of a variant into the networks that translate, and check them.

        Raises:
            UserError: the variant does not exist, or the bytes are not those of the record.
        """
        if variant not in self.variants:
            raise UserError(f"{self.folder}: no weights {variant!r}; there are {', '.join(self.variants)}")
        expected = self.record.variants()[variant]
        for network in sorted(set(self.record.translators.values())):
            path = self.folder / variant / f"{network}.npz"
            with reading(path, "run `dvc checkout` or `dvc repro`"):
                arrays = load_arrays(path)
            if digest_arrays(arrays) != expected[network]:
                raise UserError(f"{path}: not the weights of trained.json; run `dvc checkout` or `dvc repro`")
            own = weights(network, self.system.networks[network])
            shapes = [{name: tuple(one.shape) for name, one in side.items()} for side in (arrays, own)]
            if shapes[0] != shapes[1]:
                odd = min(name for name in arrays.keys() | own.keys() if shapes[0].get(name) != shapes[1].get(name))
                raise UserError(f"{path}: {odd!a} does not fit the recipe of trained.json; run `dvc checkout`")
            try:
                check_numbers(arrays, {name: variable.dtype for name, variable in own.items()})
            except ValueError as error:
                raise UserError(f"{path}: {error}; run `dvc checkout` or `dvc repro`") from None
            for name, variable in own.items():
                variable.assign(arrays[name])

    def translator(self, name: str, *, paper: bool = False) -> Translator:
        """Return a translator of the record by its name, a :class:`~repix.directions.Direction`."""
        if (name, paper) not in self._translators:
            sides = Direction(name).sides(self.record.source, self.record.target)
            network = self.system.networks[self.record.translators[name]]
            self._translators[name, paper] = Translator(network, *sides, backend_module().compile_function, paper=paper)
        return self._translators[name, paper]
