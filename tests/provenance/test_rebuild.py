"""What `repix verify` says of a trained cell that was made again: every level, on folders that stand for the stages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from repix.provenance import lock, verify
from repix.provenance.compare import Level
from repix.provenance.lineage import Lineage
from repix.provenance.pipeline import Stage
from repix.provenance.verify import Recorded, rebuild
from repix.schemas import Metrics

CELL = "a-m-0"
ITEM = {"dataset": "a", "model": "m", "seed": 0}
OUTS = {
    "preprocess": ("data/prepared/a", "lineage/preprocess/a.json"),
    "train": (f"runs/{CELL}", f"lineage/train/{CELL}.json"),
    "evaluate": (f"metrics/{CELL}.json", f"lineage/evaluate/{CELL}.json"),
    "scores": ("metrics/scores.json",),
}
STAGES = [
    Stage(
        kind if kind == "scores" else f"{kind}@{'a' if kind == 'preprocess' else CELL}",
        kind,
        {} if kind == "scores" else {"dataset": "a"} if kind == "preprocess" else ITEM,
        f"python stages/{kind}.py",
        (),
        (),
        outs,
    )
    for kind, outs in OUTS.items()
]
NOISE = {"source_to_target/last/l1": 0.02}


def put(root: Path, *, data: str = "x", weight: float = 1.0, save=np.savez, l1: float = 0.1, name: str = "w") -> None:
    """Write what the stages of a cell leave: some weights, and their score."""
    root.mkdir()
    (root / "params.yaml").write_text("{}\n")
    for kind, outs in OUTS.items():
        for out in outs:
            (root / out).parent.mkdir(parents=True, exist_ok=True)
            if out.startswith("lineage/"):
                empty = {"params": {}, "inputs": {}, "code": {}, "environment": {}, "profile": {}}
                Lineage(stage=kind, cell=CELL, **empty, run_key="k", outputs={}).write(root / out)
    (root / "data/prepared/a").mkdir()
    (root / "data/prepared/a/x.bin").write_text(data)
    (root / f"runs/{CELL}").mkdir(parents=True)
    save(root / f"runs/{CELL}/generator.npz", kernel=np.full(64, weight, np.float32))
    scores = {"source_to_target": {"last": {"l1": l1}, "best": None}}
    record = Metrics(cell=CELL, weights_digest={"generator": name}, n=1, scores=scores, protocol={})
    record.write(root / f"metrics/{CELL}.json")
    (root / "metrics/scores.json").write_text(f"{l1}")


@pytest.fixture
def again(tmp_path, monkeypatch):
    """Return a function that says what comes of making the cell again, where that gives something else than before."""
    monkeypatch.setattr(verify, "run", lambda tree, stage, root: None)
    monkeypatch.setattr(Recorded, "_cached", lambda self, md5: tmp_path / "no cache")

    def made(noise: dict | None = None, gone: str | None = None, **now) -> dict:
        root, tree = tmp_path / "root", tmp_path / "tree"
        put(root)
        put(tree, **now)
        if not now:
            shutil.rmtree(tree)
            shutil.copytree(root, tree)
        entries = {
            stage.name: {"outs": [{"path": out, "md5": lock.md5(root / out)} for out in stage.outs]} for stage in STAGES
        }
        if gone:
            shutil.rmtree(root / gone)
        return rebuild(tree, STAGES, Recorded(root, entries), entries, lambda cell: noise or {}, lambda line: None)

    return made


def test_the_same_bytes(again):
    assert again() == {"level": Level.L0, "why": [], "first": None, "lineages": []}


def test_the_same_numbers_in_another_container(again):
    found = again(save=np.savez_compressed)
    assert found["level"] == Level.L1 and found["first"]["stage"] == f"train@{CELL}"


def test_numbers_within_the_bound(again):
    found = again(weight=1 + 1e-4, l1=0.1 + 1e-5)
    assert found["level"] == Level.L2 and "bound 0.001" in found["why"][0]


@pytest.mark.parametrize("l1", [0.115, 0.1])
def test_another_training_within_the_noise_between_seeds(again, l1):
    """Also where the scores are the same though the weights are not."""
    found = again(NOISE, weight=1.5, l1=l1)
    assert found["level"] == Level.L3 and found["why"][0] == "test scores lie within the noise between seeds"


@pytest.mark.parametrize(("noise", "said"), [(NOISE, "noise between seeds 0.02"), ({}, "no noise measured")])
def test_another_training_beyond_the_noise_between_seeds(again, noise, said):
    found = again(noise, weight=1.5, l1=0.13)
    assert found["level"] == Level.DIFFERENT and said in found["why"][0]


def test_noise_is_no_excuse_for_other_data(again):
    found = again(NOISE, data="y", weight=1.5, l1=0.115)
    assert found["level"] == Level.DIFFERENT and found["first"]["stage"] == "preprocess@a"


@pytest.mark.parametrize(("digest", "level"), [("w", Level.L1), ("other", Level.L3)])
def test_weights_whose_bytes_are_gone_are_known_by_the_digests_of_the_metrics(again, monkeypatch, digest, level):
    trained = SimpleNamespace(read=lambda path: SimpleNamespace(networks={"generator": digest}))
    monkeypatch.setattr(verify, "Trained", trained)
    found = again(gone=f"runs/{CELL}", save=np.savez_compressed)
    assert found["level"] == level
    assert ("digests are those of metrics/" if level == Level.L1 else "`dvc pull`") in found["why"][-1]


def test_a_table_that_does_not_follow_from_the_records_is_another_one(again, tmp_path, monkeypatch):
    def edited(tree, stage, root):
        if stage.kind == "scores":
            (tree / "metrics/scores.json").write_text("better")

    monkeypatch.setattr(verify, "run", edited)
    found = again()
    assert found["level"] == Level.DIFFERENT and "not what follows from the records in metrics/" in found["why"][0]


@pytest.mark.parametrize(("exported", "level"), [(False, Level.L3), (True, Level.DIFFERENT)])
def test_the_noise_of_one_cell_says_nothing_of_another(again, tmp_path, monkeypatch, exported, level):
    """The second one differs in its last digits, which no noise has to excuse: it has none that was measured.

    Nor does that of the first excuse another file in the second one's export.
    """
    other, rebuilt = "a-m-1", verify.rebuild

    def of_other(text: str) -> str:
        return text.replace(CELL, other)

    def with_another(tree, found, recorded, entries, noise_of, say):
        more = [
            replace(stage, name=of_other(stage.name), item=ITEM | {"seed": 1}, outs=tuple(map(of_other, stage.outs)))
            for stage in found
            if stage.kind in ("train", "evaluate")
        ]
        for root, l1 in ((tree, 0.1 + 1e-5), (recorded.root, 0.1)):
            for stage in more:
                for out in stage.outs:
                    was = root / out.replace(other, CELL)
                    (shutil.copytree if was.is_dir() else shutil.copy)(
                        tmp_path / "root" / was.relative_to(root), root / out
                    )
            path = root / f"metrics/{other}.json"
            record = Metrics.read(path)
            record.scores["source_to_target"]["last"]["l1"] = l1
            record.write(path)
        if exported:
            export = (f"exports/{other}", f"lineage/export/{other}.json")
            more.append(replace(more[1], name=f"export@{other}", kind="export", outs=export))
            for root in (tree, recorded.root):
                (root / export[0]).mkdir(parents=True)
                (root / export[0] / "model.onnx").write_text(root.name)
                (root / "lineage/export").mkdir()
                shutil.copy(root / f"lineage/train/{other}.json", root / export[1])
        entries |= {
            stage.name: {"outs": [{"path": out, "md5": lock.md5(recorded.root / out)} for out in stage.outs]}
            for stage in more
        }
        order = [*found[:2], more[0], found[2], *more[1:], *found[3:]]
        known = lambda cell: noise_of(cell) if cell.name == CELL else {}  # noqa: E731
        return rebuilt(tree, order, Recorded(recorded.root, entries), entries, known, say)

    monkeypatch.setitem(globals(), "rebuild", with_another)
    assert again(NOISE, weight=1.5, l1=0.115)["level"] == level
