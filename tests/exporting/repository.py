"""A tiny repository with one trained, scored and exported cell, as the stages leave it."""

from __future__ import annotations

import subprocess
from pathlib import Path

CELL = "tiny-pix2pix-0"


def git(root: Path, *command: str) -> str:
    """Run git in ``root`` with a fixed identity; return what it prints."""
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(root), *who, *command], capture_output=True, text=True, check=True).stdout


def write_lineage(root: Path) -> None:
    """Write the export stage's record for what lies in exports/."""
    from repix.files import digest_tree
    from repix.provenance.lineage import Lineage

    path = f"exports/{CELL}"
    record = Lineage(
        stage="export",
        cell=CELL,
        params={},
        inputs={"data/prepared/tiny": "d" * 64},
        code={},
        environment={},
        profile={},
        run_key="k" * 64,
        outputs={path: digest_tree(root / path)},
    )
    record.write(root / "lineage" / "export" / f"{CELL}.json")


def make(root: Path) -> Path:
    """Make the repository below ``root`` and return it."""
    from repix.config.datasets import Dataset
    from repix.config.evaluation import Evaluate
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel
    from tests.cells import train_cell

    root.mkdir()
    made = train_cell(root / "work")
    (root / "runs").mkdir()
    made.trained.rename(root / "runs" / CELL)
    (root / "data" / "prepared").mkdir(parents=True)
    made.prepared.rename(root / "data" / "prepared" / "tiny")
    model, prepared = TrainedModel(root / "runs" / CELL), Prepared.open(root / "data" / "prepared" / "tiny")
    metrics = evaluate(model, prepared, Evaluate(swd=False), root / "translations" / CELL)
    metrics.write(root / "metrics" / f"{CELL}.json")
    asked = {"urls": ["file:tiny.zip"], "layout": "aligned", "crop_size": 16, "load_size": 18, "licence": "CC0"}
    entry = Dataset.model_validate(asked)
    export(model, prepared, Export(formats=["onnx"]), root / "exports" / CELL, metrics=metrics, dataset=entry)
    write_lineage(root)
    lines = ["/work/", "/runs/", "/data/", "/translations/", "/exports/", "/lineage/", "/.repix/", "/mlflow.db*"]
    (root / ".gitignore").write_text("\n".join([*lines, "/mlartifacts/", ""]))
    (root / "params.yaml").write_text("run: {}\n")
    (root / "dvc.lock").write_text(f"stages: {{export: {{outs: [{{path: exports/{CELL}, md5: abc.dir}}]}}}}\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "result")
    return root
