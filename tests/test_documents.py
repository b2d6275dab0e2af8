"""Every fenced command of README.md and docs/ is run, or at least read by its program, or marked with the reason.

A block that no test can run has ``<!-- not run: why -->`` in the line above its fence. Of the others, those whose
output is shown run in a copy of the repository and are compared; all are read by the parser of their program.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

from repix import cli
from repix.config import drawn, reader
from repix.config.datasets import Dataset
from repix.config.models import Recipe
from repix.data import synthetic
from tests.commands.test_add import draw_pairs
from tests.conftest import ROOT
from tests.documents import FENCE, blocks
from tests.test_docs import problem

BLOCKS = blocks()
RUN = [block for block in BLOCKS if not block.reason]
COMMANDS = [(block, command) for block in RUN if block.language != "python" for command, _ in block.commands()]
SHOWN = [
    (command, shown) for block in RUN if block.language == "console" for command, shown in block.commands() if shown
]
# A mistake on purpose no program reads; what it says is compared.
MISTAKES = {command for command, shown in SHOWN if shown[0].startswith(("ERROR: ", "repix: "))}
SOUND = [(block, command) for block, command in COMMANDS if command not in MISTAKES]
# Blocks of Python -> the test that runs them, all of the page.
PYTHON = {
    "README.md": "test_api.test_the_three_lines_of_the_pages_are_the_same",
    "docs/export.md": "test_api.test_each_snippet_runs_and_gives_the_translation",
    "docs/your-own.md": "test_docs.test_the_page_on_your_own_can_be_followed",
}
SHELL = {"cd", ".", "sha256sum", "ls", "cat"}


class Refuses(argparse.ArgumentParser):
    """A parser that raises what it would print."""

    def error(self, message):
        raise ValueError(message)


def check_repix(words: list[str]) -> None:
    if words[0] == "--version":
        return
    assert words[0] in cli.COMMANDS, f"there is no `repix {words[0]}`"
    parser = Refuses()
    importlib.import_module(f"repix.commands.{words[0]}").add_arguments(parser)
    if "--help" not in words:
        parser.parse_args(words[1:])


def check_dvc(words: list[str], params) -> None:
    from dvc.cli import parser
    from dvc.utils.hydra import apply_overrides

    given = parser.get_main_parser().parse_args(words)
    params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    if values := getattr(given, "set_param", None):
        apply_overrides(params, values)
    tree = reader.load(params)
    for name in tree["datasets"]:
        reader.read(f"datasets.{name}", Dataset, params)
    for name in tree["models"]:
        reader.read(f"models.{name}", Recipe, params)


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {one for word in words for group in re.findall(r"\[(.+?)\]", word) for one in group.split(",")}
    assert words[0] == "install" and named and named <= extras.keys(), named - extras.keys()
    assert "-c" not in words or (ROOT / words[words.index("-c") + 1]).is_file()


def assert_read(line: str, params) -> None:
    """Let the programs of a command line read it; raise what they have against it, none of which runs it."""
    for command in re.split(r"\s&&\s|;", line):
        words = shlex.split(command)
        while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        program, rest = words[0], words[1:]
        if program == "repix":
            check_repix(rest)
        elif program == "dvc":
            check_dvc(rest, params)
        elif program == "pip":
            check_pip(rest)
        elif program == "make":
            assert all(problem(f"make {target}") is None for target in rest if "=" not in target), command
        elif program == "python" and rest[0] == "-m":
            assert problem(shlex.join(words)) is None, problem(shlex.join(words))
        elif program == "git":
            assert rest[0] in subprocess.check_output(["git", "--list-cmds=main"], text=True).split()
        elif program == "python":
            assert any(f"# {rest[0]}\n" in block.text for block in RUN), f"no page writes {rest[0]}"
        else:
            assert program in SHELL, f"no test reads `{program}`: teach this one, or mark it: <!-- not run: why -->"


@pytest.mark.parametrize(("block", "command"), SOUND, ids=[f"{b.page}:{b.line}: {c[:50]}" for b, c in SOUND])
def test_every_command_is_read_by_its_program(block, command, tmp_path):
    assert_read(command, tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "command",
    [
        "repix translat a b",
        "repix translate a b --outt c",
        "dvc exp run --sett-param a=1",
        "dvc exp run -S models.pix2pix_small.epoch=4",
        "dvc exp run -S models.pix2pix_small.epochs=four",
        "pip install -c constraints.txt -e '.[cuda]'",
        "make tests",
        "python -m checks.gates",
        "git clonee x",
        "python mine.py",
        "conda install repix",
        "make setup && repix resluts",
    ],
)
def test_a_command_that_is_wrong_is_seen(command, tmp_path, capsys):
    assert_read("repix translate a b -o c && make setup && git clone x", tmp_path / "params.yaml")  # it reads at all
    with pytest.raises((Exception, SystemExit)) as found:
        assert_read(command, tmp_path / "params.yaml")
    assert not isinstance(found.value, (NameError, TypeError, AttributeError, OSError)), found.value


def test_every_block_of_python_is_run_by_a_test():
    pages = {block.page for block in RUN if block.language == "python"}
    assert pages == PYTHON.keys(), "add a test that runs it, or mark it: <!-- not run: why -->"
    for page, test in PYTHON.items():
        module, _, name = test.partition(".")
        text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {name}(" in text and page.removeprefix("docs/") in text


def test_the_count(capsys):
    """Print how many blocks there are, and how many are not run and why."""
    for block in BLOCKS:
        assert ("-->" not in block.reason and len(block.reason.split()) > 1) or not block.reason, block
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in sorted({block.page for block in BLOCKS})]
    marks = sum(len(re.findall("^<!-- not run:", page, re.MULTILINE)) for page in pages)
    marked = [block for block in BLOCKS if block.reason]
    assert len(marked) == marks, "a mark stands in the line above a fence of console, bash, sh or python"
    assert len(BLOCKS) > 20 and len(COMMANDS) > 20 and len(SHOWN) > 2
    with capsys.disabled():
        print(
            f"\nfenced blocks {len(BLOCKS)}: run or read {len(RUN)} ({len(COMMANDS)} commands, {len(SHOWN)} with their "
            f"output compared, {sum(b.language == 'python' for b in RUN)} of Python), marked as not run {len(marked)}"
        )


def test_a_mark_needs_a_reason():
    assert FENCE.search("<!-- not run: a GPU -->\n```bash\nx\n```")[1] == "a GPU"
    assert FENCE.search("<!-- not run: -->\n```bash\nx\n```")[1] is None


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A commit of the working tree with 30 pairs beside it, as somebody who reads README.md has it."""
    root = tmp_path_factory.mktemp("reader") / "repix"
    for name in ("src", "stages", "code", "metrics"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (root / ".dvc").mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, root / name)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "as it is"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command], cwd=root, check=True)
    draw_pairs(root / "pairs")
    return root


# `repix add` is told what networks and steps cost, as the page has it: building and timing them takes a minute.
# tests/commands/test_add.py holds how they are computed.
COSTS = {
    "pix2pix": ({"generator": (29241987, "316 px"), "discriminator": (2766657, "70 px")}, 696.0),
    "pix2pix_small": ({"generator": (1830051, "316 px"), "discriminator": (43217, "34 px")}, 297.0),
}
TOLD = f"""
from repix import cli
from repix.commands import add
add.cost = lambda name, *_: add.Cost(*{COSTS}[name])
cli.main()
"""


def answer(root, command: str) -> str:
    """Run a command of repix or DVC in a repository; return all that it prints."""
    program, *rest = shlex.split(command)
    how = {"repix": ["-c", TOLD] if rest[0] == "add" else ["-m", "repix.cli"], "dvc": ["-m", "dvc"]}[program]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(root / "src"), "REPIX_TRACKING": "off", "COLUMNS": "200"}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
    done = subprocess.run(
        [sys.executable, *how, *rest], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command[:60] for command, _ in SHOWN])
def test_what_the_pages_show_is_what_comes(command, shown, repository):
    said = [line.rstrip() for line in answer(repository, command).splitlines()]
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=repository, check=True)
    assert [line for line in shown if line not in said] == [], "\n".join(said)


def test_dvc_itself_changes_one_line_and_the_stage_takes_it(repository):
    """A real ``dvc exp run -S`` of a recipe and a data set whose entries YAML 1.1 and 1.2 read differently."""
    before = (repository / "params.yaml").read_text(encoding="utf-8").splitlines()
    said = answer(repository, "dvc exp run -S models.pix2pix_scratch.epochs=77 code")
    after = (repository / "params.yaml").read_text(encoding="utf-8").splitlines()
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=repository, check=True)
    assert "Running stage 'code'" in said and "ERROR" not in said, said
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]
    assert [b for _, b in changed] == ["epochs: 77"]


def test_the_images_of_the_sample_lie_where_the_pages_say():
    few = drawn.settings("facades", {"train": "1", "val": "1", "test": "1"})
    made = {f"data/images/sample/{name}" for name, _ in synthetic._facades(few)}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]
    named = {place for page in pages for place in re.findall(r"data/images/sample/[\w/]+", page.read_text())}
    assert named and all(any(path.startswith(f"{place}/") for path in made) for place in named), named
