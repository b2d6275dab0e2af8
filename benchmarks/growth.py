"""How the cost of a training step grows with the images' size and the batch, and how well it is known beforehand.

    python -m benchmarks.growth [--rows pix2pix-64x1 cyclegan-256x1 ...]

Each row is `repix describe --measure --json` in a folder of its own: steps of a recipe under the fast profile, in one
process. Memory is what `repix describe` predicts without training; the time of a step on this machine is

    overhead + seconds per weight x weights + FLOPs / rate

whose three numbers are fitted to the rows themselves, so that its errors say how well such a formula can do. A row that
would take more than three quarters of this machine's memory is predicted and not run. It prints JSON; `make bench`
writes the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks.harness import table
from checks.systems import lay_out, params_of, sized
from repix import machine, stage
from repix.errors import UserError

ROWS = (
    *(f"pix2pix-{row}" for row in ("64x1", "64x4", "64x16", "64x64", "128x1", "128x16", "256x1", "256x4", "256x16")),
    *(f"pix2pix-{row}" for row in ("512x1", "512x4", "1024x1", "1024x64")),
    *(f"cyclegan-{row}" for row in ("64x1", "128x1", "256x1", "1024x1")),
)
DATASETS = {"pix2pix": "facades", "cyclegan": "facades_unaligned"}
SHARE = 0.75  # of the machine's memory that a row may be predicted to take


def described(row: str, *options: str) -> dict[str, Any]:
    """Return what `repix describe` says of a row, ``<recipe>-<size>x<batch>``."""
    model, cost = row.split("-")
    size, batch = map(int, cost.split("x"))
    images = sized(DATASETS[model], size)
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), params_of({model: {"batch_size": batch}}, {DATASETS[model]: ({}, images)}))
        command = [sys.executable, "-m", "repix.cli", "describe", f"{DATASETS[model]}-{model}", "--json", *options]
        ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        raise UserError(f"{row}: exit code {ran.returncode}, see above")
    return json.loads(ran.stdout)


def measured(row: str) -> dict[str, Any]:
    """Return a row's figures; ``ms`` and ``peak`` are None where the machine has too little memory for it."""
    found = described(row)
    facts = found["facts"]
    weights = sum(network["parameters"] for network in facts["networks"].values())
    known = {"flops": facts["step_flops"], "weights": weights, "predicted_peak": facts["memory_bytes"]}
    if facts["memory_bytes"] > SHARE * (machine.memory_bytes() or float("inf")):
        return known | {"ms": None, "peak": None}
    took = described(row, "--measure")["measured"]
    return known | {"ms": took["ms_per_step"], "peak": took["peak_bytes"]}


def fit(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return milliseconds of overhead, for each weight and for each FLOP: least relative errors, none below 0."""
    terms = np.array([[1.0, one["weights"], one["flops"]] for one in rows])
    ms = np.array([one["ms"] for one in rows])
    scaled = terms / ms[:, None]
    used = np.ones(3, bool)
    while True:
        found = np.zeros(3)
        found[used] = np.linalg.lstsq(scaled[:, used], np.ones(len(rows)), rcond=None)[0]
        if (found >= 0).all():
            return found
        used &= found > 0


def off(predicted: float, value: float) -> str:
    """Return how far a prediction is from what was measured, in percent."""
    return f"{100 * (predicted / value - 1):+.0f} %"


def placed(row: str) -> list[int]:
    """Return what rows are sorted by: recipe, size and batch."""
    model, cost = row.split("-")
    return [list(DATASETS).index(model), *map(int, cost.split("x"))]


def section(record: dict[str, Any]) -> list[str]:
    """Return the lines of docs/performance.md on what was measured."""
    rows = dict(sorted(record["result"].items(), key=lambda row: placed(row[0])))  # JSON has them by name
    done = [one for one in rows.values() if one["ms"] is not None]
    overhead, weight, flop = found = fit(done) if done else np.zeros(3)
    lines, errors = [], {"time": [], "memory": []}
    for name, one in rows.items():
        model, cost = name.split("-")
        size, batch = cost.split("x")
        ms = float(found @ [1.0, one["weights"], one["flops"]])
        known = [model, size, batch, f"{one['flops'] / 1e9:,.1f}"]
        if one["ms"] is None:
            lines.append([*known, f"({ms:,.0f})" if done else "", "", "", f"({one['predicted_peak'] / 1e9:,.1f})", ""])
            continue
        errors["time"].append(abs(ms / one["ms"] - 1))
        errors["memory"].append(abs(one["predicted_peak"] / one["peak"] - 1))
        of_time, of_memory = off(ms, one["ms"]), off(one["predicted_peak"], one["peak"])
        image = f"{one['ms'] / int(batch):,.0f}"
        lines.append([*known, f"{one['ms']:,.0f}", image, of_time, f"{one['peak'] / 1e9:.2f}", of_memory])
    head = ["recipe", "px", "batch", "GFLOP", "ms", "ms an image", "time predicted", "GB", "memory predicted"]
    said = []
    if done:
        worst = {name: 100 * max(found) for name, found in errors.items()}
        half = {name: 100 * float(np.median(found)) for name, found in errors.items()}
        said = [
            f"Time predicted: {overhead:.0f} ms + {1e6 * weight:.2f} ms for each million weights + GFLOP / "
            f"{1e-6 / flop:,.0f} GFLOP/s; at most {worst['time']:.0f} % off, half of the rows by less than "
            f"{half['time']:.0f} %. Memory predicted by `repix describe`: at most {worst['memory']:.0f} % off, half by "
            f"less than {half['memory']:.0f} %. In brackets: predicted, and not run. Neither formula knows that the "
            "wide convolutions of CycleGAN's ResNets need a quarter of the multiplications here, and memory for their "
            "transformed kernels.",
            "",
        ]
    return ["## How cost grows", "", f"`{record['command']}`", "", table(head, lines, left=1), "", *said]


def main() -> None:
    """Measure what was asked for, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help="such as pix2pix-64x4")
    found = {}
    for row in parser.parse_args().rows:
        found[row] = measured(row)
        print(f"{row}: {found[row]}", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    stage.guard(main)
