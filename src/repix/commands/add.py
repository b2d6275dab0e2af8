"""Look at images of your own, say what they are, and write their entry into params.yaml.

PATH is a folder, an archive (.zip, .tar, .tar.gz, .tar.xz) or its https address. Layout, channels and bits are found
out, splits made where there are none, sizes and a recipe proposed, and a few of its training steps timed. The last line
is the command that trains it. A folder is packed by the pipeline itself; after a change of its files, add it again.

Examples:
  repix add photos --name shoes
  repix add pairs.zip --name maps2 --direction BtoA
  repix add cells --name cells --pad
  repix add https://host/set.tar.gz --name theirs --no-measure
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from repix import paths, profile, yaml12
from repix.cells import NAME
from repix.commands import here, replace_text
from repix.config import editing, reader
from repix.config.datasets import Dataset
from repix.config.images import Images, height_width, load_size
from repix.config.limits import Limits
from repix.config.models import Recipe
from repix.errors import UserError, printable
from repix.files import locked, scratch_folder
from repix.tables import duration

if TYPE_CHECKING:
    from repix.data.survey import Survey

TREE = "tree"  # a folder of ours, where the images are looked at
LONG = 1800  # seconds of training from which a smaller recipe is proposed, where there is one
SECONDS = 2.0  # that the steps of a measurement take together, where three take less
FEW = 10  # lines of a list
FEW_TESTED = 10  # test images below which scores say little
PADDED = 512  # longer side up to which keeping the pixels as they are is offered
SHORT = 1000  # steps below which a training has hardly begun, whatever the recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="PATH", help="a folder, an archive, or an https address")
    parser.add_argument("--name", help="name of the entry: letters, digits, underscores (default: made of PATH)")
    parser.add_argument("--direction", choices=("AtoB", "BtoA"), help="which side is the source (default: AtoB)")
    layouts = Images.model_fields["layout"].annotation.__args__
    parser.add_argument("--layout", choices=layouts, help="how the images lie (default: found out)")
    pad = "keep the pixels as they are: mirror images at their borders to one size (resize: pad)"
    parser.add_argument("--pad", action="store_true", help=pad)
    parser.add_argument("--skip", action="store_true", help="leave out images that cannot be used (on_error: skip)")
    parser.add_argument("--no-measure", action="store_true", help="do not time training steps")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")


def address(path: str) -> str:
    """Return the URL of what was given: relative to the root of the repository where it lies in it.

    Raises:
        UserError: there is no such file or folder.
    """
    if re.match(r"(https?|file|synthetic):", path, re.IGNORECASE):
        return path
    if "://" in path:
        raise UserError(f"{path}: only https, http and file addresses are read; fetch it, and add the file")
    place = here(path)
    if not place.exists():
        raise UserError(f"{place}: no such file or folder")
    from repix.data.images import IMAGE_SUFFIXES
    from repix.data.survey import STACK

    if place.is_dir() and not any(file.is_file() or file.is_symlink() for file in place.rglob("*")):
        raise UserError(f"{place}: holds no files")
    if place.is_file() and place.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{place}: is one image; name the folder of the images ({STACK})")
    absolute, root = Path(os.path.abspath(place)), Path.cwd()
    if absolute == root:
        raise UserError(f"{path}: is the repository itself; name the folder of the images")
    end = "/" if absolute.is_dir() else ""
    if absolute.is_relative_to(root):
        return f"file:{quote(os.fsencode(absolute.relative_to(root).as_posix()))}{end}"
    return f"file://{quote(os.fsencode(absolute))}{end}"


def _name(given: str | None, url: str) -> str:
    if given is None:
        stem = unquote(re.split("[/:]", url.partition("?")[0].rstrip("/"))[-1]).partition(".")[0]
        given = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_") or "mine"
        if yaml12.load(given, "name") != given:  # 2024, true: no text to YAML
            given = f"set_{given}"
    if not NAME.match(given):
        raise UserError(f"--name {given}: names are letters, digits and underscores, and begin with no underscore")
    if yaml12.load(given, "--name") != given:
        raise UserError(f"--name {given}: is no text to YAML; begin it with a letter, such as set_{given}")
    return given


def fetched(url: str, name: str, folder: Path) -> tuple[Path, str]:
    """Bring the archive of a URL, and unpack it below ``folder``; return the tree and the archive's sha256.

    What came over the network is kept, so that the download stage finds it.
    """
    from repix.data import archives, sources

    limits = reader.read("limits", Limits)
    kept = paths.WORK / "downloads"
    raw = folder / "raw"
    record = sources.fetch(
        (url,), None, raw, dataset=name, max_bytes=limits.download_bytes, work=kept, archive=True, hint=False
    )
    archives.unpack(
        raw / record.file,
        folder / TREE,
        max_bytes=limits.unpack_bytes,
        max_files=limits.unpack_files,
        max_ratio=limits.unpack_ratio,
    )
    if url.lower().startswith("http"):
        (raw / record.file).replace(kept / record.sha256)
    return folder / TREE, record.sha256


class Cost(NamedTuple):
    """What a recipe costs on these images.

    Attributes:
        networks: name -> (parameters, receptive field in words).
        ms: of a step, or None where it was not measured.
    """

    networks: dict[str, tuple[int, str]]
    ms: float | None


def answer(model: str, wanted: str) -> None:
    """Print, as JSON, what a recipe costs: the part of this command that runs in a process of its own profile.

    Args:
        wanted: JSON of crop_size, channels, paired, profile and measure.
    """
    asked = json.loads(wanted)
    profile.enter(asked["profile"])
    from repix.libraries import import_keras

    import_keras()
    from repix.commands.describe import field_text
    from repix.description.facts import facts
    from repix.systems.system import build
    from repix.training.backend import step_module
    from repix.training.trial import trial

    step_module()
    size, channels = tuple(asked["crop_size"]), tuple(asked["channels"])
    recipe = reader.read(f"models.{model}", Recipe)
    system = build(recipe, size, *channels, asked["paired"])
    networks = {
        name: (one.parameters, field_text(one.receptive_field, size))
        for name, one in facts(system, recipe, *channels).networks.items()
    }
    ms = trial(system, recipe, size, *channels, seconds=SECONDS, untimed=1).ms if asked["measure"] else None
    print(json.dumps({"networks": networks, "ms": ms}))


def cost(model: str, recipe: Recipe, images: Images, crop: tuple[int, int], measure: bool) -> Cost | str:
    """Return what a recipe costs, or why that cannot be told here."""
    from repix.studies.seed_study import profile_of

    used = profile_of(model)
    asked = {
        "crop_size": crop,
        "channels": images.channels,
        "paired": images.paired,
        "profile": used,
        "measure": measure and (profile.find(used).shards or 1) == 1,  # several devices are as many processes
    }
    code = "import sys; from repix.commands import add; add.answer(*sys.argv[1:])"
    command = [sys.executable, "-P", "-c", code, model, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    said = json.loads(done.stdout.splitlines()[-1])
    return Cost({name: tuple(one) for name, one in said["networks"].items()}, said["ms"])


def entry_text(name: str, url: str, sha256: str | None, images: dict[str, Any]) -> str:
    """Return an entry of ``datasets`` as DVC writes it: what differs from the defaults, sizes in one line."""
    lines = [f"{name}:", "  archive:", "    urls:", f"    {yaml12.dump([url]).strip()}", f"    sha256: {sha256 or ''}"]
    lines += ["  images:"] if images else ["  images: {}"]
    for key, value in images.items():
        lines.append(f"    {key}: {list(value) if isinstance(value, list | tuple) else value}")
    return "".join(f"{line}\n" for line in [*(line.rstrip() for line in lines), "  augment: {flip: true}"])


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


WHAT = {
    "aligned": "source and target side by side in one file",
    "folders": "pairs in two folders, by name",
    "unaligned": "two sets of images, no pairs",
    "hdf5": "pairs in HDF5 files",
    "single": "photos, each its own source (L) and target (a, b): colourisation",
}


def report(name: str, survey: Survey) -> list[str]:
    """Return what was found, in lines."""
    wanted, counts = survey.wanted, survey.counts
    lines = [f"{name}: layout {wanted.layout}: {WHAT[wanted.layout]}"]
    if wanted.layout in ("aligned", "single"):
        other = {"aligned": "single", "single": "aligned"}[wanted.layout]
        lines[0] += f" (if not: --layout {other})"
    elif wanted.layout == "unaligned":
        lines[0] += " (if they are pairs: --layout folders names the images without a partner)"
    splits = ", ".join(f"{split} {a}" if wanted.paired else f"{split} {a} + {b}" for split, (a, b) in counts.items())
    made = [f"{split}_fraction" for split in ("val", "test") if getattr(wanted, f"{split}_fraction")]
    how = ["by the hashes of names: " + ", ".join(f"{key} {getattr(wanted, key):g}" for key in made)] if made else []
    if (test := survey.found["test"]).origin == "val":
        folders = dict.fromkeys(f"{items[0].folder.relative_to(survey.tree)}/" for items in (test.source, test.target))
        how.append(f"test: your {' and '.join(folders)}, since there is no test/")
    lines.append(f"  {'splits':9} {splits}" + (f" ({'; '.join(how)})" if how else ""))
    for role, side, which in zip(("source", "target"), survey.sides, (0, 1), strict=True):
        items = (survey.found["train"].source, survey.found["train"].target)[which]
        first, *others = (f"{_times(size)} px" for size, _ in side.sizes.most_common(3))
        more = f" (and {len(side.sizes) - 1} other sizes: {', '.join(others)}{', ...'[: 5 * (len(side.sizes) > 3)]})"
        kinds = " or ".join(map(str, sorted(side.kinds)))
        folder = items[0].folder.relative_to(survey.tree).as_posix()
        where = f"{items[0].half} half" if items[0].half else name if folder == "." else folder
        kept = wanted.channels[which]
        lines.append(
            f"  {role:9} {where}: {first}{more if others else ''}, {kinds} channel{'s' * (kinds != '1')}"
            f"{f', read as {kept}' if str(kept) != kinds else ''}, {side.bits} bits"
        )
    if 0 < (n := min(counts["test"])) < FEW_TESTED:
        lines.append(f"  {'few tests':9} a score is a mean over {n} test images: read it with care")
    looked, total = survey.looked
    if looked < total:
        lines.append(f"  {'looked at':9} {looked} of {total} images")
    for line in _few(survey.left_out):
        lines.append(f"  {'not read':9} {line}")
    for line in _few([f"{file}: {reason}" for file, reason in survey.bad.items()]):
        lines.append(f"  {'unusable':9} {line}")
    return lines


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= FEW else [*lines[:FEW], f"and {len(lines) - FEW} more"]


def _cost_lines(model: str, recipe: Recipe, found: Cost | str, images: int) -> list[str]:
    if isinstance(found, str):
        return [f"  {'recipe':9} {model}; its cost cannot be told here: {found}"]
    networks = "; ".join(f"{name} {n:,} parameters, sees {field}" for name, (n, field) in found.networks.items())
    from repix.data.sampler import steps_per_epoch

    steps = steps_per_epoch(images, recipe.batch_size) * recipe.epochs
    schedule = f"{recipe.epochs} epochs are {steps:,} steps"
    if found.ms is not None:
        schedule += f" of {found.ms:.0f} ms on this machine: {duration(seconds(recipe, found, images))}"
    return [f"  {'recipe':9} {model}: {networks}", f"  {'schedule':9} {schedule}"]


def _few_steps_lines(recipe: Recipe, found: Cost | str, images: int) -> list[str]:
    from repix.data.sampler import steps_per_epoch

    if (longer := long_enough(recipe, images)).epochs == recipe.epochs:
        return []
    takes = f", in {duration(seconds(longer, found, images))}" if isinstance(found, Cost) and found.ms else ""
    more = f"{steps_per_epoch(images, recipe.batch_size) * longer.epochs:,} steps{takes}"
    return [f"  {'few steps':9} {longer.epochs} epochs, as the command below has it, are {more}"]


def long_enough(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe, with as many epochs as make :data:`SHORT` steps of so few train images where it has fewer."""
    from repix.data.sampler import steps_per_epoch

    least = math.ceil(SHORT / steps_per_epoch(images, recipe.batch_size))
    return recipe.model_copy(update={"epochs": max(recipe.epochs, least)})


def seconds(recipe: Recipe, found: Cost, images: int) -> float:
    """Return how long a recipe's schedule takes on so many train images."""
    from repix.data.sampler import steps_per_epoch

    return steps_per_epoch(images, recipe.batch_size) * recipe.epochs * found.ms / 1000


def is_short(recipe: Recipe, found: Cost | str, images: int) -> bool:
    """Return whether it is known that a recipe takes less than :data:`LONG` on so many train images."""
    known = isinstance(found, Cost) and found.ms is not None
    return known and seconds(long_enough(recipe, images), found, images) <= LONG


def proposed(recipes: Mapping[str, Recipe], costs: Mapping[str, Cost | str], images: int) -> str:
    """Return which of the recipes in ``costs`` to propose for so many train images.

    The first short one; else the one that takes least; where no time is known, the one of fewest parameters.
    """
    known = {model: found for model, found in costs.items() if isinstance(found, Cost)}
    for model, found in known.items():
        if is_short(recipes[model], found, images):
            return model
    if timed := [model for model, found in known.items() if found.ms is not None]:
        return min(timed, key=lambda model: seconds(long_enough(recipes[model], images), known[model], images))
    sizes = {model: sum(parameters for parameters, _ in found.networks.values()) for model, found in known.items()}
    return min(sizes, key=sizes.__getitem__) if sizes else list(costs)[-1]


def refuse_bad(name: str, survey: Survey, is_entry: bool, skip: bool) -> None:
    """Raise where images that cannot be used are not to be left out, or where nothing of a split would be left.

    Args:
        is_entry: whether params.yaml has the data set already, and so says itself how it is read.
    """
    images = f"datasets.{name}.images in {reader.FILE}"
    resize = ""
    if survey.unequal.keys() & survey.bad.keys():
        resize = f"set resize: resize_and_crop in {images}" if is_entry else "leave out --pad"
    if gone := [split for split, counts in survey.counts.items() if not min(counts)]:
        mend = f"{resize}, or bring both images of each pair to one size" if resize else "mend them, or add others"
        raise UserError(f"{len(survey.bad)} images cannot be used, and nothing is left of {' and '.join(gone)}: {mend}")
    if not skip:
        mend = f"mend or remove them, {f'{resize}, ' if resize else ''}or leave them out by "
        mend += f"on_error: skip in {images}" if is_entry else "--skip"
        raise UserError(f"{len(survey.bad)} images cannot be used: {mend}")


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix.config import halving
    from repix.data import survey as surveys
    from repix.data.images import Limit
    from repix.description import proposal

    url = address(arguments.path)
    name = _name(arguments.name, url)
    there = (reader.section("datasets") or {}).get(name)
    entry = reader.parse(there, Dataset, f"datasets.{name}") if there is not None else None
    if entry and entry.archive.urls[0] != url:
        raise UserError(f"{reader.FILE} has an entry datasets.{name} of another place; choose another --name")
    if entry and (arguments.layout or arguments.direction or arguments.skip or arguments.pad):
        raise UserError(f"datasets.{name} is there already: say how it is read in its images, in {reader.FILE}")
    pixels = reader.read("limits", Limits).pixels
    recipes = {model: reader.read(f"models.{model}", Recipe) for model in reader.section("models") or {}}
    with scratch_folder(paths.WORK / "add") as folder:
        limit = Limit(pixels, "limits.pixels in params.yaml raises it")
        try:
            tree, sha256 = fetched(url, name, folder)
            found = surveys.look(
                tree,
                layout=arguments.layout,
                direction=arguments.direction or "AtoB",
                limit=limit,
                pad=arguments.pad,
                given=entry.images if entry else None,
            )
        except UserError as error:
            # The copies are ours and gone in a moment: name what was given.
            ours = re.compile(rf"{re.escape(str(folder))}/(?:{TREE}|raw/[^/:\s]+)")
            raise UserError(*(ours.sub(lambda _: arguments.path.rstrip("/"), line) for line in error.lines)) from None
    print("\n".join(map(printable, report(name, found))))
    if found.bad:
        refuse_bad(name, found, entry is not None, arguments.skip or found.wanted.on_error == "skip")

    if entry:
        images, crop = entry.images, height_width(entry.images.crop_size)
    else:
        sizes = found.sides[0].sizes + found.sides[1].sizes
        crop, whole = proposal.crop_size(sizes), proposal.padded_size(sizes)
        far = sum(count for size, count in sizes.items() if any(2 * a <= b for a, b in zip(size, whole, strict=True)))
        if arguments.pad and far:
            raise UserError(
                f"--pad: all images would be mirrored to {_times(whole)} px, the largest height by the largest width, "
                f"and {far} of {sum(sizes.values())} are half of that or less; leave out the odd ones, or --pad"
            )
        crop = whole if arguments.pad else crop
        settings = {key: getattr(found.wanted, key) for key in found.wanted.model_fields_set}
        load = load_size(crop)
        settings |= {"load_size": proposal.written(load), "crop_size": proposal.written(crop)}
        settings |= {"on_error": "skip"} if arguments.skip else {}
        settings |= {"resize": "pad"} if arguments.pad else {}
        # What differs from the defaults, in the order of the module that explains it.
        fields = Images.model_fields.items()
        settings = {key: settings[key] for key, field in fields if settings.get(key, field.default) != field.default}
        images = reader.parse(settings, Images, f"datasets.{name}.images")
        how = "mirrored to" if arguments.pad else "stored at"
        print(f"  {'sizes':9} {how} {_times(load)} px, cut to {_times(crop)} px")
        no_use = arguments.pad or set(sizes) == {crop}  # nothing would be mirrored
        if not no_use and not found.unequal and not far and max(whole) <= PADDED:
            print(f"  {'or':9} --pad: pixels as they are, mirrored at the borders to {_times(whole)} px")
    able = proposal.candidates(recipes, crop, images.paired)
    train = max(found.counts["train"])
    costs: dict[str, Cost | str] = {}
    for model in able:
        costs[model] = cost(model, recipes[model], images, crop, not arguments.no_measure)
        print("\n".join(_cost_lines(model, recipes[model], costs[model], train)))
        if said := halving.warning(recipes[model], crop):
            print(f"  {'warning':9} {said}")
        if is_short(recipes[model], costs[model], train):
            break
    model = proposed(recipes, costs, train)
    recipe = long_enough(recipes[model], train)
    for line in _few_steps_lines(recipes[model], costs[model], train):
        print(line)
    if not arguments.dry_run:
        path = Path(reader.FILE)
        with locked(paths.WORK / "add.lock", reader.FILE):  # or of two at once one would take the other's entry away
            text = path.read_text(encoding="utf-8")
            if not entry and name in (yaml12.load(text, reader.FILE).get("datasets") or {}):
                raise UserError(f"{reader.FILE} got an entry datasets.{name} meanwhile; choose another --name")
            made = entry_text(name, url, sha256, settings) if not entry else ""
            new = editing.with_pin(text, name, sha256) if entry else editing.with_entry(text, name, made)
            replace_text(path, new)
        print(f"  {'written':9} datasets.{name} in {reader.FILE}")
    longer = ""
    if recipe.epochs > recipes[model].epochs:
        plus = "" if "epochs" in (reader.section(f"models.{model}") or {}) else "++"  # what DVC asks for at a default
        longer = f" -S {plus}models.{model}.epochs={recipe.epochs}"
    print(f"next: dvc exp run -S 'run.datasets=[{name}]' -S 'run.models=[{model}]'{longer}")
    return 0
