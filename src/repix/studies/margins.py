"""Compare trained cells with trivial predictors, in standard deviations over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from repix.cells import Cell
from repix.config import reader
from repix.config.augment import Augment
from repix.config.evaluation import Evaluate
from repix.config.models import Recipe
from repix.data.prepared import Prepared
from repix.directions import Direction
from repix.errors import UserError
from repix.evaluation import baselines as predictors
from repix.evaluation.score import score_paired_and_distribution
from repix.metrics import direction
from repix.paths import PREPARED
from repix.regression.baseline import Entry, differences
from repix.regression.tolerance import mean_and_sd
from repix.tables import aligned

METRICS = ("ssim", "swd", "l1")
REQUIRED = 3.0  # standard deviations over seeds that a trained cell has to be better by
# Not required: what L1 says of blur, and real photos on a distribution metric.
_SHOWN_ALONE = {("nearest neighbour", "swd")}


@dataclass(frozen=True)
class Margin:
    """How far trained cells stand clear of one baseline on one metric.

    Attributes:
        score: the baseline's.
        margin: how far the mean of the trained cells is on the better side, in the metric's unit.
        sds: the same in standard deviations over seeds; None with fewer than two seeds.
        required: whether it is to be 3 or more.
    """

    predictor: str
    metric: str
    score: float
    margin: float
    sds: float | None
    required: bool

    @property
    def short(self) -> bool:
        """Whether a required margin is below 3 standard deviations, or unknown."""
        return self.required and (self.sds is None or self.sds < REQUIRED)


@dataclass(frozen=True)
class Comparison:
    """One model's trained cells against every baseline; ``trained`` is metric -> (mean, sd or None)."""

    dataset: str
    model: str
    cells: tuple[str, ...]
    trained: dict[str, tuple[float, float | None]]
    margins: tuple[Margin, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "cells": list(self.cells),
            "trained": {metric: {"mean": mean, "sd": sd} for metric, (mean, sd) in self.trained.items()},
            "margins": [asdict(margin) | {"short": margin.short} for margin in self.margins],
        }

    def text(self) -> str:
        """Return an aligned table: a row per predictor, score and margin per metric, and what falls short."""
        metrics = list(self.trained)
        rows = [[self.dataset, *(part for metric in metrics for part in (metric, "margin / sd"))]]
        for name in dict.fromkeys(margin.predictor for margin in self.margins):
            row = [name]
            for metric in metrics:
                margin = next(m for m in self.margins if (m.predictor, m.metric) == (name, metric))
                row += [f"{margin.score:.4f}", "?" if margin.sds is None else f"{margin.sds:+.1f}"]
            rows.append(row)
        trained = [f"{self.model}, {len(self.cells)} seed{'s' if len(self.cells) > 1 else ''}"]
        for mean, sd in self.trained.values():
            trained += [f"{mean:.4f}", "sd ?" if sd is None else f"sd {sd:.4f}"]
        rows.append(trained)
        lines = aligned(rows, right=range(1, len(rows[0])))
        if len(self.cells) < 2:
            lines.append(f"one seed has no standard deviation: repix seeds {self.dataset} {self.model} --write")
        else:
            for margin in self.margins:
                if margin.short:
                    far = "any number of" if margin.sds is None else f"{margin.sds:+.1f}"
                    since = ", since all seeds score the same" if margin.sds is None else ""
                    lines.append(
                        f"BELOW {REQUIRED:g}: {margin.metric} is {far} standard deviations from "
                        f"{margin.predictor}{since}"
                    )
            if not any(margin.short for margin in self.margins):
                lines.append(f"every required margin is {REQUIRED:g} standard deviations or more")
        return "\n".join(lines)


def compare(dataset: str, model: str, cells: Mapping[str, Entry]) -> Comparison:
    """Score the baselines on the prepared test split, and compare the trained cells with them.

    Args:
        dataset, model: names in params.yaml.
        cells: cell -> scores of that model on that data set; the untrained generator has the first one's seed.

    Raises:
        UserError: unpaired data, or cells that were scored on other images or otherwise.
    """
    prepared = Prepared.open(PREPARED / dataset)
    if not prepared.manifest.paired or "test" not in prepared.manifest.splits:
        raise UserError(f"{dataset}: baselines take pairs and a test split")
    seed = Cell.named(next(iter(cells))).seed
    recipe = reader.read(f"models.{model}", Recipe)
    flip = reader.read(f"datasets.{dataset}.augment", Augment).flip
    scores: dict[str, dict[str, float | None]] = {}
    protocol: dict[str, Any] = {}
    outputs = predictions(prepared) | {
        "untrained generator": untrained(Cell(dataset, model, seed), recipe, prepared, flip)
    }
    targets = np.asarray(prepared.split("test").target)
    for name, images in outputs.items():
        scores[name], protocol, _ = score_paired_and_distribution(
            images, targets, prepared.manifest.target, evaluate=Evaluate(swd=True), describe=False
        )
    for cell, entry in cells.items():
        check(cell, entry, protocol)
    return margins(dataset, model, cells, scores)


def check(cell: str, entry: Entry, protocol: Mapping[str, Any]) -> None:
    """Refuse a cell that was scored on other images, or by other definitions, than the baselines.

    Raises:
        UserError: naming the first difference.
    """
    theirs = {metric: entry.protocol.get(metric) for metric in METRICS} | {
        part: entry.protocol.get(part, {}).get(Direction.SOURCE_TO_TARGET) for part in ("images", "reference")
    }
    # Beside the definitions, scoring leaves descriptions, which `evaluate` keeps apart.
    ours = {key: {k: v for k, v in protocol.get(key, {}).items() if k != "description"} for key in theirs}
    other = differences(theirs, ours)
    if other:
        mend = "run `dvc repro`, or repeat the seed study"
        raise UserError(f"{cell} was not scored as the baselines are: {other[0]}; {mend}")


def margins(
    dataset: str, model: str, cells: Mapping[str, Entry], baselines: Mapping[str, Mapping[str, float | None]]
) -> Comparison:
    """Return how far trained cells stand clear of baselines.

    Args:
        cells: cell -> scores; what counts are the last weights of ``source_to_target``.
        baselines: predictor -> metric -> score.
    """
    trained: dict[str, tuple[float, float | None]] = {}
    found: list[Margin] = []
    for metric in METRICS:
        values = [(entry.scores[Direction.SOURCE_TO_TARGET]["last"] or {}).get(metric) for entry in cells.values()]
        if any(value is None for value in values) or any(given.get(metric) is None for given in baselines.values()):
            continue  # images too small for it, or not asked for
        mean, sd = mean_and_sd(values) if len(values) > 1 else (values[0], None)
        trained[metric] = mean, sd
        for predictor, scores in baselines.items():
            margin = (mean - scores[metric]) * direction(metric)
            required = metric != "l1" and (predictor, metric) not in _SHOWN_ALONE
            sds = None if not sd else margin / sd
            found.append(Margin(predictor, metric, scores[metric], margin, sds, required))
    if not trained:
        raise UserError(f"{dataset}: the cells of {model} have none of {', '.join(METRICS)}")
    return Comparison(dataset, model, tuple(cells), trained, tuple(found))


def untrained(cell: Cell, recipe: Recipe, prepared: Prepared, flip: bool) -> np.ndarray:
    """Return the translations of the test split by the model's first weights."""
    from repix.training.setup import set_up

    setup = set_up(cell, recipe, prepared, flip=flip)
    return setup.translators[Direction.SOURCE_TO_TARGET].translate(prepared.split("test").source)


def predictions(prepared: Prepared) -> dict[str, np.ndarray]:
    """Return predictor -> translations of the test split, for the predictors that need no network."""
    train, test = prepared.split("train"), prepared.split("test")
    size = test.source.shape[1:3]
    source, target = resized(train.source, size), resized(train.target, size)
    sources = np.asarray(test.source)
    median = {"median image": predictors.median_image(target, len(sources))}
    if sources.shape[-1] > predictors.MOST_CHANNELS:  # what the others look for are label maps
        return median
    return {
        "constant colour per label": predictors.constant_colour_per_label(source, target, sources),
        **median,
        "nearest neighbour": predictors.nearest_neighbour(source, target, sources),
    }


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (n, h, w, c) images at ``size``, bicubic; training images are stored larger, to be cropped."""
    if images.shape[1:3] == tuple(size):
        return np.asarray(images)
    info = np.iinfo(images.dtype)
    result = np.empty((len(images), *size, images.shape[3]), images.dtype)
    for i, image in enumerate(images):
        for c in range(image.shape[2]):
            plane = Image.fromarray(image[..., c].astype(np.float32))
            plane = np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))
            result[i, ..., c] = np.rint(plane).clip(info.min, info.max).astype(images.dtype)
    return result
