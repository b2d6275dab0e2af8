"""preprocess: images as arrays, once, so that training only crops and flips.

data/images/<dataset>/ -> data/prepared/<dataset>/ with <split>-source.npy and <split>-target.npy (several
files each, where they are large), lists of their images and manifest.json.
"""

import sys
from contextlib import nullcontext
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
    limits = reader.read("limits", Limits)
    params = {f"datasets.{dataset}.images": wanted}
    params |= {"limits.pixels": limits.pixels, "limits.image_tree": limits.image_tree}
    record = stage.LineageRecord("preprocess", dataset, params, [tree])

    # NumPy must not be imported before the profile is in force.
    from repix.data import preprocess, trees

    with nullcontext(tree) if limits.image_tree else trees.unpacked(tree, paths.WORK / "trees" / dataset) as images:
        manifest = preprocess.prepare(images, wanted, out, name=dataset, pixels=limits.pixels)
    counts = ", ".join(f"{name} {split.source.n}" for name, split in sorted(manifest.splits.items()))
    print(f"{dataset}: {counts}; skipped {len(manifest.skipped)}")
    record.write(out)


if __name__ == "__main__":
    stage.run(main, __doc__, "dataset")
