"""All formats of a cell, each loaded back and held against the trained network."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from repix.config.archive import Archive
from repix.config.export import Export, Tolerance
from repix.data.image_writer import write as write_image
from repix.data.prepared import Prepared
from repix.directions import Direction
from repix.errors import UserError
from repix.evaluation import pictures
from repix.exporting import cards
from repix.exporting.spec import ExportSpec
from repix.files import atomic_folder, digest_tree, write_json, write_text
from repix.inference.trained import TrainedModel
from repix.models.scaling import to_network_range
from repix.registry import FORMATS
from repix.schemas import Exported, Metrics, Trained

USUAL_PIXELS = 64 * 64  # up to which the tolerances of the table of formats hold
VISIBLE = 0.1  # of a stored step: no tolerance is widened beyond it
UNSETTLED = {"onnx": 0.25, "litert": 1.0}  # the same for ResNets: after an epoch they differed by 0.11 and 0.80
TIMED = 5  # calls of one image that a latency is the median of


@dataclass(frozen=True)
class Measured:
    """What was seen of one file; it differs between machines and is in no out.

    Attributes:
        max_error, mean_error: absolute difference to the trained network on [-1, 1].
        ms_per_image: median time of one image in the file's own runtime, milliseconds.
        images: compared images.
    """

    max_error: float
    mean_error: float
    ms_per_image: float
    images: int

    def values(self) -> dict[str, float]:
        """Return the fields by name, as numbers."""
        return {name: float(value) for name, value in asdict(self).items()}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def compare(function: Callable[[np.ndarray], np.ndarray], unit: np.ndarray, expected: np.ndarray) -> Measured:
    """Return how far a file's function is from the network, and how long one image takes it.

    Args:
        function: what a format's ``load`` gave.
        unit: images, (n, height, width, channels) in [-1, 1].
        expected: the network's translations of them.
    """
    found = function(unit)
    if found.shape != expected.shape:
        raise RuntimeError(f"the file gives {found.shape}, the network {expected.shape}")
    error = np.abs(found - expected)
    times = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        function(unit[:1])
        times.append(time.perf_counter() - begun)
    return Measured(float(error.max()), float(error.mean()), statistics.median(times) * 1000, len(unit))


def _step(record: Trained) -> float:
    """Return a step of the stored numbers on [-1, 1]: that of the side with the most of them."""
    sides = (record.source, record.target)
    return 2 / max(high - low for side in sides for low, high in zip(side.low, side.high, strict=True))


def allowed(settings: Export, record: Trained, kind: str) -> Tolerance:
    """Return how far a format may be from the network of a cell.

    What the settings say holds. Where they say nothing, the table of formats does for U-Nets of small images. Large
    images get more room, in proportion to their pixels, and ResNets as much as there is: norms over flat areas divide
    by little, so that the last bit of a sum grows. Measured on drawn shapes: LiteRT of a U-Net of 192 x 320 px 1.6e-4
    at most and 3.6e-6 on average, of a ResNet of 64 x 64 px 9.7e-5 and 6.3e-6, and 6.3e-3 after nine steps.
    """
    if kind in settings.tolerance:
        return settings.tolerance[kind]
    usual = FORMATS[kind]
    height, width = record.crop_size
    resnet = record.recipe["generator"]["kind"] == "resnet"
    most = (UNSETTLED.get(kind, VISIBLE) if resnet else VISIBLE) * _step(record) / usual.max_error
    room = most if resnet else min(height * width / USUAL_PIXELS, most)
    return Tolerance(max=usual.max_error * max(1.0, room), mean=usual.mean_error * max(1.0, room))


def _comparable(unit: np.ndarray) -> np.ndarray:
    """Return which images (n, height, width, channels) can be compared: not those of one colour, if there are others.

    A norm divides such an image by nothing, and what a network makes of it follows from the last bits of its sums: two
    programs that compute the same differed by the whole range.
    """
    varied = np.ptp(unit, axis=(1, 2)).max(axis=-1) > 0
    return varied if varied.any() else np.ones_like(varied)


def _differing(failed: Mapping[tuple[str, str], tuple[Measured, Tolerance]], step: float) -> UserError:
    """Return what is wrong with files that do not follow the network, and what helps: all of them at once.

    Args:
        failed: (translator, format) -> what was seen, and what is allowed.
        step: of a stored number, on [-1, 1].
    """
    lines = [
        f"export {kind} of {translator}: differs from the trained network by {seen.max_error:.3g} at most and "
        f"{seen.mean_error:.3g} on average, export.tolerance.{kind} is {bound.max:.3g} and {bound.mean:.3g}"
        for (translator, kind), (seen, bound) in failed.items()
    ]
    if all(seen.max_error <= step for seen, _ in failed.values()):  # NaN is not
        enough: dict[str, Tolerance] = {}
        for (_, kind), (seen, bound) in failed.items():
            was = enough.get(kind, bound)
            enough[kind] = Tolerance(max=max(was.max, 2 * seen.max_error), mean=max(was.mean, 2 * seen.mean_error))
        asked = " ".join(
            f"-S '++export.tolerance.{kind}={{max: {found.max:.2g}, mean: {found.mean:.2g}}}'"
            for kind, found in enough.items()
        )
        lines.append(f"nothing was kept; if so much does no harm (a stored step is {step:.2g}): {asked}")
    else:
        lines.append(
            f"nothing was kept: no tolerance helps where more than a stored step ({step:.2g}) differs; train longer, "
            f"or leave the format out: -S 'export.formats=[...]'"
        )
    return UserError(*lines)


def export(
    model: TrainedModel,
    prepared: Prepared,
    settings: Export,
    out: Path,
    *,
    metrics: Metrics | None = None,
    archive: Archive | None = None,
) -> dict[str, Measured]:
    """Write every translator of a trained cell in every format, checked.

    What is exported is what was scored: dropout off, norms by the statistics of the image.

    Args:
        model: the trained cell.
        prepared: its data set, whose test images the comparison takes.
        settings: formats, weights and tolerances.
        out: ``exports/<cell>/``, with one folder and one picture per translator and ``export.json``.
        metrics, archive: the cell's scores and where its data comes from; where both are given,
            the model card and the data card are written too.

    Returns:
        Errors and latency of each ``<translator>/<format>``. They differ between machines,
        so they stay out of the record.

    Raises:
        UserError: a format does not follow the network within its tolerance, or cannot hold it.
    """
    variant = model.record.shown if settings.variant == "auto" else settings.variant
    model.load(variant)
    record, test = model.record, prepared.split("test")
    bounds = {kind: allowed(settings, record, kind) for kind in settings.formats}
    sizes: dict[str, dict[str, int]] = {}
    digests: dict[str, dict[str, str]] = {}
    measured: dict[str, Measured] = {}
    failed: dict[tuple[str, str], tuple[Measured, Tolerance]] = {}
    with atomic_folder(out) as folder:
        for translator, name in sorted(record.translators.items()):
            sides = Direction(translator).sides
            source, target = sides(record.source, record.target)
            given, wanted = sides(test.source, test.target)
            images = np.asarray(given[: settings.images])
            unit = np.asarray(keras.ops.convert_to_numpy(to_network_range(images, source.low, source.high)))
            network = model.system.networks[name]
            kept = _comparable(unit)
            if not kept.all():
                told = f"{(~kept).sum()} of {len(kept)} test images are of one colour and not compared"
                print(f"repix: export of {translator}: {told}", file=sys.stderr, flush=True)
            unit = unit[kept]
            expected = np.asarray(keras.ops.convert_to_numpy(network(unit, training=False)))
            spec = ExportSpec(source, target, record.crop_size, settings)
            sizes[translator], digests[translator] = {}, {}
            for kind in settings.formats:
                path = folder / translator / FORMATS[kind].file
                path.parent.mkdir(parents=True, exist_ok=True)
                module = importlib.import_module(FORMATS[kind].module)
                module.write(network, path, spec)
                seen = compare(module.load(path), unit, expected)
                bound = bounds[kind]
                # Written so that NaN fails.
                if not (seen.max_error <= bound.max and seen.mean_error <= bound.mean):
                    failed[translator, kind] = seen, bound
                measured[f"{translator}/{kind}"] = seen
                sizes[translator][kind] = size_of(path)
                digests[translator][kind] = digest_tree(path)
            outputs = model.translator(translator).translate(images)
            beside = wanted[: settings.images] if prepared.manifest.paired else None
            rows = pictures.triples(images, outputs, beside, source, target)
            write_image(folder / f"{translator}.png", pictures.grid(rows))
        if failed:
            raise _differing(failed, _step(record))
        exported = Exported(
            cell=record.cell,
            variant=variant,
            crop_size=record.crop_size,
            source=record.source,
            target=record.target,
            weights=record.variants()[variant],
            bytes=sizes,
            digests=digests,
            tolerance={kind: bounds[kind].model_dump() for kind in settings.formats},
            parity="pass",
            direction=model.record.direction,
        )
        exported.write(folder / "export.json")
        if metrics is not None and archive is not None:
            card = cards.model_card(record, metrics, exported, prepared.manifest, archive)
            write_text(folder / cards.MODEL_CARD, card)
            described = cards.data_card(prepared.manifest, record.data_digest, archive, prepared.folder)
            write_json(folder / cards.DATA_CARD, described)
    return measured
