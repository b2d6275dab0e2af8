"""The page in a real browser: what it shows is what the models make of what was drawn."""

from __future__ import annotations

import base64
import io
import json
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from checks.support.cells import images
from tests.demo import chromium
from tests.demo.conftest import SECOND
from tests.exporting.repository import CELL

BROWSER = chromium.find()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path (apt-get install chromium)")


def encoded(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def address(entries):
    from repix.demo import app
    from repix.demo.server import serve

    server = serve(app.create(*entries), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Shown:
    """The page and what went wrong on it."""

    def __init__(self, page, address: str):
        self.page, self.problems = page, []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: self.requests.append(urlsplit(asked.url)))
        self.requests = []
        page.goto(address)
        self.settle()

    def settle(self) -> None:
        """Wait until every chosen model has translated the latest drawing."""
        self.page.wait_for_selector("body[data-settled=yes]")

    def canvas(self) -> np.ndarray:
        url = self.page.evaluate("document.querySelector('#canvas').toDataURL('image/png')")
        return pixels(base64.b64decode(url.split(",")[1]))

    def picture(self, slot: int) -> np.ndarray:
        """Return the pixels of the picture that a model's card shows."""
        self.settle()
        numbers = self.page.evaluate(
            """async (slot) => {
                const picture = document.querySelectorAll(".model img")[slot];
                await picture.decode();
                const copy = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext("2d");
                copy.drawImage(picture, 0, 0);
                return [picture.naturalHeight, picture.naturalWidth,
                        ...copy.getImageData(0, 0, picture.naturalWidth, picture.naturalHeight).data];
            }""",
            slot,
        )
        return np.array(numbers[2:], np.uint8).reshape(numbers[0], numbers[1], 4)[..., :3]

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press in the middle of one pixel of the canvas and release in that of another; (column, row)."""
        box = self.page.locator("#canvas").bounding_box()
        width, height = self.page.evaluate("[canvas.width, canvas.height]")
        (x0, y0), (x1, y1) = (
            (box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height)
            for x, y in (start, end)
        )
        mouse = self.page.mouse
        mouse.move(x0, y0)
        mouse.down()
        mouse.move(x1, y1, steps=4)
        mouse.up()


@pytest.fixture(scope="module")
def browser():
    with chromium.launch(BROWSER) as browser:
        yield browser


@pytest.fixture
def shown(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(20_000)
    yield Shown(page, address)
    page.close()


@pytest.fixture
def translate(entries):
    """The served model itself, for comparison: (cell, image) -> translation."""
    from repix.exporting.pyfunc import TranslatorModel

    def translated(cell: str, image: np.ndarray) -> np.ndarray:
        entry = next(entry for entry in entries[0] if entry.exported.cell == cell)
        model = TranslatorModel()
        model.open(entry.model, entry.exported.model_dump(mode="json"), entry.translator)
        return model.translate(image)

    return translated


def test_draw_translate_compare_undo(shown, translate, tmp_path):
    page = shown.page
    before = shown.canvas()
    page.select_option("select[aria-label='Second model']", label=SECOND)
    page.get_by_text("#c0392b").click()
    shown.drag((3, 4), (9, 11))
    drawn = shown.canvas()
    expected = before.copy()
    expected[4:12, 3:10] = (0xC0, 0x39, 0x2B)
    assert np.array_equal(drawn, expected)
    first, second = shown.picture(0), shown.picture(1)
    assert np.array_equal(first, translate(CELL, drawn))
    assert np.array_equal(second, translate(SECOND, drawn))
    assert not np.array_equal(first, second)

    page.get_by_text("Brush").click()
    page.locator("#width").fill("1")
    shown.drag((0, 15), (15, 15))
    expected[15] = (0xC0, 0x39, 0x2B)
    assert np.array_equal(shown.canvas(), expected)
    page.get_by_text("Clear").click()
    page.get_by_text("#27ae60").click()
    page.get_by_text("Fill").click()
    shown.drag((8, 8), (8, 8))
    assert (shown.canvas() == (0x27, 0xAE, 0x60)).all()
    for _ in range(4):
        page.keyboard.press("Control+z")
    assert np.array_equal(shown.canvas(), before)
    assert np.array_equal(shown.picture(0), translate(CELL, before))

    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert pixels((tmp_path / "page.png").read_bytes()).std() > 20
    assert shown.problems == []
    assert {request.scheme for request in shown.requests} <= {"http", "blob"}
    assert {request.hostname for request in shown.requests if request.scheme == "http"} == {"127.0.0.1"}


def test_pick_shows_the_pair_and_the_facts_of_the_model(shown, repository, translate):
    from repix.data.prepared import Prepared

    page, test = shown.page, Prepared.open(repository / "data" / "prepared" / "tiny").split("test")
    page.get_by_label("Test image 2").click()
    page.wait_for_selector("#examples button:nth-child(2)[aria-pressed=true]")
    assert np.array_equal(shown.canvas(), test.source[1])
    assert np.array_equal(shown.picture(0), translate(CELL, test.source[1]))
    assert page.locator("#truth").is_visible()
    metrics = json.loads((repository / "metrics" / f"{CELL}.json").read_text())
    told = page.locator(".facts").first.text_content()
    assert f"{metrics['scores']['source_to_target']['last']['ssim']:#.4g}" in told
    assert "n = 2" in told and "run key" in told
    shown.drag((0, 0), (2, 2))
    assert not page.locator("#truth").is_visible()  # it is no longer the pair's
    assert shown.problems == []


def test_upload_and_what_is_refused(shown, translate, tmp_path):
    page = shown.page
    (photo,) = images(3, 1, (64, 32))

    def upload(name: str, data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#file", tmp_path / name)

    upload("photo.png", encoded(photo))
    page.get_by_text("photo.png, resized from 32 x 64 to 16 x 16").wait_for()
    kept = shown.canvas()
    assert np.array_equal(shown.picture(0), translate(CELL, kept))
    for name, data, said in (
        ("notes.txt", b"no image at all", "not a PNG, JPEG, BMP or WebP image"),
        ("huge.png", bytes(20_000_000), "20 MB; at most 16 MB"),
    ):
        upload(name, data)
        page.locator("#message.bad", has_text=f"{name}: {said}").wait_for()
        assert np.array_equal(shown.canvas(), kept)
    # A browser logs each refusal itself; nothing else went wrong.
    assert all("status of 41" in problem for problem in shown.problems) and len(shown.problems) == 2
    shown.drag((0, 0), (15, 15))
    assert np.array_equal(shown.picture(0), translate(CELL, shown.canvas()))
