"""A search for better settings of a recipe: trials chosen by Optuna, trained beside the pipeline, judged on val alone.

A trial is a training of its own in ``.repix/search``, made by the stage script in a folder as a seed study has it
(:mod:`repix.studies.seed_study`), under the digest of all that determines it: the same settings are the same folder, so
that a trial that was killed goes on from its checkpoint. What is known of all trials is in Optuna's database, where
several machines can work on one study. The test split is never read: who looks there for settings has no test left.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repix import processes
from repix.config import reader
from repix.config.models import Recipe
from repix.config.search import Between, Search, changed, own
from repix.errors import UserError
from repix.files import canonical_json, digest_text
from repix.libraries import install
from repix.paths import PREPARED, WORK
from repix.regression.tolerance import mean_and_sd, t_quantile
from repix.schemas import Manifest, Trained
from repix.studies import seed_study

if TYPE_CHECKING:
    import optuna

HEARTBEAT = 10  # seconds between a trial's signs of life in the database
LOOK_SECONDS = 2.0  # between looks at the trials of others
MOST_TRIES = 3  # of a trial whose training is killed
GONE = 60  # seconds without one after which a trial is taken for killed, and tried again
FIRST = 4  # trials that nothing is compared with: before there are so many, none is stopped
SCORED = re.compile(r"^\S+: epoch (\d+)/\d+, validation: .*\bscore (\S+)$", re.MULTILINE)
"""What :class:`repix.tracking.progress.ProgressBar` says of a validation, without a terminal."""

Trainer = Callable[[seed_study.Plan, int, Callable[[], bool]], bool]
"""Trains one seed in the folder of a plan; is stopped where the last argument says so, and then returns False."""


@dataclass(frozen=True)
class Plan:
    """What a search is going to do.

    Attributes:
        root: the repository.
        settings: ``search`` of params.yaml.
        entry: the model's entry as params.yaml has it.
        base: the training of the entry as it stands.
        name: of Optuna's study: data set, model and a digest of all that its trials have in common.
    """

    root: Path
    settings: Search
    entry: dict[str, Any]
    base: seed_study.Plan
    name: str

    def trial(self, values: Mapping[str, Any]) -> seed_study.Plan:
        """Return the training with other values at dotted keys of the entry.

        Raises:
            UserError: the recipe cannot have them.
        """
        new = changed(self.entry, values)
        found = seed_study.plan(self.root, self.settings.dataset, self.settings.model, changes=new)
        return replace(found, folder=self.root / WORK / "search" / found.folder.name)


class Result(NamedTuple):
    """One trial.

    Attributes:
        number: from 0, in the order in which they were begun.
        values: dotted key -> value.
        score: the best on the val split; of a trial that was stopped early, up to then. None where it failed.
        state: ``complete``, ``pruned``, ``failed`` or ``running``.
        epoch: of the best score.
    """

    number: int
    values: dict[str, Any]
    score: float | None
    state: str
    epoch: int | None


class Noise(NamedTuple):
    """The entry and the best trial over further seeds.

    Attributes:
        entry, best: mean and standard deviation of the score on the val split.
        seeds: which seeds.
        t: difference by its standard error (Welch's).
        needed: the t that chance alone exceeds in one of twenty comparisons, both ways.
    """

    entry: tuple[float, float]
    best: tuple[float, float]
    seeds: tuple[int, ...]
    t: float
    needed: float

    def text(self) -> str:
        """Return what it says, in one line."""
        far = abs(self.t) >= self.needed
        verdict = "not more than" if not far else "better by more than" if self.t > 0 else "worse by more than"
        (a, da), (b, db) = self.entry, self.best
        n = len(self.seeds)
        return (
            f"over {n} other seeds: the entry {a:.5g} (sd {da:.2g}), the best trial {b:.5g} (sd {db:.2g}): "
            f"{verdict} the noise between seeds (t {self.t:.2f}, {self.needed:.2f} needed)"
        )


def plan(root: Path, trials: int | None = None) -> Plan:
    """Read ``search`` of params.yaml and check it, with every end of every range.

    Args:
        root: the repository.
        trials: in place of those of params.yaml.

    Raises:
        UserError: there is no such group, a setting is none or cannot have a value, or there is no val split.
    """
    path = root / reader.FILE
    if reader.load(path).get("search") is None:
        raise UserError(f"{path}: has no search; repix's docs/scale.md shows one")
    settings = reader.read("search", Search, path)
    if trials is not None:
        settings = settings.model_copy(update={"trials": trials})
    base = seed_study.plan(root, settings.dataset, settings.model)
    entry = reader.section(f"models.{settings.model}", path)
    manifest = Manifest.read(root / PREPARED / settings.dataset / "manifest.json")
    if "val" not in manifest.splits:
        raise UserError(f"datasets.{settings.dataset} has no val split to judge by; set its images.val_fraction")
    for name, values in settings.space.items():
        for value in (values.low, values.high) if isinstance(values, Between) else values:
            where = f"search.space.{name}: {value!r}: models.{settings.model}"
            reader.parse(changed(entry, {name: value}), Recipe, where, path)
            if name in ("profile", "keep_state") or name.split(".")[0] in ("system", "start_from"):
                raise UserError(f"{path}: search.space.{name}: is no setting to search over")
    same = {"space": settings.model_dump(mode="json")["space"], "key": base.key, "seed": settings.seed}
    name = f"{settings.dataset}-{settings.model}-{digest_text(canonical_json(same))[:12]}"
    return Plan(root, settings, dict(entry), base, name)


def defaults(wanted: Plan) -> dict[str, Any] | None:
    """Return the values of the entry as it stands; None where one of them is not in the space."""
    recipe = Recipe.model_validate(wanted.entry)
    found = {name: own(recipe, name) for name in wanted.settings.space}
    for name, space in wanted.settings.space.items():
        if not (space.holds(found[name]) if isinstance(space, Between) else found[name] in space):
            return None
    return found


def suggest(trial: optuna.Trial, space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each setting."""
    values: dict[str, Any] = {}
    for name, one in space.items():
        if not isinstance(one, Between):
            values[name] = trial.suggest_categorical(name, one)
        elif one.whole:
            values[name] = trial.suggest_int(name, one.low, one.high, log=one.log)
        else:
            values[name] = trial.suggest_float(name, one.low, one.high, log=one.log)
    return values


def train(wanted: seed_study.Plan, seed: int, stop: Callable[[], bool]) -> bool:
    """Train a seed in the folder of a plan, unless that is done; return False where it was stopped."""
    with seed_study.alone(wanted, seed):  # two trials may have come to the same values
        if wanted.finished(seed, ("train",)):
            return True
        seed_study.lay_out(wanted.folder.parents[2], wanted)
        return seed_study.run_stage(wanted.folder, "train", wanted.cell(seed), until=stop)


def score_of(wanted: seed_study.Plan, seed: int) -> tuple[float, int]:
    """Return the best score on the val split of a finished training, and its epoch."""
    record = Trained.read(wanted.folder / "runs" / wanted.cell(seed).name / "trained.json")
    assert record.best is not None
    return float(record.best["score"]), int(record.best["epoch"])


def open_study(wanted: Plan, storage: str) -> optuna.Study:
    """Return the study in a database, made where it is not there; its first trial is the entry as it stands.

    Raises:
        UserError: Optuna is not installed, or the database cannot be opened.
    """
    try:
        import optuna

        from repix.studies.sampler import Sampler
    except ModuleNotFoundError:
        raise UserError(f"a search needs Optuna: {install('search')}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        shown = make_url(storage).render_as_string()  # a password is not shown
        kept = _storage(storage)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=1)
        study = optuna.create_study(
            storage=kept,
            study_name=wanted.name,
            direction="maximize",
            load_if_exists=True,
            sampler=Sampler(),
            pruner=pruner if wanted.settings.prune else optuna.pruners.NopPruner(),
        )
        if (first := defaults(wanted)) is not None:
            study.enqueue_trial(first, skip_if_exists=True)
    except (ImportError, ArgumentError, SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        if isinstance(error, ArgumentError):
            shown = f"--storage {storage.partition(':')[0]}:..."
        mend = "; move the file away to begin anew" if storage.startswith("sqlite") else ""
        if isinstance(error, ImportError) and storage.startswith("postgresql"):
            mend = f"; {install('postgresql')}"
        raise UserError(f"{shown}: cannot be opened: {_words(error)}{mend}") from None
    return study


def _words(error: BaseException) -> str:
    """Return what a database or its driver says, without the links to its manual."""
    return " ".join(str(error).partition("(Background on")[0].split())[:300] or type(error).__name__


def _fault(error: BaseException) -> BaseException | None:
    """Return the fault of the database that an error followed from, if it did: Optuna stumbles over some of them."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    found: BaseException | None = error
    while found is not None and not isinstance(found, (SQLAlchemyError, optuna.exceptions.StorageInternalError)):
        found = found.__cause__ or found.__context__
    return found


def _storage(address: str) -> optuna.storages.RDBStorage:
    """Return Optuna's database, whose tables are made where they are not there; several may come to that at once."""
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    again = optuna.storages.RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=False)
    opened = partial(
        optuna.storages.RDBStorage,
        address,
        heartbeat_interval=HEARTBEAT,
        grace_period=GONE,
        heartbeat_stale_trial_callback=again,
        # A heartbeat that finds the file locked for longer would be the last one.
        engine_kwargs={"connect_args": {"timeout": 2 * GONE}} if address.startswith("sqlite") else None,
    )
    for _ in range(4):
        with suppress(IntegrityError, ProgrammingError):  # another one has just made them
            return opened()
        time.sleep(1)
    return opened()


def results(study: optuna.Study) -> list[Result]:
    """Return the trials that were begun; those that were killed and tried again only once."""
    from repix.studies.sampler import was_killed

    found = []
    for trial in study.get_trials(deepcopy=False):
        state = trial.state.name.lower()
        score, epoch = trial.value, trial.user_attrs.get("epoch")
        if state == "pruned" and trial.intermediate_values:
            epoch, score = max(trial.intermediate_values.items(), key=lambda item: item[1])
        if was_killed(trial):
            continue
        if state == "fail":
            state, score = "failed", None
        if state in ("complete", "pruned", "failed", "running"):
            found.append(Result(trial.number, dict(trial.params), score, state, epoch))
    return found


class _AgainError(Exception):
    """A trial was killed, and waits to be tried again."""


def _wait_for_a_turn(study: optuna.Study, trials: int, stopped: threading.Event) -> bool:
    """Return whether another trial is to be begun; waits for those under way elsewhere, which may have been killed.

    A killed one gives no sign of life for :data:`GONE` seconds, and is then put among those that wait.
    """
    import optuna

    said = False
    while not stopped.is_set():
        optuna.storages.fail_stale_trials(study)
        states = [result.state for result in results(study)]
        running = states.count("running")
        if len(states) < trials:
            return True
        if not running:
            return False
        if not said:
            print(f"search: waiting for {running} trials under way", file=sys.stderr, flush=True)
        said = True
        stopped.wait(LOOK_SECONDS)
    return False


def run(wanted: Plan, storage: str, *, workers: int = 1, trainer: Trainer = train) -> optuna.Study:
    """Run trials until there are as many as asked for, counting those of other machines.

    Args:
        wanted: see :func:`plan`.
        storage: address of the database.
        workers: trials at once; each training is a process of its own.
        trainer: see :data:`Trainer`.

    Raises:
        UserError: the entry as it stands cannot be trained, three trials failed one after the other, or the database
            went away.
    """
    study = open_study(wanted, storage)
    workers = min(workers, wanted.settings.trials)
    stopped, failures = threading.Event(), []
    # One trial is chosen at a time: SQLite would give one that waits to two threads, and Python 3.11 counts the depth
    # of its parser for all threads at once.
    turn, mine = threading.Lock(), threading.local()

    def one_after_the_other() -> None:
        while not stopped.is_set():
            turn.acquire()
            mine.held = True
            try:
                if stopped.is_set() or not _wait_for_a_turn(study, wanted.settings.trials, stopped):
                    return
                study.optimize(objective, n_trials=1, catch=(_AgainError,))
            except UserError as error:
                failures.append(error)
                if len(failures) == 3 or not any(result.state == "complete" for result in results(study)):
                    stopped.set()
                    raise
                print(f"search: a trial failed: {error}", file=sys.stderr, flush=True)
            except BaseException:
                stopped.set()
                raise
            finally:
                chosen()

    def chosen() -> None:
        """Let the next trial be chosen."""
        if mine.held:
            mine.held = False
            turn.release()

    def objective(trial: optuna.Trial) -> float:
        import optuna

        values = suggest(trial, wanted.settings.space)
        pruned, said = False, 0
        try:
            plan = wanted.trial(values)
            chosen()
            log = seed_study.log_of(plan.folder, "train", plan.cell(wanted.settings.seed))

            def stop() -> bool:
                """Tell Optuna of the validations that the training told of since; whether it is not worth going on."""
                nonlocal pruned, said
                text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
                for epoch, score in SCORED.findall(text)[said:]:
                    said += 1
                    if math.isfinite(float(score)):
                        trial.report(float(score), int(epoch))
                pruned = pruned or (said > 0 and trial.should_prune())
                return pruned

            finished = trainer(plan, wanted.settings.seed, stop)
            if not finished and pruned:
                raise optuna.TrialPruned
            score, epoch = score_of(plan, wanted.settings.seed)
        except UserError as error:
            if stopped.is_set():  # it did not fail: this search was stopped
                study.enqueue_trial(values)
                raise KeyboardInterrupt from None
            tries = trial.user_attrs.get("tries", 1)
            if isinstance(error, seed_study.KilledError) and tries < MOST_TRIES:
                print(f"search: trial {trial.number}: {error}; it is tried again", file=sys.stderr, flush=True)
                study.enqueue_trial(values, user_attrs={"tries": tries + 1})
                raise _AgainError from None
            trial.set_user_attr("error", str(error))
            raise
        except KeyboardInterrupt:
            study.enqueue_trial(values)
            raise
        trial.set_user_attr("epoch", epoch)
        print(f"search: trial {trial.number}: score {score:.5g}", file=sys.stderr, flush=True)
        return score

    try:
        _at_once([one_after_the_other] * workers, workers, stopped)
    except Exception as error:
        if isinstance(error, UserError) or (fault := _fault(error)) is None:
            raise
        raise UserError(
            f"the study's database fails: {_words(fault)}; the same command goes on once it can be read and written"
        ) from None
    return study


def _at_once(jobs: Sequence[Callable[[], None]], workers: int, stopped: threading.Event) -> None:
    """Call functions in some threads; where one raises, or this process is stopped, ``stopped`` is set."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done in as_completed([pool.submit(job) for job in jobs]):
                done.result()
        except KeyboardInterrupt:
            stopped.set()
            print("search: stopped; trainings save their state, the same command goes on", file=sys.stderr, flush=True)
            processes.stop_running()
            raise
        finally:
            stopped.set()


def compare(wanted: Plan, best: Result, seeds: Sequence[int], *, workers: int = 1, trainer: Trainer = train) -> Noise:
    """Train the entry as it stands and the best trial with further seeds: not that of the search, which chose it.

    Raises:
        UserError: a training failed.
    """
    plans = (wanted.trial({}), wanted.trial(best.values))
    stopped = threading.Event()

    def job(plan: seed_study.Plan, seed: int) -> Callable[[], None]:
        def call() -> None:
            if not stopped.is_set():
                trainer(plan, seed, lambda: False)
                print(f"search: seed {seed} of {plan.folder.name} is trained", file=sys.stderr, flush=True)

        return call

    _at_once([job(plan, seed) for seed in seeds for plan in plans], workers, stopped)
    found = [[score_of(plan, seed)[0] for seed in seeds] for plan in plans]
    (a, da), (b, db) = map(mean_and_sd, found)
    n = len(seeds)
    error = math.sqrt((da**2 + db**2) / n)
    # Welch's degrees of freedom, for equal numbers of seeds.
    degrees = (n - 1) * (da**2 + db**2) ** 2 / (da**4 + db**4) if error else n - 1
    t = (b - a) / error if error else math.copysign(math.inf, b - a) if a != b else 0.0
    return Noise((a, da), (b, db), tuple(seeds), t, t_quantile(0.975, max(1, math.floor(degrees))))
