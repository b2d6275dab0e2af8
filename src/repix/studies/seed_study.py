"""Several seeds of one data set and model, trained and evaluated beside the pipeline.

The cells are made by the stage scripts themselves, as subprocesses in a folder of their own:
copies of the code, a params.yaml with only what they read, and the
repository's prepared data, linked. The folder is named after the digest of all
that, so that it says what was run, an edit of the code under way changes nothing, and the
same command goes on where it stopped. The tracked workspace, its outs and DVC's locks are left
alone; who wants the cells' runs in the pipeline's MLflow says so in the environment.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tqdm import tqdm

from repix import processes, profile, yaml12
from repix.cells import Cell
from repix.config import evaluation, models, reader
from repix.config.augment import Augment
from repix.config.run import Grid
from repix.errors import UserError
from repix.files import (
    atomic_folder,
    canonical_json,
    digest_file,
    digest_text,
    digest_tree,
    locked,
    remove,
    write_text,
)
from repix.paths import FEATURES, LINEAGE, PREPARED, WORK
from repix.provenance.code import Closure, environment, packages_of
from repix.provenance.lineage import Lineage
from repix.regression.baseline import Entry
from repix.schemas import Metrics, flat

STAGES = ("train", "evaluate")
QUICK = {"epochs": 1}
SHARED = ("run", "models", "datasets", "evaluate", "features", "limits")
NO_SOURCE = ("__pycache__", "*.egg-info")

Runner = Callable[[Path, str, Cell], None]
"""Makes one stage of one cell in a folder: ``runner(folder, stage, cell)``."""


@dataclass(frozen=True)
class Plan:
    """What a seed study is going to run.

    Attributes:
        folder: ``.repix/seeds/<dataset>-<model>-<key>``.
        key: digest of code, parameters, data, packages and profile; the seed is not in it.
        params: the parameters that the cells read, by their keys in params.yaml.
        inputs: path in the study's folder -> digest, of what the cells read beside what they make.
    """

    dataset: str
    model: str
    folder: Path
    key: str
    params: dict[str, Any]
    inputs: dict[str, str]

    def cell(self, seed: int) -> Cell:
        """Return the cell of a seed."""
        return Cell(self.dataset, self.model, seed)

    def metrics_path(self, seed: int) -> Path:
        """Return where the cell's metrics lie once it is finished."""
        return self.folder / "metrics" / f"{self.cell(seed).name}.json"

    def finished(self, seed: int, stages: Sequence[str] = STAGES) -> bool:
        """Whether stages of the cell were made, on :attr:`inputs`: lineage is the last thing that a stage writes.

        The data are the repository's, which `dvc repro` may have made anew since the study began.
        """
        records = [self.folder / LINEAGE / stage / f"{self.cell(seed).name}.json" for stage in stages]
        try:
            read = [Lineage.read(record).inputs for record in records]
        except UserError:  # none, or a damaged one
            return False
        return all(inputs.get(path, digest) == digest for inputs in read for path, digest in self.inputs.items())


def profile_of(model: str, path: str | Path = reader.FILE) -> str:
    """Return the name of the execution profile that a model's stages enter."""
    return reader.read("run", Grid, path).profile_of(reader.read(f"models.{model}", models.Recipe, path).profile)


def plan(root: Path, dataset: str, model: str, *, changes: Mapping[str, Any] | None = None) -> Plan:
    """Read what a seed study would run, check it, and name its folder.

    Args:
        root: the repository.
        dataset, model: names in params.yaml.
        changes: fields of the model's entry that are replaced, such as ``{"epochs": 1}``.

    Raises:
        UserError: wrong parameters, or data that is not prepared yet.
    """
    path = root / reader.FILE
    recipe = reader.read(f"models.{model}", models.Recipe, path)
    if changes:
        changed = reader.section(f"models.{model}", path) | dict(changes)
        recipe = reader.parse(changed, models.Recipe, f"models.{model}", path)
    if recipe.start_from is not None:
        raise UserError(f"{path}: models.{model}.start_from: seeds are trained beside the pipeline, without parents")
    augment = reader.read(f"datasets.{dataset}.augment", Augment, path)
    settings = reader.read("evaluate", evaluation.Evaluate, path)
    name = profile_of(model, path)
    prepared = root / PREPARED / dataset
    if not (prepared / "manifest.json").exists():
        raise UserError(f"{prepared}: not prepared yet; run `dvc repro preprocess` with {dataset} in run.datasets")
    if not (root / FEATURES).exists():  # every evaluation reads it, and comes after the first training
        raise UserError(f"{root / FEATURES}: not there; run `dvc repro features`")
    tree = reader.load(path)
    code = {stage: Closure.of_stage(root, tree, stage, model) for stage in STAGES}
    files = {file for closure in code.values() for file in closure.places.values()}
    params = {
        f"models.{model}": recipe.model_dump(mode="json"),
        f"datasets.{dataset}.augment": augment.model_dump(mode="json"),
        "evaluate": settings.model_dump(mode="json"),
        "run.profile": name,
    }
    inputs = {(PREPARED / dataset).as_posix(): digest_tree(prepared)}
    if settings.weights:
        inputs[FEATURES.as_posix()] = digest_tree(root / FEATURES)
    key = digest_text(
        canonical_json(
            {
                "params": params,
                "inputs": inputs,
                "code": {stage: closure.digests() for stage, closure in code.items()},
                "environment": environment(packages_of(files, profile.find(name).record())),
                "profile": profile.find(name).record(),
            }
        )
    )
    folder = root / WORK / "seeds" / f"{dataset}-{model}-{key[:12]}"
    return Plan(dataset, model, folder, key, params, inputs)


def lay_out(root: Path, wanted: Plan) -> None:
    """Make the study's folder: the repository's code, params.yaml, and a link to the data.

    Where another seed is at work in it, its code stays where it is, or is replaced in one step.
    """
    tree = {key: value for key, value in reader.load(root / reader.FILE).items() if key in SHARED}
    tree["models"] = {wanted.model: wanted.params[f"models.{wanted.model}"]}
    tree["datasets"] = {wanted.dataset: tree["datasets"][wanted.dataset]}
    tree["run"] |= {"datasets": [wanted.dataset], "models": [wanted.model]}
    with locked(wanted.folder / ".lock", "the folder of the same study"):
        for part in ("src", "stages"):
            here, there = root / part, wanted.folder / part
            if not here.is_dir():  # a project that `repix init` made runs the installed package
                remove(there)
            elif _digests(here) != _digests(there):
                with atomic_folder(there) as temporary:
                    shutil.copytree(here, temporary, ignore=shutil.ignore_patterns(*NO_SOURCE), dirs_exist_ok=True)
        write_text(wanted.folder / reader.FILE, yaml12.dump(tree))
        link = wanted.folder / "data"
        if not link.is_symlink():
            link.symlink_to((root / "data").resolve(), target_is_directory=True)


def _digests(folder: Path) -> dict[str, str]:
    """Return path -> digest of the files that :func:`lay_out` copies of a folder, or has copied."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): digest_file(path)
        for name, path in found.items()
        if not any(fnmatch(part, pattern) for part in name.parts for pattern in NO_SOURCE)
    }


def alone(wanted: Plan, seed: int) -> AbstractContextManager[None]:
    """Hold a cell of a study against others that make the same one, here or in another process.

    Who waits for hours is not deaf: :func:`processes.stop_running` ends the wait.
    """
    cell = wanted.cell(seed).name
    what = f"the same training ({wanted.folder.name}, {cell})"
    return locked(wanted.folder / f".{cell}.lock", what, asked=processes.require_going_on)


def log_of(folder: Path, stage: str, cell: Cell) -> Path:
    """Return where what a stage says goes."""
    return folder / "logs" / f"{cell.name}-{stage}.log"


class KilledError(UserError):
    """A signal ended a stage (kill -9, too little memory): what it was asked for may be in order."""


def run_stage(folder: Path, stage: str, cell: Cell, until: Callable[[], bool] | None = None) -> bool:
    """Run a stage's script in the study's folder; what it says goes to ``logs/``.

    Args:
        until: is asked on the way whether to stop it.

    Returns:
        False where ``until`` stopped it.

    Raises:
        KilledError: a signal ended it.
        UserError: it failed; the last line that it said is in the message.
    """
    log = log_of(folder, stage, cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    given = [word for axis, value in vars(cell).items() for word in (f"--{axis}", str(value))]
    command = [sys.executable, f"stages/{stage}.py", *given]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # The work folder is found by this variable: checkpoints and TensorBoard files are the study's own.
    environment["DVC_ROOT"] = str(folder.resolve())
    with open(log, "w", encoding="utf-8") as stream:
        code = processes.run(
            command, until=until, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    if code in (processes.ASKED, -signal.SIGTERM) and until is not None and until():
        return False
    if code:
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        kind = KilledError if code < 0 else UserError
        raise kind(f"{stage} of {cell.name} ended with {code}: {said[-1] if said else 'no output'}; all of it: {log}")
    return True


def run(
    wanted: Plan, seeds: Sequence[int], *, root: Path, workers: int = 1, runner: Runner = run_stage
) -> dict[str, Entry]:
    """Train and evaluate every seed that is not finished yet; return cell -> scores.

    Args:
        wanted: see :func:`plan`.
        seeds: which seeds.
        root: the repository.
        workers: how many seeds at once; each stage is a process of its own.
        runner: makes one stage of one cell.

    Raises:
        UserError: a stage failed; seeds that run beside it come to their end, no other is begun.
    """
    lay_out(root, wanted)
    with tqdm(total=len(seeds), desc=f"{wanted.dataset}-{wanted.model}", unit="seed", disable=None) as bar:
        stopped, made = threading.Event(), itertools.count(1)

        def make(seed: int) -> None:
            if stopped.is_set():
                return
            try:
                with alone(wanted, seed):
                    for stage in STAGES if not wanted.finished(seed) else ():
                        bar.set_postfix(seed=seed, stage=stage)
                        runner(wanted.folder, stage, wanted.cell(seed))
            except BaseException:
                stopped.set()
                raise
            bar.update()
            if bar.disable:  # no terminal: a line for the log
                print(f"{wanted.cell(seed).name}: {next(made)} of {len(seeds)} seeds", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(workers) as pool:
            try:
                for done in as_completed([pool.submit(make, seed) for seed in seeds]):
                    done.result()
            except KeyboardInterrupt:  # in the main thread; the others wait for their stages
                processes.stop_running()
                raise
            finally:
                stopped.set()
    return collect(wanted, seeds)


def collect(wanted: Plan, seeds: Sequence[int]) -> dict[str, Entry]:
    """Return cell -> scores of finished seeds.

    Raises:
        UserError: a seed's metrics are missing, or of other data than the others'.
    """
    if others := [wanted.cell(seed).name for seed in seeds if not wanted.finished(seed)]:
        raise UserError(f"{others[0]}: {' and '.join(wanted.inputs)} changed while the seeds were made; run it again")
    return {wanted.cell(seed).name: Entry.of(Metrics.read(wanted.metrics_path(seed))) for seed in seeds}


def spread_csv(cells: Mapping[str, Entry]) -> str:
    """Return the scores as CSV: seed, translator, weights, metric, value; for ``dvc plots`` and pandas."""
    rows = [
        (Cell.named(cell).seed, *key, value)
        for cell, entry in cells.items()
        for key, value in flat(entry.scores).items()
        if value is not None
    ]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["seed", "translator", "weights", "metric", "value"])
    table.writerows([*row[:4], repr(row[4])] for row in sorted(rows))
    return text.getvalue()


def spread_plot(cells: Mapping[str, Entry], path: Path) -> None:
    """Draw each metric of the last weights as one point per seed, with mean and standard deviation."""
    from matplotlib.figure import Figure

    from repix.files import atomic_path
    from repix.regression.tolerance import mean_and_sd

    points: dict[str, list[tuple[int, float]]] = {}
    for cell, entry in cells.items():
        for (translator, variant, metric), value in flat(entry.scores).items():
            if variant == "last" and value is not None:
                title = metric if len(entry.scores) == 1 else f"{translator} {metric}"
                points.setdefault(title, []).append((Cell.named(cell).seed, value))
    figure = Figure(figsize=(3 * len(points), 3), layout="constrained")
    for axes, (title, found) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        seeds, values = zip(*sorted(found), strict=True)
        axes.plot(seeds, values, "o", markersize=4)
        if len(values) > 1:
            mean, sd = mean_and_sd(values)
            axes.axhline(mean, linewidth=1)
            axes.axhspan(mean - sd, mean + sd, alpha=0.2)
            title = f"{title}: {mean:.4g} ± {sd:.2g}"
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("seed")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
