"""A PostgreSQL server of this machine's own, on loopback, in a folder that goes with it."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from checks.tracking import free_port
from repix.errors import UserError

USER = "repix"
OTHERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root


def _program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, which Debian keeps outside PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))


def missing() -> str | None:
    """Return what this machine lacks for a PostgreSQL server and its client, or None."""
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed (pip install '.[postgresql]')"
    lacking = [name for name in ("initdb", "pg_ctl") if _program(name) is None]
    return f"{lacking[0]} is not installed (Debian's package postgresql)" if lacking else None


@contextlib.contextmanager
def postgres(database: str) -> Iterator[str]:
    """Yield the address (SQLAlchemy's) of an empty database of a new server.

    Raises:
        UserError: it does not start.
    """
    root = os.geteuid() == 0
    user = OTHERS[0] if root and _has(OTHERS[0]) else OTHERS[1] if root else getpass.getuser()
    password = secrets.token_hex(16)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="repix-pg-") as name:
        folder, data = Path(name), Path(name) / "data"
        (folder / "password").write_text(password)
        if root:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)

        def run(program: str, *words: str) -> None:
            command = [_program(program), *words]
            if root:
                command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120
            )
            if done.returncode:
                raise UserError(f"{program}: {' | '.join(done.stderr.strip().splitlines()[-3:])}")

        access = ("--auth=scram-sha-256", f"--pwfile={folder / 'password'}", f"--username={USER}")
        run("initdb", f"--pgdata={data}", *access, "--encoding=UTF8", "--locale=C", "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run("pg_ctl", f"--pgdata={data}", "--wait", f"--log={folder / 'log'}", f"--options={options}", "start")
        try:
            yield _created(f"{USER}:{password}@127.0.0.1:{port}", database)
        finally:
            run("pg_ctl", f"--pgdata={data}", "--wait", "--mode=immediate", "stop")


def _has(user: str) -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


def _created(place: str, database: str) -> str:
    import psycopg2

    connection = psycopg2.connect(f"postgresql://{place}/postgres")
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{database}"')
    return f"postgresql+psycopg2://{place}/{database}"
