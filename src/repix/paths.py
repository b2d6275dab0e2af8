"""Where things lie below the root of a repository: the outs of stages, and the ignored work folder."""

from __future__ import annotations

import os
from pathlib import Path

# Ignored by git and DVC: checkpoints, partial downloads, caches. Experiments in temporary
# folders (`dvc exp run --temp`) share that of the repository they came from.
WORK = Path(os.environ.get("DVC_ROOT", "")) / ".repix"
# Where a file is that git does not hold, such as the archive of a relative `file:` address: the repository that
# a temporary folder was made of, by `repix verify` or `dvc exp run --temp`.
ORIGIN = Path(os.environ.get("REPIX_ORIGIN") or os.environ.get("DVC_ROOT", ""))
RAW, IMAGES, PREPARED = Path("data/raw"), Path("data/images"), Path("data/prepared")
FEATURES = Path("data/features")
STARTS, RUNS, TRANSLATIONS, EXPORTS = Path("starts"), Path("runs"), Path("translations"), Path("exports")
WIRING = Path("dvc.yaml")  # where it lies, there is a project
NO_PROJECT = "no such file; run from the root of the repository, or make a project by `repix init FOLDER`"
METRICS, PLOTS, LINEAGE = Path("metrics"), Path("plots"), Path("lineage")


def found(path: Path) -> Path:
    """Return where a file or folder is: as named, or in the repository that a temporary folder was made of."""
    return path if path.exists() or not (ORIGIN / path).exists() else ORIGIN / path


def find_root(start: Path) -> Path:
    """Return the root of the repository that a folder lies in, as git and DVC find theirs; else the folder itself."""
    return next((folder for folder in (start, *start.parents) if (folder / WIRING).is_file()), start)
