"""What Python sees of repix: a model as a function of images, its scores, and the scores of all cells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, overload

from repix import processes
from repix.errors import UserError, printable
from repix.paths import find_root

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from PIL import Image

    from repix.inference.sizes import Sizes
    from repix.publishing.registry import Registered
    from repix.schemas import Exported, Metrics, Side, Trained

PathLike: TypeAlias = "str | os.PathLike[str]"
VARIANTS = ("last", "best", "ema")
How: TypeAlias = Literal["whole", "tile", "resize"]
__all__ = ["Files", "Model", "UserError", "load", "results", "train"]
COLUMNS = ("cell", "translator", "weights", "metric", "value", "n")


def load(
    model: PathLike,
    *,
    translator: Literal["source_to_target", "target_to_source"] | None = None,
    variant: Literal["last", "best", "ema"] | None = None,
    backend: Literal["auto", "onnx", "keras"] = "auto",
) -> Model:
    """Return a trained or exported model, its files checked against their record.

    Args:
        model: a folder exports/<cell> or runs/<cell>, here, in the repository that the current folder lies in, or of
            a bundle that was unpacked; the name of a cell in runs/ of that repository, or a registered model of it,
            such as ``models:/repix-sample@champion``.
        translator: which way it translates; by default ``source_to_target``, and that of a registered model.
        variant: which weights of runs/<cell>; by default ``ema`` where the recipe kept one, else ``last``.
        backend: ``auto`` computes exports/ with onnxruntime, without TensorFlow, where the image goes through the
            network in the trained size, and all else with Keras; ``onnx`` and ``keras`` stay with one.

    Raises:
        UserError: there is no such model, or its files are not those of its record.
    """
    from repix.translation.model import find_model, read_record
    from repix.translation.model import load as load_network

    root = find_root(Path.cwd())
    if not isinstance(model, str | os.PathLike):
        raise UserError(f"{type(model).__name__}: is no model; give the name of a cell, a folder or models:/...")
    if variant is not None and variant not in VARIANTS:
        raise UserError(f"variant {variant!r}: is none of {', '.join(VARIANTS)}")
    if os.fspath(model).startswith("models:"):
        if backend not in ("auto", "onnx"):
            raise UserError(
                f"{model}: a registered model is ONNX alone; load exports/ of its cell for the backend {backend}"
            )
        return _registered(root, os.fspath(model), translator, variant)
    given = Path(model)
    places = (given, root / given, root / "runs" / given)
    try:
        found = find_model(given, places, root).absolute()  # its files are read later, too
    except OSError as error:  # a name that no file system takes
        said = f"{printable(str(given))[:80]}: {error.strerror}"
        raise UserError(f"{said}; give the name of a cell, a folder or models:/...") from None
    record = read_record(found)
    translator = translator or "source_to_target"
    network = load_network(found.parent, record, translator, variant, backend=backend)
    return Model(found.parent, record, translator, network, variant)


def _registered(root: Path, uri: str, translator: str | None, variant: str | None) -> Model:
    from repix.inference.onnx_runtime import OnnxSizes
    from repix.inference.sizes import SizeError
    from repix.publishing import registry

    found = registry.fetch(root, uri)
    if translator not in (None, found.translator):
        raise UserError(f"{uri}: translates {found.translator}; ask for that, or for exports/{found.cell}")
    if variant not in (None, found.variant):
        raise UserError(
            f"{uri}: holds the {found.variant} weights of {found.cell}; load runs/{found.cell} for {variant}"
        )

    def other():
        height, width = found.crop_size
        raise SizeError(
            f"not of {height} x {width} px, all that a registered model takes: tile, resize, or use exports/"
        )

    network = OnnxSizes(found.folder / "model.onnx", None, found.source, found.target, found.crop_size, other)
    return Model(found.folder, found, found.translator, network, found.variant)


def train(cell: str, root: PathLike | None = None) -> Model:
    """Train a cell of the grid, score and export it, and return the exported model.

    It is ``dvc repro`` of the cell: what is done and unchanged is not done again, and a call that was stopped goes
    on from the last checkpoint. What the stages say goes to the terminal.

    Args:
        cell: ``<dataset>-<model>-<seed>``; data set, model and seed stand under ``run`` in params.yaml.
        root: the repository; by default the one that the current folder lies in.

    Raises:
        UserError: there is no such cell, or a stage failed; what it said stands above.
    """
    from repix.config import reader
    from repix.config.run import Grid

    if root is not None and not isinstance(root, str | os.PathLike):
        raise UserError(f"root: {type(root).__name__} is no folder; give the path of a repository")
    place = Path(root) if root is not None else find_root(Path.cwd())
    cells = [one.name for one in reader.read("run", Grid, place / reader.FILE).cells()]
    if cell not in cells:
        raise UserError(f"{cell}: is not among the cells of run in {place / reader.FILE}: {', '.join(cells)}")
    command = [sys.executable, "-P", "-m", "dvc", "repro", f"evaluate@{cell}", f"export@{cell}"]
    try:
        with processes.unwinding():
            code = processes.run(command, cwd=place, env=processes.environment(), stdin=subprocess.DEVNULL)
    except processes.Terminated as ended:
        signal.raise_signal(ended.number)  # what it started has ended; now as anywhere else in the caller's program
        raise
    if code:
        raise UserError(f"{cell}: `dvc repro` ended with exit code {code}; it said why above")
    return load(place / "exports" / cell)


class Files(NamedTuple):
    """What became of the files of :meth:`Model.translate_files`.

    Attributes:
        written: input -> output.
        failed: input -> why it could not be translated.
    """

    written: dict[Path, Path]
    failed: dict[Path, str]


class Model:
    """A trained generator in one direction, from stored integers to stored integers; :func:`load` makes it.

    Attributes:
        cell: the name of the trained result, ``<dataset>-<model>-<seed>``.
        folder: where its files lie.
        translator: which way it translates.
        size: (height, width) in pixels that it was trained at.
        source, target: what it takes and gives: channels, dtype, value range, colour.
        variant: which weights it has.
    """

    def __init__(
        self,
        folder: Path,
        record: Trained | Exported | Registered,
        translator: str,
        network: Sizes,
        variant: str | None = None,
    ):
        from repix.directions import Direction

        self.folder, self.cell, self.translator, self.size = folder, record.cell, translator, record.crop_size
        sides: tuple[Side, Side] = Direction(translator).sides(record.source, record.target)
        self.source, self.target = sides
        self.variant = variant or (record.variant if hasattr(record, "variant") else record.shown)
        self._record, self._network = record, network

    def __repr__(self) -> str:
        height, width = self.size
        return f"<repix.Model {self.cell}, {self.translator}, {height} x {width} px, of {self.folder}>"

    def read(self, path: PathLike) -> np.ndarray:
        """Return an image file as the array that :meth:`translate` takes, read as training reads it.

        Raises:
            UserError: it cannot be read, or is not what the model takes.
        """
        from repix.translation.model import PIXELS
        from repix.translation.pixels import read_source

        return read_source(Path(path), self.source, None, PIXELS, "repix translate --pixels")

    @overload
    def translate(self, image: np.ndarray, *, how: How | None = None) -> np.ndarray: ...

    @overload
    def translate(self, image: PathLike | Image.Image, *, how: How | None = None) -> Image.Image: ...

    def translate(self, image, *, how=None):
        """Return the translation of one image, at its own height and width.

        Args:
            image: the stored integers, (height, width, channels) of the source's dtype, whose translation is
                such an array, (height, width, channels) of the target; or a PIL image or the path of an image
                file, whose translation is a PIL image. A model of Lab takes and gives a photo in RGB.
            how: what to do with another size than the trained one: ``whole`` mirrors it at its borders to a size
                that the network allows and crops back, ``tile`` blends overlapping tiles, ``resize`` scales it to
                the trained size and the result back. By default ``whole``, and ``tile`` for large ones.

        Raises:
            UserError: the image is not what the model takes, or PIL has no image for what the model makes.
        """
        import numpy as np
        from PIL import Image

        if isinstance(image, np.ndarray):
            return self._translate(self._checked(image), how)
        if isinstance(image, Image.Image):
            from repix.data import image_reader, images
            from repix.translation.pixels import to_source

            if 0 in image.size:
                raise images.BadImageError("PIL image", f"{image.width} x {image.height} px; it needs pixels")
            try:
                decoded = image_reader.from_pillow(image)
            except image_reader.ImageError as error:
                raise images.BadImageError("PIL image", str(error)) from None
            except (OSError, ValueError) as error:  # Pillow's, of a file that was closed or is damaged
                raise images.BadImageError("PIL image", f"{error}; open it again") from None
            pixels = to_source(decoded, "PIL image", self.source)
        elif isinstance(image, str | os.PathLike):
            pixels = self.read(image)
        else:
            raise UserError(f"{type(image).__name__}: is no image; give a NumPy array, a PIL image or a path")
        return self._picture(self._translate(pixels, how))

    def translate_files(
        self,
        inputs: PathLike | Iterable[PathLike],
        out: PathLike,
        *,
        how: How | None = None,
        format: Literal["png", "jpeg", "jpg", "tiff", "npy"] | None = None,
    ) -> Files:
        """Translate image files, and folders with all folders below, into the folder ``out``.

        An output has its input's name and place below ``out``, and is whole or not there. Files are decoded and
        encoded in a few threads while the network computes.

        Args:
            inputs: one or more files and folders.
            out: the folder of the outputs; made where it is not there.
            how: as for :meth:`translate`.
            format: of the outputs; by default png, or tiff for other than 1 or 3 channels.

        Returns:
            Which file became which, and which could not be translated and why.

        Raises:
            UserError: there are no images, or an output would replace an input or cannot be written.
        """
        from repix.translation import jobs
        from repix.translation.model import choose_suffix

        given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
        if not given:
            raise UserError("inputs: no files and no folders; name some")
        suffix = choose_suffix(format, self.target)
        if Path(out).exists() and not Path(out).is_dir():
            raise UserError(f"{out}: is not a folder; choose another one")
        found, _ = jobs.find_jobs(map(Path, given), Path(out), suffix)

        def translate(pixels, job) -> tuple[np.ndarray, str]:
            return self._translate(pixels, how), self._network.choose(pixels.shape[:2], how)

        files = Files({}, {})
        for one in jobs.translate_jobs(found, self.read, translate):
            if isinstance(one, jobs.Failed):
                files.failed[one.job.input] = one.reason
            else:
                files.written[one.job.input] = one.job.output
        return files

    def scores(self) -> pandas.DataFrame:
        """Return the scores of this translator on the test split, as :func:`results` returns those of all.

        They are read from metrics/<cell>.json of the repository or bundle that the model lies in.

        Raises:
            UserError: there are none, or they are those of other weights.
        """
        from repix.schemas import Exported, Metrics, Trained

        if not isinstance(self._record, Exported | Trained):
            raise UserError(f"{self.cell}: a registered model; its scores are tags of its version in MLflow")
        path = self.folder.resolve().parents[1] / "metrics" / f"{self.cell}.json"
        if not path.is_file():
            raise UserError(f"{path}: no such file; scores are where the model was trained, or in its bundle")
        metrics, record = Metrics.read(path), self._record
        if isinstance(record, Exported):
            variant, weights = record.variant, record.weights
        else:
            variant, weights = self.variant, record.variants()[self.variant]
        scored = metrics.weights(variant)
        if scored and scored.items() - weights.items():
            raise UserError(f"{path}: scored other weights than these; run `dvc repro` or `dvc checkout`")
        table = _table([metrics])
        return table[table["translator"] == self.translator].reset_index(drop=True)

    def _translate(self, pixels: np.ndarray, how: str | None) -> np.ndarray:
        from repix.translation.pixels import translate_image

        if how not in (None, "whole", "tile", "resize"):
            raise UserError(f"how: {how!r} is not one of 'whole', 'tile' or 'resize'")
        return translate_image(pixels, self._network, self._network.choose(pixels.shape[:2], how), 0)

    def _checked(self, array: np.ndarray) -> np.ndarray:
        """Return an array as (height, width, channels), if it is one that the model takes."""
        lab = self.source.colour.startswith("lab")
        channels, kinds = (3, ("uint8", "uint16")) if lab else (self.source.channels, (self.source.dtype,))
        pixels = array[..., None] if array.ndim == 2 else array
        if pixels.ndim != 3 or 0 in pixels.shape or pixels.shape[2] != channels or pixels.dtype.name not in kinds:
            wanted = f"(height, width, {channels}) of {' or '.join(kinds)}"
            raise UserError(f"an array of shape {array.shape} of {array.dtype}; {self.cell} takes {wanted}")
        return pixels

    def _picture(self, array: np.ndarray) -> Image.Image:
        from PIL import Image

        channels, kind = array.shape[2], array.dtype.name
        if (channels, kind) not in ((1, "uint8"), (3, "uint8"), (1, "uint16")):
            instead = "translate(model.read(path)) gives the array"
            raise UserError(f"{self.cell}: PIL has no image of {channels} channels of {kind}; {instead}")
        return Image.fromarray(array[..., 0] if channels == 1 else array)


def records(cells: Iterable[str], folder: Path = Path("metrics")) -> list[Metrics]:
    """Return the metrics records of cells, all of them by default.

    Raises:
        UserError: there is none, or not one of that name.
    """
    from repix.schemas import Metrics

    there = {path.stem: path for path in sorted(folder.glob("*-*-*.json")) if path.is_file()}
    if not there:
        raise UserError(f"no metrics in {folder}/; run `dvc repro` first")
    wanted = list(cells) or list(there)
    if unknown := [cell for cell in wanted if cell not in there]:
        raise UserError(f"{unknown[0]}: no such cell in {folder}/; there is {', '.join(there)}")
    return [Metrics.read(there[cell]) for cell in wanted]


def rows(found: Iterable[Metrics]) -> Iterator[tuple[str, str, str, str, float, int]]:
    """Yield a row of :data:`COLUMNS` for each score of records."""
    from repix.schemas import flat

    for metrics in found:
        for (translator, variant, metric), value in flat(metrics.scores).items():
            if value is not None:
                yield metrics.cell, translator, variant, metric, value, metrics.images(translator)


def _table(found: Iterable[Metrics]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows(found)), columns=list(COLUMNS))


def results(root: PathLike | None = None) -> pandas.DataFrame:
    """Return the scores of all cells: cell, translator, weights, metric, value, and n, the number of test images.

    Args:
        root: the repository; by default the one that the current folder lies in.

    Raises:
        UserError: there are none.
    """
    return _table(records([], (Path(root) if root is not None else find_root(Path.cwd())) / "metrics"))
