"""The two servers of a repository's export, as a user starts them, and what they take of the machine."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from repix.errors import UserError
from repix.schemas import Exported

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120


class Running(NamedTuple):
    """A server that answers: ``log`` is what it says, ``pid`` its first process."""

    kind: str
    port: int
    pid: int
    log: Path
    export: Exported

    @property
    def address(self) -> str:
        """Where a picture is translated."""
        return "/invocations" if self.kind == "served" else f"/models/{self.export.cell}/source_to_target/translate"

    def ask(self, body: bytes, kind: str = "application/json", address: str | None = None, seconds: float = 60.0):
        """Return (status, body) of a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("POST", address or self.address, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def picture(self) -> bytes:
        """Return a body that it translates."""
        data = picture(self.export.crop_size, self.export.source.channels)
        return rows(base64.b64encode(data).decode()) if self.kind == "served" else data

    def peak_mb(self) -> float:
        """Return the sum of the peaks of resident memory of its processes."""
        return sum(_status(pid, "VmHWM") for pid in family(self.pid))


def picture(size: tuple[int, int], channels: int = 3) -> bytes:
    """Return a PNG of a smooth picture."""
    import numpy as np
    from PIL import Image

    pixels = (np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] * np.arange(1, channels + 1)) % 251
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8) if channels == 3 else pixels[..., 0].astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def rows(*given) -> bytes:
    """Return a request to a served model, an image a row."""
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": [[each] for each in given]}}).encode()


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it (Linux)."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _status(pid: int, key: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def repository(folder: Path) -> Path:
    """Return a repository with an export: this one where it has been run, else a tiny one made in ``folder``."""
    if any((ROOT / "exports").glob("*/export.json")):
        return ROOT
    from checks.support.repository import make
    from repix import profile

    profile.apply("portable")
    return make(folder / "repository")


@contextlib.contextmanager
def running(
    kind: str, root: Path, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Start ``demo`` or ``served`` (``mlflow models serve``) of a repository, wait until it answers, end it at the end.

    Args:
        kind: which.
        root: the repository, which has an export.
        environment: in place of this process's.
        before: words before the command, such as ``strace``.

    Raises:
        UserError: it does not start.
    """
    with tempfile.TemporaryDirectory() as given, contextlib.ExitStack() as open_files:
        folder = Path(given)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        record = min((root / "exports").glob("*/export.json"))
        export = Exported.read(record)
        own = {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}  # where it finds uvicorn
        if kind == "demo":
            command = [sys.executable, "-m", "repix.cli", "demo", "--port", str(port)]
        else:
            from repix.publishing import registry

            registry.save(root, export, "source_to_target", folder / "model")
            command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "model")]
            command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
            own["MALLOC_ARENA_MAX"] = "2"  # as docs/export.md has it
        log = open_files.enter_context(open(folder / "log", "wb"))
        process = subprocess.Popen(
            [*before, *command],
            cwd=root,
            env=dict(os.environ if environment is None else environment) | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        found = Running(kind, port, process.pid, folder / "log", export)
        try:
            until = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/models" if kind == "demo" else "/ping")
                    if connection.getresponse().status == 200:
                        connection.close()
                        break
                if process.poll() is not None or time.monotonic() > until:
                    raise UserError(f"{kind} does not start: {found.log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.2)
            yield found
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """End a process that leads a session, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def has_strace() -> bool:
    """Return whether system calls can be traced here."""
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
