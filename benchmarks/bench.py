"""`make bench`: run every benchmark, keep its JSON in bench-results/, write docs/performance.md.

    python -m benchmarks.bench [--quick] [--only step sampler ...] [--no-report]

``--quick`` runs all of it at toy sizes, to see that it runs: its figures mean nothing, they go to
bench-results/quick/ and no page is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from checks.harness import ROOT

RESULTS = ROOT / "bench-results"

# name -> (arguments of the full run, arguments of the quick one)
BENCHMARKS: dict[str, tuple[str, str]] = {
    "step-pix2pix-1": ("step --rounds 5 --steps 6", "step --size 32 --rounds 1 --steps 1 --only torch"),
    "step-pix2pix-64": (
        "step --size 64 --rounds 5 --steps 20 --only repix-portable torch",
        "step --size 32 --rounds 1 --steps 1 --only repix-portable",
    ),
    "step-pix2pix-16": (
        "step --batch 16 --rounds 2 --steps 1 --only repix-bf16 torch torch-bf16",
        "step --size 32 --batch 2 --rounds 1 --steps 1 --only repix-bf16",
    ),
    "step-cyclegan": (
        "step --system cyclegan --size 256 --rounds 3 --steps 1",
        "step --system cyclegan --size 32 --rounds 1 --steps 1 --only torch",
    ),
    "sampler": ("sampler", "sampler --pairs 20 --repeats 1 --load 40 --crop 32"),
    "frechet": ("frechet", "frechet --n 16 --dims 64"),
    "growth": ("growth", "growth --rows pix2pix-64x1"),
    "stages": ("stages", "stages --repeats 1 --only startup repro"),
}


def run(name: str, arguments: str, folder: Path) -> bool:
    """Run one benchmark and keep what it printed; return whether it went well."""
    command = f"python -m benchmarks.{arguments}"
    print(f"== {name}: {command}", flush=True)
    ended = subprocess.run([sys.executable, *command.split()[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found = json.loads(ended.stdout)
    except ValueError:
        print(f"{name}: exit code {ended.returncode}, no JSON", file=sys.stderr)
        return False
    folder.mkdir(parents=True, exist_ok=True)
    record = {"command": command, "result": found}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return ended.returncode == 0


def main() -> None:
    """Run what was asked for; exit code 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--no-report", action="store_true")
    given = parser.parse_args()
    folder = RESULTS / "quick" if given.quick else RESULTS
    failed = [name for name in given.only if not run(name, BENCHMARKS[name][given.quick], folder)]
    if not given.quick and not given.no_report:
        from benchmarks.report import write

        write(RESULTS, ROOT / "docs" / "performance.md")
    if failed:
        sys.exit(f"benchmarks.bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
