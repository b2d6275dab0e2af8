"""What the stages cost beside the training: start-up, preprocess, no-op repro, translation. Prints JSON.

    python -m benchmarks.stages [--only startup facades repro translate] [--repeats 5]

startup: ``--help`` of each stage, and its refusal of an unknown data set, which comes after
all of a stage's start (profile entered, parameters read); and which heavy packages that had imported.
facades: the real archive (``--facades``, default ``../shared/data/facades.tar.gz``) unpacked and
prepared by the stages, in a temporary folder. repro: ``dvc repro`` where nothing is to do.
translate: pix2pix at 256 px, first image (with tracing) and median of the next ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.support.arguments import positive_number
from checks.harness import ROOT
from checks.remotes import ran

STAGES = {"code_records": 0, "download": 1, "unpack": 1, "preprocess": 1, "features": 0}
STAGES |= {"start": 3, "train": 3, "evaluate": 3, "export": 3, "scores": 0}
"""Script -> how many of dataset, model and seed it takes."""
HEAVY = ("tensorflow", "torch", "mlflow", "keras", "jax", "dvc")


def timed(command: list[str], cwd: Path = ROOT) -> tuple[float, subprocess.CompletedProcess]:
    """Return seconds and the finished process."""
    before = time.perf_counter()
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"REPIX_TRACKING": "off"})
    return time.perf_counter() - before, ended


def startup(given) -> dict:
    """Return seconds of each stage that does nothing, and the heavy packages that it imported."""
    found = {}
    for name, arguments in STAGES.items():
        script = f"stages/{name}.py"
        row = {"help": statistics.median(timed([sys.executable, script, "--help"])[0] for _ in range(given.repeats))}
        if arguments:
            wrong = ["--dataset", "nosuchset", "--model", "pix2pix", "--seed", "0"][: 2 * arguments]
            row["refusal"] = statistics.median(timed([sys.executable, script, *wrong])[0] for _ in range(given.repeats))
            said = timed([sys.executable, "-X", "importtime", script, *wrong])[1]
            if said.returncode != 1 or "repix: " not in said.stderr:
                raise RuntimeError(f"{script} {wrong}: {said.stderr[-500:]}")
            modules = {line.rsplit("|", 1)[1].strip() for line in said.stderr.splitlines() if line.count("|") == 2}
            row["heavy"] = sorted(modules & set(HEAVY))
        found[name] = row
    return found


def facades(given) -> dict:
    """Return seconds of the stages up to preprocess on the real facades."""
    import yaml

    if not given.facades.exists():
        return {"skipped": f"no {given.facades.name} (--facades)"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("src", "stages"):
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["run"] |= {"datasets": ["facades"], "profile": "fast"}
        params["datasets"]["facades"]["archive"] |= {"urls": [given.facades.resolve().as_uri()], "sha256": None}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        found: dict = {}
        for name in ("download", "unpack", "preprocess"):
            times = []
            for _ in range(given.repeats if name == "preprocess" else 1):
                seconds, ended = timed([sys.executable, f"stages/{name}.py", "--dataset", "facades"], root)
                if ended.returncode:
                    raise RuntimeError(ended.stderr)
                times.append(seconds)
            found[name] = statistics.median(times)
        manifest = json.loads((root / "data/prepared/facades/manifest.json").read_text())
        found["pairs"] = sum(split["source"]["n"] for split in manifest["splits"].values())
    return found


def repro(given) -> dict:
    """Return seconds of a ``dvc repro`` that finds nothing to do."""
    command = [sys.executable, "-m", "dvc"]
    ended = timed([*command, "repro", "--dry"])[1]
    if ended.returncode or ran(ended.stdout):
        return {"skipped": "the workspace is not up to date: run `make repro` first"}
    return {"seconds": statistics.median(timed([*command, "repro"])[0] for _ in range(given.repeats))}


def translate(given) -> dict:
    """Return milliseconds of one image through pix2pix's generator: the first, and the median of later ones."""
    from repix.libraries import import_keras

    before = time.perf_counter()
    import_keras()
    imports = time.perf_counter() - before
    import numpy as np

    from repix.config import models, reader
    from repix.inference.any_size import AnySize
    from repix.inference.backend import backend_module
    from repix.models.initialization import initialize
    from repix.schemas import Side
    from repix.systems.system import build

    compile_function = backend_module().compile_function
    recipe = reader.read("models.pix2pix", models.Recipe, ROOT / "params.yaml")
    networks = build(recipe, (256, 256), 3, 3, True).networks
    initialize(networks, "normal", 0)
    side = Side.model_construct(low=(0.0,) * 3, high=(255.0,) * 3, dtype="uint8")
    translator = AnySize(networks["generator"], side, side, compile_function)
    image, times = np.zeros((256, 256, 3), np.uint8), []
    for _ in range(1 + 4 * given.repeats):
        before = time.perf_counter()
        translator(image)
        times.append(1000 * (time.perf_counter() - before))
    return {"imports_ms": 1000 * imports, "first_ms": times[0], "median_ms": statistics.median(times[1:])}


def main() -> None:
    """Measure and print JSON."""
    parts = {"startup": startup, "facades": facades, "repro": repro, "translate": translate}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--repeats", type=positive_number, default=5)
    parser.add_argument("--facades", type=Path, default=ROOT.parent / "shared" / "data" / "facades.tar.gz")
    given = parser.parse_args()

    from repix import profile

    profile.enter("fast")
    print(json.dumps({name: parts[name](given) for name in given.only}, indent=2))


if __name__ == "__main__":
    main()
