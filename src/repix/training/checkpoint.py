"""Checkpoints: complete, atomic, checked on load, and never another run's.

A checkpoint is one ``.npz`` in a folder that carries the run key of what produced it. It
holds all arrays that change, a JSON header with the step and the rows of the loss table so
far, and the canonical digest of all of these. The last two are kept. It needs no version
number: the run key covers the code that reads and writes it.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repix.arrays import load_arrays, save_arrays
from repix.errors import UserError, limit_of_the_machine, printable, words_of
from repix.files import clear_leftovers, digest_arrays, locked

KEEP = 2
_HEADER, _DIGEST = "__header__", "__digest__"


@dataclass(frozen=True)
class Checkpoint:
    """A state between two steps: ``step`` is the next one to run."""

    step: int
    arrays: dict[str, np.ndarray]
    extra: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint, owner: str) -> None:
    """Write a checkpoint of ``owner``, which it carries, as one file with its digest; atomically.

    Raises:
        OSError: the disk is full or not writable.
    """
    header = {"run_key": owner, "step": checkpoint.step, "extra": checkpoint.extra}
    arrays = checkpoint.arrays | {_HEADER: _bytes(json.dumps(header, allow_nan=False))}
    save_arrays(path, arrays | {_DIGEST: _bytes(digest_arrays(arrays))})


def read_checkpoint(path: Path, owner: str) -> Checkpoint:
    """Return the checkpoint of ``owner`` in a file.

    Raises:
        OSError: it is not there. A damaged one raises whatever NumPy or zipfile stumbles over.
        ValueError: it is not whole, or another's.
    """
    arrays = load_arrays(path)
    digest = arrays.pop(_DIGEST).tobytes().decode()
    if digest != digest_arrays(arrays):
        raise ValueError("its digest does not fit its contents")
    header = json.loads(arrays.pop(_HEADER).tobytes())
    if header["run_key"] != owner:
        raise ValueError(f"it belongs to run {header['run_key'][:12]}")
    return Checkpoint(header["step"], arrays, header["extra"])


def check_state(state: dict[str, np.ndarray], wanted: dict[str, Any]) -> None:
    """Raise ValueError where names, dtypes or shapes of a state are not those of ``wanted``.

    Args:
        state: name -> array.
        wanted: name -> variable or tensor of any backend.
    """
    from keras.backend import standardize_dtype

    if wanted.keys() != state.keys():
        odd = sorted(wanted.keys() ^ state.keys())
        raise ValueError(f"the state is another system's: {len(odd)} names differ, first {odd[0]}")
    for name, value in wanted.items():
        found = f"{state[name].dtype} {state[name].shape}"
        needed = f"{standardize_dtype(value.dtype)} {tuple(value.shape)}"
        if found != needed:
            raise ValueError(f"the state is another system's: {name} is {found}, not {needed}")


class Checkpoints:
    """The checkpoints of one run key.

    Args:
        folder: an ignored folder; ``<folder>/<run_key>/`` is used.
        run_key: digest of everything declared that determines the training.
    """

    def __init__(self, folder: Path, run_key: str):
        self.run_key = run_key
        self.folder = Path(folder) / run_key

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then drop all but the last two.

        Raises:
            UserError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        path = self.folder / f"step-{checkpoint.step:09d}.npz"
        try:
            write_checkpoint(path, checkpoint, self.run_key)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be saved ({error.strerror or error}); earlier checkpoints are kept: "
                f"make room and run the same command to go on"
            ) from None
        found = sorted(self.folder.glob("step-*.npz"))
        # Those of later steps were refused when this run began: they must not push out sound ones.
        keep = [other for other in found if other.name <= path.name][-KEEP:]
        for other in found:
            if other not in keep:
                other.unlink()
        return path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Train this run key in one process at a time; where the body succeeds, its checkpoints are removed.

        Two experiments may have the same training, and share the folder. The second waits, saying so in
        one line, and then goes on from what it finds: the finished state, which is kept for as long as
        somebody waits for it, or the last checkpoint of a process that was stopped or killed. Both
        locks end with their process. Where nobody waits nothing is kept: ``dvc repro --force`` shall
        train again and not find a finished state.
        """
        what = f"the same training (run key {self.run_key[:12]})"
        with ExitStack() as waiting:
            # Before the other lock is asked for, so that its holder sees it.
            waiting.enter_context(locked(self._beside(f"{uuid.uuid4().hex}.waits"), what))
            with locked(self._beside("lock"), what):
                waiting.close()
                yield
                if not self._is_waited_for():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(f".{self.run_key}.{suffix}")

    def _is_waited_for(self) -> bool:
        """Whether another process waits in :meth:`alone`; the file of one that was killed there is removed."""
        for path in self.folder.parent.glob(self._beside("*.waits").name):
            try:
                with locked(path, "", seconds=0):
                    pass
            except TimeoutError:
                return True
        return False

    def resume(self, restore: Callable[[Checkpoint], None] = lambda checkpoint: None) -> Checkpoint | None:
        """Return the newest sound checkpoint, or None; what a killed write left is removed.

        One that is damaged, foreign or refused by ``restore`` is named on standard error
        and the one before is used.

        Args:
            restore: puts a checkpoint in force, or raises before it has changed anything.
        """
        clear_leftovers(self.folder)
        refused = 0
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                checkpoint = read_checkpoint(path, self.run_key)
                restore(checkpoint)
            except Exception as error:  # a damaged file can make its readers raise anything
                if limit_of_the_machine(error):  # that says nothing of the file: no hours are begun anew for it
                    raise
                said = printable(words_of(error))
                print(f"repix: checkpoint {path} refused: {said}; trying the one before", file=sys.stderr)
                refused += 1
                continue
            print(f"repix: going on after step {checkpoint.step}, from {path.name}", file=sys.stderr)
            return checkpoint
        if refused:
            print("repix: no sound checkpoint is left; training starts from its first step", file=sys.stderr)
        return None


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
