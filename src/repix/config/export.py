"""``export``: which files a trained translator leaves the pipeline in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from repix.config.reader import Settings

Format = Literal["keras", "saved_model", "onnx", "litert"]


class Tolerance(Settings):
    """How far a file may be from the trained network, on the [-1, 1] scale.

    Attributes:
        max: largest absolute difference over all values of all compared images.
        mean: mean absolute difference.
    """

    max: float = Field(gt=0)
    mean: float = Field(gt=0)


TOLERANCE: dict[Format, Tolerance] = {
    # The same kernels in the same order: what is left is the compiler's freedom to fuse.
    "keras": Tolerance(max=1e-5, mean=1e-6),
    "saved_model": Tolerance(max=1e-5, mean=1e-6),
    # Other kernels sum in another order; measured 4e-6 at most for U-Nets of up to 54 M parameters.
    "onnx": Tolerance(max=5e-5, mean=5e-6),
    "litert": Tolerance(max=5e-5, mean=5e-6),
}


class Export(Settings):
    """What is exported and how closely it must follow the trained network.

    Attributes:
        formats: ``keras`` (.keras, the network on [-1, 1]), ``saved_model`` (stored
            integers in and out, and [-1, 1] under a second signature), ``onnx`` and
            ``litert`` (both on [-1, 1]).
        variant: which weights: ``last``, or ``best`` on the val split.
        tolerance: format -> allowed difference between the file, loaded back in its own
            runtime, and the trained network. One step of an 8-bit image is 7.8e-3.
        litert_weights: ``float32``, or ``float16``: half the size, for which the tolerance
            of litert has to be about a thousand times as wide.
        images: test images that the comparison takes.
    """

    formats: tuple[Format, ...] = Field(default=("keras", "saved_model", "onnx", "litert"), min_length=1)
    variant: Literal["last", "best"] = "last"
    tolerance: dict[Format, Tolerance] = Field(default_factory=lambda: dict(TOLERANCE))
    litert_weights: Literal["float32", "float16"] = "float32"
    images: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _every_format_has_a_tolerance(self) -> Export:
        if len(set(self.formats)) != len(self.formats):
            raise ValueError("formats names a format twice")
        missing = [name for name in self.formats if name not in self.tolerance]
        if missing:
            raise ValueError(f"tolerance lacks {', '.join(missing)}: give each format {{max: ..., mean: ...}}")
        return self
