"""``datasets``: entries of three groups, each read by the stages that need it and by no others.

The keys of a group and their defaults stand in its own module, so that an edit to one of them
re-runs the stages that read the group, and does not train again what only another group describes.
"""

from __future__ import annotations

from repix.config.archive import Archive
from repix.config.augment import Augment
from repix.config.images import Images
from repix.config.reader import Settings


class Dataset(Settings):
    """One entry of ``datasets``: what differs from the defaults of its groups.

    Attributes:
        archive: where the images come from; read by download and export.
        images: how they become arrays; read by preprocess.
        augment: what training does to them; read by train.
    """

    archive: Archive
    images: Images = Images()
    augment: Augment = Augment()
