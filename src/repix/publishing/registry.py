"""Register exported models, and make one the champion where the gate passed its scores.

A registered model per data set and direction; a version per export, with everything needed
to serve it; the alias ``champion`` on the one in use. The alias moves only where the gate
passed scores of exactly these weights, in a tree that git knows.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from repix.cells import Cell
from repix.directions import Direction
from repix.errors import UserError, printable
from repix.files import atomic_folder, digest_tree, write_json
from repix.paths import WORK
from repix.provenance.git import changes, line_of
from repix.provenance.lineage import Lineage
from repix.registry import FORMATS
from repix.schemas import Exported, Metrics, Side
from repix.tracking import mlflow_run, store

ALIAS = "champion"
PREVIOUS = "repix.previous_champion"
DIGEST = "repix.digest"
SERVED = "repix.served_digest"  # of EXPORT in the registered model
EXPORT = Path("artifacts") / "export"
CARRIED = ("data/image_reader.py", "inference/onnx_file.py")  # by a served model, which has no repix
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow", "tifffile")

Gate = Callable[[Path], tuple[int, str]]


def run_gate(root: Path) -> tuple[int, str]:
    """Run ``repix gate --json`` in a repository; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "repix.cli", "gate", "--json"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout or done.stderr


def model_name(dataset: str, translator: str) -> str:
    """Return the name of the registered model of a data set and a direction."""
    return f"repix-{dataset}" if translator == Direction.SOURCE_TO_TARGET else f"repix-{dataset}-{translator}"


def check_clean(root: Path) -> str:
    """Return the commit of a repository that has no changes beside it.

    Raises:
        UserError: it is no git repository, or something differs from the commit.
    """
    changed = changes(root, whole=True)  # code may lie above the project
    if changed:
        top = line_of(root, "rev-parse", "--show-toplevel")
        first = os.path.relpath(os.path.join(top, changed[0]), root.resolve())
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"the tree is not clean ({first}{more}): commit first, so that the commit tells all")
    return line_of(root, "rev-parse", "HEAD")


def check_export(root: Path, cell: str) -> tuple[Exported, Metrics, str]:
    """Return the records of an export, and check that its bytes are those that the stage left.

    Returns:
        The export's record, the cell's metrics, and the digest of the export.

    Raises:
        UserError: something is missing, changed since, or was not scored with these weights.
    """
    folder = root / "exports" / cell
    if not folder.is_dir():
        there = ", ".join(sorted(one.name for one in folder.parent.glob("*-*-*"))) or "nothing"
        raise UserError(f"{cell}: exports/ does not have it, it has {there}; `dvc repro` makes the cells of run")
    exported, metrics = Exported.read(folder / "export.json"), Metrics.read(root / "metrics" / f"{cell}.json")
    found = digest_tree(folder)
    left = Lineage.read(root / "lineage" / "export" / f"{cell}.json").outputs.get(f"exports/{cell}")
    if found != left:
        raise UserError(f"exports/{cell}: not the bytes that the export stage left; run `dvc checkout` or `dvc repro`")
    scored = metrics.weights(exported.variant)
    if not scored:
        raise UserError(
            f"exports/{cell}: are the {exported.variant} weights, and promotion takes the last ones or their average: "
            f"set export.variant to auto and run `dvc repro`"
        )
    for network, digest in sorted(scored.items()):
        if exported.weights.get(network) != digest:
            raise UserError(
                f"exports/{cell}: its {network} ({exported.variant}) has other weights than metrics/{cell}.json "
                f"scored: the gate's verdict is not about these bytes; run `dvc repro`"
            )
    return exported, metrics, found


def check_gate(root: Path, cell: str, gate: Gate = run_gate) -> str:
    """Ask the gate, and return its summary where it passed the cell.

    Raises:
        UserError: it did not, or it says nothing of the cell.
    """
    code, said = gate(root)
    try:
        record = json.loads(said)
        verdicts = [score for score in record["scores"] if score["cell"] == cell]
    except (ValueError, KeyError, TypeError):
        last = said.strip().splitlines()[-1] if said.strip() else "nothing"
        raise UserError(f"the gate gave no verdict (exit code {code}), it said: {last}") from None
    if code != 0:
        bad = [v for v in record["scores"] if v["verdict"] in ("fail", "incomparable", "contradiction")]
        first = bad[0] if bad else {}
        score = " ".join(first.get(key) or "" for key in ("cell", "translator", "variant", "metric")).strip()
        raise UserError(
            f"the gate is {record['verdict']} (exit code {code}): {score}: {first.get('verdict')}"
            + (f": {first['why']}" if first.get("why") else "")
            + "; see `repix gate`"
        )
    if not any(v["verdict"] in ("pass", "improved") for v in verdicts):
        why = next((v["why"] for v in verdicts if v.get("why")), "it has no score of it to compare")
        raise UserError(f"the gate has not judged {cell}: {why}")
    return str(record.get("summary", record["verdict"]))


def _check_translator(exported: Exported, translator: str) -> None:
    """Raise :class:`UserError` where a translator was not exported."""
    if translator not in exported.bytes:
        raise UserError(f"{exported.cell} has no translator {translator!r}; it has {', '.join(sorted(exported.bytes))}")


def save(root: Path, exported: Exported, translator: str, out: Path) -> None:
    """Write an export as an MLflow model that ``mlflow models serve`` can run.

    Args:
        root: the repository.
        exported: the export's record.
        translator: which of its translators.
        out: a folder that does not exist.

    Raises:
        UserError: there is no such translator, or it was not exported to ONNX.
    """
    import mlflow.pyfunc
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema

    _check_translator(exported, translator)
    model = root / "exports" / exported.cell / translator / FORMATS["onnx"].file
    if not model.is_file():
        raise UserError(f"{exported.cell} was not exported to onnx, which is what is served: add it to export.formats")
    source, _ = Direction(translator).sides(exported.source, exported.target)
    with tempfile.TemporaryDirectory() as temporary:
        # One small folder: the record says what the numbers of the model mean.
        folder = Path(temporary) / "export"
        folder.mkdir()
        shutil.copyfile(model, folder / "model.onnx")
        record = exported.model_dump(mode="json", include={"cell", "variant", "crop_size", "source", "target"})
        write_json(folder / "export.json", record | {"translator": translator})
        mlflow.pyfunc.save_model(
            path=str(out),
            python_model=str(Path(__file__).parents[1] / "exporting" / "pyfunc.py"),
            code_paths=[str(Path(__file__).parents[1] / name) for name in CARRIED],
            artifacts={"export": str(folder)},
            signature=ModelSignature(
                Schema([ColSpec(AnyType(), "image")]),
                Schema([ColSpec(AnyType(), "translation")]),
                ParamSchema([ParamSpec("output", "string", "png")]),
            ),
            input_example=pandas.DataFrame({"image": [_example(exported.crop_size, source)]}),
            # Stated, not inferred: MLflow would run the model and scan its imports for seconds.
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
        )


def _example(size: tuple[int, int], source) -> Any:
    """Return an image of the source's middle value: base64 of a PNG where it is a picture, else integers."""
    import numpy as np
    from PIL import Image

    middle = (np.asarray(source.low) + np.asarray(source.high)) / 2
    array = np.broadcast_to(np.round(middle), (*size, source.channels)).astype(source.dtype)
    if source.colour not in ("rgb", "gray") or source.dtype != "uint8":
        return array.tolist()
    text = io.BytesIO()
    Image.fromarray(array if source.channels == 3 else array[..., 0]).save(text, "PNG")
    return base64.b64encode(text.getvalue()).decode("ascii")


class Registered(NamedTuple):
    """A version of a registered model, brought here.

    Attributes:
        folder: where ``model.onnx`` lies.
        cell, variant, crop_size, source, target: as in :class:`repix.schemas.Exported`.
        translator: the one that the model is.
    """

    folder: Path
    cell: str
    variant: str
    crop_size: tuple[int, int]
    source: Side
    target: Side
    translator: str


def fetch(root: Path, uri: str) -> Registered:
    """Bring a version of a registered model into the work folder of a repository, unless it is there.

    Args:
        root: the repository, whose registry is asked (``MLFLOW_TRACKING_URI``, or its own database).
        uri: ``models:/<name>@<alias>`` or ``models:/<name>/<version>``, as ``repix promote`` tells it.

    Raises:
        UserError: there is no such model, or it is none that ``repix promote`` registered.
    """
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))", uri)
    if not parts:
        raise UserError(f"{uri}: say models:/<name>@{ALIAS}, or models:/<name>/<version>")
    name, alias, number = parts.groups()
    own = store.sqlite_path(store.tracking_uri(root))
    if own is not None and not own.is_file():
        raise UserError(f"{uri}: no registry: {own} is not there; `repix promote CELL`, or set MLFLOW_TRACKING_URI")
    client, store_uri = store.connect(root.resolve())
    import mlflow.artifacts

    with _answered(uri):
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        kept = root / WORK / "registry" / quote(f"{name}-{version.version}", safe="") / version.run_id
        folder, digest = kept / EXPORT, version.tags.get(SERVED)
        if digest is None:
            raise UserError(f"{uri}: is no model that `repix promote` registered")
        if not _is_whole(folder, digest):
            with atomic_folder(kept) as brought, store.as_default(store_uri):
                where = f"models:/{name}/{version.version}"
                mlflow.artifacts.download_artifacts(artifact_uri=where, dst_path=str(brought))
                if not _is_whole(brought / EXPORT, digest):
                    raise UserError(f"{uri}: the registry's files are not those that `repix promote` put there")
    try:
        record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        sides = (Side.model_validate(record[side]) for side in ("source", "target"))
        size, translator = (int(side) for side in record["crop_size"]), Direction(record["translator"])
        return Registered(folder, record["cell"], record["variant"], tuple(size), *sides, translator.value)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{uri}: is no model that `repix promote` registered") from None


@contextmanager
def _answered(asked: str) -> Iterator[None]:
    """Tell in one line what MLflow refuses, or that its store cannot be reached."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise UserError(f"{asked}: MLflow says: {printable(error.message.splitlines()[0])}") from None


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether a folder holds what was registered."""
    return folder.is_dir() and digest == digest_tree(folder)


def promote(
    root: Path, cell: str, *, translator: str = Direction.SOURCE_TO_TARGET, gate: Gate = run_gate
) -> dict[str, Any]:
    """Register the export of a cell, unless it is, and make it the champion.

    Args:
        root: the repository.
        cell: a cell that is exported and scored.
        translator: which of its translators.
        gate: how the gate is asked; see :func:`run_gate`.

    Returns:
        ``model``, ``version``, ``previous`` (version or None), ``gate`` and ``uri``.

    Raises:
        UserError: the tree is not clean, the bytes are not those that were scored, or the
            gate did not pass them, or the lineage of their training is missing; then nothing was changed.
    """
    commit = check_clean(root)
    exported, metrics, digest = check_export(root, cell)
    _check_translator(exported, translator)
    verdict = check_gate(root, cell, gate)
    dataset = Cell.named(cell).dataset
    name = model_name(dataset, translator)
    folders = [f"exports/{cell}", f"runs/{cell}", f"data/prepared/{dataset}"]
    inputs = Lineage.read(root / "lineage" / "export" / f"{cell}.json").inputs
    run_key = mlflow_run.lineage_of(cell, inputs.get(f"runs/{cell}", ""), root).run_key
    tags = {
        DIGEST: digest,
        "repix.cell": cell,
        mlflow_run.RUN_KEY: run_key,
        "repix.variant": exported.variant,
        "repix.git_commit": commit,
        "repix.gate": verdict[:5000],
        "repix.dataset_digest": inputs.get(f"data/prepared/{dataset}", ""),
        "repix.n": str(metrics.images(translator)),
        **mlflow_run.dvc_tags(root, folders),
        **{
            f"repix.{metric}": repr(value)
            for metric, value in sorted((metrics.scores[translator].get(exported.variant) or {}).items())
            if value is not None
        },
    }
    place = root.resolve()  # MLflow names what lies in it by file: addresses, which are absolute
    client, uri = store.connect(place)
    from mlflow.exceptions import MlflowException

    run = mlflow_run.open_run(cell, run_key=run_key, root=place)
    if not run:
        raise UserError("the registry needs tracking, and it is off (REPIX_TRACKING, or the line above)")
    with _answered(name):
        try:
            client.create_registered_model(name, description=f"{translator} translators of the data set {dataset}")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name = '{name}'")
        same = [v for v in versions if v.tags.get(DIGEST) == digest and v.tags.get("repix.cell") == cell]
        if same:
            version = str(same[0].version)
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, value)
        else:
            folder = f"registry/{translator}-{digest[:16]}"
            with tempfile.TemporaryDirectory() as temporary, store.as_default(uri):
                save(root, exported, translator, Path(temporary) / "model")
                served = {SERVED: digest_tree(Path(temporary) / "model" / EXPORT)}
                client.log_artifacts(run.run_id, str(Path(temporary) / "model"), folder)
            source = f"{client.get_run(run.run_id).info.artifact_uri}/{folder}"
            version = str(client.create_model_version(name, source, run_id=run.run_id, tags=tags | served).version)
        before = champion(client, name)
        if before != version:
            if before is not None:
                client.set_model_version_tag(name, version, PREVIOUS, before)
            client.set_registered_model_alias(name, ALIAS, version)
    return _told(name, version, before if before != version else None, verdict)


def champion(client: Any, name: str) -> str | None:
    """Return the version that carries the alias, or None where there is no such model, or none that does."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return aliases.get(ALIAS) and str(aliases[ALIAS])


def rollback(root: Path, dataset: str, *, translator: str = Direction.SOURCE_TO_TARGET) -> dict[str, Any]:
    """Move the alias back to the champion before this one; return as :func:`promote`.

    Raises:
        UserError: there is no champion, or it had none before it.
    """
    client, _ = store.connect(root.resolve())
    name = model_name(dataset, translator)
    with _answered(name):
        now = champion(client, name)
        if now is None:
            raise UserError(f"{name} has no champion")
        before = client.get_model_version(name, now).tags.get(PREVIOUS)
        if before is None:
            raise UserError(f"{name}: version {now} is the first champion, there is none to go back to")
        client.set_registered_model_alias(name, ALIAS, before)
    return _told(name, before, now, None)


def _told(name: str, version: str, previous: str | None, verdict: str | None) -> dict[str, Any]:
    uri = f"models:/{name}@{ALIAS}"
    return {"model": name, "version": version, "previous": previous, "gate": verdict, "uri": uri}
