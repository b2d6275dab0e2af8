"""The model card and the data card: what these files are, in the words of their own records.

Both are generated from records, so they cannot say what did not happen, and both are pure
functions of them: no dates, no machine.

Sources: Mitchell et al. 2019, "Model Cards for Model Reporting" (the sections); the Croissant
format 1.0 of MLCommons (JSON-LD vocabulary; https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repix import registry
from repix.config.datasets import Dataset
from repix.metrics import better
from repix.schemas import Exported, Half, Manifest, Metrics, Trained

MODEL_CARD = "MODEL_CARD.md"
DATA_CARD = "croissant.json"
CROISSANT = "http://mlcommons.org/croissant/1.0"


def model_card(trained: Trained, metrics: Metrics, exported: Exported, manifest: Manifest, dataset: Dataset) -> str:
    """Return a model card in Markdown.

    Args:
        trained: what was trained, with its recipe.
        metrics: its scores on the test split.
        exported: the files that were exported.
        manifest: the prepared data.
        dataset: the data set's entry: licence, addresses, archive.
    """
    recipe = trained.recipe
    height, width = trained.crop_size
    counts = ", ".join(f"{name} {split.source.n}" for name, split in sorted(manifest.splits.items()))
    lines = [
        f"# {trained.cell}",
        "",
        f"A {recipe['system']} translator of {_images(exported.source)} into {_images(exported.target)}, "
        f"{width} x {height} pixels, trained on the data set `{trained.dataset}`.",
        "",
        "## Data and licence",
        "",
        f"- Data set: `{trained.dataset}` ({'pairs' if manifest.paired else 'unpaired'}), images: {counts}",
        f"- Licence of the data: {dataset.licence}. What may be done with the data may limit what may be done with "
        "a model of it.",
        f"- From: {', '.join(f'`{url}`' for url in dataset.urls)}",
        f"- sha256 of the archive: {f'`{dataset.sha256}`' if dataset.sha256 else 'not pinned'}",
        f"- Digest of the prepared arrays: `{trained.data_digest}` (see `{DATA_CARD}`)",
        "",
        "## Recipe",
        "",
        f"{trained.steps} steps ({trained.epochs} epochs), seed {trained.seed}, execution profile "
        f"`{trained.profile.get('name')}`; exported weights: {exported.variant}.",
        "",
        "```json",
        json.dumps(recipe, indent=2, sort_keys=True),
        "```",
        "",
        "## Metrics",
        "",
        f"On {metrics.n} test images, of the function that is exported: dropout off, norms by the statistics of the "
        "image itself. The interval is the 95 % percentile bootstrap over images; it does not contain the noise of "
        "another training seed.",
        "",
        "| translator | weights | metric | better | value | 95 % interval | n |",
        "|---|---|---|---|---|---|---|",
        *_scores(metrics),
        "",
    ]
    lines += ["## Pictures", "", "The first test images: source, translation, and the target where there is one.", ""]
    lines += [f"![{name}]({name}.png)" for name in sorted(trained.translators)]
    lines += [
        "",
        "## Files",
        "",
        "| translator | format | bytes | sha256 | allowed error: max, mean |",
        "|---|---|---|---|---|",
    ]
    for translator, sizes in sorted(exported.bytes.items()):
        for kind, size in sorted(sizes.items()):
            bound = exported.tolerance[kind]
            digest = exported.digests[translator][kind]
            lines.append(
                f"| {translator} | [{kind}]({translator}/{registry.FORMATS[kind].file}) | {size} | `{digest}` | "
                f"{bound['max']:g}, {bound['mean']:g} |"
            )
    lines += [
        "",
        "Each file was loaded back in its own runtime and compared with the trained network on test images; the "
        "errors are on the [-1, 1] scale.",
        "",
        "## Limits",
        "",
        f"- It takes images of exactly {width} x {height} pixels of the kind that it was trained on. Anything else "
        "gives a picture too, and the picture means nothing.",
        "- It invents what the source does not show: translations are plausible pictures, not measurements.",
        f"- It was scored on the test split of `{trained.dataset}` alone.",
        "- L1, PSNR and SSIM compare pixels and reward blur; distribution metrics say little at small n.",
        "",
        "## How to reproduce",
        "",
        "```sh",
        "git clone <this repository> && cd <it>   # at the commit whose dvc.lock names these files",
        "make repro                               # or, for this cell alone:",
        f"dvc repro export@{trained.dataset}-{trained.model}-{trained.seed}",
        "```",
        "",
        "| what | digest |",
        "|---|---|",
        *(f"| weights of {name} | `{digest}` |" for name, digest in sorted(exported.weights.items())),
        f"| prepared data | `{trained.data_digest}` |",
        "",
    ]
    return "\n".join(lines)


def _images(side) -> str:
    return f"{side.colour} images ({', '.join(side.meaning)}; {side.dtype})"


def _scores(metrics: Metrics) -> list[str]:
    lines = []
    for translator, variants in sorted(metrics.scores.items()):
        for variant, scores in sorted(variants.items()):
            for metric, value in sorted((scores or {}).items()):
                if value is None:
                    continue
                told = metrics.protocol.get("description", {}).get(translator, {}).get(variant, {}).get(metric, {})
                ci = told.get("ci95")
                interval = f"{ci[0]:.4f} to {ci[1]:.4f}" if ci else "none: one number for the whole set"
                direction = better(metric) or ""
                lines.append(
                    f"| {translator} | {variant} | {metric} | {direction} | {value:.4f} | {interval} | {metrics.n} |"
                )
    return lines


def data_card(manifest: Manifest, digest: str, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Return the Croissant 1.0 description of a prepared data set, as JSON-LD.

    There is no ``datePublished``: nothing that the card follows from has a date.

    Args:
        manifest: the prepared data.
        digest: digest of the prepared folder.
        dataset: the data set's entry.
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
            f"decoded, converted ({manifest.source.colour} to {manifest.target.colour}), resized "
            f"({manifest.resize}, {manifest.resample}) to {manifest.load_size[0]} x {manifest.load_size[1]}, "
            f"to be cropped to {height} x {width} (height x width)."
        ),
        "license": dataset.licence,
        "url": dataset.urls[0],
        "version": f"1.0.0+{digest[:12]}",
        "creator": {"@type": "sc:Organization", "name": "repix (preparation); see license for the images"},
        "distribution": [_file_object(split, side, half, folder) for split, side, half in halves],
        "recordSet": [_splits(manifest)],
    }


def _file_object(split: str, side: str, half: Half, folder: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"{split}/{side}",
        "name": f"{split}/{side}",
        "description": f"{half.n} {side} images of {split}: (n, height, width, channels), NumPy .npy, C order",
        "contentUrl": half.file,
        "contentSize": f"{(folder / half.file).stat().st_size} B",
        "encodingFormat": "application/octet-stream",
        "sha256": half.sha256,
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
