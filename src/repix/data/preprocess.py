"""The prepared store: an image tree becomes large integer arrays per split and side, and a manifest.

What is the same at every visit (decode, colour, resize) is done here, once. Train images are
stored at load size, for training to crop; those of other splits at crop size, as the reference
code (junyanz/pytorch-CycleGAN-and-pix2pix, ``data/base_dataset.py``) tests them.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from repix.config.images import Images, height_width
from repix.config.limits import Limits
from repix.data import colour, hdf5, images, layouts
from repix.data.colour import LAB_PARTS
from repix.data.images import BadImageError, Decoded, Limit
from repix.data.layouts import Item, Listing
from repix.data.prepared import MANIFEST
from repix.errors import UserError, printable
from repix.files import atomic_folder, canonical_json, digest_file
from repix.profile import cores
from repix.schemas import Example, Half, Manifest, Shard, Side, Skipped, Split

Size = tuple[int, int]
MOSTLY = 0.5  # of train that has to have one size, where the images decide it
MOST_WORKERS = 8  # each holds a decoded image or two
IN_FLIGHT = 256  # images handed to the pool at once
SHARD_BYTES = 1 << 30  # most of one array, unless a single row is larger


def side_of(wanted: Images, which: int) -> Side:
    """Return what the stored numbers of the source (0) or target (1) mean.

    Raises:
        UserError: ``colour: rgb`` with other than 1 or 3 channels.
    """
    if wanted.colour == "lab":
        return (colour.LAB_L, colour.LAB_AB)[which]
    n = wanted.channels[which]
    if wanted.colour == "raw":
        kind, meaning = "raw", tuple(f"c{i}" for i in range(n))
    elif n in (1, 3):
        kind, meaning = ("gray", ("gray",)) if n == 1 else ("rgb", ("R", "G", "B"))
    else:
        raise UserError(f"channels: {n} with colour: {wanted.colour}; it has 1 or 3, colour: raw any number")
    high = 255 if wanted.bit_depth == 8 else 65535
    dtype = f"uint{wanted.bit_depth}"
    return Side(channels=n, dtype=dtype, low=(0,) * n, high=(high,) * n, meaning=meaning, colour=kind)


AS_THEY_ARE = ("pad", "crop", "none")
"""Where pixels stay where they are, so that both sides of a pair need one size."""


class Geometry(NamedTuple):
    """How an image gets its stored size: resize to ``resized``, mirror or cut its borders to ``stored``."""

    resized: Size
    stored: Size


def geometry(wanted: Images, split: str, size: Size) -> Geometry:
    """Return how an image of ``size`` (height, width) of a split is brought to its stored size.

    ``resize_and_crop``: to load size in train, straight to crop size elsewhere. ``scale_width``:
    to the width of load size, height in proportion; elsewhere than in train the centre of
    that. ``crop``: as it is; elsewhere the centre. ``pad``: as it is, mirrored at its borders to load size in train,
    to crop size elsewhere. ``none``: as it is; elsewhere it must be of crop size.

    Raises:
        ValueError: with the reason, where the image is too small, too large or of another size.
    """
    load, crop = height_width(wanted.load_size), height_width(wanted.crop_size)
    whole = load if split == "train" else crop
    if wanted.resize == "resize_and_crop":
        return Geometry(whole, whole)
    height, width = size
    if wanted.resize == "pad":
        if height > crop[0] or width > crop[1]:
            raise ValueError(f"{_times(size)} under resize: pad, larger than crop_size {_times(crop)}")
        return Geometry(size, whole)
    if wanted.resize == "scale_width":
        size = ((2 * height * load[1] + width) // (2 * width), load[1])  # halves round up
    if size[0] < crop[0] or size[1] < crop[1]:
        raise ValueError(f"{_times(size)} under resize: {wanted.resize}, smaller than crop_size {_times(crop)}")
    if split == "train":
        return Geometry(size, size)
    if wanted.resize == "none" and size != crop:
        raise ValueError(f"{_times(size)}, and resize: none needs crop_size {_times(crop)} outside train")
    return Geometry(size, crop)


def unequal(resize: str, source: Size, target: Size | None = None) -> str | None:
    """Return why the two images of a pair cannot be used under ``resize``, or None where they can."""
    if resize not in AS_THEY_ARE or target in (None, source):
        return None
    return f"{_times(target)}, and its source is {_times(source)}: under resize: {resize} both need one size"


def _resized(name: str) -> str:
    return f"set datasets.{name}.images.resize: resize_and_crop, which brings all of them to load_size"


def _times(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _half_of(decoded: Decoded, item: Item) -> Decoded:
    """Return the half of a side-by-side file that ``item`` asks for.

    Raises:
        BadImageError: the width is odd.
    """
    if item.half is None:
        return decoded
    width = decoded.pixels.shape[1]
    if width % 2:
        raise BadImageError(item.path, f"width {width} is odd; two images side by side have an even one")
    middle = width // 2
    pixels = decoded.pixels[:, :middle] if item.half == "left" else decoded.pixels[:, middle:]
    return decoded._replace(pixels=pixels)


def _size_of(item: Item) -> Size:
    """Return an item's (height, width), read off the header.

    Raises:
        BadImageError: the file cannot be read.
    """
    if item.row is not None:
        return hdf5.shape(item.path)[1:3]
    height, width = images.size(item.path)
    return (height, width // 2) if item.half else (height, width)


MOST_LINES = 10  # of folders with files that are not read


def _few_lines(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and files in {more} more folders"]


def _stored_size(wanted: Images, split: str, listing: Listing, name: str) -> Size:
    """Return the size that all images of a split are to have: the most frequent one, where they decide it.

    Raises:
        UserError: they have so many sizes that most of them would be lost, and nobody asked for that.
    """
    if split != "train" or wanted.resize in ("resize_and_crop", "pad"):
        return height_width(wanted.crop_size if split != "train" else wanted.load_size)
    sizes: Counter[Size] = Counter()
    for item in (*listing.source, *listing.target):
        try:
            sizes[geometry(wanted, split, _size_of(item)).stored] += 1
        except (BadImageError, ValueError):
            continue  # the one pass over the pixels says what is wrong with it
    most = min(sizes, key=lambda size: (-sizes[size], size), default=height_width(wanted.crop_size))
    if wanted.on_error == "strict" and sizes and sizes[most] <= MOSTLY * sizes.total():
        first = ", ".join(f"{_times(size)} ({n} images)" for size, n in sizes.most_common(3))
        raise UserError(
            f"{name}: under resize: {wanted.resize} the images of {split} have {len(sizes)} sizes: {first}"
            f"{', ...' if len(sizes) > 3 else ''}; training needs one: {_resized(name)}, "
            "or cut the images to one size"
        )
    return most


class _Rows:
    """The .npy arrays of one side of a split, whose rows are written in any order, by any thread.

    One array, or several of at most SHARD_BYTES each: files that can be hashed, pushed and fetched beside each other.
    They are written through file descriptors rather than memory maps: written pages then belong to the page cache and
    not to this process, so that memory stays bounded, and a full disk is an error rather than a SIGBUS.
    """

    def __init__(self, folder: Path, stem: str, n: int, size: Size, side: Side) -> None:
        self.folder, self.stem, self.n, self.size, self.side = folder, stem, n, size, side
        self.dtype = np.dtype(side.dtype)
        self._bytes = size[0] * size[1] * side.channels * self.dtype.itemsize
        self._each = max(1, SHARD_BYTES // self._bytes)
        self.counts = [min(self._each, n - first) for first in range(0, n, self._each)]
        several = len(self.counts) > 1
        self.paths = [folder / f"{stem}{f'-{i:05d}' if several else ''}.npy" for i in range(len(self.counts))]
        self._starts = []
        for path, count in zip(self.paths, self.counts, strict=True):
            header = np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=(count, *size, side.channels))
            self._starts.append(header.offset)

    def write(self, row: int, image: np.ndarray) -> None:
        assert image.shape == (*self.size, self.side.channels) and image.dtype == self.dtype
        self._write(row, memoryview(np.ascontiguousarray(image)).cast("B"))

    def _place(self, row: int, mode: str) -> BinaryIO:
        """Return a row's file, opened at the row: not all the time, since there may be more than a process can open."""
        shard, within = divmod(row, self._each)
        file = open(self.paths[shard], mode, buffering=0)  # noqa: SIM115 - closed by those who ask
        file.seek(self._starts[shard] + within * self._bytes)
        return file

    def _write(self, row: int, data: bytes | memoryview) -> None:
        with self._place(row, "r+b") as file:
            while data:
                data = data[file.write(data) :]

    def keep(self, rows: list[int]) -> None:
        """Leave only these rows, in this order; the bytes are as if the others had never been."""
        aside = self.folder / "kept"
        aside.mkdir()
        kept = _Rows(aside, self.stem, len(rows), self.size, self.side)
        for place, row in enumerate(rows):
            with self._place(row, "rb") as file:
                kept._write(place, file.read(self._bytes))
        for path in self.paths:
            path.unlink()
        self.paths = [path.rename(self.folder / path.name) for path in kept.paths]
        self.n, self.counts = kept.n, kept.counts
        aside.rmdir()


@dataclass
class _Plan:
    """One split on its way: its images, its arrays and, by row, the line that says what it is (None: nothing)."""

    split: str
    listing: Listing
    size: Size
    rows: list[_Rows] = field(default_factory=list)
    lines: tuple[list[str | None], ...] = ()

    def sides(self) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        return self.listing.source, self.listing.target


class _Job(NamedTuple):
    """What stands or falls together: a pair, or one image of an unpaired set."""

    plan: _Plan
    items: tuple[tuple[int, int, Item], ...]  # side (0 source, 1 target), row, image


class _Done(NamedTuple):
    job: _Job
    examples: list[Example]
    bad: dict[str, str]  # label -> reason
    misfit: bool  # whether another resize would take it


def _jobs(plans: list[_Plan], paired: bool) -> Iterator[_Job]:
    for plan in plans:
        if paired:
            for row, pair in enumerate(zip(*plan.sides(), strict=True)):
                yield _Job(plan, tuple((which, row, item) for which, item in enumerate(pair)))
        else:
            for which, items in enumerate(plan.sides()):
                for row, item in enumerate(items):
                    yield _Job(plan, ((which, row, item),))


class _MisfitError(BadImageError):
    """One image of a size that its ``resize`` does not bring to the stored one."""


class _Worker:
    """Turns jobs into rows. Called from several threads: Pillow, hashing and file writes release the GIL."""

    def __init__(self, tree: Path, wanted: Images, sides: tuple[Side, Side], limit: Limit) -> None:
        self.tree, self.wanted, self.sides, self.limit = tree, wanted, sides, limit
        # An HDF5 file holds many images.
        self.digest, self.shape = lru_cache(maxsize=64)(digest_file), lru_cache(maxsize=64)(hdf5.shape)

    def __call__(self, job: _Job) -> _Done:
        # Both sides of a pair may come from one file: it is decoded once, and has one example.
        files: dict[Item, tuple[Decoded, Example]] = {}
        whole: dict[Item, np.ndarray] = {}  # L, a and b of one photo serve both sides
        arrays, examples, bad, misfit = [], [], {}, False
        for which, _, item in job.items:
            file = item._replace(half=None)
            try:
                if file not in files:
                    files[file] = self._open(item)
                decoded, example = files[file]
                if item not in whole:
                    whole[item] = self._image(_half_of(decoded, item), item, which, job.plan)
                arrays.append(whole[item][..., LAB_PARTS.get(self.sides[which].colour, slice(None))])
                examples.append(example)
            except BadImageError as error:
                bad.setdefault(item.label(self.tree), error.reason)
                misfit |= isinstance(error, _MisfitError)
        if not bad and (why := unequal(self.wanted.resize, *(example.size for example in examples))):
            bad[job.items[1][2].label(self.tree)], misfit = why, True
        if not bad:
            for (which, row, _), array in zip(job.items, arrays, strict=True):
                job.plan.rows[which].write(row, array)
        return _Done(job, examples, bad, misfit)

    def _open(self, item: Item) -> tuple[Decoded, Example]:
        """Decode the file of an item."""
        path = item.path
        if item.row is None:
            decoded = images.decode(path, self.limit)
        else:
            images.check_pixels(path, *self.shape(path)[1:], self.limit)
            try:
                decoded = images.from_array(hdf5.read_row(path, item.row), path)
            except OSError as error:  # a damaged chunk within the file
                raise BadImageError(path, f"cannot be decoded: {error}") from None
        size = _half_of(decoded, item).pixels.shape[:2]
        file = path.relative_to(self.tree).as_posix()
        return decoded, Example(name=item.name, file=file, sha256=self.digest(path), size=size)

    def _image(self, decoded: Decoded, item: Item, which: int, plan: _Plan) -> np.ndarray:
        """Return an image in its stored colour and size; of Lab all three channels."""
        wanted = self.wanted
        lab = wanted.colour == "lab"
        channels = 3 if lab else self.sides[which].channels
        array = images.convert(decoded, item.path, colour=wanted.colour, channels=channels, bit_depth=wanted.bit_depth)
        try:
            steps = geometry(wanted, plan.split, array.shape[:2])
        except ValueError as error:
            raise _MisfitError(item.path, str(error)) from None
        if steps.stored != plan.size:
            most = f"most of {plan.split} are {_times(plan.size)}"
            raise _MisfitError(item.path, f"{_times(steps.stored)} under resize: {wanted.resize}; {most}")
        array, _ = images.pad_to(images.resize(array, steps.resized, wanted.resample), steps.stored)
        array = images.crop_centre(array, steps.stored)
        return colour.rgb_to_lab(array) if lab else array


def _batches(jobs: Iterable[_Job]) -> Iterator[list[_Job]]:
    jobs = iter(jobs)
    while batch := list(islice(jobs, IN_FLIGHT)):
        yield batch


def _listed(bad: dict[str, str]) -> list[str]:
    return [f"  {file}: {reason}" for file, reason in bad.items()]


def prepare(
    tree: str | Path,
    wanted: Images,
    out: str | Path,
    *,
    name: str,
    workers: int | None = None,
    pixels: int = Limits().pixels,
) -> Manifest:
    """Turn an image tree into arrays and a manifest in the folder ``out``, which appears whole or not at all.

    Writes ``<split>-source.npy`` and ``<split>-target.npy``, (n, height, width, channels) of
    ``uint8``, ``uint16`` or (Lab) ``int16``, and ``manifest.json``. Memory does not grow with the number of
    images, and the bytes do not depend on the number of workers. ``Example.size`` is that of
    the upright image, of its half in a side-by-side file.

    Args:
        tree: the unpacked archive.
        wanted: what is asked for.
        out: replaced if it exists.
        name: the data set's name in params.yaml.
        pixels: most pixels of one image; see :class:`repix.config.limits.Limits`.
        workers: threads; by default as many as this process has cores, at most 8.

    Returns:
        The manifest that was written.

    Raises:
        UserError: the layout does not fit; or images cannot be used, all of them listed
            (``on_error: strict``); or nothing is left of a split (``skip``); or the disk is too small.
    """
    from tqdm import tqdm

    tree, out = Path(tree), Path(out)
    sides = (side_of(wanted, 0), side_of(wanted, 1))
    found = layouts.find(tree, wanted)
    for line in _few_lines(layouts.left_out(tree, found)):
        print(f"{name}: not read: {printable(line)}", file=sys.stderr)
    plans = [_Plan(split, listing, _stored_size(wanted, split, listing, name)) for split, listing in found.items()]
    workers = workers or min(MOST_WORKERS, cores())
    bad: dict[str, str] = {}
    lost = misfits = 0  # pairs, or images of an unpaired set
    with atomic_folder(out) as folder, ThreadPoolExecutor(workers) as pool:
        _check_space(folder, plans, sides)
        for plan in plans:
            plan.lines = tuple([None] * len(items) for items in plan.sides())
            for which, (role, items) in enumerate(zip(("source", "target"), plan.sides(), strict=True)):
                plan.rows.append(_Rows(folder, f"{plan.split}-{role}", len(items), plan.size, sides[which]))
        total = sum(len(plan.listing.source) + (0 if wanted.paired else len(plan.listing.target)) for plan in plans)
        limit = Limit(pixels, "limits.pixels in params.yaml raises it")
        worker = _Worker(tree, wanted, sides, limit)
        with tqdm(total=total, desc=f"preprocess {name}", unit="image", disable=None) as progress:
            for batch in _batches(_jobs(plans, wanted.paired)):
                for done in pool.map(worker, batch):
                    bad |= done.bad
                    lost += bool(done.bad)
                    misfits += done.misfit
                    if not done.bad:
                        for (which, row, _), example in zip(done.job.items, done.examples, strict=True):
                            done.job.plan.lines[which][row] = canonical_json(example.model_dump(mode="json"))
                    progress.update()
        mend = ", and ".join(["mend them"] * (misfits < lost) + [_resized(name)] * (misfits > 0))
        if bad and wanted.on_error == "strict":
            if all(any(lines) for plan in plans for lines in plan.lines):  # else skip leaves nothing of a split
                mend = f"mend or remove them, or leave out {lost} of {total} by datasets.{name}.images.on_error: skip"
            raise UserError(f"{name}: {len(bad)} image(s) cannot be used; {mend}:", *_listed(bad))
        for plan in plans:
            for rows, lines in zip(plan.rows, plan.lines, strict=True):
                kept = [row for row, line in enumerate(lines) if line]
                if not kept:
                    raise UserError(f"{name}: all images of {plan.split} cannot be used; {mend}:", *_listed(bad))
                if len(kept) < len(lines):
                    rows.keep(kept)
        digests = pool.map(digest_file, [path for plan in plans for rows in plan.rows for path in rows.paths])
        manifest = Manifest(
            dataset=name,
            paired=wanted.paired,
            direction=wanted.direction,
            resize=wanted.resize,
            resample=wanted.resample,
            load_size=next(plan.size for plan in plans if plan.split == "train"),
            crop_size=height_width(wanted.crop_size),
            source=sides[0],
            target=sides[1],
            splits={plan.split: _split_record(plan, digests) for plan in plans},
            skipped=tuple(Skipped(file=file, reason=reason) for file, reason in sorted(bad.items())),
        )
        manifest.write(folder / MANIFEST)
    return manifest


def _check_space(folder: Path, plans: list[_Plan], sides: tuple[Side, Side]) -> None:
    needed = 0
    for plan in plans:
        for side, items in zip(sides, plan.sides(), strict=True):
            needed += len(items) * plan.size[0] * plan.size[1] * side.channels * np.dtype(side.dtype).itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder.parent}: the arrays need {needed} bytes and {free} are free; make room")


def _split_record(plan: _Plan, digests: Iterator[str]) -> Split:
    """Write a split's lists of images; return its record. Takes the digests of its arrays, source before target."""
    halves = []
    for rows, lines in zip(plan.rows, plan.lines, strict=True):
        path = rows.folder / f"{rows.stem}.jsonl"
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in lines if line)
        shards = [
            Shard(file=file.name, n=n, sha256=next(digests)) for file, n in zip(rows.paths, rows.counts, strict=True)
        ]
        halves.append(
            Half(n=rows.n, size=plan.size, shards=shards, examples=path.name, examples_sha256=digest_file(path))
        )
    return Split(source=halves[0], target=halves[1])
