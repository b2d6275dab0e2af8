"""Which stages an edit of the code re-runs: those whose result it can change, and no other.

    python -m checks.reruns           compare the records of the stage `code` before and after each edit (seconds)
    python -m checks.reruns --dvc     run a tiny grid, and `dvc repro` after each edit (minutes)

The grid has a pix2pix and a CycleGAN cell. Each edit is made in a copy of the repository and taken back.
Without --dvc a stage counts as re-run if its record changed, which is what DVC goes by. With it the stages are
those that DVC said to run, so those below a stage are among them only if its outs changed too.
Prints a Markdown table; exit code 1 unless each edit re-runs what it should.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from checks.harness import table, write
from checks.remotes import ran
from checks.support import route
from repix import stage
from repix.errors import UserError
from repix.provenance import pipeline

MODELS = ("cyclegan", "pix2pix_small")
WITH_MODEL = ("train", "evaluate", "export")
PACKAGE = "src/repix"


class Edit(NamedTuple):
    """One edit of a tree, and which stages it must re-run: ``stage`` or ``stage@model``."""

    what: str
    make: Callable[[Path], None]
    reruns: frozenset[str] = frozenset()


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Return what replaces the first ``old`` in a file of a tree, which must be there."""

    def make(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        if old not in text:
            raise UserError(f"{path}: no {old!r} to change")
        (root / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return make


def append(path: str, line: str) -> Callable[[Path], None]:
    """Return what appends a line to a file of a tree."""

    def make(root: Path) -> None:
        with open(root / path, "a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")

    return make


def reformat(root: Path) -> None:
    """Format a tree's code with another line length.

    Raises:
        UserError: ruff is not installed.
    """
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", "--line-length", "70", "src", "stages"]
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise UserError("ruff format failed; pip install '.[dev]' brings it")


def of(*models: str) -> frozenset[str]:
    """Return the stages of models."""
    return frozenset(f"{kind}@{model}" for kind in WITH_MODEL for model in models)


EDITS = (
    Edit("a comment in `errors.py`", append(f"{PACKAGE}/errors.py", "# a comment")),
    Edit("a docstring in `models/generators.py`", replace(f"{PACKAGE}/models/generators.py", '"""', '"""Edited. ')),
    Edit("`ruff format` with lines of 70", reformat),
    Edit("code of `tracking/mlflow_run.py`", append(f"{PACKAGE}/tracking/mlflow_run.py", "EDITED = True")),
    Edit("code of `description/diagram.py`", append(f"{PACKAGE}/description/diagram.py", "EDITED = True")),
    Edit("code of `inference/any_size.py`", append(f"{PACKAGE}/inference/any_size.py", "EDITED = True")),
    Edit(
        "the page `gallery.html`",
        append(f"{PACKAGE}/evaluation/templates/gallery.html", "<!-- edited -->"),
        frozenset(f"evaluate@{model}" for model in MODELS),
    ),
    Edit(
        "the model card's page `cards.md`",
        append(f"{PACKAGE}/exporting/templates/cards.md", "Edited."),
        frozenset(f"export@{model}" for model in MODELS),
    ),
    Edit("the demo's page `app.html`", append(f"{PACKAGE}/demo/templates/app.html", "<!-- edited -->")),
    Edit("code of `systems/cyclegan.py`", append(f"{PACKAGE}/systems/cyclegan.py", "EDITED = True"), of("cyclegan")),
    Edit(
        "a constant in `models/generators.py`",
        replace(
            f"{PACKAGE}/models/generators.py",
            'layers.ReLU(name="bottleneck_relu")',
            'layers.LeakyReLU(0.01, name="bottleneck_relu")',
        ),
        of(*MODELS),
    ),
)


def lay_out(root: Path) -> Path:
    """Copy the repository's code to ``root`` with a tiny grid of both systems; return ``root``."""
    route.copy(root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["run"]["models"] = list(MODELS)
    route.put(params, "models.cyclegan", epochs=2, decay_epochs=1, validate_every=1, checkpoint_every=1, pool=2)
    route.put(params, "models.cyclegan.generator", filters=4, blocks=1)
    route.put(params, "models.cyclegan.discriminator", filters=4, layers=1)
    route.write_params(root, params)
    return root


def changed_records(before: dict, after: dict) -> set[str]:
    """Return the stages of the grid whose record is another one, but for ``start``, which always runs."""
    found = set()
    for path, record in after.items():
        if before.get(path) != record and record.model in (None, *MODELS) and record.stage != "start":
            found.add(f"{record.stage}@{record.model}" if record.model else record.stage)
    return found


def repro(root: Path) -> set[str]:
    """Run ``dvc repro`` in a tree; return the stages that ran, but for those that always do.

    Raises:
        UserError: it failed; with the last line that it said.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "REPIX_"))}
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{kept.get('PATH', '')}"
    kept |= {"PATH": path, "PYTHONPATH": str(root / "src"), "REPIX_TRACKING": "off", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=root, env=kept, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"dvc repro: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    found = set()
    for name in ran(done.stdout):
        kind, _, cell = name.partition("@")
        found.add(f"{kind}@{cell.split('-')[1]}" if kind in WITH_MODEL else kind)
    return found


def shown(stages: set[str] | frozenset[str]) -> str:
    """Return stages as a cell of the table."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(stages, key=lambda name: (name.partition("@")[2], name)):
        kind, _, model = name.partition("@")
        kinds.setdefault(kind, []).append(model)
    texts = [f"{kind} ({', '.join(models)})" if any(models) else kind for kind, models in kinds.items()]
    return "; ".join(texts) or "none"


def main() -> None:
    """Make every edit and print the table; exit code 1 if one re-ran something else than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dvc", action="store_true", help="run DVC on a tiny grid instead of comparing records")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reproducibility.md")
    given = parser.parse_args()
    rows, sound = [], True
    with tempfile.TemporaryDirectory(prefix="repix-reruns-") as folder:
        root, kept = lay_out(Path(folder) / "tree"), Path(folder) / "kept"
        for part in ("src", "stages"):
            shutil.copytree(root / part, kept / part)
        if given.dvc:
            subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=root, check=True)
            repro(root)
        before = pipeline.code_records(root)
        for edit in EDITS:
            edit.make(root)
            seen = repro(root) if given.dvc else changed_records(before, pipeline.code_records(root))
            # An edit whose training gives the same outs lets DVC stop there: fewer than could re-run, never more.
            right = seen <= edit.reruns and ("train" in shown(seen)) == ("train" in shown(edit.reruns))
            right &= given.dvc or seen == edit.reruns
            sound &= right
            rows.append([edit.what, shown(seen), right])
            for part in ("src", "stages"):
                shutil.rmtree(root / part)
                shutil.copytree(kept / part, root / part)
            if given.dvc:
                repro(root)
    text = table(["edit", "stages re-run", "as it should be"], rows)
    print(text)
    if given.write:
        write("reproducibility", "reruns", text)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    stage.guard(main)
