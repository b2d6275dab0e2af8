"""An exported ONNX translator, run by onnxruntime alone: nothing here, or below, imports Keras or TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repix import profile
from repix.errors import UserError
from repix.inference.sizes import Size, Sizes

if TYPE_CHECKING:
    import onnxruntime

    from repix.schemas import Side


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a file opened by onnxruntime, on the profile's threads.

    It is given bytes and no path: weights in files beside it, of which no digest speaks, are then an error.
    """
    profile.forbid_telemetry()  # read when onnxruntime is imported
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = profile.current().resolved_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a file's own words, in colours; what it cannot do is raised
    # A thread that waits for others leaves its core to what decodes and encodes: a fifth of the CPU time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


class OnnxSizes(Sizes):
    """A generator's ``model.onnx`` as a function of images of any size.

    The file computes images of the trained size alone, since paddings and crops in it are numbers: so
    does it all that goes through the network in that size (tiles and resized images too). The others go
    to another runtime of the same network, which is asked for when the first of them comes.

    Args:
        path: the file.
        source, target: value ranges of both sides.
        trained: (height, width) that the record of the export names.
        other: returns the network in a runtime that takes other sizes, or raises a UserError.
    """

    def __init__(self, path: Path, source: Side, target: Side, trained: Size, other: Callable[[], Sizes]):
        try:
            self._session = open_session(path)
        except Exception as error:  # its errors have no common class
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: cannot be read ({said}); run `dvc checkout` or `dvc repro`") from None
        found = [(one.name, one.type, *one.shape[1:]) for one in self._session.get_inputs()]
        found += [(one.name, one.type, *one.shape[1:]) for one in self._session.get_outputs()]
        named = [
            (name, "tensor(float)", *trained, side.channels)
            for name, side in (("image", source), ("translation", target))
        ]
        if found != named:
            raise UserError(
                f"{path}: takes and gives {found}, its record says {named}; run `dvc checkout` or `dvc repro`"
            )
        super().__init__(trained, source, target)
        self._path, self._ask = path, other

    @cached_property
    def _other(self) -> Sizes:
        return self._ask()

    def padded(self, size: Size) -> Size:
        """Return the size that an image of ``size`` is padded to when it is seen whole."""
        return self.trained if tuple(size) == self.trained else self._other.padded(size)

    def unit(self, image: np.ndarray) -> np.ndarray:
        """Return what the network makes of a (height, width, channels) image of stored integers, in [-1, 1]."""
        low, high = (np.asarray(value, np.float32) for value in (self.source.low, self.source.high))
        given = (image.astype(np.float32) - low) * (np.float32(2) / (high - low)) - 1
        try:
            found = self._session.run(["translation"], {"image": given[None]})[0][0]
        except Exception as error:  # its errors have no common class
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{self._path}: cannot be computed ({said}); run `dvc checkout` or `dvc repro`") from None
        if not np.isfinite(found).all():
            raise UserError(f"{self._path}: gives NaN or infinite numbers; run `dvc checkout` or `dvc repro`")
        return found

    def _translate(self, image: np.ndarray, index: int) -> np.ndarray:
        if image.shape[:2] != self.trained:
            return self._other._translate(image, index)
        low, high = (np.asarray(value, np.float32) for value in (self.target.low, self.target.high))
        stored = (self.unit(image) + 1) * ((high - low) / np.float32(2)) + low
        return np.round(np.clip(stored, low, high)).astype(self.target.dtype)
