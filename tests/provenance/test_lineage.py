"""The import closure misses nothing, and a run key changes with every declared input."""

import ast
import sys
from pathlib import Path

import pytest

from repix.provenance import lineage
from repix.provenance.lineage import Lineage

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
    return [path.as_posix() for path in lineage.import_closure(root / script, root / "src" / "toy")]


def test_the_closure_is_everything_that_may_be_imported_and_nothing_else(tmp_path):
    tree(tmp_path, TOY)
    assert closure(tmp_path) == sorted(set(TOY) - {"stages/other.py", "src/toy/unused.py"})


def test_the_closure_is_what_python_really_imports():
    """Against the interpreter: a module of ours that an import loads is in the closure."""
    import subprocess

    script = ROOT / "src" / "repix" / "tracking" / "mlflow_run.py"
    code = (
        "import sys, repix.tracking.mlflow_run\n"
        "print('\\n'.join(m.__file__ for name, m in sys.modules.items() if name[:5] == 'repix' and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    loaded = {Path(name).resolve().relative_to(ROOT) for name in done.stdout.splitlines()}
    assert len(loaded) > 5
    assert loaded <= set(lineage.import_closure(script, ROOT / "src" / "repix"))


def test_every_module_of_the_real_package_can_be_followed():
    for path in sorted((ROOT / "src" / "repix").rglob("*.py")) + sorted((ROOT / "stages").glob("*.py")):
        found = lineage.import_closure(path, ROOT / "src" / "repix")
        assert path.relative_to(ROOT) in found
        assert all((ROOT / file).is_file() for file in found)


def test_an_import_that_cannot_be_read_is_refused(tmp_path):
    tree(tmp_path, TOY | {"src/toy/door.py": "import importlib\nimportlib.import_module('toy.' + 'x')\n"})
    with pytest.raises(ValueError, match=r"door.py:2: import by a literal name"):
        closure(tmp_path)


def test_packages_are_those_that_the_closure_uses(tmp_path):
    tree(tmp_path, TOY)
    files = lineage.import_closure(tmp_path / "stages" / "train.py", tmp_path / "src" / "toy")
    assert lineage.bit_packages(files, tmp_path) == ("h5py", "numpy")
    (tmp_path / "src/toy/door.py").write_text("def f():\n    import keras\n")
    assert "tensorflow" in lineage.bit_packages(files, tmp_path)
    assert "torch" not in lineage.bit_packages(files, tmp_path)
    (tmp_path / "src/toy/door.py").write_text("import keras\ndef f():\n    from jax import lax\n")
    assert not {"jax", "jaxlib"} & set(lineage.bit_packages(files, tmp_path))
    assert {"jax", "jaxlib", "keras"} <= set(lineage.bit_packages(files, tmp_path, "jax"))


def test_the_environment_is_versions_without_build_labels_and_imports_nothing(monkeypatch):
    monkeypatch.setattr(lineage.metadata, "version", lambda name: {"torch": "2.13.0+cpu", "numpy": "2.4.6"}[name])
    found = lineage.environment(["torch", "numpy"])
    assert found == {"python": f"3.{sys.version_info.minor}", "numpy": "2.4.6", "torch": "2.13.0"}


DECLARED = {
    "stage": "train",
    "cell": "sample-tiny-0",
    "params": {"lr": 2e-4, "layers": [1, 2]},
    "inputs": {"data/prepared/sample": "aa"},
    "code": {"stages/train.py": "bb"},
    "environment": {"python": "3.11", "numpy": "2.4.6"},
    "profile": {"name": "portable", "threads": 2},
}


def test_the_run_key_is_a_constant_of_its_inputs():
    """Pinned: a change of this value forgets every checkpoint and every tracked run."""
    assert lineage.run_key(**DECLARED) == "1538993c94aeb2d618367793f977713f8315fcdb0345e1b2930dc1720cf95b52"


@pytest.mark.parametrize("name", DECLARED)
def test_every_declared_input_is_in_the_run_key(name):
    value = DECLARED[name]
    changed = f"{value}2" if isinstance(value, str) else value | {"new": "cc"}
    assert lineage.run_key(**DECLARED | {name: changed}) != lineage.run_key(**DECLARED)


def test_order_of_keys_and_outputs_are_not_in_the_run_key():
    backwards = {
        name: value if isinstance(value, str) else dict(reversed(value.items())) for name, value in DECLARED.items()
    }
    assert lineage.run_key(**backwards) == lineage.run_key(**DECLARED)
    record = Lineage(**DECLARED, run_key=lineage.run_key(**DECLARED))
    assert record.with_outputs({"runs/x": "dd"}).run_key == record.run_key
    assert record.with_outputs({"runs/x": "dd"}).outputs == {"runs/x": "dd"}


def test_a_record_is_declared_written_and_read_with_the_same_bytes(tmp_path):
    package = tree(tmp_path, TOY)

    def declare():
        return lineage.declare(
            stage="train",
            cell="sample-tiny-0",
            params=DECLARED["params"],
            inputs=DECLARED["inputs"],
            script=tmp_path / "stages" / "train.py",
            package=package,
            profile=DECLARED["profile"],
        )

    record = declare()
    record.with_outputs({"runs/x": "dd"}).write(tmp_path / "one.json")
    declare().with_outputs({"runs/x": "dd"}).write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "one.json").read_text()
    assert Lineage.read(tmp_path / "one.json").run_key == record.run_key

    (tmp_path / "src/toy/layers/conv.py").write_text("import h5py  # one byte more\n")
    assert declare().run_key != record.run_key
    (tmp_path / "src/toy/unused.py").write_text("elsewhere = 1\n")
    changed = declare()
    (tmp_path / "src/toy/unused.py").write_text("elsewhere = 2\n")
    assert declare().run_key == changed.run_key


def test_an_import_in_a_branch_that_runs_is_followed(tmp_path):
    text = "import typing\nif typing.TYPE_CHECKING:\n    import toy.a\nelse:\n    import toy.b\n"
    (tmp_path / "x.py").write_text(text)
    assert ast.parse(text)
    assert lineage.imported_names(tmp_path / "x.py") == ["toy.b", "typing"]
