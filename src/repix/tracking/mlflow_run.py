"""MLflow beside the route: one run per trained cell, found again by its run key.

Everything here may fail without consequence. The first failure is said in one line on
stderr, the run goes silent, and the stage goes on to the same outs; what was missed is in
the outs and records, from which the same functions rebuild it (``repix sync``). So every
function that logs is idempotent: logging what is already there changes nothing.

MLflow is imported inside functions, since that takes seconds.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import logging
import os
import platform
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repix import profile, yaml12
from repix.errors import UserError
from repix.files import canonical_json, digest_text, locked, process_name
from repix.paths import LINEAGE
from repix.provenance.lineage import Lineage
from repix.schemas import Manifest, Metrics
from repix.training.history import Row
from repix.training.observer import Observer

if TYPE_CHECKING:
    import numpy as np

RUN_KEY = "repix.run_key"
LOCK_SECONDS = 5  # how long to wait for another process's write to the local database
OPEN_SECONDS = 60  # how long to wait for another process to make or migrate that database
_PARAM_LENGTH = 6000  # longest value that MLflow stores
_BATCH = 100  # most params or tags of one request; for metrics it is 1000


def repository_root(start: str | Path = ".") -> Path:
    """Return the repository that DVC runs in, else the nearest one above ``start``."""
    if os.environ.get("DVC_ROOT"):
        return Path(os.environ["DVC_ROOT"])
    start = Path(start).resolve()
    return next((p for p in (start, *start.parents) if (p / ".dvc").is_dir() or (p / ".git").exists()), start)


def tracking_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI`` where it is set, else the database at the root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested dict as dotted key -> text; lists and other leaves are JSON."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else canonical_json(value)
    return flat


def dataset_entry(manifest: Manifest, digest: str, folder: str) -> dict[str, Any]:
    """Return the description of a prepared data set that :func:`open_run` logs.

    Args:
        manifest: what ``preprocess`` left.
        digest: digest of the manifest, which names the arrays by theirs.
        folder: where the arrays are, relative to the repository.
    """
    counts = {name: {"source": s.source.n, "target": s.target.n} for name, s in sorted(manifest.splits.items())}
    return {"name": manifest.dataset, "digest": digest, "folder": folder, "counts": counts}


def _git(root: Path, *command: str) -> bytes | None:
    """Return what git says, or None where there is no git or no repository."""
    # Without this, two stages that ask at once could fail on each other's lock of the index.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, check=True, env=environment, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def git_tags(root: Path) -> dict[str, str]:
    """Return the commit, whether the tree differs from it, and the digest of the difference.

    dvc.lock and metrics/ are left out of the difference: the pipeline itself writes them.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    aside = ("--", ".", ":(exclude)dvc.lock", ":(exclude)metrics")
    status = _git(root, "status", "--porcelain", *aside) or b""
    tags = {"mlflow.source.git.commit": commit.decode().strip(), "repix.git_dirty": str(bool(status)).lower()}
    if status:
        difference = (status + (_git(root, "diff", "HEAD", *aside) or b"")).decode("utf-8", "replace")
        tags["repix.git_dirty_digest"] = digest_text(difference)
    return tags


def recorded_tags(root: Path, md5: str | None) -> dict[str, str]:
    """Return which commit first recorded an out, for a run that did not see its own training.

    That is the oldest commit of HEAD's history whose dvc.lock has the hash, else the DVC
    experiment that has it, named. An out that is in no commit yet gets the tags of the
    working tree, see :func:`git_tags`.

    Args:
        root: the repository.
        md5: hash of the trained cell in dvc.lock; None if it has none.
    """
    if md5:
        commits = (_git(root, "log", "--format=%H", "--reverse", "-S", md5, "--", "dvc.lock") or b"").split()
        if commits:
            return {"mlflow.source.git.commit": commits[0].decode(), "repix.git_dirty": "false"}
        listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname:lstrip=-1)", "refs/exps") or b""
        for line in listed.decode().splitlines():
            commit, name = line.split(" ", 1)
            if md5.encode() in (_git(root, "show", f"{commit}:./dvc.lock") or b""):
                return {"mlflow.source.git.commit": commit, "repix.git_dirty": "false", "repix.experiment": name}
    return git_tags(root)


def dvc_tags(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return ``dvc.<path>`` -> hash in dvc.lock, for paths that some stage writes.

    Inside a stage, dvc.lock is current for what stages above it wrote and stale for the
    stage itself: ask for its dependencies only.
    """
    try:
        lock = yaml12.load((root / "dvc.lock").read_text(encoding="utf-8"), "dvc.lock") or {}
    except (OSError, UserError):
        return {}
    outs = {out["path"]: out.get("md5") for stage in lock.get("stages", {}).values() for out in stage.get("outs", ())}
    return {f"dvc.{path}": outs[path] for path in paths if outs.get(path)}


def observed_tags() -> dict[str, str]:
    """Return what is observed of this process: machine and experiment, never part of a record."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        processor = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)[0]
    tags = {
        "mlflow.source.name": Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        "repix.host": platform.node(),
        "repix.cpu": processor,
        "repix.cpus": str(os.cpu_count()),
        "repix.os": platform.platform(),
        "repix.profile": profile.current().name,
        "repix.process": process_name(os.getpid()),
    }
    with contextlib.suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    if os.environ.get("DVC_EXP_NAME"):
        tags["repix.experiment"] = os.environ["DVC_EXP_NAME"]
    return tags


def _quiet(method: Callable) -> Callable:
    """Make a method of :class:`Run` do nothing once the run is off, and turn it off if it raises."""

    @functools.wraps(method)
    def guarded(self, *args: Any, **kwargs: Any) -> Any:
        if self.client is None:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.off(error)
            return None

    return guarded


class Run:
    """One MLflow run, or nothing: where tracking is off or broken, every method does nothing.

    Attributes:
        cell: the cell's name, which is the run's name.
        client: ``MlflowClient``, or None once tracking is off.
        run_id: MLflow's id, or None.
    """

    def __init__(self, cell: str, client: Any = None, run_id: str | None = None, uri: str | None = None):
        self.cell, self.client, self.run_id, self.uri = cell, client, run_id, uri

    def __bool__(self) -> bool:
        return self.client is not None

    def off(self, error: BaseException) -> None:
        """Go silent for good, and say once why."""
        self.client = None
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(
            f"tracking is off for {self.cell}, results are not affected (`repix sync` catches up): {said}",
            file=sys.stderr,
        )

    def _data(self):
        return self.client.get_run(self.run_id).data

    @_quiet
    def params(self, params: Mapping[str, Any]) -> None:
        """Log params (nested ones are flattened) that the run does not have; MLflow lets none change."""
        from mlflow.entities import Param

        known = self._data().params
        new = [Param(key, value[:_PARAM_LENGTH]) for key, value in flatten(params).items() if key not in known]
        for first in range(0, len(new), _BATCH):
            self.client.log_batch(self.run_id, params=new[first : first + _BATCH])

    @_quiet
    def tags(self, tags: Mapping[str, str], *, replace: bool = True) -> None:
        """Set tags; with ``replace=False`` only those that the run does not have."""
        from mlflow.entities import RunTag

        known = self._data().tags
        wanted = {key: str(value) for key, value in tags.items() if replace or key not in known}
        new = [RunTag(key, value) for key, value in wanted.items() if known.get(key) != value]
        for first in range(0, len(new), _BATCH):
            self.client.log_batch(self.run_id, tags=new[first : first + _BATCH])

    @_quiet
    def curve(self, group: str, rows: Iterable[Row]) -> None:
        """Log ``<group>/<name>`` at the steps of ``rows`` that the run does not have yet.

        Training calls it with one row at a time, ``sync`` with a whole loss table. Values are
        rounded to float32, as in that table, so that both log the same numbers.
        """
        import numpy as np
        from mlflow.entities import Metric

        rows = list(rows)
        names = sorted({name for row in rows for name in row.values})
        present = {name: self._steps(f"{group}/{_key(name)}") for name in names}
        now = int(time.time() * 1000)
        new = [
            Metric(f"{group}/{_key(name)}", float(np.float32(value)), now, row.step)
            for row in rows
            for name, value in sorted(row.values.items())
            if row.step not in present[name]
        ]
        for first in range(0, len(new), 1000):
            self.client.log_batch(self.run_id, metrics=new[first : first + 1000])
        for name in names:
            present[name].update(row.step for row in rows if name in row.values)

    def _steps(self, key: str) -> set[int]:
        """Return the steps at which a metric is known to be there; asked of the store once per key."""
        known = self.__dict__.setdefault("_present", {})
        if key not in known:
            known[key] = {metric.step for metric in self.client.get_metric_history(self.run_id, key)}
        return known[key]

    @_quiet
    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture at a step of the series ``name``, unless the run has one there.

        Args:
            step: training step.
            name: the series, which gets a slider over steps.
            image: uint8 (height, width, 3).
        """
        if not hasattr(self, "_pictures"):
            self._pictures = {
                file.path.rsplit("/", 1)[-1].split("+timestamp+")[0]
                for file in self.client.list_artifacts(self.run_id, "images")
            }
        key = _key(name)
        file = f"{key.replace('/', '~')}+step+{step}"  # as MLflow names it
        if file not in self._pictures:
            self.client.log_image(self.run_id, image, key=key, step=step)
            self._pictures.add(file)

    @_quiet
    def file(self, path: Path, folder: str) -> None:
        """Log a file as an artifact of the run, below ``folder``; one of the same name is replaced."""
        self.client.log_artifact(self.run_id, str(path), folder)

    @_quiet
    def dataset(self, entry: Mapping[str, Any]) -> None:
        """Log a data set, as :func:`dataset_entry` describes it, as the run's training input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=entry["name"],
            digest=entry["digest"][:36],  # MLflow's limit
            source_type="dvc",
            source=canonical_json({"folder": entry["folder"], "sha256": entry["digest"]}),
            profile=canonical_json(entry["counts"]),
        )
        self.client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "train")])])

    @_quiet
    def status(self, status: str) -> None:
        """Set RUNNING, FINISHED, FAILED or KILLED."""
        if status == "RUNNING":
            self.client.update_run(self.run_id, status)
        elif self.client.get_run(self.run_id).info.status != status:
            self.client.set_terminated(self.run_id, status)

    @_quiet
    def scores(self, metrics: Metrics) -> None:
        """See :func:`log_metrics_record`."""
        self.client.log_dict(self.run_id, metrics.model_dump(mode="json"), f"metrics/{metrics.cell}.json")
        values, known = _scores(metrics), self._data().metrics
        self._log_values({key: value for key, value in values.items() if known.get(key) != value})
        for model in self._models():
            self._score_model(model, values)

    def _log_values(self, values: Mapping[str, float], model_id: str | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        listed = [Metric(key, value, now, 0, model_id=model_id) for key, value in sorted(values.items())]
        if listed:
            self.client.log_batch(self.run_id, metrics=listed)

    def _score_model(self, model, values: Mapping[str, float]) -> None:
        """Link scores to a model entry, those that it does not have."""
        known = {metric.key: metric.value for metric in model.metrics or ()}
        self._log_values({key: value for key, value in values.items() if known.get(key) != value}, model.model_id)

    def _models(self) -> list:
        """Return the run's model entries, with their metrics."""
        experiment = self.client.get_run(self.run_id).info.experiment_id
        found = self.client.search_logged_models([experiment], filter_string=f"source_run_id = '{self.run_id}'")
        return [self.client.get_logged_model(model.model_id) for model in found]

    @_quiet
    def model(self, name: str, folder: str, digest: str, tags: Mapping[str, str], metrics: Metrics | None) -> str:
        """See :func:`log_model_entry`."""
        import mlflow
        from mlflow.entities import LoggedModelOutput

        wanted = {"repix.digest": digest, "repix.folder": folder, RUN_KEY: self._data().tags.get(RUN_KEY, ""), **tags}
        same = [m for m in self._models() if m.name == name and m.tags.get("repix.digest") == digest]
        if same:
            model = same[0]
            self.client.set_logged_model_tags(model.model_id, wanted)
        else:
            experiment = self.client.get_run(self.run_id).info.experiment_id
            with _as_default(self.uri):
                model = mlflow.create_external_model(
                    name=name, source_run_id=self.run_id, tags=wanted, experiment_id=experiment
                )
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        if metrics is not None:
            self._score_model(model, _scores(metrics))
        return model.model_id


@contextlib.contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's default for a while: some calls have no client of their own."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # which also sets the variable, for child processes
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _key(name: str) -> str:
    """Return a metric's or picture's name in the letters that MLflow accepts."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


def _scores(metrics: Metrics) -> dict[str, float]:
    """Return ``test/<translator>/<variant>/<metric>`` -> score, for scores that are numbers."""
    return {
        f"test/{_key(translator)}/{_key(variant)}/{_key(metric)}": value
        for translator, variants in metrics.scores.items()
        for variant, scores in variants.items()
        for metric, value in (scores or {}).items()
        if value is not None
    }


def _alone(root: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a lock against other processes of this repository, waiting OPEN_SECONDS at most.

    Two that start at once would both create the database, or both create the run.
    """
    return locked(root / ".repix" / "tracking.lock", "MLflow's database", seconds=OPEN_SECONDS)


def _check_sqlite(uri: str) -> None:
    """Raise at once where a local database cannot be written: MLflow would try for minutes."""
    path = uri.removeprefix("sqlite:///").split("?")[0]
    with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        # On a read-only database even that succeeds: only a write tells.
        database.execute("PRAGMA user_version = 0")
        database.rollback()


def connect(root: Path) -> tuple[Any, str]:
    """Return an MLflow client and its tracking URI; the local database is made where missing.

    Waiting is bounded: a dead server costs seconds. The user's own settings of
    ``MLFLOW_HTTP_REQUEST_*`` are left as they are.

    Raises:
        Exception: whatever is wrong with MLflow or its store.
    """
    for name, value in {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///"):
        _check_sqlite(uri)
    from mlflow import MlflowClient

    # What MLflow has to say while it fails or migrates belongs to nobody's stage output.
    for name in ("mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri, uri), uri


def experiment_id(client: Any, uri: str, root: Path, name: str = "repix") -> str:
    """Return the id of an experiment, created where missing."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    # By default a local store would put artifacts below the working directory.
    local = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    return client.create_experiment(name, artifact_location=local)


def enabled() -> bool:
    """Whether tracking is wanted: ``REPIX_TRACKING=off`` says it is not."""
    return os.environ.get("REPIX_TRACKING", "").lower() not in ("off", "0", "false", "no")


def close_orphans(root: Path, experiment: str = "repix") -> tuple[list[str], list[str]]:
    """Close runs that are RUNNING though their process is gone: kill -9 leaves them so for ever.

    Args:
        root: the repository.
        experiment: MLflow experiment.

    Returns:
        Names of runs that were set to KILLED, and of those left RUNNING because another
        machine trains them or they do not say which process does.

    Raises:
        Exception: whatever is wrong with MLflow or its store.
    """
    with _alone(root):
        client, uri = connect(root)
        place = experiment_id(client, uri, root, experiment)
        closed, unsure = [], []
        for run in client.search_runs([place], filter_string="attributes.status = 'RUNNING'", max_results=5000):
            tags = run.data.tags
            process = tags.get("repix.process")
            if process is None or tags.get("repix.host") != platform.node():
                unsure.append(run.info.run_name)
            elif process_name(int(process.split("-")[0])) != process:
                client.set_terminated(run.info.run_id, "KILLED")
                closed.append(run.info.run_name)
    return sorted(closed), sorted(unsure)


def open_run(
    cell: str,
    *,
    run_key: str,
    experiment: str = "repix",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    dataset: Mapping[str, Any] | None = None,
    dvc_paths: Iterable[str] = (),
    training: bool = False,
    root: Path | None = None,
) -> Run:
    """Find the run of a trained cell by its run key, or create it; never raises.

    Args:
        cell: the cell's name, which becomes the run's.
        run_key: the key in the cell's :class:`repix.schemas.Trained` record.
        experiment: MLflow experiment.
        params: nested recipe; only keys that the run does not have are logged.
        tags: more tags; without ``training``, only those that the run does not have.
        dataset: see :func:`dataset_entry`.
        dvc_paths: dependencies whose hash in dvc.lock becomes a tag, see :func:`dvc_tags`.
        training: whether this process trains the cell. Then the run is RUNNING (also one
            that a kill left so), and commit, machine, profile and DVC experiment are
            tagged. Otherwise (evaluate, export, sync) the training is over: a run that is
            created, or was left RUNNING, is FINISHED.
        root: the repository; None finds it.

    Returns:
        The run; a silent one where ``REPIX_TRACKING=off`` or tracking does not work.
    """
    run = Run(cell)
    if enabled():
        _open(run, run_key, experiment, params or {}, tags or {}, dataset, list(dvc_paths), training, root)
    return run


def _open(run, run_key, experiment, params, tags, dataset, dvc_paths, training, root) -> None:
    """Connect ``run`` to its MLflow run and log what is known of it; arguments as above."""
    try:
        root = root or repository_root()
        with _alone(root):
            client, run.uri = connect(root)
            place = experiment_id(client, run.uri, root, experiment)
            found = client.search_runs(
                [place], filter_string=f"tags.`{RUN_KEY}` = '{run_key}'", order_by=["attributes.start_time ASC"]
            )
            if found:
                run.run_id = found[0].info.run_id
            else:
                new = {RUN_KEY: run_key, "repix.cell": run.cell}
                run.run_id = client.create_run(place, run_name=run.cell, tags=new).info.run_id
        run.client = client
        here = Path.cwd()  # under `dvc exp run --temp` not the root: the code that runs is here
        observed = (git_tags(here) | observed_tags()) if training else {}
        run.tags(observed | dvc_tags(here, dvc_paths) | dict(tags), replace=training)
        run.params(params)
        if dataset:
            run.dataset(dataset)
        before = found[0].info.status if found else "RUNNING"
        if training != (before == "RUNNING"):
            run.status("RUNNING" if training else "FINISHED")
    except Exception as error:
        run.off(error)


class MLflowObserver(Observer):
    """Sends a training's events to its MLflow run.

    Args:
        run: what :func:`open_run` gave with ``training=True``.
    """

    def __init__(self, run: Run):
        self.run = run

    def started(self, plan: dict[str, Any]) -> None:
        sizes = {f"parameters.{name}": count for name, count in plan["parameters"].items()}
        totals = {key: plan[key] for key in ("steps", "epochs", "steps_per_epoch")}
        self.run.params(plan["recipe"] | sizes | totals)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        self.run.curve("loss", [Row(epoch, step, losses)])

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        self.run.curve("val", [Row(epoch, step, scores)])

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        self.run.picture(step, name, image)

    def finished(self, step: int) -> None:
        self.run.status("FINISHED")

    def failed(self, error: BaseException) -> None:
        self.run.status("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")


def log_metrics_record(run: Run, metrics: Metrics) -> None:
    """Log a cell's test scores, with the record itself as a file, also to its model entries.

    The names are ``test/<translator>/<variant>/<metric>``; a score that is null is left out.
    """
    run.scores(metrics)


def log_pictures(run: Run, pictures: Mapping[str, np.ndarray | Path], step: int = 0) -> None:
    """Log pictures by name; each is uint8 (height, width, 3), or the path of a PNG that we wrote."""
    for name, picture in pictures.items():
        if isinstance(picture, Path):
            picture = _pixels(picture)
        run.picture(step, name, picture)


def _pixels(path: Path) -> np.ndarray:
    # Without the reader of the data, which the evaluation must not depend on.
    import numpy as np
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def log_model_entry(
    run: Run,
    name: str,
    folder: str,
    digest: str,
    *,
    tags: Mapping[str, str] | None = None,
    metrics: Metrics | None = None,
) -> str | None:
    """Log an exported model as an entry without bytes: those stay in DVC.

    Args:
        run: the cell's run.
        name: the entry's name, such as the cell's name or ``<cell>-<format>``.
        folder: where the export lies, relative to the repository.
        digest: digest of the export; another digest makes another entry.
        tags: more tags, such as :func:`dvc_tags`.
        metrics: scores that are linked to the entry.

    Returns:
        MLflow's model id, or None where tracking is off.
    """
    return run.model(name, folder, digest, tags or {}, metrics)


def run_key_of(cell: str, root: Path = Path()) -> str | None:
    """Return the run key of a trained cell from its lineage record, or None where there is none."""
    path = root / LINEAGE / "train" / f"{cell}.json"
    return Lineage.read(path).run_key if path.is_file() else None
