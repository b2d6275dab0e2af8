"""The documentation as a site: the reference is complete, every link leads somewhere, nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import repix
from repix import yaml12
from repix.cli import COMMANDS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site():
    """docs/site.py as a module."""
    spec = importlib.util.spec_from_file_location("documentation_site", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_key_of_the_params_with_what_it_means(site):
    page = site.params_page()
    tree = yaml12.load((ROOT / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
    assert {path.partition(".")[0] for path in site.params_groups()} == tree.keys() | {
        "search"
    }  # which is there for who searches
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 80
    assert [name for name, kind, default, what in rows if not (kind and default and len(what) > 8)] == []
    assert not re.search(r":\w+:`|``", page)
    named = {name for name, *_ in rows} | set(re.findall(r"^## (?:\w|\.)+\.(\w+)$", page, re.MULTILINE))
    used = {key for group in ("datasets", "models") for entry in tree[group].values() for key in keys(entry)}
    assert used <= named


def keys(tree: dict) -> set[str]:
    return {
        key for name, value in tree.items() for key in ({name} | (keys(value) if isinstance(value, dict) else set()))
    }


def test_the_reference_has_every_command_and_every_public_name(site):
    commands, python = site.commands_page(), site.python_page()
    for name in COMMANDS:
        assert f"\n## repix {name}\n" in commands and f"usage: repix {name}" in commands
    for name in repix.__all__:
        assert f"\n## repix.{name}\n" in python
    assert "load(model: PathLike, *, translator: Literal['source_to_target'" in python and "-> Model\n" in python


def test_links_are_those_of_the_site(site):
    assert site.with_links("[a](docs/gate.md#x) [b](https://a.b/c)", "README.md") == "[a](gate.md#x) [b](https://a.b/c)"
    assert site.with_links("[a](../README.md)", "docs/gate.md") == "[a](index.md)"
    assert site.with_links("[a](src/repix/config/images.py)", "README.md") == "[a](reference/params.md)"
    assert site.with_links("[a](../params.yaml)", "docs/gate.md") == "[a](repository/params.yaml)"
    assert site.with_links("So:\n- a\n- b\n", "README.md") == "So:\n\n- a\n- b\n"


class Links(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.leads, self.ids = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, given):
        values = dict(given)
        self.ids |= {values["id"]} if values.get("id") else set()
        for key in ("src", "href"):
            if values.get(key):
                (self.leads if tag == "a" else self.loads).add(values[key])


def test_it_builds_offline_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="no MkDocs: make docs installs it")
    pytest.importorskip("material", reason="no MkDocs Material: make docs installs it")
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
    }
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        environment[name] = "http://127.0.0.1:9"  # nobody is there
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {
        path: Links(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html") if path.name != "404.html"
    }
    assert len(pages) > 15
    for path, page in pages.items():
        assert {one for one in page.loads if re.match("(https?:)?//", one)} == set(), path
        for target in page.leads:
            file, _, part = target.partition("#")
            if re.match(r"\w+:", target):
                continue
            there = (path.parent / file).resolve() if file else path
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), (path.name, target)
            if part and there in pages:
                assert part in pages[there].ids | {"__top"}, (path.name, target)
    listed = [path.stem for path in (ROOT / "docs").glob("*.md")]
    assert [name for name in listed if not (tmp_path / f"{name}.html").exists()] == []
