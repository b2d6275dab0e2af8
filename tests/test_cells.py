"""Cells: the three parts of a name, and nothing else."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from repix.cells import SEEDS, Cell, CellName
from repix.config.models import StartFrom
from repix.config.reader import parse
from repix.errors import UserError


def test_a_cell_and_its_name():
    cell = Cell("sample", "pix2pix_small", 12)
    assert cell.name == "sample-pix2pix_small-12"
    assert cell.family == "sample-pix2pix_small"
    assert Cell.named(cell.name) == cell


def test_a_cell_from_the_command_line():
    assert Cell.parse("sample", "pix2pix_small", "12") == Cell("sample", "pix2pix_small", 12)
    assert Cell.parse("a", "b", "007").name == "a-b-7"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a", "b", "x"), "'x' is not a seed: seeds are whole numbers from 0 to 2147483647"),
        (("a", "b", "-1"), "'-1' is not a seed"),
        (("a", "b", "1.0"), "'1.0' is not a seed"),
        (("a", "b", "2147483648"), "is not a seed"),
        (("../a", "b", "0"), "'../a' is not a name: names are letters, digits and underscores"),
        (("a", "", "0"), "'' is not a name"),
    ],
)
def test_a_wrong_cell_is_one_line(given, said):
    with pytest.raises(UserError) as caught:
        Cell.parse(*given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["", "a-b", "a-b-c", "a-b-0-1", "a-b-007", "a-b--1", f"a-b-{SEEDS}", "../a-b-0", "a-b-0\nx", "a/b-c-0", "_a-b-0"],
)
def test_what_is_no_name_of_a_cell(name):
    with pytest.raises(UserError, match="is no cell; a cell is named <dataset>-<model>-<seed>"):
        Cell.named(name)
    with pytest.raises(ValidationError, match="is no cell"):
        TypeAdapter(CellName).validate_python(name)


def test_a_wrong_name_in_params_is_told_once():
    with pytest.raises(UserError) as caught:
        parse({"cell": "b"}, StartFrom, "models.x.start_from")
    assert "models.x.start_from.cell: 'b' is no cell; a cell is named" in str(caught.value)
