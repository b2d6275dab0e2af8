"""A headless Chromium of this machine, driven by Playwright; tests skip where there is none.

With `repix demo` running, this takes a picture of the page:

  python -m tests.demo.chromium http://127.0.0.1:7860/ docs/images/demo.png [WIDTH] [dark]
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the browser's path: ``REPIX_CHROMIUM``, or the first of :data:`NAMES` on the path."""
    asked = os.environ.get("REPIX_CHROMIUM")
    return asked or next((path for name in NAMES if (path := shutil.which(name))), None)


def needed():
    """Return the mark of tests that need a browser: skipped where there is none, which pytest's summary says."""
    import pytest

    return pytest.mark.skipif(find() is None, reason="no Chromium on the path (apt-get install chromium)")


def focused(page, key: str = "Tab") -> str:
    """Press a key; return what has the focus then, by its name for assistive technology, or its tag."""
    page.keyboard.press(key)
    return page.evaluate(
        """() => {
            const held = document.activeElement, label = held.labels?.[0];
            const name = held.getAttribute("aria-label") || label?.textContent || held.textContent;
            return held === document.body ? "" : name.trim().split("\\n")[0] || held.tagName;
        }"""
    )


def sees_focus(page) -> bool:
    """Whether an outline shows where the focus is, at the element or at the label around it."""
    return page.evaluate(
        """() => {
            const drawn = (one) => parseFloat(getComputedStyle(one).outlineWidth) > 0
                && getComputedStyle(one).outlineStyle !== "none";
            const held = document.activeElement;
            return [held, held.nextElementSibling, held.closest("label")].some((one) => one && drawn(one));
        }"""
    )


def contrast(page, selector: str) -> float:
    """Return the contrast of an element's text with the page's ground, by WCAG 2.2: 1 to 21."""
    colours = page.evaluate(
        """(selector) => {
            const paper = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            const rgb = (colour) => {
                paper.fillStyle = colour;
                paper.fillRect(0, 0, 1, 1);
                return [...paper.getImageData(0, 0, 1, 1).data];
            };
            const text = getComputedStyle(document.querySelector(selector)).color;
            return [rgb(text), rgb(getComputedStyle(document.body).backgroundColor)];
        }""",
        selector,
    )

    def luminance(colour: list[int]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted(map(luminance, colours), reverse=True)
    return (high + 0.05) / (low + 0.05)


@contextmanager
def launch(executable: str) -> Iterator:
    """Yield Playwright's browser."""
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox refuses to run as root, which containers do.
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def main(address: str, out: str, width: str = "1280", scheme: str = "light") -> None:
    """Save a picture of the whole page as it opens, with a second model where there is one."""
    with launch(find() or sys.exit("no Chromium on the path")) as browser:
        page = browser.new_page(viewport={"width": int(width), "height": 800}, color_scheme=scheme)
        page.goto(address)
        page.wait_for_selector("body[data-settled=yes]")
        second = page.locator("select[aria-label='Second model']")
        if second.locator("option").count() > 1:
            second.select_option(index=1)
            page.wait_for_selector("body[data-settled=yes]")
        page.screenshot(path=out, full_page=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
