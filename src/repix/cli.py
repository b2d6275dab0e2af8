"""``repix``: what one does with results, beside the pipeline that makes them."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import signal
import sys
from contextlib import chdir
from pathlib import Path

from repix import processes, profile
from repix.commands import check_project
from repix.errors import UserError, limit_of_the_machine, printable, stop_behind, told
from repix.paths import find_root
from repix.version import VERSION

# name -> one line for `repix --help`; the module is repix.commands.<name>.
COMMANDS = {
    "add": "look at images of your own, say what they are, and write their entry into params.yaml",
    "baselines": "what trained cells have to beat: trivial predictors, and the margins in standard deviations",
    "bundle": "pack a cell with code, data hashes, weights and checksums into one archive",
    "check": "read params.yaml as the stages will, and say in a second whether all cells can run",
    "compare": "cells, commits or experiments side by side: scores with the seeds' noise, parameters, pictures",
    "demo": "a page to try exported models: pick, upload or draw, and compare",
    "describe": "build a model's networks and print what they cost, without training",
    "doctor": "say what this machine and environment are, and what stands in the way of a run",
    "farm": "make the cells of the grid in parallel: on this machine, on a Ray cluster, on SLURM",
    "gate": "compare the metrics with the committed baseline; the exit code is the verdict",
    "init": "make a project of your own in a folder: params.yaml, dvc.yaml, stages, tests, CI, git and DVC",
    "promote": "make an exported cell the champion of the registry, if the gate passed it",
    "results": "print the metrics of all cells as a table",
    "search": "search for better settings of a model: trials chosen by Optuna, judged on the val split",
    "seeds": "train several seeds and measure the noise between them: the gate's tolerances",
    "sync": "rebuild MLflow's runs from git, dvc.lock and the outs",
    "translate": "apply a trained model to images of any size",
    "verify": "rebuild results from scratch and compare them with dvc.lock",
}

# What people type for what DVC does, or another command.
_TRAIN = "`dvc exp run -S 'run.datasets=[sample]' -S 'run.models=[pix2pix_small]'` trains, scores and exports"
_SCORE = "`repix results` prints the scores; `dvc exp run` computes those that are missing"
_APPLY = "`repix translate MODEL IMAGES -o OUT` applies a trained model"
_LONGER = "`dvc exp run` goes on from trained weights where the model has a start_from, see repix's docs/continue.md"
_UI = "`mlflow ui --backend-store-uri sqlite:///mlflow.db` shows the curves; `repix demo` tries exported models"
INSTEAD = {
    **dict.fromkeys(("train", "fit", "run", "repro", "start", "resume"), _TRAIN),
    **dict.fromkeys(("continue", "finetune", "fine-tune", "longer"), _LONGER),
    **dict.fromkeys(("test", "eval", "evaluate", "score", "metrics"), _SCORE),
    **dict.fromkeys(("predict", "infer", "inference", "apply", "generate", "convert"), _APPLY),
    **dict.fromkeys(("ui", "view", "show", "plot", "curves"), _UI),
    **dict.fromkeys(("export", "save"), "`dvc exp run` exports what it trains, to exports/<cell>"),
    **dict.fromkeys(("serve", "app", "gui"), "`repix demo` serves a page to try exported models"),
    **dict.fromkeys(
        ("download", "fetch", "prepare", "preprocess"), "`dvc repro preprocess` fetches and prepares the data"
    ),
    **dict.fromkeys(("new", "import", "data", "dataset"), "`repix add PATH --name N` takes images of your own"),
    **dict.fromkeys(("gpu", "env", "version", "status"), "`repix doctor` says what this machine and environment are"),
    **dict.fromkeys(
        ("remove", "delete", "rm", "undo", "clean"),
        "`dvc checkout` goes back to what dvc.lock says (repix's docs/faq.md); an entry of params.yaml goes by hand",
    ),
    **dict.fromkeys(
        ("sweep", "tune"), "`repix search` tries the settings that params.yaml lists, see repix's docs/scale.md"
    ),
    "diff": "`repix compare A B` puts cells, commits or experiments side by side",
    **dict.fromkeys(("info", "summary", "model", "models"), "`repix describe MODEL` says what a model costs"),
}


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand and exit with its code; a user's mistake is one line and exit code 1 (or its own)."""
    argv = sys.argv[1:] if argv is None else argv
    asked = next((word for word in argv if not word.startswith("-")), None)
    said = f"repix {asked}" if asked in COMMANDS else "repix"
    for stream in (sys.stdout, sys.stderr):
        # A name that a terminal has no letters for is told in escapes, and is no error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        start = _start()
        root = find_root(start)
        profile.START = start
        with chdir(root), processes.unwinding():
            _run(argv, asked)
    except UserError as error:
        print(f"{said}: {told(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        sys.exit(128 + getattr(error, "number", signal.SIGINT))
    except BrokenPipeError:  # the reader of `repix ... | head` has gone
        sys.exit(141)
    except Exception as error:
        if (stopped := stop_behind(error)) is not None:
            sys.exit(128 + getattr(stopped, "number", signal.SIGINT))
        if (line := limit_of_the_machine(error)) is None:
            raise
        print(printable(f"{said}: {line}"), file=sys.stderr)
        sys.exit(1)


def _start() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("the folder that this runs in is gone; change to one that is there") from None


def _run(argv: list[str], asked: str | None) -> None:
    profile.forbid_telemetry()  # commands that enter no profile import such libraries too
    parser = argparse.ArgumentParser(
        prog="repix", description="Image-to-image translation that can be reproduced, traced and compared."
    )
    parser.add_argument("--version", action="version", version=f"repix {VERSION}")
    subcommands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if asked in INSTEAD:
        print(f"repix: there is no `repix {asked}`: {INSTEAD[asked]}", file=sys.stderr)
        sys.exit(2)
    if asked is not None and asked not in COMMANDS:
        near = difflib.get_close_matches(asked, [*COMMANDS, *INSTEAD], 1)
        hint = f"did you mean `repix {near[0]}`?" if near else "`repix --help` lists what there is"
        print(f"repix: there is no `repix {asked}`: {hint}", file=sys.stderr)
        sys.exit(2)
    for name, line in COMMANDS.items():
        # Only the module that is asked for is imported: help and errors stay instant.
        module = importlib.import_module(f"repix.commands.{name}") if name == asked else None
        sub = subcommands.add_parser(
            name,
            help=line,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(sub)
    arguments = parser.parse_args(argv or ["--help"])
    module = importlib.import_module(f"repix.commands.{arguments.command}")
    if not hasattr(module, "needs_project") or module.needs_project(arguments):
        check_project()
    sys.exit(module.main(arguments))


if __name__ == "__main__":
    main()
