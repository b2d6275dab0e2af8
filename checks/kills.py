"""Kill stages, and the replacement of a large folder, at random moments: nothing half-written, nothing unequal.

    python -m checks.kills                         # a few of each: some minutes
    python -m checks.kills --kills 200 --replaced 50 --write

Every stage of the pipeline, on a tiny set, is killed (SIGKILL) at a random time, half of the
times while it writes an out. Afterwards each of its outs is absent or whole, and the next run
ends with the bytes of one that nobody killed. Then a folder of 30 MB is replaced again and
again by processes that are killed, while another looks: it sees one whole version, each time.
(``checks.resume`` kills a training between and within its steps.) Exit code 1 for anything else.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from checks.harness import table, write
from checks.support import route
from repix.errors import UserError
from repix.files import LOOK_SECONDS, atomic_folder, digest_tree
from repix.provenance.pipeline import Stage, stages

FILES, BYTES = 120, 250_000
_REPLACE = """
import sys
from pathlib import Path
from checks.kills import replace
replace(Path(sys.argv[1]), int(sys.argv[2]))
"""


# --- stages


def start(root: Path, stage: Stage) -> subprocess.Popen:
    """Start a stage's script in a copy of the repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    kept |= {"PYTHONPATH": str(root / "src"), "REPIX_TRACKING": "off", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *shlex.split(stage.cmd)[1:]]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=root, env=kept | {"DVC_ROOT": str(root)}, stderr=subprocess.PIPE, **quiet)


def finish(root: Path, stage: Stage) -> float:
    """Run a stage to its end; return its seconds.

    Raises:
        UserError: it failed.
    """
    begun = time.monotonic()
    process = start(root, stage)
    said = process.communicate()[1].decode(errors="replace")
    if process.returncode:
        raise UserError(f"{stage.name} ended with {process.returncode}: {said[-1000:]}")
    return time.monotonic() - begun


def digests(root: Path, stage: Stage) -> dict[str, str | None]:
    """Return out -> digest of its bytes, None where it is absent."""
    return {out: digest_tree(root / out) if (root / out).exists() else None for out in stage.outs}


def writes(root: Path, stage: Stage) -> bool:
    """Return whether a temporary file or folder lies beside one of the outs."""
    places = {(root / out).parent for out in stage.outs}
    return any(next(place.glob(".*.tmp*"), None) is not None for place in places if place.is_dir())


def kill(root: Path, stage: Stage, seconds: float, chance: random.Random) -> str:
    """Start a stage, kill it, and return in what it was interrupted: ``writing``, ``working``, or ``ended`` before."""
    at, while_writing = chance.uniform(0, seconds), chance.random() < 0.5
    before = writes(root, stage)  # what another kill left
    begun, process = time.monotonic(), start(root, stage)
    until = begun + (seconds * 3 + 30 if while_writing and not before else at)
    while process.poll() is None and time.monotonic() < until:
        if while_writing and not before and writes(root, stage):
            time.sleep(chance.uniform(0, 0.02))
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ended = process.returncode == 0
    return "ended" if ended else "writing" if writes(root, stage) else "working"


def kill_stages(root: Path, count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return a row for each stage, after ``count`` kills over all of them."""
    found = list(stages(root))
    seconds, whole = {}, {}
    for stage in found:
        seconds[stage.name] = finish(root, stage)
        whole[stage.name] = digests(root, stage)
    rows = []
    for index, stage in enumerate(found):
        moments: Counter[str] = Counter()
        partial = unequal = 0
        kills = count // len(found) + (index < count % len(found))
        for number in range(kills):
            if chance.random() < 0.5:
                for out in stage.outs:
                    if (root / out).is_dir():
                        shutil.rmtree(root / out)
                    else:
                        (root / out).unlink(missing_ok=True)
            moments[kill(root, stage, seconds[stage.name], chance)] += 1
            for out, digest in digests(root, stage).items():
                if digest not in (None, whole[stage.name][out]):
                    partial += 1
                    print(f"{stage.name}: {out} is neither absent nor whole", file=sys.stderr)
            # The next kill often falls on what this one left; now and then a run goes to its end.
            if number % 4 == 3 or number == kills - 1:
                finish(root, stage)
                if digests(root, stage) != whole[stage.name] or writes(root, stage):
                    unequal += 1
                    print(f"{stage.name}: another result, or leftovers, after kills", file=sys.stderr)
        told = {key: moments[key] for key in ("working", "writing", "ended")}
        rows.append({"what": stage.name, "kills": kills, **told, "partial": partial, "unequal": unequal})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


# --- a folder


def replace(folder: Path, version: int) -> None:
    """Replace a folder by one of :data:`FILES` files that all hold ``version``."""
    os.sync = lambda: None  # a power cut is not what is tried here
    print("begun", flush=True)
    with atomic_folder(folder) as temporary:
        for number in range(FILES):
            (temporary / f"{number:04d}").write_bytes(version.to_bytes(4, "big") * (BYTES // 4))


def look(folder: Path) -> int | None:
    """Return the version that a folder holds; None where there is none, -1 where it is no whole one."""
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        names, versions = os.listdir(place), set()
        for name in names:
            with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=place)) as stream:
                data = stream.read()
            version = data[:4]
            versions.add(int.from_bytes(version, "big") if data == version * (BYTES // 4) else -1)
        return versions.pop() if len(names) == FILES and len(versions) == 1 else -1
    except OSError:
        return -1
    finally:
        os.close(place)


def kill_replacing(folder: Path, count: int, chance: random.Random) -> dict[str, Any]:
    """Replace a folder by processes of which ``count`` are killed, while a thread looks; return what it saw."""
    replace(folder, 0)
    seen: Counter[str] = Counter()
    over, newest = threading.Event(), [0]

    def watch() -> None:
        last = 0
        while not over.is_set():
            version = look(folder)
            kind = "absent" if version is None else "partial" if version < 0 else "whole"
            if kind == "whole":
                kind = "older again" if version < last else kind
                last = version
            seen[kind] += 1

    reader = threading.Thread(target=watch, daemon=True)
    reader.start()
    moments: Counter[str] = Counter()
    longest = 0.0
    for version in range(1, count + count // 5 + 2):
        newest[0] = version
        process = subprocess.Popen([sys.executable, "-c", _REPLACE, str(folder), str(version)], stdout=subprocess.PIPE)
        process.stdout.readline()
        begun = time.monotonic()
        if version % 6 == 1:  # one of six goes to its end
            process.communicate()
            longest = max(longest, time.monotonic() - begun)
            if look(folder) != version or process.returncode:
                seen["unequal"] += 1
            continue
        time.sleep(chance.uniform(0, max(longest - LOOK_SECONDS, 0) + 0.05))  # behind that it only waits, and clears up
        process.kill()
        process.communicate()
        moments[
            "ended" if process.returncode == 0 else "replaced" if look(folder) == version else "kept the old one"
        ] += 1
    over.set()
    reader.join()
    replace(folder, newest[0] + 1)
    left = [path.name for path in folder.parent.iterdir() if path != folder]
    unequal = seen["unequal"] + (look(folder) != newest[0] + 1) + bool(left)
    return {
        "what": f"a folder of {FILES * BYTES // 10**6} MB", "kills": sum(moments.values()), "moments": dict(moments),
        "looks": sum(seen.values()), "partial": seen["partial"] + seen["absent"] + seen["older again"],
        "unequal": unequal,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=16, help="of stages (default: %(default)s)")
    parser.add_argument("--replaced", type=int, default=15, help="kills of a replacement (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/trust.md")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        rows = []
        if given.kills:
            root = route.copy(Path(name) / "repository")
            rows = kill_stages(root, given.kills, chance)
        (Path(name) / "place").mkdir()
        replaced = kill_replacing(Path(name) / "place" / "folder", given.replaced, chance) if given.replaced else None
    head = ["stage", "kills", "working", "writing", "ended before", "outs half-written", "results unequal"]
    text = table(head, [list(row.values()) for row in rows]) if rows else ""
    if replaced:
        moments = ", ".join(f"{number} {kind}" for kind, number in replaced["moments"].items())
        text += f"\n\nReplacing {replaced['what']}: {replaced['kills']} kills ({moments}), {replaced['looks']} looks, "
        text += f"of which {replaced['partial']} saw something other than one whole version, not older than the last; "
        text += f"{replaced['unequal']} results unequal."
    print(text)
    if given.write:
        write("trust", "kills", f"\n{text}\n")
    sys.exit(1 if any(row["partial"] or row["unequal"] for row in [*rows, *([replaced] if replaced else [])]) else 0)


if __name__ == "__main__":
    main()
