"""Event files are read back by TensorBoard's own reader."""

import subprocess
import sys

import numpy as np
import pytest

from repix.tracking.tensorboard import TensorBoard

PLAN = {
    "cell": "sample-tiny-0",
    "steps": 8,
    "epochs": 2,
    "steps_per_epoch": 4,
    "first_step": 0,
    "parameters": {"generator": 12},
    "recipe": {"lr": 2e-4},
}


def read(folder):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def losses(folder):
    from tensorboard.util.tensor_util import make_ndarray

    return {event.step: make_ndarray(event.tensor_proto).item() for event in read(folder).Tensors("loss/G")}


def test_losses_scores_pictures_and_recipe_are_there(tmp_path):
    board = TensorBoard(tmp_path)
    board.started(PLAN)
    board.losses(4, ["G"], np.full((4, 1), 0.5, np.float32))
    board.epoch_ended(1, 4, {"G": 0.5})
    board.epoch_ended(2, 8, {"G": 0.25})
    board.validated(2, 8, {"l1": 0.125})
    board.pictures(8, "samples", np.full((6, 18, 3), 200, np.uint8))
    board.finished(8)

    found = read(tmp_path)
    assert set(found.Tags()["tensors"]) == {
        "loss/G",
        "loss_within_epoch/G",
        "score/val/l1",
        "samples",
        "recipe",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    assert losses(tmp_path) == {4: 0.5, 8: 0.25}
    text = found.Tensors("recipe")[0].tensor_proto.string_val[0].decode()
    assert '"lr": 0.0002' in text and '"generator": 12' in text
    width, height, png = found.Tensors("samples")[0].tensor_proto.string_val[:3]
    assert (width, height, png[:4]) == (b"18", b"6", b"\x89PNG")


@pytest.mark.parametrize(("end", "status"), [("finished", "STATUS_SUCCESS"), ("failed", "STATUS_FAILURE")])
def test_the_hparams_tab_gets_the_recipe_and_how_it_ended(tmp_path, end, status):
    from tensorboard.plugins.hparams import api_pb2, metadata

    board = TensorBoard(tmp_path)
    board.started(PLAN | {"recipe": {"lr": 2e-4, "generator": {"kind": "unet", "filters": [1, 2], "skip": True}}})
    getattr(board, end)(8 if end == "finished" else ValueError())
    content = read(tmp_path).SummaryMetadata
    start = metadata.parse_session_start_info_plugin_data(content("_hparams_/session_start_info").plugin_data.content)
    found = {name: value.number_value or value.string_value for name, value in start.hparams.items()}
    assert found == {
        "lr": 2e-4,
        "generator.kind": "unet",
        "generator.filters": "[1,2]",
        "generator.skip": "true",
        "dataset": "sample",
        "model": "tiny",
        "seed": "",  # 0, as the message has it
    }
    ended = metadata.parse_session_end_info_plugin_data(content("_hparams_/session_end_info").plugin_data.content)
    assert ended.status == api_pb2.Status.Value(status)


def test_a_resume_overwrites_what_lay_beyond_the_checkpoint(tmp_path):
    killed = TensorBoard(tmp_path)
    killed.started(PLAN)
    killed.epoch_ended(1, 4, {"G": 0.5})
    killed.epoch_ended(2, 8, {"G": 99.0})
    resumed = TensorBoard(tmp_path)
    resumed.started(PLAN | {"first_step": 4})
    resumed.epoch_ended(2, 8, {"G": 0.25})
    assert losses(tmp_path) == {4: 0.5, 8: 0.25}


def test_a_fresh_start_forgets_the_cells_earlier_curves(tmp_path):
    for value in (0.5, 0.25):
        board = TensorBoard(tmp_path)
        board.started(PLAN)
        board.epoch_ended(1, 4, {"G": value})
        board.finished(4)
    assert losses(tmp_path) == {4: 0.25}
    assert len(list(tmp_path.iterdir())) == 1


def test_neither_tensorflow_nor_torch_is_imported(tmp_path):
    code = (
        "import sys; from repix.tracking.tensorboard import TensorBoard\n"
        f"board = TensorBoard({str(tmp_path)!r}); board.started({PLAN!r}); board.epoch_ended(1, 4, {{'G': 0.5}})\n"
        "print(sorted({'tensorflow', 'torch', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert losses(tmp_path) == {4: 0.5}
