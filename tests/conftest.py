"""Tests run under the portable profile, like the stages that they speak about."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repix import files, profile
from repix.tracking import store

profile.apply("portable")
# What the settings of who runs the tests might change: commits that ask for a key, other ends of lines, a proxy for
# this machine itself, a cache of DVC elsewhere.
os.environ |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
os.environ |= dict.fromkeys(("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"), "/nonexistent")
GIT_SETTINGS = {"commit.gpgsign": "false", "core.autocrlf": "false"}
os.environ["GIT_CONFIG_COUNT"] = str(len(GIT_SETTINGS))
for _number, (_key, _value) in enumerate(GIT_SETTINGS.items()):
    os.environ |= {f"GIT_CONFIG_KEY_{_number}": _key, f"GIT_CONFIG_VALUE_{_number}": _value}
# A traced graph is a million objects, which are garbage all at once: looking for some less often saves a tenth.
gc.set_threshold(20_000, 10, 10)
# Whether bytes outlive a power cut is what no test tries, and a sync waits for all that the machine has to write.
os.sync, os.fsync = (lambda: None), (lambda descriptor: None)
# Nobody lists a folder while a test replaces it; the test of those who do says how long they are left.
LOOK_SECONDS, files.LOOK_SECONDS = files.LOOK_SECONDS, 0.0

if TYPE_CHECKING:
    from checks.support.cells import TinyCell

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("REPIX_REAL_DATA", ROOT.parent / "shared"))


def real_data(name: str) -> Path:
    """Return a file of the real data (``REPIX_REAL_DATA``, default ``../shared``), or skip."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"real data not there: {name} (set REPIX_REAL_DATA)")
    return path


@pytest.fixture
def as_in_a_terminal():
    """Signals as a terminal's command has them: whoever ran the tests by ``nohup`` or behind ``&`` had some ignored."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# The files that take longest, in this order: two workers that share files end together if the last ones are short.
LONGEST = (
    "test_routes.py",
    "commands/test_verify.py",
    "models/test_convolutions.py",
    "systems/test_systems.py",
    "training/test_step_jax.py",
    "tracking/test_store.py",
    "test_api.py",
    "training/test_resume.py",
    "commands/test_translate.py",
    "commands/test_bundle.py",
    "translation/test_runtimes.py",
    "test_start_stage.py",
    "farm/test_farm.py",
    "commands/test_sync.py",
    "provenance/test_remotes.py",
    "test_pipeline.py",
    "test_files.py",
    "test_quality.py",
    "test_docs.py",
    "config/test_check.py",
)


def pytest_collection_modifyitems(items):
    """Run the longest files first, and leave what is there by now out of what is looked at for garbage."""
    order = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    gc.freeze()  # what was imported stays: nobody need look at it again


def pytest_terminal_summary(terminalreporter):
    """Say how many tests were skipped for lack of the real data."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "real data not there" in str(r.longrepr)]
    terminalreporter.write_line(f"skipped for lack of real data: {len(skipped)}")


MOST_GRADIENTS = 400  # that wait to be forgotten: some hundred MB


@pytest.fixture(autouse=True)
def _forget_graphs():
    """Let go of the graphs of tests that are over, so that a worker's memory does not grow with every one.

    TensorFlow keeps each ``custom_gradient`` that was traced into a graph in a table of the process, for good,
    and with it the graph: a worker grew to 10 GB. Only once there are many: a collection takes seconds.
    """
    yield
    ops = sys.modules.get("tensorflow.python.framework.ops")
    table = ops._gradient_registry._registry if ops else {}
    names = [name for name in table if name.startswith("CustomGradient-")]
    if len(names) < MOST_GRADIENTS:
        return
    for name in names:
        del table[name]
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder once for all workers: of ``name``, by ``make(folder)``.

    Nobody may change what is in it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / "made-once" / name, base / "made-once" / f"{name}.done"
        with files.locked(done.with_suffix(".lock"), name):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # half of one, by a worker that died
                make(folder)
                done.touch()
        return folder

    return of


@pytest.fixture(scope="session")
def lay_tables(made_once) -> Callable[[Path], object]:
    """Return a function that makes a database of MLflow with its tables: it makes them by fifty migrations, once."""
    connect = store.connect

    def make(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            connect(folder)

    return lambda path: shutil.copy(made_once("tables", make) / "mlflow.db", path)


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once(lay_tables):
    """Let every new database of the tests' own process have those tables."""
    connect = store.connect

    def connected(root: Path) -> tuple[Any, str]:
        path = store.sqlite_path(store.tracking_uri(root))
        if path is not None and path.parent.is_dir() and not path.exists():
            lay_tables(path)
        return connect(root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "connect", connected)
        yield


@pytest.fixture(scope="session")
def tiny_cell(made_once) -> Callable[..., TinyCell]:
    """Return a function that lays a tiny trained cell of a system in a folder: trained once, copied each time."""
    from checks.support import cells

    def lay(root: Path, system: str = "pix2pix") -> TinyCell:
        def make(folder: Path) -> None:
            # Pix2pix as the stage trains it; CycleGAN takes too long for that, and checks/portable.py does it.
            with library_convolutions() if system == "cyclegan" else portable_sums():
                cells.train_cell(folder, system=system, paired=system == "pix2pix")

        shutil.copytree(made_once(system, make), root, dirs_exist_ok=True)
        return cells.TinyCell(root, root / "prepared", root / "runs" / f"tiny-{system}-0")

    return lay


@pytest.fixture(scope="session")
def tiny_repository(made_once) -> Callable[[Path], Path]:
    """Return a function that lays a repository with a tiny exported cell in a folder: made once, copied each time."""
    from checks.support import repository

    def make(folder: Path) -> None:
        with portable_sums():
            repository.make(folder)

    return lambda root: shutil.copytree(made_once("repository", make), root, symlinks=True)


@contextmanager
def portable_sums():
    """Trace networks as the portable profile does, whatever who asks has put in its place."""
    from repix.inference import tensorflow_backend
    from repix.models import fixed_sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_backend, "fixed_sums", fixed_sums.fixed_sums)
        yield


@pytest.fixture(name="portable_sums")
def _portable_sums():
    with portable_sums():
        yield


@contextmanager
def library_convolutions():
    """Trace networks with the library's convolutions where what is tested is not how the portable profile sums.

    Its own are dozens of operations each: with them a tiny system takes four times as long to trace.
    """
    from repix.inference import tensorflow_backend

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_backend, "fixed_sums", lambda networks: nullcontext())
        yield


@pytest.fixture(scope="module", name="library_convolutions")
def _library_convolutions():
    with library_convolutions():
        yield
