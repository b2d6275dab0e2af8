"""TensorBoard event files, written without TensorFlow or torch.

The format is that of ``tensorboard.compat.proto.event_pb2``: a file of framed ``Event``
messages. ``tensorboard --logdir .repix/tensorboard`` shows them, a run for each training.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repix.cells import Cell
from repix.tracking import curves
from repix.tracking.mlflow_run import flatten
from repix.training.observer import Observer

if TYPE_CHECKING:
    import numpy as np


class EventFile:
    """One event file in ``folder``; every event is flushed, since a viewer reads along."""

    def __init__(self, folder: str | Path):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Viewers recognise event files by "tfevents" and read them in the order of the names.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._event = event_pb2.Event
        self._records = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 (closed by close)
        self.write(file_version="brain.Event:2")

    def write(self, step: int = 0, **what: Any) -> None:
        """Append one event; ``what`` are fields of the ``Event`` message."""
        self._records.write(self._event(wall_time=time.time(), step=step, **what).SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()


def _forget(folder: Path) -> None:
    """Remove the event files that lie in ``folder`` itself."""
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()


class TensorBoard(Observer):
    """Losses, val scores, pictures and the recipe of one training, as event files: one run of the viewer.

    A fresh start replaces the training's earlier event files; a resumed one adds a file
    whose first event makes the viewer forget what lies beyond the checkpoint. The recipe is
    there as text, and as hyperparameters for the tab that compares runs by them.

    Args:
        folder: where the event files go, ``.repix/tensorboard/<cell>/<run key>``: its own for each run
            key, so that two trainings of one cell neither overwrite nor hide each other.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._file: EventFile | None = None
        self._within: curves.Within | None = None

    def started(self, plan: dict[str, Any]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

        if plan["first_step"] == 0:
            _forget(self._folder)
        self._file = EventFile(self._folder)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._file.write(plan["first_step"] + 1, session_log=start)
        recipe = json.dumps({key: plan[key] for key in ("recipe", "parameters")}, indent=2, sort_keys=True)
        text = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
        text.string_val.append(("    " + recipe.replace("\n", "\n    ")).encode())  # indented: Markdown for code
        kind = summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text"))
        value = summary_pb2.Summary.Value(tag="recipe", tensor=text, metadata=kind)
        self._file.write(plan["first_step"], summary=summary_pb2.Summary(value=[value]))
        self._hyperparameters(plan)
        self._within = curves.Within(plan)

    def _hyperparameters(self, plan: dict[str, Any]) -> None:
        """Write what the HParams plugin groups and filters runs by: data set, model, seed and the flat recipe.

        Its own writer imports TensorFlow; the messages alone do not.
        """
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        cell = Cell.named(plan["cell"])
        start = plugin_data_pb2.SessionStartInfo(group_name=plan["cell"], start_time_secs=time.time())
        for name, value in (flatten(plan["recipe"]) | asdict(cell)).items():
            try:
                start.hparams[name].number_value = float(value)
            except ValueError:
                start.hparams[name].string_value = value
        self._session(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    def _session(self, tag: str, **info: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        kind = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**info))
        self._file.write(summary=Summary(value=[Summary.Value(tag=tag, metadata=kind, tensor=metadata.NULL_TENSOR)]))

    def _end(self, status: str) -> None:
        """Say how it ended and close the file."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(status), end_time_secs=time.time())
        self._session(metadata.SESSION_END_INFO_TAG, session_end_info=end)
        self._file.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        listed = [Summary.Value(tag=name, simple_value=value) for name, value in sorted(values.items())]
        self._file.write(step, summary=Summary(value=listed))

    def losses(self, step: int, names: list[str], losses: np.ndarray) -> None:
        for point in self._within.add(step, names, losses):
            self._scalars(point.step, point.values)

    def epoch_ended(self, epoch: int, step: int, losses: dict[str, float]) -> None:
        self._scalars(step, curves.grouped(losses))

    def validated(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        self._scalars(step, curves.validation(scores))

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        height, width, _ = image.shape
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png.getvalue())
        self._file.write(step, summary=Summary(value=[Summary.Value(tag=name, image=shown)]))

    def finished(self, step: int) -> None:
        self._end("STATUS_SUCCESS")

    def failed(self, error: BaseException) -> None:
        if self._file is not None:
            self._end("STATUS_FAILURE")
