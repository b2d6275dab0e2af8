"""dvc.yaml, read without DVC: its stages with their matrices expanded, and what they read of params.yaml."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repix import yaml12
from repix.cells import Cell
from repix.config import reader
from repix.config.models import StartFrom
from repix.errors import UserError
from repix.paths import NO_PROJECT
from repix.provenance.code import FOLDER, WITHOUT_MODEL, Closure, CodeRecord

OUTS = ("outs", "metrics", "plots")  # keys of dvc.yaml under which a stage says what it writes


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml for one item of its matrix.

    Attributes:
        name: as DVC names it: ``train@sample-pix2pix-0``.
        kind: its name in dvc.yaml: ``train``.
        item: axis of the matrix -> value.
        cmd: the command line.
        params: declared keys of params.yaml.
        deps: declared dependencies.
        outs: outs, metrics and plots, in this order.
        in_git: those of them that DVC does not cache, so that git brings them back and not `dvc checkout`.
        after: what another stage may make and this one reads, named in params.yaml: dvc.yaml cannot say it.
    """

    name: str
    kind: str
    item: dict[str, Any]
    cmd: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    in_git: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """The Python file that the command runs."""
        return next(word for word in shlex.split(self.cmd) if word.endswith(".py"))

    @property
    def code(self) -> tuple[str, ...]:
        """The dependencies that are records of code (:mod:`repix.provenance.code`)."""
        return tuple(dep for dep in self.deps if dep.startswith(f"{FOLDER}/"))

    @property
    def data(self) -> tuple[str, ...]:
        """The dependencies that are not code."""
        return tuple(dep for dep in self.deps if not dep.startswith(f"{FOLDER}/"))


def look_up(tree: Any, key: str) -> Any:
    """Return what stands under a dotted key, or None."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _load(path: Path) -> dict[str, Any]:
    try:
        return yaml12.read(path) or {}
    except FileNotFoundError:
        raise UserError(f"{path}: {NO_PROJECT}") from None


def _paths(entries: Iterable[Any]) -> Iterable[str]:
    """Yield the paths of outs; one with options is a mapping of one key."""
    for entry in entries or ():
        yield entry if isinstance(entry, str) else next(iter(entry))


def _uncached(entries: Iterable[Any]) -> Iterable[str]:
    """Yield the paths of outs with the option ``cache: false``."""
    for entry in entries or ():
        if not isinstance(entry, str):
            yield from (path for path, options in entry.items() if (options or {}).get("cache") is False)


def stages(root: Path) -> list[Stage]:
    """Return the stages of a tree, matrices expanded, each after those that it depends on.

    Understood is what this project uses of dvc.yaml: ``matrix`` over lists of params.yaml,
    ``${item.<axis>}``, ``${item}`` in a command (DVC makes it ``--<axis> <value> ...``, quoted for the
    shell), and params of params.yaml.

    Raises:
        UserError: dvc.yaml or params.yaml is missing or not YAML.
    """
    wiring, params = _load(root / "dvc.yaml"), _load(root / "params.yaml")

    def resolved(value: Any) -> list:
        named = re.fullmatch(r"\$\{(.+)\}", value) if isinstance(value, str) else None
        return list((look_up(params, named[1]) or []) if named else value)

    found = []
    for kind, entry in wiring["stages"].items():
        axes = {axis: resolved(value) for axis, value in entry.get("matrix", {}).items()}
        for values in itertools.product(*axes.values()):
            item = dict(zip(axes, values, strict=True))

            def fill(text: str, item=item) -> str:
                text = text.replace("${item}", " ".join(f"--{axis} {shlex.quote(str(v))}" for axis, v in item.items()))
                return re.sub(r"\$\{item\.(\w+)\}", lambda match: str(item[match[1]]), text)

            outs = [path for key in OUTS for path in _paths(entry.get(key))]
            in_git = [path for key in OUTS for path in _uncached(entry.get(key))]
            found.append(
                Stage(
                    name=f"{kind}@{'-'.join(map(str, values))}" if axes else kind,
                    kind=kind,
                    item=item,
                    cmd=fill(entry["cmd"]),
                    params=tuple(map(fill, entry.get("params", ()))),
                    deps=tuple(map(fill, entry.get("deps", ()))),
                    outs=tuple(map(fill, outs)),
                    in_git=tuple(map(fill, in_git)),
                    after=_parents(params, item) if kind == "start" else (),
                )
            )
    return _ordered(found)


def _parents(params: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folder that a cell's training starts from; nothing where it starts at first weights."""
    key = f"models.{item['model']}.start_from"
    if (asked := look_up(params, key)) is None:
        return ()
    parent = reader.parse(asked, StartFrom, key).parent(Cell(**item))
    return (f"runs/{parent}",) if parent else ()


def _ordered(found: list[Stage]) -> list[Stage]:
    """Return stages in the order of `dvc repro`: down dvc.yaml, and before each stage those that it depends on."""
    makes = {out: stage for stage in found for out in stage.outs}
    done: dict[str, Stage] = {}

    def visit(stage: Stage, waiting: frozenset[str]) -> None:
        if stage.name in done:
            return
        if stage.name in waiting:
            raise UserError(f"dvc.yaml: {stage.name} waits for itself; break the circle of its deps")
        for dep in (*stage.data, *stage.after):
            if dep in makes:
                visit(makes[dep], waiting | {stage.name})
        done[stage.name] = stage

    for stage in found:
        visit(stage, frozenset())
    return list(done.values())


def code_records(root: Path) -> dict[str, CodeRecord]:
    """Return the records of what each stage runs, as the stage ``code`` writes them: path -> record.

    Stages whose matrix has a model get one for every entry of ``models``, in the grid or not.

    Raises:
        UserError: dvc.yaml or params.yaml is missing or not YAML.
        SyntaxError: a file of the package is not Python.
    """
    wiring, params = _load(root / "dvc.yaml"), _load(root / "params.yaml")
    found = {}
    for kind, entry in wiring["stages"].items():
        if kind == FOLDER:
            continue
        for model in sorted(params.get("models") or {}) if "model" in entry.get("matrix", {}) else [None]:
            path = f"{FOLDER}/{kind}/{model or WITHOUT_MODEL}.json"
            code = Closure.of_stage(root, params, kind, model).digests()
            found[path] = CodeRecord(stage=kind, model=model, code=code)
    return found


def leaves(value: Any, key: str) -> list[str]:
    """Return the dotted keys of everything below ``key`` that is not itself a group."""
    if not isinstance(value, Mapping) or not value:
        return [key]
    return [leaf for name, below in value.items() for leaf in leaves(below, f"{key}.{name}")]
