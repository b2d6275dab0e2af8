"""The animation is a function of the frames, whether or not the training was interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from repix.errors import UserError
from repix.tracking import animation
from repix.tracking.animation import CAPTION, COLUMNS, LINE, MOST_FRAMES, Frames, assemble, picture_steps

PLAN = {
    "cell": "tiny-pix2pix-0",
    "paired": True,
    "recipe": {"system": "pix2pix", "picture_every": 2},
    "epochs": 5,
    "steps_per_epoch": 10,
    "steps": 50,
    "first_step": 0,
}


def picture(step: int) -> np.ndarray:
    image = np.full((20, 120, 3), 40, np.uint8)
    image[:, : 2 * step] = (200, step, 0)
    return image


def train(root, *legs, steps=(20, 40, 50)) -> Frames:
    """Play a training whose legs end at the given steps; return the last one's observer."""
    first = 0
    for end in legs:
        frames = Frames(root / "frames", "key", root / "animation")
        frames.started(PLAN | {"first_step": first})
        for step in steps:
            # A leg may show again what the one before showed after its last checkpoint.
            if first <= step <= end:
                frames.pictures(step, "samples/source_to_target", picture(step))
        first = end
    frames.finished(50)
    return frames


def test_pictures_come_every_so_many_epochs_and_at_the_end():
    assert picture_steps(5, 2, 10) == [20, 40, 50]
    assert picture_steps(4, 2, 10) == [20, 40]
    assert picture_steps(1, 10, 7) == [7]


def test_frames_are_shown_in_order_each_with_its_picture(tmp_path):
    (path,) = train(tmp_path, 50).written
    assert path == tmp_path / "animation" / "tiny-pix2pix-0" / "key-source_to_target.gif"
    with Image.open(path) as gif:
        assert gif.n_frames == 3 and gif.info["loop"] == 0
        for number, step in enumerate((20, 40, 50)):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB"))
            assert shown.shape == (20 + CAPTION, 120, 3)  # wide enough for the caption
            assert np.abs(shown[CAPTION:].astype(int) - picture(step)).max() <= 8
            assert (shown[:LINE] < 100).any() and (shown[LINE:CAPTION] < 100).any()


def words(columns: int, left: int, text: str) -> np.ndarray:
    """Return where a line of a caption has ink: a text that begins at ``left``, (line, columns) booleans."""
    line = Image.new("RGB", (columns, LINE), "white")
    ImageDraw.Draw(line).text((left + 2, 1), text, "black", ImageFont.load_default_imagefont())
    return np.asarray(line)[..., 0] < 128


@pytest.mark.parametrize(
    ("width", "columns", "named"),
    [
        (150, COLUMNS, {0: "source", 50: "output", 100: "target"}),
        (150, COLUMNS[:2], {0: "source", 75: "output"}),
        (60, COLUMNS, {0: "source, output, target"}),  # names that do not fit over their columns
    ],
)
def test_a_frame_says_when_it_was_and_what_its_columns_are(tmp_path, width, columns, named):
    for step in (5, 10):
        Image.fromarray(np.full((4, width, 3), 90, np.uint8)).save(tmp_path / f"step-{step:09d}.png")
    with Image.open(assemble(tmp_path, [5, 10], tmp_path / "out.gif", per_epoch=5, columns=columns)) as gif:
        for number, when in enumerate(("epoch 1, step 5", "epoch 2, step 10")):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB"))[..., 0] < 128
            assert np.array_equal(shown[:LINE], words(gif.width, 0, when))
            expected = np.any([words(gif.width, left, name) for left, name in named.items()], axis=0)
            assert np.array_equal(shown[LINE:CAPTION], expected)


def test_of_unpaired_data_there_is_no_target(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(animation, "assemble", lambda *given, columns, **named: seen.append(columns))
    for paired in (True, False):
        frames = Frames(tmp_path / "frames", "key", tmp_path / "animation")
        frames.started(PLAN | {"paired": paired})
        frames.finished(50)
    assert seen == [("source", "output", "target"), ("source", "output")]


def test_an_interrupted_training_leaves_the_same_bytes(tmp_path):
    (whole,), (legs,) = train(tmp_path / "a", 50).written, train(tmp_path / "b", 20, 20, 40, 50).written
    assert whole.read_bytes() == legs.read_bytes()
    nothing_left_to_do = Frames(tmp_path / "a" / "frames", "key", tmp_path / "a" / "again")
    nothing_left_to_do.started(PLAN | {"first_step": 50})
    nothing_left_to_do.finished(50)
    assert nothing_left_to_do.written[0].read_bytes() == whole.read_bytes()


def test_missing_frames_leave_no_animation_and_one_line(tmp_path, capsys):
    assert train(tmp_path, 50, steps=(40, 50)).written == []
    said = capsys.readouterr().err
    assert "1 of 3 sample pictures" in said and "step 20" in said and said.count("\n") == 1
    assert not (tmp_path / "animation").exists()
    assert train(tmp_path / "wiped", 50, steps=()).written == []
    assert "3 of 3 sample pictures" in capsys.readouterr().err


def test_a_training_that_continues_a_parent_shows_its_own_pictures(tmp_path, capsys):
    """The parent showed step 20; that its picture is not here is no loss."""
    frames = Frames(tmp_path / "frames", "key", tmp_path / "animation", after=20)
    frames.started(PLAN | {"first_step": 20})
    for step in (40, 50):
        frames.pictures(step, "samples/source_to_target", picture(step))
    frames.finished(50)
    assert capsys.readouterr().err == "" and len(frames.written) == 1
    with Image.open(frames.written[0]) as made:
        assert made.n_frames == 2


def test_damaged_frames_leave_no_animation(tmp_path):
    folder = train(tmp_path, 50).folder / "source_to_target"
    (folder / "step-000000040.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="step-000000040"):
        assemble(folder, [20, 40, 50], tmp_path / "out.gif", per_epoch=10, columns=COLUMNS)
    assert not (tmp_path / "out.gif").exists()


def test_long_trainings_are_thinned_and_keep_their_end(tmp_path):
    steps = list(range(1, 2 * MOST_FRAMES + 2))
    for step in steps:
        Image.fromarray(np.full((4, 60, 3), step, np.uint8)).save(tmp_path / f"step-{step:09d}.png")
    with Image.open(assemble(tmp_path, steps, tmp_path / "out.gif", per_epoch=1, columns=COLUMNS)) as gif:
        assert gif.n_frames == 67
        gif.seek(66)
        assert gif.width > 100  # the picture is narrower than its caption
        assert np.abs(np.asarray(gif.convert("RGB"))[CAPTION:, :60].astype(int) - steps[-1]).max() <= 4
