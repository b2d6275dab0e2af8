"""A trained cell on its test split: translations, scores with their protocol, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from repix import profile
from repix.config.evaluation import Evaluate
from repix.data import images
from repix.data.colour import to_picture
from repix.data.store import Prepared
from repix.errors import UserError
from repix.evaluation import pictures
from repix.evaluation.features import FeatureNetwork
from repix.evaluation.score import score_paired_and_distribution
from repix.files import atomic_folder
from repix.schemas import Metrics
from repix.training.trained import TrainedModel

SHOWN = 8  # rows of the picture grid


def evaluate(
    model: TrainedModel,
    prepared: Prepared,
    settings: Evaluate,
    out: Path,
    *,
    features: FeatureNetwork | None = None,
    cache: Path | None = None,
) -> Metrics:
    """Translate the test split with every variant of every translator, and score it.

    What is scored is the function that is exported: dropout off, statistics of the image
    itself; with ``settings.paper_mode`` the paper's mode stands beside it.

    Args:
        model: the trained cell.
        prepared: its data set.
        settings: which metrics.
        out: folder for the translations of the last weights as PNG, ``per_image.csv`` and
            ``<translator>.png`` (source | output | target).
        features: the network for FID and KID, where asked for.
        cache: folder of the feature cache.

    Returns:
        The record for ``metrics/<cell>.json``.

    Raises:
        UserError: the data set has no test split.
    """
    if "test" not in prepared.manifest.splits:
        raise UserError(f"data set {model.record.dataset!r} has no test split to evaluate on")
    test, manifest = prepared.split("test"), prepared.manifest
    scores: dict[str, dict[str, Any]] = {}
    protocol: dict[str, Any] = {
        "split": "test",
        "profile": profile.current().name,
        "images": {},
        "reference": {},
        "description": {},
    }
    with atomic_folder(out) as folder:
        for translator in sorted(model.record.translators):
            forward = translator == "source_to_target"
            sources, targets = (test.source, test.target) if forward else (test.target, test.source)
            source, target = (manifest.source, manifest.target) if forward else (manifest.target, manifest.source)
            half = manifest.splits["test"].source if forward else manifest.splits["test"].target
            reference = manifest.splits["test"].target if forward else manifest.splits["test"].source
            names = [example.name for example in half.examples]
            scores[translator] = {"last": None, "best": None}
            protocol["description"][translator] = {}
            for variant in model.variants:
                model.load(variant)
                for paper in (False, True) if settings.paper_mode else (False,):
                    label = f"{variant}_paper" if paper else variant
                    translate = model.translator(translator, paper=paper)
                    bar = tqdm(sources, desc=f"{translator} {label}", unit="image", disable=None)
                    outputs = np.stack(list(translate(bar)))
                    result, definition, per_image = score_paired_and_distribution(
                        outputs,
                        np.asarray(targets) if manifest.paired else None,
                        target,
                        reference=np.asarray(targets),
                        reference_names=[example.name for example in reference.examples],
                        evaluate=settings,
                        features=features,
                        pictures=_as_colour(outputs, targets, sources, target) if target.colour == "lab_ab" else None,
                        cache=cache,
                    )
                    scores[translator][label] = result
                    protocol["description"][translator][label] = {
                        metric: entry.pop("description")
                        for metric, entry in sorted(definition.items())
                        if "description" in entry
                    }
                    for part in ("images", "reference"):
                        protocol[part][translator] = definition.pop(part)
                    protocol |= definition
                    if label == "last":
                        _write(
                            folder, translator, names, sources, outputs, targets, source, target, per_image, manifest
                        )
        if "best" not in model.variants:
            protocol["best"] = {"reason": "the data set has no val split to choose by"}
    used = sorted(set(model.record.translators.values()))
    return Metrics(
        cell=model.record.cell,
        weights_digest={network: model.record.networks[network] for network in used},
        n=len(test.source),
        scores=scores,
        protocol=protocol,
    )


def _as_colour(outputs, targets, sources, side):
    """Return Lab outputs and targets as RGB pictures, with the L of their own sources."""
    return tuple(
        np.stack([to_picture(image, side, light) for image, light in zip(array, sources, strict=True)])
        for array in (outputs, targets)
    )


def _write(folder, translator, names, sources, outputs, targets, source, target, per_image, manifest) -> None:
    """Write one translator's pictures and per-image scores."""
    import pandas as pd

    beside = targets if manifest.paired else None
    # Pictures of the worst, the best and those between would flatter nobody: the first ones.
    rows = pictures.triples(sources[:SHOWN], outputs[:SHOWN], beside, source, target)
    images.write(folder / f"{translator}.png", pictures.grid(rows, columns=2))
    (folder / translator).mkdir()
    for name, output, light in zip(names, outputs, sources, strict=True):
        shown = to_picture(output, target, light) if target.colour == "lab_ab" else output
        images.write(folder / translator / f"{Path(name).stem}.png", shown)
    table = pd.DataFrame({"image": names, **per_image})
    table.to_csv(folder / f"{translator}.csv", index=False, lineterminator="\n")
