"""Write a page with every translation of a test split, the worst first, that opens from disk."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np

from repix.data import images
from repix.files import write_text
from repix.metrics import direction

PAGE = "index.html"
FOLDER = "gallery"  # of the small pictures, below the page
LARGE_SET = 200  # images; beyond that small pictures are half as wide, so that a gallery stays within tens of MB


@dataclass(frozen=True)
class Section:
    """One translator's part of the page.

    Attributes:
        title: ``source_to_target`` ...
        names: of the images, in the order of the split.
        outputs: per image, the file of its translation, relative to the page.
        pictures: column (``source``, ``output``, ``target``) -> per image its small picture,
            relative to the page; a kind that there is none of has no column.
        scores: metric, of :mod:`repix.metrics` -> (n,) numbers.
    """

    title: str
    names: Sequence[str]
    outputs: Sequence[str]
    pictures: Mapping[str, Sequence[str]]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    def worst_first(self) -> list[int]:
        """Return the rows from worst to best, by SSIM or else by L1; without both, in the order of the split."""
        by = next((metric for metric in ("ssim", "l1") if metric in self.scores), None)
        if by is None:
            return list(range(len(self.names)))
        values = np.asarray(self.scores[by])
        return np.argsort(values * direction(by), kind="stable").tolist()


def thumbnails(folder: Path, series: str, names: Sequence[str], pictures: Iterable[np.ndarray]) -> list[str]:
    """Write small PNGs for a page in ``folder``; return their paths relative to it.

    Args:
        folder: of the page.
        series: such as ``source``; the pictures of one series lie together.
        names: one for each picture, unique.
        pictures: (height, width, 3) uint8; those with a side over 256 px (128 px in a set of more
            than 200) are made smaller.
    """
    most = 256 if len(names) <= LARGE_SET else 128
    paths = []
    (folder / FOLDER / series).mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pictures, strict=True):
        height, width = picture.shape[:2]
        scale = most / max(height, width, most)
        small = images.resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))
        paths.append(f"{FOLDER}/{series}/{name}.png")
        images.write(folder / paths[-1], small)
    return paths


STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem auto; padding: 0 1rem; max-width: 72rem; background: Canvas; color: CanvasText }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 600; position: sticky; top: 0; background: Canvas }
th, td { padding: .3rem .6rem .3rem 0; vertical-align: top }
td img { display: block; width: clamp(4rem, 20vw, 16rem); height: auto }
td.name { overflow-wrap: anywhere }
td.score { font-variant-numeric: tabular-nums; white-space: nowrap }
"""

# Without scripts the page shows everything, the worst first; with them it can be sorted anew.
SCRIPT = """
for (const select of document.querySelectorAll('select')) {
  select.parentElement.hidden = false;
  select.addEventListener('change', () => {
    const body = document.getElementById(select.dataset.table).tBodies[0];
    const [key, sign] = select.value.split(' ');
    const value = row => key === 'place' ? Number(row.dataset.place) : Number(row.dataset[key]);
    const rows = [...body.rows].sort((a, b) => sign * (value(a) - value(b)) || a.dataset.place - b.dataset.place);
    body.append(...rows);
  });
}
"""


def write(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write ``index.html`` into ``folder``; return it. Equal input gives equal bytes.

    The page needs no network and no script, and only files below its folder.

    Args:
        folder: the out of an evaluation.
        title: the cell's name.
        sections: one for each translator.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    if len(sections) > 1:
        links = " · ".join(f'<a href="#{section.title}">{section.title}</a>' for section in sections)
        parts.append(f"<nav>{links}</nav>")
    for section in sections:
        parts += _section(section)
    parts += [f"<script>{SCRIPT}</script>", "</body></html>", ""]
    write_text(folder / PAGE, "\n".join(parts))
    return folder / PAGE


def _section(section: Section) -> list[str]:
    metrics = list(section.scores)
    means = ", ".join(f"{metric} {np.mean(section.scores[metric]):.4f}" for metric in metrics)
    order = "the worst first" if metrics else "no scores: without pairs no image has a target of its own"
    lines = [
        f'<section id="{section.title}"><h2>{section.title}</h2>',
        f"<p>{len(section.names)} test images, {order}.{f' Means: {means}.' if means else ''}</p>",
    ]
    if metrics:
        options = []
        for metric in sorted(metrics, key=lambda metric: metric != "ssim"):
            up = direction(metric)
            options.append(f'<option value="{metric} {up}">{metric}, worst first</option>')
            options.append(f'<option value="{metric} {-up}">{metric}, best first</option>')
        options.append('<option value="place 1">as in the split</option>')
        select = f'<select data-table="{section.title}-table">{"".join(options)}</select>'
        lines.append(f"<p hidden><label>Order: {select}</label></p>")
    heads = "".join(f"<th>{head}</th>" for head in [*section.pictures, "image", *metrics])
    lines.append(f'<table id="{section.title}-table"><thead><tr>{heads}</tr></thead><tbody>')
    for place in section.worst_first():
        name = html.escape(section.names[place])
        data = "".join(f' data-{metric}="{float(section.scores[metric][place])!r}"' for metric in metrics)
        cells = [
            f'<td><img loading="lazy" alt="{column} of {name}" src="{quote(paths[place])}"></td>'
            for column, paths in section.pictures.items()
        ]
        cells.append(f'<td class="name"><a href="{quote(section.outputs[place])}">{name}</a></td>')
        cells += [f'<td class="score">{section.scores[metric][place]:.4f}</td>' for metric in metrics]
        lines.append(f'<tr data-place="{place}"{data}>{"".join(cells)}</tr>')
    return [*lines, "</tbody></table></section>"]
