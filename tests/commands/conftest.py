"""Commands are tried from the root of the repository."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
