"""Score translators on the val split while they train, and show sample pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from repix.data.prepared import Prepared
from repix.directions import Direction
from repix.evaluation import pictures
from repix.evaluation.metrics import l1, ssim, swd
from repix.inference.translator import Translator

SHOWN = 4  # images in a sample picture


class Validation:
    """Scores translators on the val split, and shows what they make of its first images.

    Args:
        prepared: the data set; its val split is scored and shown. Without one, train is shown and nothing is scored.
        translators: name -> function of stored integers.
        show: is called with (step, name of the series, uint8 picture (height, width, 3)).

    Attributes:
        possible: whether there is a val split to score.
    """

    def __init__(self, prepared: Prepared, translators: Mapping[str, Translator], show: Callable):
        self.prepared, self.manifest = prepared, prepared.manifest
        self.translators, self.show = translators, show
        self.possible = "val" in self.manifest.splits
        self._split = prepared.split("val" if self.possible else "train")

    def _sides(self, translator: str):
        sides = Direction(translator).sides
        return (
            *sides(self._split.source, self._split.target),
            *sides(self.manifest.source, self.manifest.target),
        )

    def score(self) -> dict[str, float]:
        """Return scores of the val split; ``score`` decides which weights are best.

        For pairs it is the mean SSIM (where images are too small for it, minus L1); without pairs minus the sliced
        Wasserstein distance. Mean over the translators; higher is better.
        """
        values: dict[str, list[float]] = {}
        for name, translator in self.translators.items():
            sources, targets, _, side = self._sides(name)
            outputs = translator.translate(sources)
            if self.manifest.paired:
                values.setdefault("l1", []).append(float(l1.l1(outputs, targets, side.low, side.high).mean()))
                similar = ssim.ssim(outputs, targets, side.low, side.high)
                if similar is not None:
                    values.setdefault("ssim", []).append(float(similar.mean()))
            else:
                distance = swd.swd(outputs, np.asarray(targets))
                values.setdefault("swd", []).append(distance["mean"] if distance else 0.0)
        means = {name: sum(given) / len(given) for name, given in values.items()}
        # From 0, since the minus of a distance of 0 would be written as -0.0.
        score = means["ssim"] if "ssim" in means else 0.0 - means.get("l1", means.get("swd", 0.0))
        return {**means, "score": score}

    def picture(self, step: int) -> None:
        """Show the first images of the split as source | output | target."""
        for name, translator in self.translators.items():
            sources, targets, source, target = self._sides(name)
            sources = self.prepared.centre(sources[:SHOWN])
            outputs = translator.translate(sources)
            beside = self.prepared.centre(targets[:SHOWN]) if self.manifest.paired else None
            self.show(
                step, f"samples/{name}", pictures.grid(pictures.triples(sources, outputs, beside, source, target))
            )
