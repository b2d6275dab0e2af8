"""A repository with a grid of tiny cells, whose stages are a few lines of Python: no network is built."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from checks import remotes
from checks.support.repository import git

SHARED = """\
import sys
from pathlib import Path
Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
Path(sys.argv[1]).write_text(sys.argv[2] + "\\n")
"""
# Trains 4 steps of FARM_STEP_SECONDS, a checkpoint after each; where FARM_HOLD names a folder with <cell>-<step>, it
# waits before that step.
TRAIN = """\
import os, sys, time
from pathlib import Path
dataset, model, seed = sys.argv[2::2]
cell = f"{dataset}-{model}-{seed}"
work = Path(os.environ["DVC_ROOT"]) / ".repix" / "checkpoints"
work.mkdir(parents=True, exist_ok=True)
saved = work / cell
done = saved.read_text().split() if saved.exists() else []
started = os.environ.get("FARM_STARTED")
if started:
    with open(started, "a") as log:
        log.write(f"{cell} {len(done)} {os.getpid()}\\n")
for step in range(len(done), 4):
    hold = Path(os.environ.get("FARM_HOLD", "/nowhere")) / f"{cell}-{step}"
    while hold.exists():
        hold.with_suffix(".reached").touch()
        time.sleep(0.05)
    time.sleep(float(os.environ.get("FARM_STEP_SECONDS", 0)))
    done.append(str(step * int(seed) + len(Path("data/prepared", dataset).read_text())))
    saved.write_text(" ".join(done))
    print(f"{cell}: epoch 1/1, step {step + 1}/4", flush=True)
if model == "broken":
    sys.exit("repix: this model cannot be trained")
Path("runs", cell).mkdir(parents=True, exist_ok=True)
Path("runs", cell, "weights").write_text(" ".join(done))
saved.unlink()
"""
EVALUATE = """\
import json, sys
from pathlib import Path
cell = "-".join(sys.argv[2::2])
Path("metrics").mkdir(exist_ok=True)
score = sum(map(int, Path("runs", cell, "weights").read_text().split())) * 1e-6
Path("metrics", cell + ".json").write_text(json.dumps({"score": score}) + "\\n")
Path("translations").mkdir(exist_ok=True)
Path("translations", cell).write_text("translated by " + cell)
"""
EXPORT = """\
import sys
from pathlib import Path
cell = "-".join(sys.argv[2::2])
Path("exports").mkdir(exist_ok=True)
score = Path("metrics", cell + ".json").read_text()
Path("exports", cell).write_text(Path("runs", cell, "weights").read_text() + score)
"""
SCORES = """\
import json
from pathlib import Path
found = {path.stem: json.loads(path.read_text()) for path in sorted(Path("metrics").glob("*-*.json"))}
Path("metrics").mkdir(exist_ok=True)
Path("metrics", "scores.json").write_text(json.dumps(found) + "\\n")
"""
CELL = "${item.dataset}-${item.model}-${item.seed}"
GRID = {"dataset": "${run.datasets}", "model": "${run.models}", "seed": "${run.seeds}"}
WIRING = {
    "code": {
        "cmd": "python stages/shared.py code/train.json records",
        "always_changed": True,
        "outs": [{"code": {"cache": False}}],
    },
    "preprocess": {
        "matrix": {"dataset": "${run.datasets}"},
        "cmd": "python stages/shared.py data/prepared/${item.dataset} ${item.dataset}",
        "outs": ["data/prepared/${item.dataset}"],
    },
    "train": {
        "matrix": GRID,
        "cmd": "python stages/train.py ${item}",
        "params": ["models.${item.model}"],
        "deps": ["code/train.json", "data/prepared/${item.dataset}"],
        "outs": [f"runs/{CELL}"],
    },
    "evaluate": {
        "matrix": GRID,
        "cmd": "python stages/evaluate.py ${item}",
        "deps": [f"runs/{CELL}", "data/prepared/${item.dataset}"],
        "outs": [f"translations/{CELL}"],
        "metrics": [{f"metrics/{CELL}.json": {"cache": False}}],
    },
    "export": {
        "matrix": GRID,
        "cmd": "python stages/export.py ${item}",
        "deps": [f"runs/{CELL}", f"metrics/{CELL}.json"],
        "outs": [f"exports/{CELL}"],
    },
    "scores": {
        "cmd": "python stages/scores.py",
        "always_changed": True,
        "params": ["run.seeds"],
        "deps": ["code/train.json"],
        "metrics": [{"metrics/scores.json": {"cache": False}}],
    },
}
PARAMS = {
    "run": {"datasets": ["a", "b"], "models": ["m"], "seeds": [1]},
    "models": {"m": {"rate": 1e-06, "name": "yes", "on": "2e-4"}, "broken": {"rate": 1.0}},
}


def make(root: Path) -> Path:
    """Make the repository below ``root``, committed, with nothing run; return ``root``."""
    (root / "stages").mkdir(parents=True)
    for name, text in (
        ("shared", SHARED),
        ("train", TRAIN),
        ("evaluate", EVALUATE),
        ("export", EXPORT),
        ("scores", SCORES),
    ):
        (root / "stages" / f"{name}.py").write_text(text)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": WIRING}, sort_keys=False))
    put(root, PARAMS)
    (root / ".gitignore").write_text("/data/\n/runs/\n/translations/\n/exports/\n/.repix/\n")
    (root / ".dvcignore").write_text(".repix\n")
    init(root)
    return root


def init(root: Path) -> None:
    """Make a folder a repository of git and DVC, and commit everything in it."""
    git(root, "init", "--quiet")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    autostage = false\n")
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    commit(root)


def put(root: Path, params: dict) -> None:
    """Write params.yaml."""
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def commit(root: Path) -> None:
    """Commit everything."""
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--allow-empty", "-m", "state")


def serial(root: Path) -> bytes:
    """Run `dvc repro` alone; return dvc.lock."""
    remotes.dvc(root, "repro", "--quiet")
    return (root / "dvc.lock").read_bytes()


def files(root: Path) -> dict[str, str]:
    """Return path -> text of everything that stages write."""
    found = [
        p for name in ("data", "runs", "translations", "exports", "metrics", "code") for p in (root / name).rglob("*")
    ]
    return {path.relative_to(root).as_posix(): path.read_text() for path in found if path.is_file()}


def farm(*arguments: str) -> list[str]:
    """Return the command line of `repix farm`."""
    return [sys.executable, "-m", "repix.cli", "farm", *arguments]
