"""The exported translator as an MLflow model: images in, images out.

MLflow stores this file and the readers of image files and of ONNX beside the model ("models from code"), so nothing
is pickled, and it needs no more of repix: mlflow, numpy, onnxruntime, Pillow and tifffile are enough to serve it.

A request names an ``image`` per row: the bytes of an image file, which is read, or refused, as
training and ``repix translate`` do; their base64 text; or the stored integers as rows, columns and
channels. The answer has a ``translation`` per row: PNG as base64 text, or with the parameter
``output: array`` the stored integers. A request that cannot be answered gets MLflow's
INVALID_PARAMETER_VALUE, HTTP 400, with the reason.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

try:  # in an MLflow model the reader lies beside this file
    import image_reader
    import onnx_file
except ImportError:
    from repix.data import image_reader
    from repix.inference import onnx_file

MAX_IMAGES = 64  # of one request
MAX_BYTES = 16_000_000  # of one image file
MAX_CHANNELS = 256  # of one image file
_PICTURES = ("rgb", "gray")
ModelError = onnx_file.ModelError


class RequestError(ValueError):
    """A request that cannot be answered; the text says why."""


def decode(given: Any, size: tuple[int, int], side: dict[str, Any]) -> np.ndarray:
    """Return one image of a request as stored integers, (height, width, channels).

    Args:
        given: bytes of an image file, their base64 text, or (nested lists of) integers.
        size: (height, width) that the network takes.
        side: the record of the source: channels, dtype, low, high, colour.

    Raises:
        RequestError: it is none of these, or of another size.
    """
    if isinstance(given, str):
        # base64 takes four letters for three bytes.
        if len(given) > MAX_BYTES * 4 // 3 + 4:
            raise RequestError(f"{len(given)} letters of base64; an image file may have {MAX_BYTES} bytes")
        try:
            given = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"not base64: {error}") from None
    if isinstance(given, bytes | bytearray):
        return _decode_file(bytes(given), size, side)
    plain = isinstance(given, np.ndarray) and given.dtype != object
    shape, numbers = (given.shape, given) if plain else _flat(given)
    wanted = (*size, side["channels"])
    if shape != wanted:
        raise RequestError(f"an array of shape {shape}, the network takes {wanted}")
    limits = np.iinfo(side["dtype"])
    # NumPy gives every place the room of the longest text, so it never sees one.
    whole = plain or all(issubclass(kind, int | np.integer) and kind is not bool for kind in set(map(type, numbers)))
    array = np.asarray(numbers if whole else False)
    if array.dtype.kind not in "iu" or array.min() < limits.min or array.max() > limits.max:
        raise RequestError(f"values are whole numbers from {limits.min} to {limits.max} ({side['dtype']})")
    return array.astype(side["dtype"]).reshape(wanted)


def _flat(given: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested rows, four axes at most, and what they hold in one list.

    Raises:
        RequestError: rows of different lengths.
    """
    shape: list[int] = []
    level, rows = [given], {list, tuple, np.ndarray}
    while len(shape) < 4 and (kinds := set(map(type, level))) & rows:
        if (
            not kinds <= rows
            or (np.ndarray in kinds and not all(one.ndim for one in level if isinstance(one, np.ndarray)))
            or len(set(map(len, level))) > 1
        ):
            raise RequestError("rows or pixels of different lengths")
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def _decode_file(data: bytes, size: tuple[int, int], side: dict[str, Any]) -> np.ndarray:
    if side["colour"].startswith("lab"):
        raise RequestError(f"the network takes {side['colour']} of {side['dtype']}: send arrays, not image files")
    if len(data) > MAX_BYTES:
        raise RequestError(f"an image file of {len(data)} bytes; {MAX_BYTES} are allowed")
    try:
        # The size is in the header: nothing large is decoded.
        height, width = image_reader.size(data)
        if (height, width) != tuple(size):
            raise RequestError(
                f"an image of {width} x {height} pixels, the network takes {size[1]} x {size[0]} "
                f"(width x height): resize or crop it first"
            )
        limit = image_reader.Limit(height * width * MAX_CHANNELS // 4, "send fewer channels")
        bits = np.dtype(side["dtype"]).itemsize * 8
        decoded = image_reader.decode(data, limit)
        return image_reader.convert(decoded, colour=side["colour"], channels=side["channels"], bit_depth=bits)
    except MemoryError:
        raise RequestError("too little memory for it now") from None
    except image_reader.ImageError as error:
        raise RequestError(str(error)) from None


def to_png(array: np.ndarray, side: dict[str, Any]) -> str:
    """Return stored integers, (height, width, channels), as the base64 text of a PNG.

    Raises:
        RequestError: the integers are not those of a picture.
    """
    from PIL import Image

    if side["colour"] not in _PICTURES or array.dtype != np.uint8:
        raise RequestError(f"the network gives {side['colour']} of {side['dtype']}: ask for output array, not png")
    text = io.BytesIO()
    Image.fromarray(array if array.shape[2] == 3 else array[..., 0]).save(text, "PNG")
    return base64.b64encode(text.getvalue()).decode("ascii")


class TranslatorModel(PythonModel):
    """An ONNX translator; the artifact ``export`` is a folder with ``model.onnx`` and ``export.json``."""

    def load_context(self, context) -> None:
        """Open the model and read what its numbers mean."""
        folder = Path(context.artifacts["export"])
        record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.open(folder / "model.onnx", record, record["translator"])

    def open(self, model: Path, record: dict[str, Any], translator: str, digest: str | None = None) -> None:
        """Open an ONNX file.

        Args:
            model: the file.
            record: ``crop_size``, ``source`` and ``target`` of the export's record.
            translator: which way it translates.
            digest: the sha256 that the file must have, where it lies beside others' files.

        Raises:
            ModelError: the file is not what the record says, see :mod:`repix.inference.onnx_file`.
        """
        self.size = tuple(record["crop_size"])
        source, _, target = translator.partition("_to_")  # repix need not be installed where this runs
        self.source, self.target = record[source], record[target]
        channels = (self.source["channels"], self.target["channels"])
        self.network = onnx_file.Network(model, self.size, channels, digest=digest)

    def translate(self, image: np.ndarray) -> np.ndarray:
        """Return the translation of one image, stored integers both ways, (height, width, channels).

        Raises:
            ModelError: the file cannot be computed, or gives NaN.
        """
        low, high = (np.asarray(self.source[key], np.float32) for key in ("low", "high"))
        unit = (image.astype(np.float32) - low) * (np.float32(2) / (high - low)) - 1
        found = self.network(unit)
        low, high = (np.asarray(self.target[key], np.float32) for key in ("low", "high"))
        stored = (found + 1) * ((high - low) / np.float32(2)) + low
        return np.round(np.clip(stored, low, high)).astype(self.target["dtype"])

    def predict(self, context, model_input: pandas.DataFrame, params: dict[str, Any] | None = None):
        """Return a table with a ``translation`` per row; see the module's text.

        Args:
            context: MLflow's; not used.
            model_input: a table with the column ``image``.
            params: ``output``: ``png`` or ``array``.
        """
        try:
            output = (params or {}).get("output", "png")
            if output not in ("png", "array"):
                raise RequestError(f"output is {output!r}; it is png or array")
            if len(model_input) > MAX_IMAGES:
                raise RequestError(f"{len(model_input)} images; one request may have {MAX_IMAGES}")
            images = []
            for row, given in enumerate(model_input["image"]):
                try:
                    images.append(decode(given, self.size, self.source))
                except RequestError as error:
                    raise RequestError(f"image {row}: {error}") from None
            found = [self.translate(image) for image in images]
            told = [to_png(each, self.target) if output == "png" else each.tolist() for each in found]
        except (RequestError, ModelError) as error:
            text = str(error) if isinstance(error, RequestError) else f"model.onnx: {error}"
            raise MlflowException(text, error_code=INVALID_PARAMETER_VALUE) from None
        return pandas.DataFrame({"translation": told})


set_model(TranslatorModel())
