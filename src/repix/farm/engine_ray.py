"""The engine of a Ray cluster: a core task for each command.

The task is a function of Python's own library, so that nodes need none of repix to unpickle it. Options: ``address``
of the cluster (default: what RAY_ADDRESS says, else the one on this machine, else a small one for this call).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping

from repix.errors import UserError
from repix.farm.engine import LOST, Engine, Job

CONNECT_SECONDS = 10
RETRIES = 2  # of a task whose process or node went away, by Ray itself


class _RayJob:
    def __init__(self, reference):
        self._reference = reference

    def result(self) -> subprocess.CompletedProcess | None:
        import ray

        ready, _ = ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self._reference)
        except ray.exceptions.RayError as error:
            return subprocess.CompletedProcess([], LOST, f"{type(error).__name__}")

    def cancel(self) -> None:
        import ray

        ray.cancel(self._reference, force=True)


class _Ray:
    def __init__(self, cpus: int, gpus: int):
        import ray

        self._run = ray.remote(subprocess.run).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)

    def start(self, command: list[str], text: str) -> Job:
        return _RayJob(self._run.remote(command, input=text, stdout=subprocess.PIPE, text=True))

    def close(self) -> None:
        import ray

        ray.shutdown()


def open_engine(cpus: int, gpus: int, folder: str, options: Mapping[str, str]) -> Engine:
    """Connect to the cluster and return its engine.

    Raises:
        UserError: an unknown option, or no cluster at the address.
    """
    if odd := sorted(options.keys() - {"address"}):
        raise UserError(f"--option {odd[0]}: --engine ray has the option address alone")
    # Read by the processes of a cluster that this call starts; `ray start` reads them as they are there.
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default its workers run at nice +15
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a cell without GPUs sees what its profile says
    import ray

    require_answer(options.get("address", os.environ.get("RAY_ADDRESS", "")))
    asked_to_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=options.get("address"), log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(f"no Ray cluster: {' '.join(str(error).split())[:200]}; `ray start --head` makes one") from None
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray's own leaves without a word
            signal.signal(signal.SIGTERM, asked_to_end)
    for kind, wanted in (("CPU", cpus), ("GPU", gpus)):
        most = max((node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]), default=0)
        if wanted > most:  # an autoscaling cluster may still make one
            print(
                f"repix: no node has {wanted} {kind}s (the largest: {most:.0f}): cells wait until one has; "
                f"Ctrl-C, and a smaller --{kind.lower()}s",
                file=sys.stderr,
            )
    return _Ray(cpus, gpus)


def require_answer(address: str) -> None:
    """Require that somebody listens at a cluster's ``host:port``: Ray itself tries for minutes.

    Raises:
        UserError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal()):
        return  # a name such as auto, which Ray explains
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"no Ray cluster at {address}: {why}; `ray start --head` makes one") from None
