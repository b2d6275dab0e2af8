"""Paired façades drawn by a program: the sample that needs no download.

The labels are compositions in the palette of the CMP façades; the photographs are a rendering of
them. What a generator can learn from a label map is put there on purpose: joints, frames, reveals and cast
shadows follow the edges of the labels, and the building material follows from which labels a
house has. Hue, dirt, reflections and noise do not, and are mild.

Image ``index`` of a split is a pure function of (seed, split, index, size): neither the number of
images nor their order plays a part. The numbers come from Philox, a counter-based generator, as
raw integers; the arithmetic on them is element by element with + - * / only, which IEEE 754
rounds alike on every machine, so the pixels are the same everywhere.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repix import rng
from repix.config import drawn
from repix.config.drawn import SPLITS
from repix.files import atomic_path
from repix.rng import Stream

GRID = 64
"""Compositions lie on a grid of 64 x 64 units, whatever the size of the image."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 222),
    "wall": (0, 48, 255),
    "window": (0, 128, 255),
    "door": (0, 207, 255),
    "head": (32, 255, 224),
    "sill": (112, 255, 142),
    "balcony": (192, 255, 63),
    "blind": (255, 240, 0),
    "deco": (255, 159, 0),
    "cornice": (255, 80, 0),
    "pillar": (255, 0, 0),
    "shop": (174, 0, 0),
}
"""Colour of each label, as in the JPEG files of the CMP façades (the most frequent of its shades)."""


def stream(seed: int, split: str, index: int, purpose: int) -> Stream:
    """Return the random numbers of one image: purpose 0 is its composition, 1 its rendering."""
    return rng.numbered(seed, SPLITS.index(split) << 48 | purpose << 40 | index)


@dataclass(frozen=True)
class Style:
    """A way to build.

    Attributes:
        wall, trim, frame, roof: materials, RGB 0..255.
        course: height of a course of masonry in units, 0 for smooth upper storeys.
        block: width of a brick or stone in units, 0 for none.
        widths: least and greatest width of a window, in units.
        parts: how likely a house or a storey has each kind of part; 0 where none is named.
    """

    wall: tuple[int, int, int]
    trim: tuple[int, int, int]
    frame: tuple[int, int, int]
    roof: tuple[int, int, int]
    course: int
    block: int
    widths: tuple[int, int]
    parts: dict[str, float]


STYLES = {
    "brick": Style(
        wall=(158, 84, 66),
        trim=(214, 200, 178),
        frame=(232, 230, 222),
        roof=(88, 84, 92),
        course=3,
        block=6,
        widths=(4, 6),
        parts={"head": 0.95, "sill": 0.9, "belt": 0.3, "balcony": 0.1, "deco": 0.1},
    ),
    "plaster": Style(
        wall=(206, 172, 112),
        trim=(238, 226, 200),
        frame=(226, 220, 206),
        roof=(150, 84, 62),
        course=0,
        block=0,
        widths=(4, 6),
        parts={"head": 0.1, "sill": 0.8, "belt": 0.4, "blind": 0.9, "balcony": 0.3, "deco": 0.2},
    ),
    "stone": Style(
        wall=(166, 160, 146),
        trim=(206, 202, 190),
        frame=(96, 70, 52),
        roof=(86, 96, 104),
        course=4,
        block=8,
        widths=(4, 6),
        parts={"head": 0.4, "sill": 0.5, "belt": 0.9, "balcony": 0.25, "pillar": 0.9, "deco": 0.5},
    ),
    "modern": Style(
        wall=(150, 172, 164),
        trim=(222, 226, 224),
        frame=(70, 74, 78),
        roof=(112, 108, 104),
        course=3,
        block=0,
        widths=(6, 9),
        parts={"sill": 0.3, "belt": 0.1, "balcony": 0.7},
    ),
}


class Box(NamedTuple):
    """A labelled rectangle in units: rows top..bottom-1, columns left..right-1."""

    label: str
    top: int
    bottom: int
    left: int
    right: int


class Storey(NamedTuple):
    """Rows of a storey; courses are counted from ``lintel``, the top of its windows."""

    top: int
    bottom: int
    lintel: int


class Bay(NamedTuple):
    """Columns left..right-1 of a bay; its windows stand in near..far-1."""

    left: int
    right: int
    near: int
    far: int


@dataclass
class House:
    """A composition: everything that the label map shows and the rendering starts from."""

    style: Style
    left: int
    right: int
    top: int
    ground: int
    symmetric: bool
    bays: list[Bay]
    roof: list[Box] = field(default_factory=list)
    storeys: list[Storey] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)  # in the order of painting

    def add(self, label: str, top: int, bottom: int, left: int, right: int) -> None:
        """Add a part, over those that are there."""
        self.boxes.append(Box(label, top, bottom, left, right))


def _bays(stream: Stream, left: int, right: int, widths: tuple[int, int], symmetric: bool) -> list[Bay]:
    """Divide the columns left..right-1 into bays with windows of these widths."""
    width = right - left
    count = stream.integer(max(2, width // 18), max(2, width // (widths[1] + 4)))
    edges = [left + (2 * k * width + count) // (2 * count) for k in range(count + 1)]
    for k in range(1, count):
        edges[k] += stream.integer(-2, 2)
    openings = [stream.integer(*widths) for _ in range(count)]
    if symmetric:
        for k in range(1, count // 2 + 1):
            edges[count - k] = (left + right) // 2 if 2 * k == count else left + right - edges[k]
        openings = [openings[min(k, count - 1 - k)] for k in range(count)]
    bays = []
    for a, b, opening in zip(edges[:-1], edges[1:], openings, strict=True):
        opening = min(opening, b - a - 3)
        near = (a + b - opening) // 2
        bays.append(Bay(a, b, near, near + opening))
    return bays


def _roof(house: House, stream: Stream) -> None:
    """Put a mansard or a gable on some of the houses that leave room for it."""
    shape, height = stream.choice(("flat", "flat", "mansard", "gable")), stream.integer(6, 10)
    eaves = house.top - 3
    if shape == "flat" or eaves - height < 3:
        return
    for k in range(height):
        inset = (k + 1) // 2 if shape == "mansard" else (k + 1) * (house.right - house.left) // (2 * height + 1)
        house.roof.append(Box("wall", eaves - k - 1, eaves - k, house.left + inset, house.right - inset))


def _upper_storey(house: House, stream: Stream, top: int, bottom: int) -> None:
    """Add the windows of a storey, all alike, with some balconies and niches among them."""
    likely = house.style.parts
    lintel = top + stream.integer(2, 3)
    foot = max(bottom - stream.integer(2, 4), lintel + 4)
    head, sill, blind, deco, balconies = (
        stream.chance(likely.get(part, 0.0)) for part in ("head", "sill", "blind", "deco", "balcony")
    )
    every = stream.integer(1, 3)
    house.storeys.append(Storey(top, bottom, lintel))
    for number, bay in enumerate(house.bays):
        place = min(number, len(house.bays) - 1 - number) if house.symmetric else number
        balcony = balconies and place % every == 0
        if not balcony and stream.chance(0.05):
            house.add("deco", lintel, foot, bay.near, bay.far)  # a niche in place of the window
            continue
        end = bottom - 2 if balcony else foot
        house.add("window", lintel, end, bay.near, bay.far)
        if blind:
            house.add("blind", lintel, end, bay.near - 2, bay.near)
            house.add("blind", lintel, end, bay.far, bay.far + 2)
        if head:
            house.add("head", lintel - 2, lintel, bay.near - 1, bay.far + 1)
        if balcony:
            house.add("balcony", end - 4, end, bay.near - 2, bay.far + 2)
        elif sill:
            house.add("sill", end, end + 1, bay.near - 1, bay.far + 1)
        if deco and not balcony and bottom - end >= 4:
            house.add("deco", end + 1, bottom - 1, bay.near, bay.far)


def _ground_floor(house: House, stream: Stream, top: int, bottom: int) -> None:
    """Add a door, and shops over one or two bays or windows."""
    bays, lintel = house.bays, top + 3
    house.storeys.append(Storey(top, bottom, lintel))
    shops = stream.chance(0.5)
    centred = house.symmetric and len(bays) % 2
    door = len(bays) // 2 if centred else stream.integer(0, len(bays) - 1)
    number = 0
    while number < len(bays):
        bay = bays[number]
        if number == door:
            far = max(bay.far, bay.near + 5)
            house.add("door", lintel, bottom, bay.near, far)
            house.add("head", lintel - 1, lintel, bay.near - 1, far + 1)
        elif shops and stream.chance(0.8):
            number += number + 1 < len(bays) and number + 1 != door and stream.chance(0.5)
            house.add("shop", lintel - 1, bottom, bay.left + 2, bays[number].right - 1)
        else:
            house.add("window", lintel, bottom - 4, bay.near, bay.far)
            house.add("sill", bottom - 4, bottom - 3, bay.near - 1, bay.far + 1)
        number += 1


def compose(stream: Stream) -> House:
    """Draw up a house: style, outline, bays, storeys, and what stands where the two cross."""
    style = STYLES[stream.choice(tuple(STYLES))]
    left = 0 if stream.chance(0.35) else stream.integer(3, 9)
    right = GRID if stream.chance(0.35) else GRID - stream.integer(3, 9)
    ground = GRID - stream.integer(3, 6)
    first_floor, height = ground - stream.integer(11, 15), stream.integer(9, 12)
    count = max(1, (first_floor - 7) // height - stream.integer(0, 2))
    top = first_floor - count * height
    symmetric = stream.chance(0.6)
    house = House(style, left, right, top, ground, symmetric, _bays(stream, left, right, style.widths, symmetric))
    _roof(house, stream)
    if stream.chance(style.parts.get("pillar", 0.0)):
        for middle in [left + 1, *(bay.left for bay in house.bays[1:]), right - 1]:
            house.add("pillar", top, first_floor, middle - 1, middle + 1)
    house.add("cornice", top - 3, top, left - 1, right + 1)
    belts = stream.chance(style.parts.get("belt", 0.0))
    for floor in range(top + height, first_floor + 1, height):
        if belts or (floor == first_floor and stream.chance(0.6)):
            house.add("cornice", floor - 1, floor + 1, left, right)
        _upper_storey(house, stream, floor - height, floor)
    _ground_floor(house, stream, first_floor, ground)
    return house


def _pixels(box: Box, size: int) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a box in pixels, clipped to the image."""
    return tuple(min(max((2 * t * size + GRID) // (2 * GRID), 0), size) for t in box[1:])


def label_map(house: House, size: int) -> np.ndarray:
    """Return the labels of a house as uint8 (size, size, 3), colours of PALETTE only."""
    labels = np.empty((size, size, 3), np.uint8)
    labels[:] = PALETTE["background"]
    walls = Box("wall", house.top, house.ground, house.left, house.right)
    for box in [*house.roof, walls, *house.boxes]:
        top, bottom, left, right = _pixels(box, size)
        labels[top:bottom, left:right] = PALETTE[box.label]
    return labels


class Painter:
    """The photograph while it is painted: float RGB 0..255, light from the top left."""

    def __init__(self, house: House, stream: Stream, size: int):
        self.house, self.stream, self.size = house, stream, size
        self.unit = max(1, (size + GRID // 2) // GRID)
        self.photo = np.zeros((size, size, 3))
        self.style = style = house.style
        # What a label map cannot tell: a mild tint of each material, and the light of the day.
        self.wall, self.trim, self.frame, self.roof = (
            self._tint(colour) for colour in (style.wall, style.trim, style.frame, style.roof)
        )

    def _tint(self, colour, by: float = 8.0) -> np.ndarray:
        return np.array([c + by * (2.0 * self.stream.uniform() - 1.0) for c in colour])

    def fill(self, top, bottom, left, right, colour, first: float = 1.0, last: float = 1.0) -> None:
        """Fill rows and columns with a colour, its brightness running from ``first`` to ``last`` downwards."""
        y = np.arange(max(top, 0), min(bottom, self.size))
        if len(y) == 0 or right <= left:
            return
        ramp = first + (last - first) * ((y - top + 0.5) / (bottom - top))
        self.photo[y[0] : y[-1] + 1, max(left, 0) : right] = ramp[:, None, None] * np.asarray(colour, dtype=float)

    def shade(self, top, bottom, left, right, factor: float) -> None:
        """Multiply the brightness of a region."""
        self.photo[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] *= factor

    def cast(self, top, bottom, left, right, depth: int, dark: float = 0.5) -> None:
        """Cast the shadow of a part that stands out: below it, fading, and shifted to the right."""
        u = self.unit
        rows = depth * u
        for k in range(rows):
            factor = dark + (1.0 - dark) * k / rows
            self.shade(bottom + k, bottom + k + 1, left + min(k + 1, u), right + min(k + 1, u), factor)
        self.shade(top + u, bottom, right, right + u, 0.8)

    def background(self) -> None:
        """Paint sky, a row of trees and the street."""
        size, u = self.size, self.unit
        ground = _pixels(Box("", self.house.ground, GRID, 0, GRID), size)[0]
        y = (np.arange(size) + 0.5)[:, None, None] / size
        high, low = self._tint((104, 148, 204), 12.0), self._tint((218, 228, 234))
        self.photo[:] = high + (low - high) * y * 1.3
        for near in range(0, size, 2 * u):
            crown = ground - self.stream.integer(10, 13) * u
            self.fill(crown, ground, near, near + 2 * u, (84, 104, 74), 1.2, 0.5)
        self.fill(ground, size, 0, size, (142, 140, 136), 0.78, 1.12)
        self.fill(ground, ground + u, 0, size, (186, 184, 178))
        house = self.house
        _, _, left, right = _pixels(Box("", 0, 0, house.left, house.right), size)
        self.shade(ground + u, ground + 2 * u, left, right + u, 0.7)

    def roofs(self) -> None:
        """Paint the tiles: rows of two units, counted from the eaves."""
        for k, box in enumerate(self.house.roof):
            top, bottom, left, right = _pixels(box, self.size)
            self.fill(top, bottom, left, right, self.roof, *((1.2, 1.1) if k % 2 else (0.75, 0.65)))
            self.shade(top, bottom, right - 2 * self.unit, right, 0.8)

    def walls(self) -> None:
        """Paint each storey: masonry in courses from the lintel, lighter above than below."""
        house, style, u, size = self.house, self.style, self.unit, self.size
        ground, _, left, right = _pixels(Box("", house.ground, 0, house.left, house.right), size)
        anchor = np.zeros(size, dtype=int)
        for bay in house.bays:
            left_edge, right_edge, window, _ = _pixels(Box("", bay.left, bay.right, bay.near, 0), size)
            anchor[left_edge:right_edge] = window
        columns = np.arange(left, right) - anchor[left:right]
        for storey in house.storeys:
            base = storey is house.storeys[-1]
            top, bottom, lintel, _ = _pixels(Box("", storey.top, storey.bottom, storey.lintel, 0), size)
            self.fill(top, bottom, left, right, self.wall * (0.86 if base else 1.0), 1.12, 0.9)
            course, block = (style.course or 4, style.block) if base else (style.course, style.block)
            wall = self.photo[top:bottom, left:right]
            if course:
                rows = np.arange(top, bottom) - lintel
                number, within = rows // (course * u), rows % (course * u)
                tone = np.where(within < u, 0.62, np.where(within < 2 * u, 1.1, 1.0))
                wall *= tone[:, None, None]
                if block:
                    along = columns[None, :] + (number % 2)[:, None] * (block * u // 2)
                    wall[(along % (block * u) < u) & (within >= u)[:, None]] *= 0.76
        if style.course == 0:  # corner stones of plastered houses
            for k in range((house.ground - house.top) // 2):
                top, bottom, _, _ = _pixels(Box("", house.ground - 2 * k - 2, house.ground - 2 * k, 0, 0), size)
                wide = (3 if k % 2 else 2) * u
                for near, far in ((left, left + wide), (right - wide, right)):
                    self.fill(top, bottom, near, far, self.trim, 1.05, 0.8)
        # The sun stands at the left: the wall darkens to the right and ends in a shaded edge.
        fall = 1.06 - 0.16 * ((np.arange(right - left) + 0.5) / max(right - left, 1))
        self.photo[_pixels(Box("", house.top, GRID, 0, 0), size)[0] : ground, left:right] *= fall[:, None]
        self.shade(_pixels(Box("", house.top, 0, 0, 0), size)[0], ground, right - u, right, 0.85)

    def glass(self, top, bottom, left, right) -> None:
        """Paint panes: dark under the reveal, brighter below, a reflection somewhere."""
        u = self.unit
        self.fill(top, bottom, left, right, (112, 132, 150), 0.45, 1.15)
        shine = self.stream.uniform() * 0.3
        middle = top + self.stream.integer(0, max(bottom - top - 1, 0))
        self.shade(middle, middle + u, left, right, 1.0 + shine)

    def window(self, top, bottom, left, right) -> None:
        """Paint surround, frame, panes with mullion and transom, and the shadow in the reveal."""
        u = self.unit
        if self.style.block == 0:
            self.fill(top - u, bottom + u, left - u, right + u, self.trim, 1.0, 0.9)
        border = u if right - left >= 6 * u else 0  # narrow windows would be all frame
        self.fill(top, bottom, left, right, self.frame, 0.95, 1.0)
        self.glass(top, bottom - u, left + border, right - border)
        middle = (left + right - u) // 2
        self.fill(top, bottom - u, middle, middle + u, self.frame)
        transom = top + (bottom - top) // 3
        self.fill(transom, transom + u, left, right, self.frame)
        self.shade(top, top + u, left, right, 0.5)
        self.shade(top + u, bottom, left, left + u, 0.7)

    def door(self, top, bottom, left, right) -> None:
        """Paint a two-leaved door with a fanlight and panels."""
        u = self.unit
        wood = self._tint((112, 70, 44))
        self.fill(top, bottom, left, right, wood, 1.1, 0.85)
        self.fill(top + u, top + 3 * u, left + u, right - u, (170, 178, 170), 0.6, 1.1)
        middle = (left + right - u) // 2
        self.shade(top, bottom, middle, middle + u, 0.55)
        for near, far in ((left + u, middle), (middle + u, right - u)):
            for k in range(top + 4 * u, bottom - u, 3 * u):
                self.shade(k, k + u, near, far, 1.45)
                self.shade(k + u, k + 2 * u, near, far, 0.75)
        self.shade(top, top + u, left, right, 0.5)
        self.shade(top + u, bottom, left, left + u, 0.7)

    def shop(self, top, bottom, left, right) -> None:
        """Paint fascia, striped awning and shop window."""
        u = self.unit
        cloth = self._tint((176, 60, 54), 24.0)
        self.fill(top, bottom, left, right, (70, 64, 60), 1.0, 1.2)
        self.fill(top + 6 * u, bottom - 2 * u, left + u, right - u, (228, 196, 140), 0.4, 1.05)
        for k in range(left + 4 * u, right - u, 5 * u):
            self.fill(top + 6 * u, bottom - u, k, k + u, (70, 64, 60))
        self.fill(top, top + 2 * u, left, right, (64, 76, 70), 1.3, 0.9)
        for k, near in enumerate(range(left, right, 2 * u)):
            colour = cloth if k % 2 == 0 else (236, 230, 220)
            self.fill(top + 2 * u, top + 5 * u, near, min(near + 2 * u, right), colour, 1.1, 0.85)
        self.shade(top + 5 * u, top + 7 * u, left, right, 0.55)

    def balcony(self, top, bottom, left, right) -> None:
        """Paint rail, bars with darkness between them, and the slab."""
        u = self.unit
        self.cast(top, bottom, left, right, 3, 0.45)
        self.shade(top, bottom, left, right, 0.5)
        for near in range(left, right, 2 * u):
            self.fill(top, bottom - u, near, min(near + u, right), (58, 60, 66), 1.1, 0.8)
        self.fill(top, top + u, left, right, (92, 94, 98))
        self.fill(bottom - u, bottom, left, right, self.trim, 1.0, 0.8)

    def blind(self, top, bottom, left, right) -> None:
        """Paint shutters: slats of two units, light edge at the left."""
        u = self.unit
        self.fill(top, bottom, left, right, (70, 112, 84), 1.1, 0.9)
        for k in range(top + u, bottom, 2 * u):
            self.shade(k, k + u, left, right, 0.62)
        self.shade(top, bottom, right - u, right, 0.8)
        self.cast(top, bottom, left, right, 1, 0.75)

    def sill(self, top, bottom, left, right) -> None:
        """Paint a sill and its shadow."""
        self.fill(top, bottom, left, right, self.trim, 1.12, 1.0)
        self.cast(top, bottom, left, right, 2)

    def head(self, top, bottom, left, right) -> None:
        """Paint a lintel of stone and its shadow."""
        u = self.unit
        self.fill(top, bottom, left, right, self.trim, 1.12, 0.92)
        self.shade(top, bottom, left, left + u, 0.86)
        self.shade(top, bottom, right - u, right, 0.8)
        self.cast(top, bottom, left, right, 1, 0.55)

    def cornice(self, top, bottom, left, right) -> None:
        """Paint a moulding: light edge, dentils where it is high enough, dark underside."""
        u = self.unit
        self.fill(top, bottom, left, right, self.trim, 1.15, 0.7)
        if bottom - top >= 3 * u:
            for near in range(left + u, right, 4 * u):
                self.shade(top + u, bottom, near, near + 2 * u, 0.66)
        self.cast(top, bottom, left, right, 3)

    def pillar(self, top, bottom, left, right) -> None:
        """Paint a shaft, lit at the left, with base and capital."""
        u = self.unit
        middle = (left + right) // 2
        self.fill(top, bottom, left, right, self.trim, 1.12, 1.0)
        self.shade(top, bottom, middle, right, 0.68)
        self.fill(top, top + 2 * u, left, right, self.trim, 1.15, 0.85)
        self.shade(top, bottom, right, right + u, 0.75)

    def deco(self, top, bottom, left, right) -> None:
        """Paint a relief: raised border, sunk field, boss in the middle."""
        u = self.unit
        self.fill(top, bottom, left, right, self.trim, 1.1, 0.9)
        self.shade(top + u, bottom - u, left + u, right - u, 0.72)
        self.shade(top + u, top + 2 * u, left + u, right - u, 0.75)
        y, x = (top + bottom - u) // 2, (left + right - 2 * u) // 2
        self.fill(y, y + u, x, x + 2 * u, self.trim, 1.1, 1.0)

    def weather(self) -> None:
        """Add what no label tells: blotches of dirt, exposure and the noise of the sensor."""
        size, cells = self.size, 8
        for axis in (0, 1):  # the lens: a blur of one pixel
            wide = np.concatenate([self.photo.take([0], axis), self.photo, self.photo.take([-1], axis)], axis)
            before, after = wide.take(range(size), axis), wide.take(range(2, size + 2), axis)
            self.photo = 0.8 * self.photo + 0.1 * (before + after)
        coarse = self.stream.noise(cells + 1, cells + 1)
        at = np.arange(size) * cells / size
        low = at.astype(int)
        part = at - low
        rows = coarse[low] * (1.0 - part)[:, None] + coarse[low + 1] * part[:, None]
        blotches = rows[:, low] * (1.0 - part) + rows[:, low + 1] * part
        exposure = 1.0 + 0.04 * (2.0 * self.stream.uniform() - 1.0)
        self.photo *= (exposure + 0.02 * blotches)[:, :, None]
        self.photo += 2.5 * self.stream.noise(size, size)[:, :, None]

    def paint(self) -> np.ndarray:
        """Return the photograph as uint8 (size, size, 3)."""
        self.background()
        self.roofs()
        self.walls()
        paint = {
            "window": self.window,
            "door": self.door,
            "head": self.head,
            "sill": self.sill,
            "balcony": self.balcony,
            "blind": self.blind,
            "deco": self.deco,
            "cornice": self.cornice,
            "pillar": self.pillar,
            "shop": self.shop,
        }
        for box in self.house.boxes:
            paint[box.label](*_pixels(box, self.size))
        self.weather()
        return np.clip(np.floor(self.photo + 0.5), 0, 255).astype(np.uint8)


def draw_facade(seed: int, split: str, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one pair.

    Args:
        seed: of the whole set, 0 .. 2**63 - 1.
        split: train, val or test; equal indices of two splits are different houses.
        index: position in the split, from 0.
        size: height and width in pixels, at least 16.

    Returns:
        The label map and the photograph, each uint8 (size, size, 3); the same on every machine.
    """
    house = compose(stream(seed, split, index, purpose=0))
    return label_map(house, size), Painter(house, stream(seed, split, index, purpose=1), size).paint()


def _members(size: int, seed: int, counts: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield name and PNG bytes of every pair, photograph at the left and label map at the right."""
    from PIL import Image
    from tqdm import tqdm

    with tqdm(total=sum(counts.values()), desc="drawing façades", unit="img", disable=None) as progress:
        for split, count in counts.items():
            for index in range(count):
                label, photo = draw_facade(seed, split, index, size)
                stream = io.BytesIO()
                Image.fromarray(np.concatenate([photo, label], axis=1)).save(stream, "PNG", compress_level=6)
                yield f"facades/{split}/{index + 1}.png", stream.getvalue()
                progress.update()


def _facades(settings: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    return _members(settings["size"], settings["seed"], {split: settings[split] for split in SPLITS})


_DRAWERS = {"facades": _facades}  # all of drawn.GENERATORS


def write_archive(path: Path, generator: str, options: dict[str, str]) -> None:
    """Write a drawn data set as a .tar in the layout of the real façades.

    Members are ``facades/<split>/<n>.png`` with n from 1, each 2 * size wide and size high:
    photograph (A) at the left, label map (B) at the right. Equal options give equal bytes:
    every header has time, owner and group 0.

    Args:
        path: the archive to write.
        generator: ``facades``, the only one.
        options: of ``size`` (pixels), ``train``, ``val``, ``test`` (numbers of pairs) and ``seed``,
            as text; what is absent takes its value of DEFAULTS.

    Raises:
        UserError: an unknown generator or option, or a value that is not allowed.
    """
    settings = drawn.settings(generator, options)
    members = _DRAWERS[generator](settings)
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)  # mode 0644; time, owner and group 0
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
            tar.members.clear()
