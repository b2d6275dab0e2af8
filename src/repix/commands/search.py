"""Search for better settings of a model: trials chosen by Optuna, judged by their score on the val split.

What is tried stands under `search` in params.yaml. The first trial is the entry as it stands; a trial below the median
of the others at the same epoch is stopped early (prune). The test split is not read. The study is kept in
.repix/search.db, or in the database of --storage, where several machines work on one study; the same command goes on
where it stopped.
In MLflow it is one run, the trials are nested under it. One seed says little: --seeds trains the entry and the best
trial with further seeds and says whether the difference is more than their noise. --write adds the best as an entry.

Examples:
  repix search --workers 2
  repix search --seeds 1-4 --write tuned
  repix search --storage postgresql://me@host/repix --workers 4
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from repix import yaml12
from repix.cells import NAME
from repix.commands import replace_text
from repix.commands.seeds import parse_seeds
from repix.config import editing, reader
from repix.config.search import changed
from repix.errors import UserError
from repix.files import locked
from repix.paths import WORK
from repix.tables import aligned

if TYPE_CHECKING:
    from repix.studies.search import Plan, Result

DATABASE = "search.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--trials", type=int, metavar="N", help="trials in all (default: search.trials in params.yaml)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials at once (default: 1)")
    parser.add_argument("--storage", metavar="URL", help="the study's database (default: SQLite, .repix/search.db)")
    parser.add_argument("--seeds", metavar="1-4", help="then train the entry and the best trial with these seeds")
    parser.add_argument("--write", metavar="NAME", help="add the best trial to params.yaml as models.NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")


def table(results: list[Result], best: Result) -> str:
    """Return the trials, the best first, as aligned text."""
    names = sorted({name for result in results for name in result.values})
    rows = [("trial", "state", "score", "epoch", *names)]
    for result in sorted(results, key=lambda one: (one.score is None, -(one.score or 0.0), one.number)):
        score = "" if result.score is None else f"{result.score:.5g}"
        values = [
            f"{result.values[name]:.4g}"
            if isinstance(result.values.get(name), float)
            else str(result.values.get(name, ""))
            for name in names
        ]
        mark = f"{result.number} *" if result is best else str(result.number)
        rows.append((mark, result.state, score, str(result.epoch or ""), *values))
    return "\n".join(aligned(rows, right=(2, 3)))


def write_entry(wanted: Plan, best: Result, name: str) -> None:
    """Add the best trial's recipe to params.yaml.

    Raises:
        UserError: the name is taken, or params.yaml is not written as DVC does.
    """
    path = wanted.root / reader.FILE
    entry = yaml12.dump({name: changed(wanted.entry, best.values)})
    with locked(wanted.root / WORK / "add.lock", reader.FILE):
        text = path.read_text(encoding="utf-8")
        if name in (reader.section("models", path) or {}):
            raise UserError(f"--write {name}: {path} has a model of that name; choose another")
        replace_text(path, editing.with_entry(text, name, entry, "models"))


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    if arguments.workers < 1:
        raise UserError("--workers is 1 or more")
    if arguments.trials is not None and arguments.trials < 2:
        raise UserError("--trials is 2 or more: the entry as it stands is the first")
    seeds = parse_seeds(arguments.seeds) if arguments.seeds is not None else ()
    if len(seeds) == 1:
        raise UserError("--seeds: noise between seeds takes two or more; give `--seeds 1-4`")
    root = Path()
    from repix.studies import search
    from repix.tracking import mlflow_run

    wanted = search.plan(root, arguments.trials)
    if wanted.settings.seed in seeds:
        raise UserError(f"--seeds: the best trial was chosen by seed {wanted.settings.seed}; leave it out")
    if arguments.write is not None and not NAME.match(arguments.write):
        raise UserError(f"--write {arguments.write}: names are letters, digits and underscores")
    if arguments.write in (reader.section("models") or {}):
        raise UserError(f"--write {arguments.write}: {reader.FILE} has a model of that name; choose another")
    (root / WORK).mkdir(exist_ok=True)
    storage = arguments.storage or f"sqlite:///{(root / WORK / DATABASE).resolve()}"
    name = f"{wanted.settings.dataset}-{wanted.settings.model}"
    with mlflow_run.study(name, run_key=wanted.name, params=wanted.base.params, root=root.resolve()):
        study = search.run(wanted, storage, workers=arguments.workers)
        results = search.results(study)
        scored = [result for result in results if result.state == "complete"]
        if not scored:
            raise UserError(
                f"{wanted.name}: none of its {len(results)} trials came to an end; ask for more with --trials, or name "
                f"another database with --storage to begin anew"
            )
        best = max(scored, key=lambda result: (result.score, -result.number))
        noise = search.compare(wanted, best, seeds, workers=arguments.workers) if seeds else None
    new = arguments.write if best.values != search.defaults(wanted) else None
    if new:
        write_entry(wanted, best, new)
    report(arguments, wanted, results, best, noise, new)
    return 0


def report(arguments, wanted: Plan, results: list[Result], best: Result, noise, new: str | None) -> None:
    """Print the trials, what the best one is, and what further seeds say of it."""
    if arguments.json:
        said = {"study": wanted.name, "best": best.number, "trials": [result._asdict() for result in results]}
        print(json.dumps(said | {"seeds": noise._asdict() if noise else None}, indent=2))
        return
    print(table(results, best))
    counts = {state: sum(result.state == state for result in results) for state in ("complete", "pruned", "failed")}
    print(f"{wanted.name}: {', '.join(f'{n} {state}' for state, n in counts.items())}; * the best on the val split")
    if noise:
        print(noise.text())
    elif best.number:
        print("one seed says little: `repix search --seeds 1-4` trains the entry and the best with others")
    if new:
        print(f"next: dvc exp run -S 'run.datasets=[{wanted.settings.dataset}]' -S 'run.models=[{new}]'")
    elif arguments.write:
        print(f"nothing was written: models.{wanted.settings.model} as it stands is the best")
