"""Build a model's networks and print what they cost: parameters, output, receptive field, FLOPs, memory, checkpoint.

Nothing is trained. Sizes and channels come from a data set; without one they are 256 x 256 px, 3 to 3 channels.
A multiply-add counts as two FLOPs; FLOPs and memory of a training are estimates, and --measure runs some steps on
drawn images to say what this machine takes for one, and for all. --json also names the layers with weights, which
`freeze` of a start_from takes.

Examples:
  repix describe pix2pix
  repix describe facades-pix2pix --measure
  repix describe cyclegan --dataset horse2zebra --json
  repix describe pix2pix_book --dataset facades_bw --diagram book.png
  repix describe facades-pix2pix facades_bw-pix2pix_book --markdown
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from repix import paths, profile, tables
from repix.cells import Cell, is_cell
from repix.commands import here
from repix.config import halving, reader
from repix.config.models import Recipe
from repix.errors import UserError
from repix.files import atomic_path
from repix.libraries import import_keras
from repix.schemas import Manifest

if TYPE_CHECKING:
    from repix.description.facts import Facts
    from repix.systems.system import System

SIZE, CHANNELS = (256, 256), (3, 3)  # without a data set: the papers'
GRAPHICS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="an entry of models, or <dataset>-<model>")
    parser.add_argument("--dataset", help="an entry of datasets, for models named without one")
    parser.add_argument(
        "--diagram", type=here, metavar="FILE", help="also draw the layers (one model; .png, .svg, .pdf)"
    )
    parser.add_argument(
        "--measure", action="store_true", help="also run some training steps here, and say what one takes (one model)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print one table, a row for each network")


@dataclass(frozen=True)
class Measured:
    """What training steps took on this machine.

    Attributes:
        profile: under which they ran.
        ms_per_step: the median.
        steps: how many were timed.
        first_seconds: until the first one was done, which compiles.
        peak_bytes: most that was resident for the process, without MLflow, which a tracked training has beside it.
        training_steps: of the whole training; None where the data set is not prepared yet.
    """

    profile: str
    ms_per_step: float
    steps: int
    first_seconds: float
    peak_bytes: int
    training_steps: int | None


@dataclass(frozen=True)
class Description:
    """The size and cost of a model on a data set; ``measured`` where that was asked for."""

    model: str
    dataset: str | None
    size: tuple[int, int]
    channels: tuple[int, int]
    facts: Facts
    measured: Measured | None = None


def describe(model: str, dataset: str | None) -> tuple[Description, System]:
    """Build a model for a data set, and return its size and cost.

    Raises:
        UserError: there is no such model or data set, or they do not fit each other.
    """
    from repix.config.images import Images, height_width
    from repix.description.facts import facts
    from repix.systems.system import build

    recipe = reader.read(f"models.{model}", Recipe)
    size, channels, paired = SIZE, CHANNELS, True
    if dataset is not None:
        images = reader.read(f"datasets.{dataset}.images", Images)
        size, channels, paired = height_width(images.crop_size), images.channels, images.paired
    system = build(recipe, size, *channels, paired)
    return Description(model, dataset, size, channels, facts(system, recipe, *channels)), system


def measure(model: str, description: Description, system: System) -> Measured:
    """Run some training steps of a described model; what is resident for this process then is theirs."""
    from repix.description.resident import peak_bytes
    from repix.training.trial import trial

    recipe = reader.read(f"models.{model}", Recipe)
    whole = training_steps(recipe, description.dataset)  # first: a manifest that cannot be read is said at once
    found = trial(system, recipe, description.size, *description.channels)
    return Measured(profile.current().name, found.ms, found.steps, found.first_seconds, peak_bytes(), whole)


def training_steps(recipe: Recipe, dataset: str | None) -> int | None:
    """Return how many steps a training has; None where the data set is not prepared, so that nobody counted it."""
    from repix.data.sampler import steps_per_epoch

    path = paths.PREPARED / (dataset or "") / "manifest.json"
    if dataset is None or not path.exists():
        return None
    split = Manifest.read(path).splits["train"]
    return recipe.epochs * steps_per_epoch(max(split.source.n, split.target.n), recipe.batch_size)


def short(number: float) -> str:
    """Return a number with three digits and its unit: 12096372736 -> ``12.1 G``."""
    for power, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            value = number / power
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
    return f"{number:.0f} "


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def field_text(field: int | None, size: tuple[int, int]) -> str:
    """Return a receptive field for people; one that covers an image from any of its places is the whole image."""
    return "whole image" if field is None or field >= 2 * max(size) else f"{field} px"


def enter_profile_of(model: str) -> None:
    """Enter the profile that a model would train under.

    Raises:
        UserError: it is one of several devices, each of which has a process of its own.
    """
    from repix.studies.seed_study import profile_of

    name = profile_of(model)
    if (profile.find(name).shards or 1) > 1:
        raise UserError(f"--measure runs one process, and {name} has one for each device: set run.profile: jax for it")
    profile.enter(name)


def _side(description: Description) -> str:
    (height, width), (source, target) = description.size, description.channels
    return f"{height} x {width} px, {source} to {target} channels"


def text(description: Description) -> str:
    """Return a description as aligned text."""
    where = f" on {description.dataset}" if description.dataset else ""
    rows = [("network", "parameters", "output", "receptive field", "forward FLOPs")]
    facts = description.facts
    for name, one in facts.networks.items():
        rows.append(
            (
                name,
                f"{one.parameters:,}",
                _shape(one.output),
                field_text(one.receptive_field, description.size),
                short(one.flops),
            )
        )
    lines = [f"{description.model}{where}: {_side(description)}", "", *tables.aligned(rows, right=(1, 3, 4))]
    lines += [
        "",
        f"training step     {short(facts.step_flops)}FLOP (estimate)",
        f"activations kept  {short(facts.activation_bytes)}B (estimate)",
        f"memory            {short(facts.memory_bytes)}B (estimate, of the whole process on a CPU under fast)",
        f"checkpoint        {short(facts.checkpoint_bytes)}B (weights and Adam's moments)",
    ]
    if found := description.measured:
        step = f"{found.ms_per_step:.4g} ms a step under {found.profile}, {short(found.peak_bytes)}B at most"
        lines += [
            f"measured here     {step} ({found.steps} steps, the first after {tables.duration(found.first_seconds)})",
            f"training          {_training(found)}",
        ]
    return "\n".join(lines)


def _training(found: Measured) -> str:
    if found.training_steps is None:
        return f"{tables.duration(found.ms_per_step)} for 1,000 steps (the data set, once prepared, says how many)"
    time = tables.duration(found.training_steps * found.ms_per_step / 1000)
    return f"{time} for {found.training_steps:,} steps, without scoring and checkpoints"


def markdown(descriptions: list[Description]) -> str:
    """Return descriptions as one Markdown table, a row for each network (twins of CycleGAN in one)."""
    rows = [("model", "on", "network", "parameters", "output", "receptive field", "forward", "step", "checkpoint")]
    for description in descriptions:
        facts = description.facts
        twins: dict = {}
        for name, one in facts.networks.items():
            twins.setdefault(one, []).append(name)
        for number, (one, names) in enumerate(twins.items()):
            first = number == 0
            rows.append(
                (
                    f"`{description.model}`" if first else "",
                    f"{description.dataset or ''} {_side(description)}".strip() if first else "",
                    ", ".join(names),
                    f"{one.parameters:,}",
                    _shape(one.output),
                    field_text(one.receptive_field, description.size),
                    f"{short(one.flops)}FLOP",
                    f"{short(facts.step_flops)}FLOP" if first else "",
                    f"{short(facts.checkpoint_bytes)}B" if first else "",
                )
            )
    return "\n".join(tables.markdown(rows, right=(3, 5, 6, 7, 8)))


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: of params.yaml it says so itself."""
    return False


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    figure = arguments.diagram
    if figure and figure.suffix.lower() not in GRAPHICS:
        raise UserError(f"--diagram {figure}: write one of {', '.join(GRAPHICS)}")
    if figure and len(arguments.models) > 1:
        raise UserError("--diagram draws one model; name one")
    if arguments.measure and len(arguments.models) > 1:
        raise UserError("--measure measures one model, so that its memory is its own; name one")
    if arguments.measure and arguments.markdown:
        raise UserError("the table of --markdown has no place for what --measure finds; leave one of them out")
    wanted = []
    for name in arguments.models:
        # The seed of a cell changes nothing here.
        dataset, dash, model = (Cell.named(name).family if is_cell(name) else name).rpartition("-")
        if dash and arguments.dataset:
            raise UserError(f"{name} names its data set already; leave --dataset {arguments.dataset} out")
        reader.section(f"models.{model}")  # a misspelt name is said at once, before TensorFlow loads
        wanted.append((model, dataset or arguments.dataset))

    if arguments.measure:
        enter_profile_of(wanted[0][0])
    elif profile.entered() is None:
        profile.enter("fast")
    import_keras()
    from repix.inference.backend import backend_module

    backend_module()
    found = []
    for model, dataset in wanted:
        description, system = describe(model, dataset)
        if arguments.measure:
            description = replace(description, measured=measure(model, description, system))
        found.append(description)
        if figure:
            from repix.description.diagram import draw

            with atomic_path(figure) as temporary:
                draw(system, f"{model}, {_side(description)}", temporary, figure.suffix[1:].lower())
    for description in found:
        if said := halving.warning(reader.read(f"models.{description.model}", Recipe), description.size):
            print(f"repix describe: warning: {description.model}: {said}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([asdict(one) for one in found] if len(found) > 1 else asdict(found[0]), indent=2))
    elif arguments.markdown:
        print(markdown(found))
    else:
        print("\n\n".join(map(text, found)))
    return 0
