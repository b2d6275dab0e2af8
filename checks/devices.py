"""One training on several devices and hosts: the same bits wherever the devices lie, and after every kill.

    python -m checks.devices                # some ten minutes on two cores; the two hosts need root and iproute2
    python -m checks.devices --quick        # four devices in one process and in two, a stop and a kill, on one system
    python -m checks.devices --write        # put the table into docs/scale.md

A tiny training goes through stages/train.py. Each of its processes has a folder of its own with the prepared data,
as hosts do, and the last is compared with the others by the bytes of `runs/<cell>/`, which has weights, moments,
pools and the table of losses. Devices are CPU devices, which add by Gloo; two hosts are two network
namespaces with a wire between them. Rows:

- the devices of the profile as several processes: one digest for each number of devices;
- one process started 60 seconds after the other;
- a training that is killed again and again (SIGKILL of one process or of all, SIGTERM of any), and goes on as another
  number of processes each time. Required: all are gone within 45 seconds, SIGTERM is exit code 143 for all, and the
  digest at the end is that of the training that nobody killed.

Exit code 1 where anything is not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from checks.harness import ROOT, options, table, write
from checks.support import cells
from checks.support.hosts import ADDRESSES, on_host, two_hosts
from checks.tracking import free_port
from repix import processes
from repix.errors import UserError
from repix.files import digest_tree
from repix.stage import guard

SYSTEMS = ("pix2pix", "cyclegan")
DEVICES, EPOCHS, BATCH, IMAGES = 4, 40, 4, 8
GONE_SECONDS, SKEW_SECONDS, END_SECONDS = 45, 60, 600
HEAD = ("system", "devices", "lying as", "what happened", "digest", "equal")


class Start(NamedTuple):
    """Processes of one training.

    Attributes:
        folders: one for each.
        running: the processes.
    """

    folders: list[Path]
    running: list[subprocess.Popen]


def lay_out(folder: Path, system: str, profile: str, epochs: int = EPOCHS, images: int = IMAGES, **more: Any) -> None:
    """Write params.yaml and the prepared data of a tiny training; ``more`` changes its recipe."""
    prepared = folder / "data" / "prepared" / "tiny"
    if not prepared.exists():
        scratch = folder / "scratch"
        counts = (("train", images), ("val", 2), ("test", 1))
        made = cells.prepare_set(scratch, paired=system == "pix2pix", counts=counts)
        prepared.parent.mkdir(parents=True, exist_ok=True)
        made.rename(prepared)
        shutil.rmtree(scratch)
    changes = {"batch_size": BATCH, "epochs": epochs, "decay_epochs": epochs // 2, "validate_every": EPOCHS // 4}
    recipe = cells.recipe(system, **changes, **more, keep_state=True, profile="jax", ema=0.9)
    entry = {"archive": {"urls": ["https://localhost/none.zip"], "sha256": None}, "images": {}, "augment": {}}
    run = {"datasets": ["tiny"], "models": [system], "seeds": [0], "profile": profile}
    tree = {"run": run, "datasets": {"tiny": entry}, "models": {system: recipe.model_dump(mode="json")}}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


def start(folders: Sequence[Path], system: str, spaces: Sequence[str] = (), skew: float = 0.0) -> Start:
    """Start one process in each folder, in a network namespace each where ``spaces`` are given."""
    address = f"{ADDRESSES[0] if spaces else '127.0.0.1'}:{free_port()}"
    running = []
    for number, folder in enumerate(folders):
        if number:
            time.sleep(skew)
        place = {"REPIX_PROCESSES": str(len(folders)), "REPIX_PROCESS": str(number), "REPIX_COORDINATOR": address}
        environment = os.environ | place | {"REPIX_TRACKING": "off", "DVC_ROOT": str(folder)}
        environment |= {processes.STARTER: str(os.getpid())}  # a training ends with who started it
        # The programs of both sizes are compiled once, not at each start.
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, str(ROOT / "stages" / "train.py"), *options("tiny", system, "0")]
        if spaces:
            command = on_host(spaces[number], command)
        with open(folder / "log", "w", encoding="utf-8") as said:
            running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said))
    return Start(list(folders), running)


def ends(started: Start, seconds: float) -> list[int]:
    """Return the exit codes of all processes.

    Raises:
        UserError: one is still there after so many seconds; all are killed then.
    """
    until = time.monotonic() + seconds
    try:
        return [process.wait(max(0.1, until - time.monotonic())) for process in started.running]
    except subprocess.TimeoutExpired:
        for process in started.running:
            process.kill()
        said = " | ".join(_last(folder) for folder in started.folders)
        raise UserError(f"not all processes were gone after {seconds:.0f} s: {said}") from None


def _last(folder: Path) -> str:
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing said"


def finish(started: Start, system: str, part: str = ".") -> str:
    """Wait for the end of a training and return the digest of what it left; what it left is taken away.

    Args:
        started: its processes.
        system: of the training.
        part: folder in ``runs/<cell>/`` that is compared.

    Raises:
        UserError: a process failed, or one that does not lead left something.
    """
    codes = ends(started, END_SECONDS)
    if any(codes):
        raise UserError(f"exit codes {codes}: {' | '.join(_last(folder) for folder in started.folders)}")
    out = Path("runs") / f"tiny-{system}-0"
    left = [folder for folder in started.folders[1:] if any((folder / each).exists() for each in ("runs", "lineage"))]
    if left:
        raise UserError(f"{left[0]}: a process that does not lead wrote into its folder")
    digest = digest_tree(started.folders[0] / out / part)
    clear(started.folders[0])
    return digest


def clear(folder: Path) -> None:
    """Take away what a training left."""
    for each in ("runs", "lineage", "plots"):
        shutil.rmtree(folder / each)


def one_step(root: Path, system: str) -> float:
    """Return how far the weights after one step on one device and on four are apart, at most."""
    found = []
    for devices in (1, DEVICES):
        folder = root / f"one-{devices}"
        folder.mkdir(parents=True)
        # With Adam's 1e-8 the first step follows the signs of the smallest gradients, which rounding decides.
        lay_out(folder, system, f"jax-{devices}", epochs=1, images=BATCH, optimizer={"epsilon": 1e-3})
        if any(codes := ends(start([folder], system), END_SECONDS)):
            raise UserError(f"exit codes {codes}: {_last(folder)}")
        weights = sorted((folder / "runs" / f"tiny-{system}-0" / "last").glob("*.npz"))
        found.append({f"{path.stem}/{name}": array for path in weights for name, array in np.load(path).items()})
    return max(float(np.abs(array - found[1][name]).max()) for name, array in found[0].items())


def kill_once(started: Start, kind: str, chance: random.Random) -> tuple[str, str]:
    """Kill some processes after some steps of theirs; return what was done, and what was not kept."""
    checkpoints = started.folders[0] / ".repix" / "checkpoints"
    newest = _newest(checkpoints)
    after, until = newest + chance.randrange(1, 7), time.monotonic() + END_SECONDS
    while _newest(checkpoints) < after and all(process.poll() is None for process in started.running):
        if time.monotonic() > until:
            with contextlib.suppress(UserError):
                ends(started, 0)
            raise UserError("no step was done")
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 0.1))
    number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
    victims = range(len(started.running)) if kind == "SIGKILL of all" else [chance.randrange(len(started.running))]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            started.running[victim].send_signal(number)
    begun = time.monotonic()
    codes = ends(started, GONE_SECONDS)
    wrong = ""
    if not any(codes):
        wrong = "it had ended before"
    elif number == signal.SIGTERM and set(codes) != {128 + signal.SIGTERM}:
        wrong = f"exit codes {codes}: {_last(started.folders[0])}"
    elif 0 in codes:
        wrong = f"exit codes {codes}"
    return f"{kind} {list(victims)}, gone in {time.monotonic() - begun:.1f} s, exit {codes}", wrong


def _newest(checkpoints: Path) -> int:
    return max((int(path.stem[5:]) for path in checkpoints.glob("*/step-*.npz")), default=0)


class Check:
    """The rows of one system.

    Args:
        root: an empty folder.
        system: its name.
    """

    def __init__(self, root: Path, system: str):
        self.root, self.system, self.rows = root, system, []

    def folders(self, processes: int, profile: str, fresh: bool = True) -> list[Path]:
        """Return a folder for each process; the first keeps its checkpoints unless ``fresh``."""
        found = []
        for number in range(processes):
            folder = self.root / str(number)
            folder.mkdir(exist_ok=True)
            if fresh:
                shutil.rmtree(folder / ".repix", ignore_errors=True)
            lay_out(folder, self.system, profile)
            found.append(folder)
        return found

    def row(self, devices: int, lying: str, happened: str, digest: str, equal: bool | None) -> None:
        """Add a row, and say it."""
        self.rows.append([self.system, devices, lying, happened, digest[:12], equal])
        print(
            f"{self.system}: {devices} devices as {lying}: {happened}: {digest[:12]} {'' if equal is None else equal}"
        )

    def straight(self, devices: int, processes: int, wanted: str | None, happened: str = "to the end", **more) -> str:
        """Train without a kill; add the row and return the digest."""
        folders = self.folders(processes, f"jax-{devices}")
        digest = finish(start(folders, self.system, **more), self.system)
        lying = f"{processes} x {devices // processes}"
        self.row(devices, lying, happened, digest, None if wanted is None else digest == wanted)
        return digest

    def one(self) -> None:
        """Train under the profiles ``jax`` and ``jax-1``, whose networks are to be equal; add the row."""
        plain, alone = (
            finish(start(self.folders(1, profile), self.system), self.system, "last") for profile in ("jax", "jax-1")
        )
        self.row(1, "1 x 1", "networks of jax and of jax-1", alone, alone == plain)

    def apart(self) -> None:
        """Compare one step on one device and on four; add the row."""
        apart = one_step(self.root / "one", self.system)
        self.row(DEVICES, f"1 x {DEVICES}", f"after one step {apart:.1e} from one device", "", None)

    def killed(self, kinds: Sequence[str], wanted: str, chance: random.Random) -> None:
        """Kill a training by each of ``kinds``, going on as one, two or four processes; add the rows."""
        fresh = True
        for kind in kinds:
            processes = chance.choice((2, 2, 4))
            started = start(self.folders(processes, f"jax-{DEVICES}", fresh), self.system)
            fresh = False
            happened, wrong = kill_once(started, kind, chance)
            lying = f"{processes} x {DEVICES // processes}"
            self.row(DEVICES, lying, f"{happened}{f': {wrong}' if wrong else ''}", "", not wrong)
        digest = finish(start(self.folders(1, f"jax-{DEVICES}", fresh=False), self.system), self.system)
        self.row(DEVICES, f"1 x {DEVICES}", f"to the end after {len(kinds)} kills", digest, digest == wanted)


def main(asked: argparse.Namespace) -> int:
    """Run all rows; return the exit code."""
    chance = random.Random(asked.seed)
    rows: list[list[list]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for system in SYSTEMS[:1] if asked.quick else SYSTEMS:
            root = Path(scratch) / system
            root.mkdir()
            check = Check(root, system)
            rows.append(check.rows)
            wanted = check.straight(DEVICES, 1, None)
            check.straight(DEVICES, 2, wanted)
            if asked.quick:
                check.killed(["SIGTERM", "SIGKILL of one"], wanted, chance)
                continue
            check.one()
            check.apart()
            check.straight(DEVICES, 4, wanted)
            if system == SYSTEMS[0]:  # what these ask for knows nothing of the system
                for processes in (1, 2, 4):
                    check.straight(DEVICES, processes, wanted, "again")
                check.straight(DEVICES, 2, wanted, f"one started {SKEW_SECONDS} s later", skew=SKEW_SECONDS)
            with two_hosts() as spaces:
                if spaces is None:
                    check.row(DEVICES, "2 hosts", "**not run: needs root and iproute2**", "", None)
                else:
                    check.straight(DEVICES, 2, wanted, "on two hosts, over a wire", spaces=spaces)
            if asked.kills:
                kinds = [("SIGKILL of one", "SIGTERM", "SIGKILL of all")[n % 3] for n in range(asked.kills)]
                check.killed(kinds, wanted, chance)
    flat = [row for some in rows for row in some]
    if asked.write:
        write("scale", "devices", table(HEAD, flat))
    bad = [row for row in flat if row[-1] is False]
    print(f"{len(flat)} rows, {len(bad)} not as required")
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one system, two ways of lying, a stop and a kill")
    parser.add_argument("--kills", type=int, default=10, help="how often a training of each system is killed (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    given = parser.parse_args()
    guard(lambda: sys.exit(main(given)))
