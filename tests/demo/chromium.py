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
