"""The pages' figures come from commands: every block that one writes is there, and so is the command."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- (\S+):begin \(written by `([^`]+)`\) -->\n(.*?)<!-- (\S+):end -->", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_written_block_is_filled_and_its_command_exists(page):
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count(":begin") == text.count(":end -->")
    for name, command, content, end in blocks:
        assert name == end
        assert content.count("\n") > 2, f"{name} is empty; run `{command}`"
        for module in re.findall(r"-m ((?:checks|benchmarks)\.\w+)", command):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
