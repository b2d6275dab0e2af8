"""A training's progress as an animation: its sample pictures, one frame per look.

Frames are a function of the weights at their step, so a training that was interrupted leaves
the same ones. But they live in the ignored work folder, from which they may be deleted: the
animation is therefore no out of the pipeline, and is left out with one line where frames lack.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repix.config.models import Recipe
from repix.errors import UserError, told
from repix.files import atomic_path
from repix.training.observer import Observer

HOLD_MS, LAST_MS = 250, 2000  # how long a frame is shown, and the last one
MOST_FRAMES = 100
LINE = 14  # px of a line of the caption
CAPTION = 2 * LINE  # px above the picture: when it was, and what its columns are
COLUMNS = ("source", "output", "target")


def picture_steps(epochs: int, every: int, per_epoch: int) -> list[int]:
    """Return the steps at which a training shows pictures: each ``every`` epochs and at the end."""
    return [epoch * per_epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]


class Frames(Observer):
    """Keeps each sample picture as ``<folder>/<run_key>/<series>/step-<step>.png``, and animates them at the end.

    Args:
        folder: an ignored folder, ``.repix/frames``.
        run_key: digest of everything that determines the training.
        animations: where ``<cell>/<run_key>-<translator>.gif`` goes when the training has finished,
            with 12 digits of the run key; ``.repix/animation``.
        after: the step that it goes on from, of a parent whose schedule it continues: pictures up to it are the
            parent's.

    Attributes:
        written: the animations, once the training has finished.
    """

    def __init__(self, folder: str | Path, run_key: str, animations: str | Path, *, after: int = 0):
        self.folder, self.animations, self.run_key = Path(folder) / run_key, Path(animations), run_key
        self.after = after
        self.written: list[Path] = []
        self._plan: dict[str, Any] = {}

    def started(self, plan: dict[str, Any]) -> None:
        self._plan = plan

    def pictures(self, step: int, name: str, image: np.ndarray) -> None:
        from PIL import Image

        series = name.removeprefix("samples/").replace("/", "-")
        with atomic_path(self.folder / series / f"step-{step:09d}.png") as path:
            Image.fromarray(image).save(path, "PNG")

    def finished(self, step: int) -> None:
        recipe = Recipe.model_validate(self._plan["recipe"])
        per_epoch = self._plan["steps_per_epoch"]
        shown = picture_steps(self._plan["epochs"], recipe.picture_every, per_epoch)
        steps = [step for step in shown if step > self.after]
        # What lies there, not what this process has shown: it may have had only the last step to do.
        for folder in sorted(self.folder.glob("*")) or [self.folder]:
            out = self.animations / self._plan["cell"] / f"{self.run_key[:12]}-{folder.name}.gif"
            try:
                columns = COLUMNS if self._plan["paired"] else COLUMNS[:2]
                self.written.append(assemble(folder, steps, out, per_epoch=per_epoch, columns=columns))
            except UserError as error:
                print(f"repix: {told(error)}", file=sys.stderr)


def assemble(folder: Path, steps: list[int], out: Path, *, per_epoch: int, columns: Sequence[str]) -> Path:
    """Write frames as a GIF that loops, captioned; equal frames give equal bytes. Return its path.

    Of more than 100 frames every second (third ...) and the last one are taken. One palette, from
    all of them, serves them all, so that still parts stay still.

    Args:
        folder: of ``step-<step>.png``.
        steps: the steps that should be there, in order.
        out: the GIF.
        per_epoch: steps in an epoch, for the caption.
        columns: what stands side by side in a frame, for the caption; all are equally wide.

    Raises:
        UserError: a frame is missing or damaged; nothing is written.
    """
    from PIL import Image, ImageDraw, ImageFont

    missing = [step for step in steps if not (folder / f"step-{step:09d}.png").is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(steps)} sample pictures are not there (deleted?), the first at step "
            f"{missing[0]}; no animation is written, a training from its start makes them again"
        )
    stride = -(-len(steps) // MOST_FRAMES)
    taken = steps[::-1][::stride][::-1]  # counted from the end, which is always shown
    font = ImageFont.load_default_imagefont()  # its own bitmap: no font of the machine
    captions = [f"epoch {step // per_epoch}, step {step}" for step in taken]
    frames = []
    for step, caption in zip(taken, captions, strict=True):
        path = folder / f"step-{step:09d}.png"
        try:
            with Image.open(path, formats=("PNG",)) as image:
                picture = image.convert("RGB")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error}); delete it, no animation is written") from None
        apart = picture.width / len(columns)
        if max(map(font.getlength, columns)) + 4 <= apart:
            named = [(round(number * apart), name) for number, name in enumerate(columns)]
        else:  # the columns are narrower than their names
            named = [(0, ", ".join(columns))]
        lines = [(0, 0, captions[-1]), *((left, LINE, name) for left, name in named)]  # the last step is the longest
        width = max(picture.width, *(left + math.ceil(font.getlength(text)) + 4 for left, _, text in lines))
        frame = Image.new("RGB", (width, picture.height + CAPTION), "white")
        frame.paste(picture, (0, CAPTION))
        for left, top, text in ((0, 0, caption), *lines[1:]):
            ImageDraw.Draw(frame).text((left + 2, top + 1), text, "black", font)
        frames.append(frame)
    # Few pixels of every frame tell what colours there are.
    sample = np.concatenate([np.asarray(frame).reshape(-1, 3)[:: max(1, len(frames))] for frame in frames])
    palette = Image.fromarray(sample[None]).quantize(256, Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[HOLD_MS] * (len(indexed) - 1) + [LAST_MS],
        loop=0,
        optimize=False,
    )
    with atomic_path(out) as path:
        path.write_bytes(buffer.getvalue())
    return out
