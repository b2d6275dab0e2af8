"""Apply a trained model to images of any size.

MODEL is a folder runs/<cell> or exports/<cell>, or the name of a cell in runs/. Channels, bit
depth, value range and colour come from the model; outputs keep the height and width, and the
bit depth that the model was trained with. Inputs are files, or folders that are searched with
all folders below; an output has the name of its input.

Images that fit into the trained size are mirrored at their borders to it and cropped back, larger ones
to the next size that the network allows, and very large ones go through in overlapping tiles; --resize scales
them to the trained size and the result back instead.

An export is computed by onnxruntime, without TensorFlow, and is within the tolerance of its
export.json of what Keras gives; what ONNX does not compute (larger images in one piece, --paper)
goes to Keras, as all of runs/ does. --backend stays with one of them.

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
from pathlib import Path

from repix import profile
from repix.commands import here
from repix.directions import Direction
from repix.errors import UserError, printable
from repix.translation import model
from repix.translation.model import BACKENDS, EXPORTED, FORMATS, PIXELS, TRANSLATORS

FEW = 5  # names that a line shows of many
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
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=BACKENDS[0],
        help="auto (default): ONNX for exports/ at the trained size, in tiles and with --resize, else Keras",
    )
    parser.add_argument("--paper", action="store_true", help="keep dropout on, as the pix2pix paper tests")
    parser.add_argument("--seed", type=int, default=0, help="of the dropout masks of --paper; default: %(default)s")
    parser.add_argument("--profile", choices=sorted(profile.PROFILES), help="default: the one it was trained under")
    parser.add_argument("--json", action="store_true", help="print what was written, and what was not, as JSON")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: a model is a folder of its own."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    given = arguments.model
    found = model.find_model(given, (here(given), Path(given), Path("runs") / given))
    if found.name == EXPORTED:  # before its record is read: entering starts the process again
        profile.enter(arguments.profile or "portable")
    folder, record = found.parent, model.read_record(found)
    half = model.source_half(record, arguments.translator) if arguments.side_by_side else None
    _, made = Direction(arguments.translator).sides(record.source, record.target)
    suffix = model.choose_suffix(arguments.format, made)
    if arguments.pixels < 1:
        raise UserError(f"--pixels {arguments.pixels}: a number from 1 on")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"{arguments.out}: is not a folder; choose another one with -o")
    if found.name != EXPORTED:
        profile.enter(arguments.profile or record.profile["name"])

    from tqdm import tqdm

    from repix import rng
    from repix.translation.jobs import Failed, Job, find_jobs, translate_jobs
    from repix.translation.pixels import read_source, translate_image

    jobs, left_out = find_jobs(arguments.inputs, arguments.out, suffix)
    network = model.load(
        folder,
        record,
        arguments.translator,
        arguments.variant,
        paper=arguments.paper,
        backend=arguments.backend,
    )

    def translate(pixels, job: Job):
        how = network.choose(pixels.shape[:2], arguments.how)
        # The masks follow from the output's name, so that no image depends on its neighbours.
        name = job.output.relative_to(arguments.out).with_suffix("").as_posix()
        name = name.encode(errors="backslashreplace").decode()  # a name that is no UTF-8
        index = rng.key("translate", arguments.seed, name) % 2**24
        return translate_image(pixels, network, how, index), how

    written, failed, ways = [], [], Counter()
    done = translate_jobs(jobs, lambda path: read_source(path, network.source, half, arguments.pixels), translate)
    for one in tqdm(done, total=len(jobs), desc=f"translate {record.cell}", unit="image", disable=None):
        source, output = map(os.fspath, one.job)
        if isinstance(one, Failed):
            failed.append({"input": source, "reason": one.reason})
            continue
        ways[one.how] += 1
        written.append({"input": source, "output": output, "size": list(one.size), "how": one.how})
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
        first = printable(", ".join(map(os.fspath, left_out[:FEW])))
        print(
            f"repix translate: {len(left_out)} files that are no images left out: {first}{more}",
            file=sys.stderr,
        )
    for failure in failed:
        print(printable(f"repix translate: {failure['input']}: {failure['reason']}"), file=sys.stderr)
    return 1 if failed else 0
