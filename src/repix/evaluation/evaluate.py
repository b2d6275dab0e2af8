"""Translate the test split with a trained cell, and score it: translations, scores with their protocol, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from repix import profile
from repix.arrays import scratch
from repix.config.evaluation import Evaluate
from repix.data.image_writer import write as write_image
from repix.data.prepared import Prepared
from repix.data.rows import Rows
from repix.directions import Direction
from repix.errors import UserError
from repix.evaluation import gallery, pictures
from repix.evaluation.features import FeatureNetwork
from repix.evaluation.metrics import classcolour
from repix.evaluation.score import score_paired_and_distribution
from repix.files import atomic_folder
from repix.inference.trained import TrainedModel
from repix.metrics import METRICS
from repix.schemas import Metrics, Side

SHOWN = 8  # rows of the picture grid


@dataclass(frozen=True)
class View:
    """The test split in the direction of one translator.

    Attributes:
        sources, targets: (n, height, width, channels) stored integers; without pairs the
            targets are other images, as many as there are.
        source, target: what the numbers mean.
        names, target_names: of the images, unique on their side.
        halves: which half of the split is the source, and which the target.
        paired: whether row i of both belong together.
        train: the training images on the side of the targets, as they are stored.
    """

    sources: np.ndarray | Rows
    targets: np.ndarray | Rows
    source: Side
    target: Side
    names: tuple[str, ...]
    target_names: tuple[str, ...]
    halves: tuple[str, str]
    paired: bool
    train: np.ndarray | Rows

    @classmethod
    def of(cls, prepared: Prepared, translator: str) -> View:
        """Return the test split in the direction of a translator."""
        split, manifest = prepared.split("test"), prepared.manifest
        sides = Direction(translator).sides
        train = prepared.split("train")
        return cls(
            *sides(split.source, split.target),
            *sides(manifest.source, manifest.target),
            *sides(split.names, split.target_names),
            halves=sides("source", "target"),
            paired=manifest.paired,
            train=sides(train.source, train.target)[1],
        )

    @cached_property
    def reference(self) -> np.ndarray:
        """The targets as one array: several files are put together in a temporary one."""
        if not isinstance(self.targets, Rows):
            return np.asarray(self.targets)
        whole = scratch(self.targets.shape, self.targets.dtype)
        for row, image in enumerate(self.targets):
            whole[row] = image
        return whole

    def photos(self, array: np.ndarray) -> np.ndarray:
        """Return Lab outputs or targets as RGB photos; the channels that they lack are those of their source."""
        return np.stack(
            [pictures.stored(image, self.target, other) for image, other in zip(array, self.sources, strict=True)]
        )


def _profile_of(model: TrainedModel) -> str:
    """Return the execution profile that scores are of: that of the training, if evaluation is under what follows it."""
    trained, now = model.record.profile["name"], profile.current().name
    with suppress(UserError):  # a name of another version's
        return trained if profile.find(trained).after_training() == now else now
    return now


def evaluate(
    model: TrainedModel,
    prepared: Prepared,
    settings: Evaluate,
    out: Path,
    *,
    features: FeatureNetwork | None = None,
    networks: Mapping[str, Any] = MappingProxyType({}),
    cache: Path | None = None,
) -> Metrics:
    """Translate the test split with every variant of every translator, and score it.

    What is scored is the function that is exported: dropout off, statistics of the image
    itself; with ``settings.paper_mode`` the paper's mode stands beside it.

    Args:
        model: the trained cell.
        prepared: its data set.
        settings: which metrics.
        out: folder for, per translator, ``<translator>/<image>.png`` (the translation of the
            last weights, or of their average where one was kept; every channel and bit of it,
            ``.tif`` for other than 1 or 3 channels), ``<translator>.csv`` (scores per image; those
            of other variants under ``<variant>_<metric>``) and ``<translator>.png`` (source | output | target of the
            first images); and ``index.html``, the gallery of all of them.
        features: the network of the metrics on features, where asked for.
        networks: those of the metrics that have one of their own, by the metric's name.
        cache: folder of the feature cache.

    Returns:
        The record for ``metrics/<cell>.json``; its ``n`` is the number of source images, that
        of each translator stands in ``protocol.images``.

    Raises:
        UserError: the data set has no test split, or is not what the model was trained on.
    """
    manifest = prepared.manifest
    if "test" not in manifest.splits:
        raise UserError(f"data set {model.record.dataset!r} has no test split to evaluate on")
    kinds = [(record.crop_size, record.source, record.target) for record in (manifest, model.record)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{prepared.folder}: has other sizes, channels or values than {model.folder} was trained on")
    if settings.classcolour and manifest.paired:
        channels = (manifest.source if settings.labels == "source" else manifest.target).channels
        if any(len(colour) != channels for colour in settings.label_colours or ()):
            raise UserError(
                f"params.yaml: evaluate.label_colours: the {settings.labels} images have {channels} channels: "
                f"give each colour as many numbers"
            )
        if not settings.label_colours and channels > classcolour.MOST_CHANNELS:
            raise UserError(
                f"params.yaml: evaluate.classcolour: a label map of {channels} channels has too many colours to tell "
                f"apart: give evaluate.label_colours, or switch it off"
            )
    scores: dict[str, dict[str, Any]] = {}
    protocol: dict[str, Any] = {
        "split": "test",
        "profile": _profile_of(model),
        "images": {},
        "reference": {},
        "description": {},
    }
    definitions: dict[str, dict[str, Any]] = {}
    sections = []
    with atomic_folder(out) as folder:
        for translator, network in sorted(model.record.translators.items()):
            view = View.of(prepared, translator)
            scores[translator] = {"last": None, "best": None}
            protocol["description"][translator] = {}
            table: dict[str, np.ndarray] = {}
            done: dict[tuple[str, bool], tuple] = {}
            floors: dict[str, dict[str, Any]] = {}
            pictured = model.record.variants()[model.record.shown][network], False
            for variant in model.variants:
                digests = model.record.variants()[variant]
                for paper in (False, True) if settings.paper_mode else (False,):
                    label = f"{variant}_paper" if paper else variant
                    # The best weights are often the last ones: the same function is scored once.
                    key = digests[network], paper
                    if key not in done:
                        model.load(variant)
                        outputs = _translate(model, translator, view, paper, label)
                        done[key] = _score(outputs, view, settings, features, networks, floors, cache)
                        if key == pictured:
                            shown = outputs
                    result, definition, per_image = done[key]
                    scores[translator][label] = dict(result)
                    protocol["description"][translator][label] = {
                        metric: entry["description"]
                        for metric, entry in sorted(definition.items())
                        if "description" in entry
                    }
                    for part in ("images", "reference"):
                        protocol[part][translator] = definition[part]
                    definitions[translator] = definition
                    if label == model.record.shown:
                        table = per_image | table
                    else:
                        table |= {f"{label}_{name}": values for name, values in per_image.items()}
            sections.append(_write(folder, translator, view, shown, table))
        gallery.write(folder, model.record.cell, sections)
    protocol |= _protocol(definitions)
    if "best" not in model.variants:
        protocol["best"] = {"reason": "the data set has no val split to choose by"}
    used = sorted(set(model.record.translators.values()))
    return Metrics(
        cell=model.record.cell,
        weights_digest={network: model.record.networks[network] for network in used}
        | {f"ema/{network}": model.record.variants()["ema"][network] for network in used if "ema" in model.variants},
        n=manifest.splits["test"].source.n,
        scores=scores,
        protocol=protocol,
    )


def _translate(model: TrainedModel, translator: str, view: View, paper: bool, label: str) -> np.ndarray:
    """Return the translations of all images, (n, height, width, channels)."""
    translate = model.translator(translator, paper=paper)
    bar = tqdm(view.sources, desc=f"{translator} {label}", unit="image", disable=None)
    outputs = scratch((len(view.sources), *view.sources.shape[1:3], view.target.channels), np.dtype(view.target.dtype))
    for place, output in enumerate(translate(bar)):
        outputs[place] = output
    return outputs


def _score(
    outputs,
    view: View,
    settings: Evaluate,
    features: FeatureNetwork | None,
    networks: Mapping[str, Any],
    floors: dict[str, dict[str, Any]],
    cache: Path | None,
) -> tuple:
    """Return scores, their protocol, and scores per image."""
    photos = None
    if (features is not None or networks) and view.target.colour.startswith("lab"):
        photos = view.photos(outputs), view.photos(view.targets)
    return score_paired_and_distribution(
        outputs,
        view.reference if view.paired else None,
        view.target,
        reference=view.reference,
        reference_names=view.target_names,
        evaluate=settings,
        features=features,
        pictures=photos,
        cache=cache,
        train=view.train,
        labels=(view.sources, view.source) if view.halves[0] == settings.labels else (view.targets, view.target),
        networks=networks,
        floors=floors,
    )


def _protocol(definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one entry per metric for all translators; where their reasons differ, each names its translator."""
    merged: dict[str, Any] = {}
    for metric in sorted({name for definition in definitions.values() for name in definition}):
        if metric in ("images", "reference"):
            continue
        entries = {translator: given[metric] for translator, given in sorted(definitions.items()) if metric in given}
        reasons = {translator: entry["reason"] for translator, entry in entries.items() if "reason" in entry}
        merged[metric] = {}
        for entry in entries.values():
            merged[metric] |= {key: value for key, value in entry.items() if key not in ("reason", "description")}
        if reasons:
            common = len(reasons) == len(definitions) and len(set(reasons.values())) == 1
            merged[metric]["reason"] = (
                next(iter(reasons.values())) if common else "; ".join(f"{t}: {reason}" for t, reason in reasons.items())
            )
    return merged


def _write(folder: Path, translator: str, view: View, outputs, table: Mapping[str, np.ndarray]) -> gallery.Section:
    """Write one translator's files; return its part of the gallery."""
    import pandas as pd

    beside = view.targets if view.paired else None
    # Pictures of the worst, the best and those between would flatter nobody: the first ones.
    rows = pictures.triples(
        view.sources[:SHOWN], outputs[:SHOWN], None if beside is None else beside[:SHOWN], view.source, view.target
    )
    write_image(folder / f"{translator}.png", pictures.grid(rows, columns=2))
    pd.DataFrame({"image": view.names, **table}).to_csv(folder / f"{translator}.csv", index=False, lineterminator="\n")

    (folder / translator).mkdir()
    suffix = pictures.suffix(view.target)
    files = [f"{translator}/{name}{suffix}" for name in view.names]
    for file, output, other in zip(files, outputs, view.sources, strict=True):
        write_image(folder / file, pictures.stored(output, view.target, other))

    columns = {}
    sides = (view.sources, view.source, view.targets), (view.targets, view.target, view.sources)
    for column, (array, side, others), half in zip(("source", "target"), sides, view.halves, strict=True):
        if column == "target" and not view.paired:
            continue
        names = view.names  # in a paired set both halves have the names of the sources
        known = [f"{gallery.FOLDER}/{half}/{name}.png" for name in names]
        if not all((folder / path).is_file() for path in known):  # the way back has the same two halves
            shown = (pictures.shown(image, side, others[i] if view.paired else None) for i, image in enumerate(array))
            gallery.thumbnails(folder, half, names, shown)
        columns[column] = known
    previews = files
    if suffix != ".png":  # what no browser shows
        shown = (pictures.shown(output, view.target) for output in outputs)
        previews = gallery.thumbnails(folder, translator, view.names, shown)
    ordered = {"source": columns["source"], "output": previews} | columns
    scores = {metric.name: table[metric.name] for metric in reversed(METRICS) if metric.name in table}
    return gallery.Section(translator, view.names, files, ordered, scores)
