"""Where things lie below the root of a repository: the outs of stages, and the ignored work folder."""

from __future__ import annotations

import os
from pathlib import Path

# Ignored by git and DVC: checkpoints, partial downloads, caches. Experiments in temporary
# folders (`dvc exp run --temp`) share that of the repository they came from.
WORK = Path(os.environ.get("DVC_ROOT", "")) / ".repix"
RAW, IMAGES, PREPARED = Path("data/raw"), Path("data/images"), Path("data/prepared")
FEATURES = Path("data/features")
RUNS, TRANSLATIONS, EXPORTS = Path("runs"), Path("translations"), Path("exports")
METRICS, PLOTS, LINEAGE = Path("metrics"), Path("plots"), Path("lineage")
