"""``datasets.<name>.augment``: what training does to an image before the networks see it."""

from __future__ import annotations

from repix.config.reader import Settings


class Augment(Settings):
    """What training draws anew each time that it takes an image, beside the crop.

    Attributes:
        flip: whether a pair is mirrored left to right, half of the time.
    """

    flip: bool = True
