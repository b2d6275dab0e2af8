"""The pipeline can't lie: each lint holds on this repository, and is seen red on a broken copy."""

from __future__ import annotations

import ast
import datetime
import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from checks.support import route
from repix.config import reader
from repix.config.run import Grid
from repix.errors import UserError
from repix.files import digest_file
from repix.provenance import lock, pipeline
from repix.provenance.code import CodeRecord

ROOT = Path(__file__).resolve().parents[1]
NOT_FOR_CODE = {"licence"}  # keys for people, which records and cards quote


class Here(NamedTuple):
    """A place that the route is run at: everything that no out may depend on."""

    folder: str
    mtime: int
    environment: dict[str, str]
    umask: int


HERE = Here(
    "clone",
    1_700_000_000,
    {"TZ": "UTC0", "LANG": "C.UTF-8", "PYTHONHASHSEED": "1", "REPIX_TEST_HOST": "host-quux"}
    | {"USER": "user-quux", "LOGNAME": "user-quux", "HOSTNAME": "host-quux"},
    0o022,
)
THERE = Here(
    "another clone",
    1_000_000_000,
    {"TZ": "JST-9", "LANG": "C", "PYTHONHASHSEED": "2", "REPIX_TEST_HOST": "host-xyzzy"}
    | {"USER": "user-xyzzy", "LOGNAME": "user-xyzzy", "HOSTNAME": "host-xyzzy"},
    0o077,
)


def travel(base: Path, here: Here, *groups: tuple[str, ...], spoil=lambda root: None) -> Path:
    """Run the route in a copy at ``here``, one process for each group of stages; return the copy."""
    root = route.copy(base / here.folder, here.mtime)
    spoil(root)
    home = base / f"home of {here.environment['USER']}"
    home.mkdir(exist_ok=True)
    for group in groups:
        route.run(root, *group, umask=here.umask, **here.environment, HOME=str(home))
    return root


STUB = """\
from unittest.mock import MagicMock

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()
"""


def rewritten(root: Path) -> None:
    """Change everything that :mod:`repix.provenance.code` leaves out of a stage's code.

    All files are written anew from their syntax (no comment, format or position is left), every
    docstring becomes another, and of tracking only the names remain.
    """
    for path in [*(root / "src").rglob("*.py"), *(root / "stages").glob("*.py")]:
        if "tracking" in path.parts:
            path.write_text(STUB)
            continue
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body[0].value.value = "Other words."
        path.write_text(ast.unparse(tree), encoding="utf-8")


@pytest.fixture(scope="session")
def routes(tmp_path_factory):
    """The route, run here and run there, where all is rewritten that no out may depend on.

    There stages share a process where they may, since its start takes longer than they do. preprocess and train
    begin one, as they enter a profile before NumPy is imported, and so does export: TensorFlow numbers functions by
    process, so that a SavedModel's bytes depend on what was built before; DVC, too, gives every stage a process.
    """
    base = tmp_path_factory.mktemp("routes")
    kinds = [stage.kind for stage in pipeline.stages(ROOT)]
    light = "code", "download", "unpack", "features", "start"
    groups = light, ("preprocess",), ("train", "evaluate"), ("export", "scores")
    assert sorted(kinds) == sorted(itertools.chain(*groups))
    here = travel(base, HERE, *((kind,) for kind in kinds))
    there = travel(base, THERE, *groups, spoil=rewritten)
    return here, there


# (a) the code that a stage runs


def test_every_stage_depends_on_its_record_of_code_and_every_record_is_somebody_s():
    records = pipeline.code_records(ROOT)
    for stage in pipeline.stages(ROOT):
        path = f"code/{stage.kind}/{stage.item.get('model', 'all')}.json"
        assert stage.kind == "code" or (stage.code == (path,) and path in records), stage.name
        name = "code_records" if stage.kind == "code" else stage.kind  # stages/code.py would hide Python's own code
        assert stage.script == f"stages/{name}.py"


def test_the_committed_records_are_those_of_the_code():
    written = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "code").rglob("*.json")}
    records = pipeline.code_records(ROOT)
    assert written.keys() == records.keys(), "run `dvc repro code` and commit code/"
    assert [path for path in written if CodeRecord.read(written[path]) != records[path]] == []


def test_stages_run_nothing_of_what_checks_them():
    """What checks the pipeline must not be part of it, or every change of a check would re-run it."""
    allowed = {f"src/repix/provenance/{name}.py" for name in ("__init__", "code", "lineage")}
    for path, record in pipeline.code_records(ROOT).items():
        assert {file for file in record.code if file.startswith("src/repix/provenance/")} == allowed, path


def test_the_stages_are_those_that_dvc_sees(tmp_path):
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    root = route.copy(tmp_path / "clone")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["run"]["seeds"] = [0, 7]
    name = "it's a set"  # no name that the stages take, but one that a shell would take apart
    params["run"]["datasets"] += [name]
    params["datasets"][name] = params["datasets"]["sample"]
    route.write_params(root, params)
    with Repo.init(str(root), no_scm=True) as repo:
        seen = {stage.name: (stage.cmd, [out.def_path for out in stage.outs]) for stage in repo.index.stages}
        order = [stage.name for stage in plan_repro(get_active_graph(repo.index.graph))]
    assert [stage.name for stage in pipeline.stages(root)] == order  # in which dvc.lock gets its entries
    ours = {stage.name: (stage.cmd, list(stage.outs)) for stage in pipeline.stages(root)}
    assert seen.keys() == ours.keys()
    for stage, (command, outs) in ours.items():
        assert (seen[stage][0], sorted(seen[stage][1])) == (command, sorted(outs))
    assert ours[f"download@{name}"][0] == """python stages/download.py --dataset 'it'"'"'s a set'"""


def test_a_name_in_the_grid_never_reaches_a_shell_as_code(tmp_path):
    """The stage `code` refuses such a name; a stage that is run without it gets the name as one word."""
    root = route.copy(tmp_path / "clone")
    params = yaml.safe_load((root / "params.yaml").read_text())
    names = ["x;touch Y", "$(touch Y)", "`touch Y`", "';touch Y;'"]
    params["run"]["datasets"] = names
    params["datasets"] = dict.fromkeys(names, params["datasets"]["sample"])
    shutil.copytree(ROOT / "code", root / "code")  # as an earlier, sound grid left it
    route.write_params(root, params)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def dvc(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}, capture_output=True, text=True)

    assert dvc("init", "--no-scm", "-q").returncode == 0
    alone = dvc("repro", "--single-item", "download")
    assert all(f"Running stage 'download@{name}'" in alone.stdout for name in names), alone.stdout + alone.stderr
    said = dvc("repro", "--ignore-errors")
    assert "repix: params.yaml: run.datasets" in said.stderr
    assert "names are letters, digits and underscores" in said.stderr
    assert list(root.rglob("Y")) == []
    for name in names:
        params["run"]["datasets"] = [name]
        route.write_params(root, params)
        with pytest.raises(UserError, match="names are letters, digits and underscores"):
            reader.read("run", Grid, root / "params.yaml")


# (b) the params that a stage reads


def stage_problems(stage: pipeline.Stage, used: Iterable[str], params: Mapping) -> list[str]:
    """Return one line for every param that a stage uses undeclared, or declares unused.

    Args:
        stage: what dvc.yaml declares.
        used: dotted keys that its code was seen to read.
        params: the content of params.yaml: a declared section is used when each of its keys is.
    """
    used = set(used)

    def covers(section: str, key: str) -> bool:
        return key == section or key.startswith(f"{section}.")

    undeclared = {key for key in used if not any(covers(declared, key) for declared in stage.params)}
    problems = [f"{stage.kind}: reads param {key}, which it does not declare" for key in sorted(undeclared)]
    for declared in stage.params:
        for leaf in pipeline.leaves(pipeline.look_up(params, declared), declared):
            if not any(covers(leaf, key) or covers(key, leaf) for key in used):
                problems.append(f"{stage.kind}: declares param {leaf}, which it does not read")
    return problems


def param_problems(tree: Path, logs: Iterable[Path]) -> list[str]:
    """Hold what dvc.yaml of ``tree`` declares against what stages were seen to read in ``logs``."""
    params = yaml.safe_load((tree / "params.yaml").read_text())
    problems = []
    for stage in pipeline.stages(tree):
        used = set().union(*(route.reads(log, stage.kind) for log in logs))
        problems += stage_problems(stage, used, params)
    return problems


@pytest.fixture(scope="session")
def with_features(tmp_path_factory):
    """A copy where features are asked for, from a file: the branch that the sample does not take."""
    base = tmp_path_factory.mktemp("features")

    def ask(root: Path) -> None:
        weights = root / "weights.zip"
        with zipfile.ZipFile(weights, "w") as archive:
            archive.writestr("weights", b"")
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["evaluate"]["fid"] = True
        params["features"]["inception"] |= {"urls": [weights.as_uri()], "sha256": digest_file(weights)}
        route.write_params(root, params)

    return travel(base, HERE, ("features",), spoil=ask)


def test_stages_declare_the_params_that_they_read_and_no_others(routes, with_features):
    assert param_problems(routes[0], [routes[0], with_features]) == []


def test_undeclared_and_unused_params_are_named(routes, with_features, tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(routes[0] / name, tmp_path)
    text = (tmp_path / "dvc.yaml").read_text()
    text = text.replace("      - datasets.${item.dataset}.augment\n", "", 1)
    text = text.replace(
        "      - limits.unpack_ratio\n", "      - limits.unpack_ratio\n      - limits.download_bytes\n", 1
    )
    (tmp_path / "dvc.yaml").write_text(text)
    assert param_problems(tmp_path, [routes[0], with_features]) == [
        "unpack: declares param limits.download_bytes, which it does not read",
        "train: reads param datasets.sample.augment.flip, which it does not declare",
    ]


def test_the_lineage_record_names_no_param_that_is_not_declared(routes):
    for stage in pipeline.stages(routes[0]):
        if stage.kind in ("code", "start", "scores"):  # they leave no such record
            continue
        recorded = route.lineage(routes[0], stage).params
        keys = {leaf for key, value in recorded.items() for leaf in pipeline.leaves(value, key)}
        stranger = [key for key in sorted(keys) if not any(f"{key}.".startswith(f"{d}.") for d in stage.params)]
        assert stranger == [], stage.name


def dead_keys(root: Path) -> list[str]:
    """Return the fields of the typed settings that no code reads: changing them would do nothing."""
    fields, read = {}, set(NOT_FOR_CODE)
    for path in [*sorted((root / "src/repix").rglob("*.py")), *sorted((root / "stages").glob("*.py"))]:
        tree = ast.parse(path.read_text())
        read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
        read |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if path.parent.name == "config":
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Settings" for b in node.bases):
                    names = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]
                    fields |= {f"{path.stem}.{node.name}.{name}": name for name in names}
    return sorted(key for key, name in fields.items() if name not in read)


def test_no_param_is_without_effect(tmp_path):
    assert dead_keys(ROOT) == []
    root = route.copy(tmp_path / "clone")
    path = root / "src/repix/config/export.py"
    path.write_text(path.read_text().replace("    images: int", "    ballast: int = 3\n    images: int"))
    assert dead_keys(root) == ["export.Export.ballast"]


# (c) outs are a function of the inputs


def differences(one: Path, other: Path) -> list[str]:
    """Return the files of outs that two trees do not share, byte for byte."""
    files = route.out_files(one), route.out_files(other)
    names = sorted(files[0].keys() | files[1].keys())
    read = [{name: path.read_bytes() for name, path in side.items()} for side in files]
    return [name for name in names if read[0].get(name) != read[1].get(name)]


def traces(root: Path, needles: Mapping[str, str]) -> list[str]:
    """Return ``file carries what`` for every needle found in an out."""
    found = []
    for name, path in route.out_files(root).items():
        content = path.read_bytes()
        found += [f"{name} carries {what}" for what, needle in needles.items() if needle.encode() in content]
    return sorted(found)


def needles(root: Path, here: Here) -> dict[str, str]:
    """Return what would betray where, when and by whom the outs of ``root`` were written."""
    user, now = here.environment["USER"], datetime.datetime.now(datetime.UTC)
    return {
        "the path": str(root),
        "the user": user,
        "the host": here.environment["REPIX_TEST_HOST"],
        "the date": now.strftime("%Y-%m-%d"),
    }


def test_outs_are_the_same_bytes_elsewhere_later_and_by_somebody_else(routes):
    here, there = routes
    files = route.out_files(here)
    missing = {stage.name for stage in pipeline.stages(here) for out in stage.outs if not (here / out).exists()}
    assert not missing and len(files) > 30
    assert differences(here, there) == []


def test_outs_carry_no_time_host_path_or_user(routes):
    for root, here in zip(routes, (HERE, THERE), strict=True):
        assert traces(root, needles(root, here)) == []


LEAKS = {
    "nanoseconds": ("import time; text = str(time.time_ns())", None),
    "now": ("import datetime; text = str(datetime.datetime.now(datetime.UTC))", "the date"),
    "node": ("import platform; text = platform.node()", "the host"),
    "folder": ("text = str(Path.cwd())", "the path"),
    "login": ("import getpass; text = getpass.getuser()", "the user"),
}


@pytest.fixture(scope="session")
def leaky(tmp_path_factory):
    """The first stages, run here and there, with an unpack that leaves a file of each leak."""

    def spoil(root: Path) -> None:
        script = root / "stages/unpack.py"
        lines = [f"    {leak}; (out / '{name}.txt').write_text(text)\n" for name, (leak, _) in LEAKS.items()]
        text = script.read_text()
        assert "    record.write(out)\n" in text
        script.write_text(text.replace("    record.write(out)\n", "".join([*lines, "    record.write(out)\n"])))

    base = tmp_path_factory.mktemp("leaky")
    return [travel(base, here, ("download", "unpack"), spoil=spoil) for here in (HERE, THERE)]


def test_a_stage_that_leaks_is_seen(leaky):
    # The record of the stage tells as well, since it has the digest of the out.
    notes = [f"data/images/sample/{name}.txt" for name in sorted(LEAKS)]
    assert differences(*leaky) == [*notes, "lineage/unpack/sample.json"]


@pytest.mark.parametrize("name", [name for name, (_, what) in LEAKS.items() if what])
def test_what_a_stage_leaks_is_named(leaky, name):
    found = [line for line in traces(leaky[0], needles(leaky[0], HERE)) if f"/{name}.txt" in line]
    assert found == [f"data/images/sample/{name}.txt carries {LEAKS[name][1]}"]


def test_of_what_a_stage_leaks_nothing_else_is_named(leaky):
    assert len(traces(leaky[0], needles(leaky[0], HERE))) == sum(what is not None for _, what in LEAKS.values())


# (d) dvc.lock fits the tree


def test_every_entry_of_the_params_has_what_the_stages_declare(tmp_path):
    """DVC refuses a declared key that is missing, and only when its stage begins: after the training."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    grid = {"datasets": list(params["datasets"]), "models": list(params["models"]), "seeds": [0]}
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"run": params["run"] | grid}))
    found = pipeline.stages(tmp_path)
    assert len(found) > len(grid["datasets"]) * len(grid["models"])
    missing = [f"{one.name}: {key}" for one in found for key in one.params if not has(params, key)]
    assert missing == []

    del params["models"]["pix2pix"]["profile"]
    assert {key for one in found for key in one.params if not has(params, key)} == {"models.pix2pix.profile"}


def has(tree, key):
    group, _, last = key.rpartition(".")
    return last in (pipeline.look_up(tree, group) if group else tree)


def test_the_committed_lock_fits_the_pipeline_the_params_and_the_code():
    assert (ROOT / "dvc.lock").exists(), "dvc.lock is in git; `dvc repro` makes it"
    assert list(map(str, lock.stale(ROOT))) == [], "run `dvc repro` and commit dvc.lock"


@pytest.fixture
def clone(routes, tmp_path):
    """A copy of a tree that was run, with its dvc.lock."""
    root = tmp_path / "clone"
    shutil.copytree(routes[0], root)
    return route.locked(root)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_lock_that_does_not_fit_is_named(clone):
    assert lock.stale(clone) == []
    edit(clone / "src/repix/training/loop.py", "FETCH_EVERY = 25", "FETCH_EVERY = 26")
    [found] = lock.stale(clone)
    assert found[:3] == ("train@sample-pix2pix_small-0", "code", "src/repix/training/loop.py")
    edit(clone / "src/repix/training/loop.py", "FETCH_EVERY = 26", "FETCH_EVERY = 25")

    edit(clone / "params.yaml", "unpack_files: 1000000", "unpack_files: 1000001")
    [found] = lock.stale(clone)
    assert str(found) == "unpack@sample: param limits.unpack_files: 1000000 -> 1000001"
    edit(clone / "params.yaml", "unpack_files: 1000001", "unpack_files: 1000000")

    text = (clone / "dvc.lock").read_text()
    md5 = lock.all_outs(lock.read(clone))["data/images/sample"]
    (clone / "dvc.lock").write_text(text.replace(md5, "0" * 32 + ".dir", 1))  # the dep or the out, not both
    assert [found[:3] for found in lock.stale(clone)] == [("preprocess@sample", "input", "data/images/sample")]
    (clone / "dvc.lock").write_text(text)

    edit(clone / "params.yaml", "seeds:\n  - 0", "seeds:\n  - 1")
    assert {found.stage.split("@")[0] for found in lock.stale(clone)} == {
        "start",
        "train",
        "evaluate",
        "export",
        "scores",
    }
