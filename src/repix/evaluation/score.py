"""All metrics of one translator on one split, with their protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repix.config.evaluation import Evaluate
from repix.evaluation import baselines, bootstrap
from repix.evaluation import frechet as frechet_module
from repix.evaluation import kid as kid_module
from repix.evaluation import l1 as l1_module
from repix.evaluation import psnr as psnr_module
from repix.evaluation import ssim as ssim_module
from repix.evaluation import swd as swd_module
from repix.evaluation.features import FeatureNetwork, as_rgb8, extract
from repix.evaluation.frechet import Statistics, frechet_distance
from repix.files import digest_arrays
from repix.schemas import Side

ALWAYS = ("l1", "psnr", "ssim", "swd", "fid", "kid")
"""Names that every result has, null where one does not apply or was not asked for."""

Scores = dict[str, float | None]
Protocol = dict[str, Any]


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
        features: the network that fid and kid use; its dims cover ``evaluate.dims``.
        pictures: outputs and reference as (.., h, w, 3) uint8, for sides that are not pictures
            by themselves (Lab); None derives them from ``side``.
        cache: folder of the feature cache.
        describe: whether to add the descriptions (bootstrap intervals, self-distance floors).

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
    scores: Scores = dict.fromkeys(ALWAYS)
    protocol: Protocol = {
        "images": {
            "n": len(outputs),
            "size": list(outputs.shape[1:3]),
            "channels": side.channels,
            "colour": side.colour,
        },
        "reference": {"n": len(reference), "digest": digest_arrays({"reference": reference})},
    }
    per_image = _paired(outputs, targets, side, scores, protocol, describe)
    _swd(outputs, reference, names, evaluate, scores, protocol, describe)
    _on_features(outputs, reference, names, side, evaluate, features, pictures, cache, scores, protocol, describe)
    return scores, protocol, per_image


def _paired(
    outputs: np.ndarray, targets: np.ndarray | None, side: Side, scores: Scores, protocol: Protocol, describe: bool
) -> dict[str, np.ndarray]:
    per_image: dict[str, np.ndarray] = {}
    for module in (l1_module, psnr_module, ssim_module):
        name = module.__name__.rpartition(".")[2]
        protocol[name] = dict(module.PROTOCOL)
        if targets is None:
            protocol[name]["reason"] = "unpaired: no output has a target of its own"
            continue
        values = getattr(module, name)(outputs, targets, side.low, side.high)
        if values is None:
            protocol[name]["reason"] = ssim_module.too_small(*outputs.shape[1:3])
            continue
        scores[name], per_image[name] = float(values.mean()), values
        if describe:
            protocol[name]["description"] = {"ci95": bootstrap.interval(values), "bootstrap": bootstrap.PROTOCOL}
            if name == "psnr":
                protocol[name]["description"]["capped"] = int((values >= psnr_module.CAP_DB).sum())
    return per_image


def _swd(
    outputs: np.ndarray,
    reference: np.ndarray,
    names: list[str],
    evaluate: Evaluate,
    scores: Scores,
    protocol: Protocol,
    describe: bool,
) -> None:
    protocol["swd"] = dict(swd_module.PROTOCOL)
    if not evaluate.swd:
        protocol["swd"]["reason"] = "not asked for (evaluate.swd)"
        return
    distances = swd_module.swd(outputs, reference)
    if distances is None:
        protocol["swd"]["reason"] = f"images are smaller than {swd_module.SMALLEST} pixels"
        return
    scores["swd"] = distances.pop("mean")
    protocol["swd"]["n"] = min(len(outputs), len(reference))
    protocol["swd"]["description"] = {"levels": distances}
    if describe and len(reference) >= 2:
        floor = baselines.self_distance(swd_module.swd, reference, names)["mean"]
        protocol["swd"]["description"] |= {"floor": floor, "floor_n": len(reference) // 2}


def _on_features(
    outputs: np.ndarray,
    reference: np.ndarray,
    names: list[str],
    side: Side,
    evaluate: Evaluate,
    network: FeatureNetwork | None,
    pictures: tuple[np.ndarray, np.ndarray] | None,
    cache: str | Path | None,
    scores: Scores,
    protocol: Protocol,
    describe: bool,
) -> None:
    distances = {"fid": (_fid, frechet_module.PROTOCOL), "kid": (kid_module.kid, kid_module.PROTOCOL)}
    wanted = [metric for metric in distances if getattr(evaluate, metric)]
    for metric in distances:
        if metric not in wanted:
            protocol[metric] = {"reason": f"not asked for (evaluate.{metric})"}
        elif network is None or not set(evaluate.dims) <= set(network.dims):
            raise ValueError(f"evaluate.{metric} is on, but the feature network does not have dims {evaluate.dims}")
        else:
            protocol[metric] = {
                "reason": f"the plain name is that of 2048 dims with the published weights, not of dims "
                f"{list(evaluate.dims)} with weights {network.weights[:8]}"
            }
    if not wanted:
        return
    if pictures is None:
        pictures = as_rgb8(outputs, side), as_rgb8(reference, side)
    reason = None
    if pictures[0] is None:
        reason = f"the features are of RGB or grey pictures, these are {side.colour}"
    elif min(len(outputs), len(reference)) < 2:
        reason = "takes two images or more on each side"
    sets = None if reason else [extract(images, network, cache=cache) for images in pictures]
    for metric in wanted:
        distance, definition = distances[metric]
        for dims in evaluate.dims:
            name = network.metric_name(metric, dims)
            protocol[name] = definition | {"features": network.protocol(dims)}
            if reason:
                scores[name], protocol[name]["reason"] = None, reason
                continue
            output_features, real_features = (features[dims] for features in sets)
            scores[name] = distance(output_features, real_features)
            description: dict[str, Any] = {}
            if describe and metric == "kid":
                description["subsets"] = kid_module.kid_subsets(output_features, real_features)
            if describe and len(real_features) >= 4:
                description["floor"] = baselines.self_distance(distance, real_features, names)
                description["floor_n"] = len(real_features) // 2
            if description:
                protocol[name]["description"] = description


def _fid(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Statistics.from_features(a), Statistics.from_features(b))
