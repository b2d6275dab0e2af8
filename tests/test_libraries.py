"""Keras comes in half its time: without what it would import on the chance of its use, which stays at hand."""

from __future__ import annotations

import gc
import subprocess
import sys
import typing

import pytest

from repix import libraries
from tests.conftest import ROOT

PROGRAM = """
import gc, sys, typing
from repix import profile
profile.apply(sys.argv[1])
from repix.libraries import OPTIONAL, import_keras
import_keras()
print(*(name for name in OPTIONAL if name in sys.modules))
assert "keras" in sys.modules and gc.isenabled() and gc.get_freeze_count() > 10_000
assert not hasattr(typing, "compile")
import pandas, sklearn
assert pandas.DataFrame({"a": [1]}).a.sum() == 1
"""


@pytest.mark.parametrize(("profile", "imported"), [("portable", ""), ("jax", "jax")])
def test_what_is_optional_stays_out_and_can_be_imported_afterwards(profile, imported):
    if imported:
        pytest.importorskip(imported)
    command = [sys.executable, "-c", PROGRAM, profile]
    ended = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == imported


def test_an_import_that_fails_leaves_all_as_it_was(monkeypatch):
    monkeypatch.setattr(libraries, "OPTIONAL", ("repix_none_such", "sys"))
    with pytest.raises(ZeroDivisionError), libraries._faster_imports():
        assert sys.modules["repix_none_such"] is None and sys.modules["sys"] is sys
        with pytest.raises(ImportError):
            import repix_none_such  # noqa: F401
        assert not gc.isenabled() and typing.ForwardRef("int | str").__forward_code__.co_names == ("int", "str")
        raise ZeroDivisionError
    assert "repix_none_such" not in sys.modules and gc.isenabled() and not hasattr(typing, "compile")
