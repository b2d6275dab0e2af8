"""Files in turn: decoded ahead and written behind the network, within bounds, and each whole or not there."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from repix.data import images
from repix.errors import UserError
from repix.inference.sizes import SizeError
from repix.translation import jobs
from repix.translation.jobs import AHEAD, THREADS, Failed, Job, Written, translate_jobs

SECONDS = 30  # until an event that never comes is given up


def make(folder, n, size=(8, 8)) -> list[Job]:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        images.write(folder / f"{i:02}.png", np.full((*size, 3), i, np.uint8))
    return [Job(folder / f"{i:02}.png", folder / "out" / f"{i:02}.png") for i in range(n)]


def same(pixels, job):
    return pixels, "whole"


def test_what_is_written_is_told_in_order_and_lies_there_by_then(tmp_path):
    found = []
    for one in translate_jobs(make(tmp_path / "in", 20), images.read, same):
        assert isinstance(one, Written) and one.size == (8, 8) and one.how == "whole"
        found.append(images.read(one.job.output)[0, 0, 0])
    assert found == list(range(20))


class Counter:
    """How many images are in memory: from the begin of their reading to the end of their writing."""

    def __init__(self):
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def add(self, n):
        with self.lock:
            self.now += n
            self.most = max(self.most, self.now)


@pytest.mark.parametrize(("large", "most"), [(10**6, 2 * AHEAD + 2), (1, 1)])
@pytest.mark.parametrize("slow", ["read", "translate", "write"])
def test_few_images_are_in_memory_and_large_ones_alone(tmp_path, monkeypatch, large, most, slow):
    monkeypatch.setattr(jobs, "LARGE", large)
    held, write = Counter(), images.write

    def wait(what):
        time.sleep(0.01 if what == slow else 0)

    def read(path):
        held.add(1)
        wait("read")
        return images.read(path)

    def written(path, array):
        wait("write")
        write(path, array)
        held.add(-1)

    def translate(pixels, job):
        wait("translate")
        return pixels, "whole"

    found = make(tmp_path / "in", 30)
    monkeypatch.setattr(images, "write", written)
    done = list(translate_jobs(found, read, translate))
    assert len(done) == 30 and held.now == 0
    assert held.most <= most


def test_reading_and_writing_go_on_beside_the_network(tmp_path, monkeypatch):
    """The network waits for the next image's reading, and a writing for the next image's network."""
    found, write = make(tmp_path / "in", 8), images.write
    reads, computes = ([threading.Event() for _ in found] for _ in range(2))

    def read(path):
        reads[int(path.stem)].set()
        return images.read(path)

    def translate(pixels, job):
        number = int(job.input.stem)
        computes[number].set()
        assert all(event.wait(SECONDS) for event in reads[number + 1 : number + 2])
        return pixels, "whole"

    def written(path, array):
        number = int(array[0, 0, 0])
        assert all(event.wait(SECONDS) for event in computes[number + 1 : number + 2])
        write(path, array)

    monkeypatch.setattr(images, "write", written)
    assert len(list(translate_jobs(found, read, translate))) == len(found)


def test_a_broken_image_is_told_and_the_rest_goes_on(tmp_path):
    found = make(tmp_path / "in", 5)
    found[1].input.write_bytes(b"no image")
    found[3].input.unlink()

    def translate(pixels, job):
        if job == found[4]:
            raise SizeError("not of that size")
        return pixels, "whole"

    done = list(translate_jobs(found, images.read, translate))
    failed = {one.job.input.name: one.reason for one in done if isinstance(one, Failed)}
    assert failed.keys() == {"01.png", "03.png", "04.png"} and failed["03.png"] == "no such file"
    assert [one.job for one in done if isinstance(one, Written)] == [found[0], found[2]]


def test_an_image_that_no_library_here_reads_is_told_and_the_rest_goes_on(tmp_path, monkeypatch):
    found = make(tmp_path / "in", 3)
    found[1].input.write_bytes(b"II*\0" + bytes(100))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    done = list(translate_jobs(found, images.read, lambda pixels, job: (pixels, "whole")))
    assert [one.job for one in done if isinstance(one, Written)] == [found[0], found[2]]
    assert [one.reason for one in done if isinstance(one, Failed)] == ["a TIFF needs tifffile: pip install tifffile"]


def test_a_full_disk_stops_it_in_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    found, write = make(tmp_path / "in", 20), images.write

    def full(path, array):
        if array[0, 0, 0] == 5:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(path, array)

    monkeypatch.setattr(images, "write", full)
    done = []
    with pytest.raises(UserError, match=r"05.png: cannot be written: No space left on device"):
        done.extend(translate_jobs(found, images.read, same))
    outputs = sorted((tmp_path / "in" / "out").iterdir())
    assert found[5].output not in outputs and len(outputs) < 5 + AHEAD + THREADS + 2
    for path in outputs:
        assert images.read(path).shape == (8, 8, 3)


def test_a_mistake_of_ours_is_not_swallowed_and_threads_end(tmp_path):
    def broken(pixels, job):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(translate_jobs(make(tmp_path / "in", 9), images.read, broken))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("translate")]
