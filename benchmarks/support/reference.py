"""A whole training of pix2pix or CycleGAN in plain PyTorch, beside ours: the same prepared arrays, as many steps.

    python -m benchmarks.support.reference facades plain 0   # in a folder that benchmarks.quality has laid out

Networks and step are those of :mod:`benchmarks.support.torch_reference`. Of params.yaml it takes the named model's
filters, epochs, learning rate and weights of the losses; the rate falls linearly over the last epochs, each image is
cropped and flipped at random, unpaired domains are drawn independently. The weights of the last step are scored by
:func:`repix.evaluation.evaluate.evaluate`, as ours are: dropout off, norms on the image itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.torch_reference import Way, resnet, training, unet
from checks.harness import own_peak
from repix import paths, profile, stage
from repix.cells import Cell
from repix.config import evaluation, reader
from repix.config.augment import Augment
from repix.config.models import Recipe
from repix.data.prepared import Prepared, SplitArrays
from repix.directions import Direction
from repix.files import atomic_folder, digest_arrays, digest_tree, write_json
from repix.schemas import Archive, Side, Trained

NAME = "reference"
POOL = 50


def batches(split: SplitArrays, size: Sequence[int], flip: bool, paired: bool, seed: int, epoch: int) -> Iterator:
    """Yield an epoch's (source, target), each (height, width, channels), cut and mirrored, in a random order.

    Of unpaired domains the epoch goes once through the larger, beside images of the smaller in their order; the
    target of each is drawn at random.
    """
    draw = np.random.default_rng([seed, epoch])
    counts = len(split.source), len(split.target)

    def cut(image):
        top, left = (int(draw.integers(have - want + 1)) for have, want in zip(image.shape, size, strict=False))
        return slice(top, top + size[0]), slice(left, left + size[1]), slice(None, None, -1 if mirrored() else 1)

    def mirrored() -> bool:
        return flip and draw.random() < 0.5

    def apply(image, how):
        rows, columns, order = how
        return image[rows, columns][:, order]

    for number in draw.permutation(max(counts)):
        source = split.source[number % counts[0]]
        how = cut(source)
        target = split.target[number if paired else draw.integers(counts[1])]
        yield apply(source, how), apply(target, how if paired else cut(target))


def to_unit(images: np.ndarray, side: Side):
    """Return stored integers (batch, height, width, channels) as PyTorch's (batch, channels, height, width)."""
    import torch

    low, high = np.asarray(side.low, np.float32), np.asarray(side.high, np.float32)
    unit = (images.astype(np.float32) - low) * (2 / (high - low)) - 1
    return torch.from_numpy(np.ascontiguousarray(unit.transpose(0, 3, 1, 2)))


def to_stored(unit, side: Side) -> np.ndarray:
    """Return (batch, channels, height, width) in [-1, 1] as stored integers: the inverse of :func:`to_unit`."""
    low, high = np.asarray(side.low, np.float32), np.asarray(side.high, np.float32)
    values = (unit.numpy().transpose(0, 2, 3, 1) + 1) * ((high - low) / 2) + low
    return np.rint(np.clip(values, low, high)).astype(side.dtype)


def train(prepared: Prepared, recipe: Recipe, seed: int, flip: bool) -> tuple[dict[str, Any], list[float]]:
    """Return the trained networks, and the milliseconds of a step in each epoch."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(seed)
    random.seed(seed)
    manifest, split = prepared.manifest, prepared.split("train")
    sides = manifest.source, manifest.target
    size, channels = manifest.crop_size, [side.channels for side in sides]
    made = training(recipe.system, size[0], recipe.generator.filters, Way(), channels, recipe, POOL)
    times = []
    for epoch in range(recipe.epochs):
        for group in itertools.chain(*(optimizer.param_groups for optimizer in made.optimizers)):
            group["lr"] = recipe.learning_rate(epoch)
        begun, steps = time.perf_counter(), 0
        for images in batches(split, size, flip, manifest.paired, seed, epoch):
            made.step(*(to_unit(image[None], side) for image, side in zip(images, sides, strict=True)))
            steps += 1
        times.append(1000 * (time.perf_counter() - begun) / steps)
    return made.networks, times


class TorchModel:
    """Trained generators as :func:`repix.evaluation.evaluate.evaluate` takes them.

    Attributes:
        record: as a training of ours leaves it.
        folder: where it lies.
        variants: ``last`` alone.
    """

    variants = ("last",)

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = Trained.read(folder / "trained.json")

    def load(self, variant: str) -> None:
        """Do nothing: there is one set of weights."""

    def translator(self, name: str, *, paper: bool = False):
        """Return the function that yields the translations of stored images; ``paper`` keeps dropout on."""
        import torch

        source, target = Direction(name).sides(self.record.source, self.record.target)
        build = {"pix2pix": unet, "cyclegan": resnet}[self.record.recipe["system"]]
        filters = self.record.recipe["generator"]["filters"]
        network = build(self.record.crop_size[0], filters, source.channels, target.channels)
        with np.load(self.folder / f"{self.record.translators[name]}.npz", allow_pickle=False) as arrays:
            network.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays})
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout) and not paper:
                layer.eval()  # norms stay in training mode: the statistics of the image itself

        def translate(images):
            with torch.inference_mode():
                for image in images:
                    yield to_stored(network(to_unit(image[None], source)), target)[0]

        return translate


def run(cell: Cell, entry: Recipe, flip: bool) -> None:
    """Train a cell in ``runs/<cell>``, in the working folder, if it is not there, and score it."""
    prepared = Prepared.open(paths.PREPARED / cell.dataset)
    folder, manifest = paths.RUNS / cell.name, prepared.manifest
    if not folder.exists():
        begun = time.perf_counter()
        split = prepared.split("train")
        networks, times = train(prepared, entry, cell.seed, flip)
        directions = {Direction.SOURCE_TO_TARGET: "generator", Direction.TARGET_TO_SOURCE: "inverse_generator"}
        translators = {name: network for name, network in directions.items() if network in networks}
        states = {
            name: {key: value.numpy() for key, value in network.state_dict().items()}
            for name, network in networks.items()
        }
        record = Trained(
            cell=cell.name,
            dataset=cell.dataset,
            model=cell.model,
            seed=cell.seed,
            steps=entry.epochs * max(len(split.source), len(split.target)),
            epochs=entry.epochs,
            profile={"name": "torch"},
            recipe=entry.model_dump(mode="json"),
            crop_size=manifest.crop_size,
            source=manifest.source,
            target=manifest.target,
            translators=translators,
            networks={name: digest_arrays(state) for name, state in states.items()},
            best=None,
            data_digest=digest_tree(paths.PREPARED / cell.dataset),
            direction=manifest.direction,
        )
        cost = {"ms_per_step": min(times), "seconds": time.perf_counter() - begun, "peak_gb": own_peak()}
        with atomic_folder(folder) as out:
            for name in translators.values():
                np.savez(out / f"{name}.npz", **states[name])
            record.write(out / "trained.json")
            write_json(out / "cost.json", cost)

    from repix.libraries import import_keras

    import_keras()  # not before: its memory is none of the training's
    from repix.evaluation.evaluate import evaluate
    from repix.evaluation.features import load_network

    settings = reader.read("evaluate", evaluation.Evaluate)
    network = None
    if settings.on_features:
        weights = Archive.read(paths.FEATURES / "archive.json")
        network = load_network(settings.dims, paths.FEATURES / weights.file, weights.sha256)
    out, cache = paths.TRANSLATIONS / cell.name, paths.WORK / "features"
    scored = evaluate(TorchModel(folder), prepared, settings, out, features=network, cache=cache)
    scored.write(paths.METRICS / f"{cell.name}.json")


def main(given: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared data set of the working folder")
    parser.add_argument("model", help="the entry of its params.yaml whose sizes, epochs and weights it takes")
    parser.add_argument("seed", type=int)
    asked = parser.parse_args(given)
    profile.leave()
    # Beside other work, threads that spin while they wait for each other wait for the scheduler: many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    flip = reader.read(f"datasets.{asked.dataset}.augment", Augment).flip
    run(Cell(asked.dataset, NAME, asked.seed), reader.read(f"models.{asked.model}", Recipe), flip)


if __name__ == "__main__":
    stage.guard(main)
