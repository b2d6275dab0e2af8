"""Where MLflow's runs are kept: the database at the repository's root, or what the environment names.

MLflow is imported inside functions, since that takes seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from repix.errors import UserError
from repix.files import locked

LOCK_SECONDS = 5  # how long to wait for another process's write to the local database
OPEN_SECONDS = 60  # how long to wait for another process to make or migrate that database
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?):///([^?]*)(.*)", re.DOTALL)


def enabled() -> bool:
    """Whether tracking is wanted: ``REPIX_TRACKING=off`` says it is not."""
    return os.environ.get("REPIX_TRACKING", "").lower() not in ("off", "0", "false", "no")


def repository_root(start: str | Path = ".") -> Path:
    """Return the repository that DVC runs in, else the nearest one above ``start``."""
    if os.environ.get("DVC_ROOT"):
        return Path(os.environ["DVC_ROOT"])
    start = Path(start).resolve()
    return next((p for p in (start, *start.parents) if (p / ".dvc").is_dir() or (p / ".git").exists()), start)


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite database, whatever characters its path has."""
    text = path.as_posix()
    if "?" not in text and unquote(text) == text:
        return f"sqlite:///{text}"
    # Under the short name MLflow would make the folders of the quoted path.
    return f"sqlite+pysqlite:///{quote(text)}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for another kind of store, or one in memory."""
    match = _SQLITE.fullmatch(uri)
    path = unquote(match[2]) if match else ""
    return None if path in ("", ":memory:") or path.startswith("file:") else Path(path)


def tracking_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI`` where it is set, else the database at the root.

    What is relative in it counts from the root and not from the working directory: an
    experiment under ``dvc exp run --temp`` works in a copy that DVC deletes.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if match := _SQLITE.fullmatch(given):
        path = sqlite_path(given)
        return given if path is None or path.is_absolute() else sqlite_uri(root.resolve() / path) + match[3]
    if given.startswith("file:") and not given.startswith("file:/"):
        return (root.resolve() / unquote(given.removeprefix("file:"))).as_uri()
    if ":" not in given and given != "uc" and not given.startswith("databricks"):
        return str(root.resolve() / given)
    return given


def alone(root: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a lock against other processes of this repository, waiting OPEN_SECONDS at most.

    Two that start at once would both create the database, or both create the run.
    """
    return locked(root / ".repix" / "tracking.lock", "MLflow's database", seconds=OPEN_SECONDS)


def check_sqlite(path: Path) -> None:
    """Raise at once where a local database cannot be written: MLflow would try for minutes.

    Raises:
        UserError: the file is no database.
        sqlite3.OperationalError: it cannot be opened or written, or is held by another process.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            # On a read-only database even that succeeds: only a write tells.
            database.execute("PRAGMA user_version = 0")
            database.rollback()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: {error}; move it away, and `repix sync` makes it anew") from None


def connect(root: Path) -> tuple[Any, str]:
    """Return an MLflow client and its tracking URI; the local database is made where missing.

    Waiting is bounded: a dead server costs seconds. The user's own settings of
    ``MLFLOW_HTTP_REQUEST_*`` are left as they are.

    Raises:
        Exception: whatever is wrong with MLflow or its store.
    """
    for name, value in {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)
    uri = tracking_uri(root)
    if path := sqlite_path(uri):
        check_sqlite(path)
    from mlflow import MlflowClient

    # What MLflow has to say while it fails or migrates belongs to nobody's stage output.
    for name in ("mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri, uri), uri


def experiment_id(client: Any, uri: str, root: Path) -> str:
    """Return the id of the experiment, created where missing: ``MLFLOW_EXPERIMENT_NAME``, else repix.

    Raises:
        UserError: somebody deleted it in MLflow, which keeps the name until it is restored.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "repix"
    found = client.get_experiment_by_name(name)
    if found is None:
        # By default a local store would put artifacts below the working directory.
        local = (root.resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
        return client.create_experiment(name, artifact_location=local)
    if found.lifecycle_stage == "deleted":
        where = "" if os.environ.get("MLFLOW_TRACKING_URI") else f"MLFLOW_TRACKING_URI='{uri}' "
        raise UserError(
            f"MLflow's experiment {name} was deleted: bring it back with `{where}mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or name another in MLFLOW_EXPERIMENT_NAME"
        )
    return found.experiment_id


@contextlib.contextmanager
def as_default(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's default for a while: some calls have no client of their own."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # which also sets the variable, for child processes
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
