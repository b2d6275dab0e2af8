"""A seed study without training: what it lays out, what it runs, and where it goes on."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from repix import processes
from repix.errors import UserError
from repix.files import digest_tree, read_json, write_json
from repix.paths import FEATURES, PREPARED
from repix.provenance.lineage import Lineage
from repix.schemas import Metrics
from repix.studies import seed_study
from tests.regression.test_gate import entry

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {"system": "pix2pix", "epochs": 7, "generator": {"filters": 4}, "profile": "portable"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with our code, a params.yaml of its own, and a prepared set in name."""
    for part in ("src", "stages"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["models"] = {"net": RECIPE, "other": RECIPE}
    tree["datasets"] = {"toy": tree["datasets"]["sample"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    write_json(tmp_path / "data/prepared/toy/manifest.json", {"any": "thing"})
    (tmp_path / "data/features").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


class Runner:
    """Stands for the stages: keeps a list, and leaves what evaluate leaves."""

    def __init__(self, fail_at: int | None = None):
        self.ran: list[tuple[str, int]] = []
        self.fail_at = fail_at

    def __call__(self, folder: Path, stage: str, cell) -> None:
        if stage == "train" and cell.seed == self.fail_at:
            raise UserError("stopped")
        self.ran.append((stage, cell.seed))
        if stage == "evaluate":
            Metrics(cell=cell.name, **entry(cell.seed).model_dump()).write(folder / "metrics" / f"{cell.name}.json")
        read = (PREPARED / cell.dataset, FEATURES)
        given = {"stage": stage, "cell": cell.name, "inputs": {str(path): digest_tree(folder / path) for path in read}}
        rest = {"params": {}, "code": {}, "environment": {}, "profile": {}, "run_key": ""}
        Lineage(**given, **rest).write(folder / "lineage" / stage / f"{cell.name}.json")


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".repix" not in path.parts
    }


def test_every_seed_once_and_the_workspace_as_it_was(root, capsys):
    before, runner = tree(root), Runner()
    cells = seed_study.run(seed_study.plan(root, "toy", "net"), [0, 1], root=root, runner=runner)
    assert runner.ran == [("train", 0), ("evaluate", 0), ("train", 1), ("evaluate", 1)]
    assert cells == {"toy-net-0": entry(0), "toy-net-1": entry(1)}
    assert tree(root) == before
    assert capsys.readouterr().err.splitlines() == ["toy-net-0: 1 of 2 seeds", "toy-net-1: 2 of 2 seeds"]


def test_two_workers_make_two_seeds_at_once(root):
    both, runner = threading.Barrier(2), Runner()

    def meet(folder: Path, stage: str, cell) -> None:
        both.wait(20)  # breaks where one seed waits for the other
        runner(folder, stage, cell)

    plan = seed_study.plan(root, "toy", "net")
    cells = seed_study.run(plan, [0, 1], root=root, workers=2, runner=meet)
    assert sorted(runner.ran) == [("evaluate", 0), ("evaluate", 1), ("train", 0), ("train", 1)]
    assert list(cells) == ["toy-net-0", "toy-net-1"]
    plan = seed_study.plan(root, "toy", "other")
    with pytest.raises(UserError, match="stopped"):
        seed_study.run(plan, [0, 1, 2, 3], root=root, workers=1, runner=(failed := Runner(fail_at=0)))
    assert failed.ran == []


def test_it_goes_on_where_it_stopped(root):
    plan, runner = seed_study.plan(root, "toy", "net"), Runner(fail_at=1)
    with pytest.raises(UserError, match="stopped"):
        seed_study.run(plan, [0, 1], root=root, runner=runner)
    again = Runner()
    seed_study.run(seed_study.plan(root, "toy", "net"), [0, 1, 2], root=root, runner=again)
    assert [seed for stage, seed in again.ran if stage == "train"] == [1, 2]


def test_seeds_of_other_data_are_no_part_of_a_study(root):
    """`dvc repro` may make the data anew while seeds are trained: a tolerance of both would let anything pass."""
    plan, runner = seed_study.plan(root, "toy", "net"), Runner()

    def change(folder: Path, stage: str, cell) -> None:
        if (stage, cell.seed) == ("train", 1):
            write_json(root / "data/prepared/toy/manifest.json", {"any": "other"})
        runner(folder, stage, cell)

    with pytest.raises(UserError, match=r"^toy-net-1: data/prepared/toy changed while the seeds were made; run it"):
        seed_study.run(plan, [0, 1], root=root, runner=change)
    write_json(root / "data/prepared/toy/manifest.json", {"any": "thing"})
    again = Runner()
    seed_study.run(seed_study.plan(root, "toy", "net"), [0, 1], root=root, runner=again)
    assert [seed for stage, seed in again.ran if stage == "train"] == [1]


def test_a_training_without_its_lineage_is_made_again_by_a_search(root, monkeypatch):
    """As one that was refused, since its data changed meanwhile: its score is of nothing that is there."""
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install -e '.[search]'")
    from repix.studies import search

    plan, ran, runner = seed_study.plan(root, "toy", "net"), [], Runner()
    trained = plan.folder / "runs" / "toy-net-0" / "trained.json"
    trained.parent.mkdir(parents=True)
    trained.write_text("{}")

    def train(folder, stage, cell, until):
        ran.append(stage)
        runner(folder, stage, cell)
        return True

    monkeypatch.setattr(seed_study, "run_stage", train)
    assert search.train(plan, 0, lambda: False) and search.train(plan, 0, lambda: False)
    assert ran == ["train"]


def test_a_study_follows_the_weights_of_every_metric_that_has_some(root):
    def key(**switches):
        tree = yaml.safe_load((root / "params.yaml").read_text())
        tree["evaluate"] = {"fid": False, "kid": False, "lpips": False, "features": "inception"} | switches
        (root / "params.yaml").write_text(yaml.safe_dump(tree))
        return seed_study.plan(root, "toy", "net").key

    before = [key(), key(lpips=True), key(fid=True)]
    (root / "data/features/lpips.pth").write_text("other weights")
    after = [key(), key(lpips=True), key(fid=True)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


def test_the_folder_follows_what_determines_the_results_and_nothing_else(root):
    first = seed_study.plan(root, "toy", "net").key
    (root / "src/repix/regression/report.py").write_text("# no stage imports it\n")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("seeds:", "# a comment\n  seeds:", 1))
    assert seed_study.plan(root, "toy", "net").key == first
    keys = {first, seed_study.plan(root, "toy", "net", changes={"epochs": 1}).key}
    (root / "src/repix/training/loop.py").write_text("# another loop\n")
    keys.add(seed_study.plan(root, "toy", "net").key)
    write_json(root / "data/prepared/toy/manifest.json", {"any": "other"})
    keys.add(seed_study.plan(root, "toy", "net").key)
    assert len(keys) == 4


def test_the_folder_holds_what_runs(root):
    plan = seed_study.plan(root, "toy", "net", changes={"epochs": 1})
    seed_study.lay_out(root, plan)
    params = yaml.safe_load((plan.folder / "params.yaml").read_text())
    assert params["models"].keys() == {"net"} and params["models"]["net"]["epochs"] == 1
    assert plan.params["models.net"]["epochs"] == 1 and params["run"]["models"] == ["net"]
    assert (plan.folder / "stages/train.py").read_bytes() == (ROOT / "stages/train.py").read_bytes()
    assert read_json(plan.folder / "data/prepared/toy/manifest.json") == {"any": "thing"}


def test_a_stage_starts_in_the_folder(root):
    """The real script with the copied code, as far as its own complaint about the folder's parameters."""
    plan = seed_study.plan(root, "toy", "net")
    seed_study.lay_out(root, plan)
    file = plan.folder / "params.yaml"
    file.write_text(file.read_text().replace("profile: auto", "profile: slow", 1))
    with pytest.raises(UserError, match=r"train of toy-net-3 ended with 1: repix: params\.yaml: run\.profile: 'slow'"):
        seed_study.run_stage(plan.folder, "train", plan.cell(3))


def test_mistakes_are_named(root):
    with pytest.raises(UserError, match="did you mean 'net'"):
        seed_study.plan(root, "toy", "nett")
    with pytest.raises(UserError, match="epochs"):
        seed_study.plan(root, "toy", "net", changes={"epochs": 0})
    (root / "data/features").rmdir()
    with pytest.raises(UserError, match="data/features: not there; run `dvc repro features`"):
        seed_study.plan(root, "toy", "net")
    shutil.rmtree(root / "data/prepared/toy")
    with pytest.raises(UserError, match="not prepared yet"):
        seed_study.plan(root, "toy", "net")


def test_the_spread_as_csv_and_picture(tmp_path):
    cells = {f"toy-net-{s}": entry(s) for s in (10, 9)}
    lines = seed_study.spread_csv(cells).splitlines()
    assert lines[0] == "seed,translator,weights,metric,value"
    assert lines[1].startswith("9,source_to_target,last,l1,0.109") and len(lines) == 7
    seed_study.spread_plot(cells, tmp_path / "spread.png")
    assert (tmp_path / "spread.png").read_bytes().startswith(b"\x89PNG")


def test_the_profile_is_that_of_the_model_where_run_says_auto(root):
    path = root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    for asked, expected in (("auto", "portable"), ("fast", "fast")):
        tree["run"]["profile"] = asked
        path.write_text(yaml.safe_dump(tree))
        assert seed_study.profile_of("net", path) == expected


def test_a_project_without_the_packages_code_runs_the_installed_one(root):
    shutil.rmtree(root / "src")
    plan, runner = seed_study.plan(root, "toy", "net"), Runner()
    assert list(seed_study.run(plan, [3], root=root, runner=runner)) == ["toy-net-3"]
    assert runner.ran == [("train", 3), ("evaluate", 3)]
    assert (plan.folder / "stages" / "train.py").is_file() and not (plan.folder / "src").exists()


def test_code_that_runs_stays_where_it_is_while_others_lay_out_the_same_folder(root):
    plan = seed_study.plan(root, "toy", "net")
    seed_study.lay_out(root, plan)
    module = plan.folder / "src" / "repix" / "errors.py"
    before, absent, ended = module.stat().st_ino, [], threading.Event()

    def look():
        while not ended.is_set():
            absent.extend([] if module.exists() else [1])

    watching = threading.Thread(target=look)
    watching.start()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(seed_study.lay_out, root, plan) for _ in range(4)]:
            done.result()
    assert module.stat().st_ino == before
    # Code that no digest counts has changed: it is replaced in one step, and what was compiled of it is none.
    (plan.folder / "src" / "repix" / "__pycache__").mkdir()
    (root / "src" / "repix" / "errors.py").write_text("changed = True\n")
    seed_study.lay_out(root, plan)
    ended.set()
    watching.join()
    assert module.read_text() == "changed = True\n" and not absent


def test_a_seed_that_two_make_at_once_is_made_once(root):
    plan, runner = seed_study.plan(root, "toy", "net"), Runner()

    def slow(folder, stage, cell):
        time.sleep(0.05)
        runner(folder, stage, cell)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(seed_study.run, plan, [1, 2], root=root, runner=slow) for _ in range(2)]
        found = [one.result() for one in both]
    assert found[0] == found[1] and sorted(runner.ran) == [
        (stage, n) for stage in ("evaluate", "train") for n in (1, 2)
    ]


def test_who_waits_for_another_training_of_the_same_seed_can_be_stopped(root, monkeypatch):
    monkeypatch.setattr(processes, "_stopped", False)
    plan, runner = seed_study.plan(root, "toy", "net"), Runner()
    with ThreadPoolExecutor(1) as pool, seed_study.alone(plan, 1):
        waiting = pool.submit(seed_study.run, plan, [1], root=root, runner=runner)
        time.sleep(0.2)
        assert not waiting.done()
        processes.stop_running()
        with pytest.raises(processes.Terminated):
            waiting.result(10)
    assert runner.ran == []
