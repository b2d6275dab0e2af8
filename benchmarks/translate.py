"""How long an exported model takes for its first image, and for a folder of them, against onnxruntime alone.

The model is one at its first weights (time does not follow from what they are), exported as ONNX for this run, or that
of a cell. All contenders take turns within one run.

- First image, from the start of a process to its end: `repix translate`; `repix.load(...).translate` in Python; and
  NumPy, Pillow and onnxruntime alone, which read, compute and write the same image.
- A folder: `Model.translate_files`, from files to files; onnxruntime alone, from arrays to arrays in batches, nothing
  decoded and nothing encoded; and a loop of Pillow and onnxruntime that does nothing else (one image decoded,
  computed, written as PNG, then the next).

  python -m benchmarks.translate --write                        (into docs/export.md)
  python -m benchmarks.translate --cell sample-pix2pix_small-0  (of exports/; with Keras beside it)
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import repix
from benchmarks.support.arguments import positive_number
from checks.harness import ROOT, table, write
from repix import profile, stage
from repix.errors import UserError

TRANSLATOR = "source_to_target"
# What a process does that translates one image: model, image, out.
IN_PYTHON = "import sys, repix; repix.load(sys.argv[1], backend='onnx').translate(sys.argv[2]).save(sys.argv[3])"
ALONE = f"""
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime
from PIL import Image
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = len(os.sched_getaffinity(0))
file = sys.argv[1] + "/{TRANSLATOR}/model.onnx"
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
given = np.asarray(Image.open(sys.argv[2]), np.float32)[None] / 127.5 - 1
(made,) = session.run(["translation"], {{"image": given}})
Image.fromarray(np.round((made[0] + 1) * 127.5).astype(np.uint8)).save(sys.argv[3])
"""


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pix2pix", help="entry of params.yaml (default: %(default)s)")
    parser.add_argument("--size", type=positive_number, default=256, help="image side in pixels (default: %(default)s)")
    parser.add_argument("--cell", help="measure this cell of exports/ instead")
    parser.add_argument("--n", type=positive_number, default=1000, help="images of the folder (default: %(default)s)")
    parser.add_argument("--batch", type=positive_number, default=8, help="of onnxruntime alone (default: %(default)s)")
    parser.add_argument("--rounds", type=positive_number, default=3, help="medians are shown (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/export.md")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def export_untrained(model: str, size: int, folder: Path) -> None:
    """Write an export folder of a recipe at its first weights, with ONNX alone in it."""
    from benchmarks.export import untrained
    from repix.config.export import Export
    from repix.exporting import onnx_format
    from repix.exporting.spec import ExportSpec
    from repix.files import digest_file
    from repix.schemas import Exported

    network, side = untrained(model, (size, size))
    path = folder / TRANSLATOR / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx_format.write(network, path, ExportSpec(side, side, (size, size), Export(formats=("onnx",))))
    Exported(
        cell=f"untrained-{model}-0",
        variant="last",
        crop_size=(size, size),
        source=side,
        target=side,
        weights={},
        bytes={TRANSLATOR: {"onnx": path.stat().st_size}},
        digests={TRANSLATOR: {"onnx": digest_file(path)}},
        tolerance={},
        parity="not compared",
        direction="AtoB",
    ).write(folder / "export.json")


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def in_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, asked in turns (A B A B)."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def process(*command: str) -> Callable[[], object]:
    """Return a function that runs Python with a command line to its end.

    It raises a UserError where that fails, with the last line of what it said.
    """

    def run() -> None:
        ended = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise UserError(re.sub(r"^repix[a-z ]*: ", "", said[-1]))

    return run


def bare_session(path: Path):
    """Return onnxruntime's session of a file, on as many threads as ours has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = profile.current().resolved_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bare_batches(session, images: list[Path], batch: int) -> None:
    """Compute so many images in batches, and nothing else: the first ones again and again, decoded before."""
    import numpy as np
    from PIL import Image

    given = np.stack([np.asarray(Image.open(path), np.float32) / 127.5 - 1 for path in images[:batch]])
    for begin in range(0, len(images), batch):
        session.run(["translation"], {"image": given[: len(images) - begin]})


def bare_loop(session, images: list[Path], out: Path, synced: bool) -> None:
    """Translate 8-bit images with Pillow and onnxruntime alone; ``synced``: kept by the disk, as ours are."""
    import numpy as np
    from PIL import Image

    for image in images:
        given = np.asarray(Image.open(image), np.float32)[None] / 127.5 - 1
        (made,) = session.run(["translation"], {"image": given})
        with open(out / image.name, "wb") as stream:
            Image.fromarray(np.round((made[0] + 1) * 127.5).astype(np.uint8)).save(stream, "PNG")
            if synced:
                stream.flush()
                os.fsync(stream.fileno())


def rows_of(what: str, found: dict[str, float], to: str) -> list[list[str]]:
    """Return a line for each contender: its seconds, and ``to``'s over its own, which is its share of that speed."""
    return [[f"{what}, {name}", f"{value:.2f}", f"{found[to] / value:.2f}", to] for name, value in found.items()]


def main() -> None:
    """Measure, print the table and write it where it is asked for."""
    asked = arguments()
    profile.forbid_telemetry()
    if asked.export:
        export_untrained(asked.model, asked.size, asked.export)
        return
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        exported = Path(temporary, "exported")
        if asked.cell:
            exported = ROOT / "exports" / asked.cell
        else:  # in a process of its own: this one shall not know TensorFlow
            words = ["--model", asked.model, "--size", str(asked.size), "--export", str(exported)]
            process("-m", "benchmarks.translate", *words)()
        model = repix.load(exported, backend="onnx")
        folder, out = Path(temporary, "in"), Path(temporary, "out")
        folder.mkdir()
        out.mkdir()
        images = [folder / f"{number:04}.png" for number in range(asked.n)]
        for path in images:  # flat areas, as in a label map
            areas = random.integers(0, 256, (8, 8, model.source.channels), np.uint8)
            Image.fromarray(areas).resize(model.size[::-1], Image.Resampling.NEAREST).save(path)
        one = [str(exported), str(images[0])]
        command = ["-m", "repix.cli", "translate", *one, "-o", str(out)]
        contenders = {
            "repix translate": process(*command, "--backend", "onnx"),
            "repix in Python": process("-c", IN_PYTHON, *one, str(out / "one.png")),
            "onnxruntime alone": process("-c", ALONE, *one, str(out / "one.png")),
        }
        if asked.cell:
            contenders["repix translate, Keras"] = process(*command, "--backend", "keras")
        rows = rows_of("first image", in_turns(contenders, asked.rounds), "onnxruntime alone")
        session = bare_session(exported / TRANSLATOR / "model.onnx")
        batches = f"onnxruntime alone, batches of {asked.batch}"
        many = in_turns(
            {
                "repix": lambda: model.translate_files(folder, out),
                batches: lambda: bare_batches(session, images, asked.batch),
                "loop": lambda: bare_loop(session, images, out, False),
                "loop, synced": lambda: bare_loop(session, images, out, True),
            },
            asked.rounds,
        )
        rows += rows_of(f"{asked.n} images", many, batches)
    height, width = model.size
    shown = table(["what", "s", "of its speed", "to"], rows, left=1)
    load = os.getloadavg()[0]
    told = f"{model.cell}, {height} x {width} px, medians of {asked.rounds}, load {load:.1f}:\n\n{shown}"
    print(told)
    if asked.write:
        write("export", "translate", told)


if __name__ == "__main__":
    stage.guard(main)
