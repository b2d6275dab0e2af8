"""Puts into the wheel what `repix init` copies; all else about the package stands in pyproject.toml."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from repix.commands.init import INSIDE, sources  # noqa: E402


class Build(build_py):
    """Copies the pipeline's own files, which lie at the root of the repository, beside the modules."""

    def run(self):
        """Build the package; an editable one reads these files where they lie."""
        super().run()
        if self.editable_mode:
            return
        for name, path in sources(ROOT).items():
            target = Path(self.build_lib) / "repix" / INSIDE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": Build})
