"""Write a page with every translation of a test split, the worst first, that opens from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repix import metrics, pages
from repix.data.image_writer import write as write_image
from repix.data.resizing import resize
from repix.files import write_text

PAGE = "index.html"
FOLDER = "gallery"  # of the small pictures, below the page
LARGE_SET = 200  # images; beyond that small pictures are half as wide, so that a gallery stays within tens of MB


@dataclass(frozen=True)
class Section:
    """One translator's part of the page.

    Attributes:
        title: ``source_to_target`` ...
        names: of the images, in the order of the split.
        outputs: per image, the file of its translation, relative to the page.
        pictures: column (``source``, ``output``, ``target``) -> per image its small picture,
            relative to the page; a kind that there is none of has no column.
        scores: metric, of :mod:`repix.metrics` -> (n,) numbers.
    """

    title: str
    names: Sequence[str]
    outputs: Sequence[str]
    pictures: Mapping[str, Sequence[str]]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    def means(self) -> str:
        """Return the mean of each score."""
        return ", ".join(f"{metric} {np.mean(values):.4f}" for metric, values in self.scores.items())

    def orders(self) -> list[tuple[str, int]]:
        """Return what the page can be sorted by, a metric and whether up (1) or down (-1) is the worst first.

        First comes what it is sorted by from the start: SSIM, or else L1.
        """
        found = sorted(self.scores, key=lambda metric: ("ssim", "l1", metric).index(metric))
        return [(metric, metrics.direction(metric)) for metric in found]

    def worst_first(self) -> list[int]:
        """Return the images' places by the first of :meth:`orders`, or as they come where there is no score."""
        if not self.scores:
            return list(range(len(self.names)))
        metric, sign = self.orders()[0]
        return np.argsort(sign * np.asarray(self.scores[metric]), kind="stable").tolist()


def thumbnails(folder: Path, series: str, names: Sequence[str], pictures: Iterable[np.ndarray]) -> list[str]:
    """Write small PNGs for a page in ``folder``; return their paths relative to it.

    Args:
        folder: of the page.
        series: such as ``source``; the pictures of one series lie together.
        names: one for each picture, unique.
        pictures: (height, width, 3) uint8; those with a side over 256 px (128 px in a set of more
            than 200) are made smaller.
    """
    most = 256 if len(names) <= LARGE_SET else 128
    paths = []
    (folder / FOLDER / series).mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pictures, strict=True):
        height, width = picture.shape[:2]
        scale = most / max(height, width, most)
        small = resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))
        paths.append(f"{FOLDER}/{series}/{name}.png")
        write_image(folder / paths[-1], small)
    return paths


def write(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write ``index.html`` into ``folder``; return it. Equal input gives equal bytes.

    The page needs no network and no script, and only files below its folder. With scripts it can be sorted anew.

    Args:
        folder: the out of an evaluation.
        title: the cell's name.
        sections: one for each translator.
    """
    write_text(folder / PAGE, pages.render(__file__, "html", title=title, sections=sections))
    return folder / PAGE
