"""The arrows between packages, held by reading every import; docs/architecture.md draws the same picture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from repix.provenance.code import Closure, imported_names

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

# Single files that everybody may import. They import one another in this order only, and of the packages nothing.
BASE = [
    "version",
    "errors",
    "yaml12",
    "cells",
    "directions",
    "tables",
    "pages",
    "metrics",
    "registry",
    "files",
    "digests",
    "arrays",
    "paths",
    "profile",
    "machine",
    "processes",
    "libraries",
    "rng",
    "schemas",
]

# Package (or file of the root) -> the packages that it may import, beside the base.
ARROWS = {
    "config": set(),
    "models": {"config"},
    "systems": {"models", "config"},
    "data": {"config"},
    "inference": {"systems", "models", "data", "config"},
    "training": {"inference", "systems", "models", "data", "config"},
    "evaluation": {"inference", "data", "config"},
    "exporting": {"evaluation", "inference", "models", "data", "config"},
    "provenance": {"config", "data"},
    "regression": {"config"},
    "tracking": {"training", "provenance", "config"},
    "description": {"systems", "models", "config"},
    "stage": {"provenance", "config"},
    "studies": {"regression", "training", "evaluation", "provenance", "data", "config"},
    "farm": {"provenance", "config"},
    "publishing": {"exporting", "tracking", "provenance", "config"},
    "demo": {"exporting", "data", "tracking", "provenance"},
    "translation": {"inference", "data"},
    "api": {"translation", "data", "inference", "publishing", "config"},
    "commands": {"*"},
    "cli": {"commands"},
    "stages": {"*"},
}
# What a stage must not reach, although it may reach nearly all else.
NOT_FOR_STAGES = {
    "publishing",
    "commands",
    "demo",
    "description",
    "regression",
    "studies",
    "cli",
    "api",
    "translation",
    "farm",
}
# Who may name a library that only some may know.
NAMED_BY = {
    "tensorflow": {
        "training/step_tensorflow.py",
        "inference/tensorflow_backend.py",
        "models/fixed_sums.py",  # a product that reads a matrix turned: Keras copies it first
        "exporting/saved_model.py",
        "exporting/litert_format.py",
        "data/image_writer.py",  # 16-bit PNG
    },
    "jax": {"training/step_jax.py", "training/shards_jax.py", "inference/jax_backend.py"},
    "mlflow": {"tracking/", "exporting/pyfunc.py", "publishing/registry.py"},
    # The worker is a process of its own, which asks it for many things; the driver asks where its settings lie.
    "dvc": {"farm/worker.py", "farm/driver.py"},
    "ray": {"farm/engine_ray.py"},
    "submitit": {"farm/engine_slurm.py"},
    "h5py": {"data/"},
    "jinja2": {"pages.py"},
    "yaml": {"yaml12.py"},
}
# Who may not name what others may: the gate compares JSON, and needs no arrays.
NOT_NAMED_BY = {"regression": {"numpy", "keras", "repix.arrays", "repix.rng"}}
# Folders beside the package -> what of one another they may import. None may be imported by the package or a stage.
BESIDE = {"tests": {"checks", "benchmarks.support"}, "checks": set(), "benchmarks": {"checks"}}


def package_of(module: str) -> str:
    """Return the package, or the file of the root, that a dotted name of ours belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "repix"


def modules(source: Path) -> dict[str, Path]:
    """Return dotted name -> file, for every module of the package and every stage."""
    package = source / "repix"
    found = {}
    for path in sorted(package.rglob("*.py")):
        dotted = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        found[dotted] = path
    for path in sorted((source.parent / "stages").glob("*.py")):
        found[f"stages.{path.stem}"] = path
    return found


def violations(source: Path) -> list[str]:
    """Return ``file imports name`` for every import that its package may not have."""
    found = []
    known = modules(source)
    scripts = {name.removeprefix("stages.") for name in known if name.startswith("stages.")}
    for dotted, path in known.items():
        own = "stages" if dotted.startswith("stages.") else package_of(dotted)
        file = path.relative_to(source / "repix" if own != "stages" else source.parent).as_posix()
        for name in imported_names(path, dotted):
            top = name.split(".")[0]
            allowed = NAMED_BY.get(top)
            if allowed is not None and not any(
                file == one or (one.endswith("/") and file.startswith(one)) for one in allowed
            ):
                found.append(f"{file} imports {name}")
            forbidden = NOT_NAMED_BY.get(own, set())
            neighbour = own == "stages" and top in scripts  # a script is run, not imported
            if (
                neighbour
                or top in {"stages", *BESIDE}
                or any(name == one or name.startswith(f"{one}.") for one in forbidden)
            ):
                found.append(f"{file} imports {name}")
            if top != "repix" or name == "repix":
                continue
            other = package_of(name)
            if other == own or own == "repix":
                continue
            if own in BASE:
                fine = other in BASE and BASE.index(other) < BASE.index(own)
            elif own == "stages":
                fine = other not in NOT_FOR_STAGES
            else:
                fine = other in BASE or other in ARROWS[own] or "*" in ARROWS[own]
            if not fine:
                found.append(f"{file} imports {name}")
    return sorted(set(found))


def root_names(source: Path) -> list[str]:
    """Return ``file uses name`` where a module or a stage takes what ``repix/__init__.py`` offers to users.

    That is :mod:`repix.api`, which a closure leaves out: so nobody may reach it through the root's name.
    """
    found = []
    known = modules(source)
    for path in known.values():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = ["repix" for alias in node.names if alias.name == "repix"]
            elif isinstance(node, ast.ImportFrom) and node.module == "repix" and not node.level:
                names = [f"repix.{alias.name}" for alias in node.names if f"repix.{alias.name}" not in known]
            else:
                continue
            found += [f"{path.relative_to(source.parent).as_posix()} uses {name}" for name in names]
    return sorted(found)


def violations_beside(root: Path) -> list[str]:
    """Return ``file imports name`` for imports of tests, checks and benchmarks that may not be, or are not there.

    ``file changes sys.path`` is another of their faults: it hides what they import.
    """
    found = []
    ours = {"repix", *BESIDE}
    known = {*modules(root / "src"), *ours}
    files = [path.relative_to(root) for folder in BESIDE for path in (root / folder).rglob("*.py")]
    known |= {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
    packages = {".".join(file.parent.parts) for file in files}
    known |= packages
    for folder, allowed in BESIDE.items():
        for path in sorted((root / folder).rglob("*.py")):
            dotted = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
            called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
            if called & {"sys.path.insert", "sys.path.append", "sys.path.extend"}:
                found.append(f"{path.relative_to(root).as_posix()} changes sys.path")
            for name in imported_names(path, dotted):
                top = name.split(".")[0]
                wrong = top in BESIDE and not any(f"{name}.".startswith(f"{one}.") for one in (folder, *allowed))
                # A name of a module, or the module of a name; packages beside ours have no names but modules.
                above = name.rpartition(".")[0]
                excused = above in known and (top == "repix" or above not in packages)
                missing = top in ours and name not in known and not excused
                if wrong or missing:
                    found.append(f"{path.relative_to(root).as_posix()} imports {name}")
    return sorted(set(found))


def closure_violations(root: Path) -> list[str]:
    """Return ``stage runs file`` for every file that a stage reaches, by whatever detour, and must not."""
    return [
        f"{script.stem} runs {file.as_posix()}"
        for script in sorted((root / "stages").glob("*.py"))
        for file in Closure(script, root / "src" / "repix").files
        if file.parts[:2] == ("src", "repix") and Path(file.parts[2]).stem in NOT_FOR_STAGES
    ]


def circles(source: Path) -> list[list[str]]:
    """Return circles of imports between modules, found by depth-first search; lazy imports count."""
    known = modules(source)
    graph = {
        dotted: {name for name in imported_names(path, dotted) if name in known and name != dotted}
        for dotted, path in known.items()
    }
    # A package's __init__ is run by the import of any of its modules; that is no circle by itself.
    graph = {a: {b for b in ends if not a.startswith(f"{b}.")} for a, ends in graph.items()}
    found, state, stack = [], {}, []

    def visit(node: str) -> None:
        state[node] = "open"
        stack.append(node)
        for other in sorted(graph[node]):
            if state.get(other) == "open":
                found.append([*stack[stack.index(other) :], other])
            elif other not in state:
                visit(other)
        stack.pop()
        state[node] = "done"

    for node in sorted(graph):
        if node not in state:
            visit(node)
    return found


def test_every_package_has_its_arrows_and_no_other():
    assert violations(SOURCE) == []


def test_every_arrow_is_used():
    """What a package may import and does not is a door left open."""
    used: dict[str, set[str]] = {package: set() for package in ARROWS}
    for dotted, path in modules(SOURCE).items():
        own = package_of(dotted)
        if own in used:
            used[own] |= {package_of(name) for name in imported_names(path, dotted) if name.startswith("repix.")}
    assert {
        package: ends - used[package] - {"*"} for package, ends in ARROWS.items() if ends - used[package] - {"*"}
    } == {}


def test_the_page_has_the_same_arrows():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    drawn = {name: {"*"} if ends.strip() == "everything" else set(re.findall(r"\w+", ends)) for name, ends in rows}
    assert drawn == {name: ends for name, ends in ARROWS.items() if (SOURCE / "repix" / name).is_dir()}
    listed = re.search(r"which import no package: (.*?)\. Three others", page, re.DOTALL)[1]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(BASE)


def test_every_package_and_file_of_the_root_is_named_here():
    named = {*ARROWS, *BASE} - {"stages"}
    there = {package_of(dotted) for dotted in modules(SOURCE) if dotted.startswith("repix.")}
    assert there == named


def test_the_arrows_themselves_have_no_circle():
    reached = {package: set(ends) - {"*"} for package, ends in ARROWS.items()}
    for _ in ARROWS:
        for ends in reached.values():
            ends |= {further for end in list(ends) for further in reached.get(end, ())}
    assert [package for package, ends in reached.items() if package in ends] == []


def test_no_module_imports_itself_by_a_detour():
    assert circles(SOURCE) == []


def test_no_stage_reaches_pages_studies_or_commands():
    assert closure_violations(ROOT) == []


def test_nothing_goes_through_the_names_that_the_root_offers():
    assert root_names(SOURCE) == []


@pytest.mark.parametrize(
    ("text", "red"),
    [
        ("def f():\n    import repix\n    return repix.load('x')", True),
        ("from repix import load", True),
        ("from repix import *", True),
        ("from repix import errors", False),
        ("import repix.errors", False),
    ],
)
def test_a_use_of_the_roots_names_is_seen(tmp_path, text, red):
    for name, held in (("errors.py", ""), ("__init__.py", ""), ("training/loop.py", text)):
        file = tmp_path / "src" / "repix" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{held}\n")
    assert bool(root_names(tmp_path / "src")) == red


def test_tests_checks_and_benchmarks_keep_apart_and_import_what_is_there():
    assert violations_beside(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "red"),
    [
        ("training/loop.py", "from repix.tracking.progress import ProgressBar", True),
        ("evaluation/score.py", "def f():\n    import repix.tracking", True),
        ("exporting/export.py", "from repix.tracking import mlflow_run", True),
        ("inference/trained.py", "from repix.training.checkpoint import Checkpoints", True),
        ("regression/gate.py", "from repix.data.prepared import Prepared", True),
        ("regression/gate.py", "from repix.arrays import load_arrays", True),
        ("regression/tolerance.py", "def t():\n    import numpy as np", True),
        ("regression/gate.py", "from repix.files import read_json", False),
        ("evaluation/score.py", "from repix.arrays import load_arrays", False),
        ("inference/trained.py", "from repix.tracking import mlflow_run", True),
        ("data/sampler.py", "import benchmarks.sampler", True),
        ("evaluation/score.py", "from checks.support import references", True),
        ("models/layers.py", "import jax.numpy as jnp", True),
        ("models/generators.py", "from repix.systems.system import System", True),
        ("systems/new.py", "import tensorflow as tf", True),
        ("training/second.py", "import importlib\ntf = importlib.import_module('tensorflow')", True),
        ("data/images.py", "import stages.train", True),
        ("../../stages/train.py", "import train", True),
        ("config/models.py", "import yaml", True),
        ("files.py", "from repix.schemas import Record", True),
        ("models/lazy.py", "def show():\n    import mlflow.keras", True),
        ("../../stages/train.py", "from repix.commands import results", True),
        ("../../stages/train.py", "from repix.api import load", True),
        ("evaluation/score.py", "from repix.api import load", True),
        ("inference/trained.py", "from repix.translation import jobs", True),
        ("../../stages/train.py", "from repix.tracking import mlflow_run", False),
        ("training/step_tensorflow.py", "import tensorflow as tf", False),
        ("models/layers.py", "import keras\nimport numpy as np\nfrom repix.config.models import Recipe", False),
    ],
)
def test_each_kind_of_wrong_arrow_is_seen(tmp_path, file, text, red):
    place = tmp_path / "src" / "repix" / file
    (tmp_path / "src" / "repix").mkdir(parents=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{text}\n")
    assert bool(violations(tmp_path / "src")) == red


def test_a_circle_is_seen(tmp_path):
    package = tmp_path / "src" / "repix" / "data"
    package.mkdir(parents=True)
    (package / "hdf5.py").write_text("def f():\n    from repix.data import layouts\n")
    (package / "layouts.py").write_text("from repix.data.prepared import Prepared\n")
    (package / "prepared.py").write_text("import repix.data.hdf5\n")
    assert circles(tmp_path / "src") == [
        ["repix.data.hdf5", "repix.data.layouts", "repix.data.prepared", "repix.data.hdf5"]
    ]


@pytest.mark.parametrize(
    ("file", "text", "red"),
    [
        ("tests/test_x.py", "from benchmarks.step import cpu", True),
        ("tests/test_x.py", "from benchmarks.support.gone import cpu", True),
        ("tests/test_x.py", "from benchmarks.support import gone", True),
        ("tests/test_x.py", "from checks import gone", True),
        ("tests/test_x.py", "from benchmarks.support import quality", False),
        ("benchmarks/x.py", "from tests.conftest import ROOT", True),
        ("checks/x.py", "def f():\n    import tests.conftest", True),
        ("checks/x.py", "from benchmarks import step", True),
        ("tests/test_x.py", "from repix.files import digest", True),
        ("tests/test_x.py", "from repix.data.gone import Prepared", True),
        ("benchmarks/x.py", "import sys\nsys.path.insert(0, 'tests')\nimport documents", True),
        ("tests/test_x.py", "import sys\nprint(sys.path)", False),
        ("tests/test_x.py", "from checks.harness import table\nfrom repix.data import sampler", False),
        ("benchmarks/x.py", "from checks.harness import table", False),
    ],
)
def test_each_kind_of_wrong_import_beside_the_package_is_seen(tmp_path, file, text, red):
    for name in (
        "src/repix/data/sampler.py",
        "src/repix/data/__init__.py",
        "checks/harness.py",
        "benchmarks/support/quality.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"{text}\n")
    assert bool(violations_beside(tmp_path)) == red


@pytest.mark.parametrize("page", ["description/diagram.py", "demo/app.py", "studies/margins.py", "commands/results.py"])
def test_a_page_that_a_stage_reaches_by_a_detour_is_seen(tmp_path, page):
    files = {
        "stages/train.py": "from repix.training import loop\n",
        "src/repix/__init__.py": "",
        "src/repix/registry.py": "",
        "src/repix/training/loop.py": "from repix.training.setup import x\n",
        "src/repix/training/setup.py": f"def f():\n    import repix.{page[:-3].replace('/', '.')}\n",
        f"src/repix/{page}": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).with_name("__init__.py").touch()
    assert closure_violations(tmp_path) == [
        f"train runs src/repix/{Path(page).parent}/__init__.py",
        f"train runs src/repix/{page}",
    ]
