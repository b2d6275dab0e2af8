"""Look for connections that leave this machine: while the sample's pipeline runs, in translate, demo and served model.

    python -m checks.network                 # all of it, on a tiny set: a few minutes
    python -m checks.network --only demo translate --write

Each runs with a home folder of its own, its Python processes watched by audit events, and
under ``strace`` (where there is one), which sees native code as well. Nothing may be asked
outside of loopback, no name be looked up, and no identity for telemetry be kept in the home
folder. A control, onnxruntime without the variable that silences it, must be seen to do so:
else this check is blind, and fails. Exit code 1 for anything that was seen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from checks.harness import ROOT, table, write
from checks.support import route, servers, watch
from repix.errors import UserError
from repix.profile import NO_TELEMETRY

CALLS = "connect,sendto,sendmsg,sendmmsg"
# Where one of these is set, libraries keep quiet that ask on a user's machine: onnxruntime's own list, and others'.
BUILD_SERVERS = {
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER", "DO_NOT_TRACK"),
}
CONTROL_SECONDS = 90
KEPT = re.compile(
    r"device_?id|telemetry|analytics", re.IGNORECASE
)  # in the home folder, such as onnxruntime's and DVC's
_CONTROL = """
import sys, time
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
time.sleep(float(sys.argv[2]))
"""


# As strace writes the addresses of both families.
_ADDRESS = re.compile(
    r"sin6?_port=htons\((\d+)\), (?:sin6_flowinfo=[^,]*, )?"
    r"(?:sin_addr=inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]*)\""
)


class Seen(NamedTuple):
    """What one part did: ``outside`` and ``kept`` are lines, empty where all is well."""

    part: str
    seconds: float
    traced: bool
    calls: int
    outside: list[str]
    kept: list[str]


def outside(trace: str) -> list[str]:
    """Return the lines of a trace that address another machine, or ask for a name (port 53, also on loopback)."""
    found = []
    for line in trace.splitlines():
        for port, ip in _ADDRESS.findall(line):
            if int(port) == 53 or not watch.is_local(ip.removeprefix("::ffff:")):
                found.append(line.strip())
    return found


class Watched:
    """A home folder, and the environment and command under which something is watched."""

    def __init__(self, folder: Path, strace: bool):
        self.home, self.log, self.trace = folder / "home", folder / "audit", folder / "strace"
        self.home.mkdir(parents=True)
        left_out = NO_TELEMETRY.keys() | BUILD_SERVERS
        kept = {key: value for key, value in os.environ.items() if key not in left_out and not key.startswith("XDG_")}
        self.environment = kept | watch.environment(self.log) | {"HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        self.before: tuple[str, ...] = ()
        if strace:
            self.before = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}", "-o", str(self.trace))

    def seen(self, part: str, begun: float) -> Seen:
        """Return what was seen so far."""
        trace = self.trace.read_text(errors="replace") if self.trace.exists() else ""
        found = outside(trace) + (self.log.read_text().splitlines() if self.log.exists() else [])
        kept = sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*") if KEPT.search(path.name))
        return Seen(
            part, time.monotonic() - begun, bool(self.before), trace.count("\n"), list(dict.fromkeys(found)), kept
        )

    def run(self, command: list[str], folder: Path, **more: str) -> None:
        """Run a command to its end.

        Raises:
            UserError: it failed.
        """
        done = subprocess.run(
            [*self.before, *command],
            cwd=folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(
                f"{' '.join(command[:4])} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
            )


@contextmanager
def _part(name: str, folder: Path, strace: bool, rows: list[Seen]) -> Iterator[Watched]:
    begun, watched = time.monotonic(), Watched(folder / name, strace)
    yield watched
    rows.append(watched.seen(name, begun))


def repro(root: Path, watched: Watched) -> None:
    """Run ``dvc repro`` on the tiny set, tracked by MLflow, as a user does who exports no variable of the Makefile."""
    python = {"PYTHONPATH": os.pathsep.join([watched.environment["PYTHONPATH"], str(root / "src")])}
    path = {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    watched.run([sys.executable, "-m", "dvc", "repro"], root, **python, **path)


def translate(root: Path, watched: Watched) -> None:
    """Translate a picture by the trained network."""
    picture, out = watched.home.parent / "picture.png", watched.home.parent / "translated"
    picture.write_bytes(servers.picture((16, 16)))
    model = min((root / "runs").glob("*/trained.json")).parent
    watched.run([sys.executable, "-m", "repix.cli", "translate", str(model), str(picture), "-o", str(out)], root)


def served(kind: str) -> Callable[[Path, Watched], None]:
    """Return what starts a server, and has it translate a picture."""

    def ask(root: Path, watched: Watched) -> None:
        # MLflow's own command is the user's: docs/export.md says this variable with it.
        environment = watched.environment | ({"MLFLOW_DISABLE_TELEMETRY": "true"} if kind == "served" else {})
        with servers.running(kind, root, environment, watched.before) as server:
            status, body = server.ask(server.picture())
            if status != 200:
                raise UserError(f"{kind} answers {status}: {body[:300]!r}")
            time.sleep(3)

    return ask


PARTS: dict[str, Callable[[Path, Watched], None]] = {
    "repro": repro,
    "translate": translate,
    "demo": served("demo"),
    "served": served("served"),
}


def make(folder: Path) -> Path:
    """Copy the repository with its tiny set, as a git repository that DVC knows."""
    root = route.copy(folder)
    shutil.copytree(ROOT / "code", root / "code")
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root)
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "tiny"]):
        subprocess.run([*git, *command], cwd=root, check=True, capture_output=True)
    return root


def control(root: Path, folder: Path, strace: bool) -> Seen:
    """Open a model in onnxruntime that nobody silenced, until it is seen to ask or to keep something."""
    begun, watched = time.monotonic(), Watched(folder / "control", strace)
    model = next((root / "exports").glob("*/*/model.onnx"))
    process = subprocess.Popen(
        [*watched.before, sys.executable, "-c", _CONTROL, str(model), str(CONTROL_SECONDS)],
        env=watched.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:
        seen = watched.seen("control", begun)
        if process.poll() is not None or (seen.kept and (seen.outside or not strace)):
            break
        time.sleep(0.5)
    servers.end(process)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    parser.add_argument("--repository", type=Path, help="with an export, in place of a tiny one that repro makes")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    given = parser.parse_args()
    strace = servers.has_strace()
    if not strace:
        print("SKIPPED what native code does: strace is not here, or may not trace (Debian: apt-get install strace)")
    rows: list[Seen] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = given.repository.resolve() if given.repository else make(folder / "repository")
        parts = [part for part in PARTS if part in given.only or (part == "repro" and not given.repository)]
        for part in parts:
            with _part(part, folder, strace, rows) as watched:
                PARTS[part](root, watched)
            print(f"{part}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        silent = control(root, folder, strace)
    bad = False
    for seen in rows:
        for line in seen.outside[:10]:
            print(f"  {seen.part}: outside: {line}", file=sys.stderr)
        for line in seen.kept:
            print(f"  {seen.part}: kept in the home folder: {line}", file=sys.stderr)
        bad |= bool(seen.outside or seen.kept)
    if not silent.kept or (strace and not silent.outside):
        print("the control was not seen to ask anybody: this check is blind", file=sys.stderr)
        bad = True

    def row(seen: Seen) -> list[Any]:
        return [seen.part, "yes" if seen.traced else "Python only", seen.calls, len(seen.outside), len(seen.kept)]

    head = ["what", "native code traced", "calls seen", "connections or look-ups outside", "identities kept"]
    text = table(head, [*map(row, rows), row(silent._replace(part="control: onnxruntime, not silenced"))])
    print(text)
    if given.write:
        write("trust", "network", f"\n{text}\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
