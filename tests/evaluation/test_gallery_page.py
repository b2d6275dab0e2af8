"""The gallery in a real browser: from a folder, on a desk and on a phone, by day and by night, by keyboard."""

from __future__ import annotations

import numpy as np
import pytest

from checks.support.cells import images
from repix.evaluation import gallery
from tests.demo import chromium

pytestmark = chromium.needed()
SCORES = {"ssim": [0.5, 0.1, 0.9], "psnr": [9.0, 30.0, 12.0], "l1": [0.3, 0.2, 0.1]}
NAMES = ("a", "b", "a name " + 12 * "that_is_long_")


@pytest.fixture(scope="module")
def browser():
    with chromium.launch(chromium.find()) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    pictures = {
        column: gallery.thumbnails(folder, column, NAMES, images(number, 3, (40, 60)))
        for number, column in enumerate(("source", "output", "target"))
    }
    scores = {name: np.array(values) for name, values in SCORES.items()}
    sections = [
        gallery.Section("source_to_target", NAMES, pictures["output"], pictures, scores),
        gallery.Section("target_to_source", NAMES, pictures["source"], {"source": pictures["source"]}),
    ]
    return gallery.write(folder, "sample-cyclegan-0", sections).as_uri()


@pytest.fixture
def opened(browser, address):
    pages = []

    def open_page(width: int = 1400, **options):
        page = browser.new_page(viewport={"width": width, "height": 844}, **options)
        page.set_default_timeout(20_000)
        pages.append((page, problems := []))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for page, problems in pages:
        page.close()
        assert problems == []


def order(page, table: str = "source_to_target-table") -> list[int]:
    return [int(row.get_attribute("data-place")) for row in page.locator(f"#{table} tbody tr").all()]


def test_every_order_can_be_chosen_and_is_told(opened):
    page = opened()
    choice = page.get_by_label("Order")
    assert choice.is_visible() and choice.count() == 1  # the other section has no scores to sort by
    expected = {
        "ssim, worst first": ([1, 0, 2], "ssim", "ascending"),
        "ssim, best first": ([2, 0, 1], "ssim", "descending"),
        "l1, worst first": ([0, 1, 2], "l1", "descending"),
        "l1, best first": ([2, 1, 0], "l1", "ascending"),
        "psnr, worst first": ([0, 2, 1], "psnr", "ascending"),
        "psnr, best first": ([1, 2, 0], "psnr", "descending"),
        "as in the split": ([0, 1, 2], None, None),
    }
    assert choice.locator("option").all_text_contents() == list(expected)
    assert order(page) == expected["ssim, worst first"][0]
    for label, (places, metric, direction) in reversed(expected.items()):
        choice.select_option(label=label)
        assert order(page) == places, label
        told = {head.text_content(): head.get_attribute("aria-sort") for head in page.locator("th[aria-sort]").all()}
        assert told == ({metric: direction} if metric else {}), label
    assert order(page, "target_to_source-table") == [0, 1, 2]


def test_without_scripts_the_worst_come_first_and_nothing_is_offered_that_does_nothing(opened):
    page = opened(java_script_enabled=False)
    assert not page.get_by_text("Order:").is_visible() and order(page) == [1, 0, 2]
    assert "the worst first" in page.locator("#source_to_target > p").first.inner_text()


def test_by_keyboard_alone(opened):
    page = opened()
    seen = []
    for _ in range(3):
        seen.append(chromium.focused(page))
        assert chromium.sees_focus(page), seen[-1]
    assert seen[:2] == ["source_to_target", "target_to_source"] and seen[2].startswith("Order:")
    page.keyboard.press("ArrowDown")
    assert order(page) == [2, 0, 1]
    page.keyboard.press("End")
    assert order(page) == [0, 1, 2]
    assert [chromium.focused(page) for _ in range(6)] == [*NAMES, *NAMES]
    assert chromium.focused(page, "Shift+Tab") == NAMES[1] and chromium.sees_focus(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**/gallery/source/b.png")


def test_on_a_phone_nothing_is_cut_off_and_every_number_has_its_name(opened):
    page = opened(390)
    page.get_by_label("Order").scroll_into_view_if_needed()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    row = page.locator("#source_to_target tbody tr").first
    boxes = [picture.bounding_box() for picture in row.locator("img").all()]
    heads = [head.bounding_box() for head in page.locator("#source_to_target th.picture").all()]
    assert len({box["y"] for box in boxes}) == 1 and all(box["width"] > 100 for box in boxes)
    assert [box["x"] for box in boxes] == [box["x"] for box in heads]
    assert [score.inner_text() for score in row.locator(".score").all()] == ["ssim 0.1000", "psnr 30.0000", "l1 0.2000"]
    for box in (cell.bounding_box() for cell in page.locator("td, p, h1, h2, nav").all()):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_on_a_desk_the_names_of_scores_are_the_headings(opened):
    page = opened(1400)
    score = page.locator("#source_to_target td.score").first
    assert score.inner_text() == "0.1000"
    assert score.bounding_box()["x"] == page.locator("th.score").first.bounding_box()["x"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_links_are_read_by_day_and_by_night(opened, scheme):
    page = opened(color_scheme=scheme)
    for selector in ("p", "td.name a", "td.score"):
        assert chromium.contrast(page, selector) >= 4.5, selector
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
