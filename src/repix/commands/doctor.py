"""Say what this machine and this environment are, and what stands in the way of a run.

Python, packages, params.yaml and the execution profile, the GPU and what would use it, git, DVC, disk and
memory. A line that begins with ! has to be mended, and says how; then the exit code is 1. Nothing heavy is
imported, so it takes a moment.

Example:
  repix doctor
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from repix import machine, profile
from repix.errors import UserError, printable
from repix.libraries import install
from repix.paths import NO_PROJECT, WIRING

MEMORY_BYTES = 3 * 10**9  # a step of the paper's U-Net takes 2, see docs/performance.md
DISK_BYTES = 2 * 10**9  # for outs and DVC's cache
GC = "dvc gc --all-commits --all-experiments"  # --workspace would take what all other commits and experiments made
# What a run imports by name -> what it is for; the rest comes with them.
NEEDED = ("tensorflow", "keras", "numpy", "dvc", "mlflow", "onnx", "onnxruntime", "ai-edge-litert", "torch")
CUDA = {"jax": "jax-cuda12-plugin", "tensorflow": "nvidia-cublas-cu12"}  # backend -> what only its GPU build brings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gpu", action="store_true", help="print the line about GPUs alone")
    parser.add_argument("--json", action="store_true", help="print JSON")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: of none it says what the machine is."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    names = asked_profiles()
    if arguments.gpu:
        print(f"{'GPU':<14}{gpu(names)[1]}")  # as the last lines of `make repro` are set
        return 0
    found = {
        "system": system(),
        "Python": python(),
        "packages": packages(Path()),
        "profile": profiles(Path(), names),
        "GPU": gpu(names),
        "memory": memory(),
        "disk": disk(Path()),
        "git": git(Path()),
        "DVC": dvc(Path()),
    }
    if arguments.json:
        print(json.dumps({name: {"ok": fine, "text": text} for name, (fine, text) in found.items()}, indent=2))
    else:
        for name, (fine, text) in found.items():
            print(_line(name, fine, text))
    return 0 if all(fine for fine, _ in found.values()) else 1


def _line(name: str, fine: bool, text: str) -> str:
    return f"{' ' if fine else '!'} {name:<10}  {printable(text)}"


def asked_profiles() -> list[str]:
    """Return the execution profiles that the grid of params.yaml trains under; none where it cannot be read."""
    from repix.config import reader

    try:
        run = reader.section("run")
        if run.get("profile", "auto") != "auto":
            return [str(run["profile"])]
        return sorted({str(reader.section(f"models.{model}").get("profile", "fast")) for model in run["models"]})
    except (UserError, AttributeError, KeyError, TypeError):
        return []


def profiles(root: Path, names: list[str]) -> tuple[bool, str]:
    """Return whether params.yaml is one that can run, by what `repix check` looks at, and the profiles of its grid."""
    from repix.config import check, reader

    if any((root / name).exists() for name in (reader.FILE, WIRING)):
        try:
            check.grid(root / reader.FILE)
        except UserError as error:
            return False, str(error)
    return True, ", ".join(names) if names else "none: params.yaml names no model (`repix check`)"


def system() -> tuple[bool, str]:
    """Return whether the CPU can run the packages, and what it is."""
    cores = profile.cores()
    told = f"{machine.system()}, {machine.processor()}, {cores} core{'s' if cores > 1 else ''}"
    if machine.has_avx2() is False:
        return False, f"{told}: it has no AVX2, which the packages for x86-64 need; use another machine"
    return True, told


def python() -> tuple[bool, str]:
    """Return whether this Python is one that repix is written for, and which."""
    told = f"{platform.python_version()}, {sys.executable}"
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return False, f"{told}: repix needs 3.11 to 3.13: `make setup PYTHON=python3.11`"
    return True, told


def packages(root: Path) -> tuple[bool, str]:
    """Return whether the packages that a run needs are there, and which are not those of constraints.txt."""
    there = {}
    for name in NEEDED:
        try:
            there[name] = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            return False, f"{name} is not installed: `make setup`, or `pip install -c constraints.txt repix`"
    try:
        text = (root / "constraints.txt").read_text(encoding="utf-8")
    except OSError:
        return True, f"tensorflow {there['tensorflow']}, keras {there['keras']}; no constraints.txt to compare with"
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.M))
    others = []
    for name, wanted in sorted(pins.items()):
        try:
            version = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue  # of an extra
        if version != wanted:
            others.append(f"{name} {version} (not {wanted})")
    if not others:
        return True, f"those of constraints.txt: tensorflow {there['tensorflow']}, keras {there['keras']}"
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return True, f"not those of constraints.txt, so other bits are possible: {', '.join(others[:3])}{more}"


def _backend(name: str) -> str | None:
    """Return the Keras backend that computes on a GPU under a profile; None where none does, or there is no such."""
    try:
        found = profile.find(name)
    except UserError:
        return None
    return None if found.portable else found.backend


def gpu(names: list[str]) -> tuple[bool, str]:
    """Return what GPUs there are, and which line makes a run use them.

    Args:
        names: the execution profiles that are asked for.
    """
    found = machine.gpus()
    if not found:
        return True, "none found (NVIDIA's driver tells of none): everything runs on the CPU"
    told = f"{len(found)} x {found[0]}" if len(set(found)) == 1 and len(found) > 1 else ", ".join(found)
    ready = [name for name in names if (used := _backend(name)) and _installed(CUDA[used])]
    if ready:
        return True, f"{told}: used under the profile {', '.join(ready)}"
    if _installed(CUDA["jax"]):
        return (
            True,
            f"{told}: not used under {', '.join(names) or 'this grid'}; `dvc exp run -S run.profile=jax` uses it",
        )
    return True, f"{told}: not used yet; `{install('jax-cuda')}`, then `dvc exp run -S run.profile=jax` uses it"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def memory() -> tuple[bool, str]:
    """Return whether there is memory enough to train, and how much."""
    have = machine.memory_bytes()
    if have is None:
        return True, "this system does not tell"
    told = f"{have / 1e9:.1f} GB"
    if have < MEMORY_BYTES:
        return False, f"{told}: trainings take {MEMORY_BYTES / 1e9:.0f} and more; use a larger machine or container"
    return True, told


def disk(root: Path) -> tuple[bool, str]:
    """Return whether there is room for outs, and how much."""
    free = shutil.disk_usage(root).free
    told = f"{free / 1e9:.1f} GB free in {root.resolve()}"
    if not os.access(root, os.W_OK):
        return False, f"{root.resolve()} cannot be written; `chmod u+w` it, or work in a folder of your own"
    return (True, told) if free >= DISK_BYTES else (False, f"{told}: make room, for example by `{GC}`")


def git(root: Path) -> tuple[bool, str]:
    """Return whether git can read the project, and where it stands."""
    problem = machine.git_problem(root.resolve())
    if problem not in (None, machine.NO_GIT) and not (root / WIRING).is_file():
        return True, "no repository here, see DVC"  # what is no project is not to be committed
    if problem:
        return False, problem
    commit = machine.output_of("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    if not commit:
        return False, "no commit yet, and `dvc exp run` needs one: `git add -A && git commit -m 'start'`"
    known = [machine.output_of("git", "-C", str(root), "config", f"user.{what}") for what in ("name", "email")]
    if not all(known):
        line = "git config --global user.name NAME && git config --global user.email MAIL"
        return False, f"git does not know you, and `dvc exp run` stops without: `{line}`"
    branch = (machine.output_of("git", "-C", str(root), "branch", "--show-current") or "").strip() or "no branch"
    changed = machine.output_of("git", "-C", str(root), "status", "--porcelain", "--", ".")
    count = len((changed or "").splitlines())
    state = "nothing changed since" if not count else f"{count} file{'s' if count > 1 else ''} changed since"
    return True, f"{branch} at {commit.strip()}, {state}"


def dvc(root: Path) -> tuple[bool, str]:
    """Return whether DVC knows the project, and which stages it has run."""
    if not (root / WIRING).is_file():
        return False, f"{WIRING}: {NO_PROJECT}"
    if not (root / ".dvc").is_dir():
        return False, "no .dvc here: `dvc init`, or `dvc init --subdir` below the root of a git repository"
    from repix import yaml12
    from repix.provenance import lock

    try:
        yaml12.read(root / WIRING)
        done = len(lock.read(root)) if (root / lock.FILE).exists() else 0
    except UserError as error:
        return False, str(error)
    try:
        version = metadata.version("dvc")
    except metadata.PackageNotFoundError:
        return False, "not installed: `make setup`, or `pip install -c constraints.txt repix`"
    return True, f"{version}, {f'{done} stages in dvc.lock' if done else 'no stage run yet'}"
