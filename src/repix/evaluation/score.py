"""Compute all metrics of one translator on one split, each with its protocol."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from repix.config.evaluation import Evaluate
from repix.evaluation import bootstrap
from repix.evaluation.features import FeatureNetwork, as_rgb8, extract
from repix.evaluation.floor import self_distance
from repix.evaluation.metrics import Score, Scorer
from repix.files import digest_arrays
from repix.metrics import ASK_FOR_FEATURES, METRICS, OWN_NETWORK, Metric
from repix.schemas import Archive, Side

Scores = dict[str, float | None]
Protocol = dict[str, Any]


def scorer(metric: Metric) -> Scorer:
    """Return the scorer of a metric: ``SCORER`` of its file."""
    return importlib.import_module(f"repix.evaluation.metrics.{metric.name}").SCORER


def own_networks(evaluate: Evaluate, folder: Path) -> dict[str, Any]:
    """Return metric of kind ``network`` that is asked for -> its network: ``load_network`` of its file.

    Args:
        evaluate: which metrics are asked for.
        folder: what the stage ``features`` left: the weights of each lie below its name.
    """
    found = {}
    for name in OWN_NETWORK:
        if getattr(evaluate, name):
            weights = Archive.read(folder / name / "archive.json")
            module = importlib.import_module(f"repix.evaluation.metrics.{name}")
            found[name] = module.load_network(folder / name / weights.file, weights.sha256)
    return found


def score_paired_and_distribution(
    outputs: np.ndarray,
    targets: np.ndarray | None,
    side: Side,
    *,
    reference: np.ndarray | None = None,
    reference_names: Sequence[str] | None = None,
    evaluate: Evaluate,
    features: FeatureNetwork | None = None,
    pictures: tuple[np.ndarray, np.ndarray] | None = None,
    cache: str | Path | None = None,
    describe: bool = True,
    train: np.ndarray | None = None,
    labels: tuple[np.ndarray, Side] | None = None,
    networks: Mapping[str, Any] = MappingProxyType({}),
    floors: dict[str, dict[str, Any]] | None = None,
) -> tuple[Scores, Protocol, dict[str, np.ndarray]]:
    """Score translations against their targets (paired metrics) and a reference set (distances).

    Args:
        outputs: (n, h, w, c) integers, translations in the value range of ``side``.
        targets: (n, h, w, c), row i the target of output i; None for unpaired data.
        side: what the numbers mean.
        reference: (m, h, w, c), the real images for the distances; None takes ``targets``.
        reference_names: names of the reference images, by whose hash the halves of the
            self-distance are chosen; None takes their numbers.
        evaluate: which metrics were asked for.
        features: the network of the metrics on features; its dims cover ``evaluate.dims``.
        pictures: outputs and reference as (.., h, w, 3) uint8, for sides that are not pictures
            by themselves (Lab); None derives them from ``side``.
        cache: folder of the feature cache.
        describe: whether to add the descriptions (bootstrap intervals, distances between halves of the real images).
        train: (k, height, width, c), the training images on the side of the outputs as they are stored, of the
            outputs' size or larger, for the metrics of kind ``training``.
        labels: label maps (n, h, w, k) of the outputs, and their side, for the metrics of kind ``labels``.
        networks: metric of kind ``network`` -> its network.
        floors: the distances between halves of these very reference images that are known already, by the
            score's name: read, and added to.

    Returns:
        ``scores``: metric -> number, or None with ``protocol[metric]["reason"]``.
        ``protocol``: ``images`` and ``reference`` (counts, sizes, digest) and one entry per
            metric. What determines comparability stands in the entry itself; results that
            only describe (``ci95``, ``levels``, ``floor`` with its ``floor_n``, ``subsets``,
            ``capped``) stand under its ``description``, which a comparison must leave out.
        ``per_image``: paired metric -> (n,) float64.

    Raises:
        ValueError: neither targets nor a reference, shapes that do not fit, or fid or kid
            asked for without a network.
    """
    if targets is None and reference is None:
        raise ValueError("scores need targets or a reference set")
    reference = targets if reference is None else reference
    names = [str(i) for i in range(len(reference))] if reference_names is None else list(reference_names)
    if outputs.shape[1:] != reference.shape[1:] or len(names) != len(reference):
        raise ValueError(f"outputs {outputs.shape}, reference {reference.shape} and {len(names)} names do not fit")
    more = train, labels, networks, {} if floors is None else floors
    sets = _Sets(outputs, targets, side, reference, names, evaluate, features, pictures, cache, *more)
    scores: Scores = {}
    protocol: Protocol = {
        "images": {
            "n": len(outputs),
            "size": list(outputs.shape[1:3]),
            "channels": side.channels,
            "colour": side.colour,
        },
        "reference": {"n": len(reference), "digest": digest_arrays({"reference": reference})},
    }
    per_image: dict[str, np.ndarray] = {}
    for metric in METRICS:
        if not metric.listed and _switched_off(metric, evaluate):
            continue
        for name, definition, score in _SCORE[metric.kind](metric, scorer(metric), sets, describe):
            scores[name] = score.value
            protocol[name] = {**definition, **score.definition}
            if score.reason:
                protocol[name]["reason"] = score.reason
            if describe and score.details:
                protocol[name]["description"] = dict(score.details)
            if score.per_image is not None:
                per_image[name] = score.per_image
    return scores, protocol, per_image


@dataclass(frozen=True)
class _Sets:
    """What is scored: the arguments of :func:`score_paired_and_distribution`."""

    outputs: np.ndarray
    targets: np.ndarray | None
    side: Side
    reference: np.ndarray
    names: list[str]
    evaluate: Evaluate
    network: FeatureNetwork | None
    pictures: tuple[np.ndarray, np.ndarray] | None
    cache: str | Path | None
    train: np.ndarray | None
    labels: tuple[np.ndarray, Side] | None
    networks: Mapping[str, Any]
    floors: dict[str, dict[str, Any]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.outputs.shape[1:3]

    @cached_property
    def rgb8(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Outputs and reference as pictures, None where the side is no picture."""
        if self.pictures is not None:
            return self.pictures
        return as_rgb8(self.outputs, self.side), as_rgb8(self.reference, self.side)

    @cached_property
    def features(self) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """The features of outputs and reference, dims -> (n, dims)."""
        first, second = (extract(images, self.network, cache=self.cache) for images in self.rgb8)
        return first, second

    @cached_property
    def train_features(self) -> list[dict[int, np.ndarray]]:
        """The features of the training images' views, in blocks: dims -> (k, dims)."""
        from repix.evaluation.metrics.memorisation import views

        pictures = (as_rgb8(block, self.side) for block in views(self.train, self.size))
        return [extract(block, self.network, cache=self.cache) for block in pictures]

    def between_halves(self, name: str, function: Callable[..., Score], rows: np.ndarray) -> dict[str, Any]:
        """Return the score of one half of the real images against the other, and how many each half has."""
        if name not in self.floors:
            value = self_distance(function, rows, self.names).value
            self.floors[name] = {"floor": value, "floor_n": len(rows) // 2}
        return self.floors[name]


Scored = list[tuple[str, dict[str, Any], Score]]  # name of the score, definition, score


def _switched_off(metric: Metric, evaluate: Evaluate) -> str | None:
    """Return why a metric was not asked for; one without a switch in ``evaluate`` is always asked for."""
    asked = metric.default is None or getattr(evaluate, metric.name)
    return None if asked else f"not asked for (evaluate.{metric.name})"


def _no_pair(metric: Metric, how: Scorer, sets: _Sets) -> str | None:
    """Return why outputs cannot be scored against their own targets, or None if they can."""
    if reason := _switched_off(metric, sets.evaluate):
        return reason
    if sets.targets is None:
        return "unpaired: no output has a target of its own"
    return how.unavailable(*sets.size)


def _with_interval(score: Score, describe: bool) -> Score:
    """Return a score with the interval of its mean over images, where descriptions are asked for."""
    if not describe:
        return score
    interval = {"ci95": bootstrap.interval(score.per_image), "bootstrap": bootstrap.PROTOCOL}
    return replace(score, details=interval | dict(score.details))


def _paired(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    if reason := _no_pair(metric, how, sets):
        return [(metric.name, how.definition, Score(reason=reason))]
    score = how.function(sets.outputs, sets.targets, sets.side.low, sets.side.high)
    return [(metric.name, how.definition, _with_interval(score, describe))]


def _of_labels(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    if reason := _no_pair(metric, how, sets):
        return [(metric.name, how.definition, Score(reason=reason))]
    if sets.labels is None:
        raise ValueError(f"evaluate.{metric.name} is on, but there are no label maps")
    (images, side), colours = sets.labels, sets.evaluate.label_colours
    table = "each channel in four steps" if colours is None else [list(colour) for colour in colours]
    definition = how.definition | {"labels": sets.evaluate.labels, "label_colours": table}
    table = None if colours is None else np.array(colours)
    score = how.function(
        sets.outputs, sets.targets, sets.side.low, sets.side.high, images, (side.low, side.high), table
    )
    return [(metric.name, definition, _with_interval(score, describe))]


def _through_network(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    reason = _no_pair(metric, how, sets)
    if reason is None and sets.rgb8[0] is None:
        reason = f"the network sees RGB or grey pictures, these are {sets.side.colour}"
    if reason:
        return [(metric.name, how.definition, Score(reason=reason))]
    if metric.name not in sets.networks:
        raise ValueError(f"evaluate.{metric.name} is on, but its network is not given")
    # The reference holds the targets where there are pairs.
    score = how.function(*sets.rgb8, sets.networks[metric.name])
    return [(metric.name, how.definition, _with_interval(score, describe))]


def _distribution(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    reason = _switched_off(metric, sets.evaluate) or how.unavailable(*sets.size)
    if reason:
        return [(metric.name, how.definition, Score(reason=reason))]
    score = how.function(sets.outputs, sets.reference)
    if describe and len(sets.reference) >= 2:
        floor = sets.between_halves(metric.name, how.function, sets.reference)
        score = replace(score, details=dict(score.details) | floor)
    return [(metric.name, how.definition, score)]


def _against_training(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    """Return a score for each of ``evaluate.dims`` where there are features of pictures, else one on pixels."""
    if reason := _switched_off(metric, sets.evaluate):
        return [(metric.name, how.definition, Score(reason=reason))]
    if sets.train is None:
        raise ValueError(f"evaluate.{metric.name} is on, but there are no training images")
    from repix.evaluation.metrics import memorisation

    definition = {**how.definition, "train_n": len(sets.train)}
    if sets.network is None or sets.rgb8[0] is None or as_rgb8(sets.train[:1], sets.side) is None:
        asked = np.concatenate([memorisation.cells(images, sets.side) for images in (sets.outputs, sets.reference)])
        near = memorisation.nearest_on_pixels(asked, sets.train, sets.side, sets.size)
        score = how.function(*np.split(near, [len(sets.outputs)]))
        return [(metric.name, definition | memorisation.PIXELS, score)]
    found: Scored = []
    for dims in sets.evaluate.dims:
        on = memorisation.FEATURES | {"features": sets.network.protocol(dims)}
        asked = np.concatenate([features[dims] for features in sets.features])
        near = memorisation.nearest(asked, (features[dims] for features in sets.train_features))
        score = how.function(*np.split(near, [len(sets.outputs)]))
        found.append((sets.network.metric_name(metric.name, dims), definition | on, score))
    return found


def _on_features(metric: Metric, how: Scorer, sets: _Sets, describe: bool) -> Scored:
    """Return a score for each of ``evaluate.dims``, and null under the plain name where none of them has it."""
    evaluate, network = sets.evaluate, sets.network
    reason = _switched_off(metric, evaluate)
    if reason is None and not evaluate.on_features:
        reason = f"no features asked for ({', '.join(f'evaluate.{name}' for name in ASK_FOR_FEATURES)})"
    if reason:
        return [(metric.name, {}, Score(reason=reason))]
    if network is None or not set(evaluate.dims) <= set(network.dims):
        raise ValueError(f"evaluate.{metric.name} is on, but the feature network does not have dims {evaluate.dims}")
    if sets.rgb8[0] is None:
        reason = f"the features are of RGB or grey pictures, these are {sets.side.colour}"
    elif min(len(sets.outputs), len(sets.reference)) < 2:
        reason = "takes two images or more on each side"
    found: Scored = []
    for dims in evaluate.dims:
        name, definition = network.metric_name(metric.name, dims), how.definition | {"features": network.protocol(dims)}
        if reason:
            found.append((name, definition, Score(reason=reason)))
            continue
        outputs, reference = (features[dims] for features in sets.features)
        score = how.function(outputs, reference)
        if describe:
            details = dict(score.details) | dict(how.details(outputs, reference) if how.details else {})
            if len(reference) >= 4:
                details |= sets.between_halves(name, how.function, reference)
            score = replace(score, details=details)
        found.append((name, definition, score))
    if metric.name not in (name for name, _, _ in found):
        why = (
            f"the plain name is that of 2048 dims with the published weights, not of dims "
            f"{list(evaluate.dims)} with weights {network.weights[:8]}"
        )
        found.insert(0, (metric.name, {}, Score(reason=why)))
    return found


_SCORE: dict[str, Callable[[Metric, Scorer, _Sets, bool], Scored]] = {
    "paired": _paired,
    "distribution": _distribution,
    "features": _on_features,
    "training": _against_training,
    "labels": _of_labels,
    "network": _through_network,
}
