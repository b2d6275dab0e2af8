"""docs/metrics.md against the code, and the rows of its agreement table that need no data."""

from __future__ import annotations

import pytest

from checks import agreement
from repix.commands.results import write_between_markers
from repix.errors import UserError
from repix.metrics import NAMES


def test_the_page_has_the_protocols_of_the_code(tmp_path):
    page = tmp_path / "metrics.md"
    page.write_text(agreement.PAGE.read_text())
    write_between_markers(page, agreement.protocol_table(), "protocol")
    assert page.read_text() == agreement.PAGE.read_text(), "run: python -m checks.agreement --protocol --write"
    assert all(f"| `{name}` " in agreement.protocol_table() for name in NAMES)


def test_every_table_of_the_page_was_written():
    text = agreement.PAGE.read_text()
    for part in ("protocol", "agreement", "facades", "evaluate"):
        block = text.partition(f"<!-- {part}:begin")[2].partition(f"<!-- {part}:end -->")[0]
        assert block.count("\n|") > 3 and "**no**" not in block, part


def test_worked_cases_come_out():
    rows = agreement.worked_cases()
    assert len(rows) == 6 and all(row["ok"] for row in rows), rows


def test_a_difference_is_seen(monkeypatch):
    from repix.evaluation.metrics import kid

    original = kid._diagonal_sum
    monkeypatch.setattr(kid, "_diagonal_sum", lambda x: original(x) * (1 + 1e-9))
    assert [row["case"][:3] for row in agreement.worked_cases() if not row["ok"]] == ["KID", "KID"]


def test_only_the_named_block_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- a:begin -->\nold\n<!-- a:end -->\n<!-- b:begin -->\nkept\n<!-- b:end -->\n")
    write_between_markers(page, "new", "a")
    assert page.read_text().splitlines()[1] == "new" and "kept" in page.read_text()
    with pytest.raises(UserError, match="c:begin"):
        write_between_markers(page, "x", "c")
    for text in ("<!-- a:begin --> <!-- a:end -->\nkept\n", "<!-- a:end -->\n<!-- a:begin -->\n", "<!-- a:begin -->"):
        page.write_text(text)
        with pytest.raises(UserError, match="a:begin"):
            write_between_markers(page, "x", "a")
        assert page.read_text() == text


def test_a_page_that_a_link_leads_to_is_written_with_its_mode(tmp_path):
    page, link = tmp_path / "page.md", tmp_path / "link.md"
    page.write_text("<!-- a:begin -->\nold\n<!-- a:end -->\n")
    page.chmod(0o640)
    link.symlink_to(page)
    write_between_markers(link, "new", "a")
    assert link.is_symlink() and "new" in page.read_text() and page.stat().st_mode & 0o777 == 0o640
