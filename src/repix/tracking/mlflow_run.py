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
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repix import machine, profile, yaml12
from repix.errors import UserError, printable
from repix.files import canonical_json, digest_text, process_name
from repix.paths import LINEAGE, RUNS
from repix.provenance.lineage import Lineage
from repix.schemas import Manifest, Metrics, flat
from repix.tracking import curves, store
from repix.training.history import Row
from repix.training.observer import Observer

if TYPE_CHECKING:
    import numpy as np

RUN_KEY = "repix.run_key"
PARENT_RUN = "REPIX_PARENT_RUN"  # in the environment of a study's stages: the run that theirs are nested under
_PARENT_TAG = "mlflow.parentRunId"
_PARAM_LENGTH = 6000  # longest value that MLflow stores
_BATCH = 100  # most params or tags of one request; for metrics it is 1000


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
    tags = {
        "mlflow.source.name": Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        "repix.host": platform.node(),
        "repix.cpu": machine.processor(),
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
        cell: the cell's name.
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
        said = printable(" ".join(str(error).split()))  # a server's words may hold what commands a terminal
        if not isinstance(error, UserError):  # which says what to do
            said = f"{type(error).__name__}: {said[:200]}"
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
    def curve(self, rows: Iterable[Row]) -> None:
        """Log the values of ``rows`` at their steps, those that the run does not have yet.

        Training calls it with one row at a time, ``sync`` with a whole loss table. Values are
        rounded to float32, as in that table, so that both log the same numbers.
        """
        import numpy as np
        from mlflow.entities import Metric

        rows = list(rows)
        names = sorted({name for row in rows for name in row.values})
        present = {name: self._steps(_key(name)) for name in names}
        now = int(time.time() * 1000)
        new = [
            Metric(_key(name), float(np.float32(value)), now, row.step)
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
            with store.as_default(self.uri):
                model = mlflow.create_external_model(
                    name=name, source_run_id=self.run_id, tags=wanted, experiment_id=experiment
                )
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        if metrics is not None:
            self._score_model(model, _scores(metrics))
        return model.model_id


def _key(name: str) -> str:
    """Return a metric's or picture's name in the letters that MLflow accepts."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


def _scores(metrics: Metrics) -> dict[str, float]:
    """Return ``score/test/<translator>/<variant>/<metric>`` -> score, for scores that are numbers."""
    return {
        f"score/test/{'/'.join(map(_key, key))}": value
        for key, value in flat(metrics.scores).items()
        if value is not None
    }


def close_orphans(root: Path) -> tuple[list[str], list[str]]:
    """Close runs that are RUNNING though their process is gone: kill -9 leaves them so for ever.

    Args:
        root: the repository.

    Returns:
        Names of runs that were set to KILLED, and of those left RUNNING because another
        machine trains them or they do not say which process does.

    Raises:
        Exception: whatever is wrong with MLflow or its store.
    """
    with store.alone(root):
        client, uri = store.connect(root)
        place = store.experiment_id(client, uri, root)
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
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    dataset: Mapping[str, Any] | None = None,
    training: bool = False,
    root: Path | None = None,
) -> Run:
    """Find the run of a trained cell by its run key, or create it; never raises.

    Args:
        cell: the cell's name. The run is named after the DVC experiment, or else the first
            digits of the run key, and after it, so that a list of runs tells them apart.
        run_key: the key in the lineage of the cell's training, see :func:`lineage_of`.
        params: nested recipe; only keys that the run does not have are logged.
        tags: more tags; without ``training``, only those that the run does not have.
        dataset: see :func:`dataset_entry`.
        training: whether this process trains the cell. Then the run is RUNNING (also one
            that a kill left so), and commit, machine, profile and DVC experiment are
            tagged. Otherwise (evaluate, export, sync) the training is over: a run that is
            created, or was left RUNNING, is FINISHED.
        root: the repository; None finds it.

    Returns:
        The run; a silent one where ``REPIX_TRACKING=off`` or tracking does not work.
    """
    run = Run(cell)
    if store.enabled():
        _open(run, run_key, params or {}, tags or {}, dataset, training, root)
    return run


def _open(run, run_key, params, tags, dataset, training, root) -> None:
    """Connect ``run`` to its MLflow run and log what is known of it; arguments as above."""
    try:
        root = root or store.repository_root()
        observed = observed_tags() if training else {}
        with store.alone(root):
            client, run.uri = store.connect(root)
            place = store.experiment_id(client, run.uri, root)
            parent = os.environ.get(PARENT_RUN)
            found = client.search_runs(
                [place], filter_string=f"tags.`{RUN_KEY}` = '{run_key}'", order_by=["attributes.start_time ASC"]
            )
            # A study trains the pipeline's cells again: those runs are not the pipeline's.
            found = [each for each in found if each.data.tags.get(_PARENT_TAG) == parent]
            if found:
                run.run_id = found[0].info.run_id
            else:
                new = {RUN_KEY: run_key} | ({_PARENT_TAG: parent} if parent else {})
                # What tells runs apart stands first: MLflow's page cuts names.
                name = f"{observed.get('repix.experiment') or tags.get('repix.experiment') or run_key[:7]} {run.cell}"
                run.run_id = client.create_run(place, run_name=name, tags=new).info.run_id
        run.client = client
        run.tags(_about(run.cell, run_key), replace=False)
        here = Path.cwd()  # under `dvc exp run --temp` not the root: the code that runs is here
        observed |= git_tags(here) if training else {}
        run.tags(observed | dict(tags), replace=training)
        run.params(params)
        if dataset:
            run.dataset(dataset)
        before = found[0].info.status if found else "RUNNING"
        if training != (before == "RUNNING"):
            run.status("RUNNING" if training else "FINISHED")
    except Exception as error:
        run.off(error)


def _about(cell: str, run_key: str) -> dict[str, str]:
    """Return a run's description and the tags by which runs are searched, such as ``tags.`repix.seed` = '0'``."""
    parts = dict(zip(("dataset", "model", "seed"), cell.split("-"), strict=False))
    said = ", ".join(f"{name.replace('dataset', 'data set')} `{value}`" for name, value in parts.items())
    note = f"{said}; run key `{run_key[:12]}`\n\n"
    if len(parts) == 3:
        note += (
            f"* weights `runs/{cell}/`, exported `exports/{cell}/` (`dvc pull`), scores `metrics/{cell}.json`\n"
            f"* *Model metrics*: `loss`, `score/val`, `score/test`; *Artifacts*, `images`: samples at each step\n"
            f"* to compare, tick this and another run in the list of runs, then *Compare*"
        )
    else:
        note += "A study: its trainings are the runs nested under this one."
    return {"repix.cell": cell, "mlflow.note.content": note} | {f"repix.{key}": part for key, part in parts.items()}


@contextlib.contextmanager
def study(name: str, *, run_key: str, params: Mapping[str, Any], root: Path) -> Iterator[Run]:
    """Open a run for several cells; those that stages open in the body, in child processes, are nested under it.

    Args:
        name: ``<dataset>-<model>``.
        run_key: digest of all that the cells share.
        params: nested parameters that they share, ``run.profile`` among them: this process enters none.
        root: the repository whose store it goes to.
    """
    tags = {"repix.profile": params["run.profile"]}
    run = open_run(name, run_key=run_key, params=params, tags=tags, training=True, root=root)
    wanted = {PARENT_RUN: run.run_id, "MLFLOW_TRACKING_URI": run.uri} if run else {}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield run
    except BaseException as error:
        run.status(_failure(error))
        raise
    else:
        run.status("FINISHED")
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _failure(error: BaseException) -> str:
    return "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"


def usage() -> dict[str, float]:
    """Return what this process uses of the machine, for MLflow's tab of system metrics; nothing without psutil.

    The processor's share is of one core and counts from the call before.
    """
    try:
        process = _process()
        return {
            "system/cpu_utilization_percentage": process.cpu_percent(),
            "system/process_memory_usage_megabytes": process.memory_info().rss / 1e6,
        }
    except Exception:  # what the machine does not tell is no reason to lose the run
        return {}


@functools.cache
def _process():
    import psutil

    return psutil.Process()


def lineage_of(cell: str, weights: str, root: Path = Path()) -> Lineage:
    """Return the lineage of the training that left a cell's weights: it names the run key.

    Args:
        cell: the cell's name.
        weights: digest of ``runs/<cell>``.
        root: the repository.

    Raises:
        UserError: there is no such record, or it is of other weights.
    """
    name, place = f"{RUNS.as_posix()}/{cell}", f"{LINEAGE.as_posix()}/train/{cell}.json"
    if not (root / place).is_file():
        raise UserError(f"{place}: not there, so the run of {cell} is unknown; `dvc pull {place}` or `dvc repro`")
    record = Lineage.read(root / place)
    if record.outputs.get(name) != weights:
        raise UserError(f"{place}: tells of other weights than {name}; `dvc checkout` or `dvc repro` brings both")
    return record


def run_of(cell: str, weights: str) -> Run:
    """Return the run of a trained cell for a stage that goes on with it; never raises.

    Args:
        cell, weights: see :func:`lineage_of`.
    """
    try:
        return open_run(cell, run_key=lineage_of(cell, weights).run_key)
    except UserError as error:
        run = Run(cell)
        if store.enabled():
            run.off(error)
        return run


class MLflowObserver(Observer):
    """Sends a training's events to its MLflow run.

    Args:
        run: what :func:`open_run` gave with ``training=True``.
    """

    def __init__(self, run: Run):
        self.run = run
        self._within: curves.Within | None = None

    def started(self, plan: dict[str, Any]) -> None:
        self._within = curves.Within(plan)
        sizes = {f"parameters.{name}": count for name, count in plan["parameters"].items()}
        totals = {key: plan[key] for key in ("steps", "epochs", "steps_per_epoch")}
        self.run.params(plan["recipe"] | sizes | totals)

    def losses(self, step: int, names: list[str], losses: np.ndarray) -> None:
        if points := self._within.add(step, names, losses):
            points[-1].values.update(usage())
            self.run.curve(points)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        self.run.curve([Row(epoch, step, curves.grouped(losses) | usage())])

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        self.run.curve([Row(epoch, step, curves.validation(scores))])

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        self.run.picture(step, name, image)

    def finished(self, step: int) -> None:
        self.run.status("FINISHED")

    def failed(self, error: BaseException) -> None:
        self.run.status(_failure(error))


def log_metrics_record(run: Run, metrics: Metrics) -> None:
    """Log a cell's test scores, with the record itself as a file, also to its model entries.

    The names are ``score/test/<translator>/<variant>/<metric>``; a score that is null is left out.
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
