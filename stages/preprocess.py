"""preprocess: images as arrays, once, so that training only crops and flips.

data/images/<dataset>/ -> data/prepared/<dataset>/ with <split>-source.npy,
<split>-target.npy and manifest.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import reader
from repix.config.images import Images
from repix.config.limits import Limits


def main(dataset: str) -> None:
    """Prepare the images of ``dataset``."""
    wanted = reader.read(f"datasets.{dataset}.images", Images)
    tree, out = paths.IMAGES / dataset, paths.PREPARED / dataset
    pixels = reader.read("limits", Limits).pixels
    params = {f"datasets.{dataset}.images": wanted, "limits.pixels": pixels}
    record = stage.LineageRecord("preprocess", dataset, params, [tree])

    # NumPy must not be imported before the profile is in force.
    from repix.data import preprocess

    manifest = preprocess.prepare(tree, wanted, out, name=dataset, pixels=pixels)
    counts = ", ".join(f"{name} {split.source.n}" for name, split in sorted(manifest.splits.items()))
    print(f"{dataset}: {counts}; skipped {len(manifest.skipped)}")
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset")
