"""What is filled into a page stays text, whatever it is called."""

from __future__ import annotations

import tomllib

import pytest

from repix import pages, tables
from tests.conftest import ROOT

HOSTILE = [
    "a | b",
    "`code` `` ` ",
    "<script>alert(1)</script>",
    "[a](javascript:b) ![c](d)",
    "*a* _b_ **c** __d__ ~~e~~ $f$",
    "&lt; &#60; &",
    "back\\slash \\| \\\\| \\`",
    "two\nlines\r\n\u2028# three",
]


def page(folder, kind: str, template: str, /, **values) -> str:
    """Render a template of a module that lies in ``folder``."""
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / f"one.{kind}").write_text(template, encoding="utf-8")
    return pages.render(str(folder / "one.py"), kind, **values)


def read(text: str) -> list:
    """Return the tokens that a reader of Markdown (with tables) makes of a text: blocks, and what is in them."""
    from markdown_it import MarkdownIt

    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        found.append(token.type)
        found += [(child.type, child.content) for child in token.children or ()]
    return found


def words(tokens: list) -> str:
    return "".join(token[1] for token in tokens if isinstance(token, tuple))


def one_line(text: str) -> str:
    return " ".join(text.splitlines())


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_text_as_it_is(tmp_path, text):
    tokens = read(page(tmp_path, "md", "Licence: {{ text }}.\n", text=text))
    assert {kind for kind, _ in filter(lambda token: isinstance(token, tuple), tokens)} <= {"text", "text_special"}
    assert tokens[0] == "paragraph_open" and tokens[-1] == "paragraph_close" and tokens.count("inline") == 1
    assert words(tokens) == f"Licence: {one_line(text)}."


@pytest.mark.parametrize("text", [*HOSTILE, "", "plain", "`", "ends in `"])
def test_code_is_one_span_with_the_text(tmp_path, text):
    tokens = read(page(tmp_path, "md", "From {{ text | code }}.\n", text=text))
    spans = [
        content for kind, content in filter(lambda token: isinstance(token, tuple), tokens) if kind == "code_inline"
    ]
    assert len(spans) == 1 and spans[0].strip(" ") == one_line(text).strip(" ")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(tmp_path, text):
    rows = [("a", "b", "c"), (text, pages.code(text), "end"), ("1", "2", text)]
    tokens = read(page(tmp_path, "md", "{{ rows | table([2]) }}\n", rows=rows))
    assert tokens.count("tr_open") == 3 and tokens.count("td_open") == 6 and tokens[-1] == "table_close"
    cells = [words(tokens[place + 2 : tokens.index("td_close", place)]) for place in
             (i for i, token in enumerate(tokens) if token == "td_open")]  # fmt: skip
    assert cells[0] == cells[5] == one_line(text).strip() and cells[2] == "end"


def test_a_plain_table_is_as_it_was():
    rows = [("model", "n"), ("a", "10"), ("longer", "2")]
    assert tables.markdown(rows, right=[1]) == ["| model | n |", "|---|--:|", "| a | 10 |", "| longer | 2 |"]
    padded = ["| model  |   n |", "| ------ | --: |", "| a      |  10 |", "| longer |   2 |"]
    assert tables.markdown(rows, right=[1], padded=True) == padded


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_a_text_as_it_is(tmp_path, text):
    import html

    said = page(tmp_path, "html", '<p title="{{ text }}">{{ text }}</p>\n', text=text)
    inner = said.removeprefix('<p title="').removesuffix("</p>\n")
    assert "<" not in inner and inner.count('"') == 1
    assert [html.unescape(part) for part in inner.split('">')] == [text, text]


def test_a_message_keeps_its_commands_and_loses_its_markup():
    assert pages.prose("no <b>; run `dvc repro`") == r"no \<b\>; run `dvc repro`"
    assert pages.prose("one ` alone") == r"one \` alone"
    assert pages.prose("`a` and ` alone") == r"`a` and \` alone"


def test_a_block_of_code_refuses_what_would_end_it():
    assert pages.block("a\n<b> `c`") == "a\n<b> `c`"
    with pytest.raises(ValueError, match="block of code"):
        pages.block("a\n  ```\n# b")


@pytest.mark.parametrize("kind", ["md", "html"])
def test_a_value_that_is_missing_or_none_is_an_error(tmp_path, kind):
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="nme"):
        page(tmp_path, kind, "{{ nme }}", name="x")
    with pytest.raises(ValueError, match="None"):
        page(tmp_path, kind, "{{ name }}", name=None)


def test_every_file_beside_the_code_is_in_the_wheel():
    package = ROOT / "src" / "repix"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    taken = {path for pattern in settings["package-data"]["repix"] for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(there) > 6 and there - taken == set()


def test_a_template_reaches_no_other(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "two.md").write_text("two")
    with pytest.raises(TypeError, match="loader"):
        page(tmp_path, "md", "{% include 'two.md' %}")
