"""``export``: which files a trained translator leaves the pipeline in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from repix import registry
from repix.config.reader import Settings

Format = Literal[tuple(registry.FORMATS)]


class Tolerance(Settings):
    """How far a file may be from the trained network, on the [-1, 1] scale.

    Attributes:
        max: largest absolute difference over all values of all compared images.
        mean: mean absolute difference.
    """

    max: float = Field(gt=0)
    mean: float = Field(gt=0)


class Export(Settings):
    """What is exported and how closely it must follow the trained network.

    Attributes:
        formats: ``keras`` (.keras, the network on [-1, 1]), ``saved_model`` (stored
            integers in and out, and [-1, 1] under a second signature), ``onnx`` and
            ``litert`` (both on [-1, 1]).
        variant: which weights: ``last``, ``best`` on the val split, ``ema`` (their moving average) or
            ``auto``: ``ema`` where the recipe keeps one, else ``last``.
        tolerance: format -> allowed difference between the file, loaded back in its own
            runtime, and the trained network. One step of an 8-bit image is 7.8e-3. A format
            of which it says nothing has that of :data:`repix.registry.FORMATS`, and more for
            large images.
        litert_weights: ``float32``, or ``float16``: half the size, for which the tolerance
            of litert has to be about a thousand times as wide.
        images: test images that the comparison takes.
    """

    formats: tuple[Format, ...] = Field(default=("keras", "saved_model", "onnx", "litert"), min_length=1)
    variant: Literal["auto", "last", "best", "ema"] = "auto"
    tolerance: dict[Format, Tolerance] = Field(default={})
    litert_weights: Literal["float32", "float16"] = "float32"
    images: int = Field(default=4, ge=1)

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(formats)) != len(formats):
            raise ValueError("formats names a format twice")
        return formats

    @field_validator("tolerance")
    @classmethod
    def _of_the_chosen_formats(cls, given: dict[str, Tolerance], info: ValidationInfo) -> dict[str, Tolerance]:
        """Leave out formats that are not written: no result follows from those."""
        return {name: given[name] for name in info.data.get("formats", ()) if name in given}
