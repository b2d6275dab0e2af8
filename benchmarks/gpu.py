"""What one NVIDIA GPU shows of repix: its step on JAX against PyTorch, its bits, a whole training, CycleGAN.

    python -m benchmarks.gpu                          # all parts that are not done; again until it says that they are
    python -m benchmarks.gpu --only peak steps-1-tf32  # some parts
    python -m benchmarks.gpu --seconds 500            # end within so many seconds in all, whatever is missing then
    python -m benchmarks.gpu --list                   # what is done
    python -m benchmarks.gpu --wheels                 # what to download for a machine without a network
    python -m benchmarks.gpu --tiny                   # toy sizes, on a CPU too: that it runs, no figure means anything

Each part ends within 8 minutes (--budget) and writes <out>/<part>.json as it goes: a part that was stopped, or
whose machine was taken away, goes on with what its file lacks. `python -m benchmarks.report` puts the files into
docs/performance.md.

- peak: FLOP/s of a matrix product, the better of JAX and PyTorch, in float32, tf32 and bfloat16.
- steps-<batch>-<precision>: a training step of pix2pix at 256 px. repix and one contender at a time are asked in
  turns (A B A B), in processes of their own. torch is the step as the reference code is organised (channels
  first, eager); torch-tuned has channels last and the fused optimizer; torch-compile compiles its networks as well;
  torch-graph records the tuned step as a CUDA graph; torch-compile-graph does both. All wait for the device once in
  25 steps. PyTorch's images lie ready on the device, repix draws, cuts and mirrors a batch for each step.
- calls-<precision>: repix with 1 and with 5 steps in a call to the device, against its 25.
- bits: whether two processes, and one that is stopped half-way and restored, leave equal states.
- facades: 80,000 steps of the paper's recipe through the stages, in tf32, then the scores of the test split; stopped
  and resumed as often as need be. The archive lies in ../shared/data or below REPIX_REAL_DATA, else it is downloaded.
- cyclegan-<precision>: as steps, for CycleGAN.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.step import quickest, torch_step
from benchmarks.support.torch_reference import Way
from checks.harness import ROOT, Contender, answer, run_stage, table, turns
from checks.support.steps import FILTERS, built_step
from checks.systems import archive_of, data, lay_out, params_of
from repix import paths, profile, stage
from repix.cells import Cell
from repix.errors import UserError
from repix.files import digest_arrays, read_json, write_json

PRECISIONS = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16"}
BLOCK = 25  # steps that are timed together: repix runs them in one call
WAYS = {
    "torch": Way(),
    "torch-tuned": Way(tuned=True),
    "torch-compile": Way(tuned=True, compiled="inductor"),
    "torch-graph": Way(tuned=True, graph=True),
    "torch-compile-graph": Way(tuned=True, compiled="inductor", graph=True),
}
SAVING = 45.0  # seconds that a training has to write its state before its part must end
# Distributions that repix's step, stages and scores import, beside JAX and PyTorch for CUDA.
SMALL = (
    *("absl-py", "h5py", "jinja2", "keras", "markdown-it-py", "markupsafe", "mdurl", "ml-dtypes", "namex"),
    *("numpy", "opt-einsum", "optree", "packaging", "pillow", "pydantic", "pydantic-core", "pygments", "pyyaml"),
    *("annotated-types", "imageio", "lazy-loader", "networkx", "rich", "scikit-image", "scipy", "tifffile"),
    *("tqdm", "typing-extensions", "typing-inspection"),
)


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        size: of the images, in pixels.
        filters: of the networks' first layers.
        batches: numbers of images in a batch.
        block: steps that are timed together.
        rounds: turns of each pair of contenders.
        blocks: of each contender in a turn.
        side: of the square matrices whose product is the peak.
        steps: of the check of bits.
        facades: (data set, model, changes of the model, of the archive, of the images) of the whole training.
    """

    size: int
    filters: int
    batches: tuple[int, int]
    block: int
    rounds: int
    blocks: int
    side: int
    steps: int
    facades: tuple[str, str, dict, dict | None, dict]


FULL = Scale(256, FILTERS, (1, 16), BLOCK, 4, 2, 8192, 200, ("facades", "pix2pix", {"epochs": 200}, None, {}))
DRAWN = {"urls": ["synthetic:facades?size=64&train=4&val=2&test=2&seed=0"], "sha256": None}
TINY = Scale(32, 4, (1, 2), 2, 1, 1, 64, 4, ("sample", "pix2pix_small", {"epochs": 2}, DRAWN, {}))


# --- workers: one process each, asked through its standard input


def work_repix(system: str, scale: Scale, batch: int, precision: str, per_call: int) -> None:
    """Answer with the milliseconds of blocks of our steps, ``per_call`` of them in a call to the device."""
    import jax

    step, flops = built_step(system, scale.size, batch, precision, scale.filters)
    first = itertools.count(0, scale.block)

    def block() -> None:
        begin, done = next(first), 0
        while done < scale.block:
            _, losses = step.run(begin + done, min(per_call, scale.block - done), 2e-4)
            done += len(losses)

    def more() -> dict[str, Any]:
        used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        return {"device_mb": used / 2**20, "step_flops": flops}

    answer(block, more)


def work_torch(system: str, scale: Scale, batch: int, precision: str, name: str) -> None:
    """Answer with the milliseconds of blocks of PyTorch's steps; the losses of a block are fetched together."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    way = dataclasses.replace(WAYS[name], precision=precision, device=device)
    if way.compiled and scale is TINY:
        way = dataclasses.replace(way, compiled="aot_eager")  # traced as well, without minutes of a C++ compiler
    step = torch_step(system, scale.size, batch, way, scale.filters)

    def block() -> list:
        return torch.stack([torch.stack(step()) for _ in range(scale.block)]).tolist()

    answer(block, lambda: {"device_mb": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0})


def work_peak(library: str, scale: Scale) -> None:
    """Answer each question with FLOP/s of a matrix product by precision."""
    side, found = scale.side, {}
    if library == "jax":
        import jax
        import jax.numpy as jnp

        a = jax.random.normal(jax.random.key(0), (side, side))
        for name, precision in (("fp32", "highest"), ("tf32", "tensorfloat32"), ("bf16", "default")):
            x = a.astype(jnp.bfloat16 if name == "bf16" else jnp.float32)
            product = jax.jit(lambda x, precision=precision: jnp.matmul(x, x, precision=precision))
            found[name] = lambda x=x, product=product: product(x).block_until_ready()
    else:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        a = torch.randn(side, side, device=device)

        def product(x, tf32: bool) -> None:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            x @ x
            if device == "cuda":
                torch.cuda.synchronize()

        half = a.to(torch.bfloat16)
        found = {
            "fp32": lambda: product(a, False),
            "tf32": lambda: product(a, True),
            "bf16": lambda: product(half, False),
        }
    for _ in sys.stdin:
        print(json.dumps({name: 2 * side**3 / quickest(once, 10) for name, once in found.items()}), flush=True)


def work_bits(scale: Scale, precision: str) -> None:
    """Answer the number of steps with digests of the state after them: straight on, and restored half-way."""
    step, _ = built_step("pix2pix", scale.size, 1, precision, scale.filters)

    def run(begin: int, end: int) -> None:
        while begin < end:
            begin += len(step.run(begin, min(scale.block, end - begin), 2e-4)[1])

    for line in sys.stdin:
        steps = int(line)
        run(0, steps // 2)
        half = step.state()
        run(steps // 2, steps)
        straight = digest_arrays(step.state())
        step.restore(half)
        run(steps // 2, steps)
        print(json.dumps({"straight": straight, "restored": digest_arrays(step.state())}), flush=True)


def work_scores(folder: Path, name: str) -> None:
    """Score a trained cell as the stage evaluate does, its networks on JAX: that stage needs TensorFlow."""
    os.chdir(folder)
    from repix.libraries import import_keras

    import_keras()
    from repix.config import evaluation, reader
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.inference.trained import TrainedModel

    settings = reader.read("evaluate", evaluation.Evaluate)
    prepared = Prepared.open(paths.PREPARED / name.split("-")[0])
    scored = evaluate(TrainedModel(paths.RUNS / name), prepared, settings, paths.TRANSLATIONS / name)
    for _ in sys.stdin:
        print(json.dumps(scored.scores), flush=True)


def work(words: Sequence[str], scale: Scale) -> None:
    """Run a worker, named by what it is and its arguments; ours run under the profile ``jax``."""
    kind, *rest = words
    if kind == "torch" or words[:2] == ["peak", "torch"]:
        profile.forbid_telemetry()
    else:
        profile.enter("jax")
    if kind == "repix":
        system, batch, precision, per_call = rest
        work_repix(system, scale, int(batch), precision, int(per_call))
    elif kind == "torch":
        system, batch, precision, name = rest
        work_torch(system, scale, int(batch), precision, name)
    elif kind == "peak":
        work_peak(rest[0], scale)
    elif kind == "bits":
        work_bits(scale, rest[0])
    else:
        work_scores(Path(rest[0]), rest[1])


# --- parts


@dataclass(frozen=True)
class Place:
    """Where a part works, how large, and when it must end (monotonic clock).

    Attributes:
        file: its JSON; ``found`` is what it holds so far.
    """

    file: Path
    scale: Scale
    tiny: bool
    end: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    @contextlib.contextmanager
    def worker(self, *words: str) -> Iterator[Contender]:
        """Yield a worker, killed when the part's time is over.

        Raises:
            UserError: it died or was killed.
        """
        command = ["-m", "benchmarks.gpu", *(["--tiny"] if self.tiny else []), "--worker", *words]
        with Contender(" ".join(words), command) as one:
            clock = threading.Timer(max(self.left, 0), one.kill)
            clock.start()
            try:
                yield one
            finally:
                clock.cancel()


def fill(place: Place, items: dict[str, Callable[[], Any]]) -> bool:
    """Run the items that the part's file does not have, each kept at once; return whether it has them all.

    What fails stands under ``failed`` and is tried again by the next run, after a failure that time ran out for too.
    """
    found = read_json(place.file) if place.file.exists() else {}
    found = {"items": {}, "seconds": 0.0} | found | {"machine": machine(), "failed": {}}
    for name, item in items.items():
        if name in found["items"]:
            continue
        if place.left <= 0:
            break
        begun = time.monotonic()
        try:
            found["items"][name] = item()
        except UserError as error:
            found["failed"][name] = "time was over" if place.left <= 0 else str(error)
            print(f"{place.file.stem}: {name}: {found['failed'][name]}", file=sys.stderr)
        found["seconds"] = round(found["seconds"] + time.monotonic() - begun, 1)
        found["done"] = found["items"].keys() >= items.keys()
        write_json(place.file, found)
    return found.get("done", False)


@cache
def machine() -> dict[str, str]:
    """Return the names of processor, GPU and driver, and the versions of what computes."""
    from importlib import metadata

    from benchmarks.step import cpu

    found = {"cpu": cpu(), "python": platform.python_version(), "gpu": "none"}
    for name in ("jax", "jaxlib", "keras", "torch", "triton"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    with contextlib.suppress(OSError):
        version = Path("/proc/driver/nvidia/version").read_text()
        found["driver"] = " ".join(re.findall(r"\d+\.\d+\.\d+", version)[:1])
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def peak(place: Place) -> bool:
    """FLOP/s of a matrix product by library and precision."""

    def ask(library: str) -> dict[str, float]:
        with place.worker("peak", library) as one:
            return {name: float(f"{value / 1e9:.3g}") for name, value in one.ask(1).items()}

    return fill(place, {library: lambda library=library: ask(library) for library in ("jax", "torch")})


def pairs(place: Place, ours: Sequence[str], others: dict[str, Sequence[str]]) -> bool:
    """Our step in turns with one contender after another; ours goes on running meanwhile."""
    scale = place.scale
    with contextlib.ExitStack() as stack:
        kept: list[Contender] = []

        def pair(words: Sequence[str]) -> dict[str, Any]:
            if not kept:
                kept.append(stack.enter_context(place.worker(*ours)))
            with place.worker(*words) as other:
                said = turns({"repix": kept[0], "other": other}, scale.rounds, scale.blocks)
            mine, theirs = ([value / scale.block for value in said[name]["ms"]] for name in ("repix", "other"))
            quotient = statistics.median(mine) / statistics.median(theirs)
            return {
                "ms": round(statistics.median(theirs), 3),
                "repix_ms": round(statistics.median(mine), 3),
                "repix_over_this": round(quotient, 3),
                "rounds": scale.rounds,
                "device_mb": round(said["other"]["device_mb"]),
                "repix_device_mb": round(said["repix"]["device_mb"]),
                "step_gflop": round(said["repix"]["step_flops"] / 1e9, 3),
            }

        return fill(place, {name: lambda words=words: pair(words) for name, words in others.items()})


def has_cuda() -> bool:
    """Return whether PyTorch sees a GPU."""
    return machine()["gpu"] != "none"


def steps(place: Place, system: str, batch: int, precision: str) -> bool:
    """Our step against PyTorch's, in all its ways; a CUDA graph needs CUDA."""
    names = [name for name, way in WAYS.items() if not way.graph or has_cuda()]
    ours = ("repix", system, str(batch), precision, str(BLOCK))
    return pairs(place, ours, {name: ("torch", system, str(batch), precision, name) for name in names})


def calls(place: Place, precision: str) -> bool:
    """Our step with fewer steps in a call."""
    ours = ("repix", "pix2pix", "1", precision)
    return pairs(place, (*ours, str(BLOCK)), {f"{each} in a call": (*ours, str(each)) for each in (1, 5)})


def bits(place: Place) -> bool:
    """Whether two processes, and one restored half-way, leave equal states."""

    def twice(precision: str) -> dict[str, Any]:
        said = []
        for _ in range(2):
            with place.worker("bits", precision) as one:
                said.append(one.ask(place.scale.steps))
        return {
            "steps": place.scale.steps,
            "runs_equal": said[0]["straight"] == said[1]["straight"],
            "restored_equal": all(each["straight"] == each["restored"] for each in said),
            "digest": said[0]["straight"],
        }

    return fill(place, {name: lambda value=value: twice(value) for name, value in PRECISIONS.items()})


def facades(place: Place) -> bool:
    """A whole training through the stages, and its scores."""
    dataset, model, recipe, archive, images = place.scale.facades
    folder, cell = place.file.with_suffix(""), Cell(dataset, model, 0)
    if archive is None:
        try:
            archive = archive_of(dataset)
        except UserError:
            archive = {}  # as in the catalogue: downloaded
    sets = {dataset: (archive, images)}
    lay_out(folder, params_of({model: {"precision": "tf32", **recipe}}, sets, profile="jax"), hours=True)

    def train() -> dict[str, Any]:
        begun, log = time.monotonic(), place.file.with_suffix(".turns.json")
        data(folder, dataset)
        so_far = read_json(log) if log.exists() else []
        try:
            run_stage(folder, "train", *cell.name.split("-"), seconds=max(1.0, place.left - SAVING))
        except TimeoutError as error:
            raise UserError(str(error)) from None
        finally:
            states = (folder / paths.WORK / "checkpoints").glob("*/step-*.npz")
            reached = max((int(path.stem.removeprefix("step-")) for path in states), default=None)
            so_far.append({"seconds": round(time.monotonic() - begun, 1), "step": reached})
            write_json(log, so_far)
        record = read_json(folder / paths.RUNS / cell.name / "trained.json")
        return {"steps": record["steps"], "turns": so_far, "seconds": sum(turn["seconds"] for turn in so_far)}

    def scores() -> dict[str, Any]:
        if not (folder / paths.RUNS / cell.name).exists():
            raise UserError("not trained yet")
        with place.worker("scores", str(folder), cell.name) as one:
            return one.ask(1)

    return fill(place, {"training": train, "scores": scores})


def parts(scale: Scale) -> dict[str, Callable[[Place], bool]]:
    """Return name -> function of a place that returns whether the part is done."""
    found: dict[str, Callable[[Place], bool]] = {"peak": peak}
    for batch, (short, precision) in itertools.product(scale.batches, PRECISIONS.items()):
        found[f"steps-{batch}-{short}"] = lambda place, b=batch, p=precision: steps(place, "pix2pix", b, p)
    for short in ("fp32", "bf16"):
        found[f"calls-{short}"] = lambda place, p=PRECISIONS[short]: calls(place, p)
    found["bits"] = bits
    for short, precision in PRECISIONS.items():
        found[f"cyclegan-{short}"] = lambda place, p=precision: steps(place, "cyclegan", 1, p)
    return found | {"facades": facades}


# --- the command line and the page


def wheels() -> str:
    """Return the command lines that download what a machine without a network needs, from one that has it."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0].lower().replace("_", "-"): line.split()[0] for line in lines if "==" in line}
    small = " ".join(pins[name] for name in SMALL)
    version = ".".join(platform.python_version_tuple()[:2])
    target = f"--only-binary :all: --python-version {version} --implementation cp"
    target += "".join(f" --platform {name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_27", "manylinux2014"))
    return "\n".join(
        [
            "# a bare machine, everything (several GB); run with its kind of Python:",
            "pip download -c constraints.txt -d wheels '.[jax-cuda]'",
            f"# a machine that has JAX and PyTorch for CUDA; --python-version is that machine's, here {version}:",
            f"pip download --no-deps {target} -d wheels {small}",
            "# there:",
            "pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=$PWD/src:$PWD/site",
        ]
    )


def section(folder: Path) -> list[str]:
    """Return the lines of docs/performance.md that a folder of results makes."""
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json")) if "." not in path.stem}
    lines = ["## On a GPU", ""]
    if not found:
        return [
            *lines,
            "Open: the step on JAX is tested on a CPU (`tests/training/test_step_jax.py`), no GPU has been measured.",
            "On a machine with one NVIDIA GPU `python -m benchmarks.gpu` does it, in parts of at most 8 minutes, again",
            "until it says that all are done; `--wheels` says what such a machine needs, `--tiny` tries it on a CPU.",
            "",
        ]
    said = next(iter(found.values()))["machine"]
    lines += [f"`python -m benchmarks.gpu`: {', '.join(f'{key} {value}' for key, value in said.items())}", ""]
    missing = [name for name in parts(FULL) if not found.get(name, {}).get("done")]
    if missing:
        lines += [f"Not done: {', '.join(missing)}.", ""]
    products = list(found.get("peak", {"items": {}})["items"].values())
    best = {short: max((one[short] for one in products), default=None) for short in PRECISIONS}
    rows = []
    for name, record in found.items():
        kind, _, rest = name.partition("-")
        if kind not in ("steps", "calls", "cyclegan"):
            continue
        limit = best[rest.rpartition("-")[2]]
        for contender, row in record["items"].items():
            shares = [row["step_gflop"] / row[key] * 1000 / limit if limit else None for key in ("repix_ms", "ms")]
            rows.append([name, contender, row["repix_ms"], row["ms"], row["repix_over_this"], *shares])
            rows[-1] += [row["repix_device_mb"], row["device_mb"]]
    if rows:
        head = ["part", "contender", "repix ms", "its ms", "repix / it", "repix of peak", "it of peak"]
        lines += [table([*head, "repix MB", "its MB"], rows), ""]
    if products:
        shown = ", ".join(f"{short} {value / 1000:.1f}" for short, value in best.items())
        lines += [f"Peak: a matrix product, in TFLOP/s: {shown}.", ""]
    for short, row in found.get("bits", {"items": {}})["items"].items():
        words = {True: "equal", False: "not equal"}
        lines.append(
            f"- bits, {short}: {row['steps']} steps in two processes are {words[row['runs_equal']]}, "
            f"restored half-way {words[row['restored_equal']]}"
        )
    whole = found.get("facades", {"items": {}})["items"]
    if "training" in whole:
        row = whole["training"]
        lines.append(f"- façades: {row['steps']} steps in {row['seconds']:.0f} s and {len(row['turns'])} turns")
    for translator, variants in whole.get("scores", {}).items():
        for variant, scores in variants.items():
            values = [f"{name} {value:.4g}" for name, value in scores.items() if value is not None]
            lines.append(f"- façades, {translator}, {variant} weights: {', '.join(values)}")
    return [*lines, ""]


def main() -> int:
    """Run what is asked for; 0 where all of it is done, 3 where some is not yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts; see --list")
    parser.add_argument("--budget", type=float, default=480.0, help="most seconds of a part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most seconds of all (default: no limit)")
    parser.add_argument("--out", type=Path, help="where results go (default: bench-results/gpu)")
    parser.add_argument("--tiny", action="store_true", help="toy sizes (default out: bench-results/quick/gpu)")
    parser.add_argument("--list", action="store_true", help="say which parts are done, run none")
    parser.add_argument("--wheels", action="store_true", help="print what to download")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    scale = TINY if given.tiny else FULL
    if given.worker:
        work(given.worker, scale)
        return 0
    if given.wheels:
        print(wheels())
        return 0
    every = parts(scale)
    if unknown := sorted(set(given.only or ()) - every.keys()):
        raise UserError(f"{unknown[0]}: is no part; there are {', '.join(every)}")
    out = (given.out or ROOT / "bench-results" / ("quick/gpu" if given.tiny else "gpu")).resolve()
    # Two libraries share the device, and a second try compiles nothing again.
    os.environ |= {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled" / "jax"),
        "TORCHINDUCTOR_CACHE_DIR": str(out / "compiled" / "torch"),
    }
    end, missing = time.monotonic() + given.seconds, []
    for name in given.only or every:
        file = out / f"{name}.json"
        done = file.exists() and read_json(file).get("done", False)
        left = end - time.monotonic()
        if not done and not given.list and left > 0:
            machine()  # imports PyTorch: no part's time
            place = Place(file, scale, given.tiny, time.monotonic() + min(given.budget, left))
            done = every[name](place)
        print(f"{name}: {'done' if done else 'not done'}", flush=True)
        missing += [] if done else [name]
    if missing:
        print(f"{len(missing)} parts are not done; the same command goes on", file=sys.stderr)
    return 3 if missing else 0


if __name__ == "__main__":
    stage.guard(lambda: sys.exit(main()))
