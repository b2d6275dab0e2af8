"""Cells side by side: where they are found, what differs, what is noise, and the page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import stdtr

from checks.support.repository import git
from repix import cli
from repix.data.image_writer import write as write_image
from repix.provenance import lock
from repix.provenance.verify import Recorded
from repix.regression import tolerance
from repix.schemas import Metrics

CELL = "a-pix2pix_small-0"
NAMES = ("1", "2", "3")


def put(root: Path, l1: float, ssims, weights: str, *, cell: str = CELL, epochs: int = 3, test: str = "t") -> None:
    """Make the workspace one in which a cell has these scores, and pictures of its own grey."""
    dataset, model, seed = cell.split("-")
    entry = {"archive": {"urls": ["x"], "sha256": None}, "images": {}, "augment": {"flip": True}}
    params = {
        "run": {"datasets": [dataset], "models": [model], "seeds": [int(seed)], "profile": "fast"},
        "datasets": {dataset: entry},
        "models": {model: {"system": "pix2pix", "epochs": epochs, "profile": "fast"}},
        "evaluate": {"swd": False},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    scores = {"source_to_target": {"last": {"l1": l1, "swd": None}, "best": None}}
    protocol = {"profile": "fast", "l1": {"definition": "d"}, "reference": {"source_to_target": {"digest": test}}}
    record = Metrics(cell=cell, weights_digest={"generator": weights}, n=3, scores=scores, protocol=protocol)
    record.write(root / f"metrics/{cell}.json")
    folder = root / f"translations/{cell}"
    for series in ("source_to_target", "gallery/source", "gallery/target"):
        (folder / series).mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            write_image(folder / series / f"{name}.png", np.full((4, 4, 3), int(weights, 16), np.uint8))
    lines = [f"{name},0.5,{ssim}" for name, ssim in zip(NAMES, ssims, strict=True)]
    (folder / "source_to_target.csv").write_text("\n".join(["image,l1,ssim", *lines, ""]))
    out = {"path": folder.relative_to(root).as_posix(), "md5": lock.md5(folder)}
    stages = {
        f"train@{cell}": {"deps": [{"path": f"code/train/{model}.json", "md5": weights}]},
        f"evaluate@{cell}": {"deps": [], "outs": [out]},
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


def commit(root: Path) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "state")
    return git(root, "rev-parse", "HEAD").strip()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository: commit 1 has scores, an experiment on it others, and the workspace a third state."""
    root = tmp_path / "a clone"
    root.mkdir()
    git(root, "init", "-q")
    (root / ".gitignore").write_text("/translations/\n/.repix/\n/.dvc/\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    put(root, 0.5, (0.5, 0.5, 0.5), "10")
    first = commit(root)
    put(root, 0.25, (0.5, 0.9, 0.5), "20", epochs=5)
    commit(root)
    git(root, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/wooly-tope", "HEAD")
    git(root, "reset", "-q", "--hard", first)
    put(root, 0.501, (0.6, 0.5, 0.5), "30")
    monkeypatch.chdir(root)
    # Where DVC's cache lies by default: asking DVC takes more than a second each time.
    monkeypatch.setattr(Recorded, "_cached", lambda self, md5: root / ".dvc/cache/files/md5" / md5[:2] / md5[2:])
    return root


def study(root: Path) -> None:
    """Write a seed study of the cell's data set and model: the sd of L1 is 0.01, its tolerance 0.03."""
    noise = {"mean": 0.5, "sd": 0.01, "low": 0.4, "high": 0.6, "range": 0.2, "tolerance": 0.03, "detectable": 0.05}
    of_cell = Metrics.read(root / f"metrics/{CELL}.json")
    seeds = [
        {"cell": f"{CELL[:-1]}{seed}", "seed": seed, "weights_digest": {}, "scores": {"source_to_target": {"last": l1}}}
        for seed, l1 in enumerate([{"l1": 0.49}, {"l1": 0.50}, {"l1": 0.51}])
    ]
    t = 3 / 2**0.5
    family = {
        **{"n": 3, "profile": "fast", "k": 3, "false_alarm": float(stdtr(2, -t)), "power": 0.9, "comparisons": 1},
        **{"t": t, "factor": 3.0, "scores": {"source_to_target": {"last": {"l1": noise}}}, "seed_change": None},
        **{"params": {}, "run_key": "k", "protocol": of_cell.protocol, "provenance": seeds},
    }
    tolerance.Tolerances.model_validate({"families": {CELL.rpartition("-")[0]: family}}).write(
        root / "metrics/tolerances.json"
    )


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["compare", *arguments])
    said = capsys.readouterr()
    return exit_.value.code, said.out, said.err


def told(capsys, *arguments):
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_scores_of_a_commit_an_experiment_and_the_workspace_with_the_noise_beside(root, capsys):
    study(root)
    found = told(capsys, "HEAD", "wooly-tope", CELL)
    assert [cell["cell"] for cell in found["cells"]] == [CELL] * 3
    assert [cell["place"].split()[0] for cell in found["cells"]] == ["HEAD", "wooly-tope", "workspace"]
    [score] = found["scores"]
    assert (score["metric"], score["values"], score["seed_sd"]) == ("l1", [0.5, 0.25, 0.501], 0.01)
    assert score["verdicts"] == ["better", "noise"]
    assert score["differences"] == pytest.approx([-0.25, 0.001])
    assert found["params"] == {"models.pix2pix_small.epochs": ["3", "5", "3"]}
    assert "code of train: not the same in all" in found["notes"]


def test_one_name_is_compared_with_the_workspace_and_unknown_noise_is_said(root, capsys):
    code, out, _ = run(capsys, f"HEAD:{CELL}")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["source_to_target", "last", "l1", "0.5000", "0.5010", "unknown", "+0.0010"] in lines
    assert "noise between seeds is not known: repix seeds a pix2pix_small --write" in out
    assert "parameters: the same in all" in out


def test_without_known_noise_no_difference_is_called_noise():
    from repix.commands.compare import _word
    from repix.regression.gate import Verdict

    def word(verdict, first, other, known):
        return _word(Verdict(CELL, "source_to_target", "last", "l1", verdict), first, other, known)

    assert word("pass", 0.5, 0.5, False) == "equal" and word("pass", 0.5, 0.501, True) == "noise"
    assert word("shown", 0.5, 0.4, False) == "unknown" and word("shown", 0.5, 0.4, True) == ""


def test_the_page_needs_no_other_file_and_shows_those_whose_pictures_are_here(root, capsys):
    folder = next((root / "translations").iterdir())
    md5 = lock.md5(folder)
    put(root, 0.25, (0.5, 0.9, 0.5), "20", epochs=5)
    cache = root / ".dvc" / "cache"  # what DVC would hold of the commit's pictures: none
    assert not cache.exists() and lock.md5(folder) != md5
    found = told(capsys, "wooly-tope", "workspace", "-o", "page.html", "--images", "2")
    page = (root / "page.html").read_text()
    assert found["page"] == "page.html"
    assert not re.search(r'(src|href)="(?!data:)', page)
    named = re.findall(r'alt="(\w+) of (\w+)"', page)
    assert named[:4] == [("source", "1"), ("A", "1"), ("B", "1"), ("target", "1")] and len(named) == 8
    put(root, 0.25, (0.5, 0.5, 0.1), "20", epochs=5)  # the workspace alone: its pictures are its own
    told(capsys, "wooly-tope", "workspace", "-o", "page.html", "--images", "1")
    assert re.findall(r'alt="B of (\w+)"', (root / "page.html").read_text()) == ["1"]


def test_pictures_stand_in_the_order_of_their_difference(root, capsys, monkeypatch):
    other = "a-pix2pix_small-1"
    put(root, 0.4, (0.6, 0.5, 0.1), "40", cell=other)
    told(capsys, CELL, other, "-o", "page.html")
    page = (root / "page.html").read_text()
    assert re.findall(r'alt="B of (\w+)"', page) == ["3", "1", "2"]
    data = re.search(r'alt="B of 3" src="data:image/png;base64,([^"]+)"', page)[1]
    assert base64.b64decode(data) == (root / f"translations/{other}/source_to_target/3.png").read_bytes()


def test_pictures_that_are_not_here_or_of_other_images_are_said(root, capsys):
    notes = told(capsys, "HEAD", "workspace")["notes"]
    assert any(note.startswith("A: its pictures are not on this machine") for note in notes)
    put(root, 0.4, (0.6, 0.5, 0.1), "40", cell="b-pix2pix_small-1", test="other")
    notes = told(capsys, CELL, "b-pix2pix_small-1")["notes"]
    assert any("scored on other test images" in note for note in notes)


@pytest.mark.parametrize("damaged", [b"image,ssim\n1", b"image,ssim\n1,x\n", b"name\n1\n", b"\xff", b'image,ssim\n"1'])
def test_a_damaged_table_of_images_is_named(root, capsys, damaged):
    table = root / f"translations/{CELL}/source_to_target.csv"
    table.write_bytes(damaged)
    code, out, err = run(capsys, "HEAD", CELL)
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "source_to_target.csv: is no table of single images; run `dvc checkout`" in err


def test_of_two_data_sets_like_parameters_stand_beside_like(root, capsys):
    put(root, 0.4, (0.6, 0.5, 0.1), "40", cell="b-pix2pix_small-1", epochs=9)
    params = told(capsys, f"HEAD:{CELL}", "b-pix2pix_small-1")["params"]
    assert params == {"dataset": ["a", "b"], "seed": ["0", "1"], "models.pix2pix_small.epochs": ["3", "9"]}


def test_scores_of_two_data_sets_are_not_judged(root, capsys):
    study(root)
    put(root, 0.1, (0.6, 0.5, 0.1), "40", cell="b-pix2pix_small-0")
    found = told(capsys, f"HEAD:{CELL}", "b-pix2pix_small-0")
    assert {word for score in found["scores"] for word in score["verdicts"]} == {""}
    about = [note for note in found["notes"] if "judged" in note]
    assert about == ["B: of another data set than A: no difference of theirs is judged"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["wooly-top"],
            "wooly-top: no cell of the workspace, git revision or DVC experiment; did you mean 'wooly-tope'?",
        ),
        (["HEAD:a-pix2pix_small-9"], f"no metrics/a-pix2pix_small-9.json there; it has scores of {CELL}"),
        (["HEAD:x"], "'x' is no cell; a cell is named <dataset>-<model>-<seed>"),
        ([CELL], f"{CELL}: name what to compare it with, such as HEAD:{CELL}"),
        ([CELL, CELL], f"{CELL}: name what to compare it with, such as HEAD:{CELL}"),
        (["workspace"], f"workspace: name what to compare it with, such as HEAD:{CELL}"),
        ([f"workspace:{CELL}", CELL], f"workspace:{CELL}: name what to compare it with, such as HEAD:{CELL}"),
        (["workspace", "--images", "-1"], "--images -1: a number from 0 on"),
        (["HEAD"] * 27, "27 names; compare takes 26 at most"),
        (["HEAD", "-o", "translations"], "translations: is a folder; name a file in it"),
        (["HEAD", "-o", "params.yaml"], "-o params.yaml: the page is HTML; name a file that ends in .html"),
        (["HEAD", "-o", "/"], "/: is a folder; name a file in it"),
        (["HEAD", "-o", "params.yaml/deep/page.html"], "params.yaml is no folder; name another file"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, names, said):
    code, out, err = run(capsys, *names)
    assert code == 1 and out == "" and said in err and err.count("\n") == 1 and not (root / ".repix").exists()


def test_a_grid_of_several_cells_asks_which(root, capsys):
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["run"]["seeds"] = [0, 1]
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    code, _, err = run(capsys, "HEAD")
    assert code == 1 and f"workspace has 2 cells; say which: workspace:{CELL}, workspace:a-pix2pix_small-1" in err


def test_from_a_folder_below_the_page_is_named_as_it_is_seen_from_there(root, capsys, monkeypatch):
    (root / "docs").mkdir()
    monkeypatch.chdir(root / "docs")
    code, said, _ = run(capsys, "HEAD")
    (page,) = (line.removeprefix("page: ") for line in said.splitlines() if line.startswith("page: "))
    assert code == 0 and page.startswith("../.repix/compare/") and Path(page).is_file()
    code, said, _ = run(capsys, "HEAD", "-o", "mine.html")
    assert code == 0 and "page: mine.html" in said and (root / "docs" / "mine.html").is_file()


@pytest.fixture
def seeds(root):
    """Three seeds of two recipes in the workspace, of the first of them in the commit as well."""
    for seed, l1 in enumerate((0.30, 0.31, 0.32)):
        put(root, l1, (0.5, 0.5, 0.5), f"4{seed}", cell=f"a-pix2pix_small-{seed}")
    (root / "dvc.lock").write_text("stages: {}\n")
    commit(root)
    for seed, l1 in enumerate((0.20, 0.21, 0.22)):
        put(root, l1, (0.5, 0.5, 0.5), f"5{seed}", cell=f"a-other-{seed}", epochs=7)
    for model, epochs in (("pix2pix_small", 3), ("other", 7)):
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["models"][model] = {"system": "pix2pix", "epochs": epochs, "profile": "fast"}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.lock").write_text("stages: {}\n")
    return root


def test_all_seeds_of_two_recipes_are_compared_by_their_own_noise(seeds, capsys):
    code, out, _ = run(capsys, "a-pix2pix_small", "a-other")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["A", "a-pix2pix_small", "of", "workspace,", "seeds", "0,", "1,", "2"]
    [row] = [line for line in lines if line[:1] == ["source_to_target"]]
    assert row[2:8] == ["l1", "0.3100", "0.0100", "0.2100", "0.0100", "-0.1000"] and row[-1] == "better"
    assert float(row[8]) == pytest.approx(2.5e-4, rel=0.1)
    assert ["model.epochs", "3", "7"] in lines and not any("seed" in line for line in lines[-4:])
    told_ = told(capsys, "a-pix2pix_small", "a-other")
    assert told_["scores"][0]["word"] == "better" and told_["scores"][0]["difference"] == pytest.approx(-0.1)


def test_seeds_of_a_commit_stand_beside_those_of_the_workspace(seeds, capsys):
    for seed, l1 in enumerate((0.311, 0.319, 0.302)):
        put(seeds, l1, (0.5, 0.5, 0.5), f"6{seed}", cell=f"a-pix2pix_small-{seed}")
    (seeds / "dvc.lock").write_text("stages: {}\n")
    code, out, _ = run(capsys, "HEAD:a-pix2pix_small", "a-pix2pix_small")
    assert code == 0 and "noise" in out and "HEAD (" in out


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a-pix2pix_small"], "name what to compare it with, such as HEAD:a-pix2pix_small"),
        (["HEAD:a-pix2pix_small"], "name what to compare it with, such as workspace:a-pix2pix_small"),
        (["a-other", "workspace:a-other"], "a-other: name what to compare it with, such as HEAD:a-other"),
        (["a-pix2pix_small", "a-othr"], "a-othr: no cell of the workspace, git revision or DVC experiment"),
        (["a-pix2pix_small", CELL], f"{CELL}: is not all seeds of a DATASET-MODEL"),
        (["a-pix2pix_small", "HEAD~1:a-pix2pix_small"], "HEAD~1:a-pix2pix_small: scores of one seed"),
        (["a-pix2pix_small", "HEAD:a-othr"], "HEAD:a-othr: no scores of it there; it has scores of a-pix2pix_small-0"),
        (["a-pix2pix_small", "nothing:a-other"], "nothing:a-other: no cell of the workspace, git revision"),
        (["a-pix2pix_small", "a-other", "-o", "x.html"], "-o x.html: the page is of single cells"),
    ],
)
def test_a_mistake_about_seeds_is_one_line(seeds, capsys, names, said):
    code, out, err = run(capsys, *names)
    assert code == 1 and out == "" and said in err and err.count("\n") == 1


def test_seeds_of_an_earlier_recipe_are_no_seeds_of_this_one(seeds, capsys):
    entries = {
        f"train@a-other-{seed}": {"params": {"params.yaml": {"models.other": {"epochs": epochs}}}, "deps": []}
        for seed, epochs in enumerate((7, 7, 99))
    }
    (seeds / "dvc.lock").write_text(yaml.safe_dump({"stages": entries}))
    code, _, err = run(capsys, "a-pix2pix_small", "a-other")
    assert code == 1 and "a-other: seed 2 was trained with other settings than seed 0; train all" in err


def test_shared_seeds_are_told_since_the_test_takes_them_for_independent(seeds, capsys):
    code, out, _ = run(capsys, "HEAD:a-pix2pix_small", "a-pix2pix_small")
    assert code == 0 and "B: 3 of its seeds have weights of A" in out and "weights: the same" not in out


def test_a_branch_whose_name_has_a_dash_is_a_branch(seeds, capsys):
    git(seeds, "branch", "feature-x", "HEAD~1")
    code, out, _ = run(capsys, f"feature-x:{CELL}", CELL)
    assert code == 0 and "feature-x (" in out
    code, _, err = run(capsys, "feature-x", CELL)
    assert code == 0, err
