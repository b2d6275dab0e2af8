"""download: a data set's archive, whole and checked.

URL -> data/raw/<dataset>/ with the archive and archive.json. Parts of an interrupted
download are kept in .repix/downloads and continued.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import reader
from repix.config.archive import Archive
from repix.config.limits import Limits
from repix.data import sources
from repix.digests import Digests


def main(dataset: str) -> None:
    """Fetch the archive of ``dataset``."""
    archive = reader.read(f"datasets.{dataset}.archive", Archive)
    limits = reader.read("limits", Limits)
    params = {
        f"datasets.{dataset}.archive": archive.model_dump(mode="json", include={"urls", "sha256"}),
        "limits.download_bytes": limits.download_bytes,
    }
    record = stage.LineageRecord("download", dataset, params, [])
    out = paths.RAW / dataset
    sources.fetch(
        archive.urls,
        archive.sha256,
        out,
        dataset=dataset,
        max_bytes=limits.download_bytes,
        work=paths.WORK / "downloads",
    )
    sources.remember(archive.urls, out / "archive.json", Digests(paths.WORK / "digests"))
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", profiled=False)
