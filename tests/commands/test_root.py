"""Every command works from a folder below the root, and takes paths as they are seen from there."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repix import cli
from repix.commands import translate
from repix.paths import NO_PROJECT
from tests.commands.test_add import draw_pairs
from tests.conftest import ROOT


@pytest.fixture
def below(tmp_path, monkeypatch):
    """A repository with the committed metrics; the test stands in a folder below its root."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    folder = tmp_path / "docs" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(arguments))
    return exit_.value.code, *capsys.readouterr()


def test_results_and_check(below, capsys):
    code, said, _ = run(capsys, "results")
    assert code == 0 and "sample-pix2pix_small-0" in said
    (below / "page.md").write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    assert run(capsys, "results", "--write", "page.md")[0] == 0
    assert "sample-pix2pix_small-0" in (below / "page.md").read_text()
    (below / "latin.md").write_bytes("é".encode("latin-1"))
    for name, said in (("none.md", "No such file"), ("latin.md", "not UTF-8 text")):
        code, _, error = run(capsys, "results", "--write", name)
        assert code == 1 and f"docs/deep/{name}: " in error and said in error and error.count("\n") == 1
    assert run(capsys, "check") == (0, "sample-pix2pix_small-0 can run\n", "")


def test_the_gate_and_its_own_paths(below, capsys):
    code, said, _ = run(capsys, "gate", "--json")
    assert code in (0, 1) and json.loads(said)
    shutil.copytree(below.parents[1] / "metrics", below / "mine")
    assert run(capsys, "gate", "--metrics", "mine")[0] == code
    code, _, error = run(capsys, "gate", "--metrics", "none")
    assert code == 2 and "no metrics in docs/deep/none/" in error


def test_a_model_is_found_from_here_and_from_the_root(below, capsys):
    code, _, error = run(capsys, "translate", "none-such", "x.png", "-o", "out")
    assert code == 1 and error.startswith("repix translate: none-such: no trained.json")
    root = below.parents[1]
    for place in (root / "runs/a-b-0", below / "c-d-0"):
        place.mkdir(parents=True)
        (place / "export.json").write_text("{}")
    for given, seen in (("runs/a-b-0", "runs/a-b-0"), ("a-b-0", "runs/a-b-0"), ("c-d-0", "docs/deep/c-d-0")):
        code, _, error = run(capsys, "translate", given, "x.png", "-o", "out")
        assert code == 1 and error.startswith(f"repix translate: {seen}/export.json: schema is None")


def test_a_command_that_starts_itself_again_still_knows_where_it_was_called(below):
    """By a real process: `repix translate` does, to put its profile in force."""
    place = below / "c-d-0"
    place.mkdir(parents=True)
    (place / "export.json").write_text("{}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("REPIX_", "OPENBLAS_"))}
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = [sys.executable, "-m", "repix.cli", "translate", "c-d-0", "x.png", "-o", "out"]
    done = subprocess.run(command, cwd=below, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("repix translate: docs/deep/c-d-0/export.json: schema is")


def test_own_images_are_named_from_here_and_their_entry_from_the_root(below, capsys, monkeypatch):
    from repix.commands import add

    monkeypatch.setattr(add, "cost", lambda *_: add.Cost({"generator": (1, "9 px")}, 1.0))
    draw_pairs(below / "pairs")
    code, said, error = run(capsys, "add", "pairs", "--name", "mine")
    assert code == 0 and "next: dvc exp run" in said, error
    assert "- file:docs/deep/pairs/\n" in (below.parents[1] / "params.yaml").read_text(encoding="utf-8")


def test_every_path_of_a_command_line_is_seen_from_here():
    """An option that takes a path has ``type=here``: a plain Path would be looked for in the root."""
    for name in cli.COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"repix.commands.{name}").add_arguments(parser)
        assert [action.dest for action in parser._actions if action.type is Path] == [], name


def test_outside_of_any_repository_a_command_stays_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.find_root(tmp_path) == tmp_path
    run(capsys, "results")
    assert translate.here("x.png").as_posix() == "x.png"


OUTSIDE = {
    "add": ("add", "."),
    "baselines": ("baselines", "sample"),
    "bundle": ("bundle", "a-b-0"),
    "check": ("check",),
    "compare": ("compare", "HEAD"),
    "demo": ("demo",),
    "describe": ("describe", "pix2pix"),
    "farm": ("farm",),
    "gate": ("gate",),
    "promote": ("promote", "a-b-0"),
    "results": ("results",),
    "search": ("search",),
    "seeds": ("seeds", "sample", "pix2pix"),
    "sync": ("sync",),
    "verify": ("verify",),
}


def test_every_command_is_tried_outside_of_a_project_or_needs_none():
    assert cli.COMMANDS.keys() - OUTSIDE.keys() == {"doctor", "init", "translate"}


@pytest.mark.parametrize("words", [*OUTSIDE.values(), ("promote", "--rollback", "a"), ("gate", "--accept")])
def test_what_needs_a_project_says_so_in_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, said, error = run(capsys, *words)
    file = "params.yaml" if words[0] in ("check", "describe") else "dvc.yaml"
    assert (code, said) == (2 if words[0] == "gate" else 1, "")
    assert error == f"repix {words[0]}: {file}: {NO_PROJECT}\n" and "repix init" in error
    assert list(tmp_path.iterdir()) == []


def test_what_needs_none_works_outside_of_a_project(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "metrics", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "gate", "--metrics", "mine")[0] == 0
    for words, said in (
        (("translate", "none", "x.png", "-o", "out"), "name the folder of a model"),
        (("bundle", "--check", "none.tar"), "none.tar: "),
    ):
        code, _, error = run(capsys, *words)
        assert code == 1 and said in error and NO_PROJECT not in error and "dvc repro" not in error
    (tmp_path / "mine").rename(tmp_path / "metrics")
    assert run(capsys, "results")[0] == 0 and run(capsys, "gate")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("init", ""),
        ("add", ""),
        ("gate", "--metrics", ""),
        ("gate", "--baseline", ""),
        ("bundle", "--check", ""),
        ("translate", "", "x.png", "-o", "out"),
        ("translate", "x", "", "-o", "out"),
        ("translate", "x", "x.png", "-o", ""),
        ("results", "--write", ""),
        ("compare", "HEAD", "-o", ""),
    ],
)
def test_an_empty_path_is_no_path(below, capsys, words):
    before = sorted(below.rglob("*"))
    code, said, error = run(capsys, *words)
    assert (code, said) == (2, "") and "is empty; name a file or a folder" in error and error.count("\n") == 1
    assert sorted(below.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "LONG"),
        ("translate", "LONG", "x.png", "-o", "out"),
        ("gate", "--metrics", "LONG"),
        ("gate", "--baseline", "LONG"),
        ("add", "LONG"),
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_one_line(below, capsys, words):
    code, _, error = run(capsys, *(word.replace("LONG", "x" * 5000) for word in words))
    assert code and "File name too long" in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_folder_that_is_gone_is_one_line(below, capsys):
    below.rmdir()
    assert run(capsys, "results") == (
        1, "", "repix results: the folder that this runs in is gone; change to one that is there\n"
    )  # fmt: skip


def test_an_interruption_before_the_command_runs_is_no_traceback(below, capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert run(capsys, "results") == (130, "", "")


def test_what_a_terminal_has_no_letters_for_is_told_in_escapes(below):
    """A record with half a surrogate pair, and a terminal that knows ASCII alone."""
    path = below.parents[1] / "metrics" / "baseline.json"
    path.write_text(path.read_text().replace('"split": "test"', '"split": "\\ud800é"'))
    around = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "repix.cli", "gate"], capture_output=True, text=True, env=around)
    assert done.returncode == 2 and "split: \\ud800\\xe9 -> test" in done.stdout and not done.stderr
