"""``export``: which files a trained translator leaves the pipeline in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from repix.config.reader import Settings


class Export(Settings):
    """What is exported and how closely it must follow the trained network.

    Attributes:
        formats: ``keras`` (.keras, the network on [-1, 1]) and ``saved_model`` (stored
            integers in and out, and [-1, 1] under a second signature).
        variant: which weights: ``last``, or ``best`` on the val split.
        tolerance: largest absolute difference allowed on the [-1, 1] scale, between each
            file loaded back in its own runtime and the trained network.
        images: test images that the comparison takes.
    """

    formats: tuple[Literal["keras", "saved_model"], ...] = Field(default=("keras", "saved_model"), min_length=1)
    variant: Literal["last", "best"] = "last"
    tolerance: float = Field(default=0.00001, gt=0)
    images: int = Field(default=4, ge=1)
