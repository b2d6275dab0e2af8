"""unpack: the archive's files, and nothing that an archive should not do.

data/raw/<dataset>/ -> data/images/<dataset>/. Escaping paths, links, bombs and truncated
archives are refused with nothing left behind. With limits.image_tree
false the archive itself goes there, for preprocess.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import reader
from repix.config.limits import Limits
from repix.data import archives, trees
from repix.schemas import Archive


def main(dataset: str) -> None:
    """Unpack the archive of ``dataset``."""
    limits = reader.read("limits", Limits)
    keys = ("unpack_bytes", "unpack_files", "unpack_ratio", "image_tree")
    params = {f"limits.{key}": getattr(limits, key) for key in keys}
    raw, out = paths.RAW / dataset, paths.IMAGES / dataset
    record = stage.LineageRecord("unpack", dataset, params, [raw])
    archive = raw / Archive.read(raw / "archive.json").file
    most = {"max_bytes": limits.unpack_bytes, "max_files": limits.unpack_files, "max_ratio": limits.unpack_ratio}
    if limits.image_tree:
        archives.unpack(archive, out, **most)
    else:
        trees.keep_archive(archive, out, most)
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset", profiled=False)
