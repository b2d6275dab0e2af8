"""A repository with two exported models of the same kind, and one that the page cannot show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from checks.support.repository import CELL

SECOND = "tiny-pix2pix-1"
BFLOAT16 = "tiny-pix2pix-2"


def double(root: Path, cell: str) -> Path:
    """Export the tiny model once more under another name; return the folder."""
    folder = root / "exports" / cell
    shutil.copytree(root / "exports" / CELL, folder)
    record = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(record | {"cell": cell}))
    return folder


def negate(folder: Path) -> None:
    """Turn an exported model into its negative, so that it gives other pictures."""
    import onnx

    from repix.files import digest_file

    path = folder / "source_to_target" / "model.onnx"
    model = onnx.load(path)
    last = next(node for node in model.graph.node if "translation" in node.output)
    last.output[0] = "positive"
    model.graph.node.append(onnx.helper.make_node("Neg", ["positive"], ["translation"]))
    onnx.save(model, path)
    record = json.loads((folder / "export.json").read_text())
    record["digests"]["source_to_target"]["onnx"] = digest_file(path)
    (folder / "export.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def repository(tmp_path_factory, tiny_repository):
    root = tiny_repository(tmp_path_factory.mktemp("demo") / "repository")
    negate(double(root, SECOND))
    folder = double(root, BFLOAT16)
    record = json.loads((folder / "export.json").read_text())
    record["digests"]["source_to_target"] = {"keras": "0" * 64}
    (folder / "export.json").write_text(json.dumps(record))
    return root


@pytest.fixture(scope="session")
def entries(repository):
    from repix.demo import catalogue

    return catalogue.find(repository)
