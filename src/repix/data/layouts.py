"""Which files, and which half of a file, make up each split's source and target.

Every layout is looked for below the tree's top folders (archives wrap their content in one),
nothing but names is read (and, for HDF5, the shapes), and the order is that of the names.
Images of formats that are not read are listed with the others, so that who decodes them says so;
all else that is not read is named by :func:`left_out`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

from repix.config.images import Images
from repix.data import hdf5
from repix.data.images import IMAGE_SUFFIXES
from repix.errors import UserError

SPLITS = ("train", "val", "test")
MAX_DEPTH = 4  # of the folder that holds the splits, below the tree
EXPECTED = {
    "aligned": "folders train and test (and val) of images, A left and B right in one file",
    "unaligned": "folders trainA, trainB, testA and testB (and valA, valB) of images",
    "folders": "train/A, train/B, test/A and test/B (and val/A, val/B) of images, or A/train, B/train, ..., "
    "or trainA, trainB, ...; two other names do as well as A and B, and come in their order",
    "hdf5": "training/images, training/facades, testing/images and testing/facades (and validation/...) of .h5 files",
    "single": "folders train and test (and val) of images",
}


class Item(NamedTuple):
    """One image of one side: a place and no pixels, kept small since a set has many.

    Attributes:
        folder: where the file lies.
        file: its name.
        half: ``left`` or ``right`` of a side-by-side file, None for all of it.
        row: index within an HDF5 file, else None.
    """

    folder: Path
    file: str
    half: Literal["left", "right"] | None = None
    row: int | None = None

    @property
    def path(self) -> Path:
        """The file that holds the image."""
        return self.folder / self.file

    @property
    def name(self) -> str:
        """The file's name without suffix (HDF5: with the row), unique within its side and split."""
        stem = PurePath(self.file).stem
        return stem if self.row is None else f"{stem}_{self.row:05d}"

    def label(self, tree: Path) -> str:
        """Return the file as it lies in a tree (HDF5: with the row), for those who look for it."""
        path = self.path.relative_to(tree).as_posix()
        return path if self.row is None else f"{path}[{self.row}]"


@dataclass(frozen=True)
class Listing:
    """The images of a split; in a paired set ``source[i]`` and ``target[i]`` belong together.

    Attributes:
        origin: the split whose folders they lie in: ``val`` of a test that is the tree's val, ``train`` of what was
            held out of it, else the split itself.
    """

    source: tuple[Item, ...]
    target: tuple[Item, ...]
    origin: str


def natural_key(name: str) -> tuple:
    """Return a sort key by which ``2`` comes before ``10``; ties are broken by the text itself."""
    parts = re.split(r"([0-9]+)", name)  # every second part is digits
    return tuple((0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)), name


# A layout's folders: split -> the folder of side A, the folder of side B (one and the same, where a file holds both).
Sides = dict[str, tuple[Path, Path]]


def _same_folder(root: Path) -> Sides:
    return {
        split: (root / split, root / split)
        for split in SPLITS
        if (root / split).is_dir() and not (root / split / "A").is_dir()
    }


def _lettered(root: Path) -> Sides:
    return _both({split: (root / f"{split}A", root / f"{split}B") for split in SPLITS})


def _split_then_side(root: Path) -> Sides:
    return _both({split: (root / split / "A", root / split / "B") for split in SPLITS})


def _side_then_split(root: Path) -> Sides:
    return _both({split: (root / "A" / split, root / "B" / split) for split in SPLITS})


def _book(root: Path) -> Sides:
    folders = {split: root / hdf5.FOLDERS[split] for split in SPLITS}
    return _both({split: (f / hdf5.SIDES["A"], f / hdf5.SIDES["B"]) for split, f in folders.items()})


LAYOUTS: dict[str, tuple[Callable[[Path], Sides], ...]] = {
    "aligned": (_same_folder,),
    "unaligned": (_lettered,),
    "folders": (_split_then_side, _side_then_split, _lettered),
    "hdf5": (_book,),
    "single": (_same_folder,),
}


def _of_images(folder: Path) -> bool:
    return any(entry.is_file() and PurePath(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in _visible(folder))


def _two(folder: Path, below: str = "") -> list[str]:
    """Return the names of the two folders that hold images (at ``below`` in them), in their order; else none."""
    found = [one.name for one in _folders(folder) if (one / below).is_dir() and _of_images(one / below)]
    return found if len(found) == 2 and not set(found) & set(SPLITS) else []


def _split_then_names(root: Path) -> Sides:
    names = _two(root / "train") if (root / "train").is_dir() else []
    return _both({split: tuple(root / split / name for name in names) for split in SPLITS if names})


def _names_then_split(root: Path) -> Sides:
    names = _two(root, "train")
    return _both({split: tuple(root / name / split for name in names) for split in SPLITS if names})


def _whole_folder(root: Path) -> Sides:
    return {"train": (root, root)} if _of_images(root) else {}


def _whole_folders(root: Path) -> Sides:
    names = _two(root)
    return {"train": (root / names[0], root / names[1])} if names else {}


# Where none of LAYOUTS fits anywhere: sides of other names, which come in the order of their names.
NAMED: dict[str, tuple[Callable[[Path], Sides], ...]] = {"folders": (_split_then_names, _names_then_split)}
# Where none of these fits either, and splits are made: all images, which are then train's.
WHOLE: dict[str, tuple[Callable[[Path], Sides], ...]] = {
    "aligned": (_whole_folder,),
    "unaligned": (_whole_folders,),
    "folders": (_whole_folders,),
    "single": (_whole_folder,),
}


def _both(sides: Sides) -> Sides:
    return {split: folders for split, folders in sides.items() if all(folder.is_dir() for folder in folders)}


def _visible(folder: Path) -> list[os.DirEntry]:
    """Return a folder's entries, without hidden ones and the leavings of macOS."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name[0] != "." and entry.name != "__MACOSX"]


def _folders(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(e.name for e in _visible(folder) if e.is_dir())]


def _match(tree: Path, layout: str, whole: bool) -> list[tuple[Path, Sides]]:
    """Return the shallowest places in ``tree`` where ``layout`` finds its train, with their folders.

    Args:
        whole: whether images without splits are taken, too.
    """
    for readers in (LAYOUTS, NAMED, WHOLE if whole else {}):
        level = [tree]
        for _ in range(MAX_DEPTH + 1):
            fits = [
                (folder, sides)
                for folder in level
                for reader in readers.get(layout, ())
                if "train" in (sides := reader(folder))
            ]
            if fits:
                return fits
            level = [child for folder in level for child in _folders(folder)]
    return []


# What people call the folder of a split, in small letters -> the split; of several the first that is not there.
NEAR = {split: (split,) for split in SPLITS} | {
    "training": ("train",),
    "valid": ("val",),
    "validate": ("val",),
    "validation": ("val",),
    "dev": ("val",),
    "tests": ("test",),
    "testing": ("test",),
    "eval": ("test", "val"),
    "evaluation": ("test", "val"),
}


def near_names(tree: Path, found: Mapping[str, Listing] | None = None) -> dict[str, str]:
    """Return folder -> what it has to be renamed to, for those that hold images and are a split by nearly its name.

    Such a folder stands beside another split, of its own name or nearly so: alone it is no split. Beside one of its own
    name it holds the same folders.

    Args:
        tree: where to look.
        found: what a layout takes of it; then folders that stand elsewhere are nobody's splits.
    """
    level = [tree]
    if found is not None:
        items = [item for listing in found.values() for item in (*listing.source, *listing.target)]
        places = dict.fromkeys(place for one in {item.folder for item in items} for place in (one, *one.parents))
        level = [place for place in places if place.is_relative_to(tree)]
    near: dict[str, str] = {}
    for _ in range(MAX_DEPTH + 1 if found is None else 1):
        for folder in level:
            near |= {one.relative_to(tree).as_posix(): name for one, name in _near(folder).items()}
        level = [child for folder in level for child in _folders(folder)]
    return near


def _shape(folder: Path) -> tuple[bool, frozenset[str]]:
    """Return whether a folder holds images itself, and its folders that do."""
    return bool(_of_images(folder)), frozenset(child.name for child in _folders(folder) if _of_images(child))


def _near(folder: Path) -> dict[Path, str]:
    taken, near = set(), []
    shapes = {_shape(child) for child in _folders(folder) if re.fullmatch(rf"({'|'.join(SPLITS)})[AB]?", child.name)}
    for child in _folders(folder):
        name, side = re.fullmatch(r"(.*?)(?:[_\-. ]?([AB]))?", child.name).groups(default="")
        if child.name.removesuffix(side) in SPLITS:
            taken.add((child.name.removesuffix(side), side))
        elif name.lower() in NEAR and _shape(child) in (shapes or {_shape(child)} - {(False, frozenset())}):
            near.append((NEAR[name.lower()], side, child))
    renamed = {}
    for splits, side, child in sorted(near, key=lambda one: len(one[0])):
        if free := [split for split in splits if (split, side) not in taken]:
            taken.add((free[0], side))
            renamed[child] = f"{free[0]}{side}"
    return renamed if len({split for split, _ in taken}) > 1 else {}


def _describe(tree: Path) -> str:
    """Return what lies in the first levels of a tree, for an error: folders with their file counts."""
    lines, level = [], [tree]
    for _ in range(4):
        for folder in level:
            files = sum(entry.is_file() for entry in _visible(folder))
            if files:
                lines.append(f"{folder.relative_to(tree).as_posix()}/ ({files} files)")
        level = [child for folder in level for child in _folders(folder)]
    more = f" and {len(lines) - 12} more folders" if len(lines) > 12 else ""
    return (", ".join(lines[:12]) + more) or "no file"


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the names of a folder's files of these suffixes, in natural order.

    Raises:
        UserError: images lie in a folder further below, where they would be silently left out;
            or two files have one name and differ in suffix only.
    """
    for below in _folders(folder):
        if any(PurePath(entry.name).suffix.lower() in suffixes for entry in _visible(below)):
            raise UserError(f"{below}: images in a folder within a split are not read; move them up into {folder.name}")
    names = (entry.name for entry in _visible(folder) if entry.is_file())
    files = sorted((name for name in names if PurePath(name).suffix.lower() in suffixes), key=natural_key)
    stems = Counter(PurePath(name).stem for name in files)
    twice = [name for name in files if stems[PurePath(name).stem] > 1]
    if twice:
        raise UserError(f"{folder}: several images of one name: {_few(twice)}; rename them")
    return files


def _images(folder: Path, half: Literal["left", "right"] | None = None) -> list[Item]:
    return [Item(folder, file, half) for file in _files(folder, IMAGE_SUFFIXES)]


FEW = 5  # names that a line shows of many


def _few(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


class _Affixes(NamedTuple):
    """What all names of A, and all of B, end (or begin) in; what is left of equal names is equal."""

    end: bool
    of_a: str
    of_b: str

    def core(self, name: str, affix: str) -> str | None:
        """Return a name without the affix of its side; None where it does not have it."""
        if not (name.endswith(affix) if self.end else name.startswith(affix)):
            return None
        return name.removesuffix(affix) if self.end else name.removeprefix(affix)


def _affixes(side_a: list[str], side_b: list[str]) -> _Affixes | None:
    """Return by what names of A and B differ, where at least half of them agree without it.

    What all of a side share; else what all but a tenth do, so that a stray name is told rather than that nothing fits.
    """
    if not side_a or not side_b:
        return None
    ways = ((_common, _common), (_mostly_common, _common), (_common, _mostly_common), (_mostly_common, _mostly_common))
    for (common_a, common_b), end in itertools.product(ways, (True, False)):
        a, b = ({name[::-1] if end else name for name in side} for side in (side_a, side_b))
        affix_a, affix_b = common_a(a), common_b(b)
        shared = _without(a, affix_a) & _without(b, affix_b) - {""}
        if affix_a == affix_b or not shared or len(shared) * 2 < max(len(a), len(b)):
            continue
        # What both affixes share on the side of the name's own part belongs to that part.
        inner = len(_common([affix_a[::-1], affix_b[::-1]]).rstrip("_-. "))
        return _Affixes(end, *(affix[: len(affix) - inner][:: -1 if end else 1] for affix in (affix_a, affix_b)))
    return None


def _common(names: Iterable[str]) -> str:
    """Return what all names begin with."""
    first, last = min(names), max(names)
    return next((first[:i] for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), first)


def _mostly_common(names: Iterable[str]) -> str:
    """Return the longest beginning that all names but a tenth (one at least) share."""
    names = sorted(names)
    strays = max(1, len(names) // 10)
    # In order, names of one beginning are neighbours.
    return max((_common(names[i : i + len(names) - strays] or names) for i in range(strays + 1)), key=len)


def _without(names: Iterable[str], prefix: str) -> set[str]:
    return {name[len(prefix) :] for name in names if name.startswith(prefix)}


def _lonely(sides: tuple[list[Item], list[Item]]) -> tuple[list[Item], list[Item]]:
    """Return the images of each side without one of the same name on the other."""
    names_a, names_b = ({item.name for item in side} for side in sides)
    return [a for a in sides[0] if a.name not in names_b], [b for b in sides[1] if b.name not in names_a]


def _pair_by_name(
    listed: dict[str, tuple[list[Item], list[Item]]], folders: Sides
) -> dict[str, tuple[list[Item], list[Item]]]:
    """Return both sides of every split in one order: that of A's names.

    Equal names belong together, whatever their extensions; and of those left over, names that are equal but for
    what all of them end in, or all begin with, on either side (``1_label`` and ``1_photo``, ``1`` and ``1_B``).

    Raises:
        UserError: names without a partner: how many, and the first of them.
    """
    left = {split: _lonely(sides) for split, sides in listed.items()}
    # Of all splits together: the only name of a split is all affix.
    affixes = _affixes(*([item.name for sides in left.values() for item in sides[which]] for which in (0, 1)))
    found = {}
    for split, (side_a, side_b) in listed.items():
        partners = {item.name: item for item in side_b}
        keys = {item.name: item.name for item in side_a}
        lonely_a, lonely_b = left[split]
        if affixes:
            cores = {affixes.core(item.name, affixes.of_b): item for item in lonely_b}
            for item in lonely_a:
                core = affixes.core(item.name, affixes.of_a)
                if core is not None and (partner := cores.get(core)):
                    keys[item.name] = partner.name
        taken = {key for key in keys.values() if key in partners}
        lonely = [f"A has {item.file}" for item in lonely_a if keys[item.name] not in taken]
        lonely += [f"B has {item.file}" for item in lonely_b if item.name not in taken]
        if lonely:
            where = f"A = {folders[split][0]}, B = {folders[split][1]}"
            cut = ""
            if affixes:
                place, both = ("end", "begin")[not affixes.end], (affixes.of_a, affixes.of_b)
                cut = ", also " + " and ".join(
                    f"without the {affix} that those of {side} {place} in"
                    for side, affix in zip("AB", both, strict=True)
                    if affix
                )
            raise UserError(
                f"{where}: {len(lonely)} images without a partner of the same name{cut}: {_few(lonely)}; "
                "rename them, or take them out"
            )
        found[split] = side_a, [partners[keys[item.name]] for item in side_a]
    return found


def _book_pairs(folders: tuple[Path, Path]) -> tuple[list[Item], list[Item]]:
    """Return photos and labels; files pair by name, and a single file on each side by being single."""
    files_a, files_b = (_files(folder, (".h5", ".hdf5")) for folder in folders)
    if not len(files_a) == len(files_b) == 1:
        lonely = sorted(set(files_a) ^ set(files_b), key=natural_key)
        if lonely:
            where = f"{folders[0]} and {folders[1]}"
            raise UserError(f"{where}: files without a partner of the same name: {_few(lonely)}; rename them")
    side_a, side_b = [], []
    for file_a, file_b in zip(files_a, files_b, strict=True):
        rows_a, rows_b = hdf5.shape(folders[0] / file_a)[0], hdf5.shape(folders[1] / file_b)[0]
        if rows_a != rows_b:
            counts = f"{folders[0] / file_a} has {rows_a} images and {folders[1] / file_b} has {rows_b}"
            raise UserError(f"{counts}; every photo needs its label")
        side_a += [Item(folders[0], file_a, row=row) for row in range(rows_a)]
        side_b += [Item(folders[1], file_b, row=row) for row in range(rows_b)]
    return side_a, side_b


def _sides(layout: str, folders: Sides) -> dict[str, tuple[list[Item], list[Item]]]:
    """Return the items of sides A and B of every split."""
    if layout == "aligned":
        left = {split: _images(one, "left") for split, (one, _) in folders.items()}
        return {split: (items, [item._replace(half="right") for item in items]) for split, items in left.items()}
    if layout == "hdf5":
        return {split: _book_pairs(sides) for split, sides in folders.items()}
    listed = {split: (_images(a), _images(b)) for split, (a, b) in folders.items()}
    return _pair_by_name(listed, folders) if layout == "folders" else listed


def fits(tree: Path, layout: str, whole: bool) -> bool:
    """Return whether a layout finds its train at one place, and for folders, mostly pairs in it; see :func:`_match`."""
    places = _match(tree, layout, whole)
    if len(places) != 1 or layout != "folders":
        return len(places) == 1
    names = tuple(
        {
            PurePath(entry.name).stem
            for entry in _visible(folder)
            if PurePath(entry.name).suffix.lower() in IMAGE_SUFFIXES
        }
        for folder in places[0][1]["train"]
    )
    most = max(map(len, names))
    equal = len(names[0] & names[1])
    return equal * 2 > most or _affixes(sorted(names[0] - names[1]), sorted(names[1] - names[0])) is not None


def _place(item: Item) -> int:
    """Return a number below 2**64 for an image: the hash of its file's name (HDF5: of file and row)."""
    key = item.file if item.row is None else f"{item.file}[{item.row}]"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _hold_out(
    a: list[Item], b: list[Item], split: str, chosen: Callable[[int], bool], paired: bool
) -> dict[str, tuple[list[Item], list[Item]]]:
    """Return train and ``split`` out of train, or train alone where a side of either would be empty.

    Args:
        chosen: whether an image of this :func:`_place` goes to ``split``; a pair goes by the name of its A.
    """
    in_a = [chosen(_place(item)) for item in a]
    in_b = in_a if paired else [chosen(_place(item)) for item in b]
    if any(len(set(side)) < 2 for side in (in_a, in_b)):
        return {"train": (a, b)}

    def pick(items: list[Item], held: list[bool], wanted: bool) -> list[Item]:
        return [item for item, one in zip(items, held, strict=True) if one is wanted]

    return {name: (pick(a, in_a, wanted), pick(b, in_b, wanted)) for name, wanted in (("train", False), (split, True))}


def find(tree: str | Path, wanted: Images) -> dict[str, Listing]:
    """Return split -> its images, for the splits train, val (where there is one) and test.

    Archives that have train and val but no test (maps, edges2shoes, edges2handbags) keep
    their val back for testing, as the papers do: it becomes ``test``. Where no val remains,
    ``val_fraction`` of train becomes it, chosen by sha256 of the file name, so that adding or
    removing an image moves no other. Where there is no test either, ``test_fraction`` of train becomes it in
    the same way; images that lie in no splits at all are then train's.

    Raises:
        UserError: the layout does not fit the tree (the error says what is there and which
            layout fits), train or test is empty, or images lack their partners.
    """
    tree = Path(tree)
    if not tree.is_dir():
        raise UserError(f"{tree}: no such folder; unpack the archive first")
    layout = wanted.layout
    if layout == "single" and wanted.direction == "BtoA":
        raise UserError("layout: single goes from L to a and b; leave direction at AtoB")
    whole = wanted.test_fraction > 0
    places = _match(tree, layout, whole)
    if len(places) != 1:
        if places:
            problem = f"fits at several places: {', '.join(place.relative_to(tree).as_posix() for place, _ in places)}"
        else:
            problem = f"expects {EXPECTED[layout]}; there is {_describe(tree)}"
        others = [name for name in LAYOUTS if name != layout and fits(tree, name, whole)]
        if "folders" in others and "unaligned" in others:
            others.remove("unaligned")  # which would take pairs apart
        mend = f"layout: {' or '.join(others)} would fit" if others else "no other layout fits either"
        if places:
            mend += f"; {'else ' if others else ''}keep the images of one of them, and move the others away"
        raise UserError(f"{tree}: layout: {layout} {problem}; {mend}")
    found = _sides(layout, places[0][1])
    found = {split: sides for split, sides in found.items() if split != "val" or any(sides)}
    origin = {split: split for split in found}
    if "test" not in found and "val" in found:
        found["test"], origin["test"] = found.pop("val"), origin.pop("val")
    # val takes the smallest hashes and test the largest, so that neither fraction moves an image of the other split.
    held_out = "test" not in found and whole
    if held_out:
        least = (1 - wanted.test_fraction) * 2**64
        found |= _hold_out(*found["train"], "test", lambda place: place >= least, wanted.paired)
    if "val" not in found and wanted.val_fraction > 0:
        most = wanted.val_fraction * 2**64
        found |= _hold_out(*found["train"], "val", lambda place: place < most, wanted.paired)
    for split in ("train", "test"):
        if split not in found or not all(found[split]):
            missing = "has no images" if split in found else "is missing"
            mend = f"layout: {layout} expects {EXPECTED[layout]}"
            if split == "test" and held_out:
                mend = f"test_fraction: {wanted.test_fraction} of so few images holds none; raise it"
            elif split == "test" and split not in found:
                mend += "; test_fraction: 0.1 makes it of train"
            elif split == "test" and whole:
                mend = "remove its empty folder, and test_fraction takes some of train"
            raise UserError(f"{tree}: the {split} split {missing}; {mend}")
    forward = wanted.direction == "AtoB"
    return {
        split: Listing(*map(tuple, found[split] if forward else reversed(found[split])), origin.get(split, "train"))
        for split in SPLITS
        if split in found
    }


def left_out(tree: str | Path, found: dict[str, Listing]) -> list[str]:
    """Return one line for each folder of a tree that holds files which ``found`` does not take.

    Hidden files, and the leavings of macOS, are not counted.
    """
    tree = Path(tree)
    taken: dict[Path, set[str]] = {}
    for listing in found.values():
        for item in (*listing.source, *listing.target):
            taken.setdefault(item.folder, set()).add(item.file)
    lines, waiting = [], [tree]
    while waiting:
        folder = waiting.pop(0)
        waiting += _folders(folder)
        files = (entry.name for entry in _visible(folder) if not entry.is_dir())
        others = sorted((name for name in files if name not in taken.get(folder, ())), key=natural_key)
        if others:
            place = folder.relative_to(tree).as_posix()
            lines.append(f"{len(others)} in {place if place != '.' else 'the top folder'}: {_few(others)}")
    return lines
