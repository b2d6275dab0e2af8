"""Tests run under the portable profile, like the stages that they speak about."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
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


MOST_GRADIENTS = 400  # that wait to be forgotten: some hundred MB


@pytest.fixture(autouse=True)
def _forget_graphs():
    """Let go of the graphs of tests that are over, so that a worker's memory does not grow with every one.

    TensorFlow keeps each ``custom_gradient`` that was traced into a graph in a table of the process, for good,
    and with it the graph: a worker grew to 10 GB. Only once there are many: a collection takes seconds.
    """
    yield
    ops = sys.modules.get("tensorflow.python.framework.ops")
    table = ops._gradient_registry._registry if ops else {}
    names = [name for name in table if name.startswith("CustomGradient-")]
    if len(names) < MOST_GRADIENTS:
        return
    for name in names:
        del table[name]
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
