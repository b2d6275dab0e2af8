"""A trained or exported model by its folder, and the runtime that computes it.

This module imports nothing heavy before a model is loaded, so that a command can enter its profile first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from repix.directions import Direction
from repix.errors import UserError
from repix.files import digest_file
from repix.paths import WIRING
from repix.registry import FORMATS as EXPORTS

if TYPE_CHECKING:
    from repix.inference.sizes import Sizes
    from repix.schemas import Exported, Side, Trained

TRANSLATORS = tuple(direction.value for direction in Direction)
BACKENDS = ("auto", "onnx", "keras")
PIXELS = 500_000_000  # most of one input, unless asked otherwise
FORMATS = {"png": ".png", "jpeg": ".jpg", "jpg": ".jpg", "tiff": ".tif", "npy": ".npy"}
TRAINED, EXPORTED = "trained.json", "export.json"


def find_model(given: str | Path, places: Iterable[Path], root: Path = Path()) -> Path:
    """Return the record of a model: ``trained.json`` or ``export.json``, in the first place that has one.

    A place may also be the folder of a bundle (``repix bundle``), unpacked: what was exported is taken from it.

    Args:
        given: what the user said, for the refusal.
        places: folders to look in.
        root: the repository whose models the refusal lists.

    Raises:
        UserError: there is no trained or exported cell.
    """
    for folder in places:
        for file in (TRAINED, EXPORTED):
            if (folder / file).is_file():
                return folder / file
        bundled = sorted((folder / "files" / "exports").glob(f"*/{EXPORTED}"))
        if len(bundled) == 1:
            return bundled[0]
    if Path(given).is_file():
        raise UserError(f"{given}: is a file; give a folder, of a bundle the one that it is unpacked to (tar xf)")
    have = sorted(path.parent.as_posix() for path in (root / "runs").glob(f"*/{TRAINED}"))
    have += sorted(path.parent.as_posix() for path in (root / "exports").glob(f"*/{EXPORTED}"))
    listed = f"there is {', '.join(have)}" if have else "run `dvc repro` or `dvc pull` first"
    if not have and not (root / WIRING).is_file():
        listed = "name the folder of a model, or go into a project"
    from repix.cells import Cell, is_cell

    if have and is_cell(name := Path(given).name):  # DVC has taken away what the grid does not name
        cell = Cell.named(name)
        listed += (
            f"; to have it back: dvc exp run -S 'run.datasets=[{cell.dataset}]' -S 'run.models=[{cell.model}]' "
            f"-S 'run.seeds=[{cell.seed}]'"
        )
    raise UserError(f"{given}: no {TRAINED} (runs/<cell>) and no {EXPORTED} (exports/<cell>) in it; {listed}")


def read_record(path: Path) -> Trained | Exported:
    """Return the record that :func:`find_model` found.

    Raises:
        UserError: it cannot be read.
    """
    from repix.schemas import Exported, Trained

    return (Trained if path.name == TRAINED else Exported).read(path)


def source_half(record: Trained | Exported, translator: str) -> str:
    """Return which half of an A|B image the translator takes."""
    halves = ("left", "right") if record.direction == "AtoB" else ("right", "left")
    return Direction(translator).sides(*halves)[0]


def choose_suffix(asked: str | None, target: Side) -> str:
    """Return the suffix of the outputs.

    Raises:
        UserError: there is no such format, or it cannot hold what the model makes.
    """
    lab = target.colour.startswith("lab")
    channels, bits = (3, 8) if lab else (target.channels, 16 if target.dtype == "uint16" else 8)
    if asked is not None and asked not in FORMATS:
        raise UserError(f"format {asked}: is not one of {', '.join(sorted(FORMATS))}")
    if asked in ("jpeg", "jpg") and (bits != 8 or channels not in (1, 3)):
        raise UserError(f"format {asked}: holds 1 or 3 channels of 8 bits, the model makes {channels} of {bits}")
    if asked == "png" and channels > 4:
        raise UserError(f"format png: holds up to 4 channels, the model makes {channels}; use tiff or npy")
    return FORMATS[asked] if asked else ".png" if channels in (1, 3) else ".tif"


def load(
    folder: Path,
    record: Trained | Exported,
    translator: str,
    variant: str | None = None,
    *,
    paper: bool = False,
    backend: str = "auto",
) -> Sizes:
    """Return a model's translator, its weights checked.

    Args:
        folder: where the record lies.
        record: what :func:`read_record` gave.
        translator: a :class:`~repix.directions.Direction`.
        variant: which weights; None takes those that are shown.
        paper: whether dropout stays on.
        backend: ``onnx`` computes ``model.onnx`` of an export with onnxruntime, without TensorFlow, ``keras``
            everything with Keras. ``auto`` takes ONNX where the export has it, and Keras for what ONNX does
            not compute: dropout, runs/, and images that go through the network in another size than the trained.

    Raises:
        UserError: the model has no such translator, variant or file, the file was changed, or the backend
            does not compute it.
    """
    from repix.schemas import Trained

    trained = isinstance(record, Trained)
    names = sorted(record.translators if trained else record.digests)
    if backend not in BACKENDS:
        raise UserError(f"backend {backend}: is not one of {', '.join(BACKENDS)}")
    if translator not in names:
        raise UserError(f"{folder}: has no translator {translator}; it has {', '.join(names)}")
    if backend == "onnx" and (paper or trained):
        why = "dropout is off in ONNX; use" if paper else "it holds weights, and no ONNX; use exports/ of the cell, or"
        raise UserError(f"{folder}: {why} the backend keras")
    sides = Direction(translator).sides(record.source, record.target)
    if trained:
        return _load_trained(folder, record, translator, variant, paper)
    if variant not in (None, record.variant):
        raise UserError(f"{folder}: was exported from the {record.variant} weights; use runs/{record.cell}")

    def has(kind: str) -> bool:
        return kind in record.digests[translator] and os.path.lexists(folder / translator / EXPORTS[kind].file)

    def file(kind: str) -> tuple[Path, str]:
        path = folder / translator / EXPORTS[kind].file
        if not has(kind):
            raise UserError(f"{path}: no such file; export with export.formats: [{kind}], or use runs/{record.cell}")
        return path, record.digests[translator][kind]

    def keras() -> Sizes:
        path, digest = file("keras")
        if not path.is_file() or digest_file(path) != digest:
            raise UserError(f"{path}: not the file of export.json; run `dvc checkout` or `dvc repro`")
        compile_function = _keras_backend()
        from repix.inference.any_size import AnySize
        from repix.inference.keras_file import load_network

        network = load_network(path)
        shapes = (network.input_shape, network.output_shape)
        named = tuple((None, *record.crop_size, side.channels) for side in sides)
        if shapes != named:
            raise UserError(
                f"{path}: takes and gives {shapes}, its record says {named}; run `dvc checkout` or `dvc repro`"
            )
        return AnySize(network, *sides, compile_function, paper=paper)

    if backend == "keras" or (backend == "auto" and (paper or not has("onnx"))):
        return keras()

    def other() -> Sizes:
        from repix.inference.sizes import SizeError

        if backend == "onnx" or not has("keras"):
            height, width = record.crop_size
            instead = "the backend keras" if has("keras") else f"runs/{record.cell}"
            raise SizeError(f"not of {height} x {width} px, all that model.onnx takes: tile, resize, or use {instead}")
        return keras()

    from repix.inference.onnx_runtime import OnnxSizes

    return OnnxSizes(*file("onnx"), *sides, record.crop_size, other)


def _load_trained(folder: Path, record: Trained, translator: str, variant: str | None, paper: bool) -> Sizes:
    """Return a translator of runs/<cell>, on Keras."""
    compile_function = _keras_backend()
    from repix.inference.any_size import AnySize
    from repix.inference.trained import TrainedModel

    model = TrainedModel(folder)
    model.load(variant or record.shown)
    network = model.system.networks[record.translators[translator]]
    sides = Direction(translator).sides(record.source, record.target)
    return AnySize(network, *sides, compile_function, paper=paper)


def _keras_backend():
    """Import Keras without its chatter, and return its backend's compiler of functions.

    Raises:
        UserError: TensorFlow was used before, in another way than the profile in force asks for.
    """
    from repix.libraries import import_keras

    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import_keras()
    from repix.inference.backend import backend_module

    try:
        return backend_module().compile_function
    except RuntimeError as error:
        raise UserError(f"{error}; load the model before TensorFlow is used, or an export with ONNX") from None
