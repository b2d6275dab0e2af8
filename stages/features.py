"""features: the weights of the networks that metrics look through, if they are asked for.

-> data/features/ with the file of Inception and archive.json, and data/features/lpips/ with that of LPIPS;
without a metric that takes Inception's, a note that says so. The weights are an input like any other: fetched by
sha256, tracked by DVC, so that no result depends on whether a network was there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import evaluation, reader
from repix.config.limits import Limits
from repix.data import sources
from repix.files import atomic_folder, write_json
from repix.metrics import ASK_FOR_FEATURES, OWN_NETWORK


def main() -> None:
    """Fetch the feature weights."""
    evaluate = reader.read("evaluate", evaluation.Evaluate)
    switches = {"features", *ASK_FOR_FEATURES, *OWN_NETWORK}
    params = {"evaluate": evaluate.model_dump(mode="json", include=switches)}
    wanted = {name: reader.read(f"features.{name}", evaluation.FeatureWeights) for name in evaluate.weights}
    record = stage.LineageRecord("features", "", params | {f"features.{name}": w for name, w in wanted.items()}, [])
    if not evaluate.on_features:
        with atomic_folder(paths.FEATURES) as folder:
            write_json(folder / "absent.json", {"reason": "no metric on features is on"})
    for name, weights in wanted.items():
        sources.fetch(
            weights.urls,
            weights.sha256,
            paths.FEATURES / name if name in OWN_NETWORK else paths.FEATURES,
            dataset=name,
            max_bytes=reader.read("limits", Limits).download_bytes,
            work=paths.WORK / "downloads",
            archive=False,
        )
    record.write(paths.FEATURES)


if __name__ == "__main__":
    stage.run(main, __doc__, profiled=False)
