"""What `repix verify` says of a result, from other places and after one change of each kind.

    python -m checks.verify                  the whole list
    python -m checks.verify --only package   one of it

A tiny repository is made, its route is run up to evaluate and committed. Each row is a clone of
it, outs and all, with one thing changed, and the verdict of the command in it. The data set is an archive
in git, so that a pixel can change. ``package`` installs another Pillow beside this environment (from
the package registry); ``user`` needs root, ``cores`` needs `taskset`. Exit code 1 unless
every verdict has the exit code and the name that it should have.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from checks.support import route
from checks.support.repository import git

KINDS = ("download", "unpack", "preprocess", "features", "start", "train", "evaluate")
OTHER_PILLOW = "12.3.0"
NOBODY = 65534


def commit(root: Path) -> None:
    """Commit everything that git does not ignore."""
    git(root, "add", "-A")
    git(root, "commit", "-qm", "state")


def replace(path: Path, old: str, new: str) -> None:
    """Replace the first ``old`` of a file, which must be there."""
    text = path.read_text()
    if old not in text:
        raise RuntimeError(f"{path}: no {old!r} to change")
    path.write_text(text.replace(old, new, 1))


def record(root: Path, profile_name: str) -> Path:
    """Make a repository whose committed dvc.lock is that of a tiny cell; return it."""
    route.copy(root)
    wiring = yaml.safe_load((root / "dvc.yaml").read_text())
    wiring["stages"] = {kind: wiring["stages"][kind] for kind in KINDS}
    (root / "dvc.yaml").write_text(yaml.safe_dump(wiring, sort_keys=False))
    (root / ".gitignore").write_text(
        "/data/\n/lineage/\n/runs/\n/translations/\n/plots/\n/reads/\n/.repix/\n__pycache__/\n"
    )
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["run"]["profile"] = profile_name
    route.write_params(root, params)
    route.run(root, "download")
    [drawn] = (root / "data/raw/sample").glob("*.tar.gz")
    shutil.move(drawn, root / "sample.tar.gz")
    params["datasets"]["sample"]["archive"]["urls"] = ["file:sample.tar.gz"]
    route.write_params(root, params)
    # As DVC runs them: download and unpack know no profile, the others enter it before NumPy is imported.
    for kinds in (("download", "unpack"), ("preprocess",), ("features", "start"), ("train", "evaluate")):
        route.run(root, *kinds)
    route.locked(root)
    git(root, "init", "-q")
    commit(root)
    return root


# the changes


def nothing(root: Path) -> None:
    """Change nothing."""


def code(root: Path) -> None:
    """Change one line of the U-Net."""
    replace(
        root / "src/repix/models/generators.py",
        'layers.ReLU(name="bottleneck_relu")',
        'layers.ReLU(0.01, name="bottleneck_relu")',  # low enough to bite in a tiny network
    )
    commit(root)


def param(root: Path) -> None:
    """Change one param."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["models"][route.CELL.split("-")[1]]["loss"]["l1"] = 99
    route.write_params(root, params)
    commit(root)


def pixel(root: Path) -> None:
    """Change one pixel of one image in the archive."""
    from repix.data.images import decode, write

    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(root / "sample.tar.gz", folder)
        image = sorted(Path(folder).rglob("*.png"))[0]
        pixels = decode(image).pixels.copy()
        pixels[0, 0, 0] ^= 1
        write(image, pixels)
        shutil.make_archive(str(root / "sample"), "gztar", folder)
    commit(root)


def byte(root: Path) -> None:
    """Change one byte of a tracked out in the workspace."""
    path = root / "runs" / route.CELL / "last/generator.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Row(NamedTuple):
    """One thing to see: what is changed, where verify runs, and what it must say."""

    change: Callable[[Path], None]
    exit_code: int
    says: str
    where: str = ""
    profile: str = "portable"


ROWS = {
    "nothing": Row(nothing, 0, "L0: all "),
    "path": Row(nothing, 0, "L0: all ", "path"),
    "umask": Row(nothing, 0, "L0: all ", "umask"),
    "user": Row(nothing, 0, "L0: all ", "user"),
    "cores": Row(nothing, 0, "L0: all ", "cores"),
    "threads": Row(nothing, 6, "profile threads: ", "cores", "fast"),
    "code": Row(code, 6, "code src/repix/models/generators.py: "),
    "param": Row(param, 6, "param models.pix2pix_small.loss.l1: 100 -> 99"),
    "pixel": Row(pixel, 6, "download@sample: what its urls lead to is another archive"),
    # The bits are the same; the name of the run, which covers the packages, is not.
    "package": Row(nothing, 3, "package pillow: ", "package"),
    "byte": Row(byte, 8, f"runs/{route.CELL}/last/generator.npz"),
}
WHERE = {
    "": "",
    "path": "in 'another path/with spaces'",
    "umask": "under umask 077",
    "user": "as user nobody",
    "cores": "on one core",
    "package": f"with Pillow {OTHER_PILLOW} installed",
}


def other_environment(folder: Path) -> str:
    """Return the Python of an environment that is this one but for Pillow."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"pillow=={OTHER_PILLOW}"]
    subprocess.run(command, check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Its own packages come first, all others from here.
    (folder / "lib" / version / "site-packages/beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return str(python)


def runs_for_others() -> bool:
    """Return whether this Python is where another user can run it, and not, say, below root's home."""
    try:
        return subprocess.run([sys.executable, "-c", "pass"], user=NOBODY, group=NOBODY, check=False).returncode == 0
    except PermissionError:
        return False


def verify(row: Row, repository: Path, scratch: Path, stage: str | None) -> tuple[int, list[str]] | str:
    """Clone, change, run the command; return exit code and what it said, or why it cannot be run here."""
    root = scratch / ("another path/with spaces" if row.where == "path" else "clone")
    python, extra = sys.executable, {}
    if row.where == "user" and os.getuid() != 0:
        return "SKIPPED: becoming another user needs root"
    if row.where == "user" and not runs_for_others():
        return f"SKIPPED: other users may not run {sys.executable}"
    if row.where == "cores" and not shutil.which("taskset"):
        return "SKIPPED: taskset is not installed"
    shutil.copytree(repository, root, symlinks=True)
    row.change(root)
    if row.where == "package":
        python = other_environment(scratch / "environment")
    if row.where == "umask":
        extra["umask"] = 0o077
    if row.where == "user":
        for path in [scratch, *scratch.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        extra |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    command = [python, "-m", "repix.cli", "verify", *(["--stage", stage] if stage else [])]
    if row.where == "cores":
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "REPIX_"))}
    kept |= {
        "PYTHONPATH": str(root / "src"),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, cwd=root, env=kept, capture_output=True, text=True, **extra)
    said = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()[-3:]
    return done.returncode, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--stage", metavar="S", help="verify no further than this stage: quicker")
    given = parser.parse_args()
    sound = True
    with tempfile.TemporaryDirectory(prefix="repix-verify-") as folder:
        os.chmod(folder, 0o755)  # another user shall get in
        made: dict[str, Path] = {}
        for name in given.only:
            row = ROWS[name]
            if row.profile not in made:
                made[row.profile] = record(Path(folder) / row.profile, row.profile)
            scratch = Path(folder) / name
            scratch.mkdir()
            found = verify(row, made[row.profile], scratch, given.stage)
            shutil.rmtree(scratch)
            head = f"{name}: {(row.change.__doc__ or '').rstrip('.')}"
            print(f"{head}{f', {WHERE[row.where]}' if row.where else ''}; profile {row.profile}", flush=True)
            if isinstance(found, str):
                print(f"    {found}", flush=True)
                continue
            right = found[0] == row.exit_code and any(row.says in line for line in found[1])
            sound &= right
            wanted = "" if right else f"  EXPECTED {row.exit_code} and {row.says!r}"
            print(f"    exit code {found[0]}{wanted}", flush=True)
            for line in found[1]:
                print(f"    {line.replace(folder, '')}", flush=True)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
