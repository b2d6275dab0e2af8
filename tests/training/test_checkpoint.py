"""A checkpoint is whole or not there, is checked on load, and is never another run's."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from repix.arrays import load_arrays, save_arrays
from repix.errors import UserError
from repix.files import atomic_path, digest_arrays
from repix.training import checkpoint
from repix.training.checkpoint import Checkpoint, Checkpoints
from tests.conftest import ROOT

PYTHON = os.environ | {"PYTHONPATH": str(ROOT / "src")}
EXTRA = {"epochs": [{"epoch": 1, "g_l1": 0.1 + 0.2}], "best": None}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"g/kernel": rng.normal(size=(3, 4)).astype(np.float32), "pool/count": np.int32(seed), "empty": np.zeros(0)}


def saved(folder, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, "key")
    for step in steps:
        checkpoints.save(Checkpoint(step, arrays(step), EXTRA))
    return checkpoints


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    found = saved(tmp_path, 7).resume()
    assert found.step == 7 and found.extra == EXTRA
    assert digest_arrays(found.arrays) == digest_arrays(arrays(7))
    assert {name: array.dtype for name, array in found.arrays.items()}["pool/count"] == np.int32


def test_equal_states_are_equal_bytes_whatever_their_order(tmp_path):
    save_arrays(tmp_path / "a.npz", arrays())
    save_arrays(tmp_path / "b.npz", dict(reversed(arrays().items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert load_arrays(tmp_path / "a.npz").keys() == arrays().keys()


def test_the_last_two_are_kept(tmp_path):
    assert names(saved(tmp_path, 1, 2, 10, 3)) == ["step-000000002.npz", "step-000000003.npz"]


def test_nothing_there_is_a_new_start(tmp_path, capsys):
    assert Checkpoints(tmp_path, "key").resume() is None
    assert capsys.readouterr().err == ""


def flip(data: bytes) -> bytes:
    middle = data.index(arrays(2)["g/kernel"].tobytes()) + 5
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "flipped": (flip, "Bad CRC"),
    "truncated": (lambda data: data[: len(data) // 2], "no .npz, or was cut short"),
    "empty": (lambda data: b"", "no .npz, or was cut short"),
    "text": (lambda data: b"not a checkpoint", "no .npz, or was cut short"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_refused_by_name_and_the_one_before_used(tmp_path, capsys, damage):
    checkpoints = saved(tmp_path, 1, 2)
    path = checkpoints.folder / "step-000000002.npz"
    change, said = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    assert checkpoints.resume().step == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "step-000000002.npz refused" in lines[0] and said in lines[0]
    assert "going on after step 1" in lines[1]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("OOM when allocating tensor")],
)
def test_too_little_memory_to_read_one_begins_nothing_anew(tmp_path, error):
    """It says nothing of the file: hours that are there are not trained again."""
    checkpoints = saved(tmp_path, 1, 2)

    def little(checkpoint):
        raise error

    with pytest.raises(type(error)):
        checkpoints.resume(little)
    assert checkpoints.resume().step == 2


def test_a_flip_of_any_byte_is_refused_or_harmless(tmp_path, capsys):
    """Some bytes of a zip file mean nothing (a date, a flag); all that do are covered."""
    checkpoints = saved(tmp_path, 5)
    path = checkpoints.folder / "step-000000005.npz"
    whole, refused = path.read_bytes(), 0
    for position in random.Random(0).sample(range(len(whole)), 150):
        data = bytearray(whole)
        data[position] ^= 0x10
        path.write_bytes(data)
        found = checkpoints.resume()
        refused += found is None
        assert found is None or (found.step, found.extra, digest_arrays(found.arrays)) == (
            5,
            EXTRA,
            digest_arrays(arrays(5)),
        )
    assert refused > 50
    assert "no sound checkpoint is left" in capsys.readouterr().err


def test_the_digest_covers_step_and_history_too(tmp_path, capsys):
    """A file that was written anew, with sound CRCs, by someone who changed the step."""
    checkpoints = saved(tmp_path, 5)
    path = checkpoints.folder / "step-000000005.npz"
    content = load_arrays(path)
    header = json.loads(content[checkpoint._HEADER].tobytes()) | {"step": 4}
    content[checkpoint._HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    save_arrays(path, content)
    assert checkpoints.resume() is None
    assert "digest does not fit" in capsys.readouterr().err


def test_another_runs_checkpoint_is_never_used(tmp_path, capsys):
    mine = saved(tmp_path, 1)
    other = Checkpoints(tmp_path, "somebody-elses-key")
    foreign = other.save(Checkpoint(9, arrays(9), EXTRA))
    assert mine.resume().step == 1
    os.replace(foreign, mine.folder / foreign.name)
    assert mine.resume().step == 1
    assert "step-000000009.npz refused: it belongs to run somebody-els" in capsys.readouterr().err


def test_refused_ones_of_later_steps_do_not_push_out_sound_ones(tmp_path):
    checkpoints = saved(tmp_path, 1)
    for step in (8, 9):
        (checkpoints.folder / f"step-{step:09d}.npz").write_bytes(b"junk")
    checkpoints.save(Checkpoint(2, arrays(2), EXTRA))
    assert names(checkpoints) == ["step-000000001.npz", "step-000000002.npz"]


def test_one_that_does_not_fit_the_networks_is_refused(tmp_path, capsys):
    def restore(found):
        if found.step == 2:
            raise ValueError("the state is another\nsystem's")

    assert saved(tmp_path, 1, 2).resume(restore).step == 1
    assert "step-000000002.npz refused: the state is another system's; " in capsys.readouterr().err


def test_what_a_killed_write_left_is_removed_and_one_under_way_is_not(tmp_path):
    """A real process is in the middle of a write; then it is killed."""
    checkpoints = saved(tmp_path, 1)
    path = checkpoints.folder / "step-000000002.npz"
    program = (
        "import os, signal, sys\n"
        "from repix.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    dead = subprocess.run([sys.executable, "-c", program, path], env=PYTHON, check=False)
    assert dead.returncode == -signal.SIGKILL and len(names(checkpoints)) == 2
    with atomic_path(path) as alive:
        alive.write_bytes(b"a process at work")
        assert checkpoints.resume().step == 1
        assert names(checkpoints) == [alive.name, "step-000000001.npz"]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1, 2)

    def full(stream, array, **how):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(np.lib.format, "write_array", full)
        checkpoints.save(Checkpoint(3, arrays(3), EXTRA))
    assert "\n" not in str(caught.value) and "No space left on device" in str(caught.value)
    assert names(checkpoints) == ["step-000000001.npz", "step-000000002.npz"]
    assert checkpoints.resume().step == 2


def test_a_real_file_size_limit_is_one_line_and_loses_nothing(tmp_path):
    """No mock: the kernel refuses the write in the middle, and nothing else is said."""
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np
from repix import stage
from repix.training.checkpoint import Checkpoint, Checkpoints
checkpoints = Checkpoints(Path({str(tmp_path)!r}), "key")
state = {{"a": np.zeros(200_000, np.float32), "b": np.ones(200_000, np.float32)}}
checkpoints.save(Checkpoint(1, state, {{}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
stage.guard(lambda: checkpoints.save(Checkpoint(2, state, {{}})))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=PYTHON,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "File too large" in ended.stderr and "kept" in ended.stderr
    checkpoints = Checkpoints(tmp_path, "key")
    assert names(checkpoints) == ["step-000000001.npz"] and checkpoints.resume().step == 1


def test_what_a_finished_training_no_longer_needs_is_removed_and_what_a_stopped_one_needs_kept(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    with pytest.raises(KeyboardInterrupt), checkpoints.alone():
        raise KeyboardInterrupt
    assert names(checkpoints) == ["step-000000001.npz", "step-000000002.npz"]
    with checkpoints.alone():
        pass
    assert list(tmp_path.iterdir()) == []
