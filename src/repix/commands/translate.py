"""Apply a trained model to images of any size.

MODEL is a folder runs/<cell> or exports/<cell>, or the name of a cell in runs/. Channels, bit
depth, value range and colour come from the model; outputs keep the height and width, and the
bit depth that the model was trained with. Inputs are files, or folders that are searched with
all folders below; an output has the name of its input.

Images of another size than the trained one are mirrored at their borders to a size that the
network allows and cropped back, large ones go through in overlapping tiles; --resize scales
them to the trained size and the result back instead.

Examples:
  repix translate runs/sample-pix2pix_small-0 labels/ -o photos
  repix translate exports/maps-cyclegan-0 map.png -o out --translator target_to_source
  repix translate runs/bsds-colour-0 old.jpg -o out --format jpeg --resize
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from repix import profile
from repix.commands import here
from repix.directions import Direction
from repix.errors import UserError
from repix.files import atomic_path, digest_file
from repix.schemas import Exported, Side, Trained

if TYPE_CHECKING:
    import numpy as np

    from repix.inference.any_size import AnySize

TRANSLATORS = tuple(direction.value for direction in Direction)
PIXELS = 500_000_000
FEW = 5  # names that a line shows of many
FORMATS = {"png": ".png", "jpeg": ".jpg", "jpg": ".jpg", "tiff": ".tif", "npy": ".npy"}
TOLD = {"whole": "padded and cropped back", "tile": "translated in tiles", "resize": "resized and back"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help="runs/<cell>, exports/<cell>, or the name of a cell in runs/")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", type=here, help="image files and folders of them")
    parser.add_argument("-o", "--out", metavar="DIR", type=here, required=True, help="where the outputs go")
    parser.add_argument("--translator", choices=TRANSLATORS, default=TRANSLATORS[0], help="default: %(default)s")
    parser.add_argument(
        "--variant",
        choices=("last", "best", "ema"),
        help="which weights of runs/<cell>; default: ema where the recipe kept one, else last",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--whole", dest="how", action="store_const", const="whole", help="never tiles: pad and crop back")
    size.add_argument("--tile", dest="how", action="store_const", const="tile", help="overlapping tiles, blended")
    size.add_argument("--resize", dest="how", action="store_const", const="resize", help="scale to the trained size")
    parser.add_argument("--side-by-side", action="store_true", help="inputs are A|B pairs: take the source's half")
    parser.add_argument(
        "--pixels", metavar="N", type=int, default=PIXELS, help="most pixels of one input; default: %(default)s"
    )
    parser.add_argument("--format", choices=sorted(FORMATS), help="default: png; tiff for other than 1 or 3 channels")
    parser.add_argument("--paper", action="store_true", help="keep dropout on, as the pix2pix paper tests")
    parser.add_argument("--seed", type=int, default=0, help="of the dropout masks of --paper; default: %(default)s")
    parser.add_argument("--profile", choices=sorted(profile.PROFILES), help="default: the one it was trained under")
    parser.add_argument("--json", action="store_true", help="print what was written, and what was not, as JSON")


class Job(NamedTuple):
    """One image on its way: ``output`` is a file below the out folder."""

    input: Path
    output: Path


def find_model(given: str) -> tuple[Path, Trained | Exported]:
    """Return a model's folder and its record.

    Raises:
        UserError: there is no trained or exported cell.
    """
    for folder in (here(given), Path(given), Path("runs") / given):
        for record, file in ((Trained, "trained.json"), (Exported, "export.json")):
            if (folder / file).is_file():
                return folder, record.read(folder / file)
    have = sorted(path.parent.as_posix() for path in Path("runs").glob("*/trained.json"))
    listed = f"there is {', '.join(have)}" if have else "run `dvc repro` or `dvc pull` first"
    raise UserError(f"{given}: no trained.json (runs/<cell>) and no export.json (exports/<cell>) in it; {listed}")


def files_below(folder: Path, out: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and of all folders below, and the other files; hidden ones are neither.

    Links are followed, as often as they are given; what lies in ``out`` is left out, unless ``folder`` is that.
    Files of image formats that are not read are images too, which are refused by name.
    """
    from repix.data.images import IMAGE_SUFFIXES

    inside = out.resolve()
    images, others = [], []
    above: dict[str, tuple[Path, ...]] = {os.fspath(folder): (folder.resolve(),)}  # a folder -> itself and those above
    for place, folders, files in os.walk(folder, followlinks=True):
        line = above.pop(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            real = Path(place, name).resolve()
            if real in line or (real == inside and folder.resolve() != inside):  # a link back, or our own outputs
                folders.remove(name)
            else:
                above[os.path.join(place, name)] = (*line, real)
        for name in files:
            if not name.startswith("."):
                path = Path(place, name)
                (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    return sorted(images), sorted(others)


def find_jobs(inputs: Iterable[Path], out: Path, suffix: str) -> list[Job]:
    """Return the images to translate, each with the file that it becomes.

    Folders are searched with all folders below, which the outputs keep; see :func:`files_below`. A file
    that is named twice is translated once, links to one file as often as there are links. An output has its
    input's stem; where several would have one name, the second gets ``-2``, and so on.

    Raises:
        UserError: a folder without images; an output would replace an input.
    """
    from repix.data.images import SUFFIXES

    found: dict[Path, Path] = {}  # input, as given -> its path below out, without suffix
    named: set[str] = set()
    for given in inputs:
        files = [given]
        if given.is_dir():
            files = files_below(given, out)[0]
            if not files:
                raise UserError(f"{given}: no images in it; they end in {' '.join(SUFFIXES)}")
        for path in files:
            if os.path.abspath(path) not in named:
                named.add(os.path.abspath(path))
                found[path] = (path.relative_to(given).parent if given.is_dir() else Path()) / path.stem
    real = {path.resolve() for path in found}
    jobs, taken = [], set()
    for path, name in found.items():
        number, unique = 1, name
        while unique.as_posix().casefold() in taken:  # case alone tells no files apart on some systems
            number += 1
            unique = name.with_name(f"{name.name}-{number}")
        taken.add(unique.as_posix().casefold())
        jobs.append(Job(path, out / unique.parent / f"{unique.name}{suffix}"))
    for job in jobs:
        if job.output.resolve() in real:
            raise UserError(f"{job.output}: is an input and would be replaced; choose another folder with -o")
    return jobs


def choose_suffix(asked: str | None, target: Side) -> str:
    """Return the suffix of the outputs.

    Raises:
        UserError: the format cannot hold what the model makes.
    """
    lab = target.colour.startswith("lab")
    channels, bits = (3, 8) if lab else (target.channels, 16 if target.dtype == "uint16" else 8)
    if asked in ("jpeg", "jpg") and (bits != 8 or channels not in (1, 3)):
        raise UserError(f"--format {asked}: holds 1 or 3 channels of 8 bits, the model makes {channels} of {bits}")
    if asked == "png" and channels > 4:
        raise UserError(f"--format png: holds up to 4 channels, the model makes {channels}; use tiff or npy")
    return FORMATS[asked] if asked else ".png" if channels in (1, 3) else ".tif"


def read_source(path: Path, source: Side, half: str | None, pixels: int = PIXELS) -> np.ndarray:
    """Return an image as (height, width, channels) of what the source takes; of Lab the photo, RGB.

    Args:
        path: the file.
        source: what the model takes.
        half: ``left`` or ``right`` of a side-by-side file.
        pixels: most pixels that are taken, counted before they are decoded.

    Raises:
        BadImageError: it cannot be read, or is not what the model takes.
    """
    from repix.data import images

    decoded = images.decode(path, images.Limit(pixels, "--pixels raises it"))
    if half:
        width = decoded.pixels.shape[1]
        if width % 2:
            raise images.BadImageError(path, f"is {width} px wide, which is no two halves")
        columns = slice(width // 2) if half == "left" else slice(width // 2, None)
        decoded = decoded._replace(pixels=decoded.pixels[:, columns])
    if source.colour.startswith("lab"):
        bits = decoded.pixels.dtype.itemsize * 8
        return images.convert(decoded, path, colour="rgb", channels=3, bit_depth=bits)
    bits = 16 if source.dtype == "uint16" else 8
    return images.convert(decoded, path, colour=source.colour, channels=source.channels, bit_depth=bits)


def translate_image(pixels: np.ndarray, network: AnySize, how: str | None, index: int) -> np.ndarray:
    """Return the translation of what :func:`read_source` returned, at its size.

    With a Lab model the result is a photo: what the network made, and what it saw as it was.
    """
    from repix.data import colour, images
    from repix.data.colour import LAB_PARTS

    size = pixels.shape[:2]
    resized, how = how == "resize", None if how == "resize" else how
    seen = images.resize(pixels, network.trained) if resized else pixels
    if not network.source.colour.startswith("lab"):
        output = network(seen, how, index)
        return images.resize(output, size) if resized else output
    given, made = LAB_PARTS[network.source.colour], LAB_PARTS[network.target.colour]
    lab = colour.rgb_to_lab(seen)
    lab[..., made] = network(lab[..., given], how, index)
    if resized:
        # The part that the network only saw keeps the sharpness of the original.
        lab = colour.rgb_to_lab(images.resize(colour.lab_to_rgb(lab), size))
        lab[..., given] = colour.rgb_to_lab(pixels)[..., given]
    return colour.lab_to_rgb(lab)


def load(folder: Path, record: Trained | Exported, translator: str, variant: str | None, paper: bool) -> AnySize:
    """Return a model's translator, its weights checked.

    Raises:
        UserError: the model has no such translator, variant or file, or the file was changed.
    """
    from repix.inference.any_size import AnySize
    from repix.inference.backend import backend_module

    names = sorted(record.translators if isinstance(record, Trained) else record.digests)
    if translator not in names:
        raise UserError(f"{folder}: has no translator {translator}; it has {', '.join(names)}")
    compile_function = backend_module().compile_function
    if isinstance(record, Trained):
        from repix.inference.trained import TrainedModel

        model = TrainedModel(folder)
        model.load(variant or record.shown)
        network = model.system.networks[record.translators[translator]]
    else:
        from repix.exporting.keras_format import load_network

        if variant not in (None, record.variant):
            raise UserError(f"{folder}: was exported from the {record.variant} weights; use runs/{record.cell}")
        path = folder / translator / "model.keras"
        if not path.is_file() or "keras" not in record.digests[translator]:
            raise UserError(f"{path}: no such file; export with export.formats: [keras], or use runs/{record.cell}")
        if digest_file(path) != record.digests[translator]["keras"]:
            raise UserError(f"{path}: not the file of export.json; run `dvc checkout` or `dvc repro`")
        network = load_network(path)
    sides = Direction(translator).sides(record.source, record.target)
    return AnySize(network, *sides, compile_function, paper=paper)


def source_half(record: Trained | Exported, translator: str) -> str:
    """Return which half of an A|B image the translator takes.

    Raises:
        UserError: the record is from before directions were kept.
    """
    if record.direction is None:
        raise UserError(f"{record.cell}: does not say which half is its source; train it again, or cut the images")
    halves = ("left", "right") if record.direction == "AtoB" else ("right", "left")
    return Direction(translator).sides(*halves)[0]


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    folder, record = find_model(arguments.model)
    trained_under = record.profile["name"] if isinstance(record, Trained) else "portable"
    half = source_half(record, arguments.translator) if arguments.side_by_side else None
    _, made = Direction(arguments.translator).sides(record.source, record.target)
    suffix = choose_suffix(arguments.format, made)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"{arguments.out}: is not a folder; choose another one with -o")

    profile.enter(arguments.profile or trained_under)
    jobs = find_jobs(arguments.inputs, arguments.out, suffix)
    left_out = [path for given in arguments.inputs if given.is_dir() for path in files_below(given, arguments.out)[1]]
    from repix.quiet import import_keras

    import_keras()
    from tqdm import tqdm

    from repix import rng
    from repix.data import images

    network = load(folder, record, arguments.translator, arguments.variant, arguments.paper)
    written, failed, ways = [], [], Counter()
    for job in tqdm(jobs, desc=f"translate {record.cell}", unit="image", disable=None):
        try:
            pixels = read_source(job.input, network.source, half, arguments.pixels)
        except images.BadImageError as error:
            failed.append({"input": os.fspath(job.input), "reason": error.reason})
            continue
        size = pixels.shape[:2]
        how = "trained" if size == network.trained else arguments.how or network.choose(size)
        # The masks follow from the output's name, so that no image depends on its neighbours.
        name = job.output.relative_to(arguments.out).with_suffix("").as_posix()
        index = rng.key("translate", arguments.seed, name) % 2**24
        output = translate_image(pixels, network, None if how == "trained" else how, index)
        try:
            with atomic_path(job.output) as temporary:
                images.write(temporary, output)
        except OSError as error:
            raise UserError(f"{job.output}: cannot be written: {error.strerror or error}") from None
        ways[how] += 1
        written.append({"input": os.fspath(job.input), "output": os.fspath(job.output), "size": list(size), "how": how})
    if arguments.json:
        answer = {"model": os.fspath(folder), "translator": arguments.translator, "written": written, "failed": failed}
        answer["left_out"] = [os.fspath(path) for path in left_out]
        print(json.dumps(answer, indent=2))
    else:
        print(f"{len(written)} of {len(jobs)} images written to {arguments.out}")
    if arguments.how is None:
        for how in sorted(set(ways) - {"trained"}):
            height, width = network.trained
            print(
                f"repix translate: {ways[how]} not of the trained {height} x {width} px, {TOLD[how]}; "
                f"--whole, --tile or --resize choose otherwise",
                file=sys.stderr,
            )
    if left_out:
        more = f" and {len(left_out) - FEW} more" if len(left_out) > FEW else ""
        first = ", ".join(map(os.fspath, left_out[:FEW]))
        print(f"repix translate: {len(left_out)} files that are no images left out: {first}{more}", file=sys.stderr)
    for failure in failed:
        print(f"repix translate: {failure['input']}: {failure['reason']}", file=sys.stderr)
    return 1 if failed else 0
