"""A search without training: what is tried, what is stopped, where it goes on, and what it says."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks.support import postgres
from repix import cli, processes, yaml12
from repix.config import reader
from repix.config.models import Recipe
from repix.config.search import Between, Search, changed, own
from repix.errors import UserError
from repix.files import write_json
from repix.schemas import Manifest
from repix.studies import seed_study
from tests.studies.test_seed_study import root as repository  # noqa: F401

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install -e '.[search]'")
from repix.studies import search  # noqa: E402

EPOCHS = 20
SPACE = {"loss.l1": {"low": 10, "high": 200.5}, "generator.filters": [4, 8]}


@pytest.fixture
def root(repository, monkeypatch):  # noqa: F811
    """A repository whose data has a val split, and a search of its own."""
    path = repository / "params.yaml"
    tree = yaml12.read(path)
    tree["models"]["net"] = tree["models"]["net"] | {"epochs": EPOCHS, "validate_every": 5}
    tree["search"] = {"dataset": "toy", "model": "net", "trials": 8, "space": SPACE}
    path.write_text(yaml12.dump(tree), encoding="utf-8")
    half = {"n": 1, "size": [8, 8], "examples": "a.jsonl", "examples_sha256": "0" * 64}
    half["shards"] = [{"file": "a.npy", "n": 1, "sha256": "0" * 64}]
    side = {"channels": 3, "dtype": "uint8", "low": [0] * 3, "high": [255] * 3, "meaning": list("RGB"), "colour": "rgb"}
    split = {"source": half, "target": half}
    write_json(
        repository / "data/prepared/toy/manifest.json",
        {
            "schema": Manifest.SCHEMA,
            "dataset": "toy",
            "paired": True,
            "direction": "AtoB",
            "resize": "none",
            "resample": "bicubic",
            "load_size": [8, 8],
            "crop_size": [8, 8],
            "source": side,
            "target": side,
            "splits": {"train": split, "val": split, "test": split},
        },
    )
    monkeypatch.chdir(repository)
    monkeypatch.setenv("REPIX_TRACKING", "off")
    return repository


class Trainer:
    """Stands for the stage: better with a weight of L1 near 60 and 8 filters; says a score every five epochs."""

    def __init__(self):
        self.made, self.stopped, self.lock = [], [], threading.Lock()
        self.kill_at: int | None = None

    @staticmethod
    def score(recipe: Recipe, seed: int) -> float:
        noise = (seed * 7919 % 13 - 6) / 10_000
        return 1 - abs(recipe.loss.l1 - 60) / 200 + (recipe.generator.filters == 8) / 10 + noise

    def __call__(self, plan, seed, stop) -> bool:
        recipe = Recipe.model_validate(plan.params["models.net"])
        cell = plan.cell(seed)
        log = seed_study.log_of(plan.folder, "train", cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        text = ""
        with self.lock:
            self.made.append(recipe.loss.l1)
            if len(self.made) == self.kill_at:
                raise KeyboardInterrupt
        for epoch in range(5, EPOCHS + 1, 5):
            score = self.score(recipe, seed) - 0.1 * (EPOCHS - epoch) / EPOCHS
            text += f"{cell.name}: epoch {epoch}/{EPOCHS}, validation: l1 0.1, score {score:.9g}\n"
            log.write_text(text)
            if stop():
                self.stopped.append(recipe.loss.l1)
                return False
        record = plan.folder / "runs" / cell.name / "trained.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"epoch": EPOCHS, "score": score}))
        return True


@pytest.fixture
def trainer(monkeypatch):
    def score_of(plan, seed):
        record = json.loads((plan.folder / "runs" / plan.cell(seed).name / "trained.json").read_text())
        return record["score"], record["epoch"]

    made = Trainer()
    monkeypatch.setattr(search, "score_of", score_of)
    for function in (search.run, search.compare):
        monkeypatch.setitem(function.__kwdefaults__, "trainer", made)
    monkeypatch.setattr(processes, "_stopped", False)  # what a test stops is stopped for that test only
    return made


def storage(root) -> str:
    return f"sqlite:///{root / 'search.db'}"


def test_a_training_that_is_killed_is_tried_again_and_one_that_is_killed_always_has_failed(root, trainer, capsys):
    class Killed:
        def __init__(self):
            self.times = 0

        def __call__(self, plan, seed, stop):
            self.times += 1
            if self.times in (2, 4, 5, 6):
                raise seed_study.KilledError("train of x ended with -9: no output; all of it: log")
            return trainer(plan, seed, stop)

    killed = Killed()
    found = search.results(search.run(search.plan(root, 4), storage(root), trainer=killed))
    # The second was killed once; the third three times, which is its end.
    assert [one.state for one in found].count("failed") == 1 and len(found) == 4 and killed.times == 7
    assert capsys.readouterr().err.count("it is tried again") == 3


@pytest.mark.parametrize("content", [b"no database at all", None])
def test_a_database_that_is_none_of_a_search_is_one_line(root, content):
    path = root / "search.db"
    if content:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE studies (a)")
    with pytest.raises(UserError, match=r"cannot be opened: .*; move the file away to begin anew") as found:
        search.open_study(search.plan(root), storage(root))
    assert "\n" not in str(found.value) and "sqlalche.me" not in str(found.value)


def test_several_machines_share_a_study_on_postgresql(root, trainer):
    if lacks := postgres.missing():
        pytest.skip(lacks)
    wanted = search.plan(root, 12)
    with postgres.postgres("search") as address:
        with ThreadPoolExecutor(2) as machines:  # each opens the database for itself
            studies = list(machines.map(lambda workers: search.run(wanted, address, workers=workers), (1, 2)))
        found, other = map(search.results, studies)
        # Each ends where it sees enough; what it sees of the other are trials that have ended.
        assert found == other and 12 <= len(found) == len(trainer.made) <= 14
        assert {result.number for result in found} == set(range(len(found)))
        assert search.results(search.run(wanted, address)) == found and len(trainer.made) == len(found)
    with pytest.raises(UserError, match=r"repix:\*\*\*@.* cannot be opened: .*refused"):
        search.open_study(wanted, address)


def test_a_database_that_fails_on_the_way_is_one_line_and_the_same_command_goes_on(root, trainer, monkeypatch):
    """A file that is cut off while a trial trains: Optuna itself stumbles over it."""
    monkeypatch.setattr(search, "HEARTBEAT", 1)
    monkeypatch.setattr(search, "GONE", 2)
    file, whole = root / "search.db", b""

    def breaking(plan, seed, stop):
        nonlocal whole
        if len(trainer.made) == 2:
            whole = file.read_bytes()
            file.write_bytes(whole[:100])
        return trainer(plan, seed, stop)

    with pytest.raises(UserError, match=r"^the study's database fails: .*; the same command goes on") as error:
        search.run(search.plan(root, 4), storage(root), trainer=breaking)
    assert "\n" not in str(error.value)
    file.write_bytes(whole)
    assert len(search.results(search.run(search.plan(root, 4), storage(root), workers=10**6))) == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_is_the_entry_itself_and_the_bad_ones_are_stopped(root, trainer, workers):
    wanted = search.plan(root, 20)
    found = search.results(search.run(wanted, storage(root), workers=workers))
    assert len(found) == 20 and len(trainer.made) == 20
    assert found[0].values == {"loss.l1": 100.0, "generator.filters": 4}
    states = {result.state for result in found}
    assert states == {"complete", "pruned"} and len(trainer.stopped) == sum(one.state == "pruned" for one in found)
    best = max((one for one in found if one.state == "complete"), key=lambda one: one.score)
    assert best.score > found[0].score and best.values["generator.filters"] == 8
    for result in found:
        assert 10 <= result.values["loss.l1"] <= 200.5 and result.epoch <= EPOCHS
    # As many as were asked for are there: nothing is trained again.
    search.run(wanted, storage(root))
    assert len(trainer.made) == 20


@pytest.mark.parametrize("kill_at", [None, 5, 14])
def test_one_worker_makes_the_same_trials_again_even_after_a_kill(root, trainer, kill_at):
    wanted = search.plan(root, 16)
    first = search.results(search.run(wanted, storage(root)))
    again, trainer.made, trainer.kill_at = f"sqlite:///{root / 'again.db'}", [], kill_at
    if kill_at is not None:
        with pytest.raises(KeyboardInterrupt):
            search.run(wanted, again)
    found = search.results(search.run(wanted, again))
    first, found = ([(one.values, one.score, one.state) for one in each] for each in (first, found))
    assert found == first
    assert len({values["loss.l1"] for values, _, _ in found}) == 16


def test_without_pruning_all_come_to_their_end(root, trainer):
    wanted = search.plan(root, 12)
    wanted = search.Plan(root, wanted.settings.model_copy(update={"prune": False}), wanted.entry, wanted.base, "x")
    assert {one.state for one in search.results(search.run(wanted, storage(root)))} == {"complete"}


def test_what_was_stopped_is_tried_again_with_the_same_values(root, trainer, capsys):
    wanted, trainer.kill_at = search.plan(root, 6), 4
    with pytest.raises(KeyboardInterrupt):
        search.run(wanted, storage(root))
    assert "search: stopped; trainings save their state, the same command goes on" in capsys.readouterr().err
    assert len(search.results(search.open_study(wanted, storage(root)))) == 3
    found = search.results(search.run(wanted, storage(root)))
    assert len(found) == 6 and trainer.made[4] == trainer.made[3]
    assert len({one.values["loss.l1"] for one in found}) == 6


def test_a_search_that_is_killed_leaves_trials_that_are_tried_again(root, trainer, monkeypatch):
    """A trial whose process was killed stays `running` in the database, until it has given no sign of life for long."""
    monkeypatch.setattr(search, "HEARTBEAT", 1)
    monkeypatch.setattr(search, "GONE", 2)
    wanted = search.plan(root, 3)
    study = search.open_study(wanted, storage(root))
    trial = study.ask()
    values = search.suggest(trial, wanted.settings.space)
    study._storage.record_heartbeat(trial._trial_id)  # as its thread would have, an hour before the kill
    with sqlite3.connect(storage(root).removeprefix("sqlite:///")) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    found = search.results(search.run(wanted, storage(root)))
    assert {one.state for one in found} <= {"complete", "pruned"} and len(found) == 3
    assert values in [one.values for one in found if one.state in ("complete", "pruned")]


def test_a_value_that_no_training_survives_is_a_failed_trial_and_three_end_it(root, trainer, monkeypatch):
    def fails(plan, seed, stop):
        if plan.params["models.net"]["generator"]["filters"] == 8:
            raise UserError("the loss is NaN")
        return trainer(plan, seed, stop)

    with pytest.raises(UserError, match="the loss is NaN"):
        search.run(search.plan(root, 40), storage(root), trainer=fails)
    found = search.results(search.open_study(search.plan(root), storage(root)))
    assert sum(one.state == "failed" for one in found) == 3 and found[0].state == "complete"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"loss.l2": [1, 2]}, r"search.space.loss.l2: 1: .*l2"),
        ({"loss.l1": {"low": 3, "high": 1}}, "search: space.loss.l1: low 3 is not below high 1"),
        ({"loss.l1": {"low": "1", "high": 3}}, "search: space.loss.l1.low: '1' is text; write a number"),
        ({"loss.l1": {"low": float("nan"), "high": 3}}, "search: space.loss.l1.low: "),
        ({"loss.l1": 7}, "search: space.loss.l1: 7: write {low: 1, high: 10}, or a list to choose from"),
        ({"loss.l1": [[1], [2]]}, "search: space.loss.l1: a list has numbers, words, true, false or null"),
        ({"epochs.x": {"low": 1, "high": 2}}, "search.space.epochs.x: epochs is a value, and has nothing in it"),
        ({"loss.l1": {"low": 0, "high": 1, "log": True}}, "log takes numbers above 0"),
        ({"ema": [0.9, 2]}, r"search.space.ema: 2: "),
        ({"loss.l1": [1]}, "two different values or more"),
        ({"profile": ["fast", "portable"]}, "is no setting to search over"),
        ({}, "at least 1"),
    ],
)
def test_what_cannot_be_tried_is_said_at_the_start(root, space, said):
    path = root / "params.yaml"
    tree = yaml12.read(path)
    tree["search"]["space"] = space
    path.write_text(yaml12.dump(tree), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        search.plan(root)


def test_the_first_trial_is_the_entry_only_where_a_trial_can_be_that(root):
    """Of whole ends a trial is a whole number: Optuna would cut 0.5 to 0."""
    path = root / "params.yaml"
    for entry, expected in ((0.5, None), (1, {"loss.discriminator": 1})):
        tree = yaml12.read(path)
        tree["models"]["net"]["loss"] = {"discriminator": entry}
        tree["search"]["space"] = {"loss.discriminator": {"low": 1, "high": 2}}
        path.write_text(yaml12.dump(tree), encoding="utf-8")
        assert search.defaults(search.plan(root)) == expected


def test_the_search_of_the_page_can_be_made():
    from tests.conftest import ROOT

    block = re.search(r"```yaml\n(search:.*?)```", (ROOT / "docs/scale.md").read_text(), re.DOTALL)[1]
    given = reader.parse(yaml12.load(block, "page")["search"], Search, "search")
    entry = reader.section(f"models.{given.model}", ROOT / "params.yaml")
    assert given.trials == 12 and len(given.space) == 3
    for name, values in given.space.items():
        for value in (values.low, values.high) if isinstance(values, Between) else values:
            assert own(reader.parse(changed(entry, {name: value}), Recipe, name), name) == value


def test_a_model_that_is_validated_at_its_end_alone_can_be_judged_and_one_without_val_not(root):
    path = root / "params.yaml"
    tree = yaml12.read(path)
    tree["models"]["net"]["validate_every"] = EPOCHS + 1
    path.write_text(yaml12.dump(tree), encoding="utf-8")
    search.plan(root)
    manifest = root / "data/prepared/toy/manifest.json"
    record = json.loads(manifest.read_text())
    del record["splits"]["val"]
    write_json(manifest, record)
    with pytest.raises(UserError, match=r"no val split to judge by; set its images\.val_fraction"):
        search.plan(root)
    del tree["search"]
    path.write_text(yaml12.dump(tree), encoding="utf-8")
    with pytest.raises(UserError, match=r"has no search; repix's docs/scale\.md shows one"):
        search.plan(root)


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["search", *words])
    return ended.value.code


def test_the_command_says_what_was_found_and_writes_it_as_an_entry(root, trainer, capsys):
    before = yaml12.read(root / "params.yaml")
    assert call("--trials", "10", "--workers", "2", "--seeds", "1-5", "--write", "tuned") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:4] == ["trial", "state", "score", "epoch"] and " *" in said[1]
    assert any("10 trials" in line or "complete" in line for line in said[-3:])
    assert any("better by more than the noise between seeds" in line for line in said)
    after = yaml12.read(root / "params.yaml")
    new = after["models"].pop("tuned")
    assert after == before and new["epochs"] == EPOCHS
    tuned, entry = (reader.parse(one, Recipe, "models.x") for one in (new, before["models"]["net"]))
    assert Trainer.score(tuned, 0) > Trainer.score(entry, 0)
    assert said[-1] == "next: dvc exp run -S 'run.datasets=[toy]' -S 'run.models=[tuned]'"
    assert call("--write", "tuned") == 1 and "choose another" in capsys.readouterr().err
    assert call("--json", "--trials", "10") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["trials"]) == 10 and record["seeds"] is None


def test_an_entry_that_is_the_best_itself_is_not_written_again(root, trainer, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "score", staticmethod(lambda recipe, seed: float(recipe.loss.l1 == 100)))
    before = (root / "params.yaml").read_bytes()
    assert call("--trials", "4", "--write", "tuned") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "nothing was written: models.net as it stands is the best"
    assert (root / "params.yaml").read_bytes() == before
    assert call("--seeds", "0-3") == 1 and "was chosen by seed 0; leave it out" in capsys.readouterr().err


def test_a_study_whose_trials_all_failed_is_one_line(root, trainer, capsys, monkeypatch):
    failed = [search.Result(number, {}, None, "failed", None) for number in range(2)]
    monkeypatch.setattr(search, "results", lambda study: failed)
    assert call("--trials", "2") == 1
    assert "none of its 2 trials came to an end; ask for more with --trials" in capsys.readouterr().err


def test_two_entries_that_are_alike_are_not_told_apart(root, trainer):
    wanted = search.plan(root)
    same = search.Result(0, search.defaults(wanted), 1.0, "complete", EPOCHS)
    noise = search.compare(wanted, same, (1, 2, 3))
    assert noise.entry == noise.best and "not more than the noise" in noise.text()


def test_a_program_is_asked_to_stop_where_that_is_wanted(tmp_path):
    import sys

    asked = []
    code = processes.run(
        [sys.executable, "-c", "import time; time.sleep(60)"], until=lambda: asked.append(1) or len(asked) > 1
    )
    assert code == -15 and len(asked) == 2
    assert processes.run([sys.executable, "-c", ""], until=lambda: False) == 0
