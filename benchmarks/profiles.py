"""What determinism and the portable profile cost: full training steps at batch 1, contenders in turns, medians.

    python -m benchmarks.profiles [--rounds 5] [--steps 6] [--write]

Each contender is the fast profile with one thing changed, or the portable one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
from typing import Any

from benchmarks.step import repix_step
from benchmarks.support.arguments import positive_number
from checks.harness import Contender, answer, table, turns, write
from repix import profile, stage

CONTENDERS: dict[str, dict[str, Any]] = {
    "fast": {},
    "fast, ops not deterministic": {},
    "fast, no graph optimiser": {"graph_optimizer": False},
    "fast, no oneDNN": {"onednn": False},
    "portable": {},
    "portable, no AVX-512": {"isa": "AVX2"},
}
CASES = (("pix2pix_small", 64), ("pix2pix", 64), ("pix2pix", 256))


def contend(name: str, model: str, size: int) -> None:
    """Answer as one contender, see :func:`checks.harness.answer`."""
    base = profile.find(name.split(",")[0])
    profile.PROFILES[base.name] = dataclasses.replace(base, **CONTENDERS[name])
    profile.enter(base.name)
    if name.endswith("not deterministic"):
        os.environ["TF_DETERMINISTIC_OPS"] = "0"
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism = lambda: None
    answer(repix_step(model, size, 1, "float32"))


def measure(rounds: int, steps: int) -> list[dict[str, Any]]:
    """Return for each case and contender the median milliseconds of a step, and their ratio to the fast profile."""
    figures = []
    for model, size in CASES:
        with contextlib.ExitStack() as stack:
            command = ["-m", "benchmarks.profiles", "--case", model, str(size), "--worker"]
            contenders = {name: stack.enter_context(Contender(name, [*command, name])) for name in CONTENDERS}
            found = turns(contenders, rounds, steps)
        medians = {name: statistics.median(one["ms"]) for name, one in found.items()}
        figures += [
            {"model": model, "size": size, "contender": name, "ms": median, "to_fast": median / medians["fast"]}
            for name, median in medians.items()
        ]
    return figures


def main() -> None:
    """Measure, print JSON or the table, and write the table where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive_number, default=5)
    parser.add_argument("--steps", type=positive_number, default=6, help="of each contender in a round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reproducibility.md")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        contend(given.worker, given.case[0], int(given.case[1]))
        return
    figures = measure(given.rounds, given.steps)
    rows = [(f["model"], f["size"], f["contender"], f"{f['ms']:.1f}", f"{f['to_fast']:.2f}") for f in figures]
    text = table(("model", "px", "contender", "ms per step", "to fast"), rows)
    print(json.dumps(figures, indent=2) if given.json else text)
    if given.write:
        write("reproducibility", "cost", text)


if __name__ == "__main__":
    stage.guard(main)
