"""``repix seeds`` with stages that cost nothing: arguments, table, files."""

from __future__ import annotations

import json

import pytest

from repix import cli
from repix.commands.seeds import parse_seeds
from repix.errors import UserError
from repix.regression import tolerance
from repix.studies import seed_study
from tests.studies.test_seed_study import Runner, root  # noqa: F401


@pytest.fixture
def run(root, monkeypatch):  # noqa: F811
    """Run the command in a repository; the stages are stood for."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(seed_study.run, "__kwdefaults__", {"runner": Runner()})

    def call(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["seeds", "toy", "net", *words])
        return ended.value.code

    return call


def test_seeds():
    assert parse_seeds("0-3") == (0, 1, 2, 3) and parse_seeds("7, 1-2,1") == (1, 2, 7)
    for wrong in ("", "a", "3-1", "-1", "1-"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(wrong)


def test_write(run, root, capsys):  # noqa: F811
    assert run("--seeds", "0-4", "--write") == 0
    said = capsys.readouterr().out
    assert "toy-net: 5 seeds, n = 4, profile portable" in said and "4 of 4 green" in said
    family = tolerance.read_tolerances(root / "metrics/tolerances.json").families["toy-net"]
    assert family.k == 5 and family.scores["source_to_target"]["last"]["ssim"].mean == pytest.approx(0.52)
    assert len((root / "metrics/spread-toy-net.csv").read_text().splitlines()) == 16


def test_the_spread_can_be_drawn_again_without_training(run, root, capsys, monkeypatch):  # noqa: F811
    assert run("--draw") == 1 and "nothing of toy-net" in capsys.readouterr().err
    run("--seeds", "0-4", "--write")
    files = [root / f"metrics/spread-toy-net.{suffix}" for suffix in ("csv", "png")]
    first = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    monkeypatch.setattr(seed_study, "run", None)
    assert run("--draw") == 0 and run("--draw", "--write") == 1
    assert [file.read_bytes() for file in files] == first and first[1].startswith(b"\x89PNG")


def test_writing_keeps_the_other_families(run, root):  # noqa: F811
    run("--seeds", "0-1", "--write")
    file = root / "metrics/tolerances.json"
    found = tolerance.read_tolerances(file).families["toy-net"]
    tolerance.Tolerances(families={"a-b": found}).write(file)
    run("--seeds", "0-2", "--write")
    assert {name: f.k for name, f in tolerance.read_tolerances(file).families.items()} == {"a-b": 2, "toy-net": 3}


def test_without_write_metrics_are_left_alone(run, root, capsys):  # noqa: F811
    assert run("--seeds", "0-1", "--quick", "--json") == 0
    assert json.loads(capsys.readouterr().out)["toy-net"]["params"]["models.net"]["epochs"] == 1
    assert not (root / "metrics").exists()


def test_the_seeds_of_params_yaml_are_the_default(run, capsys):
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out)["toy-net"]["k"] == 10


def test_mistakes(run, capsys):
    assert run("--quick", "--write") == 1 and "--quick" in capsys.readouterr().err
    assert run("--seeds", "3") == 1 and "two seeds or more" in capsys.readouterr().err
