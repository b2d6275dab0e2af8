"""The same tiny cell with tracking on, off, without a server, and with one that dies midway.

    python -m checks.tracking

Each case runs the route up to evaluate in a folder of its own. Printed are the hashes of its
outs, as dvc.lock would have them; how many requests the server answered; and the digest of what MLflow
says of the run after `repix sync`: params, curves, scores, model entry. At the end the database of the
first case is deleted, rebuilt by `repix sync`, and asked for through MLflow's own server.
Exit code 1 unless every column has one value.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from checks.harness import table
from checks.support import route
from repix.files import canonical_json, digest_text
from repix.provenance import lock, pipeline

START_SECONDS = 180
NOT_REBUILT = re.compile(
    r"mlflow\.user|mlflow\.source\.(name|type)|repix\.(host|cpu|cpus|os|process|git_.*)|mlflow\.source\.git.*"
)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    backend: str | None = None,
    artifacts: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the address of an MLflow server.

    Args:
        folder: where it works, and keeps what follows where it is not given.
        backend: address of its database.
        artifacts: where its files go.
        environment: what it finds in its environment beside this process'.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        backend or f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        artifacts or str(folder / "served"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    given = os.environ | quiet | dict(environment or {})
    with subprocess.Popen(
        command, cwd=folder, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        sys.exit("mlflow server does not start")
                    time.sleep(0.5)
            yield address
        finally:
            process.terminate()


@contextmanager
def dying(address: str, answered: list[str], lives: str) -> Iterator[str]:
    """Yield the address of a server that passes requests on, until the first for ``lives`` was answered."""

    class Passing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if any(lives in path for path in answered):
                self.close_connection = True
                self.connection.close()  # no answer at all, as from a machine that is gone
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            passed = urllib.request.Request(address + self.path, body, headers, method=self.command)
            try:
                with urllib.request.urlopen(passed) as answer:
                    code, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                code, content = error.code, error.read()
            answered.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Passing) as server:
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(root: Path, **environment: str) -> dict[str, str]:
    """Run the route in a new copy at ``root``; return out -> hash."""
    route.copy(root)
    for kinds in (("download", "unpack"), ("preprocess",), ("features", "start"), ("train", "evaluate")):
        route.run(root, *kinds, **environment)
    route.locked(root)
    outs = [out for stage in pipeline.stages(root) if stage.kind != "export" for out in stage.outs]
    return {out: lock.md5(root / out) for out in outs}


def sync(root: Path) -> str:
    """Run `repix sync` on the local database; return the id of the cell's run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "REPIX_"))}
    command = [sys.executable, "-m", "repix.cli", "sync", "--json"]
    environment = kept | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"repix sync: {done.stderr}")
    return json.loads(done.stdout)["runs"][route.CELL]


def said(root: Path, run_id: str, address: str = "") -> str:
    """Return the digest of what MLflow says of a run, without ids, times, and what only the training's machine knew.

    Asked in a process of its own: MLflow holds on to a database that was deleted.
    """
    command = [sys.executable, "-m", "checks.tracking", "--said", str(root), run_id, address]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def digest_of(root: Path, run_id: str, address: str) -> str:
    """Return what :func:`said` does, in this process."""
    from repix.tracking import store

    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if address:
        os.environ["MLFLOW_TRACKING_URI"] = address
    client, _ = store.connect(root)
    found = client.get_run(run_id)
    curves = {
        key: sorted({(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)})
        for key in found.data.metrics
        if not key.startswith(("system/", "loss_within_epoch/"))
    }
    tags = {key: value for key, value in found.data.tags.items() if not NOT_REBUILT.fullmatch(key)}
    content = {"params": found.data.params, "curves": curves, "status": found.info.status, "tags": tags}
    return digest_text(canonical_json(content))


def ui(root: Path) -> list[str]:
    """Return the names of the runs that MLflow's own server shows for a local database."""
    with mlflow_server(root) as address:
        query = {"experiment_ids": ["1"], "max_results": 10}
        asked = urllib.request.Request(
            f"{address}/api/2.0/mlflow/runs/search", json.dumps(query).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            runs = json.load(answer).get("runs", [])
        with urllib.request.urlopen(address) as page:
            if b"<html" not in page.read().lower():
                sys.exit("MLflow's first page is no page")
    return [f"{found['info']['run_name']} {found['info']['status']}" for found in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--said", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.said:
        print(digest_of(Path(given.said[0]), *given.said[1:]))
        return
    with tempfile.TemporaryDirectory(prefix="repix-tracking-") as folder:
        base = Path(folder)
        outs, content = {}, {}
        outs["on"] = run(base / "on", REPIX_TRACKING="on")
        outs["off"] = run(base / "off")
        outs["no server"] = run(
            base / "none", REPIX_TRACKING="on", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}"
        )
        (base / "server").mkdir()
        answered: list[str] = []
        # Params are logged when the training starts, the first losses after its first epoch.
        with mlflow_server(base / "server") as address, dying(address, answered, "runs/log-batch") as passing:
            outs["dies midway"] = run(base / "dies", REPIX_TRACKING="on", MLFLOW_TRACKING_URI=passing)
        for name, place in zip(outs, ("on", "off", "none", "dies"), strict=True):
            content[name] = said(base / place, sync(base / place))
        lines = []
        for out in outs["on"]:
            lines.append((out, *(hashes[out].removesuffix(".dir")[:12] for hashes in outs.values())))
        lines.append(("MLflow after repix sync", *(digest[:12] for digest in content.values())))
        print(table(["out", *outs], lines))
        last = answered[-1] if answered else "none"
        print(f"the dying server answered {len(answered)} requests, the last: {last}")

        (base / "on/mlflow.db").unlink()
        shutil.rmtree(base / "on/mlartifacts")
        again = said(base / "on", sync(base / "on"))
        shown = ui(base / "on")
        print(f"database deleted, repix sync: {again[:12]}; MLflow's server shows: {', '.join(shown) or 'nothing'}")
    same = all(hashes == outs["on"] for hashes in outs.values()) and len({*content.values(), again}) == 1
    sys.exit(0 if same and shown and answered else 1)


if __name__ == "__main__":
    main()
