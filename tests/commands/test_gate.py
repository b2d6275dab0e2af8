"""``repix gate`` from files to exit code, and its three forms."""

from __future__ import annotations

import json

import pytest

from repix import cli
from repix.schemas import Metrics
from tests.regression.test_gate import CELL, changed, entry, noise, other_weights


@pytest.fixture
def folder(tmp_path):
    """A metrics folder with a cell that was accepted, and tolerances."""
    put(tmp_path, entry())
    assert run("--accept", folder=tmp_path) == 0
    noise().write(tmp_path / "tolerances.json")
    return tmp_path


def put(folder, given, cell: str = CELL):
    protocol = given.protocol | {"description": {"ci95": [0.0, 1.0]}}
    Metrics(cell=cell, **(given.model_dump() | {"protocol": protocol})).write(folder / f"{cell}.json")


def run(*words: str, folder) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gate", "--metrics", str(folder), *words])
    return ended.value.code


def test_exit_codes(folder):
    assert run(folder=folder) == 0
    put(folder, other_weights(ssim=0.1))
    assert run(folder=folder) == 1
    put(folder, changed(entry(), "n", to=8))
    assert run(folder=folder) == 2
    put(folder, entry(ssim=0.1))
    assert run(folder=folder) == 3


def test_what_only_describes_is_not_compared(folder):
    record = Metrics.read(folder / f"{CELL}.json")
    record.model_copy(update={"protocol": record.protocol | {"description": {}}}).write(folder / f"{CELL}.json")
    assert run(folder=folder) == 0


def test_the_first_baseline(tmp_path, capsys):
    put(tmp_path, entry())
    assert run(folder=tmp_path) == 2
    assert "no baseline; `repix gate --accept`" in capsys.readouterr().out


def test_accept_says_what_changed_and_the_gate_is_green_after_it(folder, capsys):
    put(folder, other_weights(ssim=0.1))
    put(folder, entry(1), "toy-net-1")
    before = (folder / "baseline.json").read_text()
    capsys.readouterr()
    assert run("--accept", folder=folder) == 0
    said = capsys.readouterr().out
    assert "toy-net-0 source_to_target last ssim: 0.5 -> 0.1" in said
    assert "toy-net-0: other weights" in said and "toy-net-1: new" in said
    assert before != (folder / "baseline.json").read_text() and run(folder=folder) == 0
    (folder / "toy-net-1.json").unlink()
    capsys.readouterr()
    assert run("--accept", "--json", folder=folder) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == ["toy-net-1: removed"]


def test_another_baseline_file(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "b.json"
    put(folder, other_weights(ssim=0.1))
    assert run("--accept", "--baseline", str(other), folder=folder) == 0
    assert run("--baseline", str(other), folder=folder) == 0
    assert run(folder=folder) == 1


def test_json(folder, capsys):
    put(folder, other_weights(ssim=0.1, swd=0.0))
    capsys.readouterr()
    assert run("--json", folder=folder) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["exit_code"]) == ("fail", 1)
    first = found["scores"][0]
    assert (first["metric"], first["verdict"], first["old"], first["new"]) == ("ssim", "fail", 0.5, 0.1)
    assert first["tolerance"] > 0 and first["detectable"] > first["tolerance"]


def test_markdown_shows_what_matters_and_folds_the_rest(folder, capsys):
    put(folder, other_weights(ssim=0.1))
    capsys.readouterr()
    assert run("--markdown", folder=folder) == 1
    said = capsys.readouterr().out
    loud, quiet = said.split("<details>")
    assert said.startswith("### repix gate: fail")
    assert "| toy-net-0 | source_to_target | last | ssim | 0.5000 | 0.1000 | -0.4000 worse |" in loud
    assert "| l1 |" in quiet and "| l1 |" not in loud
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_text_ends_with_the_verdict(folder, capsys):
    put(folder, other_weights(ssim=0.9))
    capsys.readouterr()
    run(folder=folder)
    said = capsys.readouterr().out.splitlines()
    assert "improved" in said[1] and "+0.4000 better" in said[1]
    assert said[-1].startswith("gate: pass: ") and "1 improved, 2 pass" in said[-1]


def test_what_cannot_be_read_is_incomparable_and_one_line(folder, capsys):
    (folder / f"{CELL}.json").write_text("{")
    assert run(folder=folder) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    put(folder, entry())
    (folder / f"{CELL}.json").rename(folder / "toy-net-7.json")
    assert run(folder=folder) == 2
    assert "holds the metrics of toy-net-0" in capsys.readouterr().err


def test_a_damaged_baseline_is_replaced_by_accepting(folder, capsys):
    (folder / "baseline.json").write_text("<<<<<<< HEAD\n{}\n")
    capsys.readouterr()
    assert run(folder=folder) == 2
    said = capsys.readouterr().err
    assert "`repix gate --accept` makes it anew" in said and said.count("\n") == 1
    assert run("--accept", "--json", folder=folder) == 0
    out, said = capsys.readouterr()
    assert "toy-net-0: new" in json.loads(out)["changes"]
    assert "warning: what was accepted before is lost: " in said and said.count("\n") == 1
    assert run(folder=folder) == 0


def test_nothing_to_accept(tmp_path, capsys):
    assert run("--accept", folder=tmp_path) == 2
    assert "no metrics in" in capsys.readouterr().err and not (tmp_path / "baseline.json").exists()


def test_what_is_no_number_is_not_accepted(folder, capsys):
    before = (folder / "baseline.json").read_bytes()
    _edit(folder / f"{CELL}.json", "scores", *SSIM, to=float("nan"))
    capsys.readouterr()
    assert run("--accept", folder=folder) == 2
    said = capsys.readouterr().err
    assert f"{CELL}: ssim is no number" in said and said.count("\n") == 1
    assert (folder / "baseline.json").read_bytes() == before


def test_tolerances_that_were_loosened_all_alike_are_refused(folder, capsys):
    """Each file is consistent in itself: only the share of false alarms that it promises tells."""
    path = folder / "tolerances.json"
    sound = path.read_text()
    tree = json.loads(sound)
    family = tree["families"]["toy-net"]
    for key in ("t", "factor"):
        family[key] *= 100
    for metrics in family["scores"]["source_to_target"].values():
        for one in metrics.values():
            one["tolerance"] = one["tolerance"] and 100 * one["tolerance"]
    path.write_text(json.dumps(tree))
    put(folder, other_weights(ssim=0.1))
    capsys.readouterr()
    assert run(folder=folder) == 2
    assert "k, false_alarm, comparisons, t and factor are not those" in capsys.readouterr().err
    path.write_text(sound)
    assert run(folder=folder) == 1


def _edit(path, *keys, to):
    tree = json.loads(path.read_text())
    place = tree
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(tree))


SSIM = ("source_to_target", "last", "ssim")


@pytest.mark.parametrize(
    ("file", "keys", "to"),
    [
        *((f"{CELL}.json", ("scores", *SSIM), value) for value in (True, "0.9", [1], {"a": 1})),
        *(("baseline.json", ("cells", CELL, "scores", *SSIM), value) for value in (False, "0.1", float("nan"))),
        *((f"{CELL}.json", ("protocol", name), to) for name in ("ssim", "images", "fid") for to in (None, "x", 1)),
        ("baseline.json", ("cells", CELL, "protocol", "reference"), []),
        *(
            ("tolerances.json", ("families", "toy-net", "scores", *SSIM, "tolerance"), value)
            for value in (float("nan"), float("inf"), 1e308, 0.5, "0.5", True, -1.0, None)
        ),
        ("tolerances.json", ("families", "toy-net", "scores", *SSIM, "sd"), 0.5),
        ("tolerances.json", ("families", "toy-net", "factor"), 100.0),
        ("tolerances.json", ("families", "toy-net", "scores"), {}),
    ],
)
def test_an_edited_record_is_never_a_pass(folder, capsys, file, keys, to):
    """One line and exit code 2: not a pass, and not a traceback."""
    put(folder, other_weights(ssim=0.505))
    assert run(folder=folder) == 0
    _edit(folder / file, *keys, to=to)
    capsys.readouterr()
    assert run(folder=folder) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") <= 1 and (file in said.err or "not a finite number" in said.out)
