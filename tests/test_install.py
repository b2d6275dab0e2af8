"""Set-up tells what would stop it before it installs anything, and takes torch from where it is small and at hand."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from markupsafe import _speedups

import install
from tests.conftest import ROOT

VERSION = install.pinned("torch")


class Index(SimpleHTTPRequestHandler):
    """A folder of wheels as an index; waits ``pause`` seconds before it answers."""

    pause = 0.0

    def do_GET(self):
        time.sleep(self.pause)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def index(tmp_path):
    """An index with wheels of torch and torchvision that hold nothing; yields its address."""
    folder = tmp_path / "index"
    for name in ("torch", "torchvision"):
        version = f"{install.pinned(name)}+cpu"
        (folder / name).mkdir(parents=True)
        wheel = f"{name}-{version}-py3-none-any.whl"
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / name / wheel, "w") as archive:
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        (folder / name / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>')

    def handler(*given, **options):
        return Index(*given, directory=str(folder), **options)

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty environment, whose pip knows no index but the one that it is given."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return install.create(tmp_path / ".venv"), install.site_packages(tmp_path / ".venv")


def test_an_address_answers_in_time_or_does_not(index, monkeypatch):
    assert install.answers(f"{index}/torch/")
    assert not install.answers(f"{index}/none/")
    assert not install.answers("http://127.0.0.1:9/torch/")
    monkeypatch.setattr(Index, "pause", 3.0)
    began = time.monotonic()
    assert not install.answers(f"{index}/torch/", seconds=0.3)
    assert time.monotonic() - began < 2


def test_torch_comes_from_the_index_that_answers_else_from_the_registry(index):
    assert install.torch_index("auto", "linux", index) == (index, "PyTorch's index of CPU builds")
    found, why = install.torch_index("auto", "linux", "http://127.0.0.1:9")
    assert found is None and "did not answer in 2 s" in why
    assert install.torch_index("auto", "darwin", index)[0] is None  # no build there has CUDA
    assert install.torch_index("registry", "linux", index)[0] is None
    assert install.torch_index("cpu", "linux", index)[0] == index
    assert install.torch_index(f"{index}/", "darwin", "http://127.0.0.1:9")[0] == index


@pytest.mark.parametrize("choice", ["cpu", "http://127.0.0.1:9", "gpu"])
def test_a_choice_that_cannot_be_met_is_one_line(choice):
    with pytest.raises(install.StopError) as stopped:
        install.torch_index(choice, "linux", "http://127.0.0.1:9")
    assert f"REPIX_TORCH={choice}" in str(stopped.value) and "\n" not in str(stopped.value)


def test_the_cpu_build_is_installed_and_named(index, environment, tmp_path, monkeypatch):
    python, packages = environment
    monkeypatch.setattr(install, "CPU_INDEX", index)
    monkeypatch.setenv("REPIX_TORCH", index)
    why = install.install_torch(python, packages, tmp_path / "log")
    assert install.installed(packages, "torch") == f"{VERSION}+cpu"
    line = install.torch_line(install.installed(packages, "torch"), why, cuda=False)
    assert line.startswith(f"torch {VERSION}+cpu, from {index}") and "REPIX_TORCH" in line and "CUDA" not in line
    assert not list(packages.glob("sympy*"))  # what it requires comes later, in the versions of constraints.txt


def test_an_index_without_this_version_is_passed_over_or_refused(index, environment, tmp_path, monkeypatch):
    python, packages = environment
    for folder in ("torch", "torchvision"):
        (tmp_path / "index" / folder / "index.html").write_text("")
    monkeypatch.setattr(install, "torch_index", lambda choice: (index, "it answers"))
    monkeypatch.setenv("REPIX_TORCH", "auto")
    assert f"has no torch=={VERSION}" in install.install_torch(python, packages, tmp_path / "log")
    monkeypatch.setenv("REPIX_TORCH", "cpu")
    with pytest.raises(install.StopError, match="REPIX_TORCH=cpu: "):
        install.install_torch(python, packages, tmp_path / "log")


def test_progress_says_what_is_fetched_and_how_far_it_is(tmp_path):
    stream = io.StringIO()
    progress = install.Progress(tmp_path, stream)
    progress.show()
    for line in (
        "Collecting tensorflow<2.22,>=2.20 (from repix)\n",
        "  Downloading tensorflow-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl (571.2 MB)\n",
    ):
        progress.heard(line)
    assert progress.text() == "1 packages found, fetching tensorflow (571.2 MB)"
    progress.heard("Installing collected packages: a, b, c\n")
    (tmp_path / "a-1.0.dist-info").mkdir()
    assert progress.text() == "1 of 3 packages installed"
    progress.show()  # not a terminal: no line in every quarter of a second
    assert stream.getvalue() == "repix: asking the registry, 0 s\n"


def test_what_no_program_reads_is_removed_and_the_rest_is_left(tmp_path):
    for name in ("tensorflow/include/a/b.h", "torch/bin/test_api", "torch/bin/torch_shm_manager", "torch/lib/x.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    assert install.remove_unused(tmp_path) == 8
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["torch_shm_manager", "x.so"]
    assert install.remove_unused(tmp_path) == 0


@pytest.fixture
def library(tmp_path):
    """A compiled module with the small table of symbols that its wheel brings, in a folder of its own."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux' libraries have such a table")
    (tmp_path / "library").mkdir()
    return Path(shutil.copy(_speedups.__file__, tmp_path / "library"))


def test_a_library_without_its_symbols_is_smaller_and_runs(library):
    before, mode = library.read_bytes(), library.stat().st_mode
    assert install.remove_symbols(library, least=len(before)) == 0  # a small table stays
    assert library.read_bytes() == before
    freed = install.remove_symbols(library, least=1)
    assert 0 < freed < len(before) and library.stat().st_mode == mode
    assert abs(len(before) - library.stat().st_size - freed) < 64
    assert install.remove_symbols(library, least=1) == 0 and [*library.parent.iterdir()] == [library]
    load = "import sys; sys.path.insert(0, sys.argv[1]); import _speedups; print(_speedups._escape_inner('<'))"
    ended = subprocess.run([sys.executable, "-c", load, library.parent], capture_output=True, text=True)
    assert ended.stdout.strip() == "&lt;", ended.stderr


def test_a_file_that_a_cache_has_as_well_is_left(library, tmp_path):
    os.link(library, tmp_path / "cached")
    assert install.remove_symbols(library, least=1) == 0
    (tmp_path / "cached").unlink()
    assert install.remove_symbols(library, least=1) > 0


def test_a_file_whose_end_is_not_understood_is_left(library, tmp_path):
    more = tmp_path / "more.so"
    more.write_bytes(library.read_bytes() + b"something that is read from the end")
    (tmp_path / "text.so").write_text("INPUT(libother.so)")
    for path in (more, tmp_path / "text.so"):
        content = path.read_bytes()
        assert install.remove_symbols(path, least=1) == 0 and path.read_bytes() == content


def test_an_environment_that_cannot_be_made_leaves_nothing_and_is_one_line(tmp_path, monkeypatch):
    def fails(command, **_):
        if "venv" not in command:
            return SimpleNamespace(returncode=1)
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        return SimpleNamespace(returncode=1, stdout="ensurepip is not available\n", stderr="")

    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    monkeypatch.setattr(install.subprocess, "run", fails)
    with pytest.raises(install.StopError, match=r"apt install python3\.\d+-venv"):
        install.create(tmp_path / ".venv")
    assert not (tmp_path / ".venv").exists()
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(install.StopError, match=r"1\.0 GB are free"):
        install.create(tmp_path / ".venv")


@pytest.mark.parametrize("state", ["without pip", "its Python has gone"])
def test_an_environment_that_is_not_whole_is_finished_or_made_anew(tmp_path, monkeypatch, state):
    pytest.importorskip("ensurepip")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    venv.create(tmp_path / ".venv", with_pip=False)  # as far as Ctrl-C let it come
    if state != "without pip":
        for link in (tmp_path / ".venv" / "bin").glob("python*"):
            link.unlink()
            link.symlink_to("/nowhere/python")
    python = install.create(tmp_path / ".venv")
    assert subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("state", "said"),
    [("other", "is of another Python than .* and has no pip"), ("none", "is no environment of Python")],
)
def test_a_folder_that_is_somebody_elses_stays(tmp_path, state, said):
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "mine").write_text("mine")
    if state == "other":
        (folder / "pyvenv.cfg").write_text("")
        (folder / "bin" / "python").write_text('#!/bin/sh\ncase "$*" in *pip*|*version*) exit 1; esac\n')
        (folder / "bin" / "python").chmod(0o755)
    with pytest.raises(install.StopError, match=said):
        install.create(folder)
    assert (folder / "mine").read_text() == "mine"


# --- before anything is installed


@pytest.fixture
def download(tmp_path):
    """What a zip download has of this: no .git, and nothing above it either."""
    folder = tmp_path / "repix-main"
    for name in ("Makefile", "install.py", "pyproject.toml", "constraints.txt", "src/repix"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def make(folder, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """Run make for a user whose git knows no neighbours of this folder, and whose Python has a space in its path."""
    known = {"GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    python = folder.parent / "a python"
    python.symlink_to(sys.executable)
    command = ["make", *words, f"PYTHON={python}"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **known, **variables}, capture_output=True, text=True)


@pytest.mark.parametrize("target", ["setup", "repro", "test"])
def test_a_zip_download_is_told_before_anything_is_installed(download, target):
    ended = make(download, target)
    assert ended.returncode and "repix: " in ended.stderr
    line = next(line for line in ended.stderr.splitlines() if line.startswith("repix: "))
    assert f"{download} has no .git" in line and "git clone" in line and "git init" in line
    assert "Traceback" not in ended.stderr and not (download / ".venv").exists()


def test_a_folder_that_git_distrusts_is_told_before_anything_is_installed(download):
    subprocess.run(["git", "init", "-q"], cwd=download, check=True)
    ended = make(download, "setup", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert ended.returncode and f"git config --global --add safe.directory '{download}'" in ended.stderr
    assert not (download / ".venv").exists()


def test_it_is_told_of_an_environment_that_is_there_as_well(download):
    (download / ".venv").mkdir()
    (download / ".venv" / ".ready").touch()
    ended = make(download, "setup")
    assert ended.returncode and "has no .git" in ended.stderr


def test_a_machine_without_git_is_told(download, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    ended = subprocess.run(
        [sys.executable, "install.py", "--check"],
        cwd=download,
        env={"PATH": str(empty)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and ended.stderr.startswith("repix: git is not installed")


def test_a_clone_is_no_problem():
    ended = subprocess.run([sys.executable, "install.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
