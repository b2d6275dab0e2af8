"""The model card and the data card: what these files are, in the words of their own records.

Both are generated from records, so they cannot say what did not happen, and both are pure
functions of them: no dates, no machine.

Sources: Mitchell et al. 2019, "Model Cards for Model Reporting" (the sections); the Croissant
format 1.0 of MLCommons (JSON-LD vocabulary; https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repix import pages, registry
from repix.config.archive import Archive
from repix.metrics import better
from repix.schemas import Exported, Half, Manifest, Metrics, Side, Trained, flat

MODEL_CARD = "MODEL_CARD.md"
DATA_CARD = "croissant.json"
CROISSANT = "http://mlcommons.org/croissant/1.0"


def model_card(trained: Trained, metrics: Metrics, exported: Exported, manifest: Manifest, archive: Archive) -> str:
    """Return a model card in Markdown.

    Args:
        trained: what was trained, with its recipe.
        metrics: its scores on the test split.
        exported: the files that were exported.
        manifest: the prepared data.
        archive: where the data comes from, and its licence.
    """
    height, width = trained.crop_size
    return pages.render(
        __file__,
        "md",
        trained=trained,
        metrics=metrics,
        exported=exported,
        manifest=manifest,
        licence=archive.licence,
        urls=archive.urls,
        sha256=archive.sha256,
        data_card=DATA_CARD,
        width=width,
        height=height,
        counts=", ".join(f"{name} {split.source.n}" for name, split in sorted(manifest.splits.items())),
        recipe=json.dumps(trained.recipe, indent=2, sort_keys=True),
        images=_images,
        scores=[("translator", "weights", "metric", "better", "value", "95 % interval", "n"), *_scores(metrics)],
        files=[("translator", "format", "bytes", "sha256", "allowed error: max, mean"), *_files(exported)],
        digests=[
            ("what", "digest"),
            *((f"weights of {name}", pages.code(digest)) for name, digest in sorted(exported.weights.items())),
            ("prepared data", pages.code(trained.data_digest)),
            *((f"start: {name}", pages.code(digest)) for name, digest in _start(trained)),
        ],
    )


def _start(trained: Trained) -> list[tuple[str, str]]:
    """Return name and sha256 of each file that the training started from."""
    return sorted((trained.start or {}).get("files", {}).items())


def _images(side: Side) -> str:
    return f"{side.colour} images ({', '.join(side.meaning)}; {side.dtype})"


def _scores(metrics: Metrics) -> Iterator[tuple]:
    """Yield a row of the table for each score."""
    for (translator, variant, metric), value in flat(metrics.scores).items():
        if value is None:
            continue
        told = metrics.protocol.get("description", {}).get(translator, {}).get(variant, {}).get(metric, {})
        ci = told.get("ci95")
        none = "none: of one image" if "ci95" in told else "none: one number for the whole set"
        interval = f"{ci[0]:.4f} to {ci[1]:.4f}" if ci else none
        yield translator, variant, metric, better(metric) or "", f"{value:.4f}", interval, metrics.images(translator)


def _files(exported: Exported) -> Iterator[tuple]:
    """Yield a row of the table for each exported file."""
    for translator, sizes in sorted(exported.bytes.items()):
        for kind, size in sorted(sizes.items()):
            bound, digest = exported.tolerance[kind], exported.digests[translator][kind]
            place = pages.link(kind, f"{translator}/{registry.FORMATS[kind].file}")
            yield translator, place, size, pages.code(digest), f"{bound['max']:g}, {bound['mean']:g}"


def data_card(manifest: Manifest, digest: str, archive: Archive, folder: Path) -> dict[str, Any]:
    """Return the Croissant 1.0 description of a prepared data set, as JSON-LD.

    There is no ``datePublished``: nothing that the card follows from has a date.

    Args:
        manifest: the prepared data.
        digest: digest of the prepared folder.
        archive: where the data comes from, and its licence.
        folder: where the arrays lie, for their sizes.
    """
    halves = [
        (split, side, getattr(manifest.splits[split], side))
        for split in sorted(manifest.splits)
        for side in ("source", "target")
    ]
    height, width = manifest.crop_size
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": manifest.dataset,
        "description": (
            f"{'Paired' if manifest.paired else 'Unpaired'} images for image-to-image translation, prepared by repix: "
            f"decoded, converted ({manifest.source.colour} to {manifest.target.colour}), brought "
            f"({manifest.resize}, {manifest.resample}) to {manifest.load_size[0]} x {manifest.load_size[1]}, "
            f"to be cropped to {height} x {width} (height x width)."
        ),
        "license": archive.licence,
        "url": archive.urls[0],
        "version": f"1.0.0+{digest[:12]}",
        "creator": {"@type": "sc:Organization", "name": "repix (preparation); see license for the images"},
        "distribution": [file for split, side, half in halves for file in _file_objects(split, side, half, folder)],
        "recordSet": [_splits(manifest)],
    }


def _file_objects(split: str, side: str, half: Half, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield an entry for each array of a side of a split."""
    for number, shard in enumerate(half.shards):
        name = f"{split}/{side}" if len(half.shards) == 1 else f"{split}/{side}/{number}"
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "description": f"{shard.n} {side} images of {split}: (n, height, width, channels), NumPy .npy, C order",
            "contentUrl": shard.file,
            "contentSize": f"{(folder / shard.file).stat().st_size} B",
            "encodingFormat": "application/octet-stream",
            "sha256": shard.sha256,
        }


def _splits(manifest: Manifest) -> dict[str, Any]:
    """Return the record set of the splits: each with its number of images on both sides."""

    def field(name: str, kind: str, text: str) -> dict[str, Any]:
        at = f"splits/{name}"
        return {"@type": "cr:Field", "@id": at, "name": at, "description": text, "dataType": kind}

    rows = [
        {"splits/name": name, "splits/source": split.source.n, "splits/target": split.target.n}
        for name, split in sorted(manifest.splits.items())
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The splits and their numbers of images",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            field("name", "sc:Text", "name of the split"),
            field("source", "sc:Integer", "images of the source side"),
            field("target", "sc:Integer", "images of the target side"),
        ],
        "data": rows,
    }


# The context of the Croissant 1.0 specification: which of its terms the short names stand for.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
