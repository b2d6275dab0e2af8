"""Tests run under the portable profile, like the stages that they speak about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repix import profile

profile.apply("portable")

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("REPIX_REAL_DATA", ROOT.parent / "shared"))


def real_data(name: str) -> Path:
    """Return a file of the real data (``REPIX_REAL_DATA``, default ``../shared``), or skip."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"real data not there: {name} (set REPIX_REAL_DATA)")
    return path


def pytest_terminal_summary(terminalreporter):
    """Say how many tests were skipped for lack of the real data."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "real data not there" in str(r.longrepr)]
    terminalreporter.write_line(f"skipped for lack of real data: {len(skipped)}")
