"""What this machine is: its GPUs, cores, memory and disk, and whether git can read a folder.

`install.py` asks before anything is installed, so this imports nothing that has to be installed, and no
stage needs it: a result depends on the profile, not on what is found here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from repix import profile

NVIDIA = Path("/proc/driver/nvidia/gpus")
WSL_NVIDIA_SMI = "/usr/lib/wsl/lib/nvidia-smi"  # not on the PATH of every shell


def output_of(*command: str, seconds: float = 5) -> str | None:
    """Return what a program prints, or None where it is not there, fails or takes longer than ``seconds``."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs of this machine; none where there is no driver.

    Other makes are left out: neither TensorFlow nor JAX, as repix installs them, computes on them.
    """
    found = []
    for path in sorted(NVIDIA.glob("*/information")):
        with suppress(OSError):
            found += re.findall(r"^Model:\s*(.+?)\s*$", path.read_text(), re.M)
    if found:
        return found
    program = shutil.which("nvidia-smi") or (WSL_NVIDIA_SMI if os.path.exists(WSL_NVIDIA_SMI) else None)
    told = output_of(program, "--query-gpu=name", "--format=csv,noheader") if program else None
    return [line.strip() for line in (told or "").splitlines() if line.strip()]


def processor() -> str:
    """Return the name of the CPU, as the system tells it."""
    with suppress(OSError, IndexError):
        return re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)[0]
    named = output_of("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return (named or platform.processor() or platform.machine()).strip()


def has_avx2() -> bool | None:
    """Return whether the CPU has AVX2, which the wheels for x86-64 need; None on others, or if not told."""
    return profile.cpu_has("avx2")


def memory_bytes() -> int | None:
    """Return the memory that this process may have: the machine's, or its container's limit; None where not told."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    with suppress(OSError, ValueError):  # ValueError: the limit is "max"
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole


def system() -> str:
    """Return the operating system in a word or two: ``Linux x86_64``, ``Linux x86_64 (WSL)``, ``macOS arm64``."""
    name = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    wsl = " (WSL)" if "microsoft" in platform.release().lower() else ""
    return f"{name} {platform.machine()}{wsl}"


NO_GIT = "git is not installed, and DVC needs it: install it, for example by `sudo apt install git`"


def git_problem(root: Path) -> str | None:
    """Return one line, with the mend, where git cannot read the repository in ``root``; None where all is well.

    DVC needs git: without it, it stops with an error of its own after everything was installed.
    """
    if shutil.which("git") is None:
        return NO_GIT
    root = root.resolve()
    # In English, whatever the user's language: the words are looked at.
    asked = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--show-toplevel"],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
    )
    if "dubious ownership" in asked.stderr:
        told = re.search(r"repository at '(.+)'", asked.stderr)
        top = told[1] if told else root  # of a project below it, git takes the repository's own alone
        return (
            f"git refuses {top}, which belongs to another user: if you trust it, "
            f"`git config --global --add safe.directory '{top}'`"
        )
    if asked.returncode and ((root / ".git").exists() or "not a git repository" not in asked.stderr):
        said = asked.stderr.strip().splitlines()
        return f"git cannot read {root}: {said[-1] if said else 'it failed'}"
    if asked.returncode:
        return (
            f"{root} has no .git (a zip download?), and DVC needs it: take it by `git clone`, or "
            f"`git init && git add -A && git commit -m 'repix'` here"
        )
    return None
