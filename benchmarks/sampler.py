"""How many training pairs a second one core cuts and flips: prints JSON.

    python -m benchmarks.sampler --pairs 2000 --load 286 --crop 256

The arrays are mapped from files, as in training, and read once beforehand, so that the disk
is not measured.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.support.arguments import positive_number
from repix import profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=positive_number, default=2000, help="pairs in a measurement")
    parser.add_argument("--repeats", type=positive_number, default=5, help="measurements; the median is reported")
    parser.add_argument("--load", type=positive_number, default=286)
    parser.add_argument("--crop", type=positive_number, default=256)
    parser.add_argument("--channels", type=positive_number, default=3)
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8)
    parser.add_argument("--batch-size", type=positive_number, default=1)
    asked = parser.parse_args()
    profile.enter("fast")

    import numpy as np

    from repix.data.sampler import Sampler

    with tempfile.TemporaryDirectory() as folder:
        mapped = []
        for name in ("source", "target"):
            path = Path(folder) / f"{name}.npy"
            shape, kind = (200, asked.load, asked.load, asked.channels), np.dtype(f"uint{asked.bits}")
            np.save(path, np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True))
            mapped.append(np.load(path, mmap_mode="r"))
        sampler = Sampler(
            *mapped, seed=0, batch_size=asked.batch_size, crop_size=(asked.crop, asked.crop), flip=True, uniforms=3
        )
        steps = max(1, asked.pairs // asked.batch_size)
        times = []
        for repeat in range(asked.repeats + 1):
            before = time.process_time()
            for step in range(repeat * steps, (repeat + 1) * steps):
                sampler.batch(step)
            times.append(time.process_time() - before)
    rate = steps * asked.batch_size / float(np.median(times[1:]))  # the first one warms up
    print(json.dumps({**vars(asked), "pairs_per_second_per_core": round(rate)}, indent=2))


if __name__ == "__main__":
    main()
