"""The code of a stage: its closure misses nothing, and its digest follows what can change a result and nothing else."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from repix.config import reader
from repix.provenance import code
from repix.provenance.code import Closure, chosen

ROOT = Path(__file__).resolve().parents[2]


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write a toy repository; return its package folder ``src/toy``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "src" / "toy"


TOY = {
    "stages/train.py": (
        "import numpy as np\nfrom _door import enter\nfrom toy import early\n"
        "def main():\n    from toy.models.unet import build\n"
    ),
    "stages/_door.py": "import toy.door\n",
    "stages/other.py": "import toy.unused\n",
    "src/toy/__init__.py": "",
    "src/toy/door.py": "",
    "src/toy/early.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.unused\n",
    "src/toy/unused.py": "",
    "src/toy/models/__init__.py": "from . import registry\n",
    "src/toy/models/registry.py": "import importlib\nlate = importlib.import_module('toy.models.late')\n",
    "src/toy/models/late.py": "from .unet import build\n",
    "src/toy/models/unet.py": "from ..layers import conv\n",
    "src/toy/layers/__init__.py": "",
    "src/toy/layers/conv.py": "import h5py\n",
}


def closure(root, script="stages/train.py"):
    return [path.as_posix() for path in Closure(root / script, root / "src" / "toy").files]


def test_the_closure_is_everything_that_may_be_imported_and_nothing_else(tmp_path):
    tree(tmp_path, TOY)
    assert closure(tmp_path) == sorted(set(TOY) - {"stages/other.py", "src/toy/unused.py"})


def test_the_closure_is_what_python_really_imports():
    """Against the interpreter: a module of ours that an import loads is in the closure, observers apart."""
    script = ROOT / "src" / "repix" / "studies" / "seed_study.py"
    program = (
        "import sys, repix.studies.seed_study\n"
        "print('\\n'.join(m.__file__ for name, m in sys.modules.items() if name[:5] == 'repix' and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    loaded = {Path(name).resolve().relative_to(ROOT) for name in done.stdout.splitlines()}
    assert len(loaded) > 5
    own = {Path("src/repix/studies/__init__.py")}  # the script taken for one lies in it
    assert loaded - own <= set(Closure(script, ROOT / "src" / "repix").files)


def test_every_module_of_the_real_package_can_be_followed():
    for path in sorted((ROOT / "src" / "repix").rglob("*.py")) + sorted((ROOT / "stages").glob("*.py")):
        found = Closure(path, ROOT / "src" / "repix").files
        assert path.relative_to(ROOT) in found
        assert all((ROOT / file).is_file() for file in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import importlib\nimportlib.import_module('toy.' + 'x')\n", "import by a literal name"),
        ("import importlib\nimportlib.import_module('.unused', 'toy')\n", "import by a literal name"),
        ("import importlib\nimportlib.import_module(name='toy.' + 'x')\n", "import by a literal name"),
        ("import importlib\nimportlib.import_module(package='toy')\n", "import by a literal name"),
        ("\nfrom importlib import import_module as load\n", "import_module by its own name, not as load"),
    ],
)
def test_an_import_that_cannot_be_read_is_refused(tmp_path, text, said):
    tree(tmp_path, TOY | {"src/toy/door.py": text})
    with pytest.raises(ValueError, match=f"door.py:2: {said}"):
        closure(tmp_path)


def test_an_import_by_keyword_is_followed(tmp_path):
    tree(tmp_path, TOY | {"src/toy/door.py": "import importlib\nimportlib.import_module(name='toy.unused')\n"})
    assert "src/toy/unused.py" in closure(tmp_path)


def test_a_table_that_is_not_the_registry_s_is_refused(tmp_path):
    door = "import importlib\nfrom toy.x import TABLE\nimportlib.import_module(TABLE['a'].module)\n"
    tree(tmp_path, TOY | {"src/toy/door.py": door})
    with pytest.raises(ValueError, match=r"door.py: repix.registry.TABLE.*: import the table from repix.registry"):
        closure(tmp_path)


REPIX = {
    "stages/train.py": "from repix.systems import build\nfrom repix.tracking import mlflow_run\n",
    "src/repix/__init__.py": "",
    "src/repix/registry.py": (
        "from typing import NamedTuple\nclass Entry(NamedTuple):\n    module: str\n    bound: float = 1.0\n"
        "SYSTEMS = {'one': Entry('repix.one'), 'two': Entry('repix.two')}\nFORMATS = {'x': Entry('repix.x')}\n"
    ),
    "src/repix/systems.py": (
        "import importlib\nfrom repix.registry import SYSTEMS\n"
        "def build(name):\n    return importlib.import_module(SYSTEMS[name].module)\n"
    ),
    "src/repix/one.py": "",
    "src/repix/two.py": "",
    "src/repix/x.py": "",
    "src/repix/tracking/__init__.py": "",
    "src/repix/tracking/mlflow_run.py": "import repix.x\n",
}


def digests(root: Path, **chosen):
    return Closure(root / "stages/train.py", root / "src/repix", chosen).digests()


def test_of_a_registry_counts_what_is_chosen_and_observers_do_not_count(tmp_path):
    tree(tmp_path, REPIX)
    first = digests(tmp_path, SYSTEMS=["one"])
    assert set(first) == {
        "stages/train.py",
        "src/repix/__init__.py",
        "src/repix/registry.py",
        "src/repix/registry.py:SYSTEMS.one",
        "src/repix/systems.py",
        "src/repix/one.py",
    }
    registry = tmp_path / "src/repix/registry.py"
    registry.write_text(registry.read_text().replace("'two'", "'three': Entry('repix.x'), 'two'"))
    (tmp_path / "src/repix/two.py").write_text("x = 1\n")
    (tmp_path / "src/repix/tracking/mlflow_run.py").write_text("x = 1\n")
    assert digests(tmp_path, SYSTEMS=["one"]) == first
    assert {"src/repix/one.py", "src/repix/two.py", "src/repix/x.py"} < set(digests(tmp_path))
    registry.write_text(registry.read_text().replace("Entry('repix.one')", "Entry('repix.one', 2.0)"))
    changed = digests(tmp_path, SYSTEMS=["one"])
    assert {name for name in first if first[name] != changed[name]} == {"src/repix/registry.py:SYSTEMS.one"}
    registry.write_text(registry.read_text().replace("bound: float = 1.0", "bound: float = 3.0"))
    again = digests(tmp_path, SYSTEMS=["one"])
    assert {name for name in changed if changed[name] != again[name]} == {"src/repix/registry.py"}


def test_a_template_is_code_of_the_module_that_it_is_named_after_and_of_no_other(tmp_path):
    templates = {f"src/toy/layers/templates/{name}": "one" for name in ("conv.html", "conv_wide.html", "page.html")}
    tree(tmp_path, TOY | {"src/toy/layers/page.py": ""} | templates)  # page.py is nobody's
    one = Closure(tmp_path / "stages/train.py", tmp_path / "src/toy").digests()
    assert one.keys() & templates.keys() == {"src/toy/layers/templates/conv.html"}
    for name in templates:
        (tmp_path / name).write_text("two")
    two = Closure(tmp_path / "stages/train.py", tmp_path / "src/toy").digests()
    assert {name for name in two if one[name] != two[name]} == {"src/toy/layers/templates/conv.html"}


def test_every_template_of_the_package_belongs_to_a_module_that_renders_it():
    found = [path for path in (ROOT / "src" / "repix").rglob("*/templates/*") if path.is_file()]
    assert len(found) >= 4
    for path in found:
        module = path.parents[1] / f"{path.stem}.py"
        assert f'pages.render(__file__, "{path.suffix[1:]}"' in " ".join(module.read_text().split()).replace("( ", "(")


SOURCE = """\
\"\"\"What it is.\"\"\"
import math  # why

LIMIT = 3


class Layer:
    \"\"\"A layer.\"\"\"

    slope: float = 0.2

    def __call__(self, x: "list[int]", *, twice=False):
        \"\"\"Apply it.\"\"\"
        return [math.tanh(self.slope * value) for value in x] if twice else f"{x!r:>{LIMIT}}"
"""

SAME = {
    "a comment": ("LIMIT = 3", "# a limit\nLIMIT = 3  # of three"),
    "no comment": ("  # why", ""),
    "a docstring": ("A layer.", "Another layer, with \\\\n escapes."),
    "no docstring": ('        """Apply it."""\n', ""),
    "blank lines": ("\n\n\nclass", "\n\nclass"),
    "other quotes": ('"list[int]"', "'list[int]'"),
    "broken lines": ("(self, x: ", "(\n        self,\n        x: "),
    "parentheses": ("self.slope * value)", "(self.slope) * (value))"),
    "another spelling of a number": ("0.2", "2e-1"),
}
OTHER = {
    "a constant": ("LIMIT = 3", "LIMIT = 4"),
    "a type of a constant": ("LIMIT = 3", "LIMIT = 3.0"),
    "a name": ("LIMIT = 3", "BOUND = 3"),
    "an annotation that pydantic reads": ("slope: float", "slope: int"),
    "a default": ("twice=False", "twice=True"),
    "a kind of argument": ("*, twice", "twice"),
    "a format": ("!r:>", "!s:>"),
    "a text that is no docstring": ("LIMIT = 3\n", "LIMIT = 3\nTEXT = 'x'\n"),
    "an import": ("import math", "import math, cmath"),
    "order": ("self.slope * value", "value * self.slope"),
}


@pytest.mark.parametrize("edit", [*SAME, *OTHER])
def test_the_digest_follows_what_is_computed(edit, tmp_path):
    before, after = (SAME | OTHER)[edit]
    assert before in SOURCE
    for name, text in (("one.py", SOURCE), ("two.py", SOURCE.replace(before, after))):
        (tmp_path / name).write_text(text)
        ast.parse(text)
    equal = code.syntax_digest(tmp_path / "one.py") == code.syntax_digest(tmp_path / "two.py")
    assert equal == (edit in SAME)


def test_the_digest_is_the_same_under_every_python(tmp_path):
    """Pinned: what a later Python adds to its syntax trees must not re-run everything."""
    (tmp_path / "x.py").write_text(SOURCE)
    assert code.syntax_digest(tmp_path / "x.py")[:16] == "2f32bd0ab89cc07f"


def test_no_code_of_a_stage_reads_what_the_digest_leaves_out():
    """Comments, docstrings and positions reach a program by these ways only."""
    ways = {"inspect", "linecache", "traceback", "tokenize", "co_firstlineno", "f_lineno", "tb_lineno", "getdoc"}
    files = {file for stage in (ROOT / "stages").glob("*.py") for file in Closure(stage, ROOT / "src" / "repix").files}
    for file in files - {Path("src/repix/provenance/code.py")}:  # whose business it is
        for node in ast.walk(ast.parse((ROOT / file).read_bytes())):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            names |= {part for name in (*names, getattr(node, "module", None)) if name for part in name.split(".")}
            assert not names & ways, f"{file}:{node.lineno}"
            if "__doc__" in names:
                assert file.parts[0] == "stages", f"{file}:{node.lineno}"


def test_there_is_a_record_for_every_stage_and_every_model():
    done = subprocess.run(
        [sys.executable, str(ROOT / "stages/code_records.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "re-runs those" in done.stdout
    written = {path.relative_to(ROOT / "code").as_posix() for path in (ROOT / "code").rglob("*.json")}
    models = {path.split("/")[1] for path in written if path.startswith("train/")}
    assert {"pix2pix_small.json", "cyclegan.json"} <= models and len(written) == 5 + 4 * len(models)
    record = json.loads((ROOT / "code/train/cyclegan.json").read_text())["code"]
    assert "src/repix/systems/cyclegan.py" in record and "src/repix/systems/pix2pix.py" not in record
    for name in record:
        assert not name.startswith(("src/repix/tracking", "src/repix/description", "src/repix/commands")), name


def test_records_do_not_tell_where_the_package_is_installed(tmp_path):
    tree(tmp_path / "clone", TOY | {"src/toy/models/templates/unet.md": "page"})
    project, packages = tmp_path / "project", tmp_path / "project" / ".venv" / "site-packages"
    shutil.copytree(tmp_path / "clone" / "stages", project / "stages")
    shutil.copytree(tmp_path / "clone" / "src" / "toy", packages / "toy")
    here = Closure(tmp_path / "clone" / "stages" / "train.py", tmp_path / "clone" / "src" / "toy")
    there = Closure(project / "stages" / "train.py", packages / "toy")
    assert there.digests() == here.digests() and there.files == here.files
    assert "src/toy/models/templates/unet.md" in there.digests()
    assert packages / "toy" / "door.py" in there.places.values()


def test_a_project_without_the_package_runs_the_one_that_is_imported(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    params = reader.load(ROOT / "params.yaml")
    here = Closure.of_stage(ROOT, params, "train", "pix2pix_small").digests()
    assert Closure.of_stage(tmp_path, params, "train", "pix2pix_small").digests() == here
    assert "src/repix/training/loop.py" in here and "stages/train.py" in here


def test_packages_are_those_that_the_closure_uses(tmp_path):
    tree(tmp_path, TOY)
    files = Closure(tmp_path / "stages" / "train.py", tmp_path / "src" / "toy").places.values()
    assert code.bit_packages(files) == ("h5py", "numpy")
    (tmp_path / "src/toy/door.py").write_text("def f():\n    import keras\n")
    assert "tensorflow" in code.bit_packages(files)
    assert "torch" not in code.bit_packages(files)
    (tmp_path / "src/toy/door.py").write_text("import keras\ndef f():\n    from jax import lax\n")
    assert not {"jax", "jaxlib"} & set(code.bit_packages(files))
    assert {"jax", "jaxlib", "keras"} <= set(code.bit_packages(files, "jax"))


# What closures import of others that is in no lineage: it moves no bit.
HARMLESS = {
    "packaging": "compares versions",
    "pillow_heif": "for HEIC alone: with it the record of all other images would follow from what is installed",
    "pydantic": "checks parameters and records, whose values are in the lineage",
    "pydantic_core": "part of pydantic",
    "requests": "what it brings is held against a digest",
    "tqdm": "shows progress",
    "urllib3": "part of requests",
    "yaml": "reads parameters, whose values are in the lineage",
}


def test_every_package_that_a_stage_imports_is_in_its_lineage_or_known_to_move_no_bit():
    params = reader.load(ROOT / "params.yaml")
    imported = set()
    for script in (ROOT / "stages").glob("*.py"):
        for model in params["models"]:
            places = Closure.of_stage(ROOT, params, script.stem, model).places.values()
            imported |= {name.split(".")[0] for path in places for name in code.imported_names(path)}
    others = imported - sys.stdlib_module_names - {"repix"}
    assert others >= {"numpy", "tensorflow", "PIL", "torch"}
    assert others - set(code.BITS.values()) == set(HARMLESS)


def test_what_computes_on_a_gpu_is_in_the_lineage_where_there_is_a_driver(monkeypatch, tmp_path):
    installed = [
        SimpleNamespace(name=name) for name in ("nvidia_cudnn-cu12", "jax-cuda12-plugin", "nvidia-ml-py", "numpy", None)
    ]
    monkeypatch.setattr(code.metadata, "distributions", lambda: installed)
    monkeypatch.setattr(code, "DRIVERS", (tmp_path / "none",))
    assert code.gpu_packages() == code.packages_of([], {"portable": False}) == ()
    monkeypatch.setattr(code, "DRIVERS", (tmp_path / "none", tmp_path))
    expected = ("jax-cuda12-plugin", "nvidia-cudnn-cu12")
    assert code.gpu_packages() == code.packages_of([], {"portable": False}) == expected
    assert code.packages_of([], {"portable": True}) == code.packages_of([], {}) == ()


def test_the_environment_is_versions_without_build_labels_and_imports_nothing(monkeypatch):
    monkeypatch.setattr(code.metadata, "version", lambda name: {"torch": "2.13.0+cpu", "numpy": "2.4.6"}[name])
    found = code.environment(["torch", "numpy"])
    assert found == {"python": f"3.{sys.version_info.minor}", "numpy": "2.4.6", "torch": "2.13.0"}


def test_an_import_in_a_branch_that_runs_is_followed(tmp_path):
    text = "import typing\nif typing.TYPE_CHECKING:\n    import toy.a\nelse:\n    import toy.b\n"
    (tmp_path / "x.py").write_text(text)
    assert code.imported_names(tmp_path / "x.py") == ["toy.b", "typing"]


@pytest.mark.parametrize(
    "params",
    [{"models": {"mine": "pix2pix"}}, {"models": ["mine"]}, {"models": {"mine": {"system": ["x"]}}}, {"run": 5}, {}],
)
def test_an_entry_that_is_none_chooses_nothing_and_is_told_where_the_grid_is_checked(params):
    found = chosen(params, "train", "mine")
    assert "SYSTEMS" not in found and found["STEPS"] == ["tensorflow"]
