"""Create .venv and install the exact environment of constraints.txt into it: what `make setup` does.

  python3 install.py             what `make repro` needs
  python3 install.py --tests     what `make test`, `make lint` and the benchmarks need as well
  python3 install.py --check     only look whether git can read this folder

Standard library alone: it runs before anything is installed. `REPIX_TORCH` chooses where torch comes from:
`auto` (PyTorch's index of CPU builds where it answers within two seconds, else the package registry), `cpu`
(that index or nothing), `registry`, or the address of another index.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from repix import machine  # noqa: E402

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS = 2.0
FREE_BYTES = 5 * 10**9  # the environment, and what pip keeps while it unpacks
SAY_SECONDS = 15.0  # between two lines where there is no terminal
# What the wheels hold for those who compile against them, for debuggers, and for their own tests: no program that runs
# reads it. An upgrade or `pip install --force-reinstall --no-deps <package>` brings it back.
TESTED = ("h5py", "matplotlib", "networkx", "numpy", "pandas", "pyarrow", "scipy", "skimage", "sklearn", "sympy")
UNUSED = (
    "tensorflow/include",
    "clang/native",
    "torch/include",
    "torch/test",
    "torch/bin/test_*",
    "torch/bin/*Test",
    "torch/bin/protoc*",
    "onnx/backend/test/data",
    "onnxruntime/capi/libonnxruntime.so.*",  # for C; Python's module has all of it inside
    "pyarrow/include",
    *(f"{name}/**/tests" for name in TESTED),
)
SYMBOL_BYTES = 10**6  # tables of symbols below it stay: they are many and small
# The numbers of the ELF format: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
ELF_64_LITTLE = b"\x7fELF\x02\x01"
SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
TYPE, FLAGS, OFFSET, SIZE, LINK, ALIGNMENT = 1, 2, 4, 5, 6, 8
SYMTAB, NOBITS = 2, 8  # types of sections
LOADED = 2  # a flag of them


class StopError(Exception):
    """What the user has to know and can mend, in one line."""


def say(text: str) -> None:
    """Print a line at once."""
    print(f"repix: {text}", flush=True)


# --- torch


def answers(url: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Return whether an address answers with a page, within ``seconds`` altogether: name, connection and headers."""
    found: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as page:
                found.append(page.status == 200)
        except (OSError, ValueError, http.client.HTTPException):  # the last: what a proxy's page may answer
            pass

    # A name that does not resolve may take longer than any time-out of a connection.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found == [True]


def pinned(name: str) -> str:
    """Return the version of a package in constraints.txt."""
    return re.findall(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)[0]


def installed(packages: Path, name: str) -> str | None:
    """Return the version of a package in a folder of packages, build label included; None where it is not there."""
    found = sorted(packages.glob(f"{name}-*.dist-info"))
    return found[-1].name.removeprefix(f"{name}-").removesuffix(".dist-info") if found else None


def torch_index(choice: str, platform: str = sys.platform, index: str = CPU_INDEX) -> tuple[str | None, str]:
    """Return the index that torch is asked of first, None for the registry, and why, for people.

    Args:
        choice: ``REPIX_TORCH``.
        platform: as :data:`sys.platform` says it. The registry's builds are made for CUDA on Linux alone.
        index: where PyTorch keeps builds for the CPU.

    Raises:
        StopError: the choice is none, or it has to be an index that does not answer.
    """
    if choice in ("", "auto"):
        if platform != "linux":
            return None, "which builds it for the CPU on this system"
        if answers(f"{index}/torch/"):
            return index, "PyTorch's index of CPU builds"
        return None, f"as PyTorch's index of CPU builds did not answer in {ANSWER_SECONDS:.0f} s"
    if choice == "registry":
        return None, "as REPIX_TORCH says"
    wanted = index if choice == "cpu" else choice.rstrip("/")
    if not wanted.startswith(("https://", "http://", "file://")):
        raise StopError(f"REPIX_TORCH={choice}: it is auto, cpu, registry or the address of an index")
    if not wanted.startswith("file://") and not answers(f"{wanted}/torch/"):
        waited = f"{wanted} did not answer in {ANSWER_SECONDS:.0f} s"
        raise StopError(f"REPIX_TORCH={choice}: {waited}; REPIX_TORCH=auto takes the registry")
    return wanted, f"{wanted}, as REPIX_TORCH says"


def torch_line(version: str | None, why: str, cuda: bool) -> str:
    """Return the line that says which torch was taken, and how to choose."""
    build = ", with CUDA, which repix does not use (docs/setup.md)" if cuda else ""
    return f"torch {version}{build}, {why} (REPIX_TORCH chooses: auto, cpu, registry or an index)"


# --- pip, with progress


class Progress:
    """Turns what pip says into one line for people: on a terminal it is rewritten, elsewhere printed now and then.

    Args:
        packages: the folder that pip installs into: it says nothing while it does, so what has arrived is counted.
    """

    def __init__(self, packages: Path, stream=None):
        self.packages, self.stream = packages, stream or sys.stdout
        self.began = time.monotonic()
        self._seen = self._total = 0
        self._doing, self._said, self._shown = "asking the registry", "", -SAY_SECONDS
        self._before = self._arrived()
        self._terminal = self.stream.isatty()

    def _arrived(self) -> int:
        return sum(1 for _ in self.packages.glob("*.dist-info"))

    def heard(self, line: str) -> None:
        """Take in a line of pip's output."""
        if line.startswith("Collecting "):
            self._seen += 1
            self._doing = f"{self._seen} packages found"
        elif match := re.match(r"\s+Downloading (\S+?)-\d\S* \((\S+ [kMG]?B)\)", line):
            self._doing = f"{self._seen} packages found, fetching {match[1]} ({match[2]})"
        elif line.startswith("Installing collected packages: "):
            self._total = line.count(",") + 1

    def text(self) -> str:
        """Return what is being done, and how far it is."""
        if self._total:
            return f"{min(self._arrived() - self._before, self._total)} of {self._total} packages installed"
        return self._doing

    def show(self) -> None:
        """Show it, if it is time to."""
        seconds = time.monotonic() - self.began
        line = f"repix: {self.text()}, {seconds:.0f} s"
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", file=self.stream, flush=True)
        elif seconds - self._shown >= SAY_SECONDS and self.text() != self._said:
            print(line, file=self.stream, flush=True)
            self._shown, self._said = seconds, self.text()

    def end(self) -> None:
        """Leave the line, so that the next one starts at the left."""
        if self._terminal:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", file=self.stream, flush=True)


def pip(python: Path, packages: Path, *arguments: str, log: Path) -> tuple[int, list[str]]:
    """Run ``pip install`` with progress; return its exit code and the last lines that it said.

    Byte code is not made: of the 20,000 files a run imports a third, and Python compiles those as it meets them.

    Args:
        python: the environment's interpreter.
        packages: the folder that it installs into.
        arguments: what comes after ``pip install``.
        log: where all that pip says is kept.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--no-compile", *arguments]
    environment = {**os.environ, "PIP_PROGRESS_BAR": "off", "PYTHONUNBUFFERED": "1"}
    progress, lines = Progress(packages), []
    with (
        open(log, "a", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as running,
    ):

        def listen() -> None:
            for line in running.stdout:
                kept.write(line)
                lines.append(line.rstrip())
                progress.heard(line)

        listener = threading.Thread(target=listen)
        listener.start()
        while listener.is_alive():
            progress.show()
            listener.join(0.25)
    progress.end()
    return running.returncode, [line for line in lines if line][-15:]


# --- the environment


def create(environment: Path) -> Path:
    """Return the interpreter of the environment, which is made or finished where it is not whole.

    Raises:
        StopError: this Python cannot make one, another one has made what is there, or the disk has no room for it.
    """
    python = environment / "bin" / "python"
    if _runs(python, "-m", "pip", "--version"):
        return python
    there = environment.exists()
    # venv links the interpreter first and installs pip last: one that was stopped in between is finished, and one
    # whose Python has gone is made anew.
    version = "{}.{}".format(*sys.version_info)
    unusable = there and not _runs(python, "-c", "")
    if there and not unusable and not _runs(python, "-c", f"import sys; assert sys.version.startswith('{version}.')"):
        raise StopError(f"{environment} is of another Python than {version} and has no pip: remove it, then again")
    if unusable and not (environment / "pyvenv.cfg").is_file() and any(environment.iterdir()):
        raise StopError(f"{environment} is no environment of Python: remove it, then again")
    free = shutil.disk_usage(environment.parent).free
    if free < FREE_BYTES:
        raise StopError(f"{free / 1e9:.1f} GB are free here, and the environment needs {FREE_BYTES / 1e9:.0f} GB")
    clear = ["--clear"] if unusable else []
    made = subprocess.run([sys.executable, "-m", "venv", *clear, str(environment)], capture_output=True, text=True)
    if made.returncode or not _runs(python, "-m", "pip", "--version"):
        if not there:
            shutil.rmtree(environment, ignore_errors=True)
        said = (made.stdout + made.stderr).strip().splitlines()
        if "ensurepip" in made.stdout + made.stderr:
            package = f"python{version}-venv"
            raise StopError(
                f"this Python cannot make environments: `sudo apt install {package}`, then again; or take another one "
                f"(of uv, pyenv or conda): make setup PYTHON=/path/to/python3.11"
            )
        raise StopError(f"{sys.executable} -m venv failed: {said[-1] if said else 'it said nothing'}")
    return python


def _runs(python: Path, *arguments: str) -> bool:
    """Whether an interpreter is there and ends well with some arguments."""
    try:
        return subprocess.run([str(python), *arguments], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment that packages are installed into."""
    return next(environment.glob("lib/python*/site-packages"))


def remove_unused(packages: Path) -> int:
    """Remove what :data:`UNUSED` names from a folder of packages; return how many bytes that were."""
    freed = 0
    for pattern in UNUSED:
        for path in sorted(packages.glob(pattern), reverse=True):  # what is inside another one first
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            freed += sum(file.lstat().st_size for file in files)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed


def libraries(packages: Path) -> list[Path]:
    """Return the compiled libraries of a folder of packages, links to them left out."""
    return sorted(path for path in packages.rglob("*.so*") if path.is_file() and not path.is_symlink())


def remove_symbols(library: Path, least: int = SYMBOL_BYTES) -> int:
    """Remove the table of symbols that debuggers read from a library of Linux; return how many bytes that was.

    As `strip` does, which a machine without a compiler has not. The table of the symbols that other libraries link
    against is another one and stays, as all that is loaded: of it only the head's pointer to the sections is written,
    so that a program can run the library meanwhile, and an interruption leaves one that can be run.

    Args:
        library: left as it is where it has no such table at its end, or where a cache has the same file.
        least: a table of fewer bytes is left.
    """
    with open(library, "r+b") as file:
        head = file.read(64)
        if len(head) < 64 or not head.startswith(ELF_64_LITTLE) or os.fstat(file.fileno()).st_nlink > 1:
            return 0
        _, where, _, _, _, _, width, count, names = struct.unpack_from("<QQIHHHHHH", head, 32)
        if width != SECTION.size:
            return 0
        file.seek(where)
        sections = [list(SECTION.unpack(file.read(width))) for _ in range(count)]
        unloaded = [n for n, it in enumerate(sections) if it[TYPE] not in (0, NOBITS) and not it[FLAGS] & LOADED]
        tables = [n for n in unloaded if sections[n][TYPE] == SYMTAB]
        gone = {*tables, *(sections[n][LINK] for n in tables)}  # and the strings that it points to
        ends = {n: it[OFFSET] + it[SIZE] for n, it in enumerate(sections) if it[TYPE] not in (0, NOBITS)}
        freed = sum(sections[n][SIZE] for n in gone)
        if not gone or freed < least or names in gone:
            return 0
        start = min(sections[n][OFFSET] for n in unloaded)
        # Neither is anything loaded from behind it, nor is there anything behind all that the file's head tells of.
        loaded = max(end for n, end in ends.items() if n not in unloaded)
        if loaded > start or max(*ends.values(), where + count * width) != library.stat().st_size:
            return 0
        tail = bytearray()
        for n in unloaded:
            if n in gone:
                sections[n] = [0] * len(sections[n])  # an empty one, so that the others keep their numbers
                continue
            file.seek(sections[n][OFFSET])
            tail += bytes(-(start + len(tail)) % max(sections[n][ALIGNMENT], 1))
            sections[n][OFFSET] = start + len(tail)
            tail += file.read(sections[n][SIZE])
        tail += bytes(-(start + len(tail)) % 8)
        file.seek(start)
        end = start + file.write(tail + b"".join(SECTION.pack(*it) for it in sections))
        file.seek(40)
        file.write(struct.pack("<Q", start + len(tail)))
        file.truncate(end)
    return freed


def install_torch(python: Path, packages: Path, log: Path) -> str:
    """Install the CPU builds of torch and torchvision where an index of them is at hand; return why, or why not.

    Raises:
        StopError: see :func:`torch_index`; or the index that was asked for has not these versions.
    """
    choice = os.environ.get("REPIX_TORCH", "auto")
    index, why = torch_index(choice)
    if index is None:
        return f"from the package registry, {why}"
    wanted = [f"{name}=={pinned(name)}" for name in ("torch", "torchvision")]
    # Without what they depend on: that comes with all the rest, in the versions of constraints.txt.
    code, last = pip(python, packages, "--no-deps", "--index-url", index, *wanted, log=log)
    if code and choice not in ("", "auto"):
        raise StopError(f"REPIX_TORCH={choice}: {last[-1] if last else 'pip failed'}")
    return f"from the package registry, {index} has no {wanted[0]} for this Python" if code else f"from {why}"


def install(environment: Path, tests: bool) -> None:
    """Install into ``environment`` what the main route needs, or what the tests need as well.

    Raises:
        StopError: with what to mend, in one line.
    """
    python = create(environment)
    packages, log = site_packages(environment), environment / "install.log"
    log.write_text("", encoding="utf-8")
    began, first = time.monotonic(), installed(packages, "torch") is None
    say(f"installing {'what the tests need' if tests else 'the environment'} into .venv, once; details in {log}")
    why = install_torch(python, packages, log) if first else ""
    wanted = ".[dev]" if tests else "."
    code, last = pip(python, packages, "--constraint", "constraints.txt", "--editable", wanted, log=log)
    if code:
        print("\n".join(last), file=sys.stderr)
        raise StopError(f"pip ended with {code}: see above, and all of it in {log}")
    checked = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True)
    if checked.returncode:
        raise StopError(f"pip check: {checked.stdout.strip()}")
    freed = remove_unused(packages) + sum(remove_symbols(path) for path in libraries(packages))
    if first:
        cuda = any(packages.glob("nvidia_cublas*.dist-info"))
        say(torch_line(installed(packages, "torch"), why, cuda))
    seconds = time.monotonic() - began
    say(
        f"installed in {seconds:.0f} s"
        + (f"; {freed / 1e6:.0f} MB of headers, compilers' tools, tests and symbols left out" if freed else "")
    )


def main(argv: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only look whether git can read this folder")
    parser.add_argument("--tests", action="store_true", help="with what the tests need")
    arguments = parser.parse_args(argv)
    problem = machine.git_problem(ROOT)
    if problem:
        print(f"repix: {problem}", file=sys.stderr)
        return 1
    if arguments.check:
        return 0
    try:
        install(ROOT / ".venv", arguments.tests)
    except StopError as error:
        print(f"repix: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrepix: interrupted; the same command starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
