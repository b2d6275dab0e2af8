"""Look at an unpacked tree as the stages will: its layout, splits, sizes, channels and bits, and what is broken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repix.config.images import Images
from repix.data import hdf5, images, layouts, preprocess
from repix.data.images import BadImageError, Decoded, Limit
from repix.data.layouts import Item, Listing
from repix.errors import UserError

LAYOUTS = ("hdf5", "folders", "unaligned", "aligned")  # the first that fits; pairs before halves of them
SIDE_BY_SIDE = 1.9  # width by height from which a file is taken for two images side by side
FRACTIONS = (0.1, 0.15, 0.2, 0.3, 0.5)  # of a split that is made; more where the names' hashes leave it empty
STACK = "an image is a file of its own: write the pages of a stack as single files"
FEW = 5  # names that a line shows of many
DECODED = 300  # images of a side that are decoded whole
HEADERS = 3000  # images of a side whose size is read


@dataclass
class Side:
    """What the images of the source, or of the target, are.

    Attributes:
        sizes: (height, width) -> how many of those that were looked at; of a half, where a file holds both.
        kinds: channels -> how many; 1 grey, 3 RGB, any other number as stored.
        bits: 8 or 16, the most that one has.
        coloured: whether one has colour; one whose R, G and B are equal is grey.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: Counter[int] = field(default_factory=Counter)
    bits: int = 8
    coloured: bool = False


@dataclass
class Survey:
    """What is in a tree.

    Attributes:
        tree: where it was looked at.
        wanted: how ``preprocess`` would have to read it; the sizes are left at the defaults.
        found: split -> its images.
        sides: source and target.
        bad: file -> why it cannot be used.
        unequal: target -> why its pair cannot be used where pixels stay as they are; part of ``bad`` where they do.
        looked: images that were decoded, of how many.
        left_out: one line for each folder with files that no split takes.
    """

    tree: Path
    wanted: Images
    found: dict[str, Listing]
    sides: tuple[Side, Side]
    bad: dict[str, str]
    unequal: dict[str, str]
    looked: tuple[int, int]
    left_out: list[str]

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Split -> how many images its source and its target have, without those that are known to be unusable."""
        counts = {}
        for split, one in self.found.items():
            fine = [[item.label(self.tree) not in self.bad for item in side] for side in (one.source, one.target)]
            if self.wanted.paired:
                fine = [[all(pair) for pair in zip(*fine, strict=True)]] * 2
            counts[split] = (sum(fine[0]), sum(fine[1]))
        return counts


def _layout(tree: Path) -> str:
    """Return the first layout that fits a tree.

    Raises:
        UserError: none does.
    """
    for whole in (False, True):
        for layout in LAYOUTS:
            if layouts.fits(tree, layout, whole) and not (layout == "folders" and _is_named_as_unpaired(tree)):
                return layout
    sides = sorted({path.parent for path in tree.glob("*/*") if path.suffix.lower() in images.IMAGE_SUFFIXES})
    if len(sides) > 2 and not {side.name for side in sides} & set(layouts.SPLITS):
        names = ", ".join(side.name for side in sides[:FEW]) + ", ..." * (len(sides) > FEW)
        raise UserError(f"{tree}: {len(sides)} folders of images ({names}); pairs lie in two: move the others away")
    if not _count(tree) and not any(tree.rglob("*.h5")):
        raise UserError(f"{tree}: holds no images that repix reads; they end in {' '.join(images.SUFFIXES)}")
    # Says what is there, and what would be expected.
    layouts.find(tree, Images(layout="aligned", test_fraction=FRACTIONS[0]))
    raise UserError(f"{tree}: no layout fits; name one by --layout")


def _count(tree: Path) -> int:
    """Return how many images are in a tree."""
    return sum(path.suffix.lower() in images.IMAGE_SUFFIXES for path in tree.rglob("*"))


def _is_named_as_unpaired(tree: Path) -> bool:
    """Whether there is a folder trainA, as CycleGAN's sets have it: what is equal in their names makes no pairs."""
    return any(folder.is_dir() for folder in tree.rglob("trainA"))


def _splits(tree: Path, basis: dict) -> tuple[Images, dict[str, Listing]]:
    """Return the settings that give a tree train, val and test, and what they find.

    Raises:
        UserError: the tree does not fit, or has too few images.
    """

    def find(**more: float) -> tuple[Images, dict[str, Listing]]:
        wanted = Images(**basis, **more)
        return wanted, layouts.find(tree, wanted)

    def enough(found: dict[str, Listing], split: str) -> bool:
        few = min(map(len, (found["train"].source, found["train"].target))) < 10
        return split in found and min(len(found[split].source), len(found[split].target)) >= (1 if few else 2)

    made: dict[str, float] = {}
    error: UserError | None = None
    try:
        wanted, found = find()
    except UserError:
        for fraction in FRACTIONS:
            made = {"test_fraction": fraction}
            try:
                wanted, found = find(**made)
            except UserError as other:
                error = other
                continue
            if enough(found, "test"):
                break
        else:
            count = _count(tree)
            if count == 1:
                raise UserError(f"{tree}: holds one image; train and test take one each at least; {STACK}") from None
            if count == 2 and basis["layout"] in ("folders", "unaligned"):
                raise UserError(f"{tree}: holds one image of each side; train and test take two at least") from None
            few = UserError(f"{tree}: of {count} images no fraction leaves enough for test; add some")
            raise error or few from None
    if "val" not in found:
        for fraction in FRACTIONS[:-1]:
            more, split = find(**made, val_fraction=fraction)
            if enough(split, "val"):
                return more, split
    return wanted, found


def _refuse_mixed(found: dict[str, Listing]) -> None:
    """Raise where both images of pairs lie in one folder, told apart by how their names end."""
    ends: dict[str, set[str]] = {}
    for listing in found.values():
        for item in listing.source:
            core, mark, end = re.fullmatch(r"(.*?)(?:([_\-. ])([A-Za-z]+))?", item.name).groups()
            ends.setdefault(f"{mark or ''}{end or ''}", set()).add(core)
    if len(ends) == 2 and len(set(map(frozenset, ends.values()))) == 1:
        one, other = (f"in {end}" if end else "without it" for end in sorted(ends, reverse=True))
        raise UserError(
            f"names end {one} and {other}: these are pairs in one folder; move each kind into a folder of its own"
        )


def _fitting(tree: Path, layout: str | None, direction: str) -> tuple[Images, dict[str, Listing]]:
    """Return the settings by which a tree has all splits, and what they find; see :func:`look`."""

    def read(name: str) -> tuple[Images, dict[str, Listing]]:
        return _splits(tree, {"layout": name, "direction": direction} | ({"colour": "lab"} if name == "single" else {}))

    def refuse(near: dict[str, str]) -> None:
        if not near:
            return
        renames = ", ".join(f"{folder} to {Path(folder).with_name(name).as_posix()}" for folder, name in near.items())
        raise UserError(f"{tree}: splits are train, val and test: rename {renames}; or move away what is of no split")

    try:
        wanted, found = read(layout or _layout(tree))
    except UserError:
        refuse(layouts.near_names(tree))
        raise
    refuse(layouts.near_names(tree, found))
    if layout is None and wanted.layout == "aligned":
        _refuse_mixed(found)
    photos = layout is None and wanted.layout == "aligned" and not _side_by_side(found["train"])
    return read("single") if photos else (wanted, found)


def _spread(items: list[Item], most: int) -> Iterator[Item]:
    """Yield at most so many items, evenly from first to last."""
    step = max(1, len(items) / most)
    return (items[int(i * step)] for i in range(min(most, len(items))))


def look(
    tree: Path, *, layout: str | None, direction: str, limit: Limit, pad: bool = False, given: Images | None = None
) -> Survey:
    """Find out how the images of a tree lie and which can be used.

    Args:
        layout: of :class:`repix.config.images.Images`, or None to find it out.
        direction: AtoB or BtoA.
        limit: most pixels of an image.
        pad: whether pixels are to stay as they are.
        given: an entry's settings, by which it is read as it will be; nothing is found out then but what is there.

    Raises:
        UserError: it fits no layout, or splits cannot be made of it.
    """
    wanted, found = (given, layouts.find(tree, given)) if given else _fitting(tree, layout, direction)
    train = found["train"]
    same = train.source[0].path == train.target[0].path  # both halves of a file, or one photo: looked at once
    sides = (side := Side(), side) if same else (Side(), Side())
    bad, decoded, total = {}, 0, 0
    sizes: dict[Item, tuple[int, int]] = {}
    pixels: list[tuple[int, Item, Decoded]] = []  # the first one of each, which tells whether it can be converted
    for which, side in enumerate(sides[:1] if same else sides):
        items = [item for listing in found.values() for item in (listing.source, listing.target)[which]]
        total += len(items)
        decoded += min(DECODED, len(items))
        for item in _spread(items, DECODED):
            try:
                sizes[item], pixel = _decode(item, side, limit)
                pixels.append((which, item, pixel))
            except BadImageError as error:
                bad.setdefault(item.label(tree), error.reason)
        for item in _spread(items, HEADERS) if len(items) > DECODED and wanted.layout != "hdf5" else ():
            try:
                height, width = images.size(item.path)
                sizes[item] = (height, width // 2 if item.half else width)
                side.sizes[sizes[item]] += 1
            except BadImageError as error:
                bad.setdefault(item.label(tree), error.reason)
    if not all(side.kinds for side in sides):
        first = next(iter(bad.items()), ("", "there is none"))
        raise UserError(f"no image of it can be used: {': '.join(first)}")
    if not given:
        if wanted.layout == "single" and not sides[0].coloured:
            raise UserError(
                f"{tree}: all images are grey, and colourisation has no colour to learn: likely they are one half of "
                "pairs; move each half into a folder of its own, such as A and B, and add the folder that holds both "
                "(where each file holds both halves side by side: --layout aligned)"
            )
        more = {"bit_depth": 16} if max(side.bits for side in sides) == 16 else {}
        more |= _colours(sides) if wanted.layout != "single" else {}
        wanted = Images(**{name: getattr(wanted, name) for name in wanted.model_fields_set} | more)
    stored = (3, 3) if wanted.colour == "lab" else wanted.channels
    for which, item, pixel in pixels:
        for channels in stored if same else (stored[which],):
            try:
                images.convert(pixel, item.path, colour=wanted.colour, channels=channels, bit_depth=wanted.bit_depth)
            except BadImageError as error:
                bad.setdefault(item.label(tree), error.reason)
    for split, listing in found.items() if given else ():
        for item in (one for one in (*listing.source, *listing.target) if one in sizes):
            try:
                preprocess.geometry(given, split, sizes[item])
            except ValueError as error:
                bad.setdefault(item.label(tree), str(error))
    unequal = {}
    for source, target in _pairs(found) if wanted.paired else ():
        if source in sizes and target in sizes and not {source.label(tree), target.label(tree)} & bad.keys():
            why = preprocess.unequal(given.resize if given else "pad", sizes[source], sizes[target])
            unequal |= {target.label(tree): why} if why else {}
    bad |= unequal if given or pad else {}
    return Survey(tree, wanted, found, sides, bad, unequal, (decoded, total), layouts.left_out(tree, found))


def _pairs(found: dict[str, Listing]) -> Iterator[tuple[Item, Item]]:
    for listing in found.values():
        yield from zip(listing.source, listing.target, strict=True)


def _side_by_side(train: Listing) -> bool:
    wide = total = 0
    for item in _spread(list(train.source), 20):
        try:
            height, width = images.size(item.path)
        except BadImageError:
            continue
        total += 1
        wide += width % 2 == 0 and width >= SIDE_BY_SIDE * height
    return wide * 2 >= total


def _decode(item: Item, side: Side, limit: Limit) -> tuple[tuple[int, int], Decoded]:
    """Decode one image and count what it is; return its (height, width), and its first pixel.

    Raises:
        BadImageError: it cannot be used.
    """
    if item.row is None:
        decoded = images.decode(item.path, limit)
    else:
        try:
            decoded = images.from_array(hdf5.read_row(item.path, item.row), item.path)
        except OSError as error:
            raise BadImageError(item.path, f"cannot be decoded: {error}") from None
    height, width = decoded.pixels.shape[:2]
    if item.half and width % 2:
        raise BadImageError(item.path, f"width {width} is odd; two images side by side have an even one")
    channels = decoded.pixels.shape[2] if decoded.bands == "n" else 1 if decoded.bands in ("L", "LA") else 3
    if decoded.bands != "n":  # says what is wrong with transparency
        images.convert(decoded, item.path, colour="rgb", channels=channels, bit_depth=16)
    side.coloured = side.coloured or bool(channels > 1 and np.ptp(decoded.pixels[..., :3], axis=2).any())
    side.kinds[channels] += 1
    side.bits = max(side.bits, 8 * decoded.pixels.dtype.itemsize)
    size = (height, width // 2 if item.half else width)
    side.sizes[size] += 1
    return size, decoded._replace(pixels=decoded.pixels[:1, :1].copy())


def _colours(sides: tuple[Side, Side]) -> dict:
    """Return ``colour`` and ``channels`` where they are not the defaults."""
    if any(kind not in (1, 3) for side in sides for kind in side.kinds):
        channels = tuple(side.kinds.most_common(1)[0][0] for side in sides)
        return {"colour": "raw"} | ({} if channels == (3, 3) else {"channels": channels})
    # One image in colour makes a side one of colour: grey ones are repeated.
    channels = tuple(max(side.kinds) for side in sides)
    if channels == (1, 1):
        return {"colour": "gray"}
    return {} if channels == (3, 3) else {"channels": channels}
