"""The files of a translation: which images there are, what each becomes, and all of them in turn."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repix.data import images
from repix.data.image_reader import IMAGE_SUFFIXES, SUFFIXES
from repix.errors import UserError
from repix.files import Visits, atomic_path
from repix.inference.sizes import SizeError

THREADS = 4  # that decode, encode and wait for the disk while the network computes
AHEAD = 4  # images that are decoded before their turn, and as many that wait to be written
LARGE = 1 << 22  # pixels: a larger image is decoded in its turn and written before the next, alone in memory


class Job(NamedTuple):
    """One image on its way: ``output`` is a file below the out folder."""

    input: Path
    output: Path


def files_below(folder: Path, out: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and of all folders below, and the other files; hidden ones are neither.

    Links are followed, as often as they are given; what lies in ``out`` is left out, unless ``folder`` is that.
    Files of image formats that are not read are images too, which are refused by name.
    """
    inside = out.resolve()
    images, others, visits = [], [], Visits()
    above: dict[str, tuple[Path, ...]] = {os.fspath(folder): (folder.resolve(),)}  # a folder -> itself and those above
    for place, folders, files in os.walk(folder, followlinks=True):
        line = above.pop(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            real = Path(place, name).resolve()
            if real in line or (real == inside and folder.resolve() != inside):  # a link back, or our own outputs
                folders.remove(name)
            else:
                visits.count(Path(place, name), real)
                above[os.path.join(place, name)] = (*line, real)
        for name in files:
            if not name.startswith("."):
                path = Path(place, name)
                (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    return sorted(images), sorted(others)


def find_jobs(inputs: Iterable[Path], out: Path, suffix: str) -> tuple[list[Job], list[Path]]:
    """Return the images to translate, each with the file that it becomes, and the files of folders that are no images.

    Folders are searched with all folders below, which the outputs keep; see :func:`files_below`. A file
    that is named twice is translated once, links to one file as often as there are links. An output has its
    input's stem; where several would have one name, the second gets ``-2``, and so on.

    Raises:
        UserError: a folder without images; an output would replace an input.
    """
    found: dict[Path, Path] = {}  # input, as given -> its path below out, without suffix
    named: set[str] = set()
    left_out: list[Path] = []
    for given in inputs:
        files = [given]
        if given.is_dir():
            files, others = files_below(given, out)
            left_out += others
            if not files:
                raise UserError(f"{given}: no images in it; they end in {' '.join(SUFFIXES)}")
        for path in files:
            if os.path.abspath(path) not in named:
                named.add(os.path.abspath(path))
                found[path] = (path.relative_to(given).parent if given.is_dir() else Path()) / path.stem
    real = {path.resolve() for path in found}
    jobs, taken = [], set()
    for path, name in found.items():
        number, unique = 1, name
        while unique.as_posix().casefold() in taken:  # case alone tells no files apart on some systems
            number += 1
            unique = name.with_name(f"{name.name}-{number}")
        taken.add(unique.as_posix().casefold())
        jobs.append(Job(path, out / unique.parent / f"{unique.name}{suffix}"))
    for job in jobs:
        if job.output.resolve() in real:
            raise UserError(f"{job.output}: is an input and would be replaced; choose another folder with -o")
    return jobs, left_out


class Failed(NamedTuple):
    """An image that could not be translated, and why."""

    job: Job
    reason: str


class Written(NamedTuple):
    """An image that was translated and written: (height, width), and what ``translate`` said of it."""

    job: Job
    size: tuple[int, int]
    how: str


def translate_jobs(
    jobs: Iterable[Job],
    read: Callable[[Path], np.ndarray],
    translate: Callable[[np.ndarray, Job], tuple[np.ndarray, str]],
) -> Iterator[Written | Failed]:
    """Yield what became of each image, the written ones in order and each of them only when it is whole on disk.

    The network computes in this thread; a few others decode what comes next and encode what is done. What
    lies in memory meanwhile is bounded: :data:`AHEAD` images on either side, of at most :data:`LARGE` pixels each.

    Args:
        jobs: the images.
        read: returns an image (height, width, channels), or raises an UnreadImageError.
        translate: returns the translation and how it was made, or raises a SizeError.

    Raises:
        UserError: an output cannot be written; those of the images before it are.
    """

    def read_small(path: Path) -> np.ndarray | None:
        with suppress(images.UnreadImageError):  # what is wrong with it is said by the reading
            height, width = images.size(path)
            if height * width > LARGE:
                return None
        return read(path)

    def write(job: Job, output: np.ndarray) -> None:
        try:
            with atomic_path(job.output) as temporary:
                images.write(temporary, output)
        except OSError as error:
            raise UserError(f"{job.output}: cannot be written: {error.strerror or error}") from None

    waiting = iter(jobs)
    reading: deque[tuple[Job, Future]] = deque()
    writing: deque[tuple[Written, Future]] = deque()
    pool = ThreadPoolExecutor(THREADS, "translate")

    def finished(most: int) -> Iterator[Written]:
        while len(writing) > most:
            written, future = writing.popleft()
            future.result()
            yield written

    try:
        while True:
            while len(reading) < AHEAD and (job := next(waiting, None)) is not None:
                reading.append((job, pool.submit(read_small, job.input)))
            if not reading:
                break
            job, future = reading.popleft()
            try:
                pixels = future.result()
                if pixels is None:
                    yield from finished(0)
                    pixels = read(job.input)
                output, how = translate(pixels, job)
            except images.UnreadImageError as error:
                yield Failed(job, error.reason)
                continue
            except SizeError as error:
                yield Failed(job, str(error))
                continue
            size = pixels.shape[:2]
            del pixels, future
            writing.append((Written(job, size, how), pool.submit(write, job, output)))
            yield from finished(0 if size[0] * size[1] > LARGE else AHEAD)
            del output
        yield from finished(0)
    finally:
        # After a mistake, or Ctrl-C: what has begun is finished, since no file may be half-written.
        pool.shutdown(cancel_futures=True)
