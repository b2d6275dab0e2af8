"""The gallery: all images, the worst first, from disk, without a network, the same bytes every time."""

from __future__ import annotations

import html.parser
from pathlib import Path

import numpy as np
import pytest

from checks.support.cells import images
from repix.data.images import decode
from repix.evaluation import gallery


class Page(html.parser.HTMLParser):
    """What a page links to, and its rows."""

    def __init__(self, path: Path):
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.rows: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "img":
            assert given["loading"] == "lazy" and given["alt"]
            self.sources.append(given["src"])
        if tag in ("link", "script"):
            assert "src" not in given and "href" not in given
        if tag == "a" and not given["href"].startswith("#"):
            self.links.append(given["href"])
        if tag == "tr" and "data-place" in given:
            self.rows.append(given["data-place"])


def section(folder: Path, names=("a", "b", "c"), **scores) -> gallery.Section:
    thumbs = {
        column: gallery.thumbnails(folder, column, names, images(0, len(names))) for column in ("source", "output")
    }
    return gallery.Section(
        "source_to_target", names, thumbs["output"], thumbs, {name: np.array(values) for name, values in scores.items()}
    )


def test_all_files_of_the_page_lie_beside_it_and_odd_names_work(tmp_path):
    from urllib.parse import unquote

    names = ("a#1", "50% <b>&\"'", "ä b")
    page = Page(gallery.write(tmp_path, "cell", [section(tmp_path, names)]))
    assert len(page.sources) == 6 and len(page.links) == 3
    for link in page.sources + page.links:
        assert "//" not in link and (tmp_path / unquote(link)).is_file()
    assert "<b>" not in (tmp_path / gallery.PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ({"ssim": [0.5, 0.1, 0.9], "l1": [0.1, 0.2, 0.9]}, ["1", "0", "2"]),
        ({"l1": [0.1, 0.2, 0.9]}, ["2", "1", "0"]),
        ({"l1": [0.2, 0.2, 0.9]}, ["2", "0", "1"]),
        ({}, ["0", "1", "2"]),
    ],
)
def test_the_worst_come_first(tmp_path, scores, order):
    assert Page(gallery.write(tmp_path, "cell", [section(tmp_path, **scores)])).rows == order


def test_scores_stand_beside_their_images(tmp_path):
    text = gallery.write(tmp_path, "cell", [section(tmp_path, ssim=[0.5, 0.125, 0.9])]).read_text()
    rows = [line for line in text.splitlines() if line.startswith("<tr data-place")]
    assert 'alt="source of b"' in rows[0] and 'data-ssim="0.125"' in rows[0] and ">0.1250<" in rows[0]


def test_bytes_are_a_function_of_the_input(tmp_path):
    pages = [gallery.write(tmp_path / name, "cell", [section(tmp_path / name, l1=[0.1, 0.2, 0.3])]) for name in "xy"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert str(tmp_path) not in pages[0].read_text()


def test_small_pictures_are_small_and_never_enlarged(tmp_path):
    wide, tiny = images(1, 1, (200, 600))[0], images(2, 1, (5, 7))[0]
    paths = gallery.thumbnails(tmp_path, "source", ["wide", "tiny"], [wide, tiny])
    assert [decode(tmp_path / path).pixels.shape for path in paths] == [(85, 256, 3), (5, 7, 3)]
    assert np.array_equal(decode(tmp_path / paths[1]).pixels, tiny)
    many = gallery.thumbnails(tmp_path, "many", [str(i) for i in range(gallery.LARGE_SET + 1)], [wide] * 201)
    assert decode(tmp_path / many[0]).pixels.shape == (43, 128, 3)
