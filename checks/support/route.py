"""The whole route on a tiny set, by the stage scripts, in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from repix.provenance import lock
from repix.provenance.lineage import Lineage
from repix.provenance.pipeline import Stage, stages

ROOT = Path(__file__).resolve().parents[2]
CELL = "sample-pix2pix_small-0"


def copy(root: Path, mtime: int | None = None) -> Path:
    """Copy what stages are made of to ``root``, shrink the sample and its model; return ``root``."""
    for folder in ("src", "stages"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", root)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["run"] |= {"datasets": ["sample"], "models": ["pix2pix_small"], "seeds": [0]}
    url = "synthetic:facades?size=16&train=4&val=2&test=2&seed=0"
    put(params, "datasets.sample.archive", urls=[url], sha256=None)
    put(params, "datasets.sample.images", load_size=18, crop_size=16)
    put(params, "models.pix2pix_small", epochs=2, decay_epochs=1, validate_every=1, checkpoint_every=1)
    put(params, "models.pix2pix_small.generator", filters=4, depth=2)
    put(params, "models.pix2pix_small.discriminator", filters=4, layers=1)
    params["export"]["images"] = 2
    write_params(root, params)
    if mtime is not None:
        for path in root.rglob("*"):
            os.utime(path, (mtime, mtime))
    return root


def put(params: dict, group: str, **values: Any) -> None:
    """Set keys of a dotted group of params.yaml, which is made where an entry leaves it at its defaults."""
    for part in group.split("."):
        params = params.setdefault(part, {})
    params |= values


def write_params(root: Path, params: dict) -> None:
    """Write a tree's params.yaml."""
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def run(root: Path, *kinds: str, umask: int = 0o022, **environment: str) -> Path:
    """Run stages of a tree in order, in one process; return ``root``.

    What they read of params.yaml goes to ``reads/<stage>``, see :func:`reads`.
    """
    logs = root / "reads"
    logs.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    kept["PYTHONPATH"] = str(root / "src")
    commands = [stage.cmd.removeprefix("python ") for stage in stages(root) if stage.kind in kinds]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("reads.py")), str(logs), *commands],
        cwd=root,
        env=kept | {"REPIX_TRACKING": "off", "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        umask=umask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{commands}: {done.stdout}{done.stderr}"
    return root


def reads(root: Path, kind: str) -> set[str]:
    """Return the keys that a stage was seen to read."""
    log = root / "reads" / kind
    return set(log.read_text().split()) if log.exists() else set()


def out_files(root: Path) -> dict[str, Path]:
    """Return relative path -> file, for every file of every out."""
    found = [file for stage in stages(root) for out in stage.outs for file in [root / out, *(root / out).rglob("*")]]
    return {file.relative_to(root).as_posix(): file for file in found if file.is_file()}


def lineage(root: Path, stage: Stage) -> Lineage:
    """Return the lineage record that a stage left."""
    return Lineage.read(root / next(out for out in stage.outs if out.startswith("lineage/")))


def locked(root: Path) -> Path:
    """Write the dvc.lock that DVC would have written after the stages of ``root``; return ``root``."""
    tree, made = {"schema": "2.0", "stages": {}}, {}
    for stage in stages(root):
        entry = lock.entry_of(root, stage, made)
        entry["outs"] = [{"path": out, "md5": lock.md5(root / out)} for out in stage.outs]
        made |= {out["path"]: out["md5"] for out in entry["outs"]}
        tree["stages"][stage.name] = entry
    (root / "dvc.lock").write_text(yaml.safe_dump(tree, sort_keys=False))
    return root
