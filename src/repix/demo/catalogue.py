"""What the page can show: the exported translators, with their scores and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repix.cells import Cell
from repix.data.prepared import MANIFEST, Prepared, SplitArrays
from repix.data.synthetic import PALETTE
from repix.directions import Direction
from repix.errors import UserError, printable
from repix.exporting.cards import MODEL_CARD
from repix.files import digest_file, digest_tree
from repix.metrics import better
from repix.provenance.lineage import Lineage
from repix.registry import FORMATS
from repix.schemas import Exported, Metrics, Side
from repix.tracking import mlflow_run

EXAMPLES = 12  # test images that can be picked
PICTURES = ("rgb", "gray")  # colours that a page can show
_SAMPLED = 20  # test images that the colours of a label map are counted in
_COLOURS = 16
_COVERED = 0.9  # fewer colours cover this much of a label map, and not of a photo
_SHADE = 10  # how far JPEG moves a colour of the CMP palette, of 255
_MADE_WITH = ("keras", "numpy", "python", "tensorflow")
# For sources without labels, or without their data at hand.
_CRAYONS = ("#000000", "#ffffff", "#808080", "#c0392b", "#e67e22", "#f1c40f", "#27ae60", "#2980b9", "#8e44ad")


@dataclass(frozen=True)
class Entry:
    """One exported translator.

    Attributes:
        root: the repository.
        exported: the record of its export.
        translator: the name of its direction.
    """

    root: Path
    exported: Exported
    translator: str

    @property
    def key(self) -> str:
        """Its name on the page and in addresses."""
        return f"{self.exported.cell}/{self.translator}"

    @property
    def dataset(self) -> str:
        """The data set that it was trained on."""
        return Cell.named(self.exported.cell).dataset

    @property
    def folder(self) -> Path:
        """Where the export lies."""
        return self.root / "exports" / self.exported.cell

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / self.translator / FORMATS["onnx"].file

    @property
    def sides(self) -> tuple[Side, Side]:
        """What it takes and what it gives."""
        return Direction(self.translator).sides(self.exported.source, self.exported.target)

    @cached_property
    def prepared(self) -> Prepared | None:
        """The prepared data, where they are at hand."""
        folder = self.root / "data" / "prepared" / self.dataset
        if not (folder / MANIFEST).is_file():
            return None
        try:
            found = Prepared.open(folder)
        except UserError:  # damaged, or of another version: examples are a convenience
            return None
        known = (found.manifest.source, found.manifest.target, found.manifest.crop_size)
        return found if known == (self.exported.source, self.exported.target, self.exported.crop_size) else None

    @cached_property
    def _test(self) -> SplitArrays | None:
        """The test split, mapped once: reading a header in several threads at a time fails once in a while."""
        return self.prepared.split("test") if self.prepared else None

    def examples(self) -> int:
        """Return how many test images can be picked."""
        test = self._test
        return min(EXAMPLES, len(self._half(test, 0))) if test else 0

    def example(self, number: int, side: str) -> np.ndarray | None:
        """Return a test image, (height, width, channels), or None where there is none.

        Args:
            number: counted from 0.
            side: ``source``, or ``target``: what a pair has on the other side.
        """
        test = self._test
        if test is None or not 0 <= number < self.examples():
            return None
        if side == "target" and not self.prepared.manifest.paired:
            return None
        return np.asarray(self._half(test, int(side == "target"))[number])

    def _half(self, test: SplitArrays, which: int) -> np.ndarray:
        return Direction(self.translator).sides(test.source, test.target)[which]

    def check(self) -> str | None:
        """Return why the page cannot show it, or None."""
        for side in self.sides:
            if side.colour not in PICTURES or side.dtype != "uint8":
                return f"{side.colour} of {side.dtype} is no picture of a browser; use `repix translate`"
        digest = self.exported.digests[self.translator].get("onnx")
        if digest is None:
            return "was not exported to onnx; see export.formats in params.yaml"
        if not self.model.is_file() or digest_file(self.model) != digest:
            return f"{self.model.name} is not the file of export.json; run `dvc checkout` or `dvc repro`"
        return None

    def describe(self) -> dict[str, Any]:
        """Return what the page tells of it, as plain JSON data."""
        height, width = self.exported.crop_size
        prepared = self.prepared
        return {
            "key": self.key,
            "cell": self.exported.cell,
            "translator": self.translator,
            "dataset": self.dataset,
            "width": width,
            "height": height,
            "channels": self.sides[0].channels,
            "colours": self.colours(),
            "examples": self.examples(),
            "paired": bool(prepared and prepared.manifest.paired),
            "card": (self.folder / MODEL_CARD).is_file(),
            **self.scores(),
            "lineage": self.lineage(),
        }

    def colours(self) -> list[dict[str, str]]:
        """Return the colours to draw with, the most frequent first: ``colour`` (#rrggbb) and ``name``.

        They are counted in test images; where few colours do not cover them, the source is
        no label map, and a few plain ones are offered.
        """
        plain = [{"colour": colour, "name": colour} for colour in _CRAYONS]
        test = self._test
        if test is None or self.sides[0].channels != 3:
            return plain
        pixels = np.asarray(self._half(test, 0)[:_SAMPLED]).reshape(-1, 3)
        found, counts = np.unique(pixels, axis=0, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:_COLOURS]
        if counts[most].sum() < _COVERED * len(pixels):
            return plain
        chosen = [tuple(map(int, found[index])) for index in most if counts[index] * 2000 >= len(pixels)]
        names = [_cmp_name(colour) for colour in chosen]
        if None in names:  # another code of colours
            names = [None] * len(chosen)
        coded = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in chosen]
        return [{"colour": code, "name": name or code} for code, name in zip(coded, names, strict=True)]

    def scores(self) -> dict[str, Any]:
        """Return ``metrics`` of the exported weights, ``n`` and, where there are none, ``unscored``: why."""
        path = self.root / "metrics" / f"{self.exported.cell}.json"
        if not path.is_file():
            return {"metrics": [], "n": 0, "unscored": f"there is no metrics/{path.name}"}
        try:
            metrics = Metrics.read(path)
        except UserError as error:
            return {"metrics": [], "n": 0, "unscored": printable(str(error))}
        scored = metrics.weights(self.exported.variant)
        if not scored:
            why = f"metrics/{path.name} does not say which {self.exported.variant} weights it scored"
            return {"metrics": [], "n": 0, "unscored": why}
        if scored.items() - self.exported.weights.items():
            return {"metrics": [], "n": 0, "unscored": f"metrics/{path.name} scored other weights than these"}
        scores = metrics.scores.get(self.translator, {}).get(self.exported.variant) or {}
        told = metrics.protocol.get("description", {}).get(self.translator, {}).get(self.exported.variant, {})
        rows = [
            {
                "name": name,
                "value": value,
                "ci95": told.get(name, {}).get("ci95"),
                "better": better(name),
            }
            for name, value in sorted(scores.items())
            if value is not None
        ]
        return {"metrics": rows, "n": metrics.images(self.translator), "unscored": None}

    def _trained_by(self) -> Lineage | None:
        """Return the lineage of the training that this export came from, where the records at hand tell."""
        cell = self.exported.cell
        paths = [self.root / "lineage" / stage / f"{cell}.json" for stage in ("train", "export")]
        if not all(path.is_file() for path in paths):
            return None
        try:
            train, export = map(Lineage.read, paths)
        except UserError:
            return None
        weights, files = f"runs/{cell}", f"exports/{cell}"
        same_weights = weights in train.outputs and train.outputs[weights] == export.inputs.get(weights)
        return train if same_weights and export.outputs.get(files) == digest_tree(self.folder) else None

    def lineage(self) -> list[dict[str, str]]:
        """Return what the model followed from: rows of ``name`` and ``value``."""
        cell, digests = self.exported.cell, self.exported.digests[self.translator]
        hashes = mlflow_run.dvc_tags(self.root, [f"exports/{cell}"])
        tags = mlflow_run.recorded_tags(self.root, hashes.get(f"dvc.exports/{cell}"))
        rows = []
        if commit := tags.get("mlflow.source.git.commit"):
            rows.append(("commit", commit + (" + changes" if tags.get("repix.git_dirty") == "true" else "")))
        rows.append((FORMATS["onnx"].file, digests["onnx"]))
        rows += [
            (f"{name} ({self.exported.variant})", digest) for name, digest in sorted(self.exported.weights.items())
        ]
        record = self._trained_by()
        if record is not None:
            rows.append(("run key", record.run_key))
            rows += sorted(record.inputs.items())
            rows.append(("code", f"{len(record.code)} files"))
            rows += [("profile", str(record.profile.get("name"))), ("seed", str(Cell.named(cell).seed))]
            rows += [(name, version) for name, version in sorted(record.environment.items()) if name in _MADE_WITH]
        return [{"name": name, "value": value} for name, value in rows]


def _cmp_name(colour: tuple[int, int, int]) -> str | None:
    """Return the label of the CMP façades that a colour is a shade of, if it is one."""
    far = {name: max(abs(a - b) for a, b in zip(colour, shade, strict=True)) for name, shade in PALETTE.items()}
    nearest = min(far, key=far.get)
    return nearest if far[nearest] <= _SHADE else None


def find(root: Path) -> tuple[list[Entry], list[str]]:
    """Return the exported translators that the page can show, and one line for each that it cannot.

    Raises:
        UserError: there is none to show.
    """
    shown, left_out = [], []
    for path in sorted((root / "exports").glob("*/export.json")):
        try:
            exported = Exported.read(path)
        except UserError as error:
            left_out.append(printable(str(error)))
            continue
        for translator in sorted(exported.digests):
            entry = Entry(root, exported, translator)
            why = entry.check()
            if why is None:
                shown.append(entry)
            else:
                left_out.append(f"{entry.key}: {why}")
    if not shown:
        why = "; ".join(left_out) or "run `dvc repro`, or `dvc pull`"
        raise UserError(f"no exported model in exports/ that a page can show: {why}")
    return shown, left_out
