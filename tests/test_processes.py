"""Who is stopped stops what it started, asks before it ends anything, and waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from repix import processes
from tests.conftest import ROOT

# What a command starts: DVC, which would die of SIGTERM alone, and a training below it, which saves first.
TRAINING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: (open("saved", "w").close(), sys.exit(143)))
open("pid", "w").write(str(os.getpid()))
os.rename("pid", "ready")
time.sleep(60)
"""
DVC = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TRAINING!r}])"
COMMAND = f"""
import signal, sys
from repix import cli, processes
for number in (signal.SIGTERM, signal.SIGHUP):  # as in a terminal, however the tests were started
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
def run(argv, asked):
    if sys.argv[1] == "thread":
        import threading
        one = threading.Thread(target=lambda: processes.run([sys.executable, "-c", {DVC!r}]))
        one.start()
        try:
            while one.is_alive():
                one.join(0.1)
        except KeyboardInterrupt:
            processes.stop_running()
            raise
    processes.run([sys.executable, "-c", {DVC!r}])
cli._run = run
cli.main(["results"])
"""


def until(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_stopped_leaves_nothing_running(number, where, tmp_path):
    (tmp_path / "params.yaml").write_text("run: {}\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    one = subprocess.Popen(
        [sys.executable, "-c", COMMAND, where], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    )
    try:
        until(tmp_path / "ready")
        one.send_signal(number)
        said = one.communicate(timeout=30)[1]
    finally:
        one.kill()
    assert one.returncode == 128 + number and b"Traceback" not in said
    until(tmp_path / "saved")
    training = int((tmp_path / "ready").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.kill(training, 0)
            time.sleep(0.02)


def test_what_nobody_waits_for_is_not_asked_for():
    """``nohup`` has said that a terminal that closes ends nothing; and a thread has no signals."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    other = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a library that was imported before may have its own
    try:
        with processes.unwinding():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, other)
    failed = []

    def enter():
        try:
            with processes.unwinding():
                pass
        except ValueError as error:
            failed.append(error)

    one = threading.Thread(target=enter)
    one.start()
    one.join()
    assert not failed


def test_after_a_stop_no_thread_starts_anything_and_the_next_command_does(tmp_path):
    """A seed that was between its training and its evaluation would go on for minutes."""
    command = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    with processes.unwinding():
        processes.stop_running()
        with pytest.raises(processes.Terminated):
            processes.run(command)
        assert not (tmp_path / "ran").exists()
    with processes.unwinding():
        assert processes.run(command) == 0 and (tmp_path / "ran").exists()


def test_what_a_killed_process_started_ends_as_if_it_were_asked(tmp_path):
    """`kill -9` of a search left its trainings running, beside those that the same command started again."""
    stage = f"""
import sys, time
sys.path[:0] = {[str(ROOT / "src")]!r}
from repix import stage
def work():
    try:
        open("pid", "w").write(str(__import__("os").getpid()))
        __import__("os").rename("pid", "ready")
        time.sleep(600)  # longer than the test waits: nothing but the signal ends it
    finally:
        open("saved", "w").close()
stage.guard(work)
"""
    # Between them stands one that passes nothing on, as DVC does.
    between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stage!r}])"
    command = f"import sys; from repix import processes; processes.run([sys.executable, '-c', {between!r}])"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    one = subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, env=environment)
    try:
        until(tmp_path / "ready")
    finally:
        one.kill()
        one.wait()
    assert one.returncode == -signal.SIGKILL
    until(tmp_path / "saved")
    work = int((tmp_path / "ready").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.kill(work, 0)
            time.sleep(0.02)


def test_a_starter_that_nobody_waits_for_is_gone(tmp_path):
    """As in a container whose first process waits for no other: what was killed stays in the table of processes."""
    starter = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    work = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src')]!r}\n"
        "from repix import processes; import time\n"
        "processes.end_with_starter(); open('ready', 'w').close(); time.sleep(60)\n"
    )
    environment = os.environ | {processes.STARTER: str(starter.pid)}
    stage = subprocess.Popen([sys.executable, "-c", work], cwd=tmp_path, env=environment)
    try:
        until(tmp_path / "ready")
        starter.kill()
        assert stage.wait(20) == -signal.SIGTERM
    finally:
        stage.kill()
        starter.wait()


def test_a_starter_of_which_nothing_can_be_told_for_a_moment_is_not_gone():
    """A training that has no descriptor left, for a second, asked itself to stop."""
    work = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src')]!r}\n"
        "from repix import processes; import resource, threading, time\n"
        "processes.end_with_starter()\n"
        "many = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, many[1]))\n"
        "time.sleep(2.5)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, many)\n"
        "print(threading.active_count())\n"
    )
    environment = os.environ | {processes.STARTER: str(os.getpid())}
    done = subprocess.run([sys.executable, "-c", work], env=environment, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n")  # and whoever looks goes on looking


def test_the_exit_code_is_that_of_the_program():
    assert processes.run([sys.executable, "-c", "import sys; sys.exit(7)"]) == 7
