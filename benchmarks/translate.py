"""How long an exported model takes for its first image, and for a folder of them.

The first image is that of `repix translate` on exports/<cell>, a process of its own each time, by ONNX and by
Keras in turns. The folder is translated by `Model.translate_files`, and by a loop of Pillow and onnxruntime that
does nothing else (one image decoded, computed, written as PNG, then the next), in one process and in turns.

  python -m benchmarks.translate --write   (into docs/export.md)
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import repix
from checks.harness import ROOT, table, write
from repix import profile


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="sample-pix2pix_small-0", help="of exports/ (default: %(default)s)")
    parser.add_argument("--n", type=int, default=200, help="images of the folder (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; medians are shown (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/export.md")
    return parser.parse_args()


def first_image(cell: str, image: Path, out: Path, backend: str) -> float:
    """Return the seconds of a `repix translate` of one image, from the start of the process to its end."""
    command = [sys.executable, "-m", "repix.cli", "translate", f"exports/{cell}", str(image), "-o", str(out)]
    begun = time.perf_counter()
    subprocess.run([*command, "--backend", backend], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begun


def bare_loop(path: Path, images: list[Path], out: Path, synced: bool) -> float:
    """Return the seconds of Pillow and onnxruntime alone, 8-bit images; ``synced``: kept by the disk, as ours are."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = profile.current().resolved_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    begun = time.perf_counter()
    for image in images:
        given = np.asarray(Image.open(image), np.float32)[None] / 127.5 - 1
        (made,) = session.run(["translation"], {"image": given})
        with open(out / image.name, "wb") as stream:
            Image.fromarray(np.round((made[0] + 1) * 127.5).astype(np.uint8)).save(stream, "PNG")
            if synced:
                stream.flush()
                os.fsync(stream.fileno())
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print the table and write it where it is asked for."""
    asked = arguments()
    profile.forbid_telemetry()
    import numpy as np
    from PIL import Image

    model = repix.load(ROOT / "exports" / asked.cell, backend="onnx")
    random = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary, "in"), Path(temporary, "out")
        folder.mkdir()
        out.mkdir()
        images = [folder / f"{number:04}.png" for number in range(asked.n)]
        for path in images:  # flat areas, as in a label map
            areas = random.integers(0, 256, (8, 8, model.source.channels), np.uint8)
            Image.fromarray(areas).resize(model.size[::-1], Image.Resampling.NEAREST).save(path)
        times: dict[str, list[float]] = {}
        for _ in range(asked.rounds):
            for backend in ("onnx", "keras"):
                times.setdefault(backend, []).append(first_image(asked.cell, images[0], out, backend))
        first = {name: statistics.median(values) for name, values in times.items()}
        for name, seconds in first.items():
            rows.append([f"first image, {name}", f"{seconds:.2f}", f"{seconds / first['keras']:.2f}", "keras"])
        file = model.folder / model.translator / "model.onnx"
        times = {}
        for _ in range(asked.rounds):
            begun = time.perf_counter()
            model.translate_files(folder, out)
            times.setdefault("repix", []).append(time.perf_counter() - begun)
            times.setdefault("bare loop", []).append(bare_loop(file, images, out, False))
            times.setdefault("bare loop, synced", []).append(bare_loop(file, images, out, True))
    many = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in many.items():
        rows.append([f"{asked.n} images, {name}", f"{seconds:.2f}", f"{seconds / many['bare loop']:.2f}", "bare loop"])
    height, width = model.size
    shown = table(["what", "s", "ratio", "to"], rows, left=1)
    told = f"{asked.cell}, {height} x {width} px, medians of {asked.rounds}:\n\n{shown}"
    print(told)
    if asked.write:
        write("export", "translate", told)


if __name__ == "__main__":
    main()
