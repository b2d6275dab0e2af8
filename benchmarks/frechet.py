"""Time and agreement of our Frechet distance against pytorch-fid's function, in one run.

    python -m benchmarks.frechet [--n 106 506] [--dims 2048] [--out frechet.json]

Both get the same features: ours as they are, pytorch-fid's as the mean and covariance that it
would have computed of them (that time is counted on both sides). The features are Gaussian,
with a spectrum that falls as that of Inception features does, and not negative.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

from benchmarks.support.arguments import positive_number
from repix import profile


def measure(n: int, dims: int) -> dict:
    """Return seconds of both, their ratio, and the relative difference of the distances."""
    import numpy as np

    from repix.evaluation.features import import_pytorch_fid
    from repix.evaluation.frechet import Statistics, frechet_distance

    import_pytorch_fid()
    from pytorch_fid.fid_score import calculate_frechet_distance

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(dims, dims)) / np.arange(1, dims + 1)[:, None]
    a, b = (np.abs(rng.normal(shift, 1.0, (n, dims)) @ mixing) for shift in (0.0, 0.1))

    start = time.perf_counter()
    ours = frechet_distance(Statistics.from_features(a), Statistics.from_features(b))
    seconds_ours = time.perf_counter() - start

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy says that the product is singular: it is, with n < dims
        theirs = calculate_frechet_distance(
            a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False)
        )
    seconds_theirs = time.perf_counter() - start
    return {
        "n": n,
        "dims": dims,
        "distance_repix": float(ours),
        "distance_pytorch_fid": float(theirs),
        "relative_difference": abs(float(ours) - float(theirs)) / float(theirs),
        "seconds_repix": seconds_ours,
        "seconds_pytorch_fid": seconds_theirs,
        "ratio": seconds_theirs / seconds_ours,
    }


def main() -> None:
    """Run it and print (and write) JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=positive_number, nargs="+", default=[106, 506], help="images per set")
    parser.add_argument("--dims", type=positive_number, default=2048, help="feature dims")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    record = {"profile": profile.current().record(), "runs": [measure(n, arguments.dims) for n in arguments.n]}
    text = json.dumps(record, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    profile.enter("portable")
    main()
