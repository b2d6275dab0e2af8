"""Cells made by `repix farm` on each engine, with much killed on the way: dvc.lock equal to that of `dvc repro`.

    python -m checks.farm                                # local processes, three cells, some minutes
    python -m checks.farm --quick --engines local remote ray slurm --cells 4 --kills 6 --write

The real stages on a tiny set; with --quick, stages that only wait and write. First `dvc repro` alone makes all cells;
then each engine makes them in a copy of its own: local (workers share the cache), remote (local processes that
exchange outs through a DVC remote), ray (two nodes on this machine), slurm (submitit's local executor, which needs no
SLURM). Meanwhile workers, their starters and trainings are killed at random moments; where there is more than one
kill, the driver is killed too, and started again. Afterwards dvc.lock must be that of `dvc repro`, byte for byte,
every out that of dvc.lock, `dvc repro` must run nothing, and nothing may be left: no process, no temporary folder, no
record or checkpoint. Exit code 1 for anything else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from checks import remotes
from checks.harness import ROOT, table, write
from checks.support import grid, route
from repix import stage
from repix.errors import UserError
from repix.farm.start import PREFIX

ENGINES = ("local", "remote", "ray", "slurm")
GONE_SECONDS = 90  # what a training has to save and end, after its driver was killed


def make(root: Path, cells: int, *, quick: bool) -> Path:
    """Make the repository that an engine starts from: committed, nothing run, with a remote of its own."""
    if quick:
        grid.make(root)
        grid.put(root, grid.PARAMS | {"run": {"datasets": ["a"], "models": ["m"], "seeds": list(range(cells))}})
        grid.commit(root)
    else:
        route.copy(root)
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["run"]["seeds"] = list(range(cells))
        route.put(params, "models.pix2pix_small", epochs=6, decay_epochs=2, checkpoint_every=1, validate_every=2)
        route.write_params(root, params)
        for name in (".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, root)
        grid.init(root)
    remotes.configure(root, remotes.Remote(str(root.parent / f"store-{root.name}"), {}, {}))
    return root


def processes(temporary: Path) -> dict[str, list[int]]:
    """Return kind (worker, starter, training) -> processes whose temporary files are below ``temporary``."""
    found: dict[str, list[int]] = {"worker": [], "starter": [], "training": []}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
            if f"TMPDIR={temporary}\0".encode() not in (place / "environ").read_bytes():
                continue
        except OSError:
            continue
        if b"-m\0repix.farm.worker" in command:
            found["worker"].append(int(place.name))
        elif PREFIX.encode() in command and b"-c\0" in command:
            found["starter"].append(int(place.name))
        elif b"stages/train.py" in command and b"sh\0" not in command[:12]:
            found["training"].append(int(place.name))
    return found


@contextmanager
def two_nodes(temporary: Path) -> Iterator[list[str]]:
    """Start a Ray cluster of two nodes on this machine; yield the arguments that name it."""
    kept = os.environ | {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": str(temporary)}
    os.environ.update(kept)
    from ray.cluster_utils import Cluster

    place = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=place)
    cluster.add_node(**place)
    try:
        yield ["--engine", "ray", "--cpus", "1", "--option", f"address={cluster.address}"]
    finally:
        cluster.shutdown()


@contextmanager
def arguments(engine: str, base: Path, temporary: Path) -> Iterator[list[str]]:
    """Yield the arguments of `repix farm` for an engine."""
    through = ["--remote", "store", "--shared", str(base / f"shared-{engine}")]
    if engine == "ray":
        with two_nodes(temporary) as named:
            yield [*named, *through]
    elif engine == "slurm":
        yield ["--engine", "slurm", "--cpus", "1", "--workers", "2", "--option", "cluster=local", *through]
    else:
        yield ["--workers", "2", *(through if engine == "remote" else ())]


def start(root: Path, given: list[str], temporary: Path) -> subprocess.Popen:
    """Start `repix farm` in a repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "REPIX_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept |= {"PYTHONPATH": str(ROOT / "src"), "PATH": path, "TMPDIR": str(temporary)}
    with open(root.parent / f"{root.name}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "repix.cli", "farm", *given], cwd=root, env=kept, stdout=log, stderr=log
        )


def gone(temporary: Path) -> bool:
    """Wait until no process of a farm is left; return whether none is."""
    until = time.monotonic() + GONE_SECONDS
    while any(processes(temporary).values()):
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def run(root: Path, given: list[str], temporary: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Run a farm to its end, killing on the way; return seconds, what was killed, and the exit code."""
    killed: dict[str, int] = {}
    begun, driver = time.monotonic(), start(root, given, temporary)
    order = [("worker", "training", "starter")[number % 3] for number in range(kills)]
    if kills > 1:
        order.insert(kills // 2, "driver")
    while driver.poll() is None:
        time.sleep(chance.uniform(0.2, 1.5))
        found = processes(temporary)
        if not order or not found["training"] or chance.random() < 0.8:
            continue
        if order[0] == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            gone(temporary)
            driver = start(root, given, temporary)
        elif found[order[0]]:
            try:
                os.kill(chance.choice(found[order[0]]), signal.SIGKILL)
            except ProcessLookupError:
                continue
        else:
            continue
        kind = order.pop(0)
        killed[kind] = killed.get(kind, 0) + 1
    return {"seconds": time.monotonic() - begun, "killed": killed, "code": driver.returncode}


def leftovers(root: Path, base: Path, engine: str, temporary: Path) -> list[str]:
    """Return what a farm left behind: processes, temporary folders, records, checkpoints."""
    found = [] if gone(temporary) else ["processes"]
    found += [path.name for path in temporary.glob(f"{PREFIX}*")]
    for place in (root / ".repix", base / f"shared-{engine}"):
        found += [path.relative_to(base).as_posix() for path in place.rglob("*") if path.is_file()]
    return found


def main() -> None:
    """Try the engines and print the table; the exit code is 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["local"])
    parser.add_argument("--cells", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--kills", type=int, default=3, help="for each engine, beside the driver (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="stages that only wait and write")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    asked = parser.parse_args()
    os.environ["FARM_STEP_SECONDS"] = "1"
    rows, bad = [], []
    with tempfile.TemporaryDirectory(prefix="farm-", dir="/tmp") as name:
        base = Path(name)
        serial = make(base / "serial", asked.cells, quick=asked.quick)
        begun = time.monotonic()
        remotes.dvc(serial, "repro", environment={"REPIX_TRACKING": "off"})
        alone = time.monotonic() - begun
        rows.append(["`dvc repro`", asked.cells, "", round(alone), "", "", "", ""])
        wanted = (serial / "dvc.lock").read_bytes()
        for number, engine in enumerate(asked.engines):
            root, temporary = make(base / engine, asked.cells, quick=asked.quick), base / f"tmp{number}"
            temporary.mkdir()
            with arguments(engine, base, temporary) as given:
                seen = run(root, given, temporary, asked.kills, random.Random(asked.seed + number))
                left = leftovers(root, base, engine, temporary)
            if seen["code"]:
                print((base / f"{engine}.log").read_text()[-3000:], file=sys.stderr)
            equal = (root / "dvc.lock").read_bytes() == wanted
            unequal = remotes.unequal(root)
            ran = remotes.ran(remotes.dvc(root, "repro")) if equal else ["(not asked)"]
            killed = ", ".join(f"{count} {kind}" for kind, count in sorted(seen["killed"].items())) or "none"
            rows.append(
                [
                    engine,
                    asked.cells,
                    killed,
                    round(seen["seconds"]),
                    "yes" if equal else "no",
                    len(unequal),
                    len(ran),
                    len(left),
                ]
            )
            print(rows[-1], left[:5], file=sys.stderr, flush=True)
            if seen["code"] or not equal or unequal or ran or left:
                bad.append(f"{engine}: exit code {seen['code']}, see above")
    head = [
        "made by",
        "cells",
        "killed",
        "s",
        "dvc.lock equal",
        "outs unequal",
        "stages `dvc repro` ran after",
        "left behind",
    ]
    text = table(head, rows)
    print(text)
    if asked.write and not bad:
        write("scale", "farm", f"\n{text}\n")
    if bad:
        raise UserError("; ".join(bad))


if __name__ == "__main__":
    stage.guard(main)
