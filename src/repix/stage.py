"""The door of every stage: arguments, execution profile, one-line errors, lineage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repix import profile
from repix.config import reader
from repix.config.run import Cell, Run
from repix.errors import UserError
from repix.files import digest_tree
from repix.quiet import import_keras
from repix.tracking import lineage

# Ignored by git and DVC: checkpoints, partial downloads, caches. Experiments in temporary
# folders (`dvc exp run --temp`) share that of the repository they came from.
WORK = Path(os.environ.get("DVC_ROOT", "")) / ".repix"
RAW, IMAGES, PREPARED = Path("data/raw"), Path("data/images"), Path("data/prepared")
FEATURES = Path("data/features")
RUNS, TRANSLATIONS, EXPORTS = Path("runs"), Path("translations"), Path("exports")
METRICS, PLOTS, LINEAGE = Path("metrics"), Path("plots"), Path("lineage")


def run(main: Callable[..., None], doc: str, *names: str, profiled: bool = True) -> None:
    """Run a stage's ``main`` with its command-line arguments; exit like a command should.

    Args:
        main: called with a :class:`Cell` where ``names`` are data set, model and seed,
            otherwise with the arguments as they are.
        doc: the script's docstring, shown by ``--help``.
        names: the positional arguments.
        profiled: whether the stage's bits depend on the execution profile, so that
            ``run.profile`` is entered first.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(name, type=int if name == "seed" else str)
    given = vars(parser.parse_args())
    guard(lambda: _enter_and_call(main, given, profiled))


def guard(function: Callable[[], Any]) -> None:
    """Call ``function``; a user's mistake becomes one line on standard error and an exit code."""
    try:
        function()
    except UserError as error:
        print(f"repix: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("repix: interrupted; run the same command to go on", file=sys.stderr)
        sys.exit(130)


def _enter_and_call(main: Callable[..., None], given: Mapping[str, Any], profiled: bool) -> None:
    if profiled:
        asked = reader.read("run", Run).profile
        if asked == "auto":
            # Read as it stands: importing the models' settings would make every stage depend on them.
            recipe = reader.section(f"models.{given['model']}") if "model" in given else {"profile": "portable"}
            asked = recipe.get("profile", "fast")
        profile.enter(asked)
    else:
        profile.leave()
    if "model" in given:
        import_keras()
        main(Cell(**given))
    else:
        main(*given.values())


class Record:
    """The lineage record of a running stage: declared before the work, completed after it.

    Args:
        stage: the stage's name.
        item: the cell's or data set's name; empty for a stage without a matrix.
        params: the typed settings that the stage read, by their keys in params.yaml.
        inputs: the files and folders that the stage reads.
    """

    def __init__(self, stage: str, item: str, params: Mapping[str, Any], inputs: list[Path]):
        root = Path(__file__).resolve().parents[2]
        current = profile.entered()
        self.path = LINEAGE / stage / f"{item or stage}.json"
        self.declared = lineage.declare(
            stage=stage,
            cell=item,
            params={
                key: getattr(value, "model_dump", lambda mode, v=value: v)(mode="json") for key, value in params.items()
            },
            inputs={path.as_posix(): digest_tree(path) for path in inputs},
            script=root / "stages" / f"{stage}.py",
            package=root / "src" / "repix",
            profile=current.record() if current else {},
        )

    @property
    def run_key(self) -> str:
        """The digest of everything that determines the stage's outs."""
        return self.declared.run_key

    def write(self, *outs: Path) -> None:
        """Write the record with the digests of what the stage left."""
        self.declared.with_outputs({path.as_posix(): digest_tree(path) for path in outs}).write(self.path)
