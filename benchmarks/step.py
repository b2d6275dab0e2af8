"""One full pix2pix or CycleGAN training step: ours against PyTorch and the tutorial way.

Every contender is a process of its own with the same thread count; they run in turns (A B C A B
C ...) so that a machine that gets slower gets slower for all. Figures to quote are ratios of
medians; absolute times belong to the machine.

    python -m benchmarks.step --system pix2pix --size 256 --batch 1 --rounds 5 --steps 8
    python -m benchmarks.step --profile repix repix-convolutions   # where the time of a step goes, by operation

Contenders of pix2pix: repix (fp32, fast profile), repix-convolutions (the same without
src/repix/models/convolutions.py: what that saves), repix-bf16, repix-portable, torch (as the reference
code does it: channels first, eager, fp32), torch-bf16 (its best: channels last, autocast,
fused Adam), tutorial (Keras predict + train_on_batch, as most tutorials do it).
Of cyclegan: repix, repix-convolutions, repix-bf16, torch, torch-bf16.

A last process measures in the same turns what the machine can do: FLOP/s of a matrix product and of a
convolution, best of TensorFlow and PyTorch, in float32 and bfloat16, and the rate of a copy. The
share of the peak is the step's floating-point operations (``repix describe``) by its median time,
over the better of product and convolution in its precision. The operations are those of the
convolutions as they are defined: a contender that needs fewer (minimal filtering) can have a share above 1.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.support.arguments import positive_number
from benchmarks.support.torch_reference import Way, training
from checks.harness import Contender, answer, turns
from checks.support.steps import FILTERS, built_step, recipe_of
from repix import stage

CONTENDERS = {
    "pix2pix": ("repix", "repix-convolutions", "repix-bf16", "repix-portable", "torch", "torch-bf16", "tutorial"),
    "cyclegan": ("repix", "repix-convolutions", "repix-bf16", "torch", "torch-bf16"),
}


def cpu() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def repix_step(system: str, size: int, batch: int, precision: str):
    """Return a function that runs one step of ours, from uint8 arrays to losses on the host."""
    (step, _), count = built_step(system, size, batch, precision), itertools.count()
    return lambda: step.run(next(count), 1, 2e-4)


def torch_step(system: str, size: int, batch: int, way: Way, filters: int = FILTERS):
    """Return the same step in PyTorch, written as the reference code is organised; it returns both losses as tensors.

    They stay on the device, so that a caller may wait for them when it likes.
    """
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for of in (torch.backends.cuda.matmul, torch.backends.cudnn):
        of.allow_tf32 = way.precision == "tf32"
    if way.device == "cuda":
        torch.backends.cudnn.benchmark = True
    memory = torch.channels_last if way.tuned else torch.contiguous_format
    images = [torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=way.device) for _ in range(2)]
    train = training(system, size, filters, way).step

    def step():
        return train(*(x.float().div(127.5).sub(1).contiguous(memory_format=memory) for x in images))

    return recorded(step) if way.graph else step


def recorded(step):
    """Return a step of PyTorch as a CUDA graph: recorded once, after three steps on a stream beside, then replayed."""
    import torch

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step()

    def replay():
        graph.replay()
        return tuple(loss.clone() for loss in losses)  # the next replay writes over them

    return replay


def tutorial_step(size: int, batch: int):
    """Return the step as tutorials write it: predict, train_on_batch thrice, four compiled models."""
    from repix.libraries import import_keras

    import_keras()
    import keras
    import numpy as np

    from repix.models.initialization import initialize
    from repix.systems.system import build
    from repix.training.backend import step_module

    step_module()
    networks = build(recipe_of("pix2pix", "float32"), (size, size), 3, 3, True).networks
    initialize(networks, "normal", 0)
    G, D = networks["generator"], networks["discriminator"]
    bce = keras.losses.BinaryCrossentropy(from_logits=True)
    rates = {"learning_rate": 2e-4, "beta_1": 0.5}
    D.compile(optimizer=keras.optimizers.Adam(**rates), loss=bce, loss_weights=[0.5])
    source = keras.Input((size, size, 3))
    fake = G(source)
    both = keras.Model(source, [D([source, fake]), fake])
    a, b = np.random.default_rng(0).random((2, batch, size, size, 3), np.float32) * 2 - 1
    ones = np.ones((batch, *D.output_shape[1:]), np.float32)
    # Trace D's training while it may still train: Keras 3 reads `trainable` when it compiles a function.
    D.train_on_batch([a, b], ones)
    D.trainable = False
    both.compile(optimizer=keras.optimizers.Adam(**rates), loss=[bce, "mae"], loss_weights=[1, 100])

    def step():
        made = G.predict(a, verbose=0)
        D.train_on_batch([a, b], ones)
        D.train_on_batch([a, made], 0 * ones)
        return both.train_on_batch(a, [ones, b])

    return step


def quickest(function, repeats: int = 3) -> float:
    """Return the seconds of the quickest of some calls; one comes before that counts for nothing."""
    times = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return min(times[1:])


def measure_peak() -> dict[str, float]:
    """Return FLOP/s of product and convolution by precision, and bytes/s of a copy, read and write counted."""
    import tensorflow as tf
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    side, (height, width, channels) = 1536, (64, 64, 256)
    product, convolution = 2 * side**3, 2 * 9 * height * width * channels**2
    found = {}
    for name, ours, theirs in (("fp32", tf.float32, torch.float32), ("bf16", tf.bfloat16, torch.bfloat16)):
        a, image = tf.ones((side, side), ours), tf.ones((1, height, width, channels), ours)
        kernel = tf.ones((3, 3, channels, channels), ours)
        b = torch.ones((side, side), dtype=theirs)
        channels_last = {"memory_format": torch.channels_last}
        picture = torch.ones((1, channels, height, width), dtype=theirs).to(**channels_last)
        filters = torch.ones((channels, channels, 3, 3), dtype=theirs).to(**channels_last)
        products = (lambda a=a: tf.matmul(a, a), lambda b=b: b @ b)
        convolutions = (
            lambda x=image, k=kernel: tf.nn.conv2d(x, k, 1, "SAME"),
            lambda x=picture, k=filters: torch.nn.functional.conv2d(x, k, padding=1),
        )
        with torch.inference_mode():
            found[f"matmul_{name}"] = product / min(map(quickest, products))
            found[f"conv_{name}"] = convolution / min(map(quickest, convolutions))
    one, other = torch.ones(2**26), torch.empty(2**26)
    found["copy"] = 2 * one.nbytes / quickest(lambda: other.copy_(one))
    return found


def contender(name: str, system: str, size: int, batch: int):
    """Return the function that runs one step of a contender; the profile is in force."""
    if name == "repix-convolutions":
        from repix.libraries import import_keras

        import_keras()
        from repix.inference import tensorflow_backend

        tensorflow_backend.faster_convolutions = lambda networks: contextlib.nullcontext()
    if name.startswith("repix"):
        return repix_step(system, size, batch, "bfloat16" if name.endswith("bf16") else "float32")
    if name.startswith("torch"):
        best = name == "torch-bf16"
        step = torch_step(system, size, batch, Way("bfloat16" if best else "float32", tuned=best))
        return lambda: [loss.item() for loss in step()]
    return tutorial_step(size, batch)


def work(name: str, system: str, size: int, batch: int) -> None:
    """Answer as one contender, see :func:`checks.harness.answer`; ``peak`` answers with operations (to 0) or peaks."""
    from repix import profile

    profile.enter("portable" if name == "repix-portable" else "fast")
    if name == "peak":
        for line in sys.stdin:
            said = {"step_flops": built_step(system, size, batch, "float32")[1]} if line == "0\n" else measure_peak()
            print(json.dumps(said), flush=True)
        return
    answer(contender(name, system, size, batch))


def profiled(name: str, system: str, size: int, batch: int, steps: int = 5) -> dict[str, float]:
    """Return operation -> milliseconds of a step of ours, in all threads together, by TensorFlow's profiler."""
    from repix import profile

    profile.enter("portable" if name == "repix-portable" else "fast")
    step = contender(name, system, size, batch)
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for _ in range(3):
        step()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                step()
        [path] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    total: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # An operation is "name:Type"; others enclose these.
                _, separator, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if separator and kind.lstrip("_")[:1].isalpha() and kind not in ("Run", "Process"):
                    total[kind] += event.duration_ps
    return {kind: round(duration / 1e9 / steps, 1) for kind, duration in total.most_common(12)}


def main() -> None:
    """Run the contenders in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=CONTENDERS, default="pix2pix")
    parser.add_argument("--size", type=positive_number, default=256)
    parser.add_argument("--batch", type=positive_number, default=1)
    parser.add_argument("--rounds", type=positive_number, default=5)
    parser.add_argument("--steps", type=positive_number, default=6, help="steps of each contender in a round")
    parser.add_argument("--only", nargs="*", help="contenders to run; repix is always among them")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    ours = [name for name in CONTENDERS["pix2pix"] if name.startswith("repix")]
    parser.add_argument("--profile", nargs="+", choices=ours, metavar="OURS", help="milliseconds by operation instead")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.profile and not given.worker:
        for name in given.profile:  # each in a process of its own, as contenders are
            command = [sys.executable, "-m", "benchmarks.step", "--worker", "profile", "--profile", name]
            command += ["--system", given.system, "--size", str(given.size), "--batch", str(given.batch)]
            print(name, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="")
        return
    if given.worker == "profile":
        print(json.dumps(profiled(given.profile[0], given.system, given.size, given.batch)))
        return
    if given.worker:
        work(given.worker, given.system, given.size, given.batch)
        return
    names = [n for n in CONTENDERS[given.system] if not given.only or n == "repix" or n in given.only]
    options = ["--system", given.system, "--size", str(given.size), "--batch", str(given.batch)]
    peaks: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(Contender(name, ["-m", "benchmarks.step", *options, "--worker", name]))
            for name in [*names, "peak"]
        }
        machine_peak = started.pop("peak")
        flops = machine_peak.ask(0)["step_flops"]
        found = turns(started, given.rounds, given.steps, between=lambda: peaks.append(machine_peak.ask(1)))
    times = {name: one["ms"] for name, one in found.items()}
    ours = statistics.median(times["repix"])
    machine = {key: max(each[key] for each in peaks) for key in peaks[0]}

    def share(name: str, values: list[float]) -> float:
        kind = "bf16" if name.endswith("bf16") else "fp32"
        return 1000 * flops / statistics.median(values) / max(machine[f"matmul_{kind}"], machine[f"conv_{kind}"])

    rows = {
        name: {
            "median_ms": round(statistics.median(values), 1),
            "min_ms": round(min(values), 1),
            "repix_over_this": round(ours / statistics.median(values), 3),
            "peak_mb": round(found[name]["peak_mb"]),
            "share_of_peak": round(share(name, values), 3),
            "steps": len(values),
        }
        for name, values in times.items()
    }
    result = {
        "system": given.system,
        "size": given.size,
        "batch": given.batch,
        "threads": len(os.sched_getaffinity(0)),
        "cpu": cpu(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "step_gflop": round(flops / 1e9, 1),
        "peak": {key: round(value / 1e9, 1) for key, value in machine.items()},
        "contenders": rows,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    stage.guard(main)
