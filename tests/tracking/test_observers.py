"""The progress bar without and with a terminal; the loss table."""

import io
import re
import struct

import pytest

from repix.errors import UserError
from repix.tracking.progress import ProgressBar
from repix.training.history import Row, read_table, table_text, write_curves, write_losses

PLAN = {"cell": "sample-tiny-0", "steps": 8, "epochs": 2, "steps_per_epoch": 4, "first_step": 0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(observer, first_step=0):
    observer.started(PLAN | {"first_step": first_step})
    for step in range(first_step + 1, 9):
        observer.step_done(step)
        if step % 4 == 0:
            observer.epoch_ended(step // 4, step, {"G": 1 / step, "D": 0.25 + step})
            observer.validated(step // 4, step, {"l1": 0.1 * step})


def test_without_a_terminal_there_is_one_line_per_epoch():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    train(bar)
    bar.finished(8)
    lines = stream.getvalue().splitlines()
    assert re.search(r"step 4/8, \d+ s left: ", lines[0])
    lines[0] = re.sub(r", \d+ s left", "", lines[0])
    assert lines == [
        "sample-tiny-0: epoch 1/2, step 4/8: D 4.25, G 0.25",
        "sample-tiny-0: epoch 1/2, validation: l1 0.4",
        "sample-tiny-0: epoch 2/2, step 8/8: D 8.25, G 0.125",
        "sample-tiny-0: epoch 2/2, validation: l1 0.8",
    ]


def test_on_a_terminal_the_bar_goes_on_from_the_checkpoint_and_shows_losses():
    stream = Terminal()
    bar = ProgressBar(stream)
    train(bar, first_step=4)
    bar.finished(8)
    last = stream.getvalue().split("\r")[-1]
    assert "8/8" in last and "G=0.125" in last and "50%" in stream.getvalue()


def test_failure_before_the_start_is_no_failure_of_the_bar():
    bar = ProgressBar(io.StringIO())
    bar.failed(ValueError("bad weights"))
    assert bar._bar is None


def test_the_table_holds_every_epoch_with_names_sorted(tmp_path):
    path = tmp_path / "losses.csv"
    write_losses(path, [{"epoch": 1, "step": 4, "G": 0.25, "D": 4.25}, {"epoch": 2, "step": 8, "D": 8.25, "G": 0.125}])
    assert path.read_text() == "epoch,step,D,G\n1,4,4.25,0.25\n2,8,8.25,0.125\n"


def test_curves_are_files_of_their_own_without_gaps(tmp_path):
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "old.csv").touch()
    write_curves(
        tmp_path / "curves",
        [{"epoch": 1, "step": 4, "G": 0.25}, {"epoch": 2, "step": 8, "G": 0.5, "val_l1": 0.125}],
    )
    found = {path.name: path.read_text() for path in (tmp_path / "curves").iterdir()}
    assert found == {"G.csv": "epoch,step,G\n1,4,0.25\n2,8,0.5\n", "val_l1.csv": "epoch,step,val_l1\n2,8,0.125\n"}


def test_numbers_are_the_float32_and_nothing_more():
    text = table_text([Row(1, 1, {"a": 0.1, "b": 0.1 + 1e-12})])
    a, b = text.splitlines()[1].split(",")[2:]
    assert a == b == repr(struct.unpack("f", struct.pack("f", 0.1))[0])


def test_reading_gives_the_rows_back(tmp_path):
    (tmp_path / "losses.csv").write_text(table_text([Row(1, 4, {"G": 0.5}), Row(2, 8, {"D": 0.25})]))
    assert read_table(tmp_path / "losses.csv") == [Row(1, 4, {"G": 0.5}), Row(2, 8, {"D": 0.25})]


@pytest.mark.parametrize("content", [None, "epoch,loss\n1,2\n", "epoch,step,G\n1,4,much\n"])
def test_what_is_no_table_is_refused_by_name(tmp_path, content):
    path = tmp_path / "losses.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"losses\.csv"):
        read_table(path)
