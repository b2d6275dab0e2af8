"""Cells made by `repix farm` on each engine, with much killed on the way: dvc.lock equal to that of `dvc repro`.

    python -m checks.farm                                # local processes, three cells, some minutes
    python -m checks.farm --engines local remote ssh s3 ray hosts slurm --cells 6 --kills 3 --write
    python -m checks.farm --quick --cells 4 --kills 6    # stages that only wait and write: many kills in minutes
    python -m checks.farm --timed --write                # nothing is killed: what a cell costs more, two workers

The real stages on a tiny set; with --quick, stages that only wait and write. First `dvc repro` alone makes all cells;
then each engine makes them in a copy of its own: local (workers share the cache), remote, ssh and s3 (local processes
that exchange outs through a DVC remote: a folder, a real sshd, an S3 server), ray (two nodes on this machine), hosts
(two Ray nodes on hosts of their own, which are network namespaces with a wire between them), slurm (submitit's local
executor, which needs no SLURM). Meanwhile workers, their starters and trainings are killed at random moments; where
there is more than one kill, the driver is killed too, and started again, and of two hosts one. Afterwards dvc.lock
must be that of `dvc repro`, byte for byte, every out that of dvc.lock, `dvc repro` must run nothing, and nothing may be
left: no process, no temporary folder, no record or checkpoint. Exit code 1 for anything else.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from checks import remotes
from checks.harness import ROOT, table, write
from checks.support import grid, route
from checks.support.hosts import ADDRESSES, on_host, processes_of, two_hosts
from repix import stage
from repix.errors import UserError
from repix.farm.start import PREFIX

ENGINES = ("local", "remote", "ssh", "s3", "ray", "hosts", "slurm")
THROUGH = {"ssh": "ssh", "s3": "s3"}  # engine -> kind of remote; others have a folder
RAY_PORT = 6399
# Where a token lies in the home folder, a head would ask for it, and the other node has none to show.
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
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
    os.environ.update(RAY | {"TMPDIR": str(temporary)})
    from ray.cluster_utils import Cluster

    place = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=place)
    cluster.add_node(**place)
    try:
        yield ["--engine", "ray", "--cpus", "1", "--option", f"address={cluster.address}"]
    finally:
        cluster.shutdown()


@contextmanager
def two_nodes_on_hosts(temporary: Path, hosts: list[str]) -> Iterator[list[str]]:
    """Start a Ray node on each of two hosts; yield the arguments that name the cluster."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    kept = os.environ | RAY | {"TMPDIR": str(temporary), "PATH": path}
    address = f"{ADDRESSES[0]}:{RAY_PORT}"
    head = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={temporary / 'ray'}"]
    try:
        with open(temporary.parent / f"{temporary.name}.ray", "wb") as log:
            for host, own, words in zip(hosts, ADDRESSES, (head, [f"--address={address}"]), strict=True):
                ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", f"--node-ip-address={own}"]
                command = on_host(host, [*ray, *words])
                subprocess.run(command, env=kept, check=True, stdout=log, stderr=log, timeout=120)
        yield ["--engine", "ray", "--cpus", "1", "--option", f"address={address}"]
    finally:
        for host in hosts:
            kill_host(host)


def kill_host(host: str) -> None:
    """Kill every process of a host, as if its plug had been pulled."""
    for process in processes_of(host):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@dataclass
class Place:
    """How `repix farm` is started for an engine, and what else may die under it.

    Attributes:
        arguments: of `repix farm`.
        remote: what it exchanges outs through; None: the folder that the repository names.
        host: where the driver runs, see :mod:`checks.support.hosts`; None: on this machine.
        other: the host that may be killed while the driver runs; None: there is none.
    """

    arguments: list[str]
    remote: remotes.Remote | None = None
    host: str | None = None
    other: str | None = None


@contextmanager
def placed(engine: str, base: Path, temporary: Path, workers: int = 2) -> Iterator[Place]:
    """Start what an engine needs, and yield how the farm is started on it.

    Raises:
        UserError: this machine cannot make two hosts.
    """
    through = ["--remote", "store", "--shared", str(base / f"shared-{engine}")]
    if engine == "ray":
        with two_nodes(temporary) as named:
            yield Place([*named, *through])
    elif engine == "hosts":
        with two_hosts() as hosts:
            if hosts is None:
                raise UserError("hosts: no network namespaces here (they take root and iproute2)")
            with two_nodes_on_hosts(temporary, hosts) as named:
                yield Place([*named, *through], host=hosts[0], other=hosts[1])
    elif engine == "slurm":
        yield Place(["--engine", "slurm", "--cpus", "1", "--workers", "2", "--option", "cluster=local", *through])
    elif kind := THROUGH.get(engine):
        if lacks := remotes.missing(kind):
            raise UserError(f"{engine}: {lacks}")
        with remotes.serve(kind, base / f"server-{engine}") as remote:
            yield Place(["--workers", str(workers), *through], remote)
    else:
        yield Place(["--workers", str(workers), *(through if engine == "remote" else ())])


def start(root: Path, place: Place, temporary: Path) -> subprocess.Popen:
    """Start `repix farm` in a repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "REPIX_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept |= {"PYTHONPATH": str(ROOT / "src"), "PATH": path, "TMPDIR": str(temporary)}
    kept |= RAY | (place.remote.environment if place.remote else {})
    command = [sys.executable, "-m", "repix.cli", "farm", *place.arguments]
    with open(root.parent / f"{root.name}.log", "ab") as log:
        command = on_host(place.host, command) if place.host else command
        return subprocess.Popen(command, cwd=root, env=kept, stdout=log, stderr=log)


def gone(temporary: Path) -> bool:
    """Wait until no process of a farm is left; return whether none is."""
    until = time.monotonic() + GONE_SECONDS
    while any(processes(temporary).values()):
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def run(root: Path, place: Place, temporary: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Run a farm to its end, killing on the way; return seconds, what was killed, and the exit code."""
    killed: dict[str, int] = {}
    begun, driver = time.monotonic(), start(root, place, temporary)
    order = [("worker", "training", "starter")[number % 3] for number in range(kills)]
    if kills > 1:
        order.insert(kills // 2, "driver")
    if kills and place.other:
        order.append("host")
    while driver.poll() is None:
        time.sleep(chance.uniform(0.2, 1.5))
        found = processes(temporary)
        if not order or not found["training"] or chance.random() < 0.8:
            continue
        if order[0] == "host" and not set(found["training"]) & set(processes_of(place.other)):
            continue  # it has to lose a training with the host
        if order[0] == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            gone(temporary)
            driver = start(root, place, temporary)
        elif order[0] == "host":
            kill_host(place.other)
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


def one_engine(engine: str, base: Path, wanted: bytes, asked: argparse.Namespace, number: int) -> tuple[list, str]:
    """Make the cells by an engine; return the row of the table, and what is wrong with it (empty: nothing)."""
    root, temporary = make(base / engine, asked.cells, quick=asked.quick), base / f"tmp{number}"
    temporary.mkdir()
    with placed(engine, base, temporary) as place:
        if place.remote:
            remotes.configure(root, place.remote)
        seen = run(root, place, temporary, asked.kills, random.Random(asked.seed + number))
        left = leftovers(root, base, engine, temporary)
    if seen["code"]:
        print((base / f"{engine}.log").read_text()[-3000:], file=sys.stderr)
    equal = (root / "dvc.lock").read_bytes() == wanted
    unequal = remotes.unequal(root)
    ran = remotes.ran(remotes.dvc(root, "repro")) if equal else ["(not asked)"]
    killed = ", ".join(f"{count} {kind}" for kind, count in sorted(seen["killed"].items())) or "none"
    row = [engine, asked.cells, killed, round(seen["seconds"]), equal, len(unequal), len(ran), len(left)]
    print(row, left[:5], file=sys.stderr, flush=True)
    bad = seen["code"] or not equal or unequal or ran or left
    return row, f"{engine}: exit code {seen['code']}, see above" if bad else ""


def timed(asked: argparse.Namespace) -> str:
    """Return a table of the seconds that `dvc repro` and one and two local workers take, for stages of both kinds."""
    rows = []
    for quick in (True, False):
        took = {}
        with tempfile.TemporaryDirectory(prefix="farm-", dir="/tmp") as name:
            base = Path(name)
            for way in ("dvc repro", 1, 2):
                root, temporary = make(base / f"{way}".replace(" ", "-"), asked.cells, quick=quick), base / f"tmp-{way}"
                temporary.mkdir()
                begun = time.monotonic()
                if way == "dvc repro":
                    remotes.dvc(root, "repro", environment={"REPIX_TRACKING": "off"})
                else:
                    with placed("local", base, temporary, way) as place:
                        if run(root, place, temporary, 0, random.Random(0))["code"]:
                            raise UserError((base / f"{root.name}.log").read_text()[-500:])
                took[way] = time.monotonic() - begun
                print(f"{'waiting' if quick else 'real'} stages, {way}: {took[way]:.0f} s", file=sys.stderr, flush=True)
        alone = took["dvc repro"]
        stages = f"waiting, {4 * float(os.environ['FARM_STEP_SECONDS']):g} s a cell" if quick else "real"
        for way, seconds in took.items():
            made_by = "`dvc repro`" if way == "dvc repro" else f"`repix farm --workers {way}`"
            more = (seconds - alone) / asked.cells if way == 1 else None
            rows.append([stages, made_by, asked.cells, seconds, seconds / alone, more])
    head = ("stages", "made by", "cells", "s", "to `dvc repro`", "s more for a cell")
    return table(head, rows)


HEAD = (
    "made by",
    "cells",
    "killed",
    "s",
    "dvc.lock equal",
    "outs unequal",
    "stages `dvc repro` ran after",
    "left behind",
)


def together(page: str, rows: list[list]) -> str:
    """Return the table of a page with these rows in it; those of other engines, run before, stay as they are."""
    block = page.partition("<!-- farm:begin")[2].partition("<!-- farm:end")[0]
    cells = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines() if line[:1] == "|"]
    known = {one[0]: one for one in cells[2:]} | {row[0]: row for row in rows}
    return table(HEAD, [known[name] for name in ("`dvc repro`", *ENGINES) if name in known])


def main() -> None:
    """Try the engines and print the table; the exit code is 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["local"])
    parser.add_argument("--cells", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--kills", type=int, default=3, help="for each engine, beside the driver and a host (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="stages that only wait and write")
    parser.add_argument("--timed", action="store_true", help="compare times, and kill nothing")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument(
        "--write", action="store_true", help="put the rows into the table of docs/scale.md, where those of others stay"
    )
    asked = parser.parse_args()
    os.environ["FARM_STEP_SECONDS"] = "1"
    if asked.timed:
        text = timed(asked)
        print(text)
        if asked.write:
            write("scale", "farm-time", text)
        return
    rows, bad = [], []
    with tempfile.TemporaryDirectory(prefix="farm-", dir="/tmp") as name:
        base = Path(name)
        serial = make(base / "serial", asked.cells, quick=asked.quick)
        begun = time.monotonic()
        remotes.dvc(serial, "repro", environment={"REPIX_TRACKING": "off"})
        rows.append(["`dvc repro`", asked.cells, "", round(time.monotonic() - begun), "", "", "", ""])
        wanted = (serial / "dvc.lock").read_bytes()
        for number, engine in enumerate(asked.engines):
            row, wrong = one_engine(engine, base, wanted, asked, number)
            rows.append(row)
            bad += [wrong] if wrong else []
    print(table(HEAD, rows))
    if asked.write and not bad:
        write("scale", "farm", together((ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), rows))
    if bad:
        raise UserError("; ".join(bad))


if __name__ == "__main__":
    stage.guard(main)
