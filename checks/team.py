"""MLflow as a team has it: a server on PostgreSQL, pictures and models in an S3 store, many who write at once.

    python -m checks.team

PostgreSQL is a real one of this machine (Debian's package `postgresql`), the store is moto's. A tiny cell is
trained with tracking on that server and without any; then the run is rebuilt by `repix sync`, four at once, into
the server's empty database. Exit code 1 unless the outs are the same, there is one run, MLflow says the same of it
as of that of the training, and its pictures lie in the store. Without PostgreSQL it says so, with exit code 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checks import remotes, tracking
from checks.harness import table
from checks.support import postgres
from repix.stage import guard

AT_ONCE = 4


def sync(root: Path, address: str) -> str:
    """Run `repix sync` on a server; return the last line that it said where it failed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "REPIX_"))}
    environment = kept | {"PYTHONPATH": str(root / "src"), "MLFLOW_TRACKING_URI": address}
    command = [sys.executable, "-m", "repix.cli", "sync"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["no output"])[-1] if done.returncode else ""


def runs(address: str) -> list[tuple[str, str, str, int]]:
    """Return id, name, status, and the number of files in the store, of each run of the experiment `repix`."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("repix")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return [
        (run.info.run_id, run.info.run_name, run.info.status, _files(client, run.info.run_id, None)) for run in found
    ]


def _files(client, run_id: str, path: str | None) -> int:
    return sum(_files(client, run_id, one.path) if one.is_dir else 1 for one in client.list_artifacts(run_id, path))


def main() -> int:
    """Run the check; return the exit code."""
    if lacks := postgres.missing() or remotes.missing("s3"):
        print(f"NOT RUN: {lacks}")
        return 0
    with tempfile.TemporaryDirectory(prefix="repix-team-") as scratch, remotes.s3(Path(scratch)) as store:
        base = Path(scratch)
        keys = store.environment | {"MLFLOW_S3_ENDPOINT_URL": store.options["endpointurl"]}
        keys |= {"AWS_DEFAULT_REGION": store.options["region"]}
        alone = tracking.run(base / "alone")
        rows, digests = [], []
        for name in ("on", "synced"):
            with postgres.postgres("mlflow") as database:
                where = {"backend": database, "artifacts": f"s3://{remotes.BUCKET}/{name}"}
                (base / f"server-{name}").mkdir()
                with tracking.mlflow_server(base / f"server-{name}", **where, environment=keys) as address:
                    if name == "on":
                        outs = tracking.run(base / "team", REPIX_TRACKING="on", MLFLOW_TRACKING_URI=address)
                        failed = [sync(base / "team", address)]
                    else:  # what the farm does: its workers track nothing
                        with ThreadPoolExecutor(AT_ONCE) as pool:
                            failed = list(pool.map(lambda _: sync(base / "team", address), range(AT_ONCE)))
                    found = runs(address)
                    digests += [tracking.said(base / "team", run[0], address) for run in found]
                    rows += [[name, *run[1:], digests[-1][:12], " | ".join(filter(None, failed))] for run in found]
        print(table(("tracking", "run", "status", "files in the store", "what MLflow says", "failed"), rows))
        equal = outs == alone
        print(f"outs as without tracking: {'yes' if equal else 'NO'}")
        sound = len(rows) == 2 and len(set(digests)) == 1 and all(row[3] and not row[5] for row in rows)
        return 0 if equal and sound else 1


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    guard(lambda: sys.exit(main()))
