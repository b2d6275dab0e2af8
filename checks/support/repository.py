"""A tiny repository with one trained, scored and exported cell, as the stages leave it."""

from __future__ import annotations

import subprocess
from pathlib import Path

CELL = "tiny-pix2pix-0"


def git(root: Path, *command: str) -> str:
    """Run git in ``root`` with a fixed identity; return what it prints."""
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false", "-c", "safe.directory=*"]
    return subprocess.run(["git", "-C", str(root), *who, *command], capture_output=True, text=True, check=True).stdout


def write_lineage(root: Path) -> None:
    """Write the records of training and export for what lies in runs/ and exports/."""
    from repix.files import digest_tree
    from repix.provenance.lineage import Lineage

    data = {"data/prepared/tiny": "d" * 64}
    run, exports = ({path: digest_tree(root / path)} for path in (f"runs/{CELL}", f"exports/{CELL}"))
    for stage, key, inputs, outputs in (("train", "k", data, run), ("export", "e", data | run, exports)):
        record = Lineage(
            stage=stage,
            cell=CELL,
            params={},
            inputs=inputs,
            code={},
            environment={},
            profile={},
            run_key=key * 64,
            outputs=outputs,
        )
        record.write(root / "lineage" / stage / f"{CELL}.json")


def make(root: Path) -> Path:
    """Make the repository below ``root`` and return it."""
    from checks.support.cells import train_cell
    from repix.config.archive import Archive
    from repix.config.evaluation import Evaluate
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    root.mkdir()
    made = train_cell(root / "work")
    (root / "runs").mkdir()
    made.trained.rename(root / "runs" / CELL)
    (root / "data" / "prepared").mkdir(parents=True)
    made.prepared.rename(root / "data" / "prepared" / "tiny")
    model, prepared = TrainedModel(root / "runs" / CELL), Prepared.open(root / "data" / "prepared" / "tiny")
    metrics = evaluate(model, prepared, Evaluate(swd=False), root / "translations" / CELL)
    metrics.write(root / "metrics" / f"{CELL}.json")
    archive = Archive(urls=["file:tiny.zip"], licence="CC0")
    export(model, prepared, Export(formats=["onnx"]), root / "exports" / CELL, metrics=metrics, archive=archive)
    write_lineage(root)
    lines = ["/work/", "/runs/", "/data/", "/translations/", "/exports/", "/lineage/", "/.repix/", "/mlflow.db*"]
    (root / ".gitignore").write_text("\n".join([*lines, "/mlartifacts/", ""]))
    (root / "params.yaml").write_text("run: {}\n")
    (root / "dvc.lock").write_text(f"stages: {{export: {{outs: [{{path: exports/{CELL}, md5: abc.dir}}]}}}}\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "result")
    return root
