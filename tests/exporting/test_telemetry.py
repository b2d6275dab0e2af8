"""onnxruntime phones home unless it is told not to before its import: every way of ours to it tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from checks.support.cells import SIZE
from checks.support.repository import CELL
from repix.schemas import Exported

ROOT = Path(__file__).resolve().parents[2]
# In place of onnxruntime: it writes down what it would have read, and ends the import.
STAND_IN = """
import os, sys
print("asked with", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.stdout.flush()
os._exit(0)
"""

WAYS = {
    "export": (
        "from pathlib import Path; from repix.exporting import onnx_format\n"
        "onnx_format.load(next(Path('repository').rglob('model.onnx')))"
    ),
    "stage": "from repix import profile; profile.leave(); import onnxruntime",
    "stage with a profile": "from repix import profile; profile.apply('portable'); import onnxruntime",
    "command line": (
        "import contextlib; from repix import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['results'])\n"
        "import onnxruntime"
    ),
    "demo": (
        "from pathlib import Path; from repix.demo import app, catalogue\n"
        "app.Models().get(catalogue.find(Path('repository'))[0][0])"
    ),
    "translate": (
        "from repix import cli; cli.main(['translate', 'repository/exports/tiny-pix2pix-0', 'a.png', '-o', 'out'])"
    ),
    "python": "import repix; repix.load('repository/exports/tiny-pix2pix-0')",
    "served model": "import mlflow.pyfunc; mlflow.pyfunc.load_model('model')",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_repository):
    from repix.publishing import registry

    folder = tmp_path_factory.mktemp("telemetry")
    root = tiny_repository(folder / "repository")
    record = Exported.read(root / "exports" / CELL / "export.json")
    registry.save(root, record, "source_to_target", folder / "model")
    Image.new("RGB", (SIZE, SIZE)).save(folder / "a.png")
    (folder / "stand_in").mkdir()
    (folder / "stand_in" / "onnxruntime.py").write_text(STAND_IN)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_it_is_told_before_it_is_imported(folder, way):
    places = [folder / "stand_in"] + ([] if way == "served model" else [ROOT / "src"])
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "DO_NOT_TRACK"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, places))
    done = subprocess.run(
        [sys.executable, "-c", WAYS[way]], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "asked with 1" in done.stdout, done.stdout + done.stderr


def test_make_tells_it_too():
    assert "export ORT_DISABLE_TELEMETRY := 1" in (ROOT / "Makefile").read_text().splitlines()
