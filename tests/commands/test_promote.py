"""The champion moves on evidence only, and back."""

from __future__ import annotations

import json

import pytest

from checks.support.repository import CELL, git, write_lineage
from repix import cli
from repix.errors import UserError


def verdict(word: str = "pass", code: int = 0, cell: str = CELL, why: str = ""):
    """Return a gate that says ``word`` of the cell's l1."""
    score = {"cell": cell, "translator": "source_to_target", "variant": "last", "metric": "l1"}
    record = {
        "verdict": word,
        "exit_code": code,
        "summary": f"1 {word}",
        "scores": [score | {"verdict": word, "why": why}],
    }
    return lambda root: (code, json.dumps(record))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_repository):
    made = tiny_repository(tmp_path_factory.mktemp("promote") / "repository")
    (made / "dvc.yaml").write_text("stages: {}\n")
    git(made, "add", "dvc.yaml")
    git(made, "commit", "--quiet", "-m", "wiring")
    return made


@pytest.fixture
def root(made, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "REPIX_TRACKING", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(made)
    return made


def champion(root):
    from repix.publishing import registry
    from repix.tracking import store

    return registry.champion(store.connect(root)[0], "repix-tiny")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (verdict("fail", 1), r"the gate is fail \(exit code 1\): .*l1: fail"),
        (verdict("incomparable", 2, why="another n"), "incomparable: another n"),
        (verdict("contradiction", 3), "the gate is contradiction"),
        (verdict(cell="tiny-pix2pix-1"), f"the gate has not judged {CELL}"),
        (verdict("new", why="not in the baseline"), f"the gate has not judged {CELL}: not in the baseline"),
        (lambda root: (2, "repix gate: no tolerances\n"), "the gate gave no verdict .*no tolerances"),
    ],
    ids=["red", "incomparable", "contradiction", "other cell", "new", "broken"],
)
def test_without_a_green_gate_nothing_moves(root, gate, said):
    from repix.publishing import registry

    before = champion(root)
    with pytest.raises(UserError, match=said):
        registry.promote(root, CELL, gate=gate)
    assert champion(root) == before


def test_a_store_that_is_down_is_not_taken_for_one_without_a_champion(root, monkeypatch):
    """Else the alias would move, and the way back would be lost."""
    from repix.publishing import registry

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(UserError, match=r"repix-tiny: MLflow says: .*127"):
        registry.rollback(root, "tiny")


def test_a_cell_that_was_not_exported_is_told_which_were(root):
    from repix.publishing import registry

    with pytest.raises(UserError, match=f"nosuch: exports/ does not have it, it has {CELL}; `dvc repro` makes"):
        registry.promote(root, "nosuch", gate=verdict())


def test_other_bytes_are_refused(root):
    from repix.publishing import registry

    file = root / "exports" / CELL / "source_to_target" / "model.onnx"
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(UserError, match="not the bytes that the export stage left"):
            registry.promote(root, CELL, gate=verdict())
    finally:
        file.write_bytes(kept)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": {"generator": "0" * 64}}, "has other weights than metrics/"),
        ({"variant": "best"}, "are the best weights, and promotion takes the last ones or their average"),
    ],
)
def test_an_export_of_other_weights_than_were_scored_is_refused(root, change, said):
    from repix.publishing import registry

    record = root / "exports" / CELL / "export.json"
    kept = record.read_text()
    try:
        record.write_text(json.dumps(json.loads(kept) | change))
        write_lineage(root)
        with pytest.raises(UserError, match=said):
            registry.promote(root, CELL, gate=verdict())
    finally:
        record.write_text(kept)
        write_lineage(root)


def test_a_training_without_its_lineage_is_refused(root):
    from repix.publishing import registry

    before = champion(root)
    record = root / "lineage" / "train" / f"{CELL}.json"
    kept = record.read_text()
    try:
        record.write_text(kept.replace(json.loads(kept)["outputs"][f"runs/{CELL}"], "0" * 64))
        with pytest.raises(UserError, match=f"lineage/train/{CELL}.json: tells of other weights than runs/{CELL}"):
            registry.promote(root, CELL, gate=verdict())
        record.unlink()
        with pytest.raises(UserError, match=f"lineage/train/{CELL}.json: not there"):
            registry.promote(root, CELL, gate=verdict())
    finally:
        record.write_text(kept)
    assert champion(root) == before


def test_a_tree_that_is_not_clean_is_refused(root):
    from repix.publishing import registry

    (root / "new.txt").write_text("x")
    try:
        with pytest.raises(UserError, match=r"not clean \(new.txt\)"):
            registry.promote(root, CELL, gate=verdict())
    finally:
        (root / "new.txt").unlink()


def test_code_above_the_project_is_clean_too(tmp_path):
    from repix.provenance.git import changes
    from repix.publishing import registry

    (tmp_path / "project").mkdir()
    for name in ("lib.py", "project/params.yaml"):
        (tmp_path / name).write_text("1\n")
    with pytest.raises(UserError, match=r"project has no \.git"):
        registry.check_clean(tmp_path / "project")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    assert registry.check_clean(tmp_path / "project") == git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "lib.py").write_text("2\n")
    assert changes(tmp_path / "project") == []
    with pytest.raises(UserError, match=r"not clean \(\.\./lib.py\)"):
        registry.check_clean(tmp_path / "project")


def test_promote_again_other_version_and_rollback(root):
    from repix.publishing import registry
    from repix.schemas import Metrics
    from repix.tracking import store

    first = registry.promote(root, CELL, gate=verdict())
    assert (first["model"], first["version"], first["previous"]) == ("repix-tiny", "1", None)
    assert registry.promote(root, CELL, gate=verdict())["version"] == "1"
    with pytest.raises(UserError, match="the first champion"):
        registry.rollback(root, "tiny")

    client, uri = store.connect(root)
    tags = client.get_model_version("repix-tiny", "1").tags
    metrics = Metrics.read(root / "metrics" / f"{CELL}.json")
    assert tags["repix.git_commit"] == git(root, "rev-parse", "HEAD").strip()
    assert tags[f"dvc.exports/{CELL}"] == "abc.dir"
    assert tags["repix.dataset_digest"] == "d" * 64
    assert float(tags["repix.l1"]) == metrics.scores["source_to_target"]["last"]["l1"]

    # From Python: the same translator as the export.
    import numpy as np

    import repix
    from checks.support.cells import images

    registered, exported = repix.load(first["uri"]), repix.load(root / "exports" / CELL)
    image = images(1, 1)[0]
    assert np.array_equal(registered.translate(image), exported.translate(image))
    assert (registered.cell, registered.translator, registered.size) == (CELL, exported.translator, exported.size)
    assert repix.load("models:/repix-tiny/1").folder == registered.folder
    for wrong, said in (
        ("models:/repix-tiny", "say models:/<name>@champion"),
        ("models:/repix-tiny/7", "MLflow says: .*7"),
        ("models:/none@champion", "MLflow says: .*none"),
    ):
        with pytest.raises(UserError, match=said):
            repix.load(wrong)
    for asked in ({"backend": "keras"}, {"variant": "best"}):  # what it has not is not silently something else
        with pytest.raises(UserError, match=r"is ONNX alone|holds the last weights"):
            repix.load(first["uri"], **asked)
    with pytest.raises(UserError, match="all that a registered model takes"):
        registered.translate(np.zeros((50, 70, 3), np.uint8))
    with pytest.raises(UserError, match="its scores are tags of its version in MLflow"):
        registered.scores()

    # What was brought here and changed, or was cut off, is brought anew; what changed in the registry is refused.
    kept = registered.folder / "model.onnx"
    whole, served = kept.read_bytes(), root / "mlartifacts"
    kept.write_bytes(whole[:-1])
    assert np.array_equal(repix.load(first["uri"]).translate(image), exported.translate(image))
    assert kept.read_bytes() == whole
    (place,) = (path for path in served.rglob("model.onnx") if path.read_bytes() == whole)
    place.write_bytes(b"x" + whole[1:])
    assert repix.load(first["uri"]).folder == registered.folder
    kept.unlink()
    with pytest.raises(UserError, match="not those that `repix promote` put there"):
        repix.load(first["uri"])
    assert not kept.exists()
    place.write_bytes(whole)
    client.delete_model_version_tag("repix-tiny", "1", registry.SERVED)
    with pytest.raises(UserError, match="no model that `repix promote` registered"):
        repix.load(first["uri"])
    client.set_model_version_tag("repix-tiny", "1", registry.SERVED, tags[registry.SERVED])

    # Other bytes of the same function: another version.
    exports = root / "exports" / CELL
    (exports / "note.txt").write_text("x")
    write_lineage(root)
    try:
        second = registry.promote(root, CELL, gate=verdict("improved"))
        assert (second["version"], second["previous"]) == ("2", "1")
        assert registry.rollback(root, "tiny")["version"] == "1"
        assert champion(root) == "1"
    finally:
        (exports / "note.txt").unlink()
        write_lineage(root)

    import mlflow.pyfunc

    with store.as_default(uri):
        model = mlflow.pyfunc.load_model(first["uri"])
    assert model.metadata.get_input_schema().input_names() == ["image"]


def test_command_line(root, monkeypatch, capsys, tmp_path):
    from repix.publishing import registry

    # As in a fresh clone: no store yet.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setitem(registry.promote.__kwdefaults__, "gate", verdict())
    with pytest.raises(SystemExit) as stopped:
        cli.main(["promote", CELL, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert not stopped.value.code
    assert told["uri"] == "models:/repix-tiny@champion" and told["version"] == champion(root)


def test_command_line_refuses_in_one_line(root, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["promote", "tiny-none-0"])
    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("repix promote: tiny-none-0: exports/ does not have it, it has ")


def test_a_direction_that_was_not_exported_is_refused_by_name(root, capsys):
    from repix.publishing import registry

    with pytest.raises(UserError, match=f"{CELL} has no translator 'target_to_source'; it has source_to_target"):
        registry.promote(root, CELL, translator="target_to_source", gate=verdict())
    with pytest.raises(SystemExit):
        cli.main(["promote", CELL, "--translator", "left_to_right"])
    assert "'left_to_right' (choose from 'source_to_target', 'target_to_source')" in capsys.readouterr().err
