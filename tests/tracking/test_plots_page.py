"""The page of `dvc plots`: DVC's own renderer fills the template, and a browser draws it without a network."""

from __future__ import annotations

import configparser

import pytest

from tests.conftest import ROOT
from tests.demo import chromium

TEMPLATE = ROOT / ".dvc/plots.html"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    from dvc_render import VegaRenderer
    from dvc_render.html import render_html

    rows = [
        {"epoch": str(e), "l1": str(0.5 / e + n), "rev": r} for n, r in enumerate(("HEAD", "one")) for e in (1, 2, 3)
    ]
    folder = tmp_path_factory.mktemp("plots")
    curve = VegaRenderer(
        rows, "curves/l1.csv", x="epoch", y="l1", template="linear", revs_with_datapoints=["HEAD", "one"]
    )
    nothing = VegaRenderer([], "metrics/a.json")
    render_html([curve, nothing], folder / "index.html", TEMPLATE)
    return folder / "index.html"


def test_dvc_is_told_of_the_template():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert config["plots"]["html_template"].strip() == TEMPLATE.name


@chromium.needed()
def test_curves_are_drawn_and_nothing_is_asked_of_the_network(filled):
    asked = []
    with chromium.launch(chromium.find()) as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(filled.as_uri())
        drawn = page.eval_on_selector_all(
            "polyline", "all => all.map(one => one.getAttribute('points').split(' ').length)"
        )
        legend = page.eval_on_selector_all("figcaption div", "all => all.map(one => one.textContent)")
        assert page.locator("figure").count() == 1
    assert (drawn, legend, errors) == ([3, 3], ["HEAD", "one"], [])
    assert asked == [filled.as_uri()]
