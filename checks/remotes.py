"""A result shared through a DVC remote, used in a fresh clone: by a folder, by SSH, by the S3 API.

For each remote: push, clone, pull; then in the clone `dvc repro` must run nothing, evaluation
is repeated without training, every out and every score must be the committed one, and
`repix sync` rebuilds MLflow. The servers are this machine's own, on loopback: an sshd with
keys of its own, and moto's S3. The tree must be clean and its outs in DVC's cache.

  python -m checks.remotes
  python -m checks.remotes --only folder ssh --json remotes.json
"""

from __future__ import annotations

import argparse
import configparser
import getpass
import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from checks.harness import ROOT, table
from repix import stage
from repix.errors import UserError
from repix.provenance import lock

BUCKET = "repix"
START_SECONDS = 30


class Remote(NamedTuple):
    """A DVC remote: what ``dvc remote add`` and ``dvc remote modify`` would be told, and the environment."""

    url: str
    options: dict[str, str]
    environment: dict[str, str]


def sshd() -> str | None:
    """Return the path of the OpenSSH server, if there is one."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def missing(kind: str) -> str | None:
    """Return what this machine lacks for a kind of remote, or None."""
    needs = {"folder": (), "ssh": ("dvc_ssh", "asyncssh"), "s3": ("dvc_s3", "moto")}[kind]
    for module in needs:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (pip install '.[dev]')"
    if kind == "ssh" and sshd() is None:
        return "no sshd (apt-get install openssh-server)"
    return None


@contextmanager
def serve(kind: str, work: Path) -> Iterator[Remote]:
    """Start what a kind of remote needs, below ``work``, and end it afterwards."""
    work.mkdir(parents=True)
    with {"folder": _folder, "ssh": _ssh, "s3": s3}[kind](work) as remote:
        yield remote


@contextmanager
def _folder(work: Path) -> Iterator[Remote]:
    yield Remote(str(work / "store"), {}, {})


@contextmanager
def _ssh(work: Path) -> Iterator[Remote]:
    import asyncssh

    for name in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        (work / name).write_bytes(key.export_private_key())
        (work / name).chmod(0o600)
        (work / f"{name}.pub").write_bytes(key.export_public_key())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd confines itself; the service makes it at boot
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {work / 'host'}",
        f"AuthorizedKeysFile {work / 'user.pub'}",
        f"PidFile {work / 'pid'}",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "StrictModes no",  # the folders above are those of a temporary directory
        "Subsystem sftp internal-sftp",
    ]
    (work / "config").write_text("\n".join(lines) + "\n")
    with open(work / "log", "wb") as log:
        server = subprocess.Popen([sshd(), "-D", "-e", "-f", str(work / "config")], stderr=log)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None or time.monotonic() > until:
                raise UserError(f"sshd did not start: {(work / 'log').read_text().strip()}")
            time.sleep(0.05)
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{work / 'store'}"
        yield Remote(url, {"keyfile": str(work / "user"), "allow_agent": "false"}, {})
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def s3(work: Path) -> Iterator[Remote]:
    import requests
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        requests.put(f"{endpoint}/{BUCKET}", timeout=30).raise_for_status()
        # moto takes any key; DVC reads them where every S3 client does.
        keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
        yield Remote(f"s3://{BUCKET}/store", {"endpointurl": endpoint, "region": "us-east-1"}, keys)
    finally:
        server.stop()


def run(root: Path, *command: str, environment: dict[str, str] | None = None, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command in a clone with this Python first on the path; return what it printed.

    Raises:
        UserError: its exit code is not among ``codes``.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "AWS_", "REPIX_TRACKING"))}
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{kept.get('PATH', '')}"
    quiet = {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        command,
        cwd=root,
        env=kept | quiet | {"PATH": path, "PYTHONPATH": str(root / "src")} | (environment or {}),
        capture_output=True,
        text=True,
    )
    if done.returncode not in codes:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command[-3:])}: exit code {done.returncode}: {' | '.join(said[-5:])}")
    return done.stdout


def dvc(root: Path, *arguments: str, **options: Any) -> str:
    """Run DVC in a clone; return what it printed."""
    return run(root, sys.executable, "-m", "dvc", *arguments, **options)


def configure(root: Path, remote: Remote, cache: Path | None = None) -> None:
    """Write a clone's ``.dvc/config.local``: the default remote, with checked downloads, and the cache."""
    config = configparser.ConfigParser()
    config["core"] = {"remote": "store"}
    config["'remote \"store\"'"] = {"url": remote.url, "verify": "true"} | remote.options
    if cache:
        config["cache"] = {"dir": str(cache)}
    with open(root / ".dvc" / "config.local", "w") as stream:
        config.write(stream)


def clone(source: Path, out: Path) -> Path:
    """Return a fresh clone of a repository's HEAD: no outs, no cache, no MLflow."""
    run(source, "git", "clone", "--quiet", "--no-hardlinks", str(source), str(out))
    return out


def cache_of(root: Path) -> Path:
    """Return DVC's cache of a repository."""
    return (root / dvc(root, "cache", "dir").strip()).resolve()


def share(source: Path, remote: Remote, work: Path) -> tuple[Path, dict[str, float]]:
    """Push a repository's outs from one clone of it and pull them in another.

    Args:
        source: a repository whose outs are in DVC's cache; it is only read.
        remote: where to.
        work: where the clones go.

    Returns:
        The second clone, and the seconds of ``push`` and ``pull``.
    """
    pusher = clone(source, work / "pusher")
    configure(pusher, remote, cache_of(source))
    seconds, begun = {}, time.perf_counter()
    dvc(pusher, "push", environment=remote.environment)
    seconds["push"], begun = time.perf_counter() - begun, time.perf_counter()
    fresh = clone(source, work / "fresh")
    configure(fresh, remote)
    dvc(fresh, "pull", environment=remote.environment)
    seconds["pull"] = time.perf_counter() - begun
    return fresh, seconds


def ran(said: str) -> list[str]:
    """Return the stages that a ``dvc repro`` said to run, but for those that always do."""
    names = re.findall(r"Running stage '([^']+)'", said)
    return [name for name in names if name.partition("@")[0] not in ("code", "start", "scores")]


def unequal(root: Path) -> list[str]:
    """Return the outs of a clone that are not those of its dvc.lock."""
    return [out for out, md5 in sorted(lock.all_outs(lock.read(root)).items()) if lock.md5(root / out) != md5]


def use(fresh: Path) -> dict[str, Any]:
    """Use the pulled result; return what happened.

    Returns:
        ``idle``: stages that `dvc repro` ran; ``evaluated``: those that a forced evaluation
        ran; ``unequal``: outs that are no longer those of dvc.lock; ``changed``: files of
        git that are no longer the committed ones; ``verified``: what `repix verify
        --lock-only` says; ``runs``: MLflow's runs after `repix sync`; ``scores``: how many
        metrics they have.
    """
    idle = ran(dvc(fresh, "repro"))
    stages = sorted(name for name in lock.read(fresh) if name.startswith("evaluate@"))
    evaluated = [name for stage in stages for name in ran(dvc(fresh, "repro", "--single-item", "--force", stage))]
    verified = run(fresh, sys.executable, "-m", "repix.cli", "verify", "--lock-only", codes=(0, 6)).strip()
    (fresh / "mlflow.db").unlink(missing_ok=True)  # the evaluation left one: sync alone must do
    shutil.rmtree(fresh / "mlartifacts", ignore_errors=True)
    runs = json.loads(run(fresh, sys.executable, "-m", "repix.cli", "sync", "--json"))["runs"]
    count = (
        "import sys, mlflow; client = mlflow.MlflowClient(sys.argv[1]); "
        "print(sum(len(client.get_run(run).data.metrics) for run in sys.argv[2:]))"
    )
    scores = run(fresh, sys.executable, "-c", count, f"sqlite:///{fresh / 'mlflow.db'}", *runs.values())
    return {
        "idle": idle,
        "evaluated": evaluated,
        "unequal": unequal(fresh),
        "changed": run(fresh, "git", "status", "--porcelain").splitlines(),
        "verified": verified,
        "runs": runs,
        "scores": int(scores.split()[-1]),
    }


def problems(seen: dict[str, Any], cells: list[str]) -> list[str]:
    """Return what is not as it must be after :func:`use`."""
    found = []
    if seen["idle"]:
        found.append(f"`dvc repro` ran {', '.join(seen['idle'])}")
    if seen["evaluated"] != [f"evaluate@{cell}" for cell in cells]:
        found.append(f"the evaluation ran {', '.join(seen['evaluated']) or 'nothing'}")
    found += [f"other bytes: {name}" for name in seen["unequal"] + seen["changed"]]
    if "(L0)" not in seen["verified"]:
        found.append(seen["verified"])
    if sorted(seen["runs"]) != cells or not seen["scores"]:
        found.append(f"MLflow has {seen['runs']} with {seen['scores']} metrics")
    return found


def main() -> None:
    """Try the remotes and print the table; the exit code is 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("folder", "ssh", "s3"), default=("folder", "ssh", "s3"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was seen as JSON")
    asked = parser.parse_args()
    if run(ROOT, "git", "status", "--porcelain").strip():
        raise UserError("the tree is not clean: a clone has what is committed; commit first")
    outs = lock.all_outs(lock.read(ROOT))
    cells = sorted(name.split("@")[1] for name in lock.read(ROOT) if name.startswith("evaluate@"))
    rows, lines, bad = {}, [], []
    for kind in asked.only:
        if why := missing(kind):
            bad.append(f"{kind}: {why}")
            continue
        with tempfile.TemporaryDirectory(prefix="repix-remotes-") as folder, serve(kind, Path(folder) / kind) as remote:
            fresh, seconds = share(ROOT, remote, Path(folder))
            seen = use(fresh)
        rows[kind] = seen | {"seconds": seconds}
        bad += [f"{kind}: {problem}" for problem in problems(seen, cells)]
        equal = f"{len(outs) - len(seen['unequal'])} of {len(outs)}"
        idle, evaluated, found = len(seen["idle"]), len(seen["evaluated"]), f"{len(seen['runs'])} run"
        took = [round(seconds[way], 1) for way in ("push", "pull")]
        verified = "L0" if "(L0)" in seen["verified"] else "no"
        lines.append([kind, *took, equal, idle, evaluated, verified, f"{found}, {seen['scores']} metrics"])
    print(table(["remote", "push s", "pull s", "outs equal", "ran", "evaluated", "verify", "MLflow"], lines))
    if asked.json:
        from repix.files import write_json

        write_json(asked.json, rows)
    if bad:
        raise UserError("; ".join(bad))


if __name__ == "__main__":
    stage.guard(main)
