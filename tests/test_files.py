"""Files appear whole or not at all; digests mean the same everywhere."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from repix import files
from repix.data import packing
from repix.errors import UserError
from repix.translation.jobs import find_jobs
from tests.conftest import LOOK_SECONDS

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}


def start(code: str, **more) -> subprocess.Popen:
    """Start a Python that has repix."""
    return subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def writer(path: Path, kind: str = "atomic_folder") -> subprocess.Popen:
    """Start a process that is in the middle of writing ``path`` and stays there."""
    half = "made.write_text('half')" if kind == "atomic_path" else "(made / 'half').touch()"
    begun = start(
        f"import time\nfrom repix import files\nwith files.{kind}({str(path)!r}) as made:\n"
        f"    {half}; print(made, flush=True); time.sleep(60)"
    )
    begun.made = Path(begun.stdout.readline().strip())
    return begun


def leftover(path: Path, kind: str = "atomic_folder") -> Path:
    """Return what a writer of ``path`` leaves that is killed in the middle."""
    begun = writer(path, kind)
    begun.kill()
    begun.wait()
    assert begun.made.exists()
    return begun.made


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".json" and files.read_json(path) == {"old": 1}
        raise RuntimeError
    assert files.read_json(path) == {"old": 1} and os.listdir(path.parent) == ["a.json"]
    with files.atomic_path(path) as temporary:
        temporary.write_text("[2]")
    assert files.read_json(path) == [2] and os.listdir(path.parent) == ["a.json"]


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with files.atomic_folder(path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_folder(path) as folder:
        (folder / "a").write_text("2")
        raise RuntimeError
    assert (path / "a").read_text() == "1"
    with files.atomic_folder(path) as folder:
        (folder / "b").write_text("3")
    assert os.listdir(path) == ["b"] and os.listdir(tmp_path) == ["out"]


def test_the_next_write_removes_what_killed_ones_left_and_nothing_of_living_ones(tmp_path):
    mine, more, file = (
        leftover(tmp_path / "out"),
        leftover(tmp_path / "out.more"),
        leftover(tmp_path / "a.json", "atomic_path"),
    )
    assert file.name.endswith(".tmp.json")
    living = writer(tmp_path / "living")
    stranger = tmp_path / ".out.mine.tmp"
    stranger.mkdir()
    try:
        with files.atomic_folder(tmp_path / "out"):
            pass
        assert not mine.exists() and (tmp_path / "out").is_dir() and not (tmp_path / ".out.lock").exists()
        assert more.exists() and file.exists() and living.made.exists()
        files.clear_leftovers(tmp_path)
        assert not more.exists() and not file.exists()
        assert (living.made / "half").exists() and stranger.exists()
    finally:
        living.kill()
        living.wait()


def test_leftovers_are_judged_by_the_machine_that_made_them(tmp_path, monkeypatch):
    """On a shared file system a number says nothing of another machine's process, which may be at work."""
    path = tmp_path / "out"
    foreign = leftover(path)
    _, host, writer, *_ = files._TEMPORARY.fullmatch(foreign.name).groups()
    boot = writer.split("-")[1]
    foreign = foreign.rename(tmp_path / foreign.name.replace(host, "0" * 8).replace(boot, "1" * 8))
    files.clear_leftovers(tmp_path)
    with files.atomic_folder(path):
        pass
    assert foreign.exists()
    # Another container of this very machine: without the lock it may live, with the lock it does not.
    neighbour = foreign.rename(tmp_path / foreign.name.replace("1" * 8, boot))
    files.clear_leftovers(tmp_path)
    assert neighbour.exists()
    with files.atomic_folder(path):
        pass
    assert not neighbour.exists()
    # An earlier boot of this machine: whatever runs under that number now is another process.
    earlier = tmp_path / f".out.{host}-{os.getppid()}-{'1' * 8}-5-0.tmp"
    earlier.mkdir()
    files.clear_leftovers(tmp_path)
    assert not earlier.exists()


def test_a_leftover_of_this_very_number_is_no_obstacle(tmp_path):
    name, boot, began = files.process_name(os.getpid()).split("-")
    before = tmp_path / f".out.{files._host()}-{name}-{boot}-{int(began) - 1}-0.tmp"
    before.mkdir()  # in a container every process is number 7
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path) == ["out"]


REPLACE = """
import itertools, os, time
from repix import files
from repix.data import packing
from repix.errors import UserError
from repix.translation.jobs import find_jobs
files.LOOK_SECONDS = {look}
for turn in itertools.count():
    with files.atomic_folder({path!r}) as folder:
        for number in range({many}):
            os.close(os.open(folder / f"{{os.getpid()}}-{{turn}}-{{number}}", os.O_CREAT))
    print(turn, flush=True)
    time.sleep(0.1)  # the other one's turn
"""
WATCH = """
import collections, os, sys
seen = collections.Counter()
print("ready", flush=True)
while not os.path.exists({stop!r}):
    try:
        found = os.listdir({path!r})
    except FileNotFoundError:
        seen["absent"] += 1
        continue
    turns = {{name.rsplit("-", 1)[0] for name in found}}
    seen["whole" if len(found) == {many} and len(turns) == 1 else "part"] += 1
print(seen["whole"], seen["part"], seen["absent"])
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_who_looks_sees_a_whole_folder_while_writers_replace_it_and_are_killed(tmp_path, exchange):
    """A folder of thousands of files; writers by twos, killed at random; a reader that never rests."""
    path, stop, many, dice = tmp_path / "out", tmp_path / "stop", 2000, random.Random(0)
    with files.atomic_folder(path) as folder:
        for number in range(many):
            (folder / f"first-0-{number}").touch()
    reader = start(WATCH.format(path=str(path), stop=str(stop), many=many))
    reader.stdout.readline()
    replace = REPLACE.format(path=str(path), many=many, look=LOOK_SECONDS)
    if not exchange:
        replace = replace.replace("files.LOOK", "files._exchange = lambda one, other: False\nfiles.LOOK", 1)
    turns = 0
    try:
        for _ in range(4):
            pair = [start(replace), start(replace)]
            assert pair[0].stdout.readline()
            time.sleep(dice.uniform(0, 0.6))
            for each in pair:
                each.kill()
                said, wrong = each.communicate()
                turns += 1 + said.count("\n")
                assert "Traceback" not in wrong
    finally:
        stop.touch()
        whole, part, absent = map(int, reader.communicate()[0].split())
    assert part == 0 and whole > 50 and turns >= 4
    if exchange and files._exchange(path, stop):  # where the system can: not even for a moment
        files._exchange(path, stop)
        assert absent == 0
    with files.atomic_folder(path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["out", "stop"] and os.listdir(path) == []


def test_a_kill_between_two_renames_leaves_the_old_folder_to_be_put_back(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "out"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out" / "a").read_text() == "1"


@pytest.mark.parametrize("name", ["x" * 255, "\u4e16" * 85, "x" * 251 + ".npy"], ids=["plain", "wide", "suffix"])
def test_a_name_as_long_as_a_disk_takes_can_be_written_and_what_a_killed_one_left_is_found(tmp_path, name, monkeypatch):
    files.write_text(tmp_path / name, "text")
    (tmp_path / "folders").mkdir()
    with files.atomic_folder(tmp_path / "folders" / name[:80]) as folder:
        (folder / "a").touch()
    with monkeypatch.context() as patch:
        patch.setattr(files, "process_name", lambda number: "1")
        left = files._temporary(tmp_path / name, Path(name).stem, Path(name).suffix)
    left.touch()
    files.clear_leftovers(tmp_path, Path(name).stem)
    assert os.listdir(tmp_path / "folders") == [name[:80]] and sorted(os.listdir(tmp_path)) == ["folders", name]


def test_a_link_to_a_folder_is_replaced_and_its_target_left(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").touch()
    (tmp_path / "out").symlink_to("elsewhere")
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "b").touch()
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]
    assert os.listdir(tmp_path / "elsewhere") == ["a"] and os.listdir(tmp_path / "out") == ["b"]


def test_the_second_writer_waits_says_so_and_a_killed_first_one_blocks_nobody(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(files, "SAY_SECONDS", 0.1)
    path = tmp_path / "out"
    first = writer(path)
    began = time.monotonic()
    threading.Timer(0.7, first.kill).start()
    with files.atomic_folder(path) as folder:
        waited = time.monotonic() - began
        (folder / "b").touch()
    first.wait()
    assert 0.5 < waited < 30
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and f"waiting for process {first.pid} on " in said and str(path) in said
    assert os.listdir(tmp_path) == ["out"] and os.listdir(path) == ["b"]


def test_a_lock_that_is_held_too_long_is_an_error_and_one_that_was_released_is_gone(tmp_path):
    path = tmp_path / "deep" / "a.lock"
    with files.locked(path, "x"):
        with pytest.raises(TimeoutError), files.locked(path, "x", seconds=0.1):
            pass
        assert path.exists()
    assert not path.exists()


def test_one_lock_is_held_by_one_at_a_time_though_its_file_comes_and_goes(tmp_path):
    held, most, turns = 0, 0, []

    def work(number):
        nonlocal held, most
        for _ in range(10):
            with files.locked(tmp_path / "a.lock", "x"):
                held += 1
                most = max(most, held)
                time.sleep(0.001)
                held -= 1
                turns.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(turns) == 40 and os.listdir(tmp_path) == []


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def none(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path) == ["out"]


def test_a_disk_that_is_full_in_the_middle_leaves_the_old_content(tmp_path):
    """No mock: the kernel refuses the write in the middle."""
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    files.write_text(tmp_path / "a.txt", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_text(tmp_path / "a.txt", "n" * 2000)
        with pytest.raises(OSError, match="File too large"), files.atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("n" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "out"]
    assert (tmp_path / "a.txt").read_text() == "old" and (tmp_path / "out" / "a").read_text() == "1"


def test_threads_write_one_file_and_one_wins(tmp_path):
    path, failed = tmp_path / "a.txt", []

    def work(letter):
        try:
            for _ in range(20):
                files.write_text(path, letter * 5000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and path.read_text() in {letter * 5000 for letter in "abc"} and os.listdir(tmp_path) == ["a.txt"]


def test_a_process_number_that_is_used_again_is_another_process():
    mine = files.process_name(os.getpid())
    assert mine.startswith(f"{os.getpid()}-") and mine == files.process_name(os.getpid())
    child = start("import time; time.sleep(60)")
    name = files.process_name(child.pid)
    child.kill()
    until = time.monotonic() + 10
    while files.process_name(child.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert name and files.process_name(child.pid) is None  # also before it is waited for
    child.wait()


def test_json_is_for_diffs_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, "é"]})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": [\n    0.1,\n    "\\u00e9"\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "b.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]
    files.write_text(tmp_path / "c.txt", "é\n")
    assert (tmp_path / "c.txt").read_bytes() == b"\xc3\xa9\n"


def test_a_trees_digest_is_of_names_and_bytes(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    before = files.digest_tree(tmp_path)
    os.utime(tmp_path / "d" / "a", (0, 0))
    (tmp_path / "d" / "a").chmod(0o600)
    (tmp_path / "d" / "__pycache__").mkdir()
    (tmp_path / "d" / "__pycache__" / "x.pyc").write_text("x")
    assert files.digest_tree(tmp_path) == before
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    renamed = files.digest_tree(tmp_path)
    (tmp_path / "d" / "b").write_text("2")
    assert len({before, renamed, files.digest_tree(tmp_path)}) == 3
    assert files.digest_tree(tmp_path / "d" / "b") == files.digest_file(tmp_path / "d" / "b") == files.digest_text("2")


def test_an_arrays_digest_is_pinned_and_knows_nothing_of_the_container(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"b": np.int32(3), "a/k": kernel, "c": np.array([True]), "d": np.zeros((0, 2))}
    digest = files.digest_arrays(arrays)
    assert digest == "35c97aded929b3e62a0e66190b524163bb34fd6bd4d914312d589a1cd6709169"
    assert files.digest_arrays({**dict(reversed(arrays.items())), "a/k": np.asfortranarray(kernel)}) == digest
    assert files.digest_arrays(arrays | {"a/k": kernel.astype(">f4")}) == digest
    np.savez(tmp_path / "a.npz", **arrays)
    assert files.digest_arrays(dict(np.load(tmp_path / "a.npz"))) == digest
    changes = [{"a/k": kernel.T}, {"a/k": kernel.astype(float)}, {"a/k": kernel + 1e-7}, {"d": np.zeros((2, 0))}]
    changes += [{"a/k": -kernel}, {"e": kernel}]
    assert len({files.digest_arrays(arrays | change) for change in changes} | {digest}) == len(changes) + 1


def test_json_that_nests_too_deep_is_an_error_of_value(tmp_path):
    with pytest.raises(ValueError, match="nests too deep"):
        files.parse_json("[" * 100_000)
    (tmp_path / "a.json").write_text('{"a":' * 100_000)
    with pytest.raises(ValueError, match="nests too deep"):
        files.read_json(tmp_path / "a.json")


def test_a_record_that_nests_too_deep_is_one_line(tmp_path):
    from repix.errors import UserError
    from repix.schemas import Archive

    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"cannot be read as JSON \(it nests too deep\)"):
        Archive.read(tmp_path / "a.json")


def test_compressed_arrays_are_refused_before_they_are_unpacked(tmp_path):
    import numpy as np

    from repix.arrays import load_arrays, save_arrays

    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10))
    with pytest.raises(ValueError, match="compressed"):
        load_arrays(tmp_path / "a.npz")
    save_arrays(tmp_path / "b.npz", {"a": np.zeros(10)})
    assert load_arrays(tmp_path / "b.npz")["a"].shape == (10,)


def test_links_that_multiply_a_folder_are_refused_soon_wherever_folders_are_searched(tmp_path):
    """Each folder has two links to the next: there are 2**29 ways to the last file."""
    for level in range(30):
        (tmp_path / "links" / f"{level}").mkdir(parents=True)
        for link in "ab" if level else "":
            (tmp_path / "links" / f"{level - 1}" / link).symlink_to(f"../{level}")
    (tmp_path / "links" / "29" / "x.png").write_bytes(b"x")
    first, out = tmp_path / "links" / "0", tmp_path / "out"
    for search in (lambda: list(packing.entries(first)), lambda: find_jobs([first], out, ".png")):
        began = time.monotonic()
        with pytest.raises(UserError, match="lead to this folder in more than 100 ways; remove some of them"):
            search()
        assert time.monotonic() - began < 5
    assert len(list(packing.entries(tmp_path / "links" / "25"))) == 2**4


def test_what_is_written_outlives_a_power_cut_before_it_has_its_name(tmp_path, monkeypatch):
    """Bytes are on the disk before the name is, and the name before the next thing is done."""
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "sync", lambda: done.append("all"))
    monkeypatch.setattr(os, "replace", lambda one, other: (replace(one, other), done.append("name"))[1])
    files.write_text(tmp_path / "a", "x")
    [first, *rest] = done
    assert first.endswith(".tmp") and rest == ["name", str(tmp_path)]
    done.clear()
    with files.atomic_folder(tmp_path / "b") as folder:
        (folder / "c").touch()
    assert done == ["all", "name", str(tmp_path)]
    done.clear()
    with files.atomic_folder(tmp_path / "b") as folder:
        (folder / "d").touch()
    assert done[0] == "all" and done[-1] == str(tmp_path)
