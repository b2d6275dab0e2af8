"""docs/performance.md from the JSON of bench-results/: every figure of the page is one of theirs.

python -m benchmarks.report
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import gpu, growth
from checks.harness import ROOT, table
from repix.files import write_text

TITLES = {
    "step-pix2pix-1": "pix2pix, one training step",
    "step-pix2pix-64": "pix2pix at 64 px, one training step",
    "step-pix2pix-16": "pix2pix, batch 16",
    "step-cyclegan": "CycleGAN, one training step",
}
# (system, px, ours, what it is beside, the most that its time may be over the other's), at batch 1
GOALS = (
    ("pix2pix", 256, "repix", "torch", 0.60),
    ("pix2pix", 256, "repix", "tutorial", 0.60),
    ("pix2pix", 256, "repix-bf16", "torch-bf16", 0.70),
    ("pix2pix", 256, "repix-portable", "repix", 1.60),
    ("pix2pix", 64, "repix-portable", "repix", 1.00),
    ("cyclegan", 256, "repix", "torch", 0.60),
)
NOTES = """\
## How to read it

- Contenders are processes of their own that run in turns (A B C A B C ...) with the same number of threads, so ratios
  stand where absolute times do not. A ratio below 1 means that repix is faster.
- `torch` is the step as the reference code is organised: channels first, eager, float32. `torch-bf16` is PyTorch at its
  best: channels last, autocast to bfloat16, fused Adam. `tutorial` is predict and train_on_batch.
- `repix-convolutions` is repix with every convolution left to TensorFlow, `repix-portable` with those of
  `src/repix/models/fixed_sums.py`, whose sums have one order; `repix` and
  `repix-bf16` compute those of the smallest images, and wide ones of stride 1, as matrix products
  (`src/repix/models/convolutions.py`); in bfloat16 wide ones are left to the library where the CPU has AMX.
- Under `fast`, as `repix` runs, two operations of TensorFlow run at once (`src/repix/profile.py`): no bit follows that,
  and fewer cores idle while an operation is too small for all of them.
- Peak is the best that TensorFlow or PyTorch reached on a plain matrix product or convolution between the turns. A
  step's operations are those of its convolutions as they are defined (`repix describe`). Minimal filtering needs
  fewer multiplications, so the share of peak says how fast the step is for its size, not how busy the cores are.
- The load is that of the machine when the benchmark ended; with more running than it has cores, all times grow,
  and those of some contenders more than those of others: read such a page for its ordering at most.
"""


def step_section(title: str, record: dict) -> list[str]:
    """Return the section of one run of ``benchmarks.step``."""
    found, rows = record["result"], record["result"]["contenders"]
    peak = found["peak"]
    matmul, convolution = (f"{peak[f'{kind}_fp32']} and {peak[f'{kind}_bf16']}" for kind in ("matmul", "conv"))
    lines = [
        f"## {title}",
        "",
        f"`{record['command']}`: {found['size']} px, batch {found['batch']}, {found['threads']} threads, "
        f"{found['cpu']}, load {found['load'][0]}. A step is {found['step_gflop']} GFLOP. Measured peak in GFLOP/s, "
        f"float32 and bfloat16: matmul {matmul}, convolution {convolution}; copy {peak['copy']} GB/s.",
        "",
    ]
    head = ["contender", "median ms", "min ms", "repix / this", "share of peak", "peak MB"]
    keys = ("median_ms", "min_ms", "repix_over_this", "share_of_peak", "peak_mb")
    lines += [table(head, [[name, *(row[key] for key in keys)] for name, row in rows.items()]), ""]
    for system, size, ours, other, goal in GOALS:
        if (found["system"], found["batch"], found["size"]) == (system, 1, size) and {other, ours} <= rows.keys():
            ratio = rows[ours]["median_ms"] / rows[other]["median_ms"]
            verdict = "reached" if ratio <= goal else "missed"
            lines.append(f"- {ours} / {other}: {ratio:.3f} (goal {goal:.2f}: {verdict})")
    return [*lines, ""]


def stages_section(record: dict) -> list[str]:
    """Return the section of ``benchmarks.stages``."""
    found = record["result"]
    lines = ["## Beside the training", "", f"`{record['command']}`", ""]
    if "startup" in found:
        head = ["stage", "--help, s", "refusal of an unknown data set, s", "heavy packages imported by then"]
        rows = [
            [
                name,
                f"{row['help']:.2f}",
                f"{row['refusal']:.2f}" if "refusal" in row else "",
                ", ".join(row.get("heavy", [])) or "none",
            ]
            for name, row in found["startup"].items()
        ]
        lines += [table(head, rows), ""]
    for name, text in (
        ("facades", "real facades ({pairs} pairs): unpack {unpack:.1f} s, preprocess {preprocess:.1f} s"),
        ("repro", "`dvc repro` with nothing to do: {seconds:.2f} s"),
        (
            "translate",
            "pix2pix at 256 px, one image: {median_ms:.0f} ms; the first {first_ms:.0f} ms, "
            "after imports of {imports_ms:.0f} ms",
        ),
    ):
        part = found.get(name)
        if part:
            lines.append(
                f"- {name}: not measured, {part['skipped']}" if "skipped" in part else f"- {text.format(**part)}"
            )
    return [*lines, ""]


def page(results: Path) -> str:
    """Return the page that the results in a folder make."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    lines = ["# Performance", "", "Written by `make bench`; every figure comes from the command above it.", "", NOTES]
    for name, title in TITLES.items():
        if name in found:
            lines += step_section(title, found[name])
    if "growth" in found:
        lines += growth.section(found["growth"])
    if "sampler" in found:
        row = found["sampler"]["result"]
        lines += ["## Sampler", "", f"`{found['sampler']['command']}`", ""]
        lines += [
            f"{row['pairs_per_second_per_core']} pairs a second on one core, {row['load']} -> {row['crop']} px.",
            "",
        ]
    if "frechet" in found:
        lines += ["## Fréchet distance", "", f"`{found['frechet']['command']}`", ""]
        head = ["n", "dims", "repix, s", "pytorch-fid, s", "pytorch-fid / repix", "relative difference"]
        rows = [
            [
                run["n"],
                run["dims"],
                f"{run['seconds_repix']:.2f}",
                f"{run['seconds_pytorch_fid']:.2f}",
                f"{run['ratio']:.1f}",
                f"{run['relative_difference']:.1e}",
            ]
            for run in found["frechet"]["result"]["runs"]
        ]
        lines += [table(head, rows), ""]
    if "stages" in found:
        lines += stages_section(found["stages"])
    lines += gpu.section(results / "gpu")
    return "\n".join(lines).rstrip() + "\n"


def write(results: Path, out: Path) -> None:
    """Write the page."""
    write_text(out, page(results))
    print(f"written: {out.relative_to(ROOT)}")


if __name__ == "__main__":
    write(ROOT / "bench-results", ROOT / "docs" / "performance.md")
