"""The book's HDF5 tree: ``training|validation|testing/{images,facades}/*.h5``, dataset key ``data``.

``images`` holds photos (side A), ``facades`` labels (side B), each (n, height, width, channels).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from repix.data import hdf5_reader
from repix.errors import UserError

FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
SIDES = {"A": "images", "B": "facades"}
PATIENCE_SECONDS = 60.0
"""How long one row may take to read."""


class _Reader:
    """The process that reads HDF5 files for this one, started when it is first asked."""

    def __init__(self):
        self._lock, self._process, self._owner = threading.Lock(), None, 0

    def ask(self, path: str | Path, row: int | None = None) -> tuple[dict[str, Any], bytes]:
        """Return what :mod:`repix.data.hdf5_reader` answers.

        Raises:
            OSError: it crashed or took too long; the next file gets a new one.
        """
        request = json.dumps({"path": os.path.abspath(path), "row": row}).encode() + b"\n"
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                # No plug-ins: a file names the filter that is to be loaded.
                environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
                command = [sys.executable, "-P", hdf5_reader.__file__]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                self._process, self._owner = subprocess.Popen(command, env=environment, **pipes), os.getpid()
            process = self._process
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.start()
            try:
                process.stdin.write(request)
                process.stdin.flush()
                about = json.loads(process.stdout.readline())
                size = np.dtype(about["dtype"]).itemsize * int(np.prod(about["shape"][1:])) if "shape" in about else 0
                content = process.stdout.read(size) if row is not None else b""
                if row is not None and len(content) != size:
                    raise ValueError("an answer that was cut short")
                return about, content
            except (OSError, ValueError):
                self._process = None
                process.kill()
                late, code = not timer.is_alive(), process.wait()
                for pipe in (process.stdin, process.stdout):
                    with contextlib.suppress(OSError):
                        pipe.close()
                how = f"takes longer than {PATIENCE_SECONDS:g} s" if late else "makes the HDF5 library crash"
                raise OSError(how + _named(code)) from None
            finally:
                timer.cancel()


def _named(code: int) -> str:
    """Return the signal that ended a process, in brackets; nothing where it was our own."""
    return f" ({signal.Signals(-code).name})" if code < 0 and -code != signal.SIGKILL else ""


_reader = _Reader()


def shape(path: str | Path) -> tuple[int, int, int, int]:
    """Return (n, height, width, channels) of a file's ``data``.

    Raises:
        UserError: not an HDF5 file, no such key, values that lie in other files, filters that
            are not read, another number of dimensions, other numbers than uint8 and uint16, or
            more images than so many bytes can hold.
    """
    try:
        about, _ = _reader.ask(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as HDF5 (it {error}); restore the file") from None
    if "refused" in about:
        raise UserError(f"{path}: {about['refused']}")
    return tuple(about["shape"])


def read_row(path: str | Path, row: int) -> np.ndarray:
    """Return image ``row`` of a file that :func:`shape` has accepted, (height, width, channels).

    Raises:
        OSError: the row is damaged.
    """
    about, content = _reader.ask(path, row)
    if "shape" not in about:
        raise OSError(about.get("damaged") or about["refused"])
    return np.frombuffer(content, about["dtype"]).reshape(about["shape"][1:])
