"""features: the weights of the network that FID and KID look through, if they are asked for.

-> data/features/ with the file and archive.json; without evaluate.fid and evaluate.kid a
note that says so. The weights are an input like any other: fetched by sha256, tracked by
DVC, so that no result depends on whether a network was there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from repix import paths, stage
from repix.config import evaluation, reader
from repix.config.limits import Limits
from repix.data import sources
from repix.files import atomic_folder, write_json
from repix.metrics import ASK_FOR_FEATURES


def main() -> None:
    """Fetch the feature weights."""
    evaluate = reader.read("evaluate", evaluation.Evaluate)
    params = {"evaluate": evaluate.model_dump(mode="json", include={"features", *ASK_FOR_FEATURES})}
    wanted = evaluate.on_features
    if wanted:
        weights = reader.read(f"features.{evaluate.features}", evaluation.FeatureWeights)
        params[f"features.{evaluate.features}"] = weights
    record = stage.LineageRecord("features", "", params, [])
    if wanted:
        limit = reader.read("limits", Limits).download_bytes
        sources.fetch(
            weights.urls,
            weights.sha256,
            paths.FEATURES,
            dataset=evaluate.features,
            max_bytes=limit,
            work=paths.WORK / "downloads",
            archive=False,
        )
    else:
        asked = " nor ".join(f"evaluate.{name}" for name in ASK_FOR_FEATURES)
        with atomic_folder(paths.FEATURES) as folder:
            write_json(folder / "absent.json", {"reason": f"neither {asked} is on"})
    record.write(paths.FEATURES)


if __name__ == "__main__":
    stage.run(main, __doc__, profiled=False)
