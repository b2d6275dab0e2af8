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
from checks.support.repository import CELL
from tests.demo import chromium
from tests.demo.conftest import SECOND

BROWSER = chromium.find()
pytestmark = chromium.needed()


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

    def saved(self, button: str) -> np.ndarray:
        """Return the pixels of what a button gives to the browser to save."""
        with self.page.expect_download() as given:
            self.page.get_by_role("button", name=button).click()
        return pixels(given.value.path().read_bytes())

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
def opened(browser, address):
    pages = []

    def open_page(width: int = 1280, height: int = 900, **options) -> Shown:
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        pages.append(page)
        page.set_default_timeout(20_000)
        return Shown(page, address)

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def shown(opened):
    return opened()


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
        ("notes.txt", b"no image at all", "cannot be decoded: not an image, or damaged at its start"),
        ("huge.png", bytes(20_000_000), "20 MB; at most 16 MB"),
    ):
        upload(name, data)
        page.locator("#message.bad", has_text=f"{name}: {said}").wait_for()
        assert np.array_equal(shown.canvas(), kept)
    # A browser logs each refusal itself; nothing else went wrong.
    assert all("status of 41" in problem for problem in shown.problems) and len(shown.problems) == 2
    shown.drag((0, 0), (15, 15))
    assert np.array_equal(shown.picture(0), translate(CELL, shown.canvas()))


INK = (0xFF, 0xFF, 0xFF)  # what is chosen from the start


def test_a_translation_is_saved_as_the_model_made_it(shown, translate):
    page = shown.page
    save = page.get_by_role("button", name="Save translation by the first model")
    shown.settle()
    assert not page.get_by_role("button", name="Save translation by the second model").is_visible()
    assert np.array_equal(shown.saved("Save translation by the first model"), translate(CELL, shown.canvas()))
    page.select_option("select[aria-label='Second model']", label=SECOND)
    shown.settle()
    with page.expect_download() as given:
        page.get_by_role("button", name="Save translation by the second model").click()
    assert given.value.suggested_filename == f"{SECOND}-source_to_target.png"
    assert np.array_equal(pixels(given.value.path().read_bytes()), translate(SECOND, shown.canvas()))
    assert np.array_equal(shown.saved("Save drawing"), shown.canvas())
    page.route("**/translate", lambda route: route.fulfill(status=500, body="{}"))
    shown.drag((0, 0), (1, 1))
    page.wait_for_selector(".failed[data-slot='0']")
    assert not save.is_visible()  # what it would save is not of this drawing


def test_an_upload_keeps_its_shape_on_the_page_and_when_saved(shown, translate, tmp_path):
    page = shown.page
    (photo,) = images(3, 1, (64, 32))

    def shapes() -> list[float]:
        boxes = [page.locator(one).bounding_box() for one in ("#canvas", ".model[data-slot='0'] img")]
        return [round(box["width"] / box["height"], 1) for box in boxes]

    assert shapes() == [1, 1]
    (tmp_path / "tall.png").write_bytes(encoded(photo))
    page.set_input_files("#file", tmp_path / "tall.png")
    page.locator("#message", has_text="shown in its own shape").wait_for()
    assert np.array_equal(shown.picture(0), translate(CELL, shown.canvas()))
    assert shapes() == [0.5, 0.5]
    saved = shown.saved("Save translation by the first model")
    assert saved.shape == (32, 16, 3)
    kept = saved.reshape(16, 2, 16, 3).mean(axis=1)
    assert np.abs(kept - translate(CELL, shown.canvas())).mean() < 8  # smoothed, and nothing else
    shown.drag((2, 12), (5, 14))  # it is drawn where the pointer is
    drawn = shown.canvas()
    assert (drawn[12:15, 2:6] == INK).all() and shapes() == [0.5, 0.5]
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert shapes() == [1, 1]
    page.set_input_files("#file", tmp_path / "tall.png")
    page.locator("#message", has_text="shown in its own shape").wait_for()
    page.get_by_role("button", name="Clear").click()
    assert shapes() == [1, 1] and shown.saved("Save translation by the first model").shape == (16, 16, 3)
    assert shown.problems == []


def test_the_canvas_is_drawn_on_by_keyboard(shown, translate):
    page = shown.page
    before = shown.canvas()
    expected = before.copy()
    page.get_by_label("Test image 2").focus()
    assert chromium.focused(page) == "Drawing of the source" and chromium.sees_focus(page)
    assert "Arrow keys move the pen" in page.locator("#message").text_content()
    pen = page.locator("#pen")
    assert pen.is_visible()
    for key in ("Shift+ArrowLeft", "ArrowUp", "Space", "ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expected[7:9, 6:9] = INK  # from the middle, (8, 8), two to the left and one up
    assert np.array_equal(shown.canvas(), expected)
    box, canvas = pen.bounding_box(), page.locator("#canvas").bounding_box()
    middle = [
        (box[at] + box[size] / 2 - canvas[at]) / canvas[size] * 16 for at, size in (("x", "width"), ("y", "height"))
    ]
    assert np.allclose(middle, [8.5, 8.5], atol=0.2)
    for key in ("ArrowRight", "Space", "ArrowRight", "ArrowDown", "Escape"):
        page.keyboard.press(key)
    assert np.array_equal(shown.canvas(), expected)

    page.get_by_text("Brush").click()
    page.locator("#width").fill("1")
    page.locator("#canvas").focus()
    for key in ("Space", "ArrowDown", "ArrowDown", "ArrowLeft", "Space", "ArrowLeft"):
        page.keyboard.press(key)
    expected[9:12, 10] = expected[11, 9] = INK
    assert np.array_equal(shown.canvas(), expected)
    page.keyboard.press("Control+z")
    expected[9:12, 10], expected[11, 9] = before[9:12, 10], before[11, 9]
    assert np.array_equal(shown.canvas(), expected)

    page.get_by_text("Fill").click()
    page.locator("#canvas").focus()
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Shift+ArrowUp", "Space"):
        page.keyboard.press(key)
    page.keyboard.press("Shift+Tab")
    assert not pen.is_visible()
    page.keyboard.press("Control+z")
    assert np.array_equal(shown.canvas(), expected)
    assert np.array_equal(shown.picture(0), translate(CELL, expected))
    assert shown.problems == []


def choosing(page, key: str):
    """Press a key until it opens a dialog for files: while the last one closes, the browser opens no other."""
    from playwright.sync_api import TimeoutError as TooLate

    for tries in range(5):
        try:
            with page.expect_file_chooser(timeout=4000) as given:
                page.keyboard.press(key)
            return given.value
        except TooLate:
            if tries == 4:
                raise
            for back in ("Tab", "Shift+Tab"):  # as somebody would whose key did nothing
                page.keyboard.press(back)


def test_everything_is_reached_by_keyboard_in_the_order_of_the_page(shown, tmp_path):
    page = shown.page
    page.select_option("select[aria-label='Second model']", label=SECOND)
    shown.drag((0, 0), (1, 1))  # so that there is something to undo
    shown.settle()
    page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
    page.locator("header").click()
    expected = [
        "Test image 1", "Test image 2", "Drawing of the source", "Rectangle", "Undo", "Clear", "#ffffff",
        "Upload an image", "Save drawing",
        "First model", "Save translation by the first model", "Lineage", "Model card",
        "Second model", "Save translation by the second model", "Lineage", "Model card",
    ]  # fmt: skip
    for name in expected:
        assert chromium.focused(page) == name and chromium.sees_focus(page), name
        if name == "Upload an image":
            for key in ("Enter", "Space"):
                choosing(page, key).set_files([])
    page.locator("input[name=tool]:checked").focus()
    assert chromium.focused(page, "ArrowRight") == "Brush" and page.locator("#width").is_visible()
    page.locator("#palette input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#palette input:checked").get_attribute("value") == "#808080"
    page.locator("select[aria-label='First model']").focus()
    page.keyboard.press("ArrowDown")
    shown.settle()
    assert page.locator("select[aria-label='First model']").input_value() == f"{SECOND}/source_to_target"
    page.get_by_label("Test image 2").focus()
    page.keyboard.press("Space")
    page.wait_for_selector("#examples button:nth-child(2)[aria-pressed=true]")
    shown.settle()
    page.get_by_label("Save translation by the first model").focus()
    with page.expect_download():
        page.keyboard.press("Enter")
    assert shown.problems == []


def test_a_phone_shows_source_result_and_tools_on_one_screen(opened, translate, tmp_path):
    shown = opened(390, 844, has_touch=True, is_mobile=True)
    page = shown.page

    def seen(selector: str) -> dict:
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, selector
        assert box["y"] >= 0 and box["y"] + box["height"] <= 844, selector
        return box

    assert page.evaluate("[document.scrollingElement.scrollWidth, scrollY]") == [390, 0]
    source, result = seen("#canvas"), seen(".model[data-slot='0'] .picture")
    assert abs(source["y"] - result["y"]) < 3 and source["width"] > 150 and result["width"] > 150
    for part in (".examples", ".tools", "#palette", ".inputs"):
        seen(part)
    assert seen("select[aria-label='First model']")["width"] > 350  # long names differ at their ends
    seen("button[aria-label='Save translation by the first model']")
    page.touchscreen.tap(source["x"] + source["width"] * 3.5 / 16, source["y"] + source["height"] * 4.5 / 16)
    assert (shown.canvas()[4, 3] == INK).all()
    assert np.array_equal(shown.picture(0), translate(CELL, shown.canvas()))
    (photo,) = images(3, 1, (64, 32))
    (tmp_path / "tall.png").write_bytes(encoded(photo))
    page.set_input_files("#file", tmp_path / "tall.png")
    page.locator("#message", has_text="shown in its own shape").wait_for()
    seen("#canvas")
    seen(".model[data-slot='0'] .picture")
    page.select_option("select[aria-label='Second model']", label=SECOND)
    shown.settle()
    assert page.evaluate("document.scrollingElement.scrollWidth") == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_read_by_day_and_by_night(opened, scheme):
    page = opened(color_scheme=scheme).page
    for selector in ("h1", "header p", ".caption", "#most", ".facts dt", ".facts a", "#palette span"):
        assert chromium.contrast(page, selector) >= 4.5, selector
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
