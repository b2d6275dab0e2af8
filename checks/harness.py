"""What checks and benchmarks share: asking contenders in turns, tables, pages, and stages in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from repix import processes, tables
from repix.commands.results import write_between_markers
from repix.description.resident import peak_bytes
from repix.errors import UserError
from repix.files import read_json

ROOT = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 0.05  # between two looks at a process


def read_as(path: Path, kind: TypeAdapter, mend: str) -> Any:
    """Return what a file of JSON holds, if it is of a kind.

    Raises:
        UserError: it is not; ``mend`` ends the line.
    """
    try:
        found = read_json(path)
        kind.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: no file of results ({where or 'it'}: {first['msg']}); {mend}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); {mend}") from None
    return found


class Contender:
    """A process that answers each number on its standard input with one line of JSON, see :func:`answer`.

    Args:
        name: what it is called where it dies.
        command: what follows ``python``.
    """

    def __init__(self, name: str, command: Sequence[str]):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REPIX_")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.name = name
        self._process = subprocess.Popen([sys.executable, *command], env=environment, text=True, **pipes)

    def ask(self, steps: int) -> Any:
        """Return its answer to ``steps``.

        Raises:
            UserError: it died; what it said is on standard error.
        """
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        if not (line := self._process.stdout.readline()):
            raise UserError(f"contender {self.name} ended with exit code {self._process.wait()}; see above")
        return json.loads(line)

    def kill(self) -> None:
        """End it at once, from whatever thread; a question that waits for its answer raises."""
        self._process.kill()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        """Tell it that there are no more questions, and wait for its end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@dataclass
class Ran:
    """What a process was seen to take.

    Attributes:
        seconds: until its end.
        peak: most GB that were resident for it, pages of mapped files included.
        held: most GB that it held for itself: the system takes pages of mapped files back when somebody needs the room.
        read: GB that it asked of files, mapped ones not counted.
    """

    seconds: float = 0.0
    peak: float = 0.0
    held: float = 0.0
    read: float = 0.0

    def look(self, process: int | str) -> None:
        """Add what the system says of a process by now; nothing where it has just ended, or the system says nothing."""
        try:
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
            asked = int(Path(f"/proc/{process}/io").read_text().split()[1])
        except (OSError, IndexError):
            return
        kilobytes = dict(re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status))
        self.peak = max(self.peak, int(kilobytes.get("VmHWM", 0)) * 1024 / 1e9)
        self.held = max(self.held, int(kilobytes.get("RssAnon", 0)) * 1024 / 1e9)
        self.read = max(self.read, asked / 1e9)


def own_peak() -> float:
    """Return the most GB that were resident for this process."""
    return peak_bytes() / 1e9


def answer(step: Callable[[], Any], more: Callable[[], dict[str, Any]] = dict) -> None:
    """Answer each number on standard input with the milliseconds of so many steps, until the input ends.

    Args:
        step: what is timed.
        more: returns what else belongs to an answer.
    """
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            before = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - before))
        print(json.dumps({"ms": times, "peak_mb": own_peak() * 1e9 / 2**20} | more()), flush=True)


def turns(
    contenders: Mapping[str, Contender], rounds: int, steps: int, between: Callable[[], None] = lambda: None
) -> dict[str, dict[str, Any]]:
    """Ask contenders in turns (A B C A B C ...), so that a machine that gets slower gets slower for all.

    Args:
        contenders: they have started; three steps each come first, which trace and fill caches.
        rounds: how often each is asked.
        steps: of each in a round.
        between: called after every round.

    Returns:
        Name -> ``ms``, the milliseconds of all its steps, and ``peak_mb``, its peak resident memory.
    """
    found = {name: one.ask(3) | {"ms": []} for name, one in contenders.items()}
    for _ in range(rounds):
        for name, one in contenders.items():
            said = one.ask(steps)
            found[name] = said | {"ms": found[name]["ms"] + said["ms"]}
        between()
    return found


def shown(value: Any) -> str:
    """Return a value as a cell of a table has it: four digits of a float, yes or no, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int | None = None) -> str:
    """Return a Markdown table that also reads well in a terminal: cells up to 40 characters are aligned.

    Args:
        head: headings of the columns.
        rows: as many values each, see :func:`shown`.
        left: how many columns are aligned left; without it those that hold anything but numbers.
    """
    rows = [list(row) for row in rows]
    number = [
        all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in column)
        if left is None
        else index >= left
        for index, column in enumerate(zip(*rows, strict=True) if rows else [()] * len(head))
    ]
    cells = [list(head), *([shown(value) for value in row] for row in rows)]
    right = [index for index, is_number in enumerate(number) if is_number]
    return "\n".join(tables.markdown(cells, right=right, padded=True))


def write(page: str, name: str, text: str) -> None:
    """Put a text between the comments ``name:begin`` and ``name:end`` of a page of ``docs/``.

    Raises:
        UserError: the page does not have both comments.
    """
    write_between_markers(ROOT / "docs" / f"{page}.md", text, name)


def options(*names: str) -> list[str]:
    """Return the command line that names a data set, a model and a seed, as many as are given."""
    return [
        word for axis, name in zip(("dataset", "model", "seed"), names, strict=False) for word in (f"--{axis}", name)
    ]


def run_stage(folder: Path, name: str, *names: str, seconds: float | None = None) -> Ran:
    """Run a stage's script in a folder, untracked; return what it took.

    What it says goes to ``logs/``.

    Args:
        folder: where params.yaml lies.
        name: of the stage.
        names: data set, model and seed, as many as the stage takes.
        seconds: after which it is asked to stop (SIGTERM): a training saves its state and ends.

    Raises:
        TimeoutError: it was asked to stop, and did.
        UserError: it failed; the last line that it said is in the message.
    """
    script = str(ROOT / "stages" / f"{name}.py")
    return _run_logged(folder, name, "-".join([name, *names]), [script, *options(*names)], {}, seconds)


def run_module(folder: Path, module: str, *words: str) -> Ran:
    """Run a module of the repository in a folder as :func:`run_stage` does a stage's script.

    Raises:
        UserError: it failed; the last line that it said is in the message.
    """
    name = module.rpartition(".")[2]
    where = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return _run_logged(folder, name, "-".join([name, *words]), ["-m", module, *words], {"PYTHONPATH": where}, None)


def _run_logged(
    folder: Path, name: str, log_name: str, words: Sequence[str], more: Mapping[str, str], seconds: float | None
) -> Ran:
    log = folder / "logs" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DVC_ROOT": str(folder.resolve()), "REPIX_TRACKING": "off"} | dict(more)
    environment |= {processes.STARTER: str(os.getpid())}  # a stage ends with who started it
    command = [sys.executable, *words]
    begun = time.perf_counter()
    with open(log, "w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        # Not process.terminate: it could take the status that wait4 waits for.
        clock = threading.Timer(seconds or 0, os.kill, (process.pid, signal.SIGTERM))
        seen, ended = Ran(), threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, seen, ended))
        watch.start()
        if seconds is not None:
            clock.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # who is stopped stops what it started: a training saves its state first
            os.kill(process.pid, signal.SIGTERM)
            os.wait4(process.pid, 0)
            raise
        finally:
            clock.cancel()
            ended.set()
            watch.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if seconds is not None and process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        raise TimeoutError(f"{name} was asked to stop after {seconds:.0f} s; all that it said: {log}")
    if process.returncode == -signal.SIGKILL:
        raise UserError(f"{name} was killed, most likely since memory ran out; all that it said: {log}")
    if process.returncode:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else "no output"
        raise UserError(f"{name} ended with {process.returncode}: {last}; all of it: {log}")
    seen.seconds = time.perf_counter() - begun
    seen.peak = seen.peak or usage.ru_maxrss * 1024 / 1e9
    return seen


def _watch(process: int, seen: Ran, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        seen.look(process)
