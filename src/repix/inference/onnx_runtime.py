"""An exported ONNX translator, run by onnxruntime alone: nothing here, or below, imports Keras or TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repix import profile
from repix.errors import UserError, limit_of_the_machine
from repix.inference import onnx_file
from repix.inference.sizes import Size, Sizes

if TYPE_CHECKING:
    import onnxruntime

    from repix.schemas import Side


MEND = "run `dvc checkout` or `dvc repro`"


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a file opened by onnxruntime, on the profile's threads.

    Raises:
        ModelError: it is refused, see :mod:`repix.inference.onnx_file`.
    """
    profile.forbid_telemetry()  # read when onnxruntime is imported
    return onnx_file.open_session(path, profile.current().resolved_threads())


class OnnxSizes(Sizes):
    """A generator's ``model.onnx`` as a function of images of any size.

    The file computes images of the trained size alone, since paddings and crops in it are numbers: so
    does it all that goes through the network in that size (tiles and resized images too). The others go
    to another runtime of the same network, which is asked for when the first of them comes.

    Args:
        path: the file.
        digest: its sha256 in the record, or None where it has been compared.
        source, target: value ranges of both sides.
        trained: (height, width) that the record of the export names.
        other: returns the network in a runtime that takes other sizes, or raises a UserError.
    """

    def __init__(
        self, path: Path, digest: str | None, source: Side, target: Side, trained: Size, other: Callable[[], Sizes]
    ):
        profile.forbid_telemetry()  # read when onnxruntime is imported
        threads, channels = profile.current().resolved_threads(), (source.channels, target.channels)
        try:
            self._network = onnx_file.Network(path, tuple(trained), channels, threads, digest)
        except onnx_file.ModelError as error:
            if error.__cause__ is not None and limit_of_the_machine(error.__cause__):  # which says nothing of the file
                raise error.__cause__ from None
            raise UserError(f"{path}: {error}; {MEND}") from None
        super().__init__(trained, source, target)
        self._path, self._ask = path, other

    @cached_property
    def _other(self) -> Sizes:
        return self._ask()

    def padded(self, size: Size) -> Size:
        """Return the size nearest above ``size`` that the network allows."""
        return self.trained if tuple(size) == self.trained else self._other.padded(size)

    def unit(self, image: np.ndarray) -> np.ndarray:
        """Return what the network makes of a (height, width, channels) image of stored integers, in [-1, 1]."""
        low, high = (np.asarray(value, np.float32) for value in (self.source.low, self.source.high))
        given = (image.astype(np.float32) - low) * (np.float32(2) / (high - low)) - 1
        try:
            return self._network(given)
        except onnx_file.ModelError as error:
            raise UserError(f"{self._path}: {error}; {MEND}") from None

    def _translate(self, image: np.ndarray, index: int) -> np.ndarray:
        if image.shape[:2] != self.trained:
            return self._other._translate(image, index)
        low, high = (np.asarray(value, np.float32) for value in (self.target.low, self.target.high))
        stored = (self.unit(image) + 1) * ((high - low) / np.float32(2)) + low
        return np.round(np.clip(stored, low, high)).astype(self.target.dtype)
