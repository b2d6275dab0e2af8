"""Starts a worker in a fresh clone, and leaves nothing behind, however either of them ends.

An engine runs the text of this file with ``python -c``, so that a node needs neither repix nor a shared folder:
standard library only. It reads a task (JSON) from standard input; the worker's answer goes to standard output.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

PREFIX = "repix-farm-"
LOOK_SECONDS = 0.25  # how often it looks whether worker and parent live
YOUNG_SECONDS = 60
STOP_SECONDS = 60  # what a training has, after SIGTERM, to save its state


class Refused(Exception):  # noqa: N818
    """Something that another try will not mend."""


def clear(place):
    """Remove the folders of earlier starts whose processes are gone: the kernel took back their locks."""
    for name in os.listdir(place):
        folder = os.path.join(place, name)
        if not name.startswith(PREFIX):
            continue
        with suppress(OSError):
            # One without a lock is being made in this moment, or was left half removed.
            old = time.time() - os.stat(folder).st_mtime > YOUNG_SECONDS
            held = os.open(os.path.join(folder, "lock"), os.O_RDWR | (os.O_CREAT if old else 0))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def make():
    """Return a new folder, and its lock, which is held."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX)
        lock = os.path.join(folder, "lock")
        held = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(held, fcntl.LOCK_EX)
        # Another start may have taken the lock first, and the folder for one that was left.
        with suppress(OSError):
            if os.path.samestat(os.fstat(held), os.stat(lock)):
                return folder, held
        os.close(held)


def git(*command):
    """Run git, with its last line as the reason where it fails."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Refused("git is not installed on this node") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Refused(said[-1] if said else "git " + command[0] + " failed")


def clone(task, folder):
    """Return the path of a clone's tree, at the task's commit."""
    top = os.path.join(folder, "clone")
    git("clone", "--quiet", "--no-checkout", task["repository"], top)
    try:
        git("-C", top, "checkout", "--quiet", "--detach", task["commit"])
    except Refused as error:
        raise Refused("{} of {}: {}; push the commit first".format(task["commit"], task["repository"], error)) from None
    return os.path.join(top, task["prefix"])


def environment(tree, folder):
    """Return the worker's environment: this Python first, the clone's code, nothing of a DVC or MLflow around it."""
    aside = ("DVC_", "MLFLOW_", "REPIX_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(aside)}
    own = [os.path.join(tree, "src"), kept.get("PYTHONPATH")]
    kept["PYTHONPATH"] = os.pathsep.join(path for path in own if path)
    kept["PATH"] = os.path.dirname(sys.executable) + os.pathsep + kept.get("PATH", os.defpath)
    kept["DVC_SITE_CACHE_DIR"] = os.path.join(folder, "site")
    quiet = {"DVC_NO_ANALYTICS": "1", "PYTHONDONTWRITEBYTECODE": "1", "REPIX_TRACKING": "off"}
    return dict(kept, **quiet)


def end(worker):
    """End a worker and all that it started: with SIGTERM, so that a training saves, then with SIGKILL."""
    with suppress(ProcessLookupError):
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(STOP_SECONDS)
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def run(task, parent):
    """Run a task; return the exit code: that of the worker, 143 where nobody waits for it any more."""
    clear(tempfile.gettempdir())
    folder, held = make()
    try:
        tree = clone(task, folder)
        task.update(folder=folder, starter=os.getpid(), log=task.get("log") or os.path.join(folder, "log"))
        try:
            os.makedirs(os.path.dirname(task["log"]), exist_ok=True)
            log = open(task["log"], "ab")  # noqa: SIM115
        except OSError as error:
            raise Refused("{}: {}; all workers have to see --shared".format(task["log"], error.strerror)) from None
        with log, open(os.path.join(folder, "task"), "w+") as given:
            json.dump(task, given)
            given.seek(0)
            command = [sys.executable, "-m", "repix.farm.worker"]
            around = environment(tree, folder)
            worker = subprocess.Popen(command, cwd=tree, env=around, stdin=given, stderr=log, start_new_session=True)
        try:
            while worker.poll() is None:
                if os.getppid() != parent:
                    return 143
                time.sleep(LOOK_SECONDS)
            return worker.returncode
        finally:
            end(worker)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def stop(number, frame):
    """Unwind on a signal; a second one must not cut the unwinding short."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    """Run the task of standard input, and exit."""
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        sys.exit(run(json.load(sys.stdin), parent))
    except Refused as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
