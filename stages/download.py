"""download: a data set's archive, whole and checked.

URL -> data/raw/<dataset>/ with the archive and archive.json. Parts of an interrupted
download are kept in .repix/downloads and continued.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import datasets, reader
from repix.data import sources
from repix.errors import UserError


def main(dataset: str) -> None:
    """Fetch the archive of ``dataset``."""
    entry = reader.read(f"datasets.{dataset}", datasets.Dataset)
    limits = reader.read("limits", datasets.Limits)
    if entry.withdrawn:
        raise UserError(f"data set {dataset!r}: {entry.withdrawn}")
    params = {
        f"datasets.{dataset}": {"urls": list(entry.urls), "sha256": entry.sha256},
        "limits.download_bytes": limits.download_bytes,
    }
    record = stage.LineageRecord("download", dataset, params, [])
    out = paths.RAW / dataset
    sources.fetch(
        entry.urls,
        entry.sha256,
        out,
        dataset=dataset,
        max_bytes=limits.download_bytes,
        work=paths.WORK / "downloads",
    )
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", profiled=False)
