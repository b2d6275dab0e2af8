"""A translator's ONNX file from anybody: opened, computed, or refused in one line.

`repix translate`, the demo and the served model all compute by it, so that one file is taken, or refused
with one reason, by all of them. It imports nothing of repix: a served model carries this file beside its own.

What is refused: weights in other files; graphs within operators (``Loop``, ``Scan``, ``If``) and functions, since
with them a small file can compute for ever, or take for ever to be opened; a file that takes or gives other names,
types or shapes than its record says; and whatever onnxruntime cannot open or compute. Every operator of what is left
runs once for an image. How much time and memory each of them takes is the file's own affair.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

SAID = 200  # letters of what onnxruntime says

# Numbers of fields of the messages of onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25  # of a model
_NODE, _ATTRIBUTE = 1, 5  # of a graph; of a node
_GRAPHS = (6, 11)  # of an attribute: one graph, or several
_TENSORS, _SPARSE = (5, 10), (22, 23)  # of an attribute: one, or several
_INITIALIZERS, _SPARSE_INITIALIZERS = (5,), (15,)  # of a graph
_PARTS = (1, 2)  # of a sparse tensor: its values, and where they stand
_EXTERNAL = 13  # of a tensor: where else its numbers lie


class ModelError(ValueError):
    """A file that is not what its record says, or that cannot be computed; the text says why."""


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number of protobuf's, seven bits a byte, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
    raise ModelError("cannot be read (it is no ONNX file, or was cut short)")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a protobuf message, but for plain numbers."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if kind == 0:
            _, at = _number(data, at)
        elif kind == 2:
            size, at = _number(data, at)
        # Bits above 32 are dropped by some readers: the field would be another one to them.
        if kind not in (0, 1, 2, 5) or key >= 1 << 32 or size > len(data) - at:
            raise ModelError("cannot be read (it is no ONNX file, or was cut short)")
        if kind == 2:
            yield key >> 3, data[at : at + size]
        at += size


def check_operators(data: bytes) -> None:
    """Refuse a file whose operators do not each run once, or whose weights lie in another file.

    Raises:
        ModelError: it has functions, graphs within operators or weights elsewhere, or is no ONNX file.
    """
    for field, graph in _fields(memoryview(data)):
        if field == _FUNCTIONS:
            raise ModelError("has functions of its own; an export has none")
        if field != _GRAPH:
            continue
        _check_tensors(graph, _INITIALIZERS, _SPARSE_INITIALIZERS)
        for _, node in _of(graph, _NODE):
            for _, attribute in _of(node, _ATTRIBUTE):
                if any(number in _GRAPHS for number, _ in _fields(attribute)):
                    raise ModelError("has a graph within an operator (Loop, Scan, If); an export has none")
                _check_tensors(attribute, _TENSORS, _SPARSE)


def _check_tensors(data: memoryview, dense: tuple[int, ...], sparse: tuple[int, ...]) -> None:
    """Refuse a message that has, in fields of these numbers, a tensor whose numbers lie in another file."""
    for number, part in _fields(data):
        inner = _fields(part) if number in sparse else ()
        tensors = [part] if number in dense else [one for place, one in inner if place in _PARTS]
        if any(place == _EXTERNAL for tensor in tensors for place, _ in _fields(tensor)):
            raise ModelError("has weights in another file; an export has none")


def _of(data: memoryview, wanted: int) -> Iterator[tuple[int, memoryview]]:
    return ((number, content) for number, content in _fields(data) if number == wanted)


def open_session(
    path: str | os.PathLike[str], threads: int | None = None, digest: str | None = None
) -> onnxruntime.InferenceSession:
    """Return a file opened by onnxruntime.

    It is read once: what is compared and checked is what is opened, whatever is written to the file meanwhile. Of
    bytes onnxruntime would look below the current folder for weights in other files, which are refused.

    Args:
        path: the file.
        threads: of one computation; by default onnxruntime's choice, for a server that does nothing else.
        digest: the sha256 that it must have, or None where there is no record.

    Raises:
        ModelError: it is refused, or cannot be read: an OSError is its cause.
    """
    # It would look up a host and keep a device id, unless this is set before its import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    try:
        data = _read(path)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})") from error
    if digest not in (None, hashlib.sha256(data).hexdigest()):
        raise ModelError("not the file of export.json")
    check_operators(data)
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a file's own words, in colours; what it cannot do is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own, which is read otherwise
    if threads is not None:
        options.intra_op_num_threads = threads
        # A thread that waits for others leaves its core to what decodes and encodes: a fifth of the CPU time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ModelError(f"cannot be read ({_said(error)})") from None


def _read(path: str | os.PathLike[str]) -> bytes:
    """Return what a file holds now.

    Raises:
        OSError: it is no file, or cannot be read.
    """

    def without_waiting(name: str, flags: int) -> int:  # for the other end of a pipe
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", buffering=0, opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no file")
        return file.readall()


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:SAID]


class Network:
    """An ONNX file as a function of one image on [-1, 1].

    Args:
        path: the file.
        size: (height, width) of its images.
        channels: of its source and its target.
        threads, digest: as for :func:`open_session`.

    Attributes:
        session: the file, opened.

    Raises:
        ModelError: it is refused, or takes and gives something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        channels: tuple[int, int],
        threads: int | None = None,
        digest: str | None = None,
    ):
        self.session = open_session(path, threads, digest)
        values: list[Any] = [*self.session.get_inputs(), *self.session.get_outputs()]
        found = [(one.name, one.type, *one.shape[1:]) for one in values]
        named = [("image", "tensor(float)", *size, channels[0]), ("translation", "tensor(float)", *size, channels[1])]
        if found != named:
            raise ModelError(f"takes and gives {str(found)[:SAID]}, its record says {named}")
        self._shape = (1, *size, channels[1])

    def __call__(self, unit: np.ndarray) -> np.ndarray:
        """Return what it makes of an image, (height, width, channels) of float32 both ways.

        Raises:
            ModelError: it cannot be computed, or gives other than finite numbers of its shape.
        """
        try:
            (found,) = self.session.run(["translation"], {"image": unit[None]})
        except Exception as error:  # its errors have no common class
            raise ModelError(f"cannot be computed ({_said(error)})") from None
        if found.shape != self._shape:
            raise ModelError(f"gives an array of shape {found.shape}, its record says {self._shape}")
        if not np.isfinite(found).all():
            raise ModelError("gives NaN or infinite numbers")
        return found[0]
