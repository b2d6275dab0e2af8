"""The arrows of docs/architecture.md, held by reading every import."""

from pathlib import Path

from repix.provenance.code import imported_names

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "training")
FORBIDDEN = ("dvc", "dvclive", "mlflow", "repix.tracking", "stages")
BACKEND_FILES = {"tensorflow": "training/step_tensorflow.py", "jax": "training/step_jax.py"}


def violations(package: Path) -> list[str]:
    """Return ``file imports name`` for every import that models or training may not have."""
    found = []
    for room in ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            file = path.relative_to(package).as_posix()
            module = ".".join([package.name, *path.relative_to(package).with_suffix("").parts]).removesuffix(
                ".__init__"
            )
            for name in imported_names(path, module):
                barred = any(name == bar or name.startswith(f"{bar}.") for bar in FORBIDDEN)
                if barred or BACKEND_FILES.get(name.split(".")[0], file) != file:
                    found.append(f"{file} imports {name}")
    return found


def test_models_and_training_know_neither_tracking_nor_pipeline_nor_a_backend():
    assert list((ROOT / "src" / "repix" / "training").rglob("*.py"))
    assert violations(ROOT / "src" / "repix") == []


def test_the_check_sees_what_it_forbids(tmp_path):
    package = tmp_path / "repix"
    files = {
        "models/good.py": "import keras\nimport numpy as np\n",
        "models/lazy.py": "def show():\n    import mlflow.keras\n",
        "models/__init__.py": "from .. import tracking\n",
        "training/loop.py": "from repix.tracking.progress import ProgressBar\nfrom dvc.api import params_show\n",
        "training/step_tensorflow.py": "import tensorflow as tf\n",
        "training/step_jax.py": "from jax import lax\n",
        "models/layers.py": "import jax.numpy as jnp\n",
        "training/second.py": "import importlib\ntf = importlib.import_module('tensorflow')\n",
        "training/door.py": "import stages.train\n",
        "tracking/free.py": "import mlflow, tensorflow\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    seen = {line.split(" ")[0] for line in violations(package)}
    assert seen == {
        "models/lazy.py",
        "models/__init__.py",
        "training/loop.py",
        "training/second.py",
        "models/layers.py",
        "training/door.py",
    }
