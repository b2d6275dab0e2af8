"""Play a newcomer: from a drawn folder of images to an ONNX file that plain onnxruntime runs, in fresh clones.

    python -m checks.newcomer --quick     # one epoch, without the criteria of the picture: only see that it runs
    python -m checks.newcomer --write     # put the table into docs/tutorial.md

Each route draws its images, clones the repository's last commit into an empty folder, and types what the pages say:
`repix add`, the command that it prints, and the block of docs/export.md for onnxruntime, with its two paths changed.
The block runs outside the project, where nothing of repix, Keras or TensorFlow may be imported. Keys are those of the
commands and of the two paths, each with its Enter; the environment is there already, and no YAML file is opened.
Required of each: at most three commands, the right layout found, a picture of the exported size that is no plain one.

Of 30 pairs of 200 x 300 px with flat shapes the picture is also measured: inside the shapes, away from their edges,
its L1 has to be below half of that of a picture that has outlines and nothing in them; and on the test images L1 and
SSIM have to be better than those of the untrained generator, the median image and the nearest neighbour
(`repix baselines`). The other routes are trained for one epoch.
Exit code 1 where anything is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from checks.harness import ROOT, table, write
from repix.errors import UserError

NAME = "mine"  # of the data set
MOST = 3  # commands
COLOURS = ((200, 40, 40), (40, 160, 60), (40, 80, 200), (230, 190, 40))
GROUND = (225, 220, 210)
FOREIGN = ("repix", "keras", "tensorflow")
# What the same took in the release before `repix add`, as measured then.
BEFORE = ["30 pairs, before `repix add`", None, 7, 400, 338, None]
HEAD = ("given", "model", "commands", "keys", "keys of YAML", "seconds")
PREDICTORS = ("untrained generator", "median image", "nearest neighbour", "constant colour per label")


def shapes(rng: np.random.Generator, size: tuple[int, int] = (200, 300)) -> tuple[Image.Image, Image.Image]:
    """Return a label map and its photo: filled shapes, one colour a label, with some noise."""
    height, width = size
    label, photo = Image.new("L", (width, height), 0), Image.new("RGB", (width, height), GROUND)
    for _ in range(rng.integers(3, 7)):
        wide, high = (int(n) for n in rng.integers(min(size) // 6, min(size) // 2, 2))
        left, top = int(rng.integers(0, width - wide)), int(rng.integers(0, height - high))
        kind = int(rng.integers(len(COLOURS)))
        for image, fill in ((label, 60 * (kind + 1)), (photo, COLOURS[kind])):
            draw = ImageDraw.Draw(image)
            (draw.ellipse if kind % 2 else draw.rectangle)((left, top, left + wide, top + high), fill=fill)
    noisy = np.asarray(photo, np.int16) + rng.integers(-8, 9, (height, width, 3))
    return label, Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def draw_pairs(folder: Path) -> Path:
    """Draw 30 pairs in two folders, told apart by how their names end, in files of several formats."""
    rng = np.random.default_rng(5)
    for kind in ("label", "photo"):
        (folder / "pairs" / kind).mkdir(parents=True)
    for number in range(30):
        label, photo = shapes(rng)
        label.save(folder / "pairs" / "label" / f"{number}_label.png")
        end = ("jpg", "png", "JPEG", "bmp")[number % 4]
        photo.save(
            folder / "pairs" / "photo" / f"{number}_photo.{end}", **({} if end in ("png", "bmp") else {"quality": 95})
        )
    return folder / "pairs"


def draw_unpaired(folder: Path) -> Path:
    """Draw trainA, trainB, testA and testB as CycleGAN's archives have them: no name of one in another."""
    rng = np.random.default_rng(6)
    for split, count in (("train", 8), ("test", 4)):
        for side in (0, 1):
            place = folder / "sets" / f"{split}{'AB'[side]}"
            place.mkdir(parents=True)
            for number in range(count):
                shapes(rng, (64, 64))[side].convert("RGB").save(place / f"n0{side}_{number + 17 * side}.jpg")
    return folder / "sets"


def draw_16_bit(folder: Path) -> Path:
    """Draw grey TIFF files of 16 bits: a blurred and a sharp one each."""
    import tifffile

    rng = np.random.default_rng(7)
    for side in ("blurred", "sharp"):
        (folder / "scans" / side).mkdir(parents=True)
    for number in range(16):
        sharp = shapes(rng, (64, 64))[0]
        for side, image in (("sharp", sharp), ("blurred", sharp.filter(ImageFilter.GaussianBlur(2)))):
            tifffile.imwrite(folder / "scans" / side / f"{number:02}.tif", np.asarray(image, np.uint16) * 257)
    return folder / "scans"


def draw_archive(folder: Path) -> Path:
    """Draw pairs side by side, in an archive with folders around its splits and what systems leave beside them."""
    rng = np.random.default_rng(8)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr("delivery/READ ME.txt", "pictures of May")
        archive.writestr("__MACOSX/delivery/v2/train/._0.png", b"\0\5\x16\7")
        for split, count in (("train", 12), ("val", 3), ("test", 3)):
            for number in range(count):
                label, photo = shapes(rng, (64, 64))
                both = Image.new("RGB", (128, 64))
                both.paste(label.convert("RGB"), (0, 0))
                both.paste(photo, (64, 0))
                both.save(folder / "both.png")
                archive.write(folder / "both.png", f"delivery/v2/{split}/{number}.png")
    return folder / "set.zip"


def draw_photos(folder: Path) -> Path:
    """Draw photos by themselves, as a camera names them."""
    rng = np.random.default_rng(9)
    (folder / "photos").mkdir()
    for number in range(20):
        shapes(rng, (72, 80))[1].save(folder / "photos" / f"IMG_{number:04}.JPG", quality=95)
    return folder / "photos"


class Route(NamedTuple):
    """What somebody has, and the picture that the exported model is shown."""

    what: str
    draw: Callable[[Path], Path]
    layout: str
    picture: Callable[[Path, Path], Path]  # the given, the clone -> the file
    measured: bool = False


def test_name(clone: Path) -> str:
    """Return the name of a test image of the only cell."""
    return sorted(clone.glob("translations/*/source_to_target/*.png"))[0].stem


ROUTES = {
    "pairs": Route(
        "30 pairs of 200 x 300 px",
        draw_pairs,
        "folders",
        lambda given, clone: next(given.glob(f"label/{re.match('[0-9]+', test_name(clone))[0]}_label.*")),
        True,
    ),
    "unpaired": Route(
        "trainA and trainB", draw_unpaired, "unaligned", lambda given, _: sorted(given.glob("testA/*"))[0]
    ),
    "tiff": Route("grey TIFF of 16 bits", draw_16_bit, "folders", lambda given, _: sorted(given.glob("blurred/*"))[0]),
    "archive": Route(
        "an archive with a folder around it",
        draw_archive,
        "aligned",
        lambda _, clone: left_half(sorted(clone.glob(f"data/images/{NAME}/**/test/*.png"))[0]),
    ),
    "photos": Route(
        "photos, for Lab", draw_photos, "single", lambda given, clone: lightness(sorted(given.glob("*"))[0], clone)
    ),
}


def lightness(path: Path, clone: Path) -> Path:
    """Write the lightness of a photo as docs/export.md says; return its file."""
    from skimage.color import rgb2lab

    with Image.open(path) as photo:
        light = rgb2lab(np.asarray(photo.convert("RGB")))[..., 0]
    Image.fromarray(np.round(light * 2.55).astype(np.uint8)).save(clone / "light.png")
    return clone / "light.png"


def left_half(path: Path) -> Path:
    """Write the source of two images side by side beside them; return its file."""
    with Image.open(path) as both:
        half = both.crop((0, 0, both.width // 2, both.height))
    place = path.parents[4] / "left.png"
    half.save(place)
    return place


class Typist:
    """Who types commands in a folder, and counts them."""

    def __init__(self, folder: Path, clone: Path):
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "REPIX_", "PYTHON"))}
        self.environment = kept | {"PATH": path, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.folder, self.clone, self.commands, self.keys = folder, clone, 0, 0

    def type(self, command: str, more: str = "", outside: bool = False) -> str:
        """Run a command line, in the clone or outside; return what it said.

        Args:
            command: what is typed.
            more: what is typed besides, such as the paths in a copied block.

        Raises:
            UserError: it failed.
        """
        self.commands += 1
        self.keys += len(command) + 1 + len(more)
        environment = self.environment if outside else self.environment | {"PYTHONPATH": str(self.clone / "src")}
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder if outside else self.clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(f"`{command}` ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


def block(model: Path, picture: Path, bits: int) -> tuple[str, str]:
    """Return the block of docs/export.md for onnxruntime with other paths, and what of it is typed.

    Raises:
        UserError: the page has no such block any more.
    """
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    found = next(
        (b for b in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "onnxruntime" in b), ""
    )
    typed = {"exports/sample-pix2pix_small-0/source_to_target/model.onnx": str(model), "label.png": str(picture)}
    if bits == 16:
        typed |= {"127.5": "32767.5", "np.uint8": "np.uint16"}
    for old, new in typed.items():
        if old not in found:
            raise UserError(f"docs/export.md: its block for onnxruntime does not name {old}")
        found = found.replace(old, new)
    return found, "".join(typed.values())


# After the block: what it made, and that nothing of the project was there.
AFTER = """
import sys
np.save("made.npy", made)
foreign = sorted(set({foreign}) & set(sys.modules))
sys.exit(f"imported: {{foreign}}" if foreign else 0)
"""


def interior(label: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return where a label map's shapes are, without a margin of 9 px around every edge."""
    label = label.resize(size[::-1], Image.Resampling.NEAREST)
    flat = label.filter(ImageFilter.MinFilter(19)), label.filter(ImageFilter.MaxFilter(19))
    low, high = (np.asarray(one) for one in flat)
    return (low == high) & (low > 0)


def filled(made: np.ndarray, given: Path, picture: Path) -> tuple[float, float]:
    """Return L1 inside the shapes, on [0, 1]: of the picture, and of outlines with the ground in them."""
    size = made.shape[:2]
    number = picture.stem.removesuffix("_label")
    photo = Image.open(next(given.glob(f"photo/{number}_photo.*"))).convert("RGB")
    target = np.asarray(photo.resize(size[::-1]), np.float64) / 255
    where = interior(Image.open(picture), size)
    outlines = np.broadcast_to(np.array(GROUND) / 255, target.shape)
    return tuple(float(np.abs(one - target)[where].mean()) for one in ((made + 1) / 2, outlines))


def not_beaten(clone: Path, environment: dict[str, str]) -> tuple[list[list[Any]], list[str]]:
    """Return rows of metric, the cell's score and each baseline's, and the baselines that are not worse.

    The best constant colour per label is shown alone: it is the right answer for flat shapes, but for the noise.
    """
    command = [sys.executable, "-m", "repix.cli", "baselines", NAME, "--json"]
    environment = environment | {"PYTHONPATH": str(clone / "src")}
    said = subprocess.check_output(command, cwd=clone, env=environment, text=True)
    margins = json.loads(said[said.index("[") :])[0]["margins"]
    rows, bad = [], []
    for metric, better in (("l1", -1), ("ssim", 1)):
        here = {one["predictor"]: one for one in margins if one["metric"] == metric}
        own = {round(one["score"] + better * one["margin"], 6) for one in here.values()}
        rows += [[metric, *own, *(here[name]["score"] for name in PREDICTORS)]]
        bad += [f"{metric}: no better than {name}" for name in PREDICTORS[:-1] if here[name]["margin"] <= 0]
    return rows, bad


def played(route: Route, folder: Path, quick: bool) -> dict[str, Any]:
    """Play a route in an empty folder; return what it took and what is not kept (``bad``).

    Raises:
        UserError: a command failed.
    """
    begun, bad = time.perf_counter(), []
    clone = folder / "repix"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    given = route.draw(folder)
    given = Path(shutil.move(given, clone / given.name))
    typist = Typist(folder, clone)
    said = typist.type(f"repix add {given.name} --name {NAME}{' --no-measure' * quick}")
    if f"layout {route.layout}:" not in said:
        bad.append(f"taken for another layout than {route.layout}: {said.splitlines()[0]}")
    command = re.search(r"^next: (.*)$", said, re.MULTILINE)[1]
    model = re.search(r"run\.models=\[(\w+)\]", command)[1]
    if quick or not route.measured:  # what is short to type is short to run
        command = re.sub(r" -S models\S+$", "", command) + f" -S models.{model}.epochs=1"
    typist.type(command)
    cell = f"{NAME}-{model}-0"
    (folder / "elsewhere").mkdir()
    typist.folder = folder / "elsewhere"
    onnx = clone / "exports" / cell / "source_to_target" / "model.onnx"
    text, typed = block(onnx, picture := route.picture(given, clone), 16 if "16" in route.what else 8)
    (typist.folder / "try.py").write_text(text + AFTER.format(foreign=FOREIGN), encoding="utf-8")
    # The paths are typed as short as they are to somebody who stands beside the files.
    for path in (onnx, picture):
        typed = typed.replace(str(path), os.path.relpath(path, clone))
    typist.type("python try.py", typed, outside=True)
    made = np.load(typist.folder / "made.npy")[0]
    kept = json.loads((clone / "exports" / cell / "export.json").read_text(encoding="utf-8"))
    if list(made.shape[:2]) != list(kept["crop_size"]) or not np.isfinite(made).all() or np.ptp(made) < 0.05:
        bad.append(f"the picture is {made.shape}, {np.ptp(made):.3f} from darkest to lightest")
    if typist.commands > MOST:
        bad.append(f"{typist.commands} commands")
    found = {
        "row": [route.what, model, typist.commands, typist.keys, 0, round(time.perf_counter() - begun)],
        "bad": bad,
    }
    if route.measured and not quick:
        inside, outlines = filled(made, given, picture)
        if inside > outlines / 2:
            bad.append(f"not filled in: L1 inside the shapes is {inside:.4f}, that of outlines alone {outlines:.4f}")
        rows, short = not_beaten(clone, typist.environment)
        bad += short
        found["scores"] = [["L1 inside the shapes of one picture", inside, None, None, None, None, outlines]]
        found["scores"] += [[f"{metric} of the test images", *values, None] for metric, *values in rows]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROUTES, action="append", help="default: all")
    parser.add_argument("--quick", action="store_true", help="one epoch, nothing timed, no criteria of the picture")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep what was found; routes that it has are not played"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/tutorial.md")
    given = parser.parse_args()
    found = json.loads(given.json.read_text(encoding="utf-8")) if given.json and given.json.exists() else {}
    if given.write and (given.quick or not found.keys() | set(given.only or ROUTES) >= ROUTES.keys()):
        parser.error("--write takes all routes, in full")
    for name in (name for name in given.only or ROUTES if name not in found):
        route = ROUTES[name]
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = played(route, Path(folder), given.quick)
            except UserError as error:
                found[name] = {"row": [route.what, *[None] * 5], "bad": [str(error)]}
        print("  ".join(map(str, found[name]["row"])), *found[name]["bad"], flush=True)
        if given.json and not found[name]["bad"]:
            sound = {key: one for key, one in found.items() if not one["bad"]}
            given.json.write_text(json.dumps(sound, indent=2), encoding="utf-8")
    text = table(HEAD, [BEFORE, *(found[name]["row"] for name in ROUTES if name in found)])
    for one in found.values():
        if "scores" in one:
            text += f"\n\n{table(['', 'made', *PREDICTORS, 'outlines alone'], one['scores'])}"
    print(f"\n{text}")
    bad = [f"{name}: {line}" for name, one in found.items() for line in one["bad"]]
    print("\n".join(bad), file=sys.stderr)
    if given.write and not bad:
        write("tutorial", "newcomer", f"\n{text}\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
