"""Programs that a command starts, and signals that end it: who is stopped stops what it started.

Stages and commands unwind alike: a training that outlived its command would run beside the one that the same command
starts again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from repix.files import process_name

_RUNNING: set[subprocess.Popen] = set()
_LOCK = threading.Lock()  # nothing starts while what runs is stopped, or afterwards
_stopped = False
_at_once = False


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: like Ctrl-C it unwinds.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def ending_signals() -> list[int]:
    """Return the signals by which others ask a process to end, but for those that it ignores (under ``nohup``)."""
    numbers = [signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Give Ctrl-C and the :func:`ending_signals` to a handler for a while; in another thread than the main one, nobody.

    Args:
        handler: as :func:`signal.signal` takes it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, *ending_signals())}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, signal.SIG_DFL if was is None else was)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Terminated`, where nobody has asked for something else (``nohup``)."""

    def raise_terminated(number, frame):
        raise Terminated(number)

    global _stopped
    _stopped = False
    ours = threading.current_thread() is threading.main_thread()
    taken = [number for number in ending_signals() if ours and signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, raise_terminated)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """Return the environment in which ``python``, as stages are called, is the Python that runs this."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path}


def leave_at_once(whether: bool) -> None:
    """Say whether :func:`leave` ends this process without what libraries do at its exit, such as waiting for others."""
    global _at_once
    _at_once = whether


def leaves_at_once() -> bool:
    """Return what :func:`leave_at_once` was told last."""
    return _at_once


def leave(code: int) -> NoReturn:
    """End this process with an exit code."""
    if _at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


STARTER = "REPIX_STARTER"  # environment variable: number of the process that called run
ASKED = 128 + signal.SIGTERM  # exit code of a program of ours that was asked to stop
LOOK_SECONDS = 0.5


def run(command: Sequence[str], *, until: Callable[[], bool] | None = None, **options: Any) -> int:
    """Run a program to its end and return its exit code; where this process is stopped, the program is too.

    It gets a process group of its own, so that what it starts in turn (DVC a stage) is asked to stop with it, by
    SIGTERM, so that a training saves its state first. The program is waited for. Where this process is killed
    and can ask nobody, stages that it started see that themselves (:func:`end_with_starter`).

    Args:
        command: the program and its arguments.
        until: is asked twice a second whether the program shall stop.
        options: of :class:`subprocess.Popen`.

    Raises:
        Terminated: :func:`stop_running` was called before.
    """
    options["env"] = {**(options.get("env") or os.environ), STARTER: str(os.getpid())}
    with _LOCK:
        require_going_on()
        process = subprocess.Popen(command, process_group=0, **options)
        _RUNNING.add(process)
    try:
        while until is not None and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
            if process.poll() is None and until():
                _stop(process)
                break
        return process.wait()
    except BaseException:
        _stop(process)
        process.wait()
        raise
    finally:
        with _LOCK:
            _RUNNING.discard(process)


def end_with_starter() -> None:
    """End this process by SIGTERM, soon after the one that started it by :func:`run` is gone."""
    given = os.environ.get(STARTER, "")
    if not given.isdecimal():
        return
    starter = int(given)
    name = process_name(starter)

    def lives() -> bool:
        with suppress(OSError):
            return process_name(starter) == name  # and not another, which has its number now
        return True  # as far as can be told now

    def look() -> None:
        while name is not None and lives():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def require_going_on() -> None:
    """Raise what :func:`run` raises after :func:`stop_running`: for threads that wait for something else.

    Raises:
        Terminated: :func:`stop_running` was called before.
    """
    if _stopped:
        raise Terminated(signal.SIGTERM)


def stop_running() -> None:
    """Ask what :func:`run` runs in other threads to stop; they come back with its exit code, and start nothing else."""
    global _stopped
    with _LOCK:
        _stopped = True
        for process in _RUNNING:
            _stop(process)


def _stop(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
