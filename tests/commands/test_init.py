"""A project made by `repix init` is whole, its stages run the package, and what is the user's is not touched."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from repix import cli
from repix.commands import add, init
from repix.config import editing
from repix.errors import UserError
from tests.conftest import ROOT

WHO = {f"GIT_{role}_{what}": "x@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def repix(*words: str) -> None:
    """Run the command line in this process; raise where it fails."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    assert ended.value.code == 0


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Work in an empty folder that lies in no repository, as a person whom git knows."""
    for name, value in (WHO | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_build_imports_it_where_nothing_is_installed():
    """setup.py takes the list of a project's files from it, before any package is there."""
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}]; from repix.commands import init; "
    code += "print(len(init.project_files()))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr


def test_a_project_begins_with_the_sample_whatever_the_clone_was_asked_for_last():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert editing.pristine(text) == text
    used = text.replace("datasets:\n  - sample\n", "datasets:\n  - mine\n  - maps\n", 1).replace(
        "  - 0\n", "  - 3\n", 1
    )
    entry = add.entry_text("mine", "file:pairs/", "a" * 64, {"layout": "folders"})
    used = editing.with_entry(used, "mine", entry)
    for half in ("  half:\n", "  other:\n    archive:\n      sha256: abc\n"):
        used = used.replace("  mine:\n", f"{half}  mine:\n", 1)
    assert used != text and editing.pristine(used) == text
    with pytest.raises(UserError, match="is not written as DVC does"):
        editing.pristine(used.replace("run: #", '"run": #', 1))


def test_a_project_is_whole_committed_and_its_own_tests_pass(alone, capsys):
    repix("init", "mine")
    project = alone / "mine"
    told = capsys.readouterr().out
    assert "under git and DVC\n" in told and "next:  cd mine && dvc repro && repix results" in told
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=project, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"params.yaml", "dvc.yaml", "stages/train.py", ".dvc/config", ".github/workflows/repix.yml"} <= set(tracked)
    assert (project / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    clean = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    assert clean.stdout == ""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_ADDOPTS": ""}
    own = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(own, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    # The page of `dvc plots` that its settings name.
    said = subprocess.run(["git", "ls-files", ".dvc"], cwd=project, capture_output=True, text=True).stdout
    assert said.split() == [".dvc/.gitignore", ".dvc/config", ".dvc/plots.html"]
    assert "html_template = plots.html" in (project / ".dvc/config").read_text()
    # Once a score is accepted the last one judges: here a cell that nobody trained.
    (project / "metrics").mkdir(exist_ok=True)
    shutil.copy(ROOT / "metrics" / "baseline.json", project / "metrics")
    done = subprocess.run([*own, "-k", "no_score"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout + done.stderr


def test_the_stages_of_a_project_record_the_code_of_the_package_as_a_clone_does(alone):
    repix("init", "mine")
    project = alone / "mine"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "download"], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (project / "lineage/download/sample.json").is_file()
    text = (project / "code/train/pix2pix_small.json").read_text()
    assert '"src/repix/training/loop.py"' in text and str(alone) not in text and str(ROOT) not in text


def test_below_a_repository_it_is_a_part_of_that(alone):
    subprocess.run(["git", "init", "-q"], cwd=alone, check=True)
    (alone / "theirs.txt").write_text("untouched")
    repix("init", "deep/mine")
    assert not (alone / "deep/mine/.git").exists() and (alone / "deep/mine/.dvc/config").is_file()
    tracked = subprocess.run(["git", "ls-files"], cwd=alone, capture_output=True, text=True, check=True).stdout.split()
    assert "deep/mine/params.yaml" in tracked and "theirs.txt" not in tracked


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("mine/params.yaml", "mine/params.yaml is there already: name another folder"),
        ("mine/.dvc/config", "mine is a DVC project already"),
        ("mine", "mine is a file"),
    ],
)
def test_what_is_there_is_not_touched(alone, capsys, there, said):
    (alone / there).parent.mkdir(parents=True, exist_ok=True)
    (alone / there).write_text("mine")
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", "mine"])
    assert ended.value.code == 1 and said in capsys.readouterr().err
    assert [path for path in alone.rglob("*") if path.is_file()] == [alone / there]
    assert (alone / there).read_text() == "mine"


def test_only_what_it_wrote_is_committed(alone):
    for place in ("mine", "theirs/mine"):
        (alone / place).mkdir(parents=True)
        (alone / place / "photo.png").write_text("mine")
    subprocess.run(["git", "init", "-q", "theirs"], cwd=alone, check=True)
    subprocess.run(["git", "add", "mine/photo.png"], cwd=alone / "theirs", check=True)
    for place, state in (("mine", "?? photo.png"), ("theirs/mine", "A  photo.png")):
        repix("init", place)
        told = subprocess.run(
            ["git", "status", "--porcelain", "."], cwd=alone / place, capture_output=True, text=True, check=True
        ).stdout
        assert told.replace("mine/", "") == f"{state}\n"


def test_a_try_that_failed_is_in_the_way_of_none(alone, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(init, "write_text", full)
        cli.main(["init", "mine"])
    assert ended.value.code == 1 and "run the same command" in capsys.readouterr().err
    assert not (alone / "mine").exists()
    repix("init", "mine")


def test_a_file_on_the_way_and_what_dvc_refuses_are_one_line(alone, capsys):
    (alone / "file").write_text("mine")
    (alone / "nowhere").symlink_to("none")
    (alone / "all").mkdir()
    subprocess.run(["git", "init", "-q", "all"], cwd=alone, check=True)
    (alone / "all/.gitignore").write_text("*")
    for folder, said in (
        ("file/mine", "file is a file: name another folder"),
        ("nowhere", "nowhere is a file: name another folder"),
        ("all/mine", "all/mine: DVC says: .* is ignored by your SCM tool"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["init", folder])
        error = capsys.readouterr().err
        assert ended.value.code == 1 and re.search(said, error) and error.count("\n") == 1, error
    assert (alone / "file").read_text() == "mine" and not (alone / "all/mine").exists()
    (alone / "all/there").mkdir()  # of which the folder itself stays
    (alone / "all/there/notes.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main(["init", "all/there"])
        assert "is ignored by your SCM tool" in capsys.readouterr().err
        assert [path.name for path in (alone / "all/there").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("after", ["dvc", "git"])
def test_a_try_that_is_stopped_takes_away_what_it_made_and_nothing_else(alone, capsys, monkeypatch, outer, after):
    place = alone / "there"
    (place / "tests").mkdir(parents=True)
    if outer:
        subprocess.run(["git", "init", "-q", "."], cwd=alone, check=True)
    asked = init._run

    def stopped(folder, *command):
        asked(folder, *command)
        if "dvc" in command if after == "dvc" else command[:2] == ("git", "add"):
            (place / "thesis.txt").write_text("mine")  # by another program, meanwhile
            (place / "stages/mine.py").write_text("mine")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(init, "_run", stopped)
        cli.main(["init", "there"])
    left = {path.relative_to(place).as_posix() for path in place.rglob("*")}
    assert left == {"tests", "thesis.txt", "stages", "stages/mine.py"}
    if outer:
        listed = subprocess.run(["git", "ls-files"], cwd=alone, capture_output=True, text=True, check=True)
        assert listed.stdout == ""
    (place / "stages/mine.py").unlink()
    repix("init", "there")
    # One that comes second finds it there, and leaves it there.
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit):
        cli.main(["init", "there"])
    assert sorted(place.rglob("*")) == before and "is a DVC project already" in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "typed"), [("my own; $(x)", "'my own; $(x)'"), ("-x", "./-x")])
def test_the_next_line_can_be_typed_for_any_name(alone, capsys, folder, typed):
    repix("init", "--", folder)
    assert f"next:  cd {typed} && dvc repro" in capsys.readouterr().out


def test_the_next_line_can_be_typed_below_a_projects_root(alone, capsys, monkeypatch):
    repix("init", "mine")
    (alone / "mine" / "sub").mkdir()
    monkeypatch.chdir(alone / "mine" / "sub")
    repix("init", "other one")
    assert "next:  cd 'other one' && dvc repro" in capsys.readouterr().out
    assert (alone / "mine" / "sub" / "other one" / "dvc.yaml").is_file()


def test_without_a_name_for_git_it_says_what_is_left_to_do(alone, capsys, monkeypatch):
    for name in WHO:
        monkeypatch.delenv(name)
    for name, value in {"HOME": str(alone), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    repix("init", "mine")
    told = capsys.readouterr().out
    assert "not committed yet" in told and "first: cd mine && git commit" in told


def test_the_wheel_holds_what_a_project_is_made_of(tmp_path):
    """The files are those of the clone, byte for byte, and byte code is none of them."""
    clone = tmp_path / "clone"
    wanted = ("src", "stages", "project", *init.OF_DVC, "setup.py", "pyproject.toml", "README.md", "LICENSE")
    for name in (*wanted, *(name for name in init.SHARED if "/" not in name)):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("*.egg-info"))
        else:
            shutil.copyfile(ROOT / name, target)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(build, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("repix/project/")}
    assert held == {f"repix/project/{name}": path.read_bytes() for name, path in init.sources(ROOT).items()}
    assert len(held) > 15 and not any("__pycache__" in name for name in held)


def test_byte_code_of_an_installation_is_no_file_of_a_project(tmp_path, monkeypatch):
    for name in ("project/stages/train.py", "project/stages/__pycache__/train.cpython-311.pyc", "project/.dvc/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(init, "PACKAGE", tmp_path)
    assert list(init.project_files()) == [".dvc/config", "stages/train.py"]
