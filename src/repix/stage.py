"""What every stage script does before and after its work: arguments, execution profile, one-line errors, lineage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from repix import processes, profile
from repix.cells import Cell
from repix.config import reader
from repix.config.run import Grid
from repix.digests import Digests, stamp
from repix.errors import UserError, limit_of_the_machine, printable, stop_behind, told
from repix.files import canonical_json, clear_leftovers, digest_text, digest_tree
from repix.libraries import import_keras
from repix.paths import LINEAGE, METRICS, PLOTS, WORK
from repix.provenance import lineage
from repix.provenance.code import FOLDER, WITHOUT_MODEL, Closure, CodeRecord, bit_packages, environment


def run(main: Callable[..., None], doc: str, *names: str, profiled: bool = True, trains: bool = False) -> None:
    """Run a stage's ``main`` with its command-line arguments; exit like a command should.

    Args:
        main: called with a :class:`Cell` where ``names`` are data set, model and seed,
            otherwise with the arguments as they are.
        doc: the script's docstring, shown by ``--help``.
        names: the arguments, as dvc.yaml's ``${item}`` gives them: ``--dataset sample``.
        profiled: whether the stage's bits depend on the execution profile, so that
            ``run.profile`` is entered first.
        trains: whether it trains, on the profile's backend; all else runs on TensorFlow.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    given = vars(parser.parse_args())
    guard(lambda: _enter_and_call(main, given, profiled, trains))


def guard(function: Callable[[], Any]) -> None:
    """Call ``function``; what a user can mend becomes one line on standard error and an exit code.

    Exit codes: that of the :class:`UserError` (1 unless it says otherwise), 1 for too little
    disk or memory, 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP. Anything else keeps its traceback.
    """
    try:
        with processes.unwinding():  # so that half-written files are removed, and a training saves its state
            processes.end_with_starter()
            function()
    except UserError as error:
        _end(told(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end_stopped(error)
    except Exception as error:
        if (stopped := stop_behind(error)) is not None:
            _end_stopped(stopped)
        if (line := limit_of_the_machine(error)) is None:
            if not processes.leaves_at_once():
                raise
            sys.excepthook(*sys.exc_info())
            processes.leave(1)
        _end(printable(line), 1)


def _end_stopped(error: KeyboardInterrupt) -> None:
    number = error.number if isinstance(error, processes.Terminated) else signal.SIGINT
    what = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    _end(f"{what}; run the same command to go on", 128 + number)


def _end(message: str, code: int) -> None:
    print(f"repix: {message}", file=sys.stderr)
    processes.leave(code)


def _profile_of(model: str) -> str:
    """Return the execution profile that a model's entry names.

    Read as it stands: importing the models' settings would make every stage depend on them.

    Raises:
        UserError: it names none. DVC would say so too, but only after hours of training: `evaluate` and
            `export` declare this one key of the entry, and a declared key has to be there.
    """
    found = reader.section(f"models.{model}").get("profile")
    if found is None:
        raise UserError(f"params.yaml: models.{model}.profile: missing; add `profile: fast` (or portable, jax)")
    return found


def _asked_profile(model: str | None) -> str:
    """Return the name of the execution profile that params.yaml asks for."""
    return reader.read("run", Grid).profile_of(_profile_of(model) if model else "portable")


def _enter_and_call(main: Callable[..., None], given: Mapping[str, Any], profiled: bool, trains: bool) -> None:
    if profiled:
        asked = _asked_profile(given.get("model"))
        profile.enter(asked if trains else profile.find(asked).after_training())
    else:
        profile.leave()
    if "model" in given:
        cell = Cell.parse(**given)
        # A wrong name is said at once, not after seconds of imports.
        for key in (f"datasets.{cell.dataset}", f"models.{cell.model}"):
            reader.section(key)
        if profiled:
            import_keras()
        main(cell)
    else:
        main(*given.values())


def _repository() -> Path:
    """Return the repository whose stage runs: that of its script, wherever the work is done; here, without a script."""
    folder = Path(sys.argv[0]).resolve().parent
    return folder.parent if folder.name == "stages" else Path()


def _value_now(key: str, value: Any) -> Any:
    """Return what params.yaml has now in place of a value that was read: as much of it, and with its defaults."""
    if isinstance(value, reader.Settings):
        return reader.read(key, type(value)).model_dump(mode="json")
    section = reader.section(key)
    both = isinstance(value, Mapping) and isinstance(section, Mapping)
    return {name: section.get(name) for name in value} if both else section


class LineageRecord:
    """The lineage record of a running stage: declared before the work, completed after it.

    DVC writes into dvc.lock what parameters and inputs are when the stage has ended, and what its code was when
    `dvc repro` began. So both are looked at again, by value and not by spelling: a result of others is refused.

    Args:
        stage: the stage's name.
        item: the cell's or data set's name; empty for a stage without a matrix.
        params: the typed settings that the stage read, by their keys in params.yaml.
        inputs: the files and folders that the stage reads.
        clears: whether what a killed process left half written is removed: only by the process that writes.

    Raises:
        UserError: an input is not there, or DVC began with other code.
    """

    def __init__(self, stage: str, item: str, params: Mapping[str, Any], inputs: list[Path], clears: bool = True):
        current = profile.entered()
        for path in inputs:
            if not path.exists():
                raise UserError(f"{path.as_posix()}: not there; `dvc repro` makes it, or `dvc pull` fetches it")
        for folder in (LINEAGE / stage, PLOTS / item, METRICS) if clears else ():
            clear_leftovers(folder)
        self._digest = Digests(WORK / "digests")
        self.path = LINEAGE / stage / f"{item or stage}.json"
        model = Cell.named(item).model if "-" in item else None
        self._params, self._inputs, self._model, self._profiled = params, inputs, model, current is not None
        self._hashed: dict[Path, tuple[str, str]] = {}  # input -> its stamp, its digest
        self._begun = self._found()
        self.declared = lineage.declare(
            stage=stage,
            cell=item,
            params={
                key: getattr(value, "model_dump", lambda mode, v=value: v)(mode="json") for key, value in params.items()
            },
            inputs={path.as_posix(): self._begun[path.as_posix()] for path in inputs},
            code=Closure.of_stage(_repository(), reader.load(), stage, model),
            profile=current.record() if current else {},
        )
        self._check_code(Path(FOLDER, stage, f"{model or WITHOUT_MODEL}.json"))

    def _found(self) -> dict[str, Any]:
        """Return what is there now: the value of each parameter that the stage read, and each input's digest; by name.

        What is not there, or no value, is left out.
        """
        found: dict[str, Any] = {}
        for key, value in self._params.items():
            with suppress(UserError):
                found[f"params.yaml: {key}"] = _value_now(key, value)
        if self._profiled:
            with suppress(UserError):
                found["params.yaml: run.profile"] = _asked_profile(self._model)
        return found | {path.as_posix(): self._digest_of(path) for path in self._inputs}

    def _digest_of(self, path: Path) -> str:
        """Return the digest of an input, which is read again only where something of it has changed."""
        there, _ = stamp(one for one in (path, *path.rglob("*")) if one.exists())
        if self._hashed.get(path, ("",))[0] != there:
            self._hashed[path] = there, digest_tree(path, self._digest)
        return self._hashed[path][1]

    def _check_code(self, recorded: Path) -> None:
        """Refuse to run other code than ``dvc repro`` began with, whose record is in dvc.lock."""
        if "DVC_STAGE" not in os.environ or not recorded.exists():  # by hand: dvc.lock says nothing of it
            return
        before, now = CodeRecord.read(recorded).code, self.declared.code
        if changed := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            raise UserError(
                f"{changed[0]}: changed since `dvc repro` looked at the code; run `dvc repro` again "
                f"(for one stage alone: `dvc repro code` before it)"
            )

    @property
    def run_key(self) -> str:
        """The digest of everything that determines the stage's outs."""
        return self.declared.run_key

    def memo(self, module: str) -> Path:
        """Return the folder where what a module computes is kept: another under other code, packages or profile."""
        code = Closure.of_module(_repository(), module)
        packages = bit_packages(code.places.values())
        key = {"code": code.digests(), "environment": environment(packages), "profile": self.declared.profile}
        return WORK / "memo" / module / digest_text(canonical_json(key))[:16]

    def check(self) -> None:
        """Refuse a result of what is there no more: before anything of it is left where others read it.

        Raises:
            UserError: a parameter or an input has changed since the stage began.
        """
        begun, now = self._begun, self._found()
        if changed := [name for name in begun | now if begun.get(name) != now.get(name)]:
            raise UserError(
                f"{changed[0]}: changed while the stage ran, and the result is not of what it is now; put it back and "
                f"run the same command, or run it for the new one"
            )

    def write(self, *outs: Path) -> None:
        """Write the record with the digests of what the stage left.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check()
        made = {path.as_posix(): digest_tree(path, self._digest) for path in outs}
        self.declared.with_outputs(made).write(self.path)
