"""Every export format of a U-Net: size, error, latency, and what making it costs.

Each format is written, loaded and compared in a process of its own, so that the peak memory
is that format's. The network has its first weights of seed 0 (errors do not depend on what
it learned) unless --cell names a trained one.

  python -m benchmarks.export --model pix2pix --size 256
  python -m benchmarks.export --cell sample-pix2pix_small-0 --json export.json
  python -m benchmarks.export --cell sample-pix2pix_small-0 --write   (into docs/export.md)
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.support.arguments import positive_number
from checks.harness import ROOT, own_peak, table, write
from repix.registry import FORMATS

MEASURED = (*FORMATS, "litert_float16")


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pix2pix", help="entry of params.yaml (default: %(default)s)")
    parser.add_argument("--size", type=positive_number, default=256, help="image side in pixels (default: %(default)s)")
    parser.add_argument("--cell", help="measure this trained cell of runs/ instead")
    parser.add_argument("--n", type=positive_number, default=4, help="compared images (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/export.md")
    parser.add_argument("--format", choices=MEASURED, help=argparse.SUPPRESS)
    return parser.parse_args()


def peak_mb() -> float:
    """Return this process's peak resident memory in megabytes."""
    return own_peak() * 1e9 / 2**20


def untrained(model: str, size: tuple[int, int]):
    """Return the generator of a recipe at its first weights of seed 0, and the side that it takes and gives."""
    from repix.config import models, reader
    from repix.inference.backend import backend_module
    from repix.models.generators import build_generator
    from repix.models.initialization import initialize
    from repix.schemas import Side

    backend_module()
    recipe = reader.read(f"models.{model}", models.Recipe, ROOT / "params.yaml")
    network = build_generator(recipe.generator, size, 3, 3)
    initialize({"generator": network}, recipe.initializer, 0)
    return network, Side(
        channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb"
    )


def measure(asked: argparse.Namespace) -> dict:
    """Write, load and compare one format in this process."""
    import keras
    import numpy as np

    from repix.config.export import Export
    from repix.exporting import export
    from repix.exporting.spec import ExportSpec
    from repix.inference.backend import backend_module
    from repix.inference.trained import TrainedModel

    backend_module()
    if asked.cell:
        trained = TrainedModel(ROOT / "runs" / asked.cell)
        trained.load("last")
        record = trained.record
        network = trained.system.networks[record.translators["source_to_target"]]
        size, source, target = record.crop_size, record.source, record.target
    else:
        size = (asked.size, asked.size)
        network, source = untrained(asked.model, size)
        target = source
    before = peak_mb()
    shape = (asked.n, *size, source.channels)
    unit = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    kind, _, weights = asked.format.partition("_float")
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.perf_counter()
        path = Path(temporary) / FORMATS[kind].file
        module = importlib.import_module(FORMATS[kind].module)
        settings = Export(formats=(kind,), litert_weights=f"float{weights or 32}")
        module.write(network, path, ExportSpec(source, target, size, settings))
        seconds, peak = time.perf_counter() - begun, peak_mb()
        function = module.load(path)
        # Image by image, as the stage's memory must hold too.
        expected = np.concatenate([keras.ops.convert_to_numpy(network(image[None], training=False)) for image in unit])
        seen = export.compare(function, unit, expected)
        return {
            "format": asked.format,
            "parameters": network.count_params(),
            "bytes": export.size_of(path),
            **seen.values(),
            "write_seconds": seconds,
            "built_peak_mb": before,
            "write_peak_mb": peak,
            "peak_mb": peak_mb(),
        }


def rows_of(measured: list[dict]) -> str:
    """Return the measurements as a table."""
    head = ["format", "MB", "max error", "mean error", "ms/image", "n", "write s", "peak MB"]
    rows = [
        [
            row["format"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['max_error']:.2g}",
            f"{row['mean_error']:.2g}",
            f"{row['ms_per_image']:.1f}",
            f"{row['images']:.0f}",
            f"{row['write_seconds']:.1f}",
            f"{row['peak_mb']:.0f}",
        ]
        for row in measured
    ]
    return table(head, rows, left=1)


def main() -> None:
    """Measure every format in a process of its own and print the table."""
    asked = arguments()
    if asked.format:
        from repix.libraries import import_keras

        import_keras()
        print(json.dumps(measure(asked)))
        return
    rows = []
    for kind in MEASURED:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.export", *sys.argv[1:], "--format", kind], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{kind}: {done.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{kind} done", file=sys.stderr)
    what = asked.cell or f"{asked.model}, {asked.size} px, first weights of seed 0"
    shown = f"{what}: {rows[0]['parameters']:,} parameters\n\n{rows_of(rows)}"
    print(shown)
    if asked.write:
        write("export", asked.cell or asked.model, shown)
    if asked.json:
        from repix.files import write_json

        write_json(asked.json, {"what": what, "rows": rows})


if __name__ == "__main__":
    from repix import profile

    profile.enter("fast")
    main()
